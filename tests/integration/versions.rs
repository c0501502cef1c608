//! Version safety: bytes of two versions never mix in one open file, a new open gives one version whole, and what is
//! unchanged stays cached.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{Backend, Mount, Put, Random, body, eventually, ino};
use nix::errno::Errno;
use supafs_standin::{Action, Fault};

const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

fn errno<T>(result: io::Result<T>) -> Result<T, Errno> {
    result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

/// The new version whole, if need be at the second open.
#[track_caller]
fn read_new(mount: &Mount, path: &str) -> Vec<u8> {
    match errno(fs::read(mount.at(path))) {
        Ok(bytes) => bytes,
        Err(Errno::ESTALE) => mount.read(path),
        Err(error) => panic!("{path}: {error}"),
    }
}

#[test]
fn an_object_replaced_between_listing_and_open_is_read_in_its_new_version() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let versions = [
        ("same", 5000, 5000),
        ("grown", 5000, 700_000),
        ("shrunk", 700_000, 5000),
        ("large", 3 * MIB, 4 * MIB),
        ("emptied", 5000, 0),
        ("filled", 0, 5000),
    ];
    for (name, before, _) in versions {
        bucket.put(name, body(1, before));
    }
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.sh("ls -l; stat *");
    for (name, _, after) in versions {
        bucket.put(name, body(2, after));
    }
    for (name, before, after) in versions {
        if before == 0 {
            // An empty file is read without a request: the new version shows when the listing has aged.
            continue;
        }
        assert!(read_new(&mount, name) == body(2, after), "{name}");
        assert_eq!(fs::metadata(mount.at(name)).expect("stat").len(), after as u64, "{name}");
    }
}

#[test]
fn an_object_replaced_under_an_open_reader_gives_old_bytes_or_estale() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    for size in [4 * MIB, 6 * MIB, 8 * MIB] {
        bucket.put("file", body(1, 6 * MIB));
        let mount = Mount::with(&backend, &bucket, "--metadata-ttl 100ms --cache-memory 16MiB");
        let file = File::open(mount.at("file")).expect("open");
        let mut start = vec![0; 4 * KIB];
        file.read_exact_at(&mut start, 0).expect("the first bytes");
        bucket.put("file", body(2, size));
        let mut stale = 0;
        for offset in (0..6 * MIB).step_by(64 * KIB).rev() {
            let mut bytes = vec![0; 64 * KIB];
            match errno(file.read_exact_at(&mut bytes, offset as u64)) {
                Ok(()) => assert!(
                    bytes[..] == supafs_standin::synthetic_bytes(1, offset as u64, 64 * KIB)[..],
                    "foreign bytes at {offset}"
                ),
                Err(Errno::ESTALE) => stale += 1,
                Err(error) => panic!("at {offset}: {error}"),
            }
        }
        assert!(stale > 0, "nobody has the old bytes any more");
        assert!(read_new(&mount, "file") == body(2, size), "a new open gives the new version");
        // The old handle does not come back to life in another version.
        let mut bytes = vec![0; 4 * KIB];
        if file.read_exact_at(&mut bytes, 5 * MIB as u64).is_ok() {
            assert!(bytes[..] == supafs_standin::synthetic_bytes(1, 5 * MIB as u64, 4 * KIB)[..]);
        }
    }
}

#[test]
fn an_open_file_keeps_its_size_and_number_while_its_path_shows_the_new_version() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("file", body(1, 10_000));
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 100ms");
    let mut file = File::open(mount.at("file")).expect("open");
    let mut all = Vec::new();
    file.read_to_end(&mut all).expect("read");
    let number = ino(&mount.at("file"));
    bucket.put("file", body(2, 20_000));
    eventually("the new size", || (fs::metadata(mount.at("file")).ok()?.len() == 20_000).then_some(()));
    assert_eq!(file.metadata().expect("fstat").len(), 10_000);
    assert_ne!(ino(&mount.at("file")), number, "the kernel's pages are per inode");
    assert!(mount.read("file") == body(2, 20_000));
    let mut again = vec![0; 10_000];
    match errno(file.read_exact_at(&mut again, 0)) {
        Ok(()) => assert!(again == all),
        Err(error) => assert_eq!(error, Errno::ESTALE),
    }
}

/// A body in which every 512 bytes tell its version and its length.
fn stamped(version: u64) -> Vec<u8> {
    let len = 256 * KIB + usize::try_from(version % 5).expect("small") * 96 * KIB;
    let mut stamp = [0; 16];
    stamp[..8].copy_from_slice(&version.to_le_bytes());
    stamp[8..].copy_from_slice(&(len as u64).to_le_bytes());
    stamp.repeat(len / 16)
}

/// The one version whose whole body this is.
fn version_of(bytes: &[u8]) -> u64 {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let (version, len) = (number(0), number(8));
    assert_eq!(bytes.len() as u64, len, "version {version} has another length");
    let foreign = bytes.chunks_exact(16).position(|stamp| stamp != &bytes[..16]);
    assert_eq!(foreign.map(|at| at * 16), None, "version {version} mixed with another");
    version
}

/// Reads a file to its end, from its start or in another order.
fn read_in_some_order(mount: &Mount, random: &mut Random) -> io::Result<Vec<u8>> {
    if random.below(2) == 0 {
        return fs::read(mount.at("file"));
    }
    let file = File::open(mount.at("file"))?;
    let mut first = [0; 16];
    file.read_exact_at(&mut first, 0)?;
    let len = usize::try_from(u64::from_le_bytes(first[8..].try_into().expect("8 bytes"))).expect("fits");
    let mut bytes = vec![0; len];
    let mut pieces: Vec<usize> = (0..len).step_by(32 * KIB).collect();
    for i in (1..pieces.len()).rev() {
        pieces.swap(i, usize::try_from(random.below(i as u64 + 1)).expect("fits"));
    }
    for at in pieces {
        let end = (at + 32 * KIB).min(len);
        file.read_exact_at(&mut bytes[at..end], at as u64)?;
    }
    assert_eq!(file.read_at(&mut [0; 16], len as u64)?, 0, "longer than its version");
    Ok(bytes)
}

#[test]
fn readers_among_writers_see_whole_versions_only() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("file", stamped(0));
    // One without time to live, where every open asks; one with, where versions are adopted.
    for ttl in ["--metadata-ttl 0s --negative-ttl 0s", "--metadata-ttl 50ms", "--metadata-ttl 1h"] {
        let mount = Mount::with(&backend, &bucket, ttl);
        let (reads, stale, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let done = AtomicBool::new(false);
        let opens = if backend.is_real() { 40 } else { 250 };
        std::thread::scope(|scope| {
            for writer in 0..2_u64 {
                let (bucket, done) = (&bucket, &done);
                scope.spawn(move || {
                    for version in 1.. {
                        if done.load(Ordering::Relaxed) {
                            return;
                        }
                        bucket.put("file", stamped(version * 2 + writer));
                        std::thread::sleep(Duration::from_millis(3));
                    }
                });
            }
            let readers: Vec<_> = (0..4)
                .map(|reader| {
                    let (mount, reads, stale, failed) = (&mount, &reads, &stale, &failed);
                    // A real server with the file backend answers 500 to a quarter of such reads, and now and then
                    // to one after the other until the retries are used up.
                    let may_fail = backend.is_real();
                    scope.spawn(move || {
                        let mut random = Random(reader);
                        for _ in 0..opens {
                            match errno(read_in_some_order(mount, &mut random)) {
                                Ok(bytes) => {
                                    version_of(&bytes);
                                    reads.fetch_add(1, Ordering::Relaxed);
                                }
                                Err(Errno::ESTALE) => drop(stale.fetch_add(1, Ordering::Relaxed)),
                                Err(Errno::EIO) if may_fail => drop(failed.fetch_add(1, Ordering::Relaxed)),
                                Err(error) => panic!("{error}"),
                            }
                        }
                    })
                })
                .collect();
            let results: Vec<_> = readers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            done.store(true, Ordering::Relaxed);
            for result in results {
                if let Err(panic) = result {
                    std::panic::resume_unwind(panic);
                }
            }
        });
        println!("{ttl}: {reads:?} whole reads, {stale:?} ended by ESTALE, {failed:?} by EIO");
        assert!(reads.load(Ordering::Relaxed) > 0, "no reader ever got through");
        let bytes = read_new(&mount, "file");
        assert!(stamped(version_of(&bytes)) == bytes);
        // At rest the last version, once the one before is no longer believed.
        if !ttl.ends_with("1h") {
            let last = bucket.bytes("file").expect("it is there");
            eventually("the last version", || (read_new(&mount, "file") == last).then_some(()));
        }
    }
}

#[test]
fn an_object_deleted_under_its_reader_gives_old_bytes_or_estale_and_then_is_gone() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("file", body(1, 4 * MIB));
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 100ms --negative-ttl 100ms");
    let file = File::open(mount.at("file")).expect("open");
    file.read_exact_at(&mut [0; 1000], 0).expect("the first bytes");
    bucket.delete("file");
    for offset in (0..4 * MIB).step_by(256 * KIB) {
        let mut bytes = vec![0; 1000];
        match errno(file.read_exact_at(&mut bytes, offset as u64)) {
            Ok(()) => assert!(bytes[..] == supafs_standin::synthetic_bytes(1, offset as u64, 1000)[..]),
            Err(error) => assert_eq!(error, Errno::ESTALE, "at {offset}"),
        }
    }
    eventually("its end", || {
        (errno(File::open(mount.at("file"))).err() == Some(Errno::ENOENT)).then_some(())
    });
    bucket.put("file", body(2, 1000));
    eventually("its return", || mount.at("file").exists().then_some(()));
    assert!(mount.read("file") == body(2, 1000));
}

#[test]
fn an_object_deleted_after_its_listing_is_enoent_when_it_is_read() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file", "other"]);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    bucket.delete("file");
    let error = errno(fs::read(mount.at("file"))).expect_err("gone");
    assert!(matches!(error, Errno::ENOENT | Errno::ESTALE), "{error}");
    // What was found out is not forgotten.
    eventually("its end", || (!mount.at("file").exists()).then_some(()));
    assert_eq!(mount.names(""), ["other"]);
}

#[test]
fn the_kernel_keeps_the_pages_of_an_unchanged_version() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("file", body(1, 2 * MIB));
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 200ms");
    assert!(mount.read("file") == body(1, 2 * MIB));
    let daemon_reads = |mount: &Mount| {
        let status = mount.status();
        status["read_hits"].as_u64().expect("a counter") + status["read_misses"].as_u64().expect("a counter")
    };
    let again = || {
        let before = daemon_reads(&mount);
        for pause in [0, 0, 300] {
            std::thread::sleep(Duration::from_millis(pause));
            let sent = mount.counts(&backend);
            assert!(mount.read("file") == body(1, 2 * MIB));
            assert_eq!((mount.counts(&backend) - sent).get, 0);
        }
        daemon_reads(&mount) == before
    };
    // Other tests may drop the kernel's pages, which are everybody's, at the same time.
    assert!((0..4).any(|_| again()), "reads reached the daemon");
}

#[test]
fn the_kernel_drops_the_pages_of_a_replaced_version() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = {
        bucket.put("file", body(1, MIB));
        Mount::with(&backend, &bucket, "--metadata-ttl 100ms")
    };
    for version in 2..6 {
        mount.read("file");
        // Of the same length: only the bytes tell.
        bucket.put("file", body(version, MIB));
        eventually("the new version", || (read_new(&mount, "file") == body(version, MIB)).then_some(()));
    }
}

#[test]
fn a_touched_object_keeps_its_bytes_and_shows_its_new_time() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("file", body(1, 100_000));
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 100ms");
    assert!(mount.read("file") == body(1, 100_000));
    let before = fs::metadata(mount.at("file")).expect("stat").modified().expect("a time");
    std::thread::sleep(Duration::from_millis(20));
    bucket.put("file", body(1, 100_000));
    eventually("the new time", || {
        (fs::metadata(mount.at("file")).ok()?.modified().ok()? > before).then_some(())
    });
    assert!(mount.read("file") == body(1, 100_000));
}

#[test]
fn a_part_of_another_version_is_not_mixed_in() {
    let backend = standin_only!("it answers with the ETag of another version");
    let bucket = backend.bucket();
    backend.standin().put_synthetic(&bucket.name, "file", 32 << 20, 3);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    let fault = backend.fault(Fault::new(Action::OtherEtag).on("GetObject").after(1));
    let mut file = File::open(mount.at("file")).expect("open");
    let mut bytes = Vec::new();
    let error = errno(file.read_to_end(&mut bytes)).expect_err("foreign parts");
    assert_eq!(error, Errno::ESTALE);
    assert!(backend.standin().fault_hits(fault) > 0);
    assert!(
        bytes[..] == supafs_standin::synthetic_bytes(3, 0, bytes.len())[..],
        "what was read is of one version"
    );
    drop(file);
    backend.standin().clear_faults();
    assert!(read_new(&mount, "file") == body(3, 32 << 20), "the next open succeeds");
}

#[test]
fn an_empty_version_and_a_filled_one_follow_each_other() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = {
        bucket.put_with("file", vec![], Put::default());
        Mount::with(&backend, &bucket, "--metadata-ttl 100ms")
    };
    assert_eq!(mount.read("file"), b"");
    bucket.put("file", "filled");
    eventually("the filled version", || (read_new(&mount, "file") == b"filled").then_some(()));
    bucket.put_with("file", vec![], Put::default());
    eventually("the empty version", || (read_new(&mount, "file") == b"").then_some(()));
}
