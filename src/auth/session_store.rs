//! Sessions of `supafs login`, one file each below `~/.local/state/supafs/sessions`.
//!
//! Invariants: files are 0600 and replaced whole, on the disk before anybody uses what they hold; whoever changes
//! one holds its lock, a file beside it that stays, because the session's own file is another one each time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::gotrue::Auth;
use crate::private_file::{self, Stamp};
use crate::secret::Secret;
use crate::state_dir;

/// How long the lock is waited for: as long as another process may take to refresh.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_NAME: usize = 128;

/// A session as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The API URL, without a slash at its end.
    pub url: String,
    /// Access key id of the session protocol.
    pub project_ref: String,
    /// The anon or publishable key.
    pub api_key: Secret,
    pub email: Option<String>,
    pub access_token: Secret,
    pub refresh_token: Secret,
}

impl Kept {
    /// The Auth that it is a session of.
    #[must_use]
    pub fn auth(&self) -> Auth {
        Auth::new(&self.url, self.api_key.clone())
    }

    fn to_text(&self) -> Secret {
        let body = json!({
            "version": 1, "url": self.url, "project_ref": self.project_ref, "api_key": self.api_key.expose(),
            "email": self.email, "access_token": self.access_token.expose(),
            "refresh_token": self.refresh_token.expose(),
        });
        Secret::new(format!("{body:#}\n"))
    }

    fn of_text(text: &Secret) -> Option<Self> {
        let body: Value = serde_json::from_str(text.expose()).ok()?;
        let field = |name: &str| body.get(name).and_then(Value::as_str);
        let secret = |name: &str| field(name).map(Secret::new);
        Some(Self {
            url: field("url")?.to_owned(),
            project_ref: field("project_ref")?.to_owned(),
            api_key: secret("api_key")?,
            email: field("email").map(str::to_owned),
            access_token: secret("access_token")?,
            refresh_token: secret("refresh_token")?,
        })
    }
}

/// Where a session is kept, whether or not there is one.
#[derive(Debug, Clone)]
pub struct SessionFile {
    name: String,
    path: PathBuf,
}

/// A session that no other process changes meanwhile.
#[derive(Debug)]
pub struct Locked<'a> {
    file: &'a SessionFile,
    _lock: File,
}

/// The names of all sessions, in order.
///
/// # Errors
/// A state directory that cannot be found or read.
pub fn names() -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(state_dir::base()?.join("sessions")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

impl SessionFile {
    /// The session of this name.
    ///
    /// # Errors
    /// A name that can be none.
    pub fn named(name: &str) -> Result<Self, String> {
        let dir = state_dir::base().map_err(|error| error.to_string())?.join("sessions");
        Self::below(&dir, name)
    }

    pub(super) fn below(dir: &Path, name: &str) -> Result<Self, String> {
        let is_fine = !name.is_empty()
            && name.len() <= MAX_NAME
            && !name.starts_with('.')
            && !name.contains(|c: char| c == '/' || c.is_control());
        if !is_fine {
            return Err(format!(
                "{name:?} cannot name a session: at most {MAX_NAME} bytes, no slash, no dot at the start"
            ));
        }
        Ok(Self { name: name.to_owned(), path: dir.join(format!("{name}.json")) })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells one writing from the next.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        private_file::stamp(&self.path)
    }

    /// The session, as it is now; `None` where there is none.
    ///
    /// # Errors
    /// A file that cannot be read, is not private, or holds something else.
    pub fn read(&self) -> Result<Option<Kept>, String> {
        let path = self.path.display();
        let contents = match private_file::read(&self.path) {
            Ok(contents) => contents,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {path}: {error}")),
        };
        contents.must_be_private(&self.path, "a session")?;
        Kept::of_text(&contents.text).map(Some).ok_or_else(|| {
            format!(
                "{path} holds no session; remove it and sign in again: supafs login --name {:?}",
                self.name
            )
        })
    }

    /// Waits until nobody else changes it.
    ///
    /// # Errors
    /// The file system's own, and another process that does not let go.
    pub fn lock(&self) -> Result<Locked<'_>, String> {
        let told = |error: io::Error| format!("cannot lock the session {:?}: {error}", self.name);
        if let Some(dir) = self.path.parent() {
            state_dir::create_private(dir).map_err(told)?;
        }
        let path = self.path.with_extension("lock");
        let lock = private_file::open(&path, OpenOptions::new().write(true).create(true).truncate(false))
            .map_err(told)?;
        let until = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Locked { file: self, _lock: lock }),
                Err(TryLockError::Error(error)) => return Err(told(error)),
                Err(TryLockError::WouldBlock) if Instant::now() > until => {
                    return Err(told(io::Error::other("another process holds it")));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Locked<'_> {
    /// The session, if there is one.
    ///
    /// # Errors
    /// As [`SessionFile::read`].
    pub fn find(&self) -> Result<Option<Kept>, String> {
        self.file.read()
    }

    /// The session.
    ///
    /// # Errors
    /// As [`SessionFile::read`], and where there is none.
    pub fn read(&self) -> Result<Kept, String> {
        self.file.read()?.ok_or_else(|| {
            let name = &self.file.name;
            format!("there is no session {name:?} (any more); sign in: supafs login --name {name:?}")
        })
    }

    /// Keeps it.
    ///
    /// # Errors
    /// The file system's own; what was kept before is unchanged.
    pub fn write(&self, kept: &Kept) -> Result<(), String> {
        private_file::replace(&self.file.path, &kept.to_text())
            .map_err(|error| format!("cannot keep the session in {}: {error}", self.file.path.display()))
    }

    /// Forgets it.
    ///
    /// # Errors
    /// The file system's own.
    pub fn remove(&self) -> Result<(), String> {
        match fs::remove_file(&self.file.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("cannot remove {}: {error}", self.file.path.display()))
            }
            _ => Ok(()),
        }
    }

    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        self.file.stamp()
    }
}
