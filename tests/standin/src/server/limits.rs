//! What a bucket and the project let in: sizes and media types.

use std::sync::atomic::Ordering;

use super::Shared;
use crate::error::{S3Error, S3Result};

/// The limits of a bucket.
pub struct Limits {
    pub file_size: Option<u64>,
    pub types: Vec<String>,
}

/// The limits of a bucket that must be there.
pub fn of_bucket(shared: &Shared, bucket: &str) -> S3Result<Limits> {
    let limits = |b: &crate::store::Bucket| Limits {
        file_size: b.file_size_limit,
        types: b.allowed_mime_types.clone(),
    };
    shared.store.read(bucket, limits).ok_or_else(S3Error::no_such_bucket)
}

impl Limits {
    /// Most bytes of a multipart upload.
    pub fn multipart(&self, shared: &Shared) -> u64 {
        self.file_size.unwrap_or(u64::MAX).min(shared.file_size_limit.load(Ordering::Relaxed))
    }

    /// Most bytes of a PUT.
    pub fn single(&self, shared: &Shared) -> u64 {
        self.multipart(shared).min(shared.standard_size_limit.load(Ordering::Relaxed))
    }

    /// The type is cut at its slashes and compared as it is: parameters count, and so does case.
    pub fn check_type(&self, kind: &str) -> S3Result<()> {
        let mut given = kind.split('/');
        let given = (given.next(), given.next());
        let allows = |allowed: &String| {
            let mut allowed = allowed.split('/');
            let allowed = (allowed.next(), allowed.next());
            allowed.0 == given.0 && (allowed.1 == Some("*") || allowed.1 == given.1)
        };
        if self.types.is_empty() || given.1.is_some() && self.types.iter().any(allows) {
            return Ok(());
        }
        Err(S3Error::invalid_mime(kind))
    }
}
