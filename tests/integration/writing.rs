//! Writing one file, in every way in which a file can be written: what another client then reads is what was written.

#![allow(unsafe_code, reason = "mmap and copy_file_range are in no library that is here")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::common::{Backend, Mount, body, eventually, ops, spent};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::unistd::{Whence, lseek};

/// Keeps what the mount knows for the whole test.
const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

fn open_rw(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect("open")
}

#[track_caller]
fn assert_errno<T: std::fmt::Debug>(result: io::Result<T>, errno: Errno) {
    let error = result.expect_err("it must fail");
    assert_eq!(error.raw_os_error(), Some(errno as i32), "{error}");
}

#[test]
fn what_is_written_anywhere_in_a_file_is_what_others_read() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    let path = mount.at("file");
    let mut model: Vec<u8> = body(1, 100_000);
    fs::write(&path, &model).expect("created");
    assert_eq!(bucket.bytes("file").as_ref(), Some(&model));
    // In place, at the end, behind it, shorter, longer.
    for (at, len) in [(0, 10), (50_000, 4096), (99_999, 3), (250_000, 1000), (7, 0)] {
        let bytes = body(at as u64, len);
        let file = OpenOptions::new().write(true).open(&path).expect("open");
        file.write_all_at(&bytes, at as u64).expect("write");
        drop(file);
        if len > 0 {
            model.resize(model.len().max(at + len), 0);
            model[at..at + len].copy_from_slice(&bytes);
        }
        assert!(bucket.bytes("file").as_ref() == Some(&model), "{len} bytes at {at}");
        assert!(mount.read("file") == model, "{len} bytes at {at}, read here");
    }
    for size in [120_000_usize, 400_000, 0, 5000] {
        let file = open_rw(&path);
        file.set_len(size as u64).expect("truncate");
        model.resize(size, 0);
        let mut seen = Vec::new();
        (&file).read_to_end(&mut seen).expect("read");
        assert!(seen == model, "before close, {size}");
        drop(file);
        assert!(bucket.bytes("file").as_ref() == Some(&model), "cut to {size}");
    }
    // By its path, with no descriptor.
    mount.sh("truncate -s 3000 file");
    model.truncate(3000);
    assert!(bucket.bytes("file") == Some(model));
}

/// A mount that truncates what it has not cached may take the size of what it has of the file for that of the file.
#[test]
fn a_truncate_of_a_file_that_was_never_read_leaves_the_right_size() {
    let backend = Backend::start();
    for mode in ["", "--write-back"] {
        let bucket = backend.bucket();
        let whole = body(6, 3_000_000);
        let sizes = [0, 1, 4096, 1_234_567, 2_999_999, 3_000_000, 3_000_001, 5_000_000];
        for size in sizes {
            bucket.put(&format!("dir/path{size}"), whole.clone());
            bucket.put(&format!("dir/descriptor{size}"), whole.clone());
        }
        let mount = Mount::with(&backend, &bucket, mode);
        for size in sizes {
            let mut model = whole.clone();
            model.resize(size, 0);
            let (path, descriptor) = (format!("dir/path{size}"), format!("dir/descriptor{size}"));
            // No look at it before, and no listing of its folder.
            mount.sh(&format!("truncate -s {size} {path}"));
            let file = OpenOptions::new().write(true).open(mount.at(&descriptor)).expect("open");
            file.set_len(size as u64).expect("truncate");
            assert_eq!(file.metadata().expect("stat").len(), size as u64);
            drop(file);
            for key in [&path, &descriptor] {
                assert_eq!(fs::metadata(mount.at(key)).expect("stat").len(), size as u64, "{key} {mode}");
                assert!(mount.read(key) == model, "{key} {mode}");
            }
        }
        mount.stop();
        for size in sizes {
            let mut model = whole.clone();
            model.resize(size, 0);
            for name in ["path", "descriptor"] {
                assert!(
                    bucket.bytes(&format!("dir/{name}{size}")).as_ref() == Some(&model),
                    "{name}{size} {mode}"
                );
            }
        }
    }
}

#[test]
fn an_object_of_others_is_changed_in_place() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mut model = body(5, 3_000_000);
    bucket.put("dir/file", model.clone());
    let mount = Mount::new(&backend, &bucket);
    let file = open_rw(&mount.at("dir/file"));
    file.write_all_at(b"changed", 1_000_000).expect("write");
    model[1_000_000..1_000_007].copy_from_slice(b"changed");
    let mut middle = vec![0; 200_000];
    file.read_exact_at(&mut middle, 900_000).expect("read");
    assert!(middle == model[900_000..1_100_000], "what was written and what lies around it");
    drop(file);
    assert!(bucket.bytes("dir/file") == Some(model));
}

#[test]
fn open_flags_mean_what_they_say() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("old", "old content");
    let mount = Mount::new(&backend, &bucket);
    let path = mount.at("old");
    assert_errno(OpenOptions::new().write(true).create_new(true).open(&path), Errno::EEXIST);
    drop(OpenOptions::new().write(true).create_new(true).open(mount.at("new")).expect("O_EXCL"));
    assert_eq!(bucket.bytes("new").as_deref(), Some(&b""[..]), "a file that nothing was written to");
    // Two writers that append do not overwrite each other.
    let append = || OpenOptions::new().append(true).open(&path).expect("O_APPEND");
    let (mut one, mut other) = (append(), append());
    one.write_all(b" one").expect("write");
    other.write_all(b" two").expect("write");
    one.write_all(b" three").expect("write");
    drop((one, other));
    assert_eq!(bucket.bytes("old").as_deref(), Some(&b"old content one two three"[..]));
    drop(OpenOptions::new().write(true).truncate(true).open(&path).expect("O_TRUNC"));
    assert_eq!(bucket.bytes("old").as_deref(), Some(&b""[..]));
    drop(
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .expect("O_CREAT of what is there"),
    );
    // A stamp is new, also where it was empty before.
    mount.sh("touch -d 2001-02-03 old; : > old");
    let year = mount.sh("stat -c %y old");
    assert!(!year.starts_with("2001"), "{year}");
    assert_errno(File::open(&path).and_then(|file| file.write_at(b"x", 0)), Errno::EBADF);
}

#[test]
fn direct_io_writes_and_reads() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    let mut model = body(3, 1 << 20);
    fs::write(mount.place().path().join("in"), &model).expect("a local file");
    mount.sh("dd if=../in of=file bs=64K oflag=direct status=none");
    assert!(bucket.bytes("file").as_ref() == Some(&model));
    mount.sh("dd if=/dev/zero of=file bs=4K count=1 seek=3 conv=notrunc oflag=direct status=none");
    model[3 * 4096..4 * 4096].fill(0);
    assert!(bucket.bytes("file").as_ref() == Some(&model));
    mount.sh("dd if=file of=../out bs=128K iflag=direct status=none");
    assert!(fs::read(mount.place().path().join("out")).expect("read") == model);
    let both = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(mount.at("file"));
    drop(both.expect("O_DIRECT"));
}

/// Changes a file through a mapping, after its descriptor is closed if `closes`.
fn write_mapped(path: &Path, at: usize, bytes: &[u8], closes: bool) {
    let file = open_rw(path);
    let len = usize::try_from(file.metadata().expect("stat").len()).expect("a length");
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping of a file of this length.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, file.as_raw_fd(), 0) };
    assert_ne!(map, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    let file = Some(file).filter(|_| !closes);
    assert!(at + bytes.len() <= len);
    // SAFETY: within the mapping, and nobody else knows of it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.cast::<u8>().add(at), bytes.len()) };
    // SAFETY: the mapping made above, and nothing points into it any more.
    assert_eq!(unsafe { libc::munmap(map, len) }, 0);
    drop(file);
}

#[test]
fn what_is_written_through_a_shared_mapping_is_saved() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mut model = body(9, 300_000);
    bucket.put("file", model.clone());
    let mount = Mount::new(&backend, &bucket);
    write_mapped(&mount.at("file"), 100_000, b"mapped", false);
    model[100_000..100_006].copy_from_slice(b"mapped");
    assert!(bucket.bytes("file").as_ref() == Some(&model), "at close");
    assert!(mount.read("file") == model);
    // Pages that are dirty when the last descriptor is closed follow when the mapping ends.
    write_mapped(&mount.at("file"), 200_000, b"later", true);
    model[200_000..200_005].copy_from_slice(b"later");
    eventually("the pages in the bucket", || (bucket.bytes("file").as_ref() == Some(&model)).then_some(()));
    assert!(mount.read("file") == model);
}

#[test]
fn fallocate_grows_or_keeps_the_size_and_refuses_the_rest() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    fs::write(mount.at("file"), b"abc").expect("write");
    let file = open_rw(&mount.at("file"));
    fallocate(&file, FallocateFlags::empty(), 0, 10).expect("mode 0");
    assert_eq!(file.metadata().expect("stat").len(), 10);
    fallocate(&file, FallocateFlags::empty(), 0, 5).expect("within the file");
    fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 1000).expect("KEEP_SIZE");
    assert_eq!(file.metadata().expect("stat").len(), 10);
    for mode in [
        FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
        FallocateFlags::FALLOC_FL_ZERO_RANGE,
        FallocateFlags::FALLOC_FL_COLLAPSE_RANGE,
        FallocateFlags::FALLOC_FL_INSERT_RANGE,
    ] {
        assert_eq!(fallocate(&file, mode, 0, 4096), Err(Errno::EOPNOTSUPP), "{mode:?}");
    }
    drop(file);
    assert_eq!(bucket.bytes("file").as_deref(), Some(&b"abc\0\0\0\0\0\0\0"[..]));
}

#[test]
fn a_whole_file_is_copied_on_the_server() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let model = body(4, 2_000_000);
    bucket.put("source.json", model.clone());
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    let used = spent(&backend, &mount, || drop(mount.sh("cp --reflink=auto source.json copy.txt")));
    assert_eq!((used.get("CopyObject"), used.get("GetObject"), used.get("PutObject")), (1, 0, 0), "{used:?}");
    assert!(bucket.bytes("copy.txt").as_ref() == Some(&model));
    let headers = bucket.headers("copy.txt").expect("there");
    assert_eq!(headers.content_type.as_deref(), Some("text/plain"), "it follows from the new name");
    assert!(mount.read("copy.txt") == model);
    // The same of a file that was written here, and cp -a, which sets times as well.
    fs::write(mount.at("own"), &model).expect("write");
    let used = spent(&backend, &mount, || drop(mount.sh("cp -a own own2")));
    assert_eq!((used.get("CopyObject"), used.get("GetObject"), used.get("PutObject")), (1, 0, 0), "{used:?}");
    assert!(bucket.bytes("own2").as_ref() == Some(&model));
    assert_eq!(mount.sh("stat -c %y own"), mount.sh("stat -c %y own2"));
}

#[test]
fn a_part_of_a_file_is_copied_by_reading_and_writing() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let source = body(4, 500_000);
    bucket.put("source", source.clone());
    bucket.put("target", vec![7; 1000]);
    let mount = Mount::new(&backend, &bucket);
    let (from, to) = (File::open(mount.at("source")).expect("open"), open_rw(&mount.at("target")));
    let (mut off_in, mut off_out, mut left) = (100_000, 500, 250_000);
    while left > 0 {
        let (fd_in, fd_out) = (from.as_raw_fd(), to.as_raw_fd());
        // SAFETY: two open descriptors, and two places that hold their offsets.
        let done =
            unsafe { libc::copy_file_range(fd_in, &raw mut off_in, fd_out, &raw mut off_out, left, 0) };
        left -= usize::try_from(done).expect("copied");
        assert!(done > 0);
    }
    drop(to);
    let mut model = vec![7; 500];
    model.extend_from_slice(&source[100_000..350_000]);
    assert!(bucket.bytes("target") == Some(model));
}

#[test]
fn seeking_for_data_and_holes_finds_the_end() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("file", body(1, 10_000));
    let mount = Mount::new(&backend, &bucket);
    let file = open_rw(&mount.at("file"));
    for write in [false, true] {
        if write {
            file.write_all_at(b"x", 5).expect("write");
        }
        assert_eq!(lseek(&file, 100, Whence::SeekData), Ok(100));
        assert_eq!(lseek(&file, 100, Whence::SeekHole), Ok(10_000));
        assert_eq!(lseek(&file, 10_000, Whence::SeekData), Err(Errno::ENXIO));
    }
    (&file).seek(SeekFrom::Start(0)).expect("seek");
}

#[test]
fn locks_hold_between_the_processes_of_a_machine() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    fs::write(mount.at("file"), b"locked").expect("write");
    let held = Flock::lock(open_rw(&mount.at("file")), FlockArg::LockExclusive).expect("flock");
    let other = Flock::lock(open_rw(&mount.at("file")), FlockArg::LockExclusiveNonblock);
    assert!(other.is_err_and(|(_, errno)| errno == Errno::EWOULDBLOCK));
    mount.sh("! flock -n file true");
    drop(held);
    mount.sh("flock -n file true");
    let lock = "import fcntl,os,sys; f=open('file','r+'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)";
    mount.sh(&format!(
        "python3 -c \"{lock}; import subprocess; \
         sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]], stderr=subprocess.DEVNULL) == 0)\" \"{lock}\""
    ));
    mount.sh(&format!("python3 -c \"{lock}\""));
}

#[test]
fn a_removed_file_can_be_read_and_written_until_it_is_closed() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let model = body(8, 2_000_000);
    bucket.put("stay", "stay");
    for replaced in [false, true] {
        bucket.put("file", model.clone());
        let mount = Mount::new(&backend, &bucket);
        // Nothing of it is here yet.
        let file = open_rw(&mount.at("file"));
        if replaced {
            fs::write(mount.at("other"), b"other").expect("write");
            fs::rename(mount.at("other"), mount.at("file")).expect("rename over it");
        } else {
            fs::remove_file(mount.at("file")).expect("unlink");
            assert!(!mount.at("file").exists());
        }
        let now = replaced.then(|| b"other".to_vec());
        assert_eq!(bucket.bytes("file"), now);
        let mut seen = Vec::new();
        (&file).read_to_end(&mut seen).expect("read");
        assert!(seen == model, "replaced: {replaced}");
        file.write_all_at(b"still mine", 1000).expect("write");
        let mut again = [0; 10];
        file.read_exact_at(&mut again, 1000).expect("read");
        assert_eq!(&again, b"still mine");
        file.sync_all().expect("fsync");
        drop(file);
        // What has no name goes nowhere.
        ops(&backend, &mount);
        assert_eq!(bucket.bytes("file"), now, "replaced: {replaced}");
        mount.stop();
        assert_eq!(bucket.bytes("file"), now, "replaced: {replaced}");
    }
}

#[test]
fn what_does_not_fit_into_the_spool_is_lost_to_the_readers_of_a_removed_file_and_they_are_told() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("large", body(8, 20 << 20));
    let mount = Mount::with(&backend, &bucket, "--spool-size 8MiB");
    let file = File::open(mount.at("large")).expect("open");
    fs::remove_file(mount.at("large")).expect("unlink");
    assert_eq!(bucket.keys(), Vec::<String>::new());
    let mut last = [0; 4096];
    assert_errno(file.read_exact_at(&mut last, 19 << 20), Errno::ESTALE);
    assert!(mount.log().contains("does not fit into the spool"));
}

#[test]
fn a_new_file_that_is_removed_before_it_is_closed_never_gets_into_the_bucket() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    let used = spent(&backend, &mount, || {
        let file = File::create_new(mount.at("temporary")).expect("created");
        fs::remove_file(mount.at("temporary")).expect("unlink");
        file.write_all_at(b"only here", 0).expect("write");
        let mut seen = String::new();
        File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .and_then(|mut again| again.read_to_string(&mut seen))
            .expect("read");
        assert_eq!(seen, "only here");
        drop(file);
    });
    assert_eq!(used.total(), 0, "{used:?}");
    assert_eq!(bucket.keys(), Vec::<String>::new());
}
