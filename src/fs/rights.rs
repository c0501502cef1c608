//! Whether a policy lets this user write, asked when a file is opened: a shell ignores what `close` says.
//!
//! The first create in a folder asks the server about its key, and so does the first opening of a stored file for
//! writing. A permission holds for the folder, for a while, so that later ones ask nothing. Where a name was refused,
//! policies tell names of the folder apart: from then on a permission holds for the extension, or for the one file that
//! is overwritten. A refusal holds for its key alone, and briefly. What nobody answers forbids nothing: `close` tells.
//!
//! The question is one request of the REST API. What that does not allow is tried as S3 does it, by an upload that is
//! begun and aborted, so that a policy about the kind of request is not misread. Lock rank: leaf.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Fs, FsError};
use crate::config::Tuning;
use crate::content_type::content_type;
use crate::single_flight::SingleFlight;
use crate::store::{ObjectHeaders, ObjectStore, StoreError, UploadCheck};
use crate::writeback::{Spool, abort_upload, begin_upload};

/// How long a permission holds at least. Uploads to the folder renew it.
const PERMITTED: Duration = Duration::from_secs(30);

/// How long a refusal holds, for its key.
const REFUSED: Duration = Duration::from_secs(1);

/// How long nothing is asked after a question without an answer.
const SILENCE: Duration = Duration::from_secs(10);

/// How long the answer to a question is waited for at most.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers that are remembered, of each kind.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// What a user may be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Right {
    /// To make an object.
    Create,
    /// To replace one.
    Overwrite,
}

/// What a permission holds for: names of a folder (with its slash), or some of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scope {
    right: Right,
    folder: String,
    /// An extension of names to be made, or the name of a file to be replaced; `None`: all names.
    of: Option<String>,
}

impl Scope {
    fn folder(right: Right, key: &str) -> Self {
        Self { right, folder: super::behind::split(key).0.to_owned(), of: None }
    }

    /// What is sure for other names than this one where policies tell names apart.
    fn alike(right: Right, key: &str) -> Self {
        let (folder, name) = super::behind::split(key);
        let of = match right {
            Right::Create => name.rsplit_once('.').map_or("", |(_, extension)| extension),
            Right::Overwrite => name,
        };
        Self { right, folder: folder.to_owned(), of: Some(of.to_owned()) }
    }
}

/// An answer of the server's.
#[derive(Debug, Clone)]
enum Verdict {
    Permitted,
    Refused {
        key: String,
        error: StoreError,
    },
    /// It did not answer.
    Unknown,
}

struct Remembered {
    permitted: LruCache<Scope, Instant>,
    refused: LruCache<String, (Instant, StoreError)>,
    /// Folders in which some names are refused.
    mixed: LruCache<String, ()>,
    silent_until: Option<Instant>,
}

impl Remembered {
    fn scope(&self, right: Right, key: &str) -> Scope {
        let folder = Scope::folder(right, key);
        if self.mixed.contains(&folder.folder) { Scope::alike(right, key) } else { folder }
    }
}

/// See the module.
pub(super) struct Rights {
    holds: Duration,
    patience: Duration,
    remembered: Mutex<Remembered>,
    questions: SingleFlight<(Scope, Option<String>), Verdict>,
}

impl Rights {
    pub fn new(tuning: &Tuning) -> Self {
        let remembered = Remembered {
            permitted: LruCache::new(REMEMBERED),
            refused: LruCache::new(REMEMBERED),
            mixed: LruCache::new(REMEMBERED),
            silent_until: None,
        };
        Self {
            holds: tuning.metadata_ttl.max(PERMITTED),
            patience: tuning.op_timeout.min(PATIENCE),
            remembered: Mutex::new(remembered),
            questions: SingleFlight::new(),
        }
    }

    /// What needs no question.
    fn known(&self, right: Right, key: &str) -> Option<Verdict> {
        let mut remembered = self.remembered.lock();
        if let Some((at, error)) = remembered.refused.get(key)
            && at.elapsed() < REFUSED
        {
            return Some(Verdict::Refused { key: key.to_owned(), error: error.clone() });
        }
        let scope = remembered.scope(right, key);
        let is_permitted = remembered.permitted.get(&scope).is_some_and(|at| at.elapsed() < self.holds);
        if is_permitted {
            return Some(Verdict::Permitted);
        }
        let is_silent = remembered.silent_until.is_some_and(|until| Instant::now() < until);
        is_silent.then_some(Verdict::Unknown)
    }

    fn note(&self, right: Right, key: &str, verdict: &Verdict) {
        self.remembered.lock().silent_until =
            matches!(verdict, Verdict::Unknown).then(|| Instant::now() + SILENCE);
        match verdict {
            Verdict::Permitted => self.permitted(right, key),
            Verdict::Refused { key, error } => {
                self.refused(key);
                self.remembered.lock().refused.put(key.clone(), (Instant::now(), error.clone()));
            }
            Verdict::Unknown => {}
        }
    }

    fn permitted(&self, right: Right, key: &str) {
        let mut remembered = self.remembered.lock();
        remembered.refused.pop(key);
        let scope = remembered.scope(right, key);
        remembered.permitted.put(scope, Instant::now());
    }

    /// An object was uploaded: others can be made beside it.
    pub fn uploaded(&self, key: &str) {
        self.permitted(Right::Create, key);
    }

    /// The server has refused a key: what is remembered of its like is not true, or no longer.
    pub fn refused(&self, key: &str) {
        let mut remembered = self.remembered.lock();
        for right in [Right::Create, Right::Overwrite] {
            remembered.permitted.pop(&Scope::folder(right, key));
            remembered.permitted.pop(&Scope::alike(right, key));
        }
        remembered.mixed.put(super::behind::split(key).0.to_owned(), ());
    }
}

impl Fs {
    /// Whether policies let this user write to a key, as far as that can be known before.
    ///
    /// # Errors
    /// `Access`, with the server's words, where one forbids it.
    pub(super) async fn check_right(&self, right: Right, key: &str) -> Result<(), FsError> {
        if !self.may_be_refused {
            return Ok(());
        }
        let verdict = match self.rights.known(right, key) {
            Some(verdict) => verdict,
            None => self.ask_right(right, key).await,
        };
        let Verdict::Refused { error, .. } = verdict else { return Ok(()) };
        self.note_refusal(key, error.message.as_str().into());
        Err(error.into())
    }

    /// One question for all who want to know the same. The refusal of another name says nothing about this one.
    async fn ask_right(&self, right: Right, key: &str) -> Verdict {
        let rights = &self.rights;
        let scope = rights.remembered.lock().scope(right, key);
        let question = || self.question(key);
        let verdict = rights.questions.run((scope.clone(), None), question).await;
        let verdict = match verdict {
            Verdict::Refused { key: other, .. } if other != key => {
                rights.questions.run((scope, Some(key.to_owned())), question).await
            }
            verdict => verdict,
        };
        rights.note(right, key, &verdict);
        verdict
    }

    fn question(&self, key: &str) -> impl Future<Output = Verdict> + Send + use<> {
        let (store, key, patience) = (Arc::clone(&self.store), key.to_owned(), self.rights.patience);
        let spool = self.writer.as_ref().map(|writer| Arc::clone(&writer.spool));
        let cache_control = self.writer.as_ref().and_then(|writer| writer.options.cache_control.clone());
        let headers =
            ObjectHeaders { content_type: content_type(&key), cache_control, ..ObjectHeaders::default() };
        async move {
            let asked = async {
                match store.check_upload(&key, headers.content_type.as_deref()).await {
                    UploadCheck::Allowed => Verdict::Permitted,
                    UploadCheck::Refused(error) => Verdict::Refused { key, error },
                    UploadCheck::NoAnswer => Verdict::Unknown,
                    UploadCheck::Doubtful => {
                        // To its end, whoever waits: what is begun must be aborted.
                        let begun = tokio::spawn(begin_and_abort(store, spool, key, headers));
                        begun.await.unwrap_or(Verdict::Unknown)
                    }
                }
            };
            tokio::time::timeout(patience, asked).await.unwrap_or(Verdict::Unknown)
        }
    }
}

/// Begins an upload and aborts it: S3's own answer. The abort goes on behind, on record until it is done.
async fn begin_and_abort(
    store: Arc<dyn ObjectStore>,
    spool: Option<Arc<Spool>>,
    key: String,
    headers: ObjectHeaders,
) -> Verdict {
    // Who may not write has no spool, and is not asked.
    let Some(spool) = spool else { return Verdict::Unknown };
    let (id, note) = match begin_upload(&store, &spool, &key, &headers).await {
        Ok(begun) => begun,
        Err(error) if error.kind.is_by_policy() => return Verdict::Refused { key, error },
        Err(error) => {
            tracing::debug!(%error, "whether this may be written is not known before it is");
            return Verdict::Unknown;
        }
    };
    store.distrust_checks();
    tokio::spawn(async move { abort_upload(&store, &key, &id, note).await });
    Verdict::Permitted
}
