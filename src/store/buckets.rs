//! Every bucket as a directory: `mount --all`. The first component of a key is the bucket.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;

use super::bucket::Bucket;
use super::s3::S3Service;
use super::{
    BegunUpload, Doubt, GetBody, ListPage, ListRequest, ObjectHead, ObjectHeaders, ObjectStore, Part,
    Section, StoreError, StoreErrorKind, UploadCheck,
};
use crate::etag::ETag;

/// The buckets of a service, side by side.
pub(super) struct Buckets {
    service: S3Service,
    /// Empty: those the credential can list.
    named: Vec<String>,
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets").field("named", &self.named).finish_non_exhaustive()
    }
}

impl Buckets {
    pub(super) fn new(service: S3Service, mut named: Vec<String>) -> Self {
        named.sort();
        named.dedup();
        Self { service, named }
    }

    async fn names(&self) -> Result<Vec<String>, StoreError> {
        if !self.named.is_empty() {
            return Ok(self.named.clone());
        }
        Ok(self.service.buckets().await?.into_iter().map(|bucket| bucket.name).collect())
    }

    fn split<'a>(&self, operation: &'static str, key: &'a str) -> Result<(Bucket, &'a str), StoreError> {
        let (bucket, rest) = key.split_once('/').ok_or_else(|| StoreError {
            kind: StoreErrorKind::NotFound,
            operation,
            key: key.to_owned(),
            status: 0,
            code: String::new(),
            message: "there are only buckets here".to_owned(),
        })?;
        Ok((self.service.bucket(bucket, ""), rest))
    }
}

#[async_trait]
impl ObjectStore for Buckets {
    async fn list(&self, request: &ListRequest) -> Result<ListPage, StoreError> {
        let Some((bucket, prefix)) = request.prefix.split_once('/') else {
            let mut prefixes: Vec<_> = self.names().await?.into_iter().map(|name| name + "/").collect();
            prefixes.retain(|name| name.starts_with(&request.prefix));
            return Ok(ListPage { prefixes, ..ListPage::default() });
        };
        let below = |key: &String| key[bucket.len() + 1..].to_owned();
        let after = request.after.as_ref().map(below);
        let inner = ListRequest { prefix: prefix.to_owned(), after, ..request.clone() };
        let mut page = self.service.bucket(bucket, "").list(&inner).await?;
        for object in &mut page.objects {
            object.key = format!("{bucket}/{}", object.key);
        }
        for folder in &mut page.prefixes {
            *folder = format!("{bucket}/{folder}");
        }
        page.next = page.next.map(|next| format!("{bucket}/{next}"));
        Ok(page)
    }

    async fn head(&self, key: &str) -> Result<ObjectHead, StoreError> {
        let (bucket, key) = self.split("HeadObject", key)?;
        bucket.head(key).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>, size_hint: u64) -> Result<GetBody, StoreError> {
        let (bucket, key) = self.split("GetObject", key)?;
        bucket.get(key, range, size_hint).await
    }

    fn round_trip(&self) -> Duration {
        self.service.round_trip()
    }

    fn is_listed_only(&self, prefix: &str) -> bool {
        prefix.is_empty()
    }

    async fn probe(&self) -> Result<(), StoreError> {
        for name in self.names().await? {
            match self.service.bucket(&name, "").probe().await {
                // The others are of use; whoever looks into this one is told, and the log was.
                Err(error) if error.kind == StoreErrorKind::PolicyError => {}
                // It was deleted since it was listed.
                Err(error) if error.kind == StoreErrorKind::NoSuchBucket && self.named.is_empty() => {}
                answer => answer?,
            }
        }
        Ok(())
    }

    async fn put(&self, key: &str, headers: &ObjectHeaders, body: &Section) -> Result<ETag, StoreError> {
        let (bucket, key) = self.split("PutObject", key)?;
        bucket.put(key, headers, body).await
    }

    async fn copy(
        &self,
        from: &str,
        to: &str,
        size: u64,
        headers: Option<&ObjectHeaders>,
    ) -> Result<ETag, StoreError> {
        let (source, from) = self.split("CopyObject", from)?;
        let (target, to) = self.split("CopyObject", to)?;
        source.copy_to((from, size), (&target, to), headers).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let (bucket, key) = self.split("DeleteObject", key)?;
        bucket.delete(key).await
    }

    async fn delete_many(&self, keys: &[String]) -> Result<Vec<StoreError>, StoreError> {
        let mut by_bucket: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for key in keys {
            if let Some((bucket, key)) = key.split_once('/') {
                by_bucket.entry(bucket).or_default().push(key.to_owned());
            }
        }
        let mut refused = Vec::new();
        for (name, keys) in by_bucket {
            let errors = self.service.bucket(name, "").delete_many(&keys).await?;
            refused.extend(
                errors.into_iter().map(|error| StoreError { key: format!("{name}/{}", error.key), ..error }),
            );
        }
        Ok(refused)
    }

    async fn create_upload(
        &self,
        key: &str,
        headers: &ObjectHeaders,
        doubt: &Doubt,
    ) -> Result<String, StoreError> {
        let (bucket, key) = self.split("CreateMultipartUpload", key)?;
        bucket.create_upload(key, headers, doubt).await
    }

    async fn upload_part(
        &self,
        key: &str,
        id: &str,
        number: u16,
        body: &Section,
    ) -> Result<Part, StoreError> {
        let (bucket, key) = self.split("UploadPart", key)?;
        bucket.upload_part(key, id, number, body).await
    }

    async fn copy_part(
        &self,
        key: &str,
        id: &str,
        number: u16,
        from: &str,
        range: Range<u64>,
    ) -> Result<Part, StoreError> {
        let (source, from) = self.split("UploadPartCopy", from)?;
        let (target, key) = self.split("UploadPartCopy", key)?;
        source.copy_part_to(&target, key, id, number, from, range).await
    }

    async fn complete_upload(&self, key: &str, id: &str, parts: &[Part]) -> Result<ETag, StoreError> {
        let (bucket, key) = self.split("CompleteMultipartUpload", key)?;
        bucket.complete_upload(key, id, parts).await
    }

    async fn check_upload(&self, key: &str, content_type: Option<&str>) -> UploadCheck {
        match self.split("SignUploadUrl", key) {
            Ok((bucket, key)) => bucket.check_upload(key, content_type).await,
            Err(_) => UploadCheck::Doubtful,
        }
    }

    fn distrust_checks(&self) {
        self.service.distrust_checks();
    }

    async fn too_large(&self, key: &str, size: u64) -> Option<StoreError> {
        let (bucket, key) = self.split("GetBucket", key).ok()?;
        bucket.too_large(key, size).await
    }

    async fn abort_upload(&self, key: &str, id: &str) -> Result<(), StoreError> {
        let (bucket, key) = self.split("AbortMultipartUpload", key)?;
        bucket.abort_upload(key, id).await
    }

    async fn partless_uploads(&self, key: &str) -> Result<Vec<BegunUpload>, StoreError> {
        let (bucket, key) = self.split("ListMultipartUploads", key)?;
        bucket.partless_uploads(key).await
    }
}
