//! Large folders and walks: pages that are asked for at once, sub-folders that are read ahead, and what neither may do:
//! lose a name, show it twice, show another user's, or cost requests where nobody walks.

use std::fs;
use std::io;
use std::time::Duration;

use nix::errno::Errno;

use crate::common::{Backend, Bucket, Login, Mount, MountOptions, Random, eventually, sorted_lines, spent};
use supafs_standin::{Fault, LogEntry};

/// Keeps what the mount knows for the whole test.
const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

fn put_many(bucket: &Bucket<'_>, folder: &str, count: usize) {
    bucket.put_keys((0..count).map(|i| format!("{folder}file-{i:05}.txt")));
}

/// So many folders of so many files.
fn put_tree(bucket: &Bucket<'_>, root: &str, folders: usize, files: usize) -> Vec<String> {
    let keys = (0..folders).flat_map(|d| (0..files).map(move |f| format!("{root}dir-{d:03}/f{f:03}")));
    let mut keys: Vec<String> = keys.collect();
    keys.sort();
    bucket.put_keys(&keys);
    keys
}

/// Files below a folder, as paths from the root.
fn found(mount: &Mount, folder: &str) -> Vec<String> {
    sorted_lines(&mount.sh(&format!("find {folder} -type f")))
}

/// The listings that fold nothing: those of walks.
fn flat(backend: &Backend) -> Vec<LogEntry> {
    // What asks for one name asks for a few keys.
    let asks_for_many = |limit: Option<u16>| limit.is_none_or(|limit| limit > 100);
    let is_flat = |entry: &LogEntry| {
        let mut fields = entry.query.split('&');
        let limit =
            fields.find_map(|field| field.strip_prefix("max-keys=")).and_then(|limit| limit.parse().ok());
        entry.operation == "ListObjectsV2" && !entry.query.contains("delimiter=") && asks_for_many(limit)
    };
    backend.standin().log().into_iter().filter(is_flat).collect()
}

#[test]
fn pages_of_a_large_folder_are_asked_for_at_once() {
    let backend = standin_only!("it tells how many requests were in flight");
    let bucket = backend.bucket();
    put_many(&bucket, "d/", 10_000);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    backend.standin().clear_log();
    backend.standin().set_latency(Duration::from_millis(300));
    let used = spent(&backend, &mount, || assert_eq!(mount.names("d").len(), 10_000));
    backend.standin().set_latency(Duration::ZERO);
    let peak = backend.standin().peak_of("ListObjectsV2");
    assert!((4..=16).contains(&peak), "{peak} in flight");
    assert!((11..=22).contains(&used.get("ListObjectsV2")), "{used:?}");
    assert_eq!(used.total(), used.get("ListObjectsV2"), "{used:?}");
}

#[test]
fn a_folder_that_is_listed_again_is_cut_where_it_was() {
    let backend = standin_only!("it has many files soon");
    let bucket = backend.bucket();
    put_many(&bucket, "d/", 10_000);
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 10ms --negative-ttl 10ms");
    mount.names("d");
    bucket.put_keys(["d/file-00000.new", "d/file-05000.new", "d/z"]);
    bucket.delete("d/file-03000.txt");
    let used = spent(&backend, &mount, || {
        // One stream: `names` looks up what it lists.
        assert_eq!(mount.sh("ls -U d | wc -l").trim(), "10002");
    });
    assert!(used.get("ListObjectsV2") <= 16, "{used:?}");
}

#[test]
fn a_page_that_fails_fails_the_listing() {
    let backend = standin_only!("it refuses one request of many");
    let bucket = backend.bucket();
    put_many(&bucket, "d/", 5_000);
    for (after, status, code) in
        [(0, 403, "AccessDenied"), (2, 403, "AccessDenied"), (4, 404, "NoSuchBucket")]
    {
        let mount = Mount::with(&backend, &bucket, LONG);
        mount.names("");
        let fault = Fault::status(status, code).on("ListObjectsV2").key("d/").after(after).times(1);
        backend.fault(fault);
        let list = || fs::read_dir(mount.at("d"))?.collect::<io::Result<Vec<_>>>();
        let error = list().expect_err("one page was refused").raw_os_error();
        let expected = [Errno::EACCES as i32, Errno::EIO as i32];
        assert!(error.is_some_and(|error| expected.contains(&error)), "{error:?}");
        backend.standin().clear_faults();
        // What came is no listing: neither for a reader nor for a name.
        assert!(!mount.at("d/file-99999.txt").exists());
        assert_eq!(mount.names("d").len(), 5_000);
    }
}

#[test]
fn a_walk_is_answered_by_flat_pages() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let (folders, files) = if backend.is_real() { (30, 40) } else { (200, 50) };
    let keys = put_tree(&bucket, "tree/", folders, files);
    for line in ["find tree -type f", "ls -lR tree > /dev/null; find tree -type f"] {
        let mount = Mount::with(&backend, &bucket, LONG);
        mount.names("");
        let used = spent(&backend, &mount, || assert_eq!(sorted_lines(&mount.sh(line)), keys, "{line}"));
        let flat_pages = (folders * files).div_ceil(999) as u64;
        // The folder itself, the first sub-folders, and pages of which the last may be asked for in vain.
        assert!(used.total() <= 1 + 3 + 2 * flat_pages + 4, "{line}: {used:?}");
        let again = spent(&backend, &mount, || assert_eq!(found(&mount, "tree"), keys));
        assert_eq!(again.total(), 0, "{again:?}");
    }
}

#[test]
fn a_walk_in_depth_shows_every_folder() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mut keys: Vec<String> = vec![];
    for a in 0..5 {
        for b in 0..4 {
            keys.extend((0..3).map(|c| format!("t/{a}/{b}/{c}/x")));
            keys.push(format!("t/{a}/{b}/{b}-1"));
        }
        keys.extend([format!("t/{a}.txt"), format!("t/{a}-b/.emptyFolderPlaceholder"), format!("t/{a}/{a}")]);
    }
    bucket.put_keys(keys.iter().filter(|key| !key.ends_with("Placeholder")));
    for key in keys.iter().filter(|key| key.ends_with("Placeholder")) {
        bucket.put(key, vec![]);
    }
    let mount = Mount::with(&backend, &bucket, LONG);
    let mut wanted: Vec<String> = keys
        .iter()
        .filter(|key| !key.ends_with("Placeholder"))
        // Beside a folder of its name.
        .map(|key| match key.split('/').collect::<Vec<_>>()[..] {
            [_, a, b] if a == b && b.parse::<u8>().is_ok_and(|b| b < 4) => format!("{key}!00"),
            _ => key.clone(),
        })
        .collect();
    wanted.sort();
    assert_eq!(found(&mount, "t"), wanted);
    let folders = sorted_lines(&mount.sh("find t -type d"));
    assert_eq!(folders.len(), 1 + 5 * (1 + 1 + 4 + 12), "{folders:?}");
}

#[test]
fn folders_too_large_for_a_walk_are_listed_by_themselves() {
    let backend = standin_only!("it has many files soon");
    let bucket = backend.bucket();
    let keys = put_tree(&bucket, "t/", 8, 1200);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    let used = spent(&backend, &mount, || assert_eq!(found(&mount, "t"), keys));
    // Two pages each, and up to three in vain; one or two of a walk that is given up, now and then.
    assert!(used.total() <= 1 + 8 * 7, "{used:?}");
}

#[test]
fn one_lookup_tells_all_names_of_a_small_folder() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_many(&bucket, "d/", 50);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    let used = spent(&backend, &mount, || {
        for number in 0..50 {
            fs::metadata(mount.at(&format!("d/file-{number:05}.txt"))).expect("there");
            assert!(!mount.at(&format!("d/file-{number:05}.gone")).exists());
        }
        assert_eq!(mount.names("d").len(), 50);
    });
    assert_eq!((used.get("ListObjectsV2"), used.total()), (2, 2), "{used:?}");
}

#[test]
fn one_stat_in_a_large_folder_does_not_list_it() {
    let backend = standin_only!("it tells what was sent");
    let bucket = backend.bucket();
    put_many(&bucket, "d/", 5_000);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    backend.standin().clear_log();
    let used = spent(&backend, &mount, || {
        fs::metadata(mount.at("d/file-01234.txt")).expect("there");
        assert!(!mount.at("d/file").exists());
    });
    // Each name, whether the folder is a small one, and what 5,000 neighbours of the second hide.
    assert_eq!((used.get("ListObjectsV2"), used.total()), (2 + 3, 2 + 3), "{used:?}");
    let sent: u64 = backend.standin().log().iter().map(|entry| entry.bytes_out).sum();
    assert!(sent < 64 * 1024, "{sent} bytes for two names");
}

#[test]
fn lone_stats_begin_no_walk() {
    let backend = standin_only!("it tells what was asked for");
    let bucket = backend.bucket();
    put_tree(&bucket, "t/", 30, 10);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("t");
    backend.standin().clear_log();
    let used = spent(&backend, &mount, || {
        for folder in 0..30 {
            fs::metadata(mount.at(&format!("t/dir-{folder:03}/f005"))).expect("there");
        }
    });
    // The name, and whether its folder is a small one.
    assert_eq!(used.get("ListObjectsV2"), 2 * 30, "{used:?}");
    assert_eq!(flat(&backend).len(), 0);
    // Nor does listing them out of order, or one alone.
    for folder in [7, 3, 5, 1, 4] {
        mount.names(&format!("t/dir-{folder:03}"));
    }
    assert_eq!(flat(&backend).len(), 0);
}

#[test]
fn a_walk_that_nobody_follows_ends_soon() {
    let backend = standin_only!("it tells what was asked for");
    let bucket = backend.bucket();
    put_tree(&bucket, "t/", 400, 50);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("t");
    backend.standin().clear_log();
    for folder in 0..4 {
        mount.names(&format!("t/dir-{folder:03}"));
    }
    eventually("rest", || (mount.status()["requests_in_flight"] == 0).then_some(()));
    let pages = flat(&backend).len();
    assert!((1..=5).contains(&pages), "{pages} pages for four folders");
}

#[test]
fn what_changes_here_during_a_walk_is_shown() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mut keys = put_tree(&bucket, "t/", 40, 30);
    for args in ["", "--write-back --write-back-delay 1h"] {
        let mount = MountOptions::new(&backend, &bucket.name).args(LONG).args(args).start();
        mount.names("t");
        for folder in 0..4 {
            mount.names(&format!("t/dir-{folder:03}"));
        }
        // Read ahead by now, or about to be.
        fs::write(mount.at("t/dir-010/new"), b"new").expect("write");
        fs::remove_file(mount.at("t/dir-011/f000")).expect("unlink");
        fs::rename(mount.at("t/dir-012/f001"), mount.at("t/dir-030/moved")).expect("rename");
        fs::create_dir(mount.at("t/dir-013/made")).expect("mkdir");
        fs::write(mount.at("t/dir-013/made/file"), b"new").expect("write");
        let gone = ["t/dir-011/f000", "t/dir-012/f001"];
        keys.retain(|key| !gone.contains(&key.as_str()));
        keys.extend(["t/dir-010/new", "t/dir-030/moved", "t/dir-013/made/file"].map(ToOwned::to_owned));
        keys.sort();
        assert_eq!(found(&mount, "t"), keys, "{args:?}");
        fs::rename(mount.at("t/dir-020"), mount.at("t/dir-020-moved")).expect("rename a folder");
        let moved = |key: &String| key.replace("t/dir-020/", "t/dir-020-moved/");
        keys = keys.iter().map(moved).collect();
        keys.sort();
        assert_eq!(found(&mount, "t"), keys, "{args:?}");
        // The same again, from the other way.
        fs::rename(mount.at("t/dir-020-moved"), mount.at("t/dir-020")).expect("rename a folder");
        fs::rename(mount.at("t/dir-030/moved"), mount.at("t/dir-012/f001")).expect("rename");
        fs::write(mount.at("t/dir-011/f000"), b"again").expect("write");
        fs::remove_dir_all(mount.at("t/dir-013/made")).expect("rmdir");
        fs::remove_file(mount.at("t/dir-010/new")).expect("unlink");
        mount.stop();
        keys = bucket.keys().into_iter().filter(|key| !key.ends_with("Placeholder")).collect();
        assert_eq!(keys.len(), 40 * 30, "{args:?}");
    }
}

#[test]
fn a_walk_shows_each_user_their_own() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    for user in [&users.alice, &users.bob] {
        bucket.put_keys((0..12).flat_map(|d| (0..8).map(move |f| format!("{user}/{d:02}/{f}"))));
        bucket.put_keys((0..12).map(|d| format!("{}/{d:02}/{user}", users.shared)));
    }
    for user in [&users.alice, &users.bob] {
        let mount =
            MountOptions::new(&backend, &bucket.name).login(Login::User((*user).clone())).args(LONG).start();
        assert_eq!(found(&mount, user).len(), 12 * 8);
        let all = found(&mount, ".");
        let is_visible = |path: &&String| !path.starts_with("./shared/");
        let own: Vec<_> = all.iter().filter(is_visible).collect();
        assert_eq!(own.len(), 12 * 8, "{own:?}");
        assert!(own.iter().all(|path| path.starts_with(&format!("./{user}/"))), "{own:?}");
    }
}

#[test]
fn many_stats_in_a_large_folder_list_it() {
    let backend = standin_only!("it has many files soon");
    let bucket = backend.bucket();
    put_many(&bucket, "d/", 10_000);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    let mut random = Random(5);
    let used = spent(&backend, &mount, || {
        for _ in 0..200 {
            let number = random.below(10_000);
            fs::metadata(mount.at(&format!("d/file-{number:05}.txt"))).expect("there");
            assert!(!mount.at(&format!("d/file-{number:05}.gone")).exists());
        }
    });
    // A few by themselves, also while the listing is on its way.
    assert!(used.total() <= 100, "{used:?}");
}

#[test]
fn stats_in_a_folder_that_is_too_large_to_be_remembered_do_not_list_it() {
    let backend = standin_only!("it has many files soon");
    let bucket = backend.bucket();
    put_many(&bucket, "d/", 20_000);
    let mount = Mount::with(&backend, &bucket, &format!("{LONG} --metadata-entries 4000"));
    mount.names("");
    let used = spent(&backend, &mount, || {
        for number in 0..100 {
            fs::metadata(mount.at(&format!("d/file-{:05}.txt", number * 199))).expect("there");
        }
    });
    assert!(used.total() <= 3 * 100 + 16, "{used:?}");
    // A reader gets it all.
    assert_eq!(mount.sh("ls -U d | wc -l").trim(), "20000");
}
