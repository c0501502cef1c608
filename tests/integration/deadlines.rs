//! An operation ends when nothing has come of it for `--op-timeout`: once, whatever it has to ask the server for.
#![expect(clippy::needless_pass_by_value, reason = "all preparations have one type, and most keep the path")]

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::IntoRawFd as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use supafs_standin::{Action, Fault};

use crate::common::{Backend, Login, Mount, MountOptions, body, errno, eventually};
use crate::spool::staged;

const TIMEOUT: Duration = Duration::from_secs(4);
const OPTIONS: &str = "--op-timeout 4s --part-size 5MiB --metadata-ttl 1h --negative-ttl 1h";

/// The time-out, and a half for what is taken back and for a machine that has other things to do.
const LIMIT: Duration = Duration::from_millis(6400);

type Call = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A call, and the request that hangs meanwhile; every one if it is empty.
struct Row {
    name: &'static str,
    hangs: &'static str,
    /// Makes the call, with the server still in order.
    prepare: fn(PathBuf) -> Call,
}

const fn row(name: &'static str, hangs: &'static str, prepare: fn(PathBuf) -> Call) -> Row {
    Row { name, hangs, prepare }
}

fn close(file: File) -> io::Result<()> {
    nix::unistd::close(file.into_raw_fd()).map_err(io::Error::from)
}

fn written(path: &Path, len: usize) -> File {
    let mut file = File::create(path).expect("created");
    file.write_all(&body(1, len)).expect("written");
    file
}

fn close_small(dir: PathBuf) -> Call {
    let file = written(&dir.join("x"), 9);
    Box::new(|| close(file))
}

fn fsync_small(dir: PathBuf) -> Call {
    let file = written(&dir.join("x"), 9);
    Box::new(move || file.sync_all().inspect_err(|_| std::mem::forget(file)))
}

fn close_large(dir: PathBuf) -> Call {
    let file = written(&dir.join("x"), 12 << 20);
    Box::new(|| close(file))
}

/// The server hangs before a part is on its way.
fn write_and_close_large(dir: PathBuf) -> Call {
    let mut file = File::create(dir.join("x")).expect("created");
    Box::new(move || {
        file.write_all(&body(1, 12 << 20))?;
        close(file)
    })
}

fn change_and_close(dir: PathBuf) -> Call {
    let file = File::options().write(true).open(dir.join("object")).expect("opened");
    thread::sleep(Duration::from_millis(1100));
    file.write_all_at(b"changed", 0).expect("written");
    Box::new(|| close(file))
}

fn stat(dir: PathBuf) -> Call {
    Box::new(move || fs::metadata(dir.join("object")).map(drop))
}

fn list(dir: PathBuf) -> Call {
    Box::new(move || fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>().map(drop))
}

fn read(dir: PathBuf) -> Call {
    assert_eq!(fs::metadata(dir.join("object")).expect("it is there").len(), 300_000);
    Box::new(move || fs::read(dir.join("object")).map(drop))
}

fn rename(dir: PathBuf) -> Call {
    fs::metadata(dir.join("object")).expect("it is there");
    Box::new(move || fs::rename(dir.join("object"), dir.join("y")))
}

fn replace(dir: PathBuf) -> Call {
    fs::metadata(dir.join("object")).expect("it is there");
    Box::new(move || fs::rename(dir.join("object"), dir.join("other")))
}

fn rename_folder(dir: PathBuf) -> Call {
    fs::create_dir(dir.join("folder")).expect("made");
    fs::write(dir.join("folder/x"), "x").expect("written");
    Box::new(move || fs::rename(dir.join("folder"), dir.join("y")))
}

fn unlink(dir: PathBuf) -> Call {
    fs::metadata(dir.join("object")).expect("it is there");
    Box::new(move || fs::remove_file(dir.join("object")))
}

fn mkdir(dir: PathBuf) -> Call {
    fs::metadata(dir.join("object")).expect("it is there");
    Box::new(move || fs::create_dir(dir.join("y")))
}

fn rmdir(dir: PathBuf) -> Call {
    fs::create_dir(dir.join("folder")).expect("made");
    Box::new(move || fs::remove_dir(dir.join("folder")))
}

fn chmod_folder(dir: PathBuf) -> Call {
    fs::create_dir(dir.join("folder")).expect("made");
    Box::new(move || fs::set_permissions(dir.join("folder"), fs::Permissions::from_mode(0o700)))
}

fn truncate(dir: PathBuf) -> Call {
    fs::metadata(dir.join("object")).expect("it is there");
    Box::new(move || nix::unistd::truncate(&dir.join("object"), 0).map_err(io::Error::from))
}

const ROWS: [Row; 28] = [
    row("close-put", "PutObject", close_small),
    row("fsync-put", "PutObject", fsync_small),
    row("mkdir-put", "PutObject", mkdir),
    row("truncate-put", "PutObject", truncate),
    row("close-head", "HeadObject", change_and_close),
    row("close-create", "CreateMultipartUpload", write_and_close_large),
    row("close-part", "UploadPart", write_and_close_large),
    row("close-complete", "CompleteMultipartUpload", close_large),
    row("rename-copy", "CopyObject", rename),
    row("rename-delete", "DeleteObject", rename),
    row("replace-copy", "CopyObject", replace),
    row("folder-copy", "CopyObject", rename_folder),
    row("folder-list", "ListObjectsV2", rename_folder),
    row("unlink-delete", "DeleteObject", unlink),
    row("stat-list", "ListObjectsV2", stat),
    row("ls-list", "ListObjectsV2", list),
    row("read-get", "GetObject", read),
    row("close", "", close_small),
    row("fsync", "", fsync_small),
    row("close-large", "", close_large),
    row("write-large", "", write_and_close_large),
    row("append", "", append_and_fsync),
    row("rename", "", rename),
    row("replace", "", replace),
    row("folder", "", rename_folder),
    row("unlink", "", unlink),
    row("rmdir", "", rmdir),
    row("mkdir", "", mkdir),
];

fn append_and_fsync(dir: PathBuf) -> Call {
    let mut file = File::options().append(true).open(dir.join("object")).expect("opened");
    file.write_all(b"more").expect("written");
    Box::new(move || {
        let result = file.sync_all();
        let begun = Instant::now();
        assert_eq!(errno(close(file)), Errno::ETIMEDOUT);
        assert!(begun.elapsed() < TIMEOUT / 2, "close waited again: {:?}", begun.elapsed());
        result
    })
}

/// Makes all calls at the same time.
fn every_call_ends(mount: &Mount, backend: &Backend, folder: &str, rows: &[Row]) {
    let calls = rows.iter().map(|row| {
        let dir = format!("{folder}{}", row.name);
        let call = (row.prepare)(mount.at(&dir));
        let fault = Fault::new(Action::Hang).key_prefix(&format!("{dir}/"));
        let fault = if row.hangs.is_empty() { fault } else { fault.on(row.hangs) };
        (row, call, fault)
    });
    let calls: Vec<_> = calls.collect();
    let mut late = Vec::new();
    thread::scope(|scope| {
        let running = calls.into_iter().map(|(row, call, fault)| {
            backend.fault(fault);
            let timed = scope.spawn(|| {
                let begun = Instant::now();
                (call(), begun.elapsed())
            });
            (row, timed)
        });
        for (row, timed) in running.collect::<Vec<_>>() {
            let (result, took) = timed.join().expect("no panic");
            let name = row.name;
            match result {
                Err(error) if error.raw_os_error() == Some(Errno::ETIMEDOUT as i32) => {}
                other => late.push(format!("{name}: {other:?} after {took:?}")),
            }
            if took > LIMIT || took < TIMEOUT / 2 {
                late.push(format!("{name}: after {took:?}"));
            }
        }
    });
    assert!(late.is_empty(), "{late:#?}");
    backend.standin().clear_faults();
}

fn seed(bucket: &crate::common::Bucket<'_>, folder: &str, rows: &[Row]) {
    for row in rows {
        bucket.put(&format!("{folder}{}/object", row.name), body(1, 300_000));
        bucket.put(&format!("{folder}{}/other", row.name), "other");
    }
}

#[test]
fn every_call_ends_by_its_deadline() {
    let backend = standin_only!("a server that hangs");
    let bucket = backend.bucket();
    seed(&bucket, "", &ROWS);
    let mount = Mount::with(&backend, &bucket, OPTIONS);
    mount.names("");
    every_call_ends(&mount, &backend, "", &ROWS);
    eventually("no upload left", || backend.standin().uploads(&bucket.name).is_empty().then_some(()));
    assert_eq!(mount.read("rename-copy/object").len(), 300_000, "it works again");
}

#[test]
fn every_call_of_a_user_ends_by_its_deadline() {
    let backend = standin_only!("a server that hangs");
    let (bucket, users) = backend.users();
    let folder = format!("{}/", users.alice);
    let rows = [
        row("replace-copy", "CopyObject", replace),
        row("replace", "", replace),
        row("chmod", "", chmod_folder),
        row("close", "", close_small),
        row("mkdir", "", mkdir),
    ];
    seed(&bucket, &folder, &rows);
    let mount = MountOptions::new(&backend, &bucket.name)
        .args(OPTIONS)
        .login(Login::User(users.alice.clone()))
        .start();
    every_call_ends(&mount, &backend, &folder, &rows);
    for row in ["replace-copy", "replace"] {
        assert!(bucket.bytes(&format!("{folder}{row}/object")).is_some(), "the source stays");
        assert_eq!(bucket.bytes(&format!("{folder}{row}/other")).expect("it stays"), b"other");
    }
}

#[test]
fn a_name_that_the_kernel_knew_is_not_waited_for_twice() {
    let backend = standin_only!("a server that hangs");
    let bucket = backend.bucket();
    let rows = [
        row("stat", "", stat),
        row("read", "", |dir| Box::new(move || fs::read(dir.join("object")).map(drop))),
        row("rename", "", |dir| Box::new(move || fs::rename(dir.join("object"), dir.join("y")))),
        row("unlink", "", |dir| Box::new(move || fs::remove_file(dir.join("object")))),
        row("truncate", "", truncate),
    ];
    seed(&bucket, "", &rows);
    let mount = Mount::with(&backend, &bucket, "--op-timeout 4s --metadata-ttl 1s --negative-ttl 1s");
    for row in &rows {
        mount.names(row.name);
    }
    thread::sleep(Duration::from_millis(1100));
    every_call_ends(&mount, &backend, "", &rows);
}

#[test]
fn a_close_after_a_failed_fsync_does_not_wait_again() {
    let backend = standin_only!("a server that hangs");
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, OPTIONS);
    mount.names("");
    let file = written(&mount.at("x"), 9);
    let hang = backend.fault(Fault::new(Action::Hang).on("PutObject"));
    assert_eq!(errno(file.sync_all()), Errno::ETIMEDOUT);
    let begun = Instant::now();
    assert_eq!(errno(close(file)), Errno::ETIMEDOUT);
    assert!(begun.elapsed() < TIMEOUT / 2, "it waited again: {:?}", begun.elapsed());
    // What is written since is tried again.
    let mut file = written(&mount.at("y"), 9);
    assert_eq!(errno(file.sync_all()), Errno::ETIMEDOUT);
    backend.standin().clear_fault(hang);
    file.write_all(b"more").expect("written");
    close(file).expect("the server is back");
    let file = written(&mount.at("z"), 9);
    let hang = backend.fault(Fault::new(Action::Hang).on("PutObject"));
    assert_eq!(errno(file.sync_all()), Errno::ETIMEDOUT);
    backend.standin().clear_fault(hang);
    file.sync_all().expect("a second fsync tries again");
    drop(file);
    assert_eq!(bucket.bytes("y").expect("uploaded").len(), 13);
    assert_eq!(bucket.bytes("z").expect("uploaded").len(), 9);
}

#[test]
fn an_upload_on_which_bytes_move_goes_on_behind_the_deadline() {
    let backend = standin_only!("a slow server");
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--op-timeout 4s --part-size 32MiB");
    mount.names("");
    // It takes longer than the time-out, and what the kernel holds of it does not.
    backend.fault(Fault::new(Action::SlowBody(6 << 20)).on("PutObject"));
    let begun = Instant::now();
    close(written(&mount.at("x"), 40 << 20)).expect("it goes on as long as bytes move");
    assert!(begun.elapsed() > Duration::from_secs(5));
    assert!(bucket.bytes("x").expect("uploaded") == body(1, 40 << 20));
    mount.stop();
}

#[test]
fn a_rename_of_a_folder_goes_on_as_long_as_objects_move() {
    let backend = standin_only!("a slow server");
    let bucket = backend.bucket();
    bucket.put_keys((0..300).map(|n| format!("from/{n}")));
    let mount = Mount::with(&backend, &bucket, "--op-timeout 2s");
    mount.names("from");
    backend.fault(Fault::new(Action::Latency(Duration::from_millis(400))).on("CopyObject"));
    let begun = Instant::now();
    fs::rename(mount.at("from"), mount.at("to")).expect("renamed");
    assert!(begun.elapsed() > Duration::from_secs(2));
    assert_eq!(mount.names("to").len(), 300);
    mount.stop();
}

#[test]
fn a_file_whose_close_ended_by_the_deadline_is_kept_and_not_uploaded_by_itself() {
    let backend = standin_only!("it goes silent");
    let bucket = backend.bucket();
    bucket.put("old", "old");
    let mount = Mount::with(&backend, &bucket, "--op-timeout 3s --metadata-ttl 1h --negative-ttl 1h");
    for name in ["old", "new"] {
        assert_eq!(mount.names("").iter().filter(|other| *other == name).count(), usize::from(name == "old"));
        let mut file = File::create(mount.at(name)).expect("opened");
        file.write_all(b"changed").expect("written");
        let hang = backend.fault(Fault::new(Action::Hang).bucket(&bucket.name));
        assert_eq!(nix::unistd::close(file), Err(Errno::ETIMEDOUT));
        let parked = || {
            let staged = staged(mount.place());
            let is_it =
                |file: &&serde_json::Value| file["key"].as_str().is_some_and(|key| key.ends_with(name));
            (staged.iter().find(is_it)?["state"] == "parked").then_some(())
        };
        eventually("it to be kept", parked);
        backend.standin().clear_fault(hang);
    }
    assert_eq!((bucket.bytes("old").as_deref(), bucket.bytes("new")), (Some(&b"old"[..]), None));
    drop(mount.leave());
}
