//! Directories that supafs keeps for itself, private to the user: `$XDG_STATE_HOME/supafs`.
//!
//! Invariant: every directory made here has mode 0700, every file 0600. What one identity leaves behind
//! lies in a directory named by that identity, so that no other finds it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::identity::Identity;
use crate::private_file;

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
    below(&format!("identity/{kind}-{}", short_hash(&format!("{endpoint}\n{}", identity.tag()))))
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
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    for missing in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(missing) {
            // The umask may have taken away what the owner needs.
            Ok(()) => fs::set_permissions(missing, fs::Permissions::from_mode(0o700)).map_err(told)?,
            // Another process was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(told(error)),
        }
    }
    if fs::metadata(dir).map_err(told)?.permissions().mode() & 0o777 != 0o700 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(told)?;
    }
    Ok(())
}

/// Opens `path` for appending, created readable by the user alone. One that is there keeps its mode: it may be a
/// terminal, or a file that its owner lets a group read.
///
/// # Errors
/// The file system's own, with the path.
pub fn append_private(path: &Path) -> io::Result<File> {
    let made = private_file::open(path, OpenOptions::new().append(true).create_new(true));
    let opened = match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().append(true).open(path)
        }
        other => other,
    };
    opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
