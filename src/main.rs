//! The program: reads its flags, and serves or prints what was asked for.

use braid::config::{self, Parsed};
use braid::shell;
use std::io::Write;
use std::process::ExitCode;

// In place of glibc's. A request's message is often allocated on one thread and freed on another, for which
// mimalloc needs no lock: 26 to 36 ns per pair with a queue between, against 34 to 58. It pays with its size
// classes (272 bytes take 320) and with frees in random order on one thread: 370 to 390 ns per value replaced
// among 500,000, against 285 to 295. Micro-benchmarks on a busy machine; whole servers were not compared.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let env: Vec<(String, String)> =
        std::env::vars_os().map(|(key, value)| (lossy(key), lossy(value))).collect();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    match config::parse(&args, &env, cpus) {
        Ok(Parsed::PrintAndExit(text)) => {
            // Whoever closes the pipe early has read enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Parsed::DumpLog(wish)) => shell::dump_log(&wish),
        Ok(Parsed::Run(config, warnings)) => shell::run(*config, &warnings),
        Err(refusal) => {
            refusal.message.lines().for_each(|line| eprintln!("braid: {line}"));
            eprintln!("Try 'braid --help'.");
            ExitCode::from(refusal.exit_code)
        }
    }
}
