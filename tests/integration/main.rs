//! The integration tests: the real binary, mounted as a separate process on the stand-in or on a real server. One
//! test binary for all of them, so that a change of the library is linked once.

#[macro_use]
mod common;

mod attributes;
mod browse;
mod cli;
mod conflicts;
mod cost;
mod crash;
mod credentials;
mod directories;
mod errors;
mod folders;
mod killed;
mod lab_access;
mod lab_diff;
mod lab_test;
mod large_folder;
mod layers;
mod listing;
mod lookahead;
mod memory;
mod messages;
mod misplaced_secrets;
mod model;
mod names;
mod names_written;
mod nodes;
mod policy_errors;
mod proxies;
mod reaching;
mod refusals;
mod relative_paths;
mod renames;
mod requests;
mod rights;
mod rls;
mod rls_matrix;
mod rls_write;
mod signing_in;
mod spaces;
mod spool;
mod state_files;
mod staying_signed_in;
mod tools_files;
mod tools_trees;
mod torn;
mod versions;
mod walks;
mod write_back;
mod write_faults;
mod writing;
mod xattr;
mod xattr_kept;
mod xattr_write;
