//! Braid's program as cargo has built it, beside the program that asks.

use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo keeps what it builds for release: the asking program lies in its `examples`.
pub fn release_directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let directory = program.ancestors().nth(2).map(Path::to_path_buf);
    directory
        .ok_or_else(|| Error::other("this program lies in no directory of cargo's: give --binary and --dir"))
}

/// Has cargo build the program, where cargo runs this one; else the one beside this program is meant.
pub fn build() -> Result<PathBuf> {
    if let Some(cargo) = std::env::var_os("CARGO") {
        let arguments = ["build", "--release", "--locked", "--package", "braid", "--bin", "braid"];
        if !Command::new(cargo).args(arguments).status()?.success() {
            return Err(Error::other("the program cannot be built"));
        }
    }
    Ok(release_directory()?.join("braid"))
}
