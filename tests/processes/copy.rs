//! A copy of a directory that is written to meanwhile.

use std::fs;
use std::io::{ErrorKind, Result};
use std::path::Path;

/// The files with such names, one after the other, as `cp -a` does. A server that lives may rename one before its
/// turn comes.
pub fn copy(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if path.is_dir() {
            copy(&path, &to.join(name), wanted)?;
        } else if wanted(name) {
            match fs::copy(&path, to.join(name)) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                copied => _ = copied?,
            }
        }
    }
    Ok(())
}
