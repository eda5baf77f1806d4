//! A file under construction, on glommio's executor or on a plain thread: the same steps, awaited there,
//! blocking here.

use super::files::Files;
use super::kernel;
use crate::log::Buffer;
use glommio::io::{DmaFile, OpenOptions};
use std::cell::Cell;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

/// What runs the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Glommio,
    Thread,
}

impl Medium {
    pub async fn pause(self, span: Duration) {
        match self {
            Medium::Glommio => {
                glommio::timer::sleep(span).await;
            }
            Medium::Thread => std::thread::sleep(span),
        }
    }
}

pub struct BulkFile<'a> {
    file: Open,
    files: &'a Files,
    path: PathBuf,
    /// Whether something was written since the last sync.
    is_dirty: Cell<bool>,
}

enum Open {
    /// The writes go by a descriptor of their own, and hold the thread up, which has nothing else to do: for its
    /// own direct writes glommio 0.9 goes round without rest until they are done (measured: a whole CPU), even
    /// where the device has no queues to poll, since its probe takes a read of an empty file for a yes.
    Glommio {
        file: DmaFile,
        writes: File,
    },
    Thread(File),
}

/// A file under construction whose content is durable. Nothing else makes one, and nothing without one is given
/// its final name.
pub struct Durable(PathBuf);

impl Durable {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

const MODE: u32 = 0o600;

impl<'a> BulkFile<'a> {
    /// Creates the file, or empties the one there is.
    pub async fn create(medium: Medium, files: &'a Files, path: &Path) -> io::Result<BulkFile<'a>> {
        let file = match medium {
            Medium::Glommio => {
                let mut options = OpenOptions::new();
                options.write(true).read(true).create(true).truncate(true).mode(MODE);
                let file = options.dma_open(path).await?;
                Open::Glommio { file, writes: files.options(true).open(path)? }
            }
            Medium::Thread => {
                let mut options = File::options();
                options.write(true).create(true).truncate(true).mode(MODE);
                if files.is_direct() {
                    options.custom_flags(kernel::DIRECT);
                }
                Open::Thread(options.open(path)?)
            }
        };
        Ok(BulkFile { file, files, path: path.to_path_buf(), is_dirty: Cell::new(false) })
    }

    /// Writes whole blocks at a whole block.
    pub async fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if !self.is_dirty.replace(true) {
            self.files.tell("file written", &self.path);
        }
        let file = match &self.file {
            Open::Glommio { writes, .. } => writes,
            Open::Thread(file) => file,
        };
        if !self.files.is_direct() {
            return file.write_all_at(bytes, at);
        }
        let mut buffer = Buffer::with_capacity(bytes.len());
        buffer.extend(bytes);
        file.write_all_at(&buffer, at)
    }

    pub async fn truncate(&self, bytes: u64) -> io::Result<()> {
        match &self.file {
            Open::Glommio { file, .. } => Ok(file.truncate(bytes).await?),
            Open::Thread(file) => file.set_len(bytes),
        }
    }

    /// Makes the content durable, and closes the file.
    pub async fn finish(self) -> io::Result<Durable> {
        match &self.file {
            Open::Glommio { file, .. } => file.fdatasync().await?,
            Open::Thread(file) => file.sync_data()?,
        }
        self.files.tell("file synced", &self.path);
        let path = self.path.clone();
        self.close().await?;
        Ok(Durable(path))
    }

    pub async fn close(self) -> io::Result<()> {
        match self.file {
            Open::Glommio { file, .. } => Ok(file.close().await?),
            Open::Thread(_) => Ok(()),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on the calling thread, which parks while there is nothing to do.
pub fn run_here<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::super::placement::executor;
    use super::*;
    use crate::limits::BLOCK_BYTES;
    use glommio::Placement;
    use std::os::fd::{AsRawFd, RawFd};

    /// On both media, with a store of its own; the executor only where it can be had.
    fn on_each(test: impl AsyncFn(Medium, Files)) {
        let directory = tempfile::tempdir().unwrap();
        let files = |name: &str| Files::open(directory.path().join(name)).unwrap();
        run_here(test(Medium::Thread, files("thread")));
        match executor(Placement::Unbound) {
            Ok(executor) => executor.run(test(Medium::Glommio, files("glommio"))),
            Err(why) => eprintln!("SKIPPED on the executor, which cannot start here: {why}"),
        }
    }

    async fn begun(medium: Medium, files: &Files) -> BulkFile<'_> {
        BulkFile::create(medium, files, &files.path("a.new")).await.unwrap()
    }

    /// What glommio's executor gets to write it waits for without rest, and uses up a CPU meanwhile. What is done
    /// when it is first asked for was left to nobody.
    #[test]
    fn a_write_is_not_left_to_the_executor() {
        on_each(async |medium, files| {
            let file = begun(medium, &files).await;
            let mut block = Buffer::with_capacity(BLOCK_BYTES);
            block.fill_to(BLOCK_BYTES);
            {
                let mut write = std::pin::pin!(file.write(&block, 0));
                let asked = write.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(asked, Poll::Ready(Ok(()))), "{medium:?}: {asked:?}");
            }
            file.finish().await.unwrap();
            assert_eq!(std::fs::read(files.path("a.new")).unwrap(), [0; BLOCK_BYTES]);
        });
    }

    /// A pipe is a file that cannot be made durable: the kernel refuses to sync it.
    #[test]
    fn what_cannot_be_made_durable_is_not_finished() {
        on_each(async |medium, files| {
            let file = begun(medium, &files).await;
            let descriptor: RawFd = match &file.file {
                Open::Glommio { file, .. } => file.as_raw_fd(),
                Open::Thread(file) => file.as_raw_fd(),
            };
            let (_reads, writes) = std::io::pipe().unwrap();
            // SAFETY: both are open; the file goes on with the pipe under its own number.
            assert_eq!(unsafe { libc::dup2(writes.as_raw_fd(), descriptor) }, descriptor);
            assert!(file.finish().await.is_err(), "{medium:?}");
        });
    }
}
