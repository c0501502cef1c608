//! What is found in a spool at the start, and when somebody has decided about a file in it.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Note, Record, RecordState, Spool, SpoolFile, digest, lacks_descriptors, try_lock, write_record};
use crate::state_dir;
use crate::writeback::holes::data_of;

/// What an earlier daemon left.
#[derive(Default)]
pub struct Recovered {
    /// To be uploaded.
    pub committed: Vec<(SpoolFile, Record)>,
    /// To be deleted.
    pub removed: Vec<Note>,
    /// Kept until somebody decides.
    pub parked: usize,
    /// What could not be read, and where it is now.
    pub quarantined: Vec<PathBuf>,
    /// Multipart uploads that nobody will complete.
    pub abandoned: Vec<Note>,
}

impl Spool {
    pub(super) fn recover(self: &Arc<Self>) -> io::Result<Recovered> {
        let mut recovered = Recovered::default();
        for path in records_first(&self.dir)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if let Some(id) = name.strip_suffix(".json") {
                self.recover_one(id, &path, &mut recovered)?;
            } else if name.ends_with(".json.new") {
                // Gone by now, if its record was written again.
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            } else if let Some(id) = name.strip_suffix(".data")
                // Its record may have taken it along.
                && path.exists()
                && !self.dir.join(format!("{id}.json")).exists()
            {
                if fs::metadata(&path)?.len() == 0 {
                    fs::remove_file(&path)?;
                } else {
                    recovered.quarantined.push(self.quarantine(&path)?);
                }
            }
        }
        Self::keep_the_last(&mut recovered);
        Ok(recovered)
    }

    /// Of several files that are to go to one key, the one that was closed last goes; the others wait for a decision,
    /// so that none can overwrite it.
    fn keep_the_last(recovered: &mut Recovered) {
        // Of two that were changed in one moment, that which a rename put in the place of the other.
        recovered.committed.sort_by_key(|(_, record)| (record.changed_ms, record.gives_way.is_none()));
        let mut last = HashSet::new();
        let mut kept = Vec::new();
        while let Some((file, record)) = recovered.committed.pop() {
            if last.insert(record.key.clone()) {
                kept.push((file, record));
                continue;
            }
            let parked = file.update(|record| {
                record.state = RecordState::Parked;
                record.error =
                    Some("the file was written again, and the later version was uploaded".to_owned());
            });
            match parked {
                Ok(()) => recovered.parked += 1,
                Err(error) => tracing::warn!(%error, id = file.id(), "an older version stays in the spool"),
            }
        }
        kept.reverse();
        recovered.committed = kept;
    }

    fn recover_one(self: &Arc<Self>, id: &str, path: &Path, recovered: &mut Recovered) -> io::Result<()> {
        let data_path = self.dir.join(format!("{id}.data"));
        let record = there(fs::read(path))?.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        let is_note = |record: &&Record| matches!(record.state, RecordState::Removed | RecordState::Upload);
        if let Some(record) = record.as_ref().filter(is_note) {
            self.live.lock().insert(id.to_owned());
            let note = Note { spool: Arc::clone(self), id: id.to_owned(), record: record.clone() };
            let list = if record.state == RecordState::Upload {
                &mut recovered.abandoned
            } else {
                &mut recovered.removed
            };
            list.push(note);
            return Ok(());
        }
        let data = there(OpenOptions::new().read(true).write(true).open(&data_path))?;
        let (Some(mut record), Some(data)) = (record, data) else {
            recovered.quarantined.push(self.quarantine(path)?);
            if data_path.exists() {
                recovered.quarantined.push(self.quarantine(&data_path)?);
            }
            return Ok(());
        };
        let was = record.clone();
        let is_unchanged = record.state == RecordState::Open && holds_nothing(&mut record, &data)?;
        let is_superseded = record.until.as_ref().is_some_and(|id| self.is_committed(id));
        if record.key.is_empty() || record.state == RecordState::Clean || is_unchanged || is_superseded {
            fs::remove_file(path)?;
            return fs::remove_file(data_path);
        }
        let is_torn = |record: &Record| {
            record.digest.as_ref().is_some_and(|known| digest(&data, record).ok().as_ref() != Some(known))
        };
        if record.state == RecordState::Open {
            record.state = RecordState::Parked;
            // What is known already says more.
            record
                .error
                .get_or_insert_with(|| "the daemon ended while the file was being written".to_owned());
        } else if record.state == RecordState::Committed && is_torn(&record) {
            record.state = RecordState::Parked;
            record.error =
                Some("the machine lost power before the file was safe; it is not whole".to_owned());
        }
        if record != was
            && let Err(error) = self.write_record(id, &record)
        {
            // On a full disk the next start finds it as it is.
            tracing::warn!(id, %error, "cannot note in the spool what became of a file");
        }
        if record.state == RecordState::Committed {
            let file = self.file(id.to_owned(), record.clone(), record.local_bytes());
            recovered.committed.push((file, record));
        } else {
            self.at_rest.fetch_add(record.local_bytes(), Ordering::Relaxed);
            recovered.parked += 1;
        }
        Ok(())
    }

    fn is_committed(&self, id: &str) -> bool {
        let record = read_record(&self.dir.join(format!("{id}.json")));
        record.is_some_and(|record| record.state == RecordState::Committed)
    }

    /// Looks for files that somebody has decided about: what is to be uploaded after all.
    ///
    /// # Errors
    /// The file system's own.
    pub fn rescan(self: &Arc<Self>) -> io::Result<Vec<(SpoolFile, Record)>> {
        let live: HashSet<String> = self.live.lock().clone();
        let mut found = Vec::new();
        let mut at_rest = 0;
        for path in records_first(&self.dir)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(id) = name.strip_suffix(".json").filter(|id| !live.contains(*id)) else { continue };
            let Some(record) = read_record(&path) else { continue };
            if record.state != RecordState::Committed {
                at_rest += record.local_bytes();
                continue;
            }
            if !self.dir.join(format!("{id}.data")).exists() {
                continue;
            }
            found.push((self.file(id.to_owned(), record.clone(), record.local_bytes()), record));
        }
        self.at_rest.store(at_rest, Ordering::Relaxed);
        Ok(found)
    }

    fn quarantine(&self, path: &Path) -> io::Result<PathBuf> {
        let dir = self.dir.join("quarantine");
        state_dir::create_private(&dir)?;
        let to = dir.join(path.file_name().unwrap_or_default());
        fs::rename(path, &to)?;
        Ok(to)
    }
}

/// Whether nothing was written to a file that was open when its daemon died. Its record is some writes behind: what
/// begins with no object is all in the data, the rest was noted now and then.
fn holds_nothing(record: &mut Record, data: &fs::File) -> io::Result<bool> {
    let metadata = data.metadata()?;
    if record.base.is_none() || record.base_limit == 0 {
        record.size = metadata.len();
        record.local = data_of(data, record.size).iter().map(|range| (range.start, range.end)).collect();
        return Ok(record.size == 0);
    }
    record.size = metadata.len();
    record.base_limit = record.base_limit.min(record.size);
    Ok(record.local.is_empty() && metadata.blocks() == 0)
}

/// What can be opened; `None` if it is missing or broken. A lack of descriptors says nothing about a file: it must not
/// be taken for broken then.
fn there<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Err(error) if lacks_descriptors(&error) => Err(error),
        other => Ok(other.ok()),
    }
}

pub(super) fn read_record(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The files of a directory, records first: they decide about their data. In the order in which they were made.
pub(super) fn records_first(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    paths.sort_by_key(|path| path.extension().is_none_or(|extension| extension != "json"));
    Ok(paths)
}

/// Moves the files of other sub-directories, whose daemons are gone, into this one.
pub(super) fn take_over_dead(dir: &Path, slot: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let other = entry?.path();
        if other == slot || !other.is_dir() {
            continue;
        }
        let Some(_lock) = try_lock(&other)? else { continue };
        let mut names: Vec<_> =
            fs::read_dir(&other)?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        // Data first: a record without its data would be taken for a broken one.
        names.sort_by_key(|name| !name.to_string_lossy().ends_with(".data"));
        for name in names {
            let text = name.to_string_lossy();
            if text.ends_with(".data") || text.ends_with(".json") {
                fs::rename(other.join(&name), slot.join(&name))?;
            }
        }
    }
    Ok(())
}

/// Replaces a record that no daemon works on.
pub(super) fn rewrite(dir: &Path, id: &str, record: &Record) -> io::Result<()> {
    write_record(dir, id, record)
}
