//! Before the server has answered once: whether it is there at all is not worth the patience of a running mount.
//!
//! A person waits at the command line then, and a name that does not resolve or a port that is closed will not change.
//! From the first answer on, of whatever kind, the operation time-out holds.

use std::time::Duration;

use super::retry::{Failure, Verdict};
use super::s3::Connection;
use crate::http::PROXY_LOGIN;
use crate::obstacle::Obstacle;

/// Regions that every Supabase server accepts.
const SAFE_REGIONS: [&str; 2] = ["us-east-1", "auto"];

/// How long the first answer may take.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

impl Connection {
    /// How long an operation may be without progress.
    pub(super) fn patience(&self) -> Duration {
        if self.stats.was_answered() { self.op_timeout } else { self.op_timeout.min(FIRST_ANSWER) }
    }

    /// Notes that the server answered, or says what kept it from that.
    pub(super) fn heard(&self, mut failure: Failure) -> Failure {
        if failure.error.status == PROXY_LOGIN {
            // The server was not asked.
            failure.obstacle = Some(Obstacle::ProxyLogin);
            failure.error.status = 0;
        }
        if failure.error.status != 0 {
            self.stats.note_answer();
            if failure.verdict != Verdict::Final {
                self.stats.error_answers.add(1);
            }
            // Servers repeat the id that they were given.
            if failure.error.code == "SignatureDoesNotMatch" && !SAFE_REGIONS.contains(&self.region.as_str())
            {
                // The server tells a wrong region and a wrong secret by the same words.
                let region = format!(" (the region in use is {:?}: try us-east-1)", self.region);
                failure.error.message.push_str(&region);
            }
            failure.error.message = self.authority.identity().masked_in(failure.error.message);
            return failure;
        }
        let Some(obstacle) = &failure.obstacle else { return failure };
        // Who waits at a command line is told what to do as well.
        failure.error.message =
            if self.stats.was_answered() { self.way.words(obstacle) } else { self.way.sentence(obstacle) };
        if obstacle.stays() || (!obstacle.may_pass() && !self.stats.was_answered()) {
            failure.verdict = Verdict::Final;
        }
        failure
    }
}

/// What a request that was not answered ran into.
pub(super) fn obstacle(error: &(dyn std::error::Error + 'static), status: u16) -> Option<Obstacle> {
    if status == 0 { Obstacle::of(error) } else { None }
}
