//! The one file that may hold `unsafe`: system calls whose contract the compiler cannot check.
#![allow(unsafe_code, reason = "every unsafe call of the project is kept here, each with its argument")]

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{ForkResult, Pid, fork};

/// Which side of a [`fork_single_threaded`] this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Parent(Pid),
    Child,
}

/// Forks a process that has one thread.
///
/// # Errors
/// The system's own, and `Other` where the process has more than one thread.
pub fn fork_single_threaded() -> io::Result<Side> {
    // A thread that was joined leaves the list a moment later.
    let until = Instant::now() + Duration::from_secs(1);
    let threads = loop {
        match fs::read_dir("/proc/self/task")?.count() {
            threads if threads == 1 || Instant::now() > until => break threads,
            _ => thread::sleep(Duration::from_millis(1)),
        }
    };
    if threads != 1 {
        return Err(io::Error::other(format!(
            "cannot go into the background with {threads} threads running"
        )));
    }
    // SAFETY: with a single thread no lock can be held by a thread that the child lacks, so the child may
    // allocate and go on as any process.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
        ForkResult::Child => Ok(Side::Child),
    }
}

/// Keeps the secrets of this process out of core files and out of reach of other processes of the user.
///
/// # Errors
/// The system's own.
pub fn harden() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

/// Sets a variable of the environment. Only while the process has one thread.
///
/// # Panics
/// With several threads: another one might be reading the environment.
pub fn set_variable(name: &str, value: &OsStr) {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    assert_eq!(threads, 1, "the environment is changed before the first thread");
    // SAFETY: no other thread is there that could read the environment meanwhile.
    unsafe {
        std::env::set_var(name, value);
    }
}

/// Lets this process have as many file descriptors as it may: each file that is open for writing takes one.
///
/// # Errors
/// The system's own.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

/// Keeps the C allocator from making an arena for each thread: blocks of file data are allocated by one thread and
/// freed by another, and every arena would keep its own share of freed ones.
pub fn share_allocator_arenas() {
    // SAFETY: mallopt only sets a number; a refusal changes nothing.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
