//! How an upload ended: what the bucket holds now, or why it does not hold a draft.

use std::io;

use crate::attrs::Attrs;
use crate::etag::ETag;
use crate::store::{ObjectHead, ObjectHeaders, StoreError, StoreErrorKind};

/// What the bucket holds now.
#[derive(Debug, Clone)]
pub struct Uploaded {
    pub key: String,
    pub etag: ETag,
    pub size: u64,
    pub headers: ObjectHeaders,
    /// The file's own, which may say more than the headers.
    pub attrs: Attrs,
}

/// Why a draft is not in the bucket.
#[derive(Debug)]
pub enum UploadError {
    Store(StoreError),
    /// Somebody else changed the object since it was opened here; this is what it is now.
    Conflict(Box<ObjectHead>),
    /// A rename had put another object in its place when the last mount ended.
    Replaced,
    /// The spool's disk.
    Io(io::Error),
}

impl From<StoreError> for UploadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whether sending the same again would be refused again.
#[must_use]
pub fn is_final(kind: StoreErrorKind) -> bool {
    !matches!(
        kind,
        StoreErrorKind::Unavailable
            | StoreErrorKind::TimedOut
            | StoreErrorKind::Expired
            | StoreErrorKind::NoSuchUpload
            | StoreErrorKind::Protocol
    )
}
