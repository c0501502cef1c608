//! A write that fails leaves a file that is not whole: close and fsync say so, and the bucket keeps its version.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;

use crate::common::{Backend, Bucket, Mount, MountOptions, Place, body, eventually};
use crate::spool::staged;

const WRITE_BACK: &str = "--write-back --write-back-delay 20ms";

/// Waits until what a failed write left is parked, and looks at everybody's view of the file.
#[track_caller]
fn assert_kept(mount: &Mount, bucket: &Bucket<'_>, version: &[u8]) {
    let parked = eventually("the file to be parked", || {
        staged(mount.place()).into_iter().find(|file| file["state"] == "parked")
    });
    assert!(parked["error"].as_str().is_some_and(|error| error.contains("No space left")), "{parked}");
    assert!(bucket.bytes("file").as_deref() == Some(version), "the bucket lost its version");
    assert!(mount.read("file") == version, "an open after the failure shows what the bucket has");
}

#[test]
fn a_copy_that_fails_for_want_of_room_leaves_the_version_in_the_bucket() {
    let backend = Backend::start();
    let copies = [
        "cp big mnt/file",
        "dd if=big of=mnt/file bs=64k",
        "dd if=big of=mnt/file bs=64k conv=notrunc",
        "rsync --inplace --whole-file big mnt/file",
        "cat big > mnt/file",
    ];
    for options in ["", WRITE_BACK] {
        for copy in copies {
            let bucket = backend.bucket();
            let version = body(1, 300_000);
            bucket.put("file", version.clone());
            let mount = Mount::with(&backend, &bucket, &format!("--spool-size 1MiB {options}"));
            fs::write(mount.place().path().join("big"), body(2, 3 << 20)).expect("a source");
            let line = format!("! {copy} 2>err");
            crate::common::run(mount.place().path(), &line);
            assert_kept(&mount, &bucket, &version);
            mount.stop();
            assert!(bucket.bytes("file") == Some(version), "{copy} {options}");
        }
    }
}

/// Fills the spool of a file that is open, up to the error.
fn fill(file: &mut File) {
    let failed = (0..64).find_map(|number| file.write_all(&body(number, 64 << 10)).err());
    assert_eq!(failed.expect("the spool is full").raw_os_error(), Some(Errno::ENOSPC as i32));
}

#[test]
fn close_and_fsync_repeat_the_error_of_a_write_until_the_file_is_written_anew() {
    let backend = Backend::start();
    for options in ["", WRITE_BACK] {
        let bucket = backend.bucket();
        bucket.put("file", "version");
        let mount = Mount::with(&backend, &bucket, &format!("--spool-size 1MiB {options}"));
        let mut file = File::options().write(true).truncate(true).open(mount.at("file")).expect("opened");
        fill(&mut file);
        // A later write that finds room does not make it whole.
        file.write_all_at(b"start", 0).expect("there is room");
        for _ in 0..2 {
            let fsync = file.sync_all().expect_err("it is not whole");
            assert_eq!(fsync.raw_os_error(), Some(Errno::ENOSPC as i32));
        }
        let copy = file.try_clone().expect("a descriptor");
        assert_eq!(nix::unistd::close(copy), Err(Errno::ENOSPC));
        assert_eq!(bucket.bytes("file").expect("it is there"), b"version");
        file.set_len(0).expect("emptied");
        file.write_all_at(b"anew", 0).expect("written");
        file.sync_all().expect("it is whole");
        nix::unistd::close(file).expect("it is whole");
        eventually("the upload", || (bucket.bytes("file")? == b"anew").then_some(()));
        mount.stop();
    }
}

#[test]
fn a_failed_write_of_a_mapping_counts() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("file", "version");
    let mount = Mount::with(&backend, &bucket, "--spool-size 1MiB");
    mount.sh("python3 -c \"
import errno, mmap, os
f = os.open('file', os.O_RDWR)
os.ftruncate(f, 3 << 20)
m = mmap.mmap(f, 3 << 20)
m[:] = bytes([7]) * (3 << 20)
try:
    m.flush()
    raise SystemExit('msync succeeded')
except OSError as error:
    assert error.errno in (errno.ENOSPC, errno.EIO), error
try:
    os.fsync(f)
    raise SystemExit('fsync succeeded')
except OSError as error:
    assert error.errno == errno.ENOSPC, error
\"");
    assert_kept(&mount, &bucket, b"version");
    mount.stop();
}

#[test]
fn what_a_mapping_could_not_write_is_not_read_afterwards() {
    let backend = Backend::start();
    for options in ["", WRITE_BACK] {
        let bucket = backend.bucket();
        bucket.put("file", "version");
        let mount = Mount::with(&backend, &bucket, &format!("--metadata-ttl 1h --spool-size 1MiB {options}"));
        assert_eq!(mount.read("file"), b"version");
        let mut filler = File::create(mount.at("filler")).expect("opened");
        fill(&mut filler);
        mount.sh("python3 -c \"
import errno, mmap, os
f = os.open('file', os.O_RDWR)
m = mmap.mmap(f, 7)
m[:] = b'lost!!!'
try:
    m.flush()
    raise SystemExit('msync succeeded')
except OSError as error:
    assert error.errno in (errno.ENOSPC, errno.EIO), error
m.close()
try:
    os.close(f)
except OSError as error:
    assert error.errno == errno.ENOSPC, error
\"");
        assert_eq!(mount.read("file"), b"version");
        drop(filler);
        mount.stop();
        assert_eq!(bucket.bytes("file").as_deref(), Some(&b"version"[..]));
    }
}

#[test]
fn a_version_that_was_acknowledged_is_uploaded_though_the_next_one_is_torn() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let options = "--write-back --write-back-delay 1h --spool-size 1200KiB";
    let mount = Mount::with(&backend, &bucket, options);
    let acknowledged = body(1, 400_000);
    fs::write(mount.at("file"), &acknowledged).expect("acknowledged");
    let mut file = File::options().append(true).open(mount.at("file")).expect("opened");
    file.write_all(b"more").expect("there is room");
    fill(&mut file);
    assert_eq!(nix::unistd::close(file), Err(Errno::ENOSPC));
    let (place, code) = mount.leave();
    assert_eq!(code, Some(0));
    assert!(bucket.bytes("file") == Some(acknowledged));
    assert_eq!(staged(&place).len(), 1, "{:?}", staged(&place));
}

#[test]
fn a_daemon_killed_after_a_failed_write_does_not_upload_the_rest() {
    let backend = Backend::start();
    for options in ["", WRITE_BACK] {
        let bucket = backend.bucket();
        bucket.put("file", "version");
        let options = format!("--spool-size 1MiB {options}");
        let mount = Mount::with(&backend, &bucket, &options);
        let mut file = File::options().write(true).truncate(true).open(mount.at("file")).expect("opened");
        fill(&mut file);
        let place: Place = mount.kill();
        drop(file);
        let mount = MountOptions::new(&backend, &bucket.name).args(&options).place(place).start();
        assert_kept(&mount, &bucket, b"version");
        mount.stop();
    }
}

#[test]
fn an_upload_of_parts_is_given_up_when_a_write_fails() {
    let backend = standin_only!("uploads are counted");
    let bucket = backend.bucket();
    bucket.put("file", "version");
    let mount = Mount::with(&backend, &bucket, "--part-size 5MiB --spool-size 16MiB");
    let mut file = File::options().write(true).truncate(true).open(mount.at("file")).expect("opened");
    let mut full = (0..32).map(|number| file.write_all(&body(number, 1 << 20)));
    eventually("a part", || {
        let is_full = full.next().is_some_and(|written| written.is_err());
        (is_full || backend.standin().count("UploadPart") > 0).then_some(())
    });
    full.find_map(Result::err).expect("the spool is full");
    assert_eq!(nix::unistd::close(file), Err(Errno::ENOSPC));
    assert_kept(&mount, &bucket, b"version");
    eventually("no upload left", || backend.standin().uploads(&bucket.name).is_empty().then_some(()));
    assert_eq!(backend.standin().count("CompleteMultipartUpload"), 0);
    mount.stop();
}
