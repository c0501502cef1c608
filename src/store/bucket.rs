//! One bucket, or the part of it below a prefix, as an object store.
//!
//! Owns the listing workaround: Supabase's listing with a delimiter loses keys wherever a page ends, so pages
//! are kept below the server's internal boundary, its continuation token is ignored, and the next page is
//! asked for from a key that sorts right behind the last one seen. What is returned is exact on the server as
//! it is, and once it is mended.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::retry::{Call, Failure};
use super::s3::Connection;
use super::{
    BegunUpload, Doubt, GetBody, ListPage, ListRequest, ListedObject, ObjectHead, ObjectHeaders, ObjectStore,
    Part, Section, StoreError, UploadCheck,
};
use crate::etag::ETag;
use crate::stats::Operation;

/// The server loses keys where a listing passes 1000 rows inside.
const MAX_PAGE: u16 = 999;

/// Sorts behind everything that a key can contain.
const LAST: char = '\u{10FFFF}';
/// Sorts before everything that a key can contain.
const FIRST: char = '\u{1}';

/// A bucket, seen from below a prefix.
#[derive(Debug)]
pub(super) struct Bucket {
    connection: Arc<Connection>,
    name: String,
    /// Empty, or ends in `/`.
    prefix: String,
}

/// A page as the server gave it, keys in full.
struct RawPage {
    objects: Vec<ListedObject>,
    prefixes: Vec<String>,
    truncated: bool,
}

impl Bucket {
    pub(super) fn new(connection: Arc<Connection>, name: &str, prefix: &str) -> Self {
        Self { connection, name: name.to_owned(), prefix: prefix.to_owned() }
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn relative(&self, key: &str) -> String {
        key.strip_prefix(&self.prefix).unwrap_or(key).to_owned()
    }

    /// A copy into another bucket, or this one.
    pub(super) async fn copy_to(
        &self,
        (from, size): (&str, u64),
        (target, to): (&Self, &str),
        headers: Option<&ObjectHeaders>,
    ) -> Result<ETag, StoreError> {
        let (from, to) = (self.full(from), target.full(to));
        self.connection.copy((&self.name, &from), size, (&target.name, &to), headers).await
    }

    pub(super) async fn copy_part_to(
        &self,
        target: &Self,
        key: &str,
        id: &str,
        number: u16,
        from: &str,
        range: Range<u64>,
    ) -> Result<Part, StoreError> {
        let (from, key) = (self.full(from), target.full(key));
        self.connection.copy_part((&target.name, &key), id, number, (&self.name, &from), range).await
    }

    /// One request.
    async fn page(
        &self,
        prefix: &str,
        fold: bool,
        after: Option<&str>,
        limit: u16,
    ) -> Result<RawPage, StoreError> {
        let connection = &self.connection;
        let call = Call::new(Operation::ListObjectsV2, &self.name, prefix);
        let answer = connection
            .attempt(call, |place| {
                Box::pin(async move {
                    let _in_flight = place;
                    let sent = Instant::now();
                    let output = connection
                        .client
                        .list_objects_v2()
                        .bucket(&self.name)
                        .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
                        .set_delimiter(fold.then(|| "/".to_owned()))
                        .set_start_after(after.map(ToOwned::to_owned))
                        .max_keys(i32::from(limit))
                        .send()
                        .await
                        .map_err(|error| Failure::of(call, &error))?;
                    connection.note_round_trip(sent.elapsed());
                    let objects = output
                        .contents
                        .unwrap_or_default()
                        .into_iter()
                        .map(|object| {
                            let modified_ms =
                                object.last_modified.and_then(|date| date.to_millis().ok()).unwrap_or(0);
                            let size = object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                            let etag = ETag::new(object.e_tag.as_deref().unwrap_or_default());
                            Some(ListedObject { key: object.key?, size, etag, modified_ms })
                        })
                        .collect::<Option<Vec<_>>>()
                        .ok_or_else(|| Failure::protocol(call, "an entry of the listing has no key"))?;
                    if let Some(stray) = objects.iter().find(|object| !object.key.starts_with(prefix)) {
                        return Err(Failure::protocol(
                            call,
                            format!("{:?} is not below the prefix", stray.key),
                        ));
                    }
                    let prefixes: Vec<String> = output
                        .common_prefixes
                        .unwrap_or_default()
                        .into_iter()
                        .filter_map(|p| p.prefix)
                        .collect();
                    let is_below = |folder: &String| folder.starts_with(prefix) && folder.ends_with('/');
                    if let Some(stray) = prefixes.iter().find(|folder| !is_below(folder)) {
                        return Err(Failure::protocol(
                            call,
                            format!("{stray:?} is no folder below the prefix"),
                        ));
                    }
                    Ok(RawPage { objects, prefixes, truncated: output.is_truncated.unwrap_or(false) })
                })
            })
            .await;
        match answer {
            Ok(page) => Ok(page),
            Err(error) => Err(connection.name_bucket(&self.name, error).await),
        }
    }

    async fn folded(&self, prefix: &str, after: Option<&str>, limit: u16) -> Result<ListPage, StoreError> {
        let raw = self.page(prefix, true, after, limit).await?;
        let mut next = None;
        if raw.truncated {
            next = resume_after(prefix, &raw);
        }
        let mut prefixes: Vec<String> = raw
            .prefixes
            .into_iter()
            // `dir/` below `dir/` is how the server shows `dir//…`.
            .map(|folded| if folded == prefix { format!("{folded}/") } else { folded })
            .collect();
        prefixes.dedup();
        Ok(ListPage { objects: raw.objects, prefixes, next })
    }

    /// Folds a flat listing here: for prefixes that end in an empty component, where the server's own folding
    /// cannot be relied on.
    async fn folded_locally(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u16,
    ) -> Result<ListPage, StoreError> {
        let raw = self.page(prefix, false, after, limit).await?;
        let mut page = ListPage::default();
        let last = raw.objects.last().map(|object| object.key.clone());
        for object in raw.objects {
            match object.key[prefix.len()..].find('/') {
                None => page.objects.push(object),
                Some(slash) => {
                    let folder = &object.key[..=prefix.len() + slash];
                    if page.prefixes.last().is_none_or(|last| last != folder) {
                        page.prefixes.push(folder.to_owned());
                    }
                }
            }
        }
        if raw.truncated {
            page.next = last.map(|key| match page.prefixes.last() {
                Some(folder) if key.starts_with(folder.as_str()) => format!("{folder}{LAST}"),
                _ => format!("{key}{FIRST}"),
            });
        }
        Ok(page)
    }
}

/// Where the next page begins: right behind the last key, or behind all that the last folder holds.
fn resume_after(prefix: &str, page: &RawPage) -> Option<String> {
    let key = page.objects.last().map(|object| object.key.as_str());
    // `dir/` below `dir/` stands for `dir//…`.
    let folder = page
        .prefixes
        .last()
        .map(|folder| if folder == prefix { format!("{folder}/") } else { folder.clone() });
    match (key, folder) {
        (Some(key), Some(folder)) if key < folder.as_str() => Some(format!("{folder}{LAST}")),
        (Some(key), _) => Some(format!("{key}{FIRST}")),
        (None, Some(folder)) => Some(format!("{folder}{LAST}")),
        (None, None) => None,
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let prefix = self.full(&request.prefix);
        let limit = if request.limit == 0 { MAX_PAGE } else { request.limit.min(MAX_PAGE) };
        let after = request.after.as_deref().map(|after| self.full(after));
        let after = after.as_deref();
        let mut page = if !request.fold {
            let raw = self.page(&prefix, false, after, limit).await?;
            let next = if raw.truncated { resume_after(&prefix, &raw) } else { None };
            ListPage { objects: raw.objects, prefixes: vec![], next }
        } else if prefix == "/" || prefix.ends_with("//") {
            self.folded_locally(&prefix, after, limit).await?
        } else {
            self.folded(&prefix, after, limit).await?
        };
        if !self.prefix.is_empty() {
            for object in &mut page.objects {
                object.key = self.relative(&object.key);
            }
            for folder in &mut page.prefixes {
                *folder = self.relative(folder);
            }
            page.next = page.next.map(|next| self.relative(&next));
        }
        Ok(page)
    }

    fn round_trip(&self) -> Duration {
        self.connection.round_trip()
    }

    async fn head(&self, key: &str) -> Result<ObjectHead, StoreError> {
        self.connection.head(&self.name, &self.full(key)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>, size_hint: u64) -> Result<GetBody, StoreError> {
        self.connection.get(&self.name, &self.full(key), range, size_hint).await
    }

    async fn put(&self, key: &str, headers: &ObjectHeaders, body: &Section) -> Result<ETag, StoreError> {
        self.connection.put(&self.name, &self.full(key), headers, body).await
    }

    async fn copy(
        &self,
        from: &str,
        to: &str,
        size: u64,
        headers: Option<&ObjectHeaders>,
    ) -> Result<ETag, StoreError> {
        self.copy_to((from, size), (self, to), headers).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.connection.delete(&self.name, &self.full(key)).await
    }

    async fn delete_many(&self, keys: &[String]) -> Result<Vec<StoreError>, StoreError> {
        let keys: Vec<String> = keys.iter().map(|key| self.full(key)).collect();
        let mut refused = self.connection.delete_many(&self.name, &keys).await?;
        for error in &mut refused {
            error.key = self.relative(&error.key);
        }
        Ok(refused)
    }

    async fn check_upload(&self, key: &str, content_type: Option<&str>) -> UploadCheck {
        self.connection.check_upload(&self.name, &self.full(key), content_type).await
    }

    fn distrust_checks(&self) {
        self.connection.checks.distrust();
    }

    async fn too_large(&self, key: &str, size: u64) -> Option<StoreError> {
        self.connection.too_large(&self.name, &self.full(key), size).await
    }

    async fn create_upload(
        &self,
        key: &str,
        headers: &ObjectHeaders,
        doubt: &Doubt,
    ) -> Result<String, StoreError> {
        self.connection.create_upload(&self.name, &self.full(key), headers, doubt).await
    }

    async fn upload_part(
        &self,
        key: &str,
        id: &str,
        number: u16,
        body: &Section,
    ) -> Result<Part, StoreError> {
        self.connection.upload_part(&self.name, &self.full(key), id, number, body).await
    }

    async fn copy_part(
        &self,
        key: &str,
        id: &str,
        number: u16,
        from: &str,
        range: Range<u64>,
    ) -> Result<Part, StoreError> {
        self.copy_part_to(self, key, id, number, from, range).await
    }

    async fn complete_upload(&self, key: &str, id: &str, parts: &[Part]) -> Result<ETag, StoreError> {
        self.connection.complete_upload(&self.name, &self.full(key), id, parts).await
    }

    async fn abort_upload(&self, key: &str, id: &str) -> Result<(), StoreError> {
        self.connection.abort_upload(&self.name, &self.full(key), id).await
    }

    async fn partless_uploads(&self, key: &str) -> Result<Vec<BegunUpload>, StoreError> {
        self.connection.partless_uploads(&self.name, &self.full(key)).await
    }
}
