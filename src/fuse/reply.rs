//! Where an operation runs, and what becomes of its failure.
//!
//! An operation is a future. It is polled once on the FUSE thread: what memory can answer is answered there, in a
//! third of the time that a task would take. What has to wait moves into a task, and is watched (`waiting.rs`). A
//! panic, in either place, drops the reply, which answers EIO to that one caller.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fuser::Errno;
use futures::FutureExt;
use tokio::runtime::{EnterGuard, Handle};

use super::convert;
use super::waiting::{Answer, Reply, Slot, Waiter, Waiting};
use crate::fs::FsError;
use crate::store::{StoreErrorKind, timed};

/// How far an operation came that must not wait.
pub(super) enum Now<T> {
    Ready(T),
    Pending,
    Panicked,
}

/// Runs operations on the runtime's threads when they cannot be answered at once.
#[derive(Clone)]
pub(super) struct Dispatcher {
    runtime: Handle,
    waiting: Option<Arc<Waiting>>,
}

/// What becomes of an operation whose caller is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfKilled {
    GoOn,
    /// It has changed nothing while it waits, and must not change anything once the caller's files are closed.
    End,
}

impl Dispatcher {
    pub(super) fn new(runtime: Handle) -> Self {
        let waiting = {
            let _context = runtime.enter();
            Waiting::watched()
        };
        Self { runtime, waiting }
    }

    /// What an operation answers if it need not wait. One that has to is dropped, with nothing done.
    pub(super) fn now<T>(&self, operation: impl Future<Output = T>) -> Now<T> {
        let _context = self.runtime.enter();
        let mut operation = std::pin::pin!(AssertUnwindSafe(operation).catch_unwind());
        match operation.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(result)) => Now::Ready(result),
            Poll::Ready(Err(panic)) => {
                report_panic(Err(panic));
                Now::Panicked
            }
            Poll::Pending => Now::Pending,
        }
    }

    /// For what has to be done on the FUSE thread and may begin tasks.
    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Runs what a thread asked for. It goes on where the thread is killed meanwhile.
    pub(super) fn run<R: Reply, F>(&self, thread: u32, reply: R, operation: impl FnOnce(Answer<R>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.begin((thread, Waiter::Caller), reply, operation, IfKilled::GoOn);
    }

    /// The same for a read of pages: the thread may have ended, and somebody else may wait for them.
    pub(super) fn run_for_pages<R: Reply, F>(
        &self,
        thread: u32,
        reply: R,
        operation: impl FnOnce(Answer<R>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.begin((thread, Waiter::Pages), reply, operation, IfKilled::GoOn);
    }

    /// The same for what ends where its caller is killed before it could begin.
    pub(super) fn run_for_caller<R: Reply, F>(
        &self,
        thread: u32,
        reply: R,
        operation: impl FnOnce(Answer<R>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.begin((thread, Waiter::Caller), reply, operation, IfKilled::End);
    }

    fn begin<R: Reply, F>(
        &self,
        (thread, waiter): (u32, Waiter),
        reply: R,
        operation: impl FnOnce(Answer<R>) -> F,
        if_killed: IfKilled,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let _context = self.runtime.enter();
        let slot = Slot::new(thread, waiter, reply);
        let operation = timed(operation(Answer::new(&slot)));
        let mut operation = Box::pin(AssertUnwindSafe(operation).catch_unwind());
        if let Poll::Ready(result) = operation.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return report_panic(result);
        }
        let entry = self.waiting.as_ref().and_then(|waiting| waiting.add(&slot));
        // A task polls its future when it starts, so no wake-up of the first poll is lost.
        let task = self.runtime.spawn(async move {
            let _entry = entry;
            report_panic(operation.await);
        });
        if if_killed == IfKilled::End {
            slot.ends_with_caller(task.abort_handle());
        }
        if let Some(waiting) = &self.waiting {
            waiting.look_if_dying(&slot);
        }
    }
}

fn report_panic(result: Result<(), Box<dyn Any + Send>>) {
    if let Err(panic) = result {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        tracing::error!(message, "an operation panicked and was answered with EIO; please report this");
    }
}

/// The errno of a failure, which is logged at the level it deserves.
pub(super) fn errno(operation: &'static str, error: &FsError) -> Errno {
    match &error.cause {
        // The ordinary negative answers of a file system.
        None => tracing::trace!(operation, %error),
        // The store has logged it, once for many requests.
        Some(cause) if cause.status == 404 || cause.kind == StoreErrorKind::PolicyError => {
            tracing::debug!(operation, %error);
        }
        Some(cause) if matches!(cause.kind, StoreErrorKind::Expired | StoreErrorKind::BadCredential) => {
            tracing::error!(operation, %error, advice = error.advice(), "operation failed");
        }
        Some(_) => tracing::warn!(operation, %error, advice = error.advice(), "operation failed"),
    }
    convert::errno(error.kind)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    /// Counts what was answered with an error, and what was dropped.
    struct Counted(Arc<(AtomicU32, AtomicU32)>);

    impl Reply for Counted {
        fn refuse(self, _errno: Errno) {
            self.0.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_panic_stays_with_its_operation_and_drops_the_reply() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let dispatcher = Dispatcher::new(runtime.handle().clone());
        let counts = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
        let reply = || Counted(Arc::clone(&counts));
        let me = std::process::id();
        dispatcher.run(me, reply(), |_answer| async { panic!("inline") });
        dispatcher.run(me, reply(), |_answer| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            panic!("in a task")
        });
        for pause in [0, 5] {
            dispatcher.run(me, reply(), move |answer| async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                answer.error(Errno::ENOENT);
            });
        }
        while counts.1.load(Ordering::Relaxed) < 4 {
            std::thread::yield_now();
        }
        assert_eq!(counts.0.load(Ordering::Relaxed), 2);
    }
}
