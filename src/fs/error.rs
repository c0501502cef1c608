//! What an operation answers when it fails: one kind per errno, with the cause beside it for the log.

use std::fmt;
use std::io;

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
    /// A value that nothing could hold.
    TooLong,
    NotDirectory,
    IsDirectory,
    ReadOnly,
    NoAttribute,
    NotSupported,
    BadHandle,
    Invalid,
    /// The name is taken.
    Exists,
    /// A directory that holds something.
    NotEmpty,
    /// Larger than the bucket, the project or the file system allows.
    TooLarge,
    /// The spool is full.
    NoSpace,
    /// The user's quota on the spool's disk is used up.
    Quota,
    /// This process or the machine has no free file descriptor.
    NoDescriptor,
    /// What this file system never does, whoever asks.
    NotPermitted,
    /// The bucket does not take this type of content.
    UnsupportedType,
    /// Not within one bucket, or not without reading and writing.
    CrossDevice,
    /// Another operation holds what this one needs.
    Busy,
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

impl From<io::Error> for FsError {
    fn from(error: io::Error) -> Self {
        let kind = Self::kind_of(&error);
        match kind {
            ErrorKind::NoSpace => {
                tracing::error!(%error, "the spool is full; see --spool-size and --spool-dir");
            }
            ErrorKind::Quota => {
                tracing::error!(%error, "the quota on the spool's disk is used up; see --spool-dir");
            }
            ErrorKind::TooLarge => {
                tracing::error!(%error, "the file system of the spool, or the daemon's own limit (`ulimit -f`), takes no file of this size; see --spool-dir");
            }
            ErrorKind::NoDescriptor => {
                tracing::error!(%error, "no file descriptor is free; raise the hard limit (`ulimit -Hn`) before mounting");
            }
            _ => tracing::error!(%error, "the spool's disk fails"),
        }
        kind.into()
    }
}

impl FsError {
    /// What an error of the spool means to a caller.
    #[must_use]
    pub fn kind_of(error: &io::Error) -> ErrorKind {
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::StorageFull, _) => ErrorKind::NoSpace,
            (io::ErrorKind::QuotaExceeded, _) => ErrorKind::Quota,
            (io::ErrorKind::FileTooLarge, _) => ErrorKind::TooLarge,
            (_, Some(nix::libc::EMFILE | nix::libc::ENFILE)) => ErrorKind::NoDescriptor,
            _ => ErrorKind::Io,
        }
    }
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        let kind = match error.kind {
            StoreErrorKind::NotFound | StoreErrorKind::NoSuchBucket => ErrorKind::NotFound,
            StoreErrorKind::Denied
            | StoreErrorKind::PolicyError
            | StoreErrorKind::Expired
            | StoreErrorKind::BadCredential => ErrorKind::Access,
            StoreErrorKind::InvalidKey => ErrorKind::Invalid,
            StoreErrorKind::TimedOut => ErrorKind::TimedOut,
            StoreErrorKind::RangeNotSatisfiable => ErrorKind::Stale,
            StoreErrorKind::TooLarge => ErrorKind::TooLarge,
            StoreErrorKind::UnsupportedType => ErrorKind::UnsupportedType,
            StoreErrorKind::NoSuchUpload
            | StoreErrorKind::Unavailable
            | StoreErrorKind::Protocol
            | StoreErrorKind::Refused => ErrorKind::Io,
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
            Some(StoreErrorKind::PolicyError) => {
                "a policy on storage.objects, or a trigger, raises an SQL error; correct it in the database"
            }
            Some(StoreErrorKind::TooLarge)
                if self.cause.as_ref().is_some_and(StoreError::is_refused_here) =>
            {
                "raise --max-holes, or write a smaller file"
            }
            Some(StoreErrorKind::TooLarge) => {
                "the project or the bucket limits the size of a file; the limit is set in the dashboard"
            }
            Some(StoreErrorKind::UnsupportedType) => {
                "the bucket restricts the MIME types that it takes; the type follows from the name, or from the \
                 attribute user.supabase.content-type"
            }
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
