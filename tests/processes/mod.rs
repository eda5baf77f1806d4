//! A cluster of real processes under load, with what goes wrong, and its clients' history before the simulator's
//! checks. The integration tests run it for moments, `tools/soak` for as long as it is told.

// Processes, sockets, files, threads and a clock are what it is made of.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod copy;
mod disk;
mod load;
mod members;
mod network;
mod trial;

pub use disk::Disk;
pub use members::PLACES_MAX;
pub use network::{Network, in_a_network};
pub use trial::{Fault, Judged, Setup, Trial};
