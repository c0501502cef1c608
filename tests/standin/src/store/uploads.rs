//! Multipart uploads under way: what was fixed when they were created, their parts, and the row of each
//! part ever recorded, which is what the real database knows. Not kept across restarts. Lock rank: leaf.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::content::Content;
use super::object::Metadata;
use crate::clock::{self, Millis};
use crate::error::{S3Error, S3Result};

/// The bytes of a part, as last uploaded.
#[derive(Clone, Debug)]
pub struct Part {
    pub content: Content,
    pub hash: [u8; 16],
}

/// A row of `storage.s3_multipart_uploads_parts`: one for each upload of a part, also of the same number.
#[derive(Clone, Debug)]
pub struct PartRow {
    pub number: u32,
    /// As the client was told it.
    pub etag: String,
    pub created_at: Millis,
}

/// An upload under way.
#[derive(Clone, Debug)]
pub struct Upload {
    pub bucket: String,
    pub key: String,
    pub content_type: Option<Arc<str>>,
    pub cache_control: Option<Arc<str>>,
    pub metadata: Option<Arc<Metadata>>,
    pub created_at: Millis,
    /// Bytes accepted so far, those of replaced parts included.
    pub progress: u64,
    pub parts: BTreeMap<u32, Part>,
    pub rows: Vec<PartRow>,
}

impl Upload {
    pub fn new(bucket: &str, key: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            content_type: None,
            cache_control: None,
            metadata: None,
            created_at: clock::now(),
            progress: 0,
            parts: BTreeMap::new(),
            rows: Vec::new(),
        }
    }

    /// Whether the upload was created for this key.
    pub fn is_for(&self, bucket: &str, key: &str) -> bool {
        self.bucket == bucket && self.key == key
    }
}

/// All uploads of a stand-in.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<HashMap<String, Upload>>);

fn missing() -> S3Error {
    S3Error::new(404, "NoSuchUpload", "Upload not found")
}

impl Uploads {
    pub fn create(&self, id: &str, upload: Upload) {
        self.0.lock().insert(id.to_owned(), upload);
    }

    /// Looks at an upload, or changes it.
    pub fn with<R>(&self, id: &str, look: impl FnOnce(&mut Upload) -> R) -> S3Result<R> {
        self.0.lock().get_mut(id).map(look).ok_or_else(missing)
    }

    /// Counts bytes before they come; refuses what would pass `limit`.
    pub fn reserve(&self, id: &str, bytes: u64, limit: u64) -> S3Result<()> {
        self.with(id, |upload| {
            let progress = upload.progress.saturating_add(bytes);
            if progress > limit {
                return Err(S3Error::too_large());
            }
            upload.progress = progress;
            Ok(())
        })?
    }

    /// Takes back what was reserved for a part that failed.
    pub fn release(&self, id: &str, bytes: u64) {
        // An upload that is gone needs nothing taken back.
        let _ = self.with(id, |upload| upload.progress = upload.progress.saturating_sub(bytes));
    }

    /// Records a part.
    pub fn put_part(&self, id: &str, number: u32, part: Part, etag: &str) -> S3Result<Millis> {
        self.with(id, |upload| {
            let row = PartRow { number, etag: etag.to_owned(), created_at: clock::now() };
            let created_at = row.created_at;
            upload.rows.push(row);
            upload.parts.insert(number, part);
            created_at
        })
    }

    /// Ends an upload.
    pub fn remove(&self, id: &str) -> S3Result<Upload> {
        self.0.lock().remove(id).ok_or_else(missing)
    }

    /// The uploads of a bucket, by key, then by id.
    pub fn of_bucket(&self, bucket: &str) -> Vec<(String, String, Millis)> {
        let uploads = self.0.lock();
        let mut found: Vec<_> = uploads
            .iter()
            .filter(|(_, upload)| upload.bucket == bucket)
            .map(|(id, upload)| (upload.key.clone(), id.clone(), upload.created_at))
            .collect();
        found.sort();
        found
    }
}
