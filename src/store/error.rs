//! Store errors: what the caller should do, with the server's own words beside it.

use std::fmt;

/// What a failed request means to the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// No such key, or hidden by a policy: the server does not tell these apart.
    NotFound,
    /// No such bucket.
    NoSuchBucket,
    /// A policy forbids it.
    Denied,
    /// A policy on `storage.objects`, or a trigger there, raised an SQL error instead of deciding.
    PolicyError,
    /// The credential has expired, and no new one could be had.
    Expired,
    /// The service refuses the credential itself: unknown key, bad signature, malformed token.
    BadCredential,
    /// The server refuses the key as a name.
    InvalidKey,
    /// The range starts behind the end of the object.
    RangeNotSatisfiable,
    /// The object is larger than the bucket or the project allows.
    TooLarge,
    /// The bucket does not take this Content-Type.
    UnsupportedType,
    /// The multipart upload is unknown: completed, aborted, or never begun.
    NoSuchUpload,
    /// The server, the gateway or the network failed in a way that passes; retries are used up.
    Unavailable,
    /// No byte moved until the deadline.
    TimedOut,
    /// The answer contradicts itself or the protocol.
    Protocol,
    /// Anything else the server refuses.
    Refused,
}

impl StoreErrorKind {
    /// Policies are the reason: one forbids the request, or fails to decide.
    #[must_use]
    pub fn is_by_policy(self) -> bool {
        matches!(self, Self::Denied | Self::PolicyError)
    }
}

/// A failed request.
#[derive(Debug, Clone)]
pub struct StoreError {
    pub kind: StoreErrorKind,
    /// `GetObject`, `ListObjectsV2`, …
    pub operation: &'static str,
    pub key: String,
    /// HTTP status, or 0 where there was no answer.
    pub status: u16,
    /// The server's code and message, or the transport's words. Never a secret.
    pub code: String,
    pub message: String,
}

impl StoreError {
    /// A limit of the bucket's or the project's is the reason, not one of a gateway in front of the server.
    #[must_use]
    pub fn exceeds_a_limit(&self) -> bool {
        self.kind == StoreErrorKind::TooLarge && self.code == "EntityTooLarge"
    }

    /// Whether no server answered at all.
    #[must_use]
    pub fn is_unreached(&self) -> bool {
        self.status == 0 && matches!(self.kind, StoreErrorKind::Unavailable | StoreErrorKind::TimedOut)
    }

    /// Whether a file was refused here, for its holes: the server was not asked.
    #[must_use]
    pub fn is_refused_here(&self) -> bool {
        self.status == 0 && self.kind == StoreErrorKind::TooLarge
    }

    /// Where no server answered at all: why, in one sentence.
    #[must_use]
    pub fn unreached(&self) -> Option<String> {
        self.is_unreached().then(|| format!("cannot reach the server: {}", self.message))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}: ", self.operation, self.key)?;
        if self.status != 0 {
            write!(f, "{} ", self.status)?;
        }
        if !self.code.is_empty() {
            write!(f, "{}: ", self.code)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}
