//! Who the requests are made as, and what the layers need to know of the credential without seeing it.

use std::fmt;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::secret::masked;

/// Names every cache, spool and state directory, so that what one identity read is never served to another.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// S3 access keys: Row Level Security is bypassed.
    Keys { access_key_id: String },
    /// One user of a project; `sub` is absent in tokens of the anon role.
    User { project_ref: String, sub: Option<String>, role: String },
}

impl Identity {
    /// What the names of directories are made of: the whole identity, never shown. Earlier versions used the derived
    /// `Debug`, and what they left in such a directory must still be found.
    #[must_use]
    pub fn tag(&self) -> String {
        match self {
            Self::Keys { access_key_id } => format!("Keys {{ access_key_id: {access_key_id:?} }}"),
            Self::User { project_ref, sub, role } => {
                format!("User {{ project_ref: {project_ref:?}, sub: {sub:?}, role: {role:?} }}")
            }
        }
    }
}

impl Identity {
    /// Somebody else's words, which may repeat the id: with the id as it may be shown.
    #[must_use]
    pub fn masked_in(&self, text: String) -> String {
        match self {
            Self::Keys { access_key_id }
                if !access_key_id.is_empty() && text.contains(access_key_id.as_str()) =>
            {
                text.replace(access_key_id.as_str(), &masked(access_key_id))
            }
            _ => text,
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys { access_key_id } => write!(f, "access key {}", masked(access_key_id)),
            Self::User { project_ref, sub: Some(sub), role } => {
                write!(f, "user {sub} ({role}) of project {project_ref}")
            }
            Self::User { project_ref, sub: None, role } => write!(f, "role {role} of project {project_ref}"),
        }
    }
}

/// What renewing the credential after a refusal came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// The credential had not expired: the refusal means what it says.
    StillValid,
    /// There is a new credential; the request may be made once more.
    Renewed,
    /// The credential has expired and no new one is to be had; the text tells what to do.
    Expired(String),
}

/// How a server refused a credential.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// The server's code and words.
    pub code: &'a str,
    pub message: &'a str,
    /// The server's clock, where it told.
    pub date: Option<SystemTime>,
}

/// The credential as the object store sees it: something that may have expired and may be renewed.
#[async_trait::async_trait]
pub trait Authority: Send + Sync + fmt::Debug {
    fn identity(&self) -> Identity;
    /// When the credential in force expires; `None` for access keys and tokens without `exp`.
    fn expires_at(&self) -> Option<SystemTime>;
    /// Called in one place, after a 403: renews a credential that has expired. Concurrent callers share
    /// one renewal.
    /// `says_expired`: the server called the credential expired, whatever the clock here says.
    async fn renew(&self, says_expired: bool) -> Renewal;
    /// Tells when the credential's source has begun (`true`) or ceased (`false`) to speak for somebody else; nothing
    /// goes out meanwhile. `None` where that cannot happen.
    fn estranged(&self) -> Option<watch::Receiver<bool>>;
    /// What a refusal of the credential means, by all that is known of it here and by the server's clock.
    fn explain(&self, refusal: &Refused<'_>) -> String;
}
