//! What the integration tests share: a server to talk to ([`Backend`]), the real binary mounted on it ([`Mount`]),
//! and small tools.
//!
//! Rules for tests: nothing is asserted about time, only about bytes, errors, request counts and memory; every
//! bucket, key prefix and mount point is the test's own; nothing is left behind, also by a test that fails.

mod backend;
mod counts;
mod mount;
mod ops;
mod proxy;
mod real;
mod tls;
mod tools;

pub use backend::{Backend, Bucket, Facts, Laboratory, Put, Users};
pub use counts::Counts;
pub use mount::{Login, Mount, MountOptions, Outcome, Place, outcome};
pub use ops::{Ops, ops, spent};
pub use proxy::Proxy;
pub use tls::{Certificate, TlsFront};
pub use tools::{Random, body, errno, eventually, ino, is_mounted, run, sha256_hex, sorted_lines};

/// Ends the test, with a line that says so, where the server is a real one and `$why` needs the stand-in.
macro_rules! standin_only {
    ($why:expr) => {
        match $crate::common::Backend::standin_only($why) {
            Some(backend) => backend,
            None => return,
        }
    };
}
