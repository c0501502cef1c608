//! Sparse files: a hole costs no disk and no memory here, is zeros in the bucket, and has a limit that is told before
//! anything is sent.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use supafs_standin::{Action, Fault};

use crate::common::{Backend, Bucket, Mount, MountOptions, Place, body, errno, eventually, ops, run, spent};
use crate::spool::staged;

const MIB: u64 = 1 << 20;

/// Requests that bring content to the server.
const SENDS: [&str; 4] = ["PutObject", "CreateMultipartUpload", "UploadPart", "UploadPartCopy"];

/// The room that the files in the spool of a mount take up on the disk.
fn spool_room(place: &Place) -> u64 {
    fn below(dir: &Path) -> u64 {
        let entries = fs::read_dir(dir).expect("a directory").flatten();
        let room = entries.map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => below(&entry.path()),
            Ok(metadata) if entry.path().extension().is_some_and(|end| end == "data") => {
                metadata.blocks() * 512
            }
            // Another file, or one that was removed in this moment.
            _ => 0,
        });
        room.sum()
    }
    below(&place.home())
}

/// Bytes that the daemon has read from files so far.
fn read_from_files(mount: &Mount) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/io", mount.pid())).expect("the daemon lives");
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("a line of the kernel's");
    line.parse().expect("a number")
}

/// A file of zeros with a few islands.
fn write_islands(path: &Path, size: u64) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(path).expect("created");
    file.set_len(size).expect("grown");
    for (at, len) in [(0, 4096), (size / 2 - 1000, 2000), (size - 70_000, 70_000)] {
        file.write_all_at(&body(at, len), at).expect("written");
    }
    file
}

/// Compares a file with what another mount, which has nothing in memory, reads from the bucket.
#[track_caller]
fn assert_stored(backend: &Backend, bucket: &Bucket<'_>, name: &str, like: &Path) {
    let other =
        MountOptions::new(backend, &bucket.name).args("--read-only").watchdog(Duration::from_mins(5)).start();
    run(other.place().path(), &format!("cmp '{}' 'mnt/{name}'", like.display()));
    other.stop();
}

#[test]
fn a_file_of_holes_takes_no_room_here_and_is_whole_in_the_bucket() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let size = if backend.is_real() { 160 * MIB } else { 512 * MIB };
    let mount = MountOptions::new(&backend, &bucket.name)
        .args("--cache-memory 64MiB --spool-size 8MiB --write-back --write-back-delay 1h")
        .watchdog(Duration::from_mins(5))
        .start();
    let like = mount.place().path().join("like");
    drop(write_islands(&like, size));
    let file = write_islands(&mount.at("holes"), size);
    nix::unistd::close(file).expect("it waits in the spool");
    assert!(spool_room(mount.place()) < 2 * MIB, "{}", spool_room(mount.place()));
    // A copy keeps its holes, too.
    run(mount.place().path(), "cp --sparse=always like mnt/copy");
    assert!(spool_room(mount.place()) < 4 * MIB, "{}", spool_room(mount.place()));
    fs::remove_file(mount.at("copy")).expect("not wanted");
    let before = read_from_files(&mount);
    File::options().write(true).open(mount.at("holes")).expect("open").sync_all().expect("uploaded");
    let read = read_from_files(&mount) - before;
    assert!(read < size / 8, "{} MiB were read for the upload", read / MIB);
    assert!(spool_room(mount.place()) < 2 * MIB, "{}", spool_room(mount.place()));
    let peak = mount.peak_resident();
    assert!(peak < 128 * MIB, "{} MiB", peak / MIB);
    assert_stored(&backend, &bucket, "holes", &like);
    mount.stop();
}

#[test]
fn larger_holes_than_allowed_are_efbig_before_anything_is_sent() {
    let backend = Backend::start();
    for options in ["", "--write-back --write-back-delay 20ms"] {
        let bucket = backend.bucket();
        bucket.put("file", "version");
        let mount = Mount::with(&backend, &bucket, &format!("--max-holes 64MiB {options}"));
        let before = ops(&backend, &mount);
        let file = File::options().write(true).truncate(true).open(mount.at("file")).expect("opened");
        file.write_all_at(&body(1, 1000), 65 * MIB).expect("into the spool");
        assert_eq!(errno(file.sync_all()), Errno::EFBIG);
        assert_eq!(nix::unistd::close(file), Err(Errno::EFBIG));
        assert_eq!(
            errno(File::create(mount.at("new")).and_then(|file| {
                file.set_len(65 * MIB)?;
                nix::unistd::close(file).map_err(Into::into)
            })),
            Errno::EFBIG
        );
        let parked = eventually("both to be parked", || {
            let parked = staged(mount.place());
            (parked.len() == 2 && parked.iter().all(|file| file["state"] == "parked")).then_some(parked)
        });
        for file in parked {
            assert!(file["error"].as_str().is_some_and(|error| error.contains("--max-holes")), "{file}");
        }
        let sent = ops(&backend, &mount) - before;
        assert!(SENDS.iter().all(|name| sent.get(name) == 0), "{sent:?}");
        let words = mount.sh("getfattr --only-values -n user.supabase.last-error .");
        assert!(words.contains("holes of 65.0 MiB") && words.contains("--max-holes"), "{words}");
        let log = mount.log();
        let line = log.lines().find(|line| line.contains("raise --max-holes")).expect("a line in the log");
        assert!(line.contains("file") && line.contains("65.0 MiB") && line.contains("64.0 MiB"), "{line}");
        assert_eq!(mount.read("file"), b"version");
        // As much as is allowed.
        let file = File::create(mount.at("most")).expect("created");
        file.set_len(64 * MIB).expect("grown");
        nix::unistd::close(file).expect("it is taken");
        mount.stop();
        assert_eq!(bucket.bytes("file").expect("it is there"), b"version");
        assert_eq!(bucket.bytes("most").expect("it is there").len() as u64, 64 * MIB);
    }
}

#[test]
fn a_hole_that_was_uploaded_is_not_fetched_and_grows_on_the_server() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--part-size 5MiB --spool-size 4MiB");
    let like = File::create_new(mount.place().path().join("like")).expect("created");
    let file = File::create(mount.at("file")).expect("created");
    for file in [&like, &file] {
        file.write_all_at(&body(1, 100_000), 0).expect("written");
        file.set_len(40 * MIB).expect("grown");
    }
    file.sync_all().expect("uploaded");
    // Within the hole.
    let within = spent(&backend, &mount, || {
        for file in [&like, &file] {
            file.write_all_at(&body(2, 5000), 20 * MIB + 77).expect("written");
        }
        file.sync_all().expect("uploaded");
    });
    assert_eq!(within.get("GetObject"), 0, "{within:?}");
    assert!(spool_room(mount.place()) < MIB, "{}", spool_room(mount.place()));
    // A hole behind it: its zeros are at the server already.
    let bytes = |mount: &Mount| mount.status()["bytes_sent"].as_u64().expect("a count");
    let before = bytes(&mount);
    let grown = spent(&backend, &mount, || {
        for file in [&like, &file] {
            file.set_len(80 * MIB).expect("grown");
        }
        file.sync_all().expect("uploaded");
    });
    assert_eq!((grown.get("UploadPart"), grown.get("GetObject")), (0, 0), "{grown:?}");
    assert!(grown.get("UploadPartCopy") > 1, "{grown:?}");
    assert_eq!(bytes(&mount) - before, 0);
    nix::unistd::close(file).expect("it is there");
    // Also without a file that is open.
    let before = bytes(&mount);
    run(mount.place().path(), "truncate -s 120M like mnt/file");
    assert_eq!(bytes(&mount) - before, 0);
    assert_stored(&backend, &bucket, "file", &mount.place().path().join("like"));
    mount.stop();
}

#[test]
fn holes_do_not_fill_the_spool_when_the_daemon_is_killed() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let start =
        |place| MountOptions::new(&backend, &bucket.name).args("--spool-size 2MiB").place(place).start();
    let mount = start(Place::new());
    let like = mount.place().path().join("like");
    drop(write_islands(&like, 48 * MIB));
    let file = write_islands(&mount.at("open"), 48 * MIB);
    let place = mount.kill();
    drop(file);
    let mount = start(place);
    let parked = staged(mount.place());
    assert_eq!(parked[0]["state"], "parked", "{parked:?}");
    fs::write(mount.at("other"), body(3, 500_000)).expect("the spool has room");
    let id = parked[0]["id"].as_str().expect("an id");
    let out = mount.place().path().join("out");
    mount.place().supafs(["spool", "export", id, out.to_str().expect("a path")], &[]).ok();
    run(mount.place().path(), "cmp like out/open");
    assert!(fs::metadata(out.join("open")).expect("exported").blocks() * 512 < 2 * MIB);
    mount.place().supafs(["spool", "retry", id], &[]).ok();
    eventually("the upload", || staged(mount.place()).is_empty().then_some(()));
    assert_stored(&backend, &bucket, "open", &like);
    mount.stop();
}

#[test]
fn what_no_object_can_hold_is_efbig_at_once() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    let mut file = File::create(mount.at("file")).expect("created");
    let (offset, len) = (0, 8 << 40);
    for mode in [FallocateFlags::empty(), FallocateFlags::FALLOC_FL_KEEP_SIZE] {
        assert_eq!(fallocate(file.as_fd(), mode, offset, len), Err(Errno::EFBIG), "{mode:?}");
    }
    assert_eq!(errno(file.set_len((5 << 40) + 1)), Errno::EFBIG);
    assert_eq!(file.metadata().expect("its size").len(), 0);
    // A refusal leaves the file as it was.
    file.write_all(b"small").expect("written");
    file.sync_all().expect("uploaded");
    assert_eq!(errno(file.write_all_at(b"x", 6 << 40)), Errno::EFBIG);
    assert_eq!(nix::unistd::close(file), Err(Errno::EFBIG));
    assert!(!mount.log().contains("disk fails"), "{}", mount.log());
    assert_eq!(bucket.bytes("file").expect("it is there"), b"small");
    mount.stop();
}

#[test]
fn a_size_that_the_spool_cannot_take_is_efbig_and_is_told_as_that() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = MountOptions::new(&backend, &bucket.name).file_size(16 * MIB).start();
    let file = File::create(mount.at("file")).expect("created");
    assert_eq!(errno(file.set_len(17 * MIB)), Errno::EFBIG);
    assert_eq!(errno(file.write_all_at(b"x", 17 * MIB)), Errno::EFBIG);
    let log = mount.log();
    assert!(log.contains("takes no file of this size") && !log.contains("disk fails"), "{log}");
    assert_eq!(nix::unistd::close(file), Err(Errno::EFBIG));
    fs::write(mount.at("other"), b"small").expect("the daemon lives");
    mount.stop();
}

#[test]
fn an_upload_that_takes_long_is_told_in_the_log() {
    let backend = standin_only!("a part is slow");
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--part-size 5MiB");
    backend.fault(Fault::new(Action::Latency(Duration::from_secs(11))).on("UploadPart").part(2).times(1));
    let file = File::create(mount.at("slow")).expect("created");
    file.write_all_at(&body(1, 1000), 20 * MIB).expect("written");
    nix::unistd::close(file).expect("uploaded");
    let log = mount.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("uploading slow: ")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains("MiB of 20.0 MiB"), "{}", told[0]);
    mount.stop();
}
