//! A file under construction, on glommio's executor or on a plain thread: the same steps, awaited there,
//! blocking here.

use super::kernel;
use crate::log::Buffer;
use glommio::io::{DmaFile, OpenOptions};
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
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

pub enum BulkFile {
    Glommio(DmaFile),
    Thread { file: File, direct: bool },
}

const MODE: u32 = 0o600;

impl BulkFile {
    /// Creates the file, or empties the one there is.
    pub async fn create(medium: Medium, path: &Path, direct: bool) -> io::Result<BulkFile> {
        match medium {
            Medium::Glommio => {
                let mut options = OpenOptions::new();
                options.write(true).read(true).create(true).truncate(true).mode(MODE);
                Ok(BulkFile::Glommio(options.dma_open(path).await?))
            }
            Medium::Thread => {
                let mut options = File::options();
                options.write(true).create(true).truncate(true).mode(MODE);
                if direct {
                    options.custom_flags(kernel::DIRECT);
                }
                Ok(BulkFile::Thread { file: options.open(path)?, direct })
            }
        }
    }

    /// Writes whole blocks at a whole block.
    pub async fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            BulkFile::Glommio(file) => {
                let mut buffer = file.alloc_dma_buffer(bytes.len());
                buffer.as_bytes_mut()[..bytes.len()].copy_from_slice(bytes);
                let written = file.write_at(buffer, at).await?;
                // A part only means that the rest did not fit.
                if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
            }
            BulkFile::Thread { file, direct: true } => {
                let mut buffer = Buffer::with_capacity(bytes.len());
                buffer.extend(bytes);
                file.write_all_at(&buffer, at)
            }
            BulkFile::Thread { file, direct: false } => file.write_all_at(bytes, at),
        }
    }

    pub async fn truncate(&self, bytes: u64) -> io::Result<()> {
        match self {
            BulkFile::Glommio(file) => Ok(file.truncate(bytes).await?),
            BulkFile::Thread { file, .. } => file.set_len(bytes),
        }
    }

    pub async fn sync(&self) -> io::Result<()> {
        match self {
            BulkFile::Glommio(file) => Ok(file.fdatasync().await?),
            BulkFile::Thread { file, .. } => file.sync_data(),
        }
    }

    pub async fn close(self) -> io::Result<()> {
        match self {
            BulkFile::Glommio(file) => Ok(file.close().await?),
            BulkFile::Thread { .. } => Ok(()),
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
