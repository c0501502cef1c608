//! Counters of what the mount does: requests by operation, bytes, cache hits. Written as JSON on `SIGUSR1`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;

/// The operations that the daemon sends, by their S3 names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Operation {
    ListBuckets,
    ListObjectsV2,
    HeadObject,
    GetObject,
    PutObject,
    CopyObject,
    DeleteObject,
    DeleteObjects,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListMultipartUploads,
    ListParts,
    /// Of the REST API: whether an object may be uploaded.
    SignUploadUrl,
    /// Of the REST API: the row of a bucket, with its limits.
    GetBucket,
}

impl Operation {
    const ALL: [Self; 17] = [
        Self::ListBuckets,
        Self::ListObjectsV2,
        Self::HeadObject,
        Self::GetObject,
        Self::PutObject,
        Self::CopyObject,
        Self::DeleteObject,
        Self::DeleteObjects,
        Self::CreateMultipartUpload,
        Self::UploadPart,
        Self::UploadPartCopy,
        Self::CompleteMultipartUpload,
        Self::AbortMultipartUpload,
        Self::ListMultipartUploads,
        Self::ListParts,
        Self::SignUploadUrl,
        Self::GetBucket,
    ];

    /// Whether it brings something to its end: a file, a part of one, a removal.
    #[must_use]
    pub const fn stores(self) -> bool {
        matches!(
            self,
            Self::PutObject
                | Self::CopyObject
                | Self::DeleteObject
                | Self::DeleteObjects
                | Self::UploadPart
                | Self::UploadPartCopy
                | Self::CompleteMultipartUpload
        )
    }

    /// The name S3 gives it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ListBuckets => "ListBuckets",
            Self::ListObjectsV2 => "ListObjectsV2",
            Self::HeadObject => "HeadObject",
            Self::GetObject => "GetObject",
            Self::PutObject => "PutObject",
            Self::CopyObject => "CopyObject",
            Self::DeleteObject => "DeleteObject",
            Self::DeleteObjects => "DeleteObjects",
            Self::CreateMultipartUpload => "CreateMultipartUpload",
            Self::UploadPart => "UploadPart",
            Self::UploadPartCopy => "UploadPartCopy",
            Self::CompleteMultipartUpload => "CompleteMultipartUpload",
            Self::AbortMultipartUpload => "AbortMultipartUpload",
            Self::ListMultipartUploads => "ListMultipartUploads",
            Self::ListParts => "ListParts",
            Self::SignUploadUrl => "SignUploadUrl",
            Self::GetBucket => "GetBucket",
        }
    }
}

/// A number that only grows, or a gauge that returns to zero at rest.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of one daemon.
#[derive(Debug, Default)]
pub struct Stats {
    requests: [Counter; Operation::ALL.len()],
    /// Requests that were sent again after a passing failure.
    pub retries: Counter,
    /// Requests that were carried out.
    pub answers: Counter,
    /// Those of them that stored or removed something, see [`Operation::stores`].
    pub stored: Counter,
    /// Answers that tell of an error that may pass.
    pub error_answers: Counter,
    /// Whether the server has answered anything yet, be it a refusal.
    was_answered: AtomicBool,
    /// Requests sent and not yet answered in full.
    pub in_flight: Counter,
    /// Body bytes received by GET.
    pub bytes_received: Counter,
    /// Body bytes sent by PUT and `UploadPart`.
    pub bytes_sent: Counter,
    /// Reads answered from memory, and those that had to wait for the server.
    pub read_hits: Counter,
    pub read_misses: Counter,
    /// Bytes of files that were sent for before anybody asked, and what became of them: the rest is still unread.
    pub lookahead_bytes: Counter,
    pub lookahead_bytes_used: Counter,
    pub lookahead_bytes_wasted: Counter,
    /// Requests for them in flight.
    pub lookahead_in_flight: Counter,
    /// Files that somebody else changed while they were changed here.
    pub conflicts: Counter,
    /// Keys that could not be shown as a file at all.
    pub unshowable_keys: Counter,
}

impl Stats {
    pub fn note_answer(&self) {
        self.was_answered.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn was_answered(&self) -> bool {
        self.was_answered.load(Ordering::Relaxed)
    }

    pub fn count(&self, operation: Operation) {
        self.requests[operation as usize].add(1);
    }

    #[must_use]
    pub fn requests(&self, operation: Operation) -> u64 {
        self.requests[operation as usize].get()
    }

    /// The counters as the status file holds them.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let requests: serde_json::Map<_, _> = Operation::ALL
            .iter()
            .map(|&operation| (operation.name().to_owned(), self.requests(operation).into()))
            .collect();
        json!({
            "requests": requests,
            "retries": self.retries.get(),
            "requests_in_flight": self.in_flight.get(),
            "bytes_received": self.bytes_received.get(),
            "bytes_sent": self.bytes_sent.get(),
            "read_hits": self.read_hits.get(),
            "read_misses": self.read_misses.get(),
            "lookahead_bytes": self.lookahead_bytes.get(),
            "lookahead_bytes_used": self.lookahead_bytes_used.get(),
            "lookahead_bytes_wasted": self.lookahead_bytes_wasted.get(),
            "conflicts": self.conflicts.get(),
            "unshowable_keys": self.unshowable_keys.get(),
        })
    }
}
