//! The spool: one directory, two files for each draft, `<id>.data` (sparse) and `<id>.json` (its record); for each
//! queued removal a record alone.
//!
//! Invariants: a record is replaced as a whole or not at all, whenever this process ends; a record goes before its
//! data; what cannot be read is moved aside, never deleted. One daemon at a time: the lock file names it. Directories
//! have mode 0700, files 0600. Where it has to outlive a loss of power, one `syncfs` makes data, record and names
//! durable together, and a digest in the record tells data that came through from data that did not.
//!
//! Lock rank: leaf.

mod inventory;
mod recover;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

pub use inventory::{Holder, Staged, inventory};
pub use recover::Recovered;

use super::begun::millis_now;
use super::record::{Owner, Record, RecordState};
use crate::{private_file, state_dir};

/// Mounts of one bucket by one identity at the same time.
const SLOTS: usize = 64;

#[derive(Debug, Clone, Copy)]
pub struct SpoolOptions {
    /// Bytes of data at most.
    pub capacity: u64,
    /// Safe from a loss of power, too.
    pub sync: bool,
}

/// See the module.
pub struct Spool {
    dir: PathBuf,
    /// The directory itself, for `syncfs`.
    handle: File,
    options: SpoolOptions,
    owner: Owner,
    /// Bytes of drafts in use, and of files that wait for a decision.
    used: AtomicU64,
    at_rest: AtomicU64,
    /// What this daemon works on.
    live: Mutex<HashSet<String>>,
    /// Keys of the multipart uploads under way, by the id of the record.
    uploads: Mutex<HashMap<String, String>>,
    next: AtomicU64,
    /// Data files that drafts in use keep open, and how many these may be.
    held: AtomicUsize,
    may_hold: usize,
    nothing: Arc<File>,
    _lock: Flock<File>,
}

/// A draft's data and record.
///
/// The data of a file that is in use stays open; that of a file that merely waits is opened by whoever needs it, and
/// closed behind the last of them. So many files can wait as the disk takes.
pub struct SpoolFile {
    spool: Arc<Spool>,
    id: String,
    data: Mutex<Data>,
    /// `None` once it is removed.
    record: Mutex<Option<Record>>,
    reserved: AtomicU64,
}

#[derive(Default)]
struct Data {
    /// While the file is in use.
    held: Option<Arc<File>>,
    /// What somebody may still have open.
    last: Weak<File>,
}

/// A record without data: of a removal that is queued, or of a multipart upload under way.
pub struct Note {
    spool: Arc<Spool>,
    id: String,
    pub record: Record,
}

impl Spool {
    /// Opens the spool below `dir`, takes over what dead daemons left in it, and locks it.
    ///
    /// # Errors
    /// The file system's own, with the path.
    pub fn open(dir: &Path, options: SpoolOptions, owner: Owner) -> io::Result<(Arc<Self>, Recovered)> {
        state_dir::create_private(dir)?;
        let (slot, lock) = lock_a_slot(dir)?;
        // No file of the spool's own: a mount must come up on a full disk, to make room on it.
        let nothing = Arc::new(File::open("/dev/null")?);
        let started = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let spool = Arc::new(Self {
            handle: File::open(&slot)?,
            dir: slot.clone(),
            options,
            owner,
            used: AtomicU64::new(0),
            at_rest: AtomicU64::new(0),
            live: Mutex::default(),
            uploads: Mutex::default(),
            next: AtomicU64::new(u64::try_from(started.as_micros()).unwrap_or(0)),
            held: AtomicUsize::new(0),
            may_hold: may_hold(),
            nothing,
            _lock: lock,
        });
        recover::take_over_dead(dir, &slot)?;
        let recovered = spool.recover()?;
        Ok((spool, recovered))
    }

    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed) + self.at_rest.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.options.capacity
    }

    /// Whether a file waits for a decision.
    #[must_use]
    pub fn is_parked(&self, id: &str) -> bool {
        recover::read_record(&self.dir.join(format!("{id}.json")))
            .is_some_and(|record| record.state == RecordState::Parked)
    }

    /// An empty file.
    #[must_use]
    pub fn nothing(&self) -> &Arc<File> {
        &self.nothing
    }

    /// Begins a file with this record.
    ///
    /// # Errors
    /// When the disk is full or fails, and `EMFILE` when no more data files may be open.
    pub fn create(self: &Arc<Self>, record: Record) -> io::Result<SpoolFile> {
        let id = self.next_id();
        if self.held.load(Ordering::Relaxed) >= self.may_hold {
            return Err(nix::errno::Errno::EMFILE.into());
        }
        let data = private_file::open(
            &self.dir.join(format!("{id}.data")),
            OpenOptions::new().read(true).write(true).create_new(true),
        )?;
        if let Err(error) = self.write_record(&id, &record) {
            // The record is what counts; a data file alone is swept up at the next start.
            drop(fs::remove_file(self.dir.join(format!("{id}.data"))));
            return Err(error);
        }
        let file = self.file(id, record, 0);
        match file.keep_open(&Arc::new(data)) {
            Ok(()) => Ok(file),
            Err(error) => {
                drop(file.remove());
                Err(error)
            }
        }
    }

    /// Notes that an object is to be deleted.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn note(self: &Arc<Self>, record: Record) -> io::Result<Note> {
        let id = self.next_id();
        self.write_record(&id, &record)?;
        if self.options.sync {
            self.sync()?;
        }
        self.live.lock().insert(id.clone());
        Ok(Note { spool: Arc::clone(self), id, record })
    }

    /// Notes that a multipart upload is about to begin, so that it is aborted also if this daemon dies. Without the
    /// note, it would merely stay behind on the server: a full disk must not keep files from leaving it.
    pub fn note_upload(self: &Arc<Self>, key: &str) -> Option<Note> {
        let mut record = Record::new(&self.owner);
        record.state = RecordState::Upload;
        key.clone_into(&mut record.key);
        record.changed_ms = millis_now();
        self.note_upload_as(record)
    }

    fn note_upload_as(self: &Arc<Self>, record: Record) -> Option<Note> {
        let note = self.next_id();
        match self.write_record(&note, &record) {
            Ok(()) => {
                self.live.lock().insert(note.clone());
                self.uploads.lock().insert(note.clone(), record.key.clone());
                Some(Note { spool: Arc::clone(self), id: note, record })
            }
            Err(error) => {
                tracing::warn!(%error, "an upload that is under way is not on record");
                None
            }
        }
    }

    /// Unique among all that ever ran: by the time of the start, and by the slot.
    fn next_id(&self) -> String {
        let slot = self.dir.file_name().unwrap_or_default().to_string_lossy();
        format!("{:x}-{slot}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A file whose data is not open.
    fn file(self: &Arc<Self>, id: String, record: Record, reserved: u64) -> SpoolFile {
        self.used.fetch_add(reserved, Ordering::Relaxed);
        self.live.lock().insert(id.clone());
        SpoolFile {
            spool: Arc::clone(self),
            id,
            data: Mutex::default(),
            record: Mutex::new(Some(record)),
            reserved: AtomicU64::new(reserved),
        }
    }

    fn write_record(&self, id: &str, record: &Record) -> io::Result<()> {
        write_record(&self.dir, id, record)
    }

    fn sync(&self) -> io::Result<()> {
        nix::unistd::syncfs(&self.handle).map_err(io::Error::from)
    }
}

/// How many data files may be kept open: the others are for connections, and for what waits in the spool.
fn may_hold() -> usize {
    const FOR_OTHERS: u64 = 128;
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from(limit - FOR_OTHERS.min(limit / 2)).unwrap_or(usize::MAX)
}

/// Whether this process or the machine has no free file descriptor.
pub(super) fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE))
}

/// By a file of another name, so that a reader finds the old record or the new one.
fn write_record(dir: &Path, id: &str, record: &Record) -> io::Result<()> {
    let target = dir.join(format!("{id}.json"));
    let next = dir.join(format!("{id}.json.new"));
    let written = (|| {
        let mut file = private_file::open(&next, OpenOptions::new().write(true).create(true).truncate(true))?;
        file.write_all(&serde_json::to_vec(record)?)?;
        replace(&next, &target)
    })();
    if written.is_err() {
        drop(fs::remove_file(&next));
    }
    written
}

/// Writes a record over the old one, which spares a file. One page is written as a whole also if this process is killed;
/// what a loss of power would leave of it only matters where records are synced. `false`: it does not fit.
fn write_in_place(dir: &Path, id: &str, record: &Record) -> io::Result<bool> {
    const PAGE: usize = 4096;
    let mut text = serde_json::to_vec(record)?;
    let file = OpenOptions::new().write(true).open(dir.join(format!("{id}.json")))?;
    let old = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if text.len().max(old) > PAGE {
        return Ok(false);
    }
    // A longer record must not show behind a shorter one.
    text.resize(text.len().max(old), b' ');
    file.write_all_at(&text, 0)?;
    Ok(true)
}

/// Puts a file in the place of another, or where there is none. By an exchange: a rename over a file makes ext4 write
/// the new one to disk there and then, which most records do not live long enough for.
fn replace(next: &Path, target: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    match renameat2(AT_FDCWD, next, AT_FDCWD, target, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => fs::remove_file(next),
        // The first record of an id, or a file system that cannot do it.
        Err(_) => fs::rename(next, target),
    }
}

/// The first sub-directory that no daemon holds.
fn lock_a_slot(dir: &Path) -> io::Result<(PathBuf, Flock<File>)> {
    for number in 0..SLOTS {
        let slot = dir.join(number.to_string());
        state_dir::create_private(&slot)?;
        if let Some(mut lock) = try_lock(&slot)? {
            // Who it is matters to `supafs spool` only; a full disk must not keep a mount from coming up.
            let noted = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
            if let Err(error) = noted {
                tracing::warn!(%error, "cannot note in the spool which process has it");
            }
            return Ok((slot, lock));
        }
    }
    Err(io::Error::other(format!("{}: {SLOTS} mounts of this bucket are running already", dir.display())))
}

/// `None`: another daemon has it.
fn try_lock(slot: &Path) -> io::Result<Option<Flock<File>>> {
    let file = private_file::open(
        &slot.join("lock"),
        OpenOptions::new().read(true).write(true).create(true).truncate(false),
    )?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}

/// What the local ranges of a file hold.
fn digest(data: &File, record: &Record) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut piece = vec![0; 256 << 10];
    for &(start, end) in &record.local {
        let mut at = start;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
            data.read_exact_at(&mut piece[..len], at)?;
            digest.update(&piece[..len]);
            at += len as u64;
        }
    }
    Ok(digest.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
}

impl SpoolFile {
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The data, opened unless it is open already; closed when the last who has it lets go, and nobody
    /// [holds](Self::hold) it.
    ///
    /// # Errors
    /// The file system's own, among them `EMFILE`.
    pub fn data(&self) -> io::Result<Arc<File>> {
        let opened = {
            let data = self.data.lock();
            data.held.clone().or_else(|| data.last.upgrade())
        };
        if let Some(file) = opened {
            return Ok(file);
        }
        let path = self.spool.dir.join(format!("{}.data", self.id));
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(path)?);
        self.data.lock().last = Arc::downgrade(&file);
        Ok(file)
    }

    /// The data, which stays open from now on until [`rest`](Self::rest).
    ///
    /// # Errors
    /// As [`data`](Self::data), and `EMFILE` when no more data files may be open.
    pub fn hold(&self) -> io::Result<Arc<File>> {
        if let Some(file) = &self.data.lock().held {
            return Ok(Arc::clone(file));
        }
        let file = self.data()?;
        self.keep_open(&file)?;
        Ok(file)
    }

    fn keep_open(&self, file: &Arc<File>) -> io::Result<()> {
        let mut data = self.data.lock();
        if data.held.is_some() {
            return Ok(());
        }
        if self.spool.held.fetch_add(1, Ordering::Relaxed) >= self.spool.may_hold {
            self.spool.held.fetch_sub(1, Ordering::Relaxed);
            return Err(nix::errno::Errno::EMFILE.into());
        }
        *data = Data { held: Some(Arc::clone(file)), last: Arc::downgrade(file) };
        Ok(())
    }

    /// Nobody uses the file; it waits. Its descriptor is for others.
    pub fn rest(&self) {
        let held = self.data.lock().held.take();
        if held.is_some() {
            self.spool.held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Cuts the data off, or fills it up with zeros.
    ///
    /// # Errors
    /// The file system's own.
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        self.data()?.set_len(size)?;
        if size == 0 {
            // A file that was cut to nothing is written to disk by ext4 at its next close, with what it holds by then.
            // Here is that close, while it holds nothing.
            drop(File::open(self.spool.dir.join(format!("{}.data", self.id))));
        }
        Ok(())
    }

    /// Takes room for this many bytes more.
    ///
    /// # Errors
    /// `StorageFull`.
    pub fn reserve(&self, bytes: u64) -> io::Result<()> {
        let spool = &*self.spool;
        spool.used.fetch_add(bytes, Ordering::Relaxed);
        if spool.used() > spool.options.capacity {
            spool.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Gives room back.
    pub fn release(&self, bytes: u64) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
        self.spool.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The record, unless the file was removed.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        self.record.lock().clone()
    }

    /// Changes the record; that of a file that was removed is not brought back.
    ///
    /// # Errors
    /// When the disk fails: the old record is intact then.
    pub fn update(&self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let mut record = self.record.lock();
        let Some(mut next) = record.clone() else { return Ok(()) };
        change(&mut next);
        if self.spool.options.sync || !write_in_place(&self.spool.dir, &self.id, &next).unwrap_or(false) {
            self.spool.write_record(&self.id, &next)?;
        }
        *record = Some(next);
        Ok(())
    }

    /// Another file with what this one's record promises, to stand for it while this one is changed.
    ///
    /// # Errors
    /// When the disk is full or fails; nothing is left behind then.
    pub fn duplicate(&self) -> io::Result<Self> {
        let promised = self.record.lock().clone().ok_or(io::ErrorKind::NotFound)?;
        // Worth nothing until it is whole.
        let copy = self.spool.create(Record { state: RecordState::Clean, ..promised.clone() })?;
        let copied = (|| {
            copy.reserve(promised.local_bytes())?;
            // Opened anew: whoever uploads the file moves its position.
            let from = File::open(self.spool.dir.join(format!("{}.data", self.id)))?;
            let to = copy.data()?;
            to.set_len(promised.size)?;
            let (mut from, mut to) = (&from, &*to);
            for &(start, end) in &promised.local {
                from.seek(SeekFrom::Start(start))?;
                to.seek(SeekFrom::Start(start))?;
                io::copy(&mut Read::take(from, end - start), &mut to)?;
            }
            copy.rest();
            copy.update(|record| *record = Record { until: Some(self.id.clone()), ..promised })?;
            if self.spool.options.sync { self.spool.sync() } else { Ok(()) }
        })();
        match copied {
            Ok(()) => Ok(copy),
            Err(error) => {
                drop(copy.remove());
                Err(error)
            }
        }
    }

    /// The data is whole: the record says so, and is safe as far as the spool promises when this returns.
    ///
    /// # Errors
    /// When the disk fails: the old record is intact then.
    pub fn seal(&self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        if !self.spool.options.sync {
            return self.update(change);
        }
        let data = self.data()?;
        self.update(|record| {
            change(record);
            // A loss of power between the two must not make torn data look whole.
            record.digest = digest(&data, record).ok();
        })?;
        self.spool.sync()
    }

    /// Deletes record and data. Whoever has the data open keeps it.
    ///
    /// # Errors
    /// The file system's own.
    pub fn remove(&self) -> io::Result<()> {
        // An upload may be at work on it: without a name it can only be had from here.
        let data = self.data().ok();
        let mut record = self.record.lock();
        remove_files(&self.spool.dir, &self.id)?;
        *record = None;
        if let Some(file) = data {
            // Also above the limit: the caller is about to let go of it all.
            drop(self.keep_open(&file));
        }
        self.release(self.reserved.load(Ordering::Relaxed));
        Ok(())
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.rest();
        self.spool.live.lock().remove(&self.id);
        let left = *self.reserved.get_mut();
        self.spool.used.fetch_sub(left, Ordering::Relaxed);
        self.spool.at_rest.fetch_add(left, Ordering::Relaxed);
    }
}

impl Note {
    /// The upload has begun, with this id.
    pub fn began(&mut self, id: &str) {
        self.record.upload = Some(id.to_owned());
        if let Err(error) = self.spool.write_record(&self.id, &self.record) {
            tracing::warn!(%error, "the spool does not know the id of an upload that is under way");
        }
    }

    /// Notes that another upload of the key may have been begun at the same time, whose id nobody knows. Before
    /// [`began`](Self::began).
    #[must_use]
    pub fn of_another(&self) -> Option<Self> {
        self.spool.note_upload_as(self.record.clone())
    }

    /// The upload is not wanted any more.
    pub fn give_up(&self) {
        self.spool.uploads.lock().remove(&self.id);
    }

    /// Whether an upload of the same key is under way.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.spool.uploads.lock().values().any(|key| *key == self.record.key)
    }

    /// It is done, or not wanted any more.
    pub fn remove(&self) {
        if let Err(error) = remove_files(&self.spool.dir, &self.id) {
            tracing::warn!(id = self.id, %error, "a removal stays on record; `supafs spool discard` ends it");
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.spool.uploads.lock().remove(&self.id);
        self.spool.live.lock().remove(&self.id);
    }
}

fn remove_files(dir: &Path, id: &str) -> io::Result<()> {
    for suffix in ["json", "data"] {
        match fs::remove_file(dir.join(format!("{id}.{suffix}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
