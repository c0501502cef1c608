//! What a path names, and what each identity sees there.

use futures::future;

use super::{Lab, Trouble};
use crate::name::PLACEHOLDER;
use crate::store::{ListRequest, StoreErrorKind};

/// Keys looked through for one that stands for the others.
const LOOK_AT: u16 = 100;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// What begins with this prefix: empty for the whole bucket, else ending in `/`.
    Folder(String),
    /// One key, whether there is an object or not.
    Object(String),
}

impl Place {
    /// The prefix or the key.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Folder(key) | Self::Object(key) => key,
        }
    }

    /// The folder itself, or the one that the object is in.
    pub(super) fn folder(&self) -> &str {
        match self {
            Self::Folder(prefix) => prefix,
            Self::Object(key) => key.rfind('/').map_or("", |slash| &key[..=slash]),
        }
    }
}

/// What one identity sees of a place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// A key that its listing shows.
    pub shown: Option<String>,
    /// An object to try things on: of the folder itself rather than of one below, and no placeholder, if there is one.
    pub sample: Option<String>,
    /// How many of the names in a folder the first page showed, for the tree.
    pub(super) folders: Vec<String>,
    pub(super) objects: Vec<String>,
    /// Whether there are more.
    pub(super) more: bool,
}

/// A place as each identity sees it, in the order of the laboratory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub bucket: String,
    pub place: Place,
    pub seen: Vec<Seen>,
}

impl View {
    /// `BUCKET/KEY`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.bucket, self.place.key())
    }

    /// Whether anybody's listing shows anything here.
    #[must_use]
    pub fn is_seen(&self) -> bool {
        self.seen.iter().any(|seen| seen.sample.is_some())
    }

    /// What to try things on as this identity, and whose listing shows it: its own, else another's.
    pub(super) fn target(&self, subject: usize) -> Option<(&str, usize)> {
        let own = std::iter::once(subject);
        own.chain(0..self.seen.len()).find_map(|of| Some((self.seen[of].sample.as_deref()?, of)))
    }
}

impl Lab {
    /// Finds out what a path names, by what the identities see: an object of this name, else a folder, else an object
    /// that is not there. A path that ends in `/` is a folder.
    ///
    /// # Errors
    /// When an identity cannot list.
    pub async fn look(&self, bucket: &str, path: &str) -> Result<View, Trouble> {
        if path.is_empty() || path.ends_with('/') {
            return self.look_at(bucket, Place::Folder(path.to_owned())).await;
        }
        let object = self.look_at(bucket, Place::Object(path.to_owned())).await?;
        if object.is_seen() {
            return Ok(object);
        }
        let folder = self.look_at(bucket, Place::Folder(format!("{path}/"))).await?;
        Ok(if folder.is_seen() { folder } else { object })
    }

    /// The place as each identity sees it.
    ///
    /// # Errors
    /// When an identity cannot list.
    pub async fn look_at(&self, bucket: &str, place: Place) -> Result<View, Trouble> {
        self.go_on()?;
        let all = (0..self.subjects.len()).map(|subject| self.seen(subject, bucket, &place));
        let seen = future::try_join_all(all).await?;
        let mut view = View { bucket: bucket.to_owned(), place, seen };
        if let Place::Object(key) = &view.place
            && !view.is_seen()
        {
            // A policy may let an object be read that it keeps out of the listing.
            let all = (0..self.subjects.len()).map(|subject| self.is_readable(subject, bucket, key));
            for (seen, readable) in view.seen.iter_mut().zip(future::try_join_all(all).await?) {
                seen.sample = readable.then(|| key.clone());
            }
        }
        Ok(view)
    }

    async fn seen(&self, subject: usize, bucket: &str, place: &Place) -> Result<Seen, Trouble> {
        let store = self.store(subject, bucket);
        let list = async |prefix: &str, fold: bool, limit: u16| {
            let request = ListRequest { prefix: prefix.to_owned(), fold, limit, after: None };
            store.list(&request).await.map_err(|error| self.trouble(subject, error))
        };
        let prefix = match place {
            Place::Object(key) => {
                // The exact key comes first of all that begin with it.
                let first = list(key, false, 1).await?.objects.into_iter().next().map(|object| object.key);
                let shown = first.filter(|first| first == key);
                return Ok(Seen { sample: shown.clone(), shown, ..Seen::default() });
            }
            Place::Folder(prefix) => prefix,
        };
        let page = list(prefix, true, LOOK_AT).await?;
        let objects: Vec<String> = page.objects.into_iter().map(|object| object.key).collect();
        let mut seen = Seen { folders: page.prefixes, more: page.next.is_some(), ..Seen::default() };
        seen.sample = objects.iter().find(|key| !is_marker(key)).cloned();
        if seen.sample.is_none() && !seen.folders.is_empty() {
            let below = list(prefix, false, LOOK_AT).await?.objects;
            let keys = || below.iter().map(|object| &object.key);
            seen.sample = keys().find(|key| !is_marker(key)).or_else(|| keys().next()).cloned();
        }
        seen.sample = seen.sample.or_else(|| objects.first().cloned());
        seen.shown.clone_from(&seen.sample);
        seen.objects = objects.into_iter().filter(|key| !is_marker(key)).collect();
        Ok(seen)
    }

    async fn is_readable(&self, subject: usize, bucket: &str, key: &str) -> Result<bool, Trouble> {
        match self.store(subject, bucket).get(key, Some(0..1), 0).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == StoreErrorKind::RangeNotSatisfiable => Ok(true),
            Err(error) if super::is_about_the_identity(error.kind) => Err(self.trouble(subject, error)),
            Err(_) => Ok(false),
        }
    }
}

/// Makes a folder, and is no file of anybody's.
#[must_use]
pub fn is_marker(key: &str) -> bool {
    key.ends_with('/') || key.rsplit('/').next() == Some(PLACEHOLDER)
}
