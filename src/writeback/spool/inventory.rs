//! What lies in the spools of a user, for `supafs spool`, with and without daemons that work on it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::recover::{read_record, records_first, rewrite};
use super::{Record, RecordState, remove_files, try_lock};

/// Who works on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Nobody,
    /// The process id of a daemon that runs; 0 where it is not known yet.
    Daemon(i32),
}

/// One file in a spool.
#[derive(Debug, Clone)]
pub struct Staged {
    pub id: String,
    pub record: Record,
    pub holder: Holder,
    slot: PathBuf,
}

/// Everything below a spool directory, oldest first, and what could not be read.
///
/// # Errors
/// The file system's own.
pub fn inventory(dir: &Path) -> io::Result<(Vec<Staged>, Vec<PathBuf>)> {
    let (mut staged, mut unreadable) = (Vec::new(), Vec::new());
    // A service and an identity, a bucket, a slot.
    if !dir.try_exists()? {
        return Ok((staged, unreadable));
    }
    for slot in
        below(dir)?.iter().flat_map(|place| below(place)).flatten().flat_map(|root| below(&root)).flatten()
    {
        let holder = holder(&slot)?;
        for path in records_first(&slot)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(id) = name.strip_suffix(".json") else { continue };
            // Its daemon may just be writing it.
            match read_record(&path).or_else(|| read_record(&path)) {
                // A name that is gone has nothing to be decided.
                Some(record) if record.key.is_empty() => {}
                Some(record) if matches!(record.state, RecordState::Clean | RecordState::Upload) => {}
                // The file that it stands in for is listed.
                Some(record) if record.until.is_some() && holder != Holder::Nobody => {}
                Some(record) => staged.push(Staged { id: id.to_owned(), record, holder, slot: slot.clone() }),
                // Done in this moment, or broken.
                None if path.exists() => unreadable.push(path),
                None => {}
            }
        }
        let aside = slot.join("quarantine");
        if aside.is_dir() {
            unreadable.extend(records_first(&aside)?);
        }
    }
    staged.sort_by(|a, b| (a.record.changed_ms, &a.id).cmp(&(b.record.changed_ms, &b.id)));
    Ok((staged, unreadable))
}

fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn holder(slot: &Path) -> io::Result<Holder> {
    if try_lock(slot)?.is_some() {
        return Ok(Holder::Nobody);
    }
    let pid = fs::read_to_string(slot.join("lock"))?;
    Ok(Holder::Daemon(pid.trim().parse().unwrap_or(0)))
}

impl Staged {
    /// The data: sparse, with what the record calls local.
    ///
    /// # Errors
    /// The file system's own.
    pub fn data(&self) -> io::Result<File> {
        File::open(self.slot.join(format!("{}.data", self.id)))
    }

    /// Whether a daemon is at work on it.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.holder != Holder::Nobody && self.record.state != RecordState::Parked
    }

    /// Whether a multipart upload of its key is on record that the next mount aborts.
    #[must_use]
    pub fn has_upload(&self) -> bool {
        let paths = records_first(&self.slot).unwrap_or_default();
        let records = paths.iter().filter(|path| path.extension().is_some_and(|end| end == "json"));
        records
            .filter_map(|path| read_record(path))
            .any(|record| record.state == RecordState::Upload && record.key == self.record.key)
    }

    /// It is to be uploaded: by the daemon that runs, or by the next one.
    ///
    /// # Errors
    /// The file system's own.
    pub fn retry(&self) -> io::Result<()> {
        let _lock = self.claim()?;
        let record = Record { state: RecordState::Committed, error: None, ..self.record.clone() };
        rewrite(&self.slot, &self.id, &record)?;
        self.tell_daemon()
    }

    /// Deletes data and record.
    ///
    /// # Errors
    /// The file system's own.
    pub fn discard(&self) -> io::Result<()> {
        let _lock = self.claim()?;
        remove_files(&self.slot, &self.id)?;
        self.tell_daemon()
    }

    /// Keeps daemons from starting on it meanwhile.
    fn claim(&self) -> io::Result<Option<nix::fcntl::Flock<File>>> {
        match self.holder {
            Holder::Daemon(_) => Ok(None),
            Holder::Nobody => match try_lock(&self.slot)? {
                Some(lock) => Ok(Some(lock)),
                None => Err(io::Error::other("a mount of this bucket has just been started; try again")),
            },
        }
    }

    fn tell_daemon(&self) -> io::Result<()> {
        match self.holder {
            Holder::Daemon(pid) if pid > 0 => Ok(kill(Pid::from_raw(pid), Signal::SIGUSR2)?),
            _ => Ok(()),
        }
    }
}
