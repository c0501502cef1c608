//! One identity, one place, one operation: the request that decides, and what its answer means.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::place::{Place, View};
use super::{Finding, Lab, Operation, PARALLEL, PROBE, Trouble, Verdict, is_about_the_identity};
use crate::store::{StoreError, StoreErrorKind};

impl Lab {
    /// What every identity may do at each of these places, in the order of places, identities and operations.
    ///
    /// # Errors
    /// An identity that the server does not take, and being stopped.
    pub async fn verdicts(&self, views: &[View]) -> Result<Vec<Verdict>, Trouble> {
        let subjects = 0..self.subjects.len();
        let cells = views.iter().flat_map(|view| {
            subjects.clone().flat_map(move |subject| {
                Operation::ALL.into_iter().map(move |operation| (view, subject, operation))
            })
        });
        let cells: Vec<_> = cells.collect();
        let probes = stream::iter(cells).map(async |(view, subject, operation)| {
            let verdict = self.verdict(view, subject, operation).await;
            // One failure stops the others, but none of them halfway: what they began, they clear away.
            verdict.inspect_err(|_| self.stop())
        });
        let all: Vec<_> = probes.buffered(PARALLEL).collect().await;
        let first = all.iter().find_map(|verdict| match verdict {
            Err(Trouble::Interrupted) | Ok(_) => None,
            Err(trouble) => Some(trouble.clone()),
        });
        match first {
            Some(trouble) => Err(trouble),
            None => all.into_iter().collect(),
        }
    }

    /// Whether one identity may do one thing.
    ///
    /// # Errors
    /// An identity that the server does not take, and being stopped.
    pub async fn verdict(
        &self,
        view: &View,
        subject: usize,
        operation: Operation,
    ) -> Result<Verdict, Trouble> {
        self.go_on()?;
        let finding = match operation {
            Operation::List => self.list(view, subject),
            Operation::Read => self.read(view, subject).await?,
            Operation::Create => self.create(view, subject).await?,
            Operation::Overwrite => self.overwrite(view, subject).await?,
            Operation::Delete => self.delete(view, subject).await?,
        };
        let identity = self.subjects[subject].name.clone();
        Ok(Verdict { identity, path: view.path(), operation, finding })
    }

    fn list(&self, view: &View, subject: usize) -> Finding {
        let request = format!("ListObjectsV2 of {:?}", view.place.key());
        match (&view.seen[subject].shown, view.target(subject)) {
            (Some(key), _) => Finding::yes(format!("{request} shows {key:?}")),
            (None, Some((key, of))) => {
                Finding::no(format!("{request} shows nothing; {}", self.sees(of, key)))
            }
            (None, None) => Finding::unknown(format!("{request} shows nothing to any identity of this call")),
        }
    }

    async fn read(&self, view: &View, subject: usize) -> Result<Finding, Trouble> {
        let (key, of) = match (view.target(subject), &view.place) {
            (Some(target), _) => target,
            (None, Place::Folder(_)) => return Ok(nothing_here()),
            (None, Place::Object(key)) => (key.as_str(), subject),
        };
        let answer = self.store(subject, &view.bucket).get(key, Some(0..1), 0).await;
        Ok(match answer {
            Ok(_) => Finding::yes(format!("GetObject of {key:?} was answered")),
            // There is no first byte in an empty object; the server says so only to who may see it.
            Err(error) if error.kind == StoreErrorKind::RangeNotSatisfiable => {
                Finding::yes(format!("GetObject of {key:?} was answered: it is empty"))
            }
            Err(error) if error.kind == StoreErrorKind::NotFound => match view.target(subject) {
                Some(_) => Finding::no(format!("{error}; {} sees it", self.subjects[of].name)),
                None => Finding::unknown(format!("{error}; no identity of this call sees it")),
            },
            Err(error) => self.refusal(subject, error)?,
        })
    }

    /// On a name that nobody has: beside the object, or the object's own where nobody sees one.
    async fn create(&self, view: &View, subject: usize) -> Result<Finding, Trouble> {
        if let Place::Object(key) = &view.place
            && !view.is_seen()
        {
            return self.probe_upload(subject, &view.bucket, key).await;
        }
        let (folder, ending) = (view.place.folder(), ending(view, subject));
        let cell = self.cell(subject, view, Operation::Create, &ending);
        let probe = || async { self.probe_upload(subject, &view.bucket, &probe_name(folder, &ending)).await };
        cell.get_or_try_init(probe).await.cloned()
    }

    async fn overwrite(&self, view: &View, subject: usize) -> Result<Finding, Trouble> {
        match view.target(subject) {
            Some((key, _)) => self.probe_upload(subject, &view.bucket, key).await,
            None => Ok(nothing_here()),
        }
    }

    async fn delete(&self, view: &View, subject: usize) -> Result<Finding, Trouble> {
        if self.probe_delete {
            let (folder, ending) = (view.place.folder(), ending(view, subject));
            let cell = self.cell(subject, view, Operation::Delete, &ending);
            let probe = || self.probe_deletion(subject, &view.bucket, folder, &ending);
            return cell.get_or_try_init(probe).await.cloned();
        }
        Ok(match view.target(subject) {
            Some((key, of)) if of != subject && self.read(view, subject).await?.allowed == Some(false) => {
                Finding::no(format!(
                    "{key:?} is hidden here, and a delete needs the right to see; {} sees it",
                    self.subjects[of].name
                ))
            }
            _ => Finding::unknown(
                "only a delete can tell: --probe-delete tries it, on an object of its own making",
            ),
        })
    }

    /// Begins an upload and gives it up: the server checks what a PUT needs when it begins.
    async fn probe_upload(&self, subject: usize, bucket: &str, key: &str) -> Result<Finding, Trouble> {
        self.go_on()?;
        match self.begin_and_abort(subject, bucket, key).await {
            Ok(()) => {
                Ok(Finding::yes(format!("CreateMultipartUpload of {key:?} was accepted (and aborted)")))
            }
            Err(error) => self.refusal(subject, error),
        }
    }

    /// What a failed request means for the right that it asked for.
    pub(super) fn refusal(&self, subject: usize, error: StoreError) -> Result<Finding, Trouble> {
        use StoreErrorKind as Kind;
        match error.kind {
            kind if is_about_the_identity(kind) => Err(self.trouble(subject, error)),
            Kind::Unavailable | Kind::TimedOut | Kind::Protocol => Ok(Finding::unknown(error.to_string())),
            _ => Ok(Finding::no(error.to_string())),
        }
    }

    fn sees(&self, subject: usize, key: &str) -> String {
        format!("{} sees {key:?}", self.subjects[subject].name)
    }

    /// Where the finding is kept that all names of a folder with one ending share.
    fn cell(
        &self,
        subject: usize,
        view: &View,
        operation: Operation,
        ending: &str,
    ) -> Arc<tokio::sync::OnceCell<Finding>> {
        let folder = view.place.folder().to_owned();
        let probe = (subject, view.bucket.clone(), operation, folder, ending.to_owned());
        Arc::clone(self.shared.lock().entry(probe).or_default())
    }
}

/// What a new name here should end in: policies may ask for `storage.extension(name)`, and buckets for a type.
fn ending(view: &View, subject: usize) -> String {
    let key = view.target(subject).map_or(view.place.key(), |(key, _)| key);
    let name = key.rsplit('/').next().unwrap_or_default();
    match name.rfind('.') {
        Some(dot) if dot > 0 => name[dot..].to_owned(),
        _ => String::new(),
    }
}

/// A name that is nobody's, and says whose it is should it ever be seen.
pub(super) fn probe_name(folder: &str, ending: &str) -> String {
    format!("{folder}{PROBE}{:032x}{ending}", rand::random::<u128>())
}

fn nothing_here() -> Finding {
    Finding::unknown("no identity of this call sees an object here")
}
