//! What an operation answers when it fails: one kind per errno, with the cause beside it for the log.

use std::fmt;

use crate::store::{StoreError, StoreErrorKind};

/// The errno an operation ends with, by its POSIX meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotFound,
    Access,
    Stale,
    Io,
    TimedOut,
    NameTooLong,
    NotDirectory,
    IsDirectory,
    ReadOnly,
    NoAttribute,
    NotSupported,
    BadHandle,
    Invalid,
}

/// A failed operation.
#[derive(Debug, Clone)]
pub struct FsError {
    pub kind: ErrorKind,
    pub cause: Option<StoreError>,
}

impl FsError {
    #[must_use]
    pub const fn new(kind: ErrorKind) -> Self {
        Self { kind, cause: None }
    }
}

impl From<ErrorKind> for FsError {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        let kind = match error.kind {
            StoreErrorKind::NotFound | StoreErrorKind::NoSuchBucket => ErrorKind::NotFound,
            StoreErrorKind::Denied | StoreErrorKind::Expired | StoreErrorKind::BadCredential => {
                ErrorKind::Access
            }
            StoreErrorKind::InvalidKey => ErrorKind::Invalid,
            StoreErrorKind::TimedOut => ErrorKind::TimedOut,
            StoreErrorKind::RangeNotSatisfiable => ErrorKind::Stale,
            StoreErrorKind::Unavailable | StoreErrorKind::Protocol | StoreErrorKind::Refused => ErrorKind::Io,
        };
        Self { kind, cause: Some(error) }
    }
}

impl FsError {
    /// What the user can do, where the errno alone does not say it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self.cause.as_ref().map(|cause| cause.kind) {
            Some(StoreErrorKind::BadCredential | StoreErrorKind::Expired) => {
                "the server refuses the credential; `supafs doctor` tells what is wrong with it"
            }
            Some(StoreErrorKind::Denied) => "a policy on storage.objects forbids it",
            Some(StoreErrorKind::NoSuchBucket) => "the bucket is gone",
            Some(StoreErrorKind::Unavailable) => "the server failed again and again; it is safe to try later",
            Some(StoreErrorKind::TimedOut) => {
                "nothing moved for --op-timeout; check the network and the server"
            }
            _ => "",
        }
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{:?} ({cause})", self.kind),
            None => write!(f, "{:?}", self.kind),
        }
    }
}

impl std::error::Error for FsError {}
