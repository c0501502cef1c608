//! `supafs spool`: what is not in the bucket, and what is to become of it. Reads the spool alone: it needs no
//! credential, and works with and without a mount.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::args::{SpoolArgs, SpoolCommand};
use super::error::CliError;
use super::settings::Settings;
use super::{mount, units, warn};
use crate::name;
use crate::writeback::{Holder, RecordState, Staged, inventory};

/// Runs the command.
///
/// # Errors
/// A spool that cannot be read, ids that are not there, and what cannot be done with a file.
pub fn run(command: &SpoolCommand) -> Result<(), CliError> {
    match command {
        SpoolCommand::List { json, place } => {
            let (staged, unreadable) = contents(place)?;
            print(&staged, &unreadable, *json).map_err(|error| CliError::unprintable(&error))
        }
        SpoolCommand::Retry { ids, all, place } => {
            let (staged, _) = contents(place)?;
            let chosen = if *all {
                staged.iter().filter(|file| file.record.state == RecordState::Parked).collect()
            } else {
                chosen(&staged, ids)?
            };
            for_each(&chosen, retry)
        }
        SpoolCommand::Export { targets, place } => {
            let (dir, ids) =
                targets.split_last().ok_or_else(|| CliError::usage("give ids and a directory"))?;
            let (staged, _) = contents(place)?;
            let chosen = chosen(&staged, ids)?;
            let dir = Path::new(dir);
            fs::create_dir_all(dir)
                .map_err(|error| CliError::failed(format!("cannot make {}: {error}", dir.display())))?;
            for_each(&chosen, |file| export(file, dir))
        }
        SpoolCommand::Discard { ids, yes, place } => {
            let (staged, _) = contents(place)?;
            let chosen = chosen(&staged, ids)?;
            if !yes {
                confirm(&chosen)?;
            }
            for_each(&chosen, discard)
        }
    }
}

fn contents(place: &SpoolArgs) -> Result<(Vec<Staged>, Vec<PathBuf>), CliError> {
    let settings = Settings::load(vec![place.layer()], &place.files())?;
    let dir = mount::spool_dir(&settings)?;
    inventory(&dir).map_err(|error| {
        CliError::failed(format!("cannot read the spool in {}: {error}; give --spool-dir", dir.display()))
    })
}

fn chosen<'a>(staged: &'a [Staged], ids: &[String]) -> Result<Vec<&'a Staged>, CliError> {
    ids.iter()
        .map(|id| {
            staged.iter().find(|file| file.id == *id).ok_or_else(|| {
                CliError::failed(format!(
                    "there is no {id:?} in the spool; `supafs spool list` shows what is"
                ))
            })
        })
        .collect()
}

/// Does something with each file, also after one of them failed.
fn for_each(files: &[&Staged], act: impl Fn(&Staged) -> Result<(), String>) -> Result<(), CliError> {
    let failed: Vec<String> =
        files.iter().filter_map(|file| act(file).err().map(|why| format!("{}: {why}", file.id))).collect();
    if failed.is_empty() { Ok(()) } else { Err(CliError::failed(failed.join("\nsupafs: "))) }
}

fn retry(file: &Staged) -> Result<(), String> {
    if file.record.state != RecordState::Parked {
        // It is on its way as it is.
        return Ok(());
    }
    file.retry().map_err(|error| format!("cannot be queued: {error}"))?;
    if file.holder == Holder::Nobody {
        warn(&format!("{}: uploaded by the next mount of {}", file.id, place_of(file)));
    }
    Ok(())
}

fn discard(file: &Staged) -> Result<(), String> {
    if file.is_in_use() {
        return Err("a mount is at work on it; delete the file there, or unmount first".to_owned());
    }
    let has_upload = file.holder == Holder::Nobody && file.has_upload();
    file.discard().map_err(|error| format!("cannot be discarded: {error}"))?;
    if has_upload {
        warn(&format!(
            "{}: parts of it that are at the server already are removed by the next mount of {}",
            file.id, file.record.owner.bucket
        ));
    }
    Ok(())
}

fn export(file: &Staged, dir: &Path) -> Result<(), String> {
    let record = &file.record;
    if record.state == RecordState::Removed {
        return Err("it is the deletion of an object, there are no bytes in it".to_owned());
    }
    if file.is_in_use() && record.state == RecordState::Open {
        return Err("it is being written; close it first".to_owned());
    }
    let missing = record.missing().total();
    if missing > 0 {
        return Err(format!(
            "{missing} of its {} bytes are only in the object that it changes, {}; `supafs spool retry {}` uploads it",
            record.size,
            record.owner.whole_key(record.base.as_ref().map_or(&record.key, |base| &base.key)),
            file.id
        ));
    }
    let shown = name::from_component(record.key.rsplit('/').next().unwrap_or_default()).into_owned();
    let path = dir.join(Path::new(std::ffi::OsStr::new(&*String::from_utf8_lossy(&shown))));
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{} exists already; give another directory", path.display())
        }
        _ => format!("cannot write {}: {error}", path.display()),
    };
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(told)?;
    let copied = file.data().and_then(|mut data| {
        out.set_len(record.size)?;
        for &(start, end) in &record.local {
            data.seek(SeekFrom::Start(start))?;
            out.seek(SeekFrom::Start(start))?;
            let len = io::copy(&mut Read::take(&data, end - start), &mut out)?;
            if len < end - start {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        out.sync_all()
    });
    copied.map_err(|error| {
        // Half a file must not pass for the whole.
        drop(fs::remove_file(&path));
        told(error)
    })
}

fn confirm(files: &[&Staged]) -> Result<(), CliError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(CliError::usage("what is discarded is lost; say --yes"));
    }
    for file in files {
        eprintln!("{}  {}  {}", file.id, place_of(file), units::shown(file.record.size));
    }
    eprint!("Discard for good? [y/N] ");
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    let is_yes = read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes");
    if is_yes { Ok(()) } else { Err(CliError::failed("nothing was discarded")) }
}

/// Bucket and key.
fn place_of(file: &Staged) -> String {
    file.record.owner.whole_key(&file.record.key)
}

/// The same, as people know it: a placeholder stands for its folder.
fn shown(file: &Staged) -> String {
    let place = place_of(file);
    let place = place.strip_suffix(name::PLACEHOLDER).unwrap_or(&place);
    if file.record.settings_only {
        format!("{place} (only its mode, owner, times or attributes)")
    } else {
        place.to_owned()
    }
}

/// What is to be stored of a file, where that is not its settings alone. The record of one that is being written does not
/// know its size yet.
fn bytes(file: &Staged) -> Option<u64> {
    let written = || file.data().and_then(|data| data.metadata()).map_or(0, |data| data.len());
    let is_open = file.record.state == RecordState::Open;
    let size = if is_open { file.record.size.max(written()) } else { file.record.size };
    (!file.record.settings_only).then_some(size)
}

fn state(file: &Staged) -> &'static str {
    match file.record.state {
        RecordState::Open => "open",
        RecordState::Committed | RecordState::Removed if file.holder == Holder::Nobody => "waiting",
        RecordState::Committed => "uploading",
        RecordState::Removed => "deleting",
        _ => "parked",
    }
}

fn age(file: &Staged) -> Duration {
    let changed = Duration::from_millis(u64::try_from(file.record.changed_ms).unwrap_or(0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(now.saturating_sub(changed).as_secs())
}

fn print(staged: &[Staged], unreadable: &[PathBuf], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        let files: Vec<_> = staged
            .iter()
            .map(|file| {
                let record = &file.record;
                json!({
                    "id": file.id,
                    "state": state(file),
                    "key": place_of(file),
                    "size": bytes(file).unwrap_or(record.size),
                    "settings_only": record.settings_only,
                    "age_seconds": age(file).as_secs(),
                    "identity": record.owner.identity,
                    "endpoint": record.owner.endpoint,
                    "error": record.error,
                    "daemon": match file.holder { Holder::Daemon(pid) => Some(pid), Holder::Nobody => None },
                })
            })
            .collect();
        return writeln!(out, "{:#}", json!({ "files": files, "unreadable": unreadable }));
    }
    if staged.is_empty() && unreadable.is_empty() {
        return writeln!(out, "nothing waits");
    }
    if !staged.is_empty() {
        writeln!(out, "{:<20} {:<9} {:>9} {:>7}  FILE", "ID", "STATE", "SIZE", "AGE")?;
    }
    for file in staged {
        let age = humantime::format_duration(age(file)).to_string();
        let age = age.split(' ').next().unwrap_or_default().to_owned();
        let size = bytes(file).map_or_else(|| "-".to_owned(), units::shown);
        let (key, identity) = (shown(file), &file.record.owner.identity);
        write!(out, "{:<20} {:<9} {size:>9} {age:>7}  {key}, by {identity}", file.id, state(file))?;
        match &file.record.error {
            // One line a file, for grep and for the eye.
            Some(error) => writeln!(out, ": {}", error.replace('\n', " "))?,
            None => writeln!(out)?,
        }
    }
    if !staged.is_empty() {
        let total = staged.iter().filter_map(bytes).sum();
        let files = if staged.len() == 1 { "file" } else { "files" };
        writeln!(out, "{} {files}, {}", staged.len(), units::shown(total))?;
    }
    for path in unreadable {
        writeln!(out, "unreadable, kept in {}", path.display())?;
    }
    Ok(())
}
