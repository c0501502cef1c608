//! Requests that wait for the server, and callers that are killed meanwhile.
//!
//! The kernel lets a killed process wait for every request that is in this daemon's hands: only an answer frees it. The
//! library refuses the kernel's own notice (`FUSE_INTERRUPT`), so this module looks for itself: whoever has waited for
//! [`WAITED`] is looked up in `/proc` every [`INTERVAL`], and a caller that is killed gets EINTR. Its operation goes on
//! without it.
//!
//! Pages are read in the name of a thread that need not wait for them: the kernel reads ahead, and a killed reader
//! leaves at once. The pages stay locked all the same, and whoever changes the file, or learns that it has changed,
//! waits for that where no signal reaches it. So they are answered when their thread has ended; the kernel asks again
//! for a page that somebody wants.
//!
//! Lock rank: the tables here are leaves, never held across an await.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fuser::Errno;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::process;

/// What is answered sooner than this is not looked at.
const WAITED: Duration = Duration::from_millis(500);

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// A killed process may close many files as it ends: its threads are recognised at once for so long.
const DYING: Duration = Duration::from_secs(10);

/// A reply of any kind.
pub(super) trait Reply: Send + 'static {
    fn refuse(self, errno: Errno);
}

macro_rules! replies {
    ($($reply:ident),*) => {
        $(impl Reply for fuser::$reply {
            fn refuse(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

replies!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyOpen,
    ReplyWrite,
    ReplyXattr
);

/// Who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    /// The thread that asked, until it gets one.
    Caller,
    /// Pages of the kernel's: the thread that asked may have ended.
    Pages,
}

/// The reply of one request. The operation sends it, or, when the caller is killed before that, the watcher.
pub(super) struct Slot<R> {
    thread: u32,
    waiter: Waiter,
    since: Instant,
    reply: Mutex<Option<R>>,
    /// Set where the operation ends with its caller.
    task: OnceLock<AbortHandle>,
}

impl<R: Reply> Slot<R> {
    pub(super) fn new(thread: u32, waiter: Waiter, reply: R) -> Arc<Self> {
        let reply = Mutex::new(Some(reply));
        Arc::new(Self { thread, waiter, since: Instant::now(), reply, task: OnceLock::new() })
    }

    pub(super) fn ends_with_caller(&self, task: AbortHandle) {
        let _is_set_once = self.task.set(task);
    }
}

/// The operation's side of a [`Slot`].
pub(super) struct Answer<R>(Arc<Slot<R>>);

impl<R: Reply> Answer<R> {
    pub(super) fn new(slot: &Arc<Slot<R>>) -> Self {
        Self(Arc::clone(slot))
    }

    /// The reply to send; `None` when the caller was killed: then nobody learns of the result, and what it gave to the
    /// kernel has to be taken back.
    pub(super) fn take(self) -> Option<R> {
        self.0.reply.lock().take()
    }

    /// Sends an answer that gives the kernel nothing to keep.
    pub(super) fn send(self, send: impl FnOnce(R)) {
        if let Some(reply) = self.take() {
            send(reply);
        }
    }

    pub(super) fn error(self, errno: Errno) {
        self.send(|reply| reply.refuse(errno));
    }
}

/// What the watcher knows of a request.
trait Request: Send + Sync {
    fn thread(&self) -> u32;
    fn waiter(&self) -> Waiter;
    fn since(&self) -> Instant;
    fn interrupt(&self);
}

impl<R: Reply> Request for Slot<R> {
    fn thread(&self) -> u32 {
        self.thread
    }

    fn waiter(&self) -> Waiter {
        self.waiter
    }

    fn since(&self) -> Instant {
        self.since
    }

    fn interrupt(&self) {
        let Some(reply) = self.reply.lock().take() else { return };
        tracing::debug!(thread = self.thread, "the caller is gone; its operation goes on without it");
        reply.refuse(Errno::EINTR);
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// The requests that wait.
pub(super) struct Waiting {
    requests: Mutex<HashMap<u64, Arc<dyn Request>>>,
    next: AtomicU64,
    arrived: Notify,
    /// Threads of processes that were killed, and until when they are remembered.
    dying: Mutex<HashMap<u32, Instant>>,
}

/// Keeps a request in the table.
pub(super) struct Entry {
    waiting: Arc<Waiting>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let request = self.waiting.requests.lock().remove(&self.number);
        // An operation that panicked has left its reply, which answers when it is dropped.
        drop(request);
    }
}

impl Waiting {
    /// Begins to watch, on the runtime that is entered. `None`: `/proc` shows other processes than those that the kernel
    /// names to this one.
    pub(super) fn watched() -> Option<Arc<Self>> {
        if !process::is_seen() {
            tracing::warn!(
                "/proc does not show this process: a process that is killed while it waits for the server ends at --op-timeout"
            );
            return None;
        }
        let waiting = Arc::new(Self {
            requests: Mutex::default(),
            next: AtomicU64::new(0),
            arrived: Notify::new(),
            dying: Mutex::default(),
        });
        drop(tokio::spawn(Arc::clone(&waiting).watch()));
        Some(waiting)
    }

    /// Watches over a request as long as the entry is held. The kernel gives the thread 0 to what no thread waits for,
    /// and to callers in another process namespace.
    pub(super) fn add<R: Reply>(self: &Arc<Self>, slot: &Arc<Slot<R>>) -> Option<Entry> {
        if slot.thread == 0 {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut requests = self.requests.lock();
        let is_first = requests.is_empty();
        requests.insert(number, Arc::clone(slot) as Arc<dyn Request>);
        drop(requests);
        if is_first {
            self.arrived.notify_one();
        }
        Some(Entry { waiting: Arc::clone(self), number })
    }

    /// Answers at once what a process asks for that was seen to be killed a moment ago: it closes one file after the
    /// other as it ends.
    pub(super) fn look_if_dying<R: Reply>(&self, slot: &Slot<R>) {
        let is_dying = self.dying.lock().contains_key(&slot.thread);
        if is_dying && process::is_killed(slot.thread) {
            slot.interrupt();
        }
    }

    async fn watch(self: Arc<Self>) {
        loop {
            self.arrived.notified().await;
            while !self.requests.lock().is_empty() {
                tokio::time::sleep(INTERVAL).await;
                let waited = self.have_waited();
                if !waited.is_empty() {
                    let this = Arc::clone(&self);
                    // It fails when the runtime ends.
                    drop(tokio::task::spawn_blocking(move || this.look(&waited)).await);
                }
            }
        }
    }

    /// Requests that are worth a look, by thread: one thread may have many that read ahead.
    fn have_waited(&self) -> HashMap<u32, Vec<Arc<dyn Request>>> {
        let mut found: HashMap<u32, Vec<Arc<dyn Request>>> = HashMap::new();
        let now = Instant::now();
        for request in self.requests.lock().values() {
            if now.duration_since(request.since()) >= WAITED {
                found.entry(request.thread()).or_default().push(Arc::clone(request));
            }
        }
        found
    }

    fn look(&self, waited: &HashMap<u32, Vec<Arc<dyn Request>>>) {
        self.dying.lock().retain(|_, until| *until > Instant::now());
        for (&thread, requests) in waited {
            if !process::is_killed(thread) {
                let of_pages = || requests.iter().filter(|request| request.waiter() == Waiter::Pages);
                if of_pages().next().is_some() && process::is_gone(thread) {
                    of_pages().for_each(|request| request.interrupt());
                }
                continue;
            }
            let until = Instant::now() + DYING;
            let threads = process::threads_of(thread);
            self.dying.lock().extend(threads.into_iter().chain([thread]).map(|thread| (thread, until)));
            for request in requests {
                request.interrupt();
            }
        }
    }
}
