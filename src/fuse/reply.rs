//! Where an operation runs, and what becomes of its failure.
//!
//! An operation is a future. It is polled once on the FUSE thread: what memory can answer is answered there, in a
//! third of the time that a task would take. What has to wait moves into a task. A panic, in either place, drops
//! the reply, which answers EIO to that one caller.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll, Waker};

use fuser::Errno;
use futures::FutureExt;
use tokio::runtime::{EnterGuard, Handle};

use super::convert;
use crate::fs::FsError;
use crate::store::StoreErrorKind;

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
}

impl Dispatcher {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime }
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

    pub(super) fn run(&self, operation: impl Future<Output = ()> + Send + 'static) {
        let _context = self.runtime.enter();
        let mut operation = Box::pin(AssertUnwindSafe(operation).catch_unwind());
        match operation.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => report_panic(result),
            // A task polls its future when it starts, so no wake-up of the first poll is lost.
            Poll::Pending => drop(self.runtime.spawn(async move { report_panic(operation.await) })),
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
        Some(cause) if cause.status == 404 => tracing::debug!(operation, %error),
        Some(cause) if matches!(cause.kind, StoreErrorKind::Expired | StoreErrorKind::BadCredential) => {
            tracing::error!(operation, %error, advice = error.advice(), "operation failed");
        }
        Some(_) => tracing::warn!(operation, %error, advice = error.advice(), "operation failed"),
    }
    convert::errno(error.kind)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_panic_stays_with_its_operation() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let dispatcher = Dispatcher::new(runtime.handle().clone());
        let done = Arc::new(AtomicU32::new(0));
        dispatcher.run(async { panic!("inline") });
        dispatcher.run(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            panic!("in a task")
        });
        for pause in [0, 5] {
            let done = Arc::clone(&done);
            dispatcher.run(async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        while done.load(Ordering::Relaxed) < 2 {
            std::thread::yield_now();
        }
    }
}
