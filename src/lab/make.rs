//! What a probe has to make, and how it goes away again: by its maker, or by the janitor.
//!
//! Invariant: whatever the server may have kept is either gone or named in [`Lab::left`].

use std::sync::Arc;

use super::probe::probe_name;
use super::{Finding, Lab, Trouble, at_root};
use crate::content_type::content_type;
use crate::store::{Doubt, ObjectHeaders, ObjectStore, Section, StoreError, StoreErrorKind};

impl Lab {
    pub(super) async fn begin_and_abort(
        &self,
        subject: usize,
        bucket: &str,
        key: &str,
    ) -> Result<(), StoreError> {
        let store = self.store(subject, bucket);
        let id = match store.create_upload(key, &headers(key), &Doubt::default()).await {
            Ok(id) => id,
            Err(error) => {
                if may_have_arrived(&error) {
                    self.leave(format!("an upload of {bucket}/{key} may have been begun: {error}"));
                }
                return Err(error);
            }
        };
        let Err(own) = store.abort_upload(key, &id).await else { return Ok(()) };
        // A policy may ask which operation it is, and the server checks the policies of an abort as well.
        let cleared = match self.janitors_store(bucket) {
            Some(store) => store.abort_upload(key, &id).await,
            None => Err(own),
        };
        if let Err(error) = cleared {
            self.leave(format!("the upload {id} of {bucket}/{key} could not be aborted: {error}"));
        }
        Ok(())
    }

    /// Makes an object and deletes it as the identity.
    pub(super) async fn probe_deletion(
        &self,
        subject: usize,
        bucket: &str,
        folder: &str,
        ending: &str,
    ) -> Result<Finding, Trouble> {
        self.go_on()?;
        let key = probe_name(folder, ending);
        let store = self.store(subject, bucket);
        let maker = match self.make(&store, bucket, &key).await {
            Ok(()) => "the identity made itself",
            Err(error) if error.kind != StoreErrorKind::Denied => return self.refusal(subject, error),
            Err(error) => match self.janitors_store(bucket) {
                Some(janitor) => match self.make(&janitor, bucket, &key).await {
                    Ok(()) => "access keys or the service role made, as the identity may not create one",
                    Err(error) => return Ok(Finding::unknown(format!("no object to delete: {error}"))),
                },
                None => {
                    return Ok(Finding::unknown(format!(
                        "no object to delete, for the identity may not create one: {error}; with access keys or a \
                         JWT secret there would be one"
                    )));
                }
            },
        };
        match store.delete(&key).await {
            Ok(()) => Ok(Finding::yes(format!("DeleteObject of {key:?}, which {maker}, was done"))),
            Err(error) => {
                self.clear(bucket, &key).await;
                let mut finding = self.refusal(subject, error)?;
                finding.message = format!("{} (an object that {maker})", finding.message);
                Ok(finding)
            }
        }
    }

    async fn make(&self, store: &Arc<dyn ObjectStore>, bucket: &str, key: &str) -> Result<(), StoreError> {
        let file = tempfile::tempfile().map_err(|error| StoreError {
            kind: StoreErrorKind::Unavailable,
            operation: "PutObject",
            key: key.to_owned(),
            status: 0,
            code: String::new(),
            message: format!("no temporary file: {error}"),
        })?;
        let empty = Section::new(Arc::new(file), 0..0);
        let made = store.put(key, &headers(key), &empty).await;
        if made.as_ref().is_err_and(may_have_arrived) {
            self.clear(bucket, key).await;
        }
        made.map(drop)
    }

    /// Takes away an object that its maker may not delete.
    async fn clear(&self, bucket: &str, key: &str) {
        let cleared = match self.janitors_store(bucket) {
            Some(store) => store.delete(key).await.map_err(|error| error.to_string()),
            None => Err("its maker may not, and there are neither access keys nor a JWT secret".to_owned()),
        };
        if let Err(why) = cleared {
            self.leave(format!("{bucket}/{key} could not be deleted: {why}"));
        }
    }

    fn janitors_store(&self, bucket: &str) -> Option<Arc<dyn ObjectStore>> {
        self.janitor.as_ref().map(|service| at_root(service, bucket))
    }

    fn leave(&self, what: String) {
        self.left.lock().push(what);
    }
}

/// As a write of this name would carry them: buckets and policies may ask for the type.
fn headers(key: &str) -> ObjectHeaders {
    ObjectHeaders { content_type: content_type(key), ..ObjectHeaders::default() }
}

/// The answer was lost, or never came: the server may have done it.
fn may_have_arrived(error: &StoreError) -> bool {
    error.kind == StoreErrorKind::TimedOut || (error.kind == StoreErrorKind::Unavailable && error.status == 0)
}
