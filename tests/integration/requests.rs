//! How many requests things cost: one test for each row of the table in the README, from cold unless the row says
//! otherwise.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use crate::common::{Backend, Bucket, Counts, Mount, MountOptions, Random, body, sha256_hex};
use supafs_standin::{Action, Fault};

const MIB: u64 = 1 << 20;

/// Keeps what the mount knows for the whole test.
const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

/// What `work` costs.
fn cost(backend: &Backend, mount: &Mount, work: impl FnOnce()) -> Counts {
    let before = mount.counts(backend);
    work();
    mount.counts(backend) - before
}

fn put_many(bucket: &Bucket<'_>, folder: &str, count: usize) {
    bucket.put_keys((0..count).map(|i| format!("{folder}{i:05}.txt")));
}

/// A large object: computed on the stand-in, uploaded to a real server.
fn put_large(backend: &Backend, bucket: &Bucket<'_>, key: &str, size: u64) {
    if backend.is_real() {
        bucket.put(key, body(7, usize::try_from(size).expect("fits")));
    } else {
        backend.standin().put_synthetic(&bucket.name, key, size, 7);
    }
}

#[test]
fn listing_a_directory_costs_one_list_for_999_entries_and_no_head() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_many(&bucket, "large/", 2500);
    put_many(&bucket, "exact/", 999);
    put_many(&bucket, "small/", 20);
    for (folder, entries) in [("large", 2500_u64), ("exact", 999), ("small", 20)] {
        for line in ["ls -l", "find", "ls -lR --color=always", "ls"] {
            let mount = Mount::with(&backend, &bucket, LONG);
            let folder_known = cost(&backend, &mount, || drop(mount.names("")));
            assert_eq!((folder_known.list, folder_known.total()), (1, 1));
            let used = cost(&backend, &mount, || drop(mount.sh(&format!("{line} {folder} | wc -l"))));
            let pages = entries.div_ceil(999);
            assert!((pages..=2 * pages + 2).contains(&used.list), "{line} {folder}: {used:?}");
            assert_eq!(used.total(), used.list, "{line} {folder}: {used:?}");
        }
    }
}

#[test]
fn what_was_listed_costs_nothing_within_the_time_to_live() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_many(&bucket, "dir/", 50);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.sh("ls -lR");
    for drops in [false, true] {
        let used = cost(&backend, &mount, || {
            if drops {
                mount.drop_kernel_caches();
            }
            mount.sh("ls -l . dir; stat dir/* > /dev/null; find . -newer dir/00001.txt; du -a > /dev/null");
            for i in 0..50 {
                drop(File::open(mount.at(&format!("dir/{i:05}.txt"))).expect("open"));
            }
        });
        assert_eq!(used, Counts::NONE, "kernel caches dropped: {drops}");
    }
}

#[test]
fn a_name_that_a_listing_does_not_contain_costs_nothing() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_many(&bucket, "dir/", 20);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.sh("ls -lR");
    let used = cost(&backend, &mount, || {
        for name in [
            "nothing",
            "dir/nothing",
            "dir/.git",
            "dir/00001.txt.gz",
            "dir/.emptyFolderPlaceholder",
            "no/deeper",
        ] {
            assert!(!mount.at(name).exists(), "{name}");
        }
    });
    assert_eq!(used, Counts::NONE);
}

#[test]
fn a_path_in_a_directory_never_listed_costs_at_most_three_requests_a_level() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["a/b/c/file", "a/b/c/other", "a/b2/x", "z"]);
    for (path, levels, there) in
        [("z", 1, true), ("a/b/c/file", 4, true), ("a/b/c/missing", 4, false), ("nothing", 1, false)]
    {
        let mount = Mount::with(&backend, &bucket, LONG);
        let used = cost(&backend, &mount, || assert_eq!(fs::metadata(mount.at(path)).is_ok(), there));
        assert!(used.total() <= 3 * levels, "{path}: {used:?}");
        assert_eq!(used.get, 0, "{path}: {used:?}");
        let again = cost(&backend, &mount, || assert_eq!(fs::metadata(mount.at(path)).is_ok(), there));
        assert_eq!(again, Counts::NONE, "{path} again");
    }
}

#[test]
fn the_requests_of_a_lookup_are_sent_at_once() {
    let backend = standin_only!("it tells how many requests were in flight");
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let mount = Mount::with(&backend, &bucket, LONG);
    backend.standin().clear_log();
    backend.standin().set_latency(Duration::from_millis(300));
    fs::metadata(mount.at("file")).expect("stat");
    backend.standin().set_latency(Duration::ZERO);
    let sent = mount.counts(&backend).total();
    assert_eq!(backend.standin().peak_in_flight() as u64, sent, "one after the other");
}

#[test]
fn reading_a_listed_file_up_to_1_mib_costs_one_get_and_no_head() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let sizes = [1_usize, 4096, 131_072, 200_001, 1 << 20];
    for size in sizes {
        bucket.put(&format!("{size:07}"), body(size as u64, size));
    }
    bucket.put("empty", vec![]);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    for size in sizes {
        let name = format!("{size:07}");
        let used = cost(&backend, &mount, || {
            let sum = mount.sh(&format!("cat {name} | sha256sum | cut -c -64"));
            assert_eq!(sum.trim(), sha256_hex(&body(size as u64, size)));
        });
        assert_eq!(used, Counts { get: 1, bytes: size as u64, ..Counts::NONE }, "{size} bytes");
    }
    let used = cost(&backend, &mount, || assert_eq!(mount.read("empty"), b""));
    assert!(used.total() <= 1 && used.bytes == 0, "an empty file: {used:?}");
}

#[test]
fn reading_again_costs_no_get_while_the_version_is_the_same() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("small", body(1, 10_000));
    bucket.put("large", body(2, 20 * (1 << 20)));
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.sh("cat small large | sha256sum");
    for drops in [false, true] {
        let used = cost(&backend, &mount, || {
            if drops {
                mount.drop_kernel_caches();
            }
            let sum = mount.sh("cat small large | sha256sum | cut -c -64");
            let both = [body(1, 10_000), body(2, 20 * (1 << 20))].concat();
            assert_eq!(sum.trim(), sha256_hex(&both));
        });
        assert_eq!(used, Counts::NONE, "kernel caches dropped: {drops}");
    }
}

#[test]
fn a_sequential_read_fetches_every_byte_once_in_large_parts() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let size = if backend.is_real() { 32 * MIB } else { 256 * MIB };
    put_large(&backend, &bucket, "file", size);
    // dd as well: its reads are larger than a block; `cat` reads 128 KiB at a time.
    for (line, pass) in [("cat file > /dev/null", 0), ("dd if=file of=/dev/null bs=3M status=none", 1)] {
        let mount = Mount::with(&backend, &bucket, LONG);
        mount.names("");
        let used = cost(&backend, &mount, || drop(mount.sh(line)));
        assert_eq!(used.bytes, size, "pass {pass}: {used:?}");
        // Parts grow from 1 to 8 MiB.
        assert!(used.get <= size / (4 * MIB) + 8, "pass {pass}: {used:?}");
        assert_eq!((used.list, used.head), (0, 0), "pass {pass}: {used:?}");
    }
}

#[test]
fn parts_of_a_sequential_read_do_not_overlap() {
    let backend = standin_only!("it tells which ranges were asked for");
    let bucket = backend.bucket();
    put_large(&backend, &bucket, "file", 100 * MIB + 777);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    backend.standin().clear_log();
    mount.sh("sha256sum file");
    mount.counts(&backend);
    let mut ranges: Vec<(u64, u64)> = backend
        .standin()
        .log()
        .into_iter()
        .filter(|entry| entry.operation == "GetObject")
        .map(|entry| {
            let range = entry.range.expect("a range of a large file");
            let (first, last) =
                range.strip_prefix("bytes=").and_then(|r| r.split_once('-')).expect("one range");
            (first.parse().expect("first"), last.parse::<u64>().expect("last") + 1)
        })
        .collect();
    ranges.sort_unstable();
    assert_eq!(ranges.first().expect("a GET").0, 0);
    assert_eq!(ranges.last().expect("a GET").1, 100 * MIB + 777);
    assert!(ranges.windows(2).all(|pair| pair[0].1 == pair[1].0), "{ranges:?}");
}

#[test]
fn the_first_byte_comes_with_the_first_get() {
    let backend = standin_only!("it holds requests back");
    let bucket = backend.bucket();
    put_large(&backend, &bucket, "file", 64 * MIB);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    // Whatever else the daemon may ask for does not come.
    backend.fault(Fault::new(Action::Hang).on("GetObject").after(1));
    let mut start = [0; 4096];
    File::open(mount.at("file")).and_then(|mut file| file.read_exact(&mut start)).expect("the first bytes");
    assert_eq!(start[..], supafs_standin::synthetic_bytes(7, 0, 4096)[..]);
    backend.standin().clear_faults();
}

#[test]
fn a_random_read_of_4_kib_costs_at_most_one_get_of_16_kib() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let (size, reads) = if backend.is_real() { (64 * MIB, 50) } else { (1024 * MIB, 1000) };
    put_large(&backend, &bucket, "file", size);
    // A self-hosted server hashes all 64 MiB for each read.
    let mount =
        MountOptions::new(&backend, &bucket.name).args(LONG).watchdog(Duration::from_secs(170)).start();
    mount.names("");
    let file = File::open(mount.at("file")).expect("open");
    let mut random = Random(1);
    let used = cost(&backend, &mount, || {
        for _ in 0..reads {
            let offset = random.below(size / 4096) * 4096;
            let mut bytes = [0; 4096];
            file.read_exact_at(&mut bytes, offset).expect("4 KiB");
            assert!(bytes[..] == supafs_standin::synthetic_bytes(7, offset, 4096)[..], "at {offset}");
        }
    });
    assert!(used.get <= reads, "{used:?}");
    assert_eq!((used.list, used.head), (0, 0), "{used:?}");
    if backend.is_real() {
        assert!(used.bytes <= size + reads * MIB, "{used:?}");
        return;
    }
    // Few of them meet in a block, which is then fetched whole.
    assert!(used.bytes <= reads * 32 * 1024, "{used:?}");
    let log = backend.standin().log();
    let largest = log.iter().filter(|e| e.operation == "GetObject").map(|e| e.bytes_out).max();
    assert!(largest.expect("a GET") <= MIB, "{largest:?} bytes by one GET");
}

#[test]
fn random_reads_of_one_neighbourhood_are_merged() {
    let backend = standin_only!("it answers ranges at once");
    let bucket = backend.bucket();
    put_large(&backend, &bucket, "file", 256 * MIB);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    let file = File::open(mount.at("file")).expect("open");
    let read = |offset: u64| {
        let mut bytes = [0; 4096];
        file.read_exact_at(&mut bytes, offset).expect("4 KiB");
        assert!(bytes[..] == supafs_standin::synthetic_bytes(7, offset, 4096)[..], "at {offset}");
    };
    let used = cost(&backend, &mount, || {
        for (i, far) in [40, 80, 120, 160].into_iter().enumerate() {
            read(100 * MIB + 32 * 1024 * i as u64);
            read(far * MIB);
        }
    });
    // The second place of the neighbourhood brings all of it; the others lie alone.
    assert_eq!((used.get, used.bytes), (2 + 4, (5 * 16 + 128) * 1024), "{used:?}");
}

#[test]
fn random_reads_on_a_server_that_hashes_soon_bring_the_whole_file() {
    let backend = standin_only!("it hashes, or seems to, as fast as it is told");
    let bucket = backend.bucket();
    let size = 48 * MIB;
    put_large(&backend, &bucket, "file", size);
    put_large(&backend, &bucket, "small", 1000);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    mount.read("small");
    backend.standin().set_hash_rate(Some(100_000_000));
    let file = File::open(mount.at("file")).expect("open");
    let mut random = Random(1);
    let used = cost(&backend, &mount, || {
        for _ in 0..200 {
            let offset = random.below(size / 4096) * 4096;
            let mut bytes = [0; 4096];
            file.read_exact_at(&mut bytes, offset).expect("4 KiB");
            assert!(bytes[..] == supafs_standin::synthetic_bytes(7, offset, 4096)[..], "at {offset}");
        }
    });
    assert!(used.get <= 16 && used.bytes <= size + 16 * MIB, "{used:?}");
}

#[test]
fn a_long_read_does_not_drive_out_small_files() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let size = if backend.is_real() { 40 * MIB } else { 512 * MIB };
    put_large(&backend, &bucket, "z-large", size);
    for i in 0..20 {
        bucket.put(&format!("small/{i:02}"), body(i, 8192));
    }
    let mount = Mount::with(&backend, &bucket, &format!("{LONG} --cache-memory 64MiB"));
    mount.sh("cat small/* | wc -c; cat z-large > /dev/null");
    let used = cost(&backend, &mount, || {
        mount.drop_kernel_caches();
        mount.sh("cat small/* | wc -c");
    });
    assert_eq!(used, Counts::NONE);
}

#[test]
fn a_server_that_hashes_whole_objects_is_asked_for_few_long_ranges() {
    let backend = standin_only!("it hashes, or seems to, as fast as it is told");
    let bucket = backend.bucket();
    put_large(&backend, &bucket, "file", 256 * MIB);
    put_large(&backend, &bucket, "small", 1000);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    mount.read("small");
    backend.standin().set_hash_rate(Some(400_000_000));
    let used = cost(&backend, &mount, || drop(mount.sh("cat file > /dev/null")));
    assert!(used.get <= 6, "{used:?}");
    assert!(used.bytes <= 256 * MIB + 64 * MIB, "{used:?}");
}

#[test]
fn many_readers_of_one_file_share_its_gets() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_large(&backend, &bucket, "file", 16 * MIB);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    let used = cost(&backend, &mount, || {
        mount.sh("for i in 1 2 3 4 5 6; do cat file | sha256sum & done; wait");
    });
    // Where one long request serves a reader, those of others may be broken off in the middle of a block.
    let allowed = if backend.is_real() { 20 * MIB } else { 16 * MIB };
    assert!((16 * MIB..=allowed).contains(&used.bytes), "{used:?}");
}

#[test]
fn many_lookups_of_one_name_share_their_requests() {
    let backend = standin_only!("it holds requests back");
    let bucket = backend.bucket();
    bucket.put_keys(["dir/file"]);
    let mount = Mount::with(&backend, &bucket, LONG);
    backend.standin().set_latency(Duration::from_millis(200));
    let used = cost(&backend, &mount, || {
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| fs::metadata(mount.at("dir/file")).expect("stat"));
            }
        });
    });
    assert!(used.total() <= 6, "{used:?}");
}

#[test]
fn no_more_requests_are_in_flight_than_allowed() {
    let backend = standin_only!("it tells how many requests were in flight");
    let bucket = backend.bucket();
    for i in 0..32 {
        backend.standin().put_synthetic(&bucket.name, &format!("f{i}"), 4 * MIB, i);
    }
    let mount = Mount::with(&backend, &bucket, "--max-requests 5 --metadata-ttl 1h");
    mount.names("");
    backend.standin().clear_log();
    backend.standin().set_latency(Duration::from_millis(5));
    mount.sh("ls | xargs -P 32 -n 1 sha256sum > /dev/null");
    assert!(backend.standin().peak_in_flight() <= 5, "{}", backend.standin().peak_in_flight());
}

#[test]
fn a_status_file_is_written_on_sigusr1_and_at_the_end() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let mount = Mount::new(&backend, &bucket);
    mount.read("file");
    let status = mount.status();
    assert_eq!(status["requests"]["GetObject"], 1);
    assert_eq!(status["bytes_received"], 4);
    assert_eq!(status["pid"], mount.pid().as_raw());
    if let Some(logged) = backend.logged(&bucket.name) {
        assert_eq!(Counts::of_status(&status), logged, "the daemon and the server count the same");
    }
    let file = mount.place().path().join("status");
    fs::remove_file(&file).expect("there");
    let mut mount = mount;
    mount.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(mount.wait().success());
    assert!(file.exists());
}
