//! Memory: resident size stays under the cache budget, 64 MiB, and 300 bytes for each inode, and at rest nothing is
//! held that nobody uses.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use crate::common::{Backend, Bucket, Mount, MountOptions, Random, body};

const MIB: u64 = 1 << 20;
const CACHE: u64 = 64 * MIB;
const OPTIONS: &str = "--cache-memory 64MiB --metadata-ttl 1h";

/// A large object: computed on the stand-in, uploaded to a real server.
fn put_large(backend: &Backend, bucket: &Bucket<'_>, key: &str, size: u64, seed: u64) {
    if backend.is_real() {
        bucket.put(key, body(seed, usize::try_from(size).expect("fits")));
    } else {
        backend.standin().put_synthetic(&bucket.name, key, size, seed);
    }
}

#[track_caller]
fn assert_within(mount: &Mount, inodes: u64, what: &str) {
    let (peak, allowed) = (mount.peak_resident(), CACHE + 64 * MIB + 300 * inodes);
    eprintln!("{what}: {} of {} MiB", peak / MIB, allowed / MIB);
    assert!(peak <= allowed, "{what}: {} MiB resident, {} allowed", peak / MIB, allowed / MIB);
}

/// Nothing is under way and nothing is open.
fn assert_at_rest(mount: &Mount) {
    crate::common::eventually("rest", || {
        let status = mount.status();
        (status["requests_in_flight"] == 0 && status["open_handles"] == 0).then_some(())
    });
}

/// Reads `size` bytes in order, then some at random, and lists `entries` names.
fn read_and_list(backend: &Backend, size: u64, entries: u64) {
    let bucket = backend.bucket();
    put_large(backend, &bucket, "file", size, 7);
    bucket.put_keys((0..entries).map(|i| format!("large/file-{i:06}.jpg")));
    let mount =
        MountOptions::new(backend, &bucket.name).args(OPTIONS).watchdog(Duration::from_mins(15)).start();
    mount.sh("cat file > /dev/null");
    assert_within(&mount, 2, "after reading in order");
    let file = File::open(mount.at("file")).expect("open");
    let mut random = Random(3);
    for _ in 0..(if backend.is_real() { 50 } else { 500 }) {
        let offset = random.below(size / 4096) * 4096;
        let mut bytes = [0; 4096];
        file.read_exact_at(&mut bytes, offset).expect("4 KiB");
        assert!(bytes[..] == supafs_standin::synthetic_bytes(7, offset, 4096)[..], "at {offset}");
    }
    drop(file);
    assert_within(&mount, 2, "after reading at random");
    for line in ["ls -U large | wc -l", "ls -l large | tail -n +2 | wc -l"] {
        assert_eq!(mount.sh(line).trim(), entries.to_string(), "{line}");
    }
    assert_within(&mount, entries + 2, "after listing");
    assert_at_rest(&mount);
    mount.stop();
}

#[test]
fn memory_is_bounded_while_reading_1_gib_and_listing_100_000_entries() {
    let backend = Backend::start();
    let (size, entries) = if backend.is_real() { (192 * MIB, 1500) } else { (1024 * MIB, 100_000) };
    read_and_list(&backend, size, entries);
}

#[test]
#[ignore = "reads 10 GiB, which takes a minute or two"]
fn memory_is_bounded_while_reading_10_gib_and_listing_100_000_entries() {
    let backend = standin_only!("it has no 10 GiB to upload");
    read_and_list(&backend, 10 * 1024 * MIB, 100_000);
}

#[test]
#[ignore = "makes 1,000,000 objects, which takes a minute or two"]
fn memory_is_bounded_while_walking_through_1_000_000_objects() {
    let backend = standin_only!("it has a million objects soon");
    for (folders, files) in [(1_u32, 100_000_u32), (100, 10_000), (20_000, 50)] {
        let bucket = backend.bucket();
        bucket.put_keys((0..folders).flat_map(|d| (0..files).map(move |f| format!("d{d:05}/file-{f:06}"))));
        let mount =
            MountOptions::new(&backend, &bucket.name).args(OPTIONS).watchdog(Duration::from_mins(15)).start();
        let before = mount.resident();
        let begun = std::time::Instant::now();
        assert_eq!(mount.sh("find . -type f | wc -l").trim(), (folders * files).to_string());
        let (took, inodes) = (begun.elapsed(), mount.status()["inodes"].as_u64().expect("a count"));
        let grown = mount.peak_resident() - before;
        eprintln!(
            "{folders} folders of {files}: {took:.1?}, {:.1} us and {} bytes an entry, {inodes} inodes at the end",
            took.as_secs_f64() * 1e6 / f64::from(folders * files),
            grown / u64::from(folders * files),
        );
        assert_within(&mount, inodes, "after a walk");
        assert_at_rest(&mount);
        mount.stop();
    }
}

#[test]
fn memory_is_bounded_while_32_files_are_read_at_once() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let size = if backend.is_real() { 6 * MIB } else { 64 * MIB };
    for i in 0..32 {
        put_large(&backend, &bucket, &format!("f{i:02}"), size, i);
    }
    let mount = Mount::with(&backend, &bucket, OPTIONS);
    mount.sh("ls | xargs -P 32 -n 1 cat > /dev/null");
    assert_within(&mount, 40, "32 readers");
    assert_at_rest(&mount);
}

#[test]
fn memory_is_bounded_while_200_handles_are_read_in_turn() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let (files, share) = if backend.is_real() { (2, 256 * 1024) } else { (20, 3 * MIB) };
    for i in 0..files {
        put_large(&backend, &bucket, &format!("f{i:02}"), 10 * share, i);
    }
    let mount =
        MountOptions::new(&backend, &bucket.name).args(OPTIONS).watchdog(Duration::from_mins(3)).start();
    let handles: Vec<(u64, u64, File)> = (0..files)
        .flat_map(|i| (0..10).map(move |part| (i, part)))
        .map(|(i, part)| (i, part * share, File::open(mount.at(&format!("f{i:02}"))).expect("open")))
        .collect();
    let mut bytes = vec![0; 128 * 1024];
    for step in 0..share / (128 * 1024) {
        for (seed, start, file) in &handles {
            let offset = start + step * 128 * 1024;
            file.read_exact_at(&mut bytes, offset).expect("128 KiB");
            assert!(bytes == supafs_standin::synthetic_bytes(*seed, offset, 128 * 1024), "at {offset}");
        }
    }
    assert_within(&mount, 220, "many handles");
    // What is fetched for one of them is not driven out by the others before it is read.
    let status = mount.status();
    let received = status["bytes_received"].as_u64().expect("a count");
    assert!(received <= files * 10 * share * 3 / 2, "{status}");
    drop(handles);
    assert_at_rest(&mount);
}

#[test]
fn readers_that_stop_half_way_leave_nothing_behind() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let size = if backend.is_real() { 6 * MIB } else { 256 * MIB };
    for i in 0..16 {
        put_large(&backend, &bucket, &format!("f{i:02}"), size, i);
    }
    let mount = Mount::with(&backend, &bucket, OPTIONS);
    for _ in 0..3 {
        mount.sh("for f in *; do head -c 3000000 $f > /dev/null; tail -c 1000 $f > /dev/null; done");
    }
    assert_within(&mount, 20, "readers that stop");
    assert_at_rest(&mount);
    let file = mount.place().path().join("status");
    mount.signal(nix::sys::signal::Signal::SIGTERM);
    let mut mount = mount;
    assert!(mount.wait().success());
    let text = std::fs::read_to_string(file).expect("written at the end");
    let last: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&last["requests_in_flight"], &last["open_handles"]), (&0.into(), &0.into()), "{last}");
}

#[test]
fn inodes_are_given_back_when_the_kernel_forgets_them() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let entries: u64 = if backend.is_real() { 300 } else { 5_000 };
    bucket.put_keys((0..entries).map(|i| format!("d/{i:05}")));
    let mount = Mount::with(&backend, &bucket, OPTIONS);
    let inodes = || mount.status()["inodes"].as_u64().expect("a count");
    // Whoever else drops the machine's caches takes these along.
    crate::common::eventually("the kernel to hold them", || {
        mount.sh("ls -l d > /dev/null");
        (inodes() > entries).then_some(())
    });
    crate::common::eventually("the inodes to be given back", || {
        mount.drop_kernel_caches();
        (inodes() < 10).then_some(())
    });
    assert_at_rest(&mount);
}
