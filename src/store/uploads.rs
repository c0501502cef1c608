//! Which multipart uploads of a key are not completed: `ListMultipartUploads` and `ListParts`.

use std::time::{Duration, SystemTime};

use super::retry::{Call, Failure};
use super::s3::Connection;
use super::verbatim::spelled;
use super::{BegunUpload, StoreError, StoreErrorKind};
use crate::stats::Operation;

impl Connection {
    pub(super) async fn partless_uploads(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Vec<BegunUpload>, StoreError> {
        let mut partless = Vec::new();
        for upload in self.uploads(bucket, key).await? {
            if self.holds_no_part(bucket, key, &upload.id).await? {
                partless.push(upload);
            }
        }
        Ok(partless)
    }

    async fn uploads(&self, bucket: &str, key: &str) -> Result<Vec<BegunUpload>, StoreError> {
        let call = Call::new(Operation::ListMultipartUploads, bucket, key);
        let (mut uploads, mut after) = (Vec::new(), (None, None));
        loop {
            let from = &after;
            let page = self
                .attempt(call, |place| async move {
                    let _in_flight = place;
                    let request = self.client.list_multipart_uploads().bucket(bucket).prefix(key);
                    let request = request.set_key_marker(from.0.clone()).set_upload_id_marker(from.1.clone());
                    request.send().await.map_err(|error| Failure::of(call, &error))
                })
                .await?;
            // The prefix matches longer keys, too, and upper and lower case alike.
            for upload in page.uploads().iter().filter(|upload| upload.key() == Some(key)) {
                let since = upload.initiated().and_then(|at| u64::try_from(at.secs()).ok());
                if let (Some(id), Some(since)) = (upload.upload_id(), since) {
                    let initiated = SystemTime::UNIX_EPOCH + Duration::from_secs(since);
                    uploads.push(BegunUpload { id: id.to_owned(), initiated });
                }
            }
            let next =
                (page.next_key_marker().map(str::to_owned), page.next_upload_id_marker().map(str::to_owned));
            if page.is_truncated() != Some(true) || next.0.is_none() || next == after {
                return Ok(uploads);
            }
            after = next;
        }
    }

    async fn holds_no_part(&self, bucket: &str, key: &str, id: &str) -> Result<bool, StoreError> {
        let call = Call::new(Operation::ListParts, bucket, key);
        let parts = self
            .attempt(call, |place| async move {
                let _in_flight = place;
                let request =
                    self.client.list_parts().bucket(bucket).key(spelled(key)).upload_id(id).max_parts(1);
                request.send().await.map_err(|error| Failure::of(call, &error))
            })
            .await;
        match parts {
            Ok(parts) => Ok(parts.parts().is_empty()),
            // It ended meanwhile.
            Err(error) if matches!(error.kind, StoreErrorKind::NoSuchUpload | StoreErrorKind::NotFound) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
