//! Whose close of a descriptor is the end of a writing.
//!
//! The kernel asks for a flush at every close of every copy of a descriptor: also when a child that a writer forked
//! starts another program, and when a shell moves a file that it has just opened to its standard output. To upload
//! then would put a file into the bucket that its writer is in the middle of. Every close that can be the writer's
//! last is answered by an upload; so is one of which `/proc` does not tell whose it is.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::process;

/// The processes that opened an open description, or wrote through it. Lock rank: a leaf.
#[derive(Default)]
pub(super) struct Users {
    processes: Mutex<Vec<u32>>,
    /// The thread that was seen last, so that a series of writes asks nothing.
    last: AtomicU32,
    has_written: AtomicBool,
}

impl Users {
    pub fn opened(&self, thread: u32) {
        self.add(thread);
    }

    pub fn wrote(&self, thread: u32) {
        self.has_written.store(true, Ordering::Relaxed);
        self.add(thread);
    }

    fn add(&self, thread: u32) {
        if self.last.swap(thread, Ordering::Relaxed) == thread {
            return;
        }
        if let Some(process) = process::of_thread(thread) {
            let mut processes = self.processes.lock();
            if !processes.contains(&process) {
                processes.push(process);
            }
        }
    }

    /// Whether the writer goes on after this close: it is that of a process which neither opened the file nor wrote
    /// to it, or nothing was written yet and the process keeps another descriptor of it, which is a copy of this one
    /// if the file is open only once.
    pub fn goes_on_after_close(&self, thread: u32, ino: u64, name: &[u8], is_only: bool) -> bool {
        if self.has_written.load(Ordering::Relaxed) && self.last.load(Ordering::Relaxed) == thread {
            return false;
        }
        let Some(process) = process::of_thread(thread) else { return false };
        let is_user = {
            let processes = self.processes.lock();
            processes.is_empty() || processes.contains(&process)
        };
        !is_user
            || (is_only && !self.has_written.load(Ordering::Relaxed) && process::holds(process, ino, name))
    }
}
