//! The largest object that a bucket takes, as far as it can be known before an upload.
//!
//! A bucket's own limit (`file_size_limit`) is in its row. The REST API shows it (`GET /bucket/<name>`) to a user whom a
//! policy on `storage.buckets` lets read the row. S3 shows no limits, and the project's own is shown nowhere. Those are
//! learned: what the server has just refused as too large, it would refuse again.
//!
//! Lock rank: leaf.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::check::PATIENCE;
use super::clock::Clock;
use super::s3::Connection;
use super::{StoreError, StoreErrorKind};
use crate::name;
use crate::single_flight::SingleFlight;
use crate::stats::Operation;

/// How long a row is remembered that forbids nothing.
const REMEMBERED: Duration = Duration::from_mins(10);

/// How long a refusal is remembered: nothing tells that a limit was raised, and a file that is sent in vain is dear.
const REFUSED: Duration = Duration::from_mins(2);

/// How old a row may be that forbids something: whoever raises a limit wants to write at once.
const FRESH: Duration = Duration::from_secs(5);

/// How long nothing is asked after a question without an answer.
const SILENCE: Duration = Duration::from_secs(10);

/// Multipart uploads of which the bytes are counted.
const UPLOADS: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// What a bucket's row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    /// The most bytes that an object may have.
    Limit(u64),
    /// It has no limit, or this user does not see it.
    Nothing,
    NoAnswer,
}

/// What is known of a bucket.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    row: Option<(Row, Instant)>,
    /// Something was refused since the row was read: it may say so by now.
    is_outdated: bool,
    /// The fewest bytes that were refused, and when.
    refused: Option<(u64, Instant)>,
    /// The last size that was refused to a single PUT, whose limit may be lower than the one of an upload in parts.
    refused_to_put: Option<u64>,
}

impl Known {
    fn refusal(&self) -> Option<u64> {
        self.refused.filter(|(_, at)| at.elapsed() < REFUSED).map(|(size, _)| size)
    }

    /// Whether the row must be asked for before a size is judged by it.
    fn is_in_doubt(&self, size: u64) -> bool {
        let Some((row, at)) = self.row.filter(|_| !self.is_outdated) else { return true };
        let holds = match row {
            Row::NoAnswer => SILENCE,
            Row::Limit(limit) if size > limit => FRESH,
            Row::Limit(_) | Row::Nothing => REMEMBERED,
        };
        at.elapsed() >= holds
    }

    fn was_refused(&mut self, size: u64) {
        if self.refusal().is_none_or(|least| size <= least) {
            self.refused = Some((size, Instant::now()));
        }
        self.is_outdated = true;
    }

    /// The row was read. What was refused by another limit than it has now is forgotten.
    fn was_read(&mut self, row: Row) {
        let is_changed = self.row.is_some_and(|(earlier, _)| earlier != row && earlier != Row::NoAnswer);
        if is_changed && row != Row::NoAnswer {
            self.refused = None;
        }
        self.row = Some((row, Instant::now()));
        self.is_outdated = false;
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Limits {
    known: Mutex<HashMap<String, Known>>,
    /// Bytes that the server may count for a multipart upload: a part that is sent again counts again.
    counted: Mutex<Option<LruCache<String, u64>>>,
    questions: SingleFlight<String, ()>,
}

impl Limits {
    fn known(&self, bucket: &str) -> Known {
        self.known.lock().get(bucket).copied().unwrap_or_default()
    }

    fn change(&self, bucket: &str, change: impl FnOnce(&mut Known)) {
        change(self.known.lock().entry(bucket.to_owned()).or_default());
    }

    /// A PUT was answered.
    pub(super) fn put<T>(&self, bucket: &str, key: &str, size: u64, answer: &Result<T, StoreError>) {
        match answer {
            Ok(_) => self.accepted(bucket, size),
            Err(error) if error.exceeds_a_limit() && has_size(key) => {
                self.change(bucket, |known| known.refused_to_put = Some(size));
            }
            Err(_) => {}
        }
    }

    /// An object of this size is in the bucket.
    pub(super) fn accepted(&self, bucket: &str, size: u64) {
        let mut known = self.known.lock();
        if let Some(known) = known.get_mut(bucket)
            && known.refused.is_some_and(|(least, _)| least <= size)
        {
            known.refused = None;
        }
    }

    /// A part of an upload sets out.
    pub(super) fn counts(&self, id: &str, size: u64) {
        let mut counted = self.counted.lock();
        let counted = counted.get_or_insert_with(|| LruCache::new(UPLOADS));
        *counted.get_or_insert_mut(id.to_owned(), || 0) += size;
    }

    /// The server has not taken a part that had set out.
    pub(super) fn does_not_count(&self, id: &str, size: u64) {
        if let Some(counted) = self.counted.lock().as_mut().and_then(|counted| counted.get_mut(id)) {
            *counted = counted.saturating_sub(size);
        }
    }

    /// The server has refused a part as too large, with those that it counts already.
    pub(super) fn part_refused(&self, bucket: &str, key: &str, id: &str, size: u64) {
        let counted = self.counted.lock().as_mut().and_then(|counted| counted.get(id).copied());
        let Some(counted) = counted.filter(|_| has_size(key)) else { return };
        self.change(bucket, |known| {
            let is_confirmed = known.refused_to_put == Some(size);
            known.was_refused(if is_confirmed { size } else { counted });
        });
    }

    /// An upload has ended.
    pub(super) fn ended(&self, id: &str) {
        if let Some(counted) = self.counted.lock().as_mut() {
            counted.pop(id);
        }
    }
}

/// Whether a refusal of this key tells of a limit: the server takes a key that ends like a placeholder's only if it is
/// empty, and says the same of all others.
fn has_size(key: &str) -> bool {
    !key.ends_with(name::PLACEHOLDER)
}

impl Connection {
    /// The refusal that an object of this size would meet, as far as that is known.
    pub(super) async fn too_large(
        self: &Arc<Self>,
        bucket: &str,
        key: &str,
        size: u64,
    ) -> Option<StoreError> {
        let mut known = self.limits.known(bucket);
        if known.is_in_doubt(size) && self.checks.has_user().await {
            // In a task of its own: a caller that may not wait is dropped here, and comes again.
            let (connection, name) = (Arc::clone(self), bucket.to_owned());
            let asked = tokio::spawn(async move {
                let question = || connection.look_up(&name, size);
                connection.limits.questions.run(name.clone(), question).await;
            });
            drop(asked.await);
            known = self.limits.known(bucket);
        }
        let message = match (known.row, known.refusal()) {
            (Some((Row::Limit(limit), _)), _) if size > limit => format!(
                "the bucket {bucket:?} takes files of at most {limit} bytes; its file size limit is raised in the \
                 dashboard"
            ),
            (_, Some(refused)) if size >= refused => format!(
                "the server has just refused a file of {refused} bytes in the bucket {bucket:?} as too large; raise \
                 the file size limit of the bucket, or the project's, in the dashboard: that is noticed within {} \
                 minutes, or by a new mount",
                REFUSED.as_secs() / 60
            ),
            _ => return None,
        };
        Some(StoreError {
            kind: StoreErrorKind::TooLarge,
            operation: Operation::PutObject.name(),
            key: key.to_owned(),
            status: 0,
            code: String::new(),
            message,
        })
    }

    fn look_up(self: &Arc<Self>, bucket: &str, size: u64) -> impl Future<Output = ()> + Send + use<> {
        let (connection, bucket) = (Arc::clone(self), bucket.to_owned());
        async move {
            let limits = &connection.limits;
            // Another question may have been answered since the caller looked.
            if !limits.known(&bucket).is_in_doubt(size) {
                return;
            }
            let patience = PATIENCE.min(connection.op_timeout / 2);
            let asked = tokio::time::timeout(patience, connection.ask_row(&bucket)).await;
            let row = asked.unwrap_or(Row::NoAnswer);
            limits.change(&bucket, |known| known.was_read(row));
        }
    }

    async fn ask_row(&self, bucket: &str) -> Row {
        let Some(_in_flight) = self.begin(&Clock::current()).await else { return Row::NoAnswer };
        self.stats.count(Operation::GetBucket);
        match self.checks.bucket(bucket).await {
            Ok(answer) if answer.status == 200 => {
                let row: serde_json::Value = serde_json::from_str(answer.body.expose()).unwrap_or_default();
                row["file_size_limit"].as_u64().map_or(Row::Nothing, Row::Limit)
            }
            Ok(answer) if matches!(answer.status, 429 | 500..) => Row::NoAnswer,
            Ok(answer) => {
                tracing::debug!(bucket, status = answer.status, "the API does not show the bucket's limit");
                Row::Nothing
            }
            Err(error) => {
                tracing::debug!(bucket, %error, "the API does not tell the bucket's limit");
                Row::NoAnswer
            }
        }
    }
}

#[cfg(test)]
mod tests;
