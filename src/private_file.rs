//! Reading files that may hold secrets: they must be private to their owner.

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
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
