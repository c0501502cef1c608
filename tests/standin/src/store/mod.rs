//! Buckets and their objects: one map behind one short lock that is never held across an await. With a
//! data directory every change is on disk before the map shows it.

pub mod content;
pub mod disk;
pub mod etag;
pub mod list;
pub mod object;
pub mod sink;
pub mod synthetic;
pub mod uploads;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::clock::{self, Millis};
use crate::error::{S3Error, S3Result};
use crate::rls::Policy;
use disk::Disk;
use list::Objects;
use object::Object;
use uploads::Uploads;

/// A bucket: its row, its policies, its objects.
#[derive(Debug, Default)]
pub struct Bucket {
    pub created_at: Millis,
    pub public: bool,
    /// Policies on this bucket's rows of `storage.objects`.
    pub policies: Vec<Policy>,
    /// Roles with a SELECT policy on this row of `storage.buckets`.
    pub visible_to: Vec<String>,
    /// Most bytes of an object.
    pub file_size_limit: Option<u64>,
    /// `image/png` or `image/*`; empty for any.
    pub allowed_mime_types: Vec<String>,
    pub objects: Objects,
}

/// All buckets.
#[derive(Debug)]
pub struct Store {
    buckets: RwLock<BTreeMap<String, Bucket>>,
    disk: Option<Disk>,
    md5: bool,
    pub uploads: Uploads,
}

impl Store {
    /// `md5`: whether `ETag`s are MD5s, or tags that cost nothing.
    pub fn open(dir: Option<&Path>, md5: bool) -> io::Result<Self> {
        let disk = dir.map(Disk::open).transpose()?;
        let loaded = disk.as_ref().map_or_else(|| Ok(Vec::new()), Disk::load)?;
        let buckets = RwLock::new(loaded.into_iter().collect());
        Ok(Self { buckets, disk, md5, uploads: Uploads::default() })
    }

    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// Whether `ETag`s are MD5s.
    pub fn hashes(&self) -> bool {
        self.md5
    }

    /// Whether the bucket was made; false if it was there.
    pub fn create_bucket(&self, name: &str, public: bool) -> S3Result<bool> {
        let mut buckets = self.buckets.write();
        if buckets.contains_key(name) {
            return Ok(false);
        }
        let bucket = Bucket { created_at: clock::now(), public, ..Bucket::default() };
        if let Some(disk) = &self.disk {
            disk.write_bucket(name, &bucket)?;
        }
        buckets.insert(name.to_owned(), bucket);
        Ok(true)
    }

    /// Removes an empty bucket.
    pub fn delete_bucket(&self, name: &str) -> S3Result<()> {
        let mut buckets = self.buckets.write();
        let bucket = buckets.get(name).ok_or_else(S3Error::no_such_bucket)?;
        if !bucket.objects.is_empty() {
            return Err(S3Error::bucket_not_empty());
        }
        if !self.uploads.of_bucket(name).is_empty() {
            return Err(S3Error::bucket_referenced());
        }
        if let Some(disk) = &self.disk {
            disk.remove_bucket(name)?;
        }
        buckets.remove(name);
        Ok(())
    }

    /// Looks into a bucket. Keep it short: writers wait.
    pub fn read<R>(&self, bucket: &str, look: impl FnOnce(&Bucket) -> R) -> Option<R> {
        self.buckets.read().get(bucket).map(look)
    }

    /// Looks at all buckets in byte order of their names.
    pub fn read_all<R>(&self, look: impl FnOnce(&BTreeMap<String, Bucket>) -> R) -> R {
        look(&self.buckets.read())
    }

    /// Changes a bucket's row.
    pub fn update(&self, name: &str, change: impl FnOnce(&mut Bucket)) -> S3Result<()> {
        let mut buckets = self.buckets.write();
        let bucket = buckets.get_mut(name).ok_or_else(S3Error::no_such_bucket)?;
        change(bucket);
        if let Some(disk) = &self.disk {
            disk.write_bucket(name, bucket)?;
        }
        Ok(())
    }

    pub fn get(&self, bucket: &str, key: &str) -> Option<Arc<Object>> {
        self.read(bucket, |b| b.objects.get(key).cloned()).flatten()
    }

    /// Commits a version. The row keeps its creation time, and its owner if the new version has none
    /// (an overwrite by the service role).
    pub fn put(&self, bucket: &str, key: &str, object: Object) -> S3Result<Arc<Object>> {
        let Some(disk) = &self.disk else {
            let mut buckets = self.buckets.write();
            let bucket = buckets.get_mut(bucket).ok_or_else(S3Error::no_such_bucket)?;
            let old = bucket.objects.get(key);
            let object = Arc::new(succeeding(object, old.map(AsRef::as_ref)));
            bucket.objects.insert(key.into(), Arc::clone(&object));
            return Ok(object);
        };
        if self.read(bucket, |_| ()).is_none() {
            return Err(S3Error::no_such_bucket());
        }
        let object = succeeding(object, self.get(bucket, key).as_deref());
        let object = Arc::new(disk.write(bucket, key, object)?);
        let mut buckets = self.buckets.write();
        let Some(entry) = buckets.get_mut(bucket) else { return Err(S3Error::no_such_bucket()) };
        let old = entry.objects.insert(key.into(), Arc::clone(&object));
        drop(buckets);
        if let Some(old) = old {
            disk.remove(bucket, old.version);
        }
        Ok(object)
    }

    /// Gives a row another name (bucket, key), and what `object` says; refuses a name that is taken.
    pub fn rename(&self, from: (&str, &str), to: (&str, &str), mut object: Object) -> S3Result<()> {
        if let Some(disk) = &self.disk {
            if self.get(to.0, to.1).is_some() {
                return Err(S3Error::already_exists());
            }
            object = disk.write(to.0, to.1, object)?;
        }
        let mut buckets = self.buckets.write();
        let target = buckets.get(to.0).ok_or_else(S3Error::related_missing)?;
        if target.objects.contains_key(to.1) {
            return Err(S3Error::already_exists());
        }
        let source = buckets.get_mut(from.0).ok_or_else(S3Error::no_such_key)?;
        let old = source.objects.remove(from.1).ok_or_else(S3Error::no_such_key)?;
        if let Some(target) = buckets.get_mut(to.0) {
            target.objects.insert(to.1.into(), Arc::new(object));
        }
        drop(buckets);
        if let Some(disk) = &self.disk {
            disk.remove(from.0, old.version);
        }
        Ok(())
    }

    /// Removes a row; nothing if it was not there.
    pub fn delete(&self, bucket: &str, key: &str) -> Option<Arc<Object>> {
        let removed = self.buckets.write().get_mut(bucket)?.objects.remove(key);
        if let (Some(disk), Some(old)) = (&self.disk, &removed) {
            disk.remove(bucket, old.version);
        }
        removed
    }
}

/// What a version takes over from the one it replaces.
fn succeeding(mut object: Object, old: Option<&Object>) -> Object {
    if let Some(old) = old {
        object.created_at = old.created_at;
        object.owner = object.owner.or_else(|| old.owner.clone());
    }
    object
}
