//! Requests that may have been carried out without an answer.

use std::sync::atomic::{AtomicBool, Ordering};

use super::StoreErrorKind;
use super::retry::Failure;
use crate::obstacle::Obstacle;

/// Whether an attempt at a request may have been carried out beside what its answer tells: the answer of a later
/// attempt says nothing about it, and neither does an error.
#[derive(Debug, Default)]
pub struct Doubt(AtomicBool);

impl Doubt {
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, failure: &Failure) {
        if may_be_carried_out(failure) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn may_be_carried_out(failure: &Failure) -> bool {
    use StoreErrorKind::{Protocol, TimedOut, Unavailable};
    let error = &failure.error;
    match error.status {
        // Without an answer: unless it did not reach the server at all.
        0 => {
            let is_sent = matches!(failure.obstacle, None | Some(Obstacle::Cut | Obstacle::Silent));
            is_sent && matches!(error.kind, Protocol | TimedOut | Unavailable)
        }
        // An answer that was cut short says that it was done, and not what.
        200..300 => true,
        // Servers that shed load say so before they do anything.
        503 => error.code != "SlowDown",
        // A gateway's word is not the server's, and the server fails also after the work.
        status => status == 408 || status >= 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Operation;
    use crate::store::retry::Call;

    fn failure(status: u16, code: &str, kind: StoreErrorKind, obstacle: Option<Obstacle>) -> Failure {
        let call = Call::new(Operation::CreateMultipartUpload, "bucket", "key");
        let mut failure = Failure::protocol(call, "");
        (failure.error.status, failure.error.kind, failure.obstacle) = (status, kind, obstacle);
        code.clone_into(&mut failure.error.code);
        failure
    }

    #[test]
    fn only_what_was_refused_or_not_sent_is_known_not_to_be_done() {
        use StoreErrorKind::{Denied, Expired, Protocol, Refused, TimedOut, Unavailable};
        let leaves_a_doubt = [
            failure(0, "", Unavailable, Some(Obstacle::Cut)),
            failure(0, "", TimedOut, Some(Obstacle::Silent)),
            failure(0, "", Protocol, None),
            failure(200, "", Refused, None),
            failure(500, "InternalError", Unavailable, None),
            failure(502, "", Unavailable, None),
            failure(503, "", Unavailable, None),
        ];
        let is_clear = [
            failure(0, "", Unavailable, Some(Obstacle::Refused)),
            failure(0, "", Unavailable, Some(Obstacle::Name)),
            failure(0, "", Expired, None),
            failure(0, "", Refused, None),
            failure(403, "AccessDenied", Denied, None),
            failure(429, "TooManyRequests", Unavailable, None),
            failure(503, "SlowDown", Unavailable, None),
        ];
        for (failures, expected) in [(&leaves_a_doubt, true), (&is_clear, false)] {
            for failure in failures {
                let doubt = Doubt::default();
                doubt.note(failure);
                assert_eq!(doubt.is_there(), expected, "{:?}", failure.error);
            }
        }
    }
}
