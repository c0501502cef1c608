//! Files that may hold secrets: they must be private to their owner.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::secret::Secret;

/// What a file holds, with the permissions it had when it was opened.
#[derive(Debug)]
pub struct Contents {
    pub text: Secret,
    permissions: Permissions,
}

/// Opens and reads `path` once: the permissions are those of the very file that was read.
///
/// # Errors
/// The file system's own.
pub fn read(path: &Path) -> io::Result<Contents> {
    let mut file = File::open(path)?;
    let permissions = file.metadata()?.permissions();
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(Contents { text: Secret::new(text), permissions })
}

impl Contents {
    /// Refuses a file that others can read.
    ///
    /// # Errors
    /// Any permission bit of the group or of others, with the chmod that mends it.
    pub fn must_be_private(&self, path: &Path, holds: &str) -> Result<(), String> {
        let mode = self.permissions.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!(
                "{path} holds {holds} and has mode {mode:04o}: others may read it. Run: chmod 600 {path}",
                path = path.display()
            ));
        }
        Ok(())
    }
}

/// Opens a file of supafs's own, whose mode is then 0600, whatever the umask says and an older version left.
///
/// # Errors
/// The file system's own.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.mode(0o600).open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() && meta.mode() & 0o7777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Tells one writing of a file from the next. The change time is in it so that a chmod, too, has the file read again.
pub type Stamp = (u64, u64, i64, i64, i64, i64, u64);

/// The stamp of a file that is there.
#[must_use]
pub fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some((
        meta.dev(),
        meta.ino(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
        meta.size(),
    ))
}

/// Puts a file of mode 0600 in the place of `path`, whole and on the disk, or leaves everything as it was.
///
/// # Errors
/// The file system's own.
pub fn replace(path: &Path, text: &Secret) -> io::Result<()> {
    let mut next = path.as_os_str().to_owned();
    next.push(format!(".{}.new", std::process::id()));
    let next = Path::new(&next);
    let written = (|| {
        let mut file = open(next, OpenOptions::new().write(true).create(true).truncate(true))?;
        file.write_all(text.expose().as_bytes())?;
        file.sync_all()?;
        fs::rename(next, path)
    })();
    if written.is_err() {
        // What could not be written is of no use.
        let _ = fs::remove_file(next);
    }
    written?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
