//! The laboratory for Row Level Security: what each of several identities may do at a path, found out by trying, and
//! without a trace.
//!
//! A right to write is probed by a multipart upload that is begun and aborted at once: the server checks the policies
//! when it begins, as for a PUT, and stores nothing. A right to delete can only be had by deleting, which is done on
//! an object of the laboratory's own and only if it is asked for. Whatever had to be made is taken away again, by the
//! janitor where its maker may not.
//!
//! Invariant: nothing is judged that was not seen. What nobody of the identities sees, and what no request could
//! decide, has no verdict.

mod keys;
mod make;
mod place;
mod probe;
mod tree;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::config::Root;
use crate::stats::Stats;
use crate::store::s3::S3Service;
use crate::store::{ObjectStore, StoreError, StoreErrorKind};

pub use keys::{Keys, Side, differences};
pub use place::{Place, Seen, View, is_marker};
pub use tree::{Node, TreeLimits};

/// How many probes are under way at a time.
const PARALLEL: usize = 16;

/// What begins the name of everything that a probe makes.
pub const PROBE: &str = "supafs-probe-";

/// What one may do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    List,
    Read,
    Create,
    Overwrite,
    Delete,
}

impl Operation {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::List, Self::Read, Self::Create, Self::Overwrite, Self::Delete];

    /// As it is written everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Create => "create",
            Self::Overwrite => "overwrite",
            Self::Delete => "delete",
        }
    }

    /// By its name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }
}

/// What was found out, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `None`: nothing that was tried decides it.
    pub allowed: Option<bool>,
    /// By which request and on which object, and what the server said.
    pub message: String,
}

impl Finding {
    fn yes(message: impl Into<String>) -> Self {
        Self { allowed: Some(true), message: message.into() }
    }

    fn no(message: impl Into<String>) -> Self {
        Self { allowed: Some(false), message: message.into() }
    }

    fn unknown(message: impl Into<String>) -> Self {
        Self { allowed: None, message: message.into() }
    }
}

/// A finding about one identity, one path and one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub identity: String,
    /// `BUCKET/KEY`; a folder's ends in `/`.
    pub path: String,
    pub operation: Operation,
    pub finding: Finding,
}

/// Someone whose rights are asked for.
#[derive(Debug, Clone)]
pub struct Subject {
    pub name: String,
    pub service: S3Service,
    /// Of this service alone.
    pub stats: Arc<Stats>,
}

/// Why there is no answer at all.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// The server does not take the identity, or there is no such bucket.
    Identity { name: String, error: StoreError },
    /// A listing failed, without which nothing can be judged.
    Listing { name: String, error: StoreError },
    /// Asked to stop; what had been begun was cleared away.
    Interrupted,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity { error, .. } | Self::Listing { error, .. } if error.unreached().is_some() => {
                f.write_str(&error.unreached().unwrap_or_default())
            }
            Self::Identity { error, .. } if error.kind == StoreErrorKind::NoSuchBucket => {
                write!(f, "{}\n`supafs buckets` lists those that the credential may list", error.message)
            }
            Self::Identity { name, error } => {
                write!(f, "the server does not take the identity {name}: {error}")
            }
            Self::Listing { name, error } => write!(f, "cannot list as {name}: {error}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// What the probes share.
pub struct Lab {
    subjects: Vec<Subject>,
    /// Takes away what its maker may not: access keys, or the service role.
    janitor: Option<S3Service>,
    /// Whether deletes are tried.
    probe_delete: bool,
    stop: AtomicBool,
    /// What could not be taken away, in words.
    left: Mutex<Vec<String>>,
    /// Findings that several paths share: identity, operation, and the name that was probed up to its random part.
    shared: Mutex<HashMap<SharedProbe, Arc<OnceCell<Finding>>>>,
}

/// Identity, bucket, operation, folder, extension.
type SharedProbe = (usize, String, Operation, String, String);

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.subjects.iter().map(|subject| &subject.name).collect();
        f.debug_struct("Lab").field("subjects", &names).finish_non_exhaustive()
    }
}

impl Lab {
    #[must_use]
    pub fn new(subjects: Vec<Subject>, janitor: Option<S3Service>, probe_delete: bool) -> Self {
        Self {
            subjects,
            janitor,
            probe_delete,
            stop: AtomicBool::new(false),
            left: Mutex::default(),
            shared: Mutex::default(),
        }
    }

    /// Names in the order in which they were given.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.subjects.iter().map(|subject| subject.name.clone()).collect()
    }

    /// The server, for messages.
    #[must_use]
    pub fn host(&self) -> &str {
        self.subjects.first().map_or("", |subject| subject.service.host())
    }

    /// The counters of all identities.
    #[must_use]
    pub fn stats(&self) -> Vec<Arc<Stats>> {
        self.subjects.iter().map(|subject| Arc::clone(&subject.stats)).collect()
    }

    /// Lets what is under way end, with its clearing up, and begins nothing new.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// What could not be taken away: each with where it is, and why.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        self.left.lock().clone()
    }

    /// Those as whom a request was sent again: if an answer was lost on its way, an upload may be open that nobody
    /// here knows the id of.
    #[must_use]
    pub fn repeated(&self) -> Vec<String> {
        let repeated = self.subjects.iter().filter(|subject| subject.stats.retries.get() > 0);
        repeated.map(|subject| subject.name.clone()).collect()
    }

    fn go_on(&self) -> Result<(), Trouble> {
        if self.stop.load(Ordering::Relaxed) { Err(Trouble::Interrupted) } else { Ok(()) }
    }

    fn store(&self, subject: usize, bucket: &str) -> Arc<dyn ObjectStore> {
        at_root(&self.subjects[subject].service, bucket)
    }

    fn trouble(&self, subject: usize, error: StoreError) -> Trouble {
        let name = self.subjects[subject].name.clone();
        if is_about_the_identity(error.kind) {
            Trouble::Identity { name, error }
        } else {
            Trouble::Listing { name, error }
        }
    }

    /// The keys below a prefix that an identity sees, in byte order.
    #[must_use]
    pub fn keys(&self, subject: usize, bucket: &str, prefix: &str) -> Keys {
        Keys::new(self.store(subject, bucket), self.subjects[subject].name.clone(), prefix)
    }
}

/// The whole bucket: the laboratory's keys are in full.
fn at_root(service: &S3Service, bucket: &str) -> Arc<dyn ObjectStore> {
    service.root(&Root::Bucket { bucket: bucket.to_owned(), prefix: String::new() })
}

/// Not a verdict on a right, but on the credential or the bucket.
fn is_about_the_identity(kind: StoreErrorKind) -> bool {
    use StoreErrorKind as Kind;
    matches!(kind, Kind::BadCredential | Kind::Expired | Kind::NoSuchBucket)
}
