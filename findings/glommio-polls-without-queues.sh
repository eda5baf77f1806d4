#!/usr/bin/env bash
# A glommio executor uses up a CPU while one of its direct writes is under way, or sleeps meanwhile, depending on
# which file of the disk it opened first.
#
# Versions: glommio 0.9.0; for the probe beside it io-uring 0.7.15; ext4 or xfs on a disk without queues to poll.
# Behaviour: at the first file of each disk a thread opens, glommio asks whether the disk can be polled (IOPOLL), by
#   a polled read of that file. A new file has nothing to read, so the kernel answers 0 before it comes to the disk,
#   which glommio takes for a yes; of a file with content the same read fails with EOPNOTSUPP, which is right. After
#   the wrong yes all direct reads and writes of that thread go to a ring that must be polled, and its executor goes
#   round until they are done. Writing a new file is what most programs that use it begin with.
# Seen (64 writes of 1 MiB each into a new file; CPU time of the executor's thread):
#   polled read of an empty file: 0, of one with content: EOPNOTSUPP
#   CPU of the same writes, the empty file opened first: more than three times that when a full one was
#     (24 to 343 ms against 3 or 4)
set -euo pipefail

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

cat >Cargo.toml <<'END'
[package]
name = "finding"
edition = "2021"

[dependencies]
glommio = "=0.9.0"
io-uring = "=0.7.15"
libc = "0.2"
END
mkdir src
cat >src/main.rs <<'END'
use glommio::io::{DmaFile, OpenOptions};
use glommio::{LocalExecutorBuilder, Placement};
use io_uring::{opcode, types, IoUring};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

const WRITES: u64 = 64;
const BYTES: usize = 1 << 20;

/// What a read that asks to be polled says of this file: the number of bytes, or the error.
fn polled_read(path: &str) -> Result<i32, std::io::Error> {
    #[repr(align(4096))]
    struct Block([u8; 4096]);
    let file = std::fs::File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut ring: IoUring = IoUring::builder().setup_iopoll().build(4)?;
    let mut block = Box::new(Block([0; 4096]));
    let read = opcode::Read::new(types::Fd(file.as_raw_fd()), block.0.as_mut_ptr(), 4096).build();
    unsafe { ring.submission().push(&read).unwrap() };
    // The call may come back before the read does.
    let result = loop {
        ring.submit_and_wait(1)?;
        if let Some(entry) = ring.completion().next() {
            break entry.result();
        }
    };
    if result < 0 { Err(std::io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { assert_eq!(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time), 0) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The CPU time of an executor's thread over its writes, all else the same.
fn write(first: Option<&'static str>, path: &'static str) -> Duration {
    let executor = LocalExecutorBuilder::new(Placement::Unbound);
    let work = move || async move {
        if let Some(path) = first {
            DmaFile::open(path).await.unwrap().close().await.unwrap();
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.dma_open(path).await.unwrap();
        let (cpu, start) = (thread_cpu(), Instant::now());
        for at in 0..WRITES {
            let buffer = file.alloc_dma_buffer(BYTES);
            file.write_at(buffer, at * BYTES as u64).await.unwrap();
        }
        let (cpu, span) = (thread_cpu() - cpu, start.elapsed());
        file.close().await.unwrap();
        eprintln!("{path}: {} ms of CPU in {} ms", cpu.as_millis(), span.as_millis());
        cpu
    };
    executor.spawn(work).unwrap().join().unwrap()
}

fn main() {
    std::fs::write("empty", b"").unwrap();
    std::fs::write("full", vec![1; 1 << 16]).unwrap();
    std::fs::File::open("full").unwrap().sync_all().unwrap();
    match (polled_read("empty"), polled_read("full")) {
        (Ok(0), Err(error)) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        (empty, full) => {
            return println!("skipped: polled reads say {empty:?} of an empty file and {full:?} of another here")
        }
    }
    println!("polled read of an empty file: 0, of one with content: EOPNOTSUPP");
    let slept = write(Some("full"), "after-a-full-one");
    let polled = write(None, "first");
    let times = polled.as_secs_f64() / slept.as_secs_f64();
    let verdict = if times > 3.0 { "more than three times".to_owned() } else { format!("{times:.1} times") };
    println!("CPU of the same writes, the empty file opened first: {verdict} that when a full one was");
}
END
nice cargo run --quiet --target-dir target >now
cat now
case $(cat now) in skipped:*) exit 0 ;; esac
cat >then <<'END'
polled read of an empty file: 0, of one with content: EOPNOTSUPP
CPU of the same writes, the empty file opened first: more than three times that when a full one was
END
diff then now || { echo "CHANGED: < is how it was, > how it is"; exit 1; }
