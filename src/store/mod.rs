//! The object store: what the file system needs of Supabase's S3 endpoint, and nothing more.
//!
//! Keys are relative to the root of the mount: the mount's prefix and the bucket-per-directory view of
//! `mount --all` are applied here, so that the layers above know one flat key space.

mod bucket;
mod buckets;
mod by_hand;
mod check;
mod clock;
mod doubt;
mod error;
mod first_answer;
mod limits;
mod missing;
mod policies;
pub mod reach;
mod retry;
pub mod s3;
mod section;
mod uploads;
mod verbatim;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

pub use clock::{timed, undo, waits};
pub use doubt::Doubt;
pub use error::{StoreError, StoreErrorKind};
pub use section::Section;
pub use verbatim::{is_header_value, is_media_type, is_token};

use crate::etag::ETag;

/// The most that one copy on the server may move.
pub const MAX_COPY: u64 = 5 << 30;

/// The most bytes that an object may have: the limit of S3.
pub const MAX_OBJECT: u64 = 5 << 40;

/// One object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    pub key: String,
    pub size: u64,
    pub etag: ETag,
    /// Milliseconds since the Unix epoch: what the server's listing gives.
    pub modified_ms: i64,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Keys that begin with this. A directory's prefix ends in `/`.
    pub prefix: String,
    /// Fold what lies below the next `/` into `prefixes`.
    pub fold: bool,
    /// `next` of the page before.
    pub after: Option<String>,
    /// At most this many keys and prefixes; 0 means the largest safe page.
    pub limit: u16,
}

/// One page of a listing, complete and in byte order up to `next`.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    pub objects: Vec<ListedObject>,
    /// Folded prefixes, each ending in `/`, never equal to the requested prefix.
    pub prefixes: Vec<String>,
    /// Pass as `after` for the next page; `None` at the end.
    pub next: Option<String>,
}

/// What HEAD, or the headers of GET, tell of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    pub size: u64,
    pub etag: ETag,
    /// As the answer says it (whole seconds). Never compared with a listing's.
    pub modified: Option<SystemTime>,
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    /// User metadata, names in lower case without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
}

/// An answered GET: the headers are here, the body follows.
pub struct GetBody {
    pub head: ObjectHead,
    /// The bytes the body will carry, and `head.size` is the whole object's size.
    pub range: Range<u64>,
    /// How long the server took to the first byte of the answer.
    pub first_byte: Duration,
    pub body: Box<dyn ByteStream>,
}

impl fmt::Debug for GetBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetBody")
            .field("head", &self.head)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// A body as it arrives.
#[async_trait]
pub trait ByteStream: Send {
    /// The next piece, or `None` at the end. An end before the announced length is an error.
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError>;
    /// The reader wants no more for now: the request no longer counts as one in flight.
    fn pause(&mut self) {}
}

/// A multipart upload that is not completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunUpload {
    pub id: String,
    /// By the server's clock.
    pub initiated: SystemTime,
}

/// What is stored with an object beside its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectHeaders {
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    /// User metadata, names in lower case without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
}

impl From<ObjectHead> for ObjectHeaders {
    fn from(head: ObjectHead) -> Self {
        Self { content_type: head.content_type, cache_control: head.cache_control, metadata: head.metadata }
    }
}

/// A part that the server has: its number, from 1 on, the tag to be echoed as it came, and its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub number: u16,
    pub etag: String,
    pub size: u64,
}

/// A bucket as the list of buckets shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketEntry {
    pub name: String,
    pub created: Option<SystemTime>,
}

/// Whether the server would take an object, found out without storing one.
#[derive(Debug, Clone)]
pub enum UploadCheck {
    Allowed,
    /// A policy raised an error.
    Refused(StoreError),
    /// The server said no, or did not understand the question. The beginning of an upload tells for sure.
    Doubtful,
    /// There was no answer, or the server has failed.
    NoAnswer,
}

/// What the file system asks of the service. Dropping a returned future aborts the request.
///
/// Every method retries what is worth retrying until the operation's deadline; what it returns is final.
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug {
    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError>;
    async fn head(&self, key: &str) -> Result<ObjectHead, StoreError>;
    /// Reads `range`, or the whole object when `None` (the only way to read an empty one).
    /// `size_hint` is the object's size where known: a server may hash all of it before the first byte.
    async fn get(&self, key: &str, range: Option<Range<u64>>, size_hint: u64) -> Result<GetBody, StoreError>;
    /// Stores a whole object by one request, replacing what the key held. Ends only when no byte has moved for the
    /// operation time-out.
    async fn put(&self, key: &str, headers: &ObjectHeaders, body: &Section) -> Result<ETag, StoreError>;
    /// Copies an object of up to [`MAX_COPY`] bytes on the server, with its own headers, or with these alone. `size`
    /// is its size as far as known: the server takes time for each byte.
    async fn copy(
        &self,
        from: &str,
        to: &str,
        size: u64,
        headers: Option<&ObjectHeaders>,
    ) -> Result<ETag, StoreError>;
    /// Deletes an object. One that is not there is no error.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;
    /// Deletes any number of objects, and returns those that were refused, each with its reason.
    async fn delete_many(&self, keys: &[String]) -> Result<Vec<StoreError>, StoreError>;
    /// Begins a multipart upload; returns its id. `doubt` tells whether another one may have been begun that nobody
    /// knows the id of.
    async fn create_upload(
        &self,
        key: &str,
        headers: &ObjectHeaders,
        doubt: &Doubt,
    ) -> Result<String, StoreError>;
    /// Sends one part.
    async fn upload_part(&self, key: &str, id: &str, number: u16, body: &Section)
    -> Result<Part, StoreError>;
    /// Makes a part of a range, of at most [`MAX_COPY`] bytes, of an object on the server. Not conditional on its
    /// version: compare before the upload is completed.
    async fn copy_part(
        &self,
        key: &str,
        id: &str,
        number: u16,
        from: &str,
        range: Range<u64>,
    ) -> Result<Part, StoreError>;
    /// Makes the object of its parts, in ascending order. `NoSuchUpload` may mean that an earlier attempt, whose
    /// answer was lost, succeeded.
    async fn complete_upload(&self, key: &str, id: &str, parts: &[Part]) -> Result<ETag, StoreError>;
    /// Gives an upload up. One that is not there is no error.
    async fn abort_upload(&self, key: &str, id: &str) -> Result<(), StoreError>;
    /// Asks, by one request, whether an object of this type may be uploaded to a key. Does not try again.
    async fn check_upload(&self, _key: &str, _content_type: Option<&str>) -> UploadCheck {
        UploadCheck::Doubtful
    }
    /// The beginning of an upload was allowed where [`check_upload`](Self::check_upload) was in doubt: there is no use
    /// in asking that way.
    fn distrust_checks(&self) {}
    /// The refusal that an object of this size would meet at this key, as far as a limit is known beforehand. Asks the
    /// server where it tells its limits, now and then.
    async fn too_large(&self, _key: &str, _size: u64) -> Option<StoreError> {
        None
    }
    /// Multipart uploads of just this key that hold no part. The server shows them to access keys only: for a user
    /// there are none.
    async fn partless_uploads(&self, _key: &str) -> Result<Vec<BegunUpload>, StoreError> {
        Ok(vec![])
    }
    /// The shortest time to an answer seen lately, or zero while none is known.
    fn round_trip(&self) -> Duration {
        Duration::ZERO
    }
    /// Whether the names in a directory are known by listing it only, never by probing one of them.
    fn is_listed_only(&self, _prefix: &str) -> bool {
        false
    }
    /// Whether any request can be sent at all: one cheap listing of the root.
    async fn probe(&self) -> Result<(), StoreError> {
        self.list(&ListRequest { limit: 1, ..ListRequest::default() }).await.map(|_| ())
    }
}
