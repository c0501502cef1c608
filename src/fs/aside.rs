//! The old version of what a rename replaces, kept until the policies have let the source go.
//!
//! A copy on the server, in the folder of what is replaced and with its ending, because policies may ask for either.
//! This mount does not show it; where it has to stay, it is shown from then on. Its name is the same for every rename
//! of this mount over the same key, so that refused ones do not pile up.

use sha2::{Digest, Sha256};

use super::attr::nanos;
use super::{ErrorKind, Fs, FsError};
use crate::meta::{Entry, FileVersion};
use crate::name;
use crate::store::{StoreErrorKind, undo};
use crate::writeback::is_final;

/// An ending is no longer than this.
const LONGEST_ENDING: usize = 32;

/// See the module.
pub(super) struct Aside {
    prefix: String,
    /// Its key, and the one that it was copied from.
    key: String,
    pub of: String,
    version: FileVersion,
}

impl Fs {
    /// Copies what is about to be replaced. `None`: it is gone.
    pub(super) async fn set_aside(&self, prefix: &str, replaced: &Entry) -> Result<Option<Aside>, FsError> {
        let of = format!("{prefix}{}", replaced.component());
        let digest = Sha256::new()
            .chain_update(nanos(self.started).to_le_bytes())
            .chain_update(of.as_bytes())
            .finalize();
        let number = digest[..8].iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        let ending = match replaced.component().rsplit_once('.') {
            Some((stem, ending)) if !stem.is_empty() && ending.len() < LONGEST_ENDING => format!(".{ending}"),
            _ => String::new(),
        };
        let key = format!("{prefix}.supafs-replaced-{number:016x}{ending}");
        let version = replaced.version().cloned().ok_or(ErrorKind::IsDirectory)?;
        let aside = Aside { prefix: prefix.to_owned(), key, of, version };
        self.meta.changed(prefix, &aside.name(), None, true);
        let copied = async {
            let headers = self.timed_headers(&aside.of, &aside.version).await?;
            self.copy(&aside.of, &aside.key, aside.version.size, headers.as_ref()).await
        };
        match copied.await {
            Ok(_) => Ok(Some(aside)),
            Err(error) => {
                let cause = error.cause.as_ref().map(|cause| cause.kind);
                match cause {
                    Some(kind) if is_final(kind) => self.meta.unchanged(prefix, &aside.name()),
                    // It may be there all the same.
                    _ => undo(self.drop_aside(aside)).await,
                }
                if cause == Some(StoreErrorKind::NotFound) { Ok(None) } else { Err(error) }
            }
        }
    }

    /// The rename is done, or nothing came of it: the copy goes.
    pub(super) async fn drop_aside(&self, aside: Aside) {
        match self.store.delete(&aside.key).await {
            Ok(()) => self.meta.changed(&aside.prefix, &aside.name(), None, false),
            Err(error) => {
                tracing::error!(key = aside.key, of = aside.of, %error, "the copy of what a rename replaces stays behind");
                self.show_aside(&aside);
            }
        }
    }

    /// The rename failed: what it replaced is what it was.
    pub(super) async fn put_back(&self, aside: Aside) {
        match self.copy(&aside.key, &aside.of, aside.version.size, None).await {
            Ok(etag) => {
                self.known.copied(&aside.of, &aside.version, &aside.of, &etag);
                self.meta.invalidate(&aside.prefix);
                self.drop_aside(aside).await;
            }
            Err(error) => {
                tracing::error!(key = aside.of, kept = aside.key, %error, "a rename failed, and what it replaced cannot be put back; it is kept under another name");
                self.show_aside(&aside);
            }
        }
    }

    /// Nobody knows whether the rename failed: the old version stays, in plain view.
    pub(super) fn show_aside(&self, aside: &Aside) {
        self.meta.unchanged(&aside.prefix, &aside.name());
        self.meta.invalidate(&aside.prefix);
    }
}

impl Aside {
    pub fn key(&self) -> &str {
        &self.key
    }

    fn name(&self) -> Vec<u8> {
        name::from_component(&self.key[self.prefix.len()..]).into_owned()
    }
}
