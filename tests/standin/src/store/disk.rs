//! Buckets and objects below a data directory. Every version is `<version>.bin` (absent for synthetic
//! content) and `<version>.json`; the JSON is written last and by rename, so that a version either is
//! there or is not. Nothing is synced: the stand-in survives its own end, not the machine's.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::Bucket;
use super::content::{Content, FileRef};
use super::etag::Etag;
use super::object::{Metadata, Object};
use crate::clock::Millis;
use crate::rls::Policy;

/// The data directory.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    next: AtomicU64,
}

/// `<version>.json`
#[derive(Serialize, Deserialize)]
struct Record {
    key: String,
    etag: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    synthetic_seed: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    synthetic_offset: Option<u64>,
    content_type: Option<String>,
    cache_control: Option<String>,
    metadata: Option<Metadata>,
    owner: Option<String>,
    created_at: Millis,
    updated_at: Millis,
}

/// `bucket.json`
#[derive(Serialize, Deserialize)]
struct BucketRecord {
    created_at: Millis,
    public: bool,
    policies: Vec<Policy>,
    visible_to: Vec<String>,
    #[serde(default)]
    file_size_limit: Option<u64>,
    #[serde(default)]
    allowed_mime_types: Vec<String>,
}

impl Disk {
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root.join("buckets"))?;
        let tmp = root.join("tmp");
        // Uploads that a former process did not finish.
        if tmp.exists() {
            fs::remove_dir_all(&tmp)?;
        }
        fs::create_dir_all(tmp)?;
        Ok(Self { root: root.to_owned(), next: AtomicU64::new(1) })
    }

    /// The prefix keeps buckets named `.` and `..` out of trouble.
    fn bucket_dir(&self, bucket: &str) -> PathBuf {
        self.root.join("buckets").join(format!("b-{bucket}"))
    }

    fn data_path(&self, bucket: &str, version: u64) -> PathBuf {
        self.bucket_dir(bucket).join(format!("{version}.bin"))
    }

    fn next_version(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A new file for a body that is still arriving.
    pub fn temporary(&self) -> io::Result<(PathBuf, fs::File)> {
        let path = self.root.join("tmp").join(self.next_version().to_string());
        let file = fs::File::create_new(&path)?;
        Ok((path, file))
    }

    pub fn write_bucket(&self, name: &str, bucket: &Bucket) -> io::Result<()> {
        let record = BucketRecord {
            created_at: bucket.created_at,
            public: bucket.public,
            policies: bucket.policies.clone(),
            visible_to: bucket.visible_to.clone(),
            file_size_limit: bucket.file_size_limit,
            allowed_mime_types: bucket.allowed_mime_types.clone(),
        };
        let dir = self.bucket_dir(name);
        fs::create_dir_all(&dir)?;
        write_json(&dir.join("bucket.json"), &record)
    }

    pub fn remove_bucket(&self, name: &str) -> io::Result<()> {
        fs::remove_dir_all(self.bucket_dir(name))
    }

    /// A further name for a file's bytes, which may so outlive the version they belong to.
    pub fn link(&self, content: &Content) -> io::Result<Content> {
        let linked = |piece: Content| match piece {
            Content::File { file, offset, size } => {
                let path = self.root.join("tmp").join(self.next_version().to_string());
                fs::hard_link(file.path(), &path)?;
                Ok(Content::File { file: FileRef::temporary(path), offset, size })
            }
            other => Ok(other),
        };
        let pieces: io::Result<Vec<_>> = content.pieces().into_iter().map(linked).collect();
        Ok(Content::join(pieces?))
    }

    /// Makes a version durable and returns the object as it is to be kept in memory. A whole file is moved
    /// when it is a temporary one and linked when it is another version's; what is in pieces is written out.
    pub fn write(&self, bucket: &str, key: &str, mut object: Object) -> io::Result<Object> {
        let version = self.next_version();
        let path = self.data_path(bucket, version);
        let size = object.size();
        let mut synthetic = None;
        match &object.content {
            Content::Memory(bytes) => fs::write(&path, bytes)?,
            Content::Synthetic { seed, offset, .. } => synthetic = Some((*seed, *offset)),
            Content::File { file, offset: 0, size } if fs::metadata(file.path())?.len() == *size => {
                if file.path().starts_with(self.root.join("tmp")) {
                    fs::rename(file.path(), &path)?;
                } else {
                    fs::hard_link(file.path(), &path)?;
                }
            }
            pieces => {
                let mut file = fs::File::create(&path)?;
                pieces.each_chunk(|chunk| file.write_all(chunk))?;
            }
        }
        if synthetic.is_none() {
            object.content = Content::File { file: FileRef::kept(path), offset: 0, size };
        }
        object.version = version;
        let record = Record {
            key: key.to_owned(),
            etag: object.etag.text(),
            size,
            synthetic_seed: synthetic.map(|(seed, _)| seed),
            synthetic_offset: synthetic.map(|(_, offset)| offset),
            content_type: object.content_type.as_deref().map(str::to_owned),
            cache_control: object.cache_control.as_deref().map(str::to_owned),
            metadata: object.metadata.as_deref().cloned(),
            owner: object.owner.as_deref().map(str::to_owned),
            created_at: object.created_at,
            updated_at: object.updated_at,
        };
        write_json(&self.bucket_dir(bucket).join(format!("{version}.json")), &record)?;
        Ok(object)
    }

    /// Removes a version; failures leave files that the next start reads as an older version.
    pub fn remove(&self, bucket: &str, version: u64) {
        let _ = fs::remove_file(self.bucket_dir(bucket).join(format!("{version}.json")));
        let _ = fs::remove_file(self.data_path(bucket, version));
    }

    /// Reads everything back.
    pub fn load(&self) -> io::Result<Vec<(String, Bucket)>> {
        let mut buckets = Vec::new();
        for entry in fs::read_dir(self.root.join("buckets"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(bucket) = name.strip_prefix("b-") {
                buckets.push((bucket.to_owned(), self.load_bucket(bucket)?));
            }
        }
        Ok(buckets)
    }

    fn load_bucket(&self, name: &str) -> io::Result<Bucket> {
        let dir = self.bucket_dir(name);
        let record: BucketRecord = read_json(&dir.join("bucket.json"))?;
        let mut bucket = Bucket {
            created_at: record.created_at,
            public: record.public,
            policies: record.policies,
            visible_to: record.visible_to,
            file_size_limit: record.file_size_limit,
            allowed_mime_types: record.allowed_mime_types,
            objects: super::list::Objects::new(),
        };
        let mut versions = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<u64>().ok());
            if let (Some(version), Some("json")) = (stem, path.extension().and_then(|e| e.to_str())) {
                versions.push((version, path));
            }
        }
        versions.sort();
        for (version, path) in versions {
            self.next.fetch_max(version + 1, Ordering::Relaxed);
            let record: Record = read_json(&path)?;
            let key = record.key.clone();
            let object = self.object(name, version, record)?;
            if let Some(older) = bucket.objects.insert(key.into_boxed_str(), Arc::new(object)) {
                self.remove(name, older.version);
            }
        }
        Ok(bucket)
    }

    fn object(&self, bucket: &str, version: u64, record: Record) -> io::Result<Object> {
        let size = record.size;
        let content = match record.synthetic_seed {
            Some(seed) => Content::Synthetic { seed, offset: record.synthetic_offset.unwrap_or(0), size },
            None => Content::File { file: FileRef::kept(self.data_path(bucket, version)), offset: 0, size },
        };
        let etag = Etag::parse(&record.etag).ok_or_else(|| io::Error::other("no ETag"))?;
        Ok(Object {
            content,
            etag,
            content_type: record.content_type.map(Arc::from),
            cache_control: record.cache_control.map(Arc::from),
            metadata: record.metadata.map(Arc::new),
            owner: record.owner.map(Arc::from),
            created_at: record.created_at,
            updated_at: record.updated_at,
            version,
        })
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let tmp = path.with_extension("tmp");
    fs::write(&tmp, serde_json::to_vec_pretty(value)?)?;
    fs::rename(tmp, path)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(|e| io::Error::other(format!("{}: {e}", path.display())))
}
