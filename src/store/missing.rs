//! A bucket that is not there: named, with the one that was probably meant.

use std::time::Duration;

use super::s3::Connection;
use super::{StoreError, StoreErrorKind};
use crate::similar::nearest;

/// A hint is not worth a longer wait.
const PATIENCE: Duration = Duration::from_secs(5);

impl Connection {
    /// An error of a request to a bucket. Where the bucket does not exist, the credential's own list of buckets is asked
    /// for, once, and the nearest name in it is told.
    pub(super) async fn name_bucket(&self, bucket: &str, mut error: StoreError) -> StoreError {
        if error.kind != StoreErrorKind::NoSuchBucket {
            return error;
        }
        let listed = tokio::time::timeout(PATIENCE, self.buckets()).await;
        let known = listed.ok().and_then(Result::ok).unwrap_or_default();
        let near = nearest(bucket, known.iter().map(|bucket| bucket.name.as_str()));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
        error.message = format!("there is no bucket {bucket:?}{hint}");
        error
    }
}
