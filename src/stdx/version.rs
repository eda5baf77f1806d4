//! What is told of something at rest that another version of the program has written.

use std::fmt;

/// A format, or a version of one, that this program does not read. It is no damage: somebody else reads it.
/// The words go on from the name of what has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionMismatch {
    /// What is numbered: a "format", a "record version".
    pub what: &'static str,
    pub found: u64,
    /// The only one that this program reads, which is the newest that it knows.
    pub known: u64,
}

impl fmt::Display for VersionMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VersionMismatch { what, found, known } = self;
        match found > known {
            true => write!(
                f,
                "was written by a newer program: it has {what} {found}, and this program knows {what}s up to \
                 {known}. Start the version that wrote it, or a later one"
            ),
            false => write!(
                f,
                "has {what} {found}, of a version before the first release, and this program reads {what} \
                 {known}: start the version that wrote it and bring the data over with a client, as etcdctl's \
                 make-mirror, to a server with an empty --data-dir; or empty the directory, where its data may go"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_is_told_from_an_older_one() {
        let told = |found| format!("this {}", VersionMismatch { what: "format", found, known: 4 });
        assert!(told(5).starts_with("this was written by a newer program: it has format 5, and"));
        assert!(told(3).starts_with("this has format 3, of a version before the first release, and"));
        for (found, what_to_do) in [(5, "or a later one"), (3, "or empty the directory")] {
            let told = told(found);
            assert!(told.contains("tart the version that wrote it") && told.contains(what_to_do), "{told}");
        }
    }
}
