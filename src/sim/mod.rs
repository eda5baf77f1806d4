//! The second shell: faulty disks under virtual time.

pub mod disk;
