//! From names to inodes: lookup, getattr, forget.

use std::time::Duration;

use super::inode::ROOT;
use super::{Attributes, ErrorKind, Fs, FsError};
use crate::name;

/// The answer to a lookup, and how long the kernel may believe it.
#[derive(Debug, Clone)]
pub enum Found {
    Entry(Attributes, Duration),
    Absent(Duration),
}

impl Fs {
    /// Finds `name` in a directory; the kernel then holds the inode once more.
    ///
    /// # Errors
    /// `NameTooLong`, `NotDirectory`, or why the server could not be asked.
    pub async fn lookup(&self, parent: u64, name: &[u8]) -> Result<Found, FsError> {
        if name.len() > name::MAX_LEN {
            return Err(ErrorKind::NameTooLong.into());
        }
        let prefix = self.prefix(parent)?;
        let question = (parent, Box::from(name));
        self.unanswered_lookups.ask(&question)?;
        let found = self.meta.lookup(&prefix, name).await.map_err(|error| self.noted(&prefix, error.into()));
        self.unanswered_lookups.ended(question, &found);
        let found = found?;
        // Once more with the table held, under which names are changed.
        let mut inodes = self.inodes.lock();
        let Some(entry) = self.meta.changed_since(&prefix, name, found.asked, found.entry) else {
            if let Some(ino) = inodes.named(parent, name) {
                inodes.detach(ino);
            }
            return Ok(Found::Absent(found.valid));
        };
        let ino = inodes.upsert(parent, &entry);
        inodes.remember(ino);
        self.refresh_attrs(&mut inodes, ino);
        let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
        Ok(Found::Entry(self.attributes(ino, inode), found.valid))
    }

    /// The attributes of an inode and how long they may be believed.
    ///
    /// An open file shows the version that is open. Another one is looked up again when what is known has aged.
    ///
    /// # Errors
    /// `NotFound` or `Stale` where the name leads elsewhere by now.
    pub async fn getattr(&self, ino: u64) -> Result<(Attributes, Duration), FsError> {
        if ino != ROOT {
            self.admit()?;
        }
        let (parent, name) = {
            let inodes = self.inodes.lock();
            let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
            if ino == ROOT || inode.file().is_none() || inode.opens() > 0 {
                return Ok((self.attributes(ino, inode), self.ttl));
            }
            // The kernel believes in its name for a while yet: it is to look it up again.
            if inode.is_detached() {
                return Err(ErrorKind::Stale.into());
            }
            (inode.parent(), Box::<[u8]>::from(inode.name()))
        };
        let valid = self.revalidate(ino, parent, &name).await?;
        Ok((self.attributes_of(ino)?, valid))
    }

    /// Asks again what a name stands for: it must still be this inode.
    pub(super) async fn revalidate(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Duration, FsError> {
        let prefix = self.prefix(parent)?;
        let found = self.meta.lookup(&prefix, name).await?;
        // Once more with the table held, under which names are changed.
        let mut inodes = self.inodes.lock();
        let Some(entry) = self.meta.changed_since(&prefix, name, found.asked, found.entry) else {
            inodes.detach(ino);
            return Err(ErrorKind::NotFound.into());
        };
        let now = inodes.upsert(parent, &entry);
        if now != ino {
            // Nobody asked for the new inode yet.
            inodes.forget(now, 0);
            return Err(ErrorKind::Stale.into());
        }
        self.refresh_attrs(&mut inodes, ino);
        Ok(found.valid)
    }

    /// The kernel gives back `lookups` references.
    pub fn forget(&self, ino: u64, lookups: u64) {
        self.inodes.lock().forget(ino, lookups);
    }

    pub(super) fn attributes_of(&self, ino: u64) -> Result<Attributes, FsError> {
        let inodes = self.inodes.lock();
        let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
        Ok(self.attributes(ino, inode))
    }
}
