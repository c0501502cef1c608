//! The record beside each data file of the spool: what its bytes are, and where they are to go.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ranges::Ranges;
use super::state::Expected;
use crate::attrs::Attrs;
use crate::etag::ETag;
use crate::store::{ObjectHead, ObjectHeaders};

/// What is to become of a file in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordState {
    /// Being written. After a crash nobody knows whether it is whole.
    Open,
    /// Closed: it is to be uploaded.
    Committed,
    /// It was refused, or its writer died: kept until somebody decides.
    Parked,
    /// The object is to be deleted. There is no data.
    Removed,
    /// What it holds is in the bucket, or is held by another record: nothing is lost with it.
    Clean,
    /// A multipart upload that is under way, to be aborted by whoever finds this. There is no data.
    Upload,
}

/// Whose a spool is, and where its files are to go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Of the credential, in words.
    pub identity: String,
    pub endpoint: String,
    /// Empty where the keys begin with the bucket (`mount --all`).
    pub bucket: String,
    /// What the mount's root is below; empty or with a slash at its end.
    pub prefix: String,
}

impl Owner {
    /// A key of the mount as bucket and key of the server.
    #[must_use]
    pub fn whole_key(&self, key: &str) -> String {
        let whole = format!("{}/{}{key}", self.bucket, self.prefix);
        whole.trim_start_matches('/').to_owned()
    }
}

/// The object whose untouched bytes a file still has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    pub key: String,
    pub etag: String,
    pub size: u64,
    pub modified_ms: i64,
}

impl Base {
    #[must_use]
    pub fn etag(&self) -> ETag {
        ETag::new(&self.etag)
    }
}

/// An object that a rename copies to the key of a file: where the key holds it, the file is not wanted any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// Of the object that is copied, empty where it is not known. That of the copy may be another one, if it was
    /// uploaded in parts.
    pub etag: String,
    pub size: u64,
    /// In nanoseconds, as its metadata say.
    pub mtime: Option<i64>,
}

impl Successor {
    /// Whether this is what the server has.
    #[must_use]
    pub fn is(&self, head: &ObjectHead) -> bool {
        let is_same_time = self.mtime.is_some() && Attrs::from_metadata(&head.metadata).mtime == self.mtime;
        let is_same_tag = !self.etag.is_empty() && head.etag == ETag::new(&self.etag);
        head.size == self.size && (is_same_time || is_same_tag)
    }
}

/// One file of the spool. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub state: RecordState,
    /// Relative to the root of the mount; empty once the name is gone.
    pub key: String,
    pub size: u64,
    /// Start and end of each range that is here.
    pub local: Vec<(u64, u64)>,
    pub base: Option<Base>,
    /// Bytes of the base that are part of the file, where they are not here.
    pub base_limit: u64,
    /// ETag and size of what the key held.
    pub expected: Option<(String, u64)>,
    /// ETag and size of what a rename put this file in the place of.
    #[serde(default)]
    pub replaces: Option<(String, u64)>,
    /// What a rename was putting in the place of this file.
    #[serde(default)]
    pub gives_way: Option<Successor>,
    /// Size and time of versions that may have got through.
    #[serde(default)]
    pub attempted: Vec<(u64, i64)>,
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// Entries of the user metadata that are to go.
    #[serde(default)]
    pub unset: Vec<String>,
    /// The id of a multipart upload of the key.
    #[serde(default)]
    pub upload: Option<String>,
    /// A copy of what the file with this id held when it was closed: it counts until that one is closed again.
    #[serde(default)]
    pub until: Option<String>,
    pub owner: Owner,
    /// Milliseconds since the Unix epoch.
    pub changed_ms: i64,
    pub error: Option<String>,
    /// SHA-256 of the local ranges, where the spool outlives a loss of power: tells whole data from torn.
    #[serde(default)]
    pub digest: Option<String>,
    /// The object holds the content; only what is set beside it is to be stored.
    #[serde(default)]
    pub settings_only: bool,
    /// Of a removal: the folder stays when its last object goes.
    #[serde(default)]
    pub keeps_folder: bool,
}

impl Record {
    #[must_use]
    pub fn new(owner: &Owner) -> Self {
        Self {
            version: 1,
            state: RecordState::Open,
            key: String::new(),
            size: 0,
            local: vec![],
            base: None,
            base_limit: 0,
            expected: None,
            replaces: None,
            gives_way: None,
            attempted: vec![],
            content_type: None,
            cache_control: None,
            metadata: BTreeMap::new(),
            unset: vec![],
            upload: None,
            until: None,
            owner: owner.clone(),
            changed_ms: 0,
            error: None,
            digest: None,
            settings_only: false,
            keeps_folder: false,
        }
    }

    #[must_use]
    pub fn expected(&self) -> Option<Expected> {
        version(self.expected.as_ref())
    }

    #[must_use]
    pub fn replaces(&self) -> Option<Expected> {
        version(self.replaces.as_ref())
    }

    /// Bytes that are in the spool.
    #[must_use]
    pub fn local_bytes(&self) -> u64 {
        self.local.iter().map(|(start, end)| end - start).sum()
    }

    /// Bytes that only the base object has.
    #[must_use]
    pub fn missing(&self) -> Ranges {
        let local: Ranges = self.local.iter().map(|&(start, end)| start..end).collect();
        local.gaps(0..self.base_limit.min(self.size)).into_iter().collect()
    }

    pub(super) fn set_headers(&mut self, headers: ObjectHeaders) {
        self.content_type = headers.content_type;
        self.cache_control = headers.cache_control;
        self.metadata = headers.metadata;
    }
}

fn version(stored: Option<&(String, u64)>) -> Option<Expected> {
    stored.map(|(etag, size)| Expected { etag: ETag::new(etag), size: *size })
}
