//! The kernel's protocol: the only importer of fuser.
//!
//! `adapter` decodes a request and hands it to [`Fs`](crate::fs::Fs), `reply` decides where it runs, `waiting`
//! frees callers that are killed, `convert` writes attributes and errors as the kernel reads them, `notify` tells the
//! kernel what to forget, `mount` owns the session.

mod adapter;
mod convert;
mod device;
mod mount;
mod notify;
mod reply;
mod waiting;

pub use mount::{MountRequest, Mounted, Unmount, mount};
