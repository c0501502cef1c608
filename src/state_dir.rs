//! Directories that supafs keeps for itself, private to the user: `$XDG_STATE_HOME/supafs`.
//!
//! Invariant: every directory made here has mode 0700, every file 0600. What one identity leaves behind
//! lies in a directory named by that identity, so that no other finds it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::identity::Identity;

/// The home directory: `$HOME`, else what the user database says (mount(8) from systemd sets no HOME).
#[must_use]
pub fn home() -> Option<PathBuf> {
    match std::env::var_os("HOME") {
        Some(home) if !home.is_empty() => Some(PathBuf::from(home)),
        _ => nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.dir),
    }
}

/// One XDG base directory; a relative value is ignored, as the specification asks.
#[must_use]
pub fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    match std::env::var_os(variable).map(PathBuf::from) {
        Some(dir) if dir.is_absolute() => Some(dir),
        _ => home().map(|home| home.join(below_home)),
    }
}

/// `$XDG_STATE_HOME/supafs`, not created.
///
/// # Errors
/// Where neither the variable nor a home directory is known.
pub fn base() -> io::Result<PathBuf> {
    xdg("XDG_STATE_HOME", ".local/state").map(|dir| dir.join("supafs")).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "no home directory: set HOME or XDG_STATE_HOME")
    })
}

/// `<base>/<below>`, created private to the user.
///
/// # Errors
/// The file system's own, with the path.
pub fn below(below: &str) -> io::Result<PathBuf> {
    let dir = base()?.join(below);
    create_private(&dir)?;
    Ok(dir)
}

/// The state directory of one identity at one endpoint, created private to the user.
///
/// # Errors
/// The file system's own, with the path.
pub fn of_identity(endpoint: &str, identity: &Identity) -> io::Result<PathBuf> {
    let kind = match identity {
        Identity::Keys { .. } => "keys",
        Identity::User { .. } => "user",
    };
    below(&format!("identity/{kind}-{}", short_hash(&format!("{endpoint}\n{identity:?}"))))
}

/// A name for `text` that is short and safe in a path.
#[must_use]
pub fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .take(8)
        .fold(String::new(), |name, byte| format!("{name}{byte:02x}"))
}

/// Makes `dir` and what is missing above it, all private to the user; mends the mode of `dir` itself.
///
/// # Errors
/// The file system's own, with the path.
pub fn create_private(dir: &Path) -> io::Result<()> {
    let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(told)?;
    if fs::metadata(dir).map_err(told)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(told)?;
    }
    Ok(())
}

/// Opens `path` for appending, created readable by the user alone.
///
/// # Errors
/// The file system's own, with the path.
pub fn append_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
