//! A small database of attributes by key: what is asked often in memory, all of it on disk.
//!
//! Two tables take turns, so that it is bounded: when the current one is full, the other is emptied and becomes
//! current; what is found in the old one is written to the new one. A change is on disk a second later.
//!
//! Lock rank: leaf.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lru::LruCache;
use parking_lot::{Condvar, Mutex};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use sha2::{Digest, Sha256};

use crate::attrs::Attrs;
use crate::etag::ETag;
use crate::private_file;

/// Entries that are answered without the disk.
const RECENT: NonZeroUsize = NonZeroUsize::new(50_000).unwrap();

/// Entries of one table.
const TABLE: u64 = 1_000_000;

/// Of the database's own.
const CACHE_BYTES: usize = 4 << 20;

const TABLES: [TableDefinition<'_, Id, &[u8]>; 2] = [TableDefinition::new("0"), TableDefinition::new("1")];
const CURRENT: TableDefinition<'_, u8, u8> = TableDefinition::new("current");

/// A key, in 16 bytes.
type Id = [u8; 16];

/// What is remembered of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remembered {
    /// A digest of the version's ETag.
    pub etag: u64,
    /// As listed; `None` until it has been.
    pub modified_ms: Option<i64>,
    pub attrs: Attrs,
}

impl Remembered {
    pub fn new(etag: &ETag, modified_ms: Option<i64>, attrs: Attrs) -> Self {
        Self { etag: digest(etag), modified_ms, attrs }
    }

    pub fn is_of(&self, etag: &ETag) -> bool {
        self.etag == digest(etag)
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.etag.to_le_bytes().to_vec();
        let Attrs { mtime, mode, uid, gid } = self.attrs;
        let flags =
            [self.modified_ms.is_some(), mtime.is_some(), mode.is_some(), uid.is_some(), gid.is_some()];
        bytes.push(flags.iter().rev().fold(0, |bits, &flag| bits << 1 | u8::from(flag)));
        bytes.extend(self.modified_ms.unwrap_or(0).to_le_bytes());
        bytes.extend(mtime.unwrap_or(0).to_le_bytes());
        bytes.extend(mode.unwrap_or(0).to_le_bytes());
        bytes.extend(uid.unwrap_or(0).to_le_bytes());
        bytes.extend(gid.unwrap_or(0).to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (etag, rest) = bytes.split_first_chunk()?;
        let (&[flags], rest) = rest.split_first_chunk()?;
        let (modified, rest) = rest.split_first_chunk()?;
        let (mtime, rest) = rest.split_first_chunk()?;
        let (mode, rest) = rest.split_first_chunk()?;
        let (uid, rest) = rest.split_first_chunk()?;
        let (gid, _) = rest.split_first_chunk()?;
        let has = |bit: u8| flags & 1 << bit != 0;
        Some(Self {
            etag: u64::from_le_bytes(*etag),
            modified_ms: has(0).then_some(i64::from_le_bytes(*modified)),
            attrs: Attrs {
                mtime: has(1).then_some(i64::from_le_bytes(*mtime)),
                mode: has(2).then_some(u16::from_le_bytes(*mode)),
                uid: has(3).then_some(u32::from_le_bytes(*uid)),
                gid: has(4).then_some(u32::from_le_bytes(*gid)),
            },
        })
    }
}

struct Pending {
    changes: HashMap<Id, Option<Remembered>>,
    closing: bool,
}

struct Disk {
    database: Database,
    pending: Mutex<Pending>,
    wake: Condvar,
    /// Held while changes are on their way to the disk.
    writing: Mutex<()>,
}

/// See the module.
pub(super) struct Memory {
    recent: Mutex<LruCache<Id, Option<Remembered>>>,
    disk: Option<Arc<Disk>>,
    any: AtomicBool,
}

impl Memory {
    pub fn new() -> Self {
        Self { recent: Mutex::new(LruCache::new(RECENT)), disk: None, any: AtomicBool::new(false) }
    }

    /// In memory only, where the file cannot be had: another daemon holds it, or the disk is full.
    pub fn open(file: &Path) -> Self {
        let mut memory = Self::new();
        match open_database(file).and_then(|database| Ok((is_empty(&database)?, database))) {
            Ok((is_empty, database)) => {
                memory.any = AtomicBool::new(!is_empty);
                let disk = Arc::new(Disk {
                    database,
                    pending: Mutex::new(Pending { changes: HashMap::new(), closing: false }),
                    wake: Condvar::new(),
                    writing: Mutex::default(),
                });
                let writer = Arc::clone(&disk);
                let spawned =
                    thread::Builder::new().name("memory".to_owned()).spawn(move || writer.write_behind());
                match spawned {
                    Ok(_) => memory.disk = Some(disk),
                    Err(error) => tracing::warn!(%error, "attributes are remembered for this mount only"),
                }
            }
            Err(error) => {
                tracing::info!(file = %file.display(), %error, "attributes are remembered for this mount only");
            }
        }
        memory
    }

    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    pub fn get(&self, key: &str) -> Option<Remembered> {
        let id = id(key);
        if let Some(known) = self.recent.lock().get(&id) {
            return *known;
        }
        let disk = self.disk.as_ref()?;
        let pending = disk.pending.lock().changes.get(&id).copied();
        let found = pending.unwrap_or_else(|| {
            disk.read(id).unwrap_or_else(|error| {
                tracing::debug!(%error, "remembered attributes cannot be read");
                None
            })
        });
        self.recent.lock().put(id, found);
        found
    }

    pub fn set(&self, key: &str, remembered: &Remembered) {
        self.change(key, Some(*remembered));
    }

    pub fn remove(&self, key: &str) {
        self.change(key, None);
    }

    fn change(&self, key: &str, remembered: Option<Remembered>) {
        let id = id(key);
        self.any.store(true, Ordering::Relaxed);
        self.recent.lock().put(id, remembered);
        if let Some(disk) = &self.disk {
            disk.pending.lock().changes.insert(id, remembered);
            disk.wake.notify_one();
        }
    }

    pub fn flush(&self) {
        if let Some(disk) = &self.disk {
            disk.write();
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(disk) = &self.disk {
            disk.pending.lock().closing = true;
            disk.wake.notify_one();
        }
    }
}

impl Disk {
    fn write_behind(&self) {
        loop {
            let mut pending = self.pending.lock();
            while pending.changes.is_empty() && !pending.closing {
                self.wake.wait(&mut pending);
            }
            let closing = pending.closing;
            drop(pending);
            if !closing {
                thread::sleep(Duration::from_secs(1));
            }
            self.write();
            if closing {
                return;
            }
        }
    }

    fn write(&self) {
        let _one_at_a_time = self.writing.lock();
        let changes = self.pending.lock().changes.clone();
        if changes.is_empty() {
            return;
        }
        if let Err(error) = self.commit(&changes) {
            tracing::warn!(%error, "attributes cannot be remembered beyond this mount");
        }
        // What changed again meanwhile stays.
        self.pending.lock().changes.retain(|id, change| changes.get(id) != Some(change));
    }

    fn commit(&self, changes: &HashMap<Id, Option<Remembered>>) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut current = transaction.open_table(CURRENT)?;
            let mut turn = current.get(0)?.map_or(0, |turn| turn.value() & 1);
            if transaction.open_table(TABLES[usize::from(turn)])?.len()? >= TABLE {
                turn ^= 1;
                transaction.delete_table(TABLES[usize::from(turn)])?;
                current.insert(0, turn)?;
            }
            let mut table = transaction.open_table(TABLES[usize::from(turn)])?;
            let mut old = transaction.open_table(TABLES[usize::from(turn ^ 1)])?;
            for (id, change) in changes {
                old.remove(id)?;
                match change {
                    Some(remembered) => drop(table.insert(id, remembered.to_bytes().as_slice())?),
                    None => drop(table.remove(id)?),
                }
            }
        }
        Ok(transaction.commit()?)
    }

    fn read(&self, id: Id) -> Result<Option<Remembered>, redb::Error> {
        let transaction = self.database.begin_read()?;
        for table in TABLES {
            match transaction.open_table(table) {
                Ok(table) => {
                    if let Some(bytes) = table.get(id)? {
                        return Ok(Remembered::from_bytes(bytes.value()));
                    }
                }
                Err(redb::TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

fn is_empty(database: &Database) -> Result<bool, redb::Error> {
    let transaction = database.begin_read()?;
    for table in TABLES {
        match transaction.open_table(table) {
            Ok(table) if !table.is_empty()? => return Ok(false),
            Ok(_) | Err(redb::TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Opens the database; a broken one is moved aside.
fn open_database(file: &Path) -> Result<Database, redb::Error> {
    let open = || {
        // The library would make it as the umask says.
        let made =
            private_file::open(file, OpenOptions::new().read(true).write(true).create(true).truncate(false));
        drop(made.map_err(redb::StorageError::Io)?);
        Database::builder().set_cache_size(CACHE_BYTES).create(file)
    };
    match open() {
        Err(
            error @ (redb::DatabaseError::Storage(redb::StorageError::Corrupted(_))
            | redb::DatabaseError::UpgradeRequired(_)),
        ) => {
            let aside = file.with_extension("broken");
            tracing::warn!(file = %file.display(), %error, "remembered attributes cannot be read; beginning anew");
            fs::rename(file, aside).map_err(redb::Error::Io)?;
            Ok(open()?)
        }
        other => Ok(other?),
    }
}

fn id(key: &str) -> Id {
    Sha256::digest(key.as_bytes())[..16].try_into().expect("a digest has 32 bytes")
}

fn digest(etag: &ETag) -> u64 {
    let digest = Sha256::digest(etag.to_string().as_bytes());
    u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(mtime: i64) -> Remembered {
        let attrs = Attrs { mtime: Some(mtime), mode: Some(0o640), uid: None, gid: Some(7) };
        Remembered::new(&ETag::new("0123"), None, attrs)
    }

    #[test]
    fn what_is_written_is_read_back() {
        for value in [remembered(-5), Remembered::new(&ETag::none(), Some(1), Attrs::default())] {
            assert_eq!(Remembered::from_bytes(&value.to_bytes()), Some(value));
        }
    }

    #[test]
    fn it_survives_and_a_second_daemon_does_without() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("attributes");
        let memory = Memory::open(&file);
        assert!(memory.is_empty());
        memory.set("a", &remembered(1));
        memory.set("b", &remembered(2));
        memory.remove("b");
        memory.flush();
        let second = Memory::open(&file);
        assert!(second.disk.is_none());
        second.set("a", &remembered(3));
        assert_eq!(second.get("a"), Some(remembered(3)));
        drop((memory, second));
        // The thread that writes holds the file for a moment more.
        let again = (0..100)
            .find_map(|_| {
                thread::sleep(Duration::from_millis(20));
                Some(Memory::open(&file)).filter(|memory| memory.disk.is_some())
            })
            .expect("the file is free again");
        assert_eq!((again.get("a"), again.get("b")), (Some(remembered(1)), None));
        assert!(!again.is_empty());
    }

    #[test]
    fn a_broken_file_is_moved_aside() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("attributes");
        fs::write(&file, b"this is no database, and it is long enough to look at".repeat(100))
            .expect("a file");
        let memory = Memory::open(&file);
        memory.set("a", &remembered(1));
        assert_eq!(memory.get("a"), Some(remembered(1)));
    }
}
