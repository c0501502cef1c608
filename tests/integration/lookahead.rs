//! Reading ahead from file to file: what it spares, what it may cost, and that it never shows an old version.

use std::fs;
use std::time::Duration;

use crate::common::{Backend, Bucket, Counts, Mount, Random, body};

const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";
const SIZE: usize = 8192;

fn name(i: u64) -> String {
    format!("dir/{i:04}")
}

fn put_many(bucket: &Bucket<'_>, count: u64) {
    for i in 0..count {
        bucket.put(&name(i), body(i, SIZE));
    }
}

/// What `work` costs.
fn cost(backend: &Backend, mount: &Mount, work: impl FnOnce()) -> Counts {
    let before = mount.counts(backend);
    work();
    mount.counts(backend) - before
}

#[track_caller]
fn check(mount: &Mount, i: u64) {
    assert!(mount.read(&name(i)) == body(i, SIZE), "{i}");
}

fn number(status: &serde_json::Value, field: &str) -> u64 {
    status[field].as_u64().unwrap_or_else(|| panic!("{field} in {status}"))
}

#[test]
fn a_pass_through_a_folder_has_the_next_files_sent_for() {
    let backend = standin_only!("it tells how many requests were in flight");
    let bucket = backend.bucket();
    put_many(&bucket, 120);
    for line in ["cat dir/*", "tar cf - dir", "grep -rc nothing dir || true"] {
        let mount = Mount::with(&backend, &bucket, LONG);
        mount.names("dir");
        backend.standin().set_latency(Duration::from_millis(100));
        backend.standin().clear_log();
        let used = cost(&backend, &mount, || drop(mount.sh(&format!("{line} | wc -c"))));
        let peak = backend.standin().peak_in_flight();
        backend.standin().set_latency(Duration::ZERO);
        assert_eq!((used.get, used.bytes), (120, 120 * SIZE as u64), "{line}: each once: {used:?}");
        assert!(peak >= 16, "{line}: {peak} at once");
        let status = mount.status();
        assert_eq!(number(&status, "lookahead_bytes_wasted"), 0, "{line}");
        assert!(number(&status, "lookahead_bytes_used") >= 116 * SIZE as u64, "{line}: {status}");
    }
}

#[test]
fn a_walk_through_many_folders_goes_on_in_the_next_one() {
    let backend = standin_only!("it holds requests back");
    let bucket = backend.bucket();
    for i in 0..60_u64 {
        bucket.put(&format!("tree/{:02}/{i:04}", i / 6), body(i, SIZE));
    }
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.sh("find tree | wc -l");
    backend.standin().set_latency(Duration::from_millis(20));
    let used = cost(&backend, &mount, || drop(mount.sh("tar cf - tree | wc -c")));
    backend.standin().set_latency(Duration::ZERO);
    assert_eq!((used.get, used.bytes), (60, 60 * SIZE as u64), "{used:?}");
    // Two files of the first folder and one of each other were waited for, at the most.
    let ahead = number(&mount.status(), "lookahead_bytes_used") / SIZE as u64;
    assert!(ahead >= 60 - 2 - 9, "{ahead}");
}

#[test]
fn lone_reads_send_for_nothing_else() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_many(&bucket, 60);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("dir");
    // One file, again and again; then some that are no neighbours, forwards and backwards.
    let reads = [7, 7, 7, 30, 12, 55, 20, 40, 3, 50, 45, 35, 25, 15];
    let used = cost(&backend, &mount, || {
        for i in reads {
            check(&mount, i);
            mount.drop_kernel_caches();
        }
    });
    assert_eq!((used.get, used.bytes), (12, 12 * SIZE as u64), "{used:?}");
    assert_eq!(number(&mount.status(), "lookahead_bytes"), 0);
}

#[test]
fn a_pass_that_stops_has_wasted_at_most_what_it_used() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_many(&bucket, 100);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("dir");
    let mut read = 0;
    let used = cost(&backend, &mount, || {
        // Passes that begin, and stop after two to five files.
        let mut random = Random(5);
        let mut at = 0;
        while at < 90 {
            let length = 2 + random.below(4);
            for i in at..at + length {
                check(&mount, i);
                read += SIZE as u64;
            }
            at += length + 10 + random.below(10);
        }
    });
    assert!(used.bytes <= 2 * read, "{used:?} for {read}");
    let status = mount.status();
    let (sent, used) = (number(&status, "lookahead_bytes"), number(&status, "lookahead_bytes_used"));
    assert!(sent > 0 && sent - used <= read, "{status}");
}

#[test]
fn a_pass_shows_the_versions_of_now_where_its_listing_has_aged() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    for (ttl, text) in [("1h", "--metadata-ttl 1h"), ("100ms", "--metadata-ttl 100ms")] {
        put_many(&bucket, 30);
        let mount = Mount::with(&backend, &bucket, text);
        mount.names("dir");
        for i in 10..30 {
            bucket.put(&name(i), body(1000 + i, SIZE));
        }
        bucket.delete(&name(20));
        std::thread::sleep(Duration::from_millis(150));
        for i in (0..30).filter(|i| *i != 20) {
            let expected = body(if i < 10 { i } else { 1000 + i }, SIZE);
            assert!(mount.read(&name(i)) == expected, "{ttl}: {i}");
        }
        assert!(fs::read(mount.at(&name(20))).is_err(), "{ttl}");
    }
}

#[test]
fn files_that_are_changed_here_are_not_sent_for() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_many(&bucket, 40);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("dir");
    for i in 5..35 {
        fs::write(mount.at(&name(i)), body(1000 + i, SIZE)).expect("write");
    }
    let before = mount.status();
    for i in 0..40 {
        let expected = body(if (5..35).contains(&i) { 1000 + i } else { i }, SIZE);
        assert!(mount.read(&name(i)) == expected, "{i}");
    }
    let status = mount.status();
    let gets = |status: &serde_json::Value| number(&status["requests"], "GetObject");
    assert!(gets(&status) - gets(&before) <= 40, "{status}");
    assert_eq!(number(&status, "lookahead_bytes_wasted"), 0, "{status}");
}
