//! The simulated world.

pub mod model;
//! The second shell: faulty disks under virtual time.

pub mod disk;
