//! The integration tests: the real binary, mounted as a separate process on the stand-in or on a real server. One
//! test binary for all of them, so that a change of the library is linked once.

#[macro_use]
mod common;

mod browse;
mod cli;
mod conflicts;
mod crash;
mod credentials;
mod directories;
mod errors;
mod layers;
mod listing;
mod memory;
mod names;
mod requests;
mod rls;
mod spool;
mod versions;
mod write_back;
mod write_faults;
mod xattr;
