//! `--write-back`: close returns before the upload, and what it acknowledged comes through.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use supafs_standin::{Action, Fault};

use crate::common::{Backend, Mount, MountOptions, Place, body, errno, eventually, spent};
use crate::spool::staged;

/// Nothing is uploaded by itself.
const LATER: &str = "--write-back --write-back-delay 1h";

#[test]
fn close_returns_before_the_upload_and_unmount_waits_for_it() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, LATER);
    fs::write(mount.at("a"), b"staged").expect("close does not wait");
    assert!(bucket.keys().is_empty());
    assert_eq!((mount.read("a"), mount.names("")), (b"staged".to_vec(), vec!["a".to_owned()]));
    assert_eq!(staged(mount.place())[0]["state"], "uploading");
    let (place, code) = mount.leave();
    assert_eq!((code, staged(&place).len()), (Some(0), 0));
    assert_eq!(bucket.bytes("a").expect("uploaded"), b"staged");
}

#[test]
fn several_saves_become_one_upload() {
    let backend = standin_only!("requests are counted");
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, LATER);
    for version in 0..10 {
        fs::write(mount.at("a"), format!("version {version}")).expect("saved");
    }
    mount.stop();
    assert_eq!(backend.standin().count("PutObject"), 1);
    assert_eq!(bucket.bytes("a").expect("uploaded"), b"version 9");
}

#[test]
fn fsync_waits_for_the_server_unless_told_to_be_local() {
    let backend = Backend::start();
    for (options, is_there) in [("", true), (" --fsync local", false)] {
        let bucket = backend.bucket();
        let mount = Mount::with(&backend, &bucket, &format!("{LATER}{options} --spool-sync"));
        let mut file = File::create(mount.at("a")).expect("created");
        file.write_all(b"synced").expect("written");
        file.sync_all().expect("synced");
        assert_eq!(bucket.bytes("a").is_some(), is_there, "{options:?}");
        drop(file);
        mount.stop();
        assert_eq!(bucket.bytes("a").expect("uploaded"), b"synced");
    }
}

#[test]
fn what_is_not_uploaded_in_time_stays_and_the_next_mount_goes_on() {
    let backend = standin_only!("an upload hangs");
    let bucket = backend.bucket();
    let hang = backend.fault(Fault::new(Action::Hang).on("PutObject"));
    let mount = Mount::with(&backend, &bucket, &format!("{LATER} --drain-timeout 1s"));
    fs::write(mount.at("a"), b"one").expect("staged");
    fs::write(mount.at("b"), b"two").expect("staged");
    let (place, code) = mount.leave();
    assert_eq!(code, Some(75));
    assert_eq!(staged(&place).len(), 2);
    let next = MountOptions::new(&backend, &bucket.name).args("--drain-timeout 1s").place(place).start();
    assert_eq!((next.read("a"), next.names("").len()), (b"one".to_vec(), 2), "shown at once");
    backend.standin().clear_fault(hang);
    eventually("the uploads", || (bucket.keys().len() == 2).then_some(()));
    let (place, code) = next.leave();
    assert_eq!((code, staged(&place).len()), (Some(0), 0));
    assert_eq!(bucket.bytes("b").expect("uploaded"), b"two");
}

#[test]
fn a_closed_file_that_is_written_again_survives_a_crash_whole() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, LATER);
    let first = body(1, 300_000);
    fs::write(mount.at("a"), &first).expect("acknowledged");
    let again = File::options().write(true).open(mount.at("a")).expect("opened again");
    again.write_all_at(&body(2, 100_000), 0).expect("half written");
    let place = mount.kill();
    drop(again);
    let mount = MountOptions::new(&backend, &bucket.name).args("--write-back").place(place).start();
    assert_eq!(mount.read("a"), first);
    eventually("the upload", || bucket.bytes("a"));
    assert_eq!(bucket.bytes("a").expect("uploaded"), first);
    // What was being written is not lost either.
    let parked: Vec<_> = staged(mount.place()).into_iter().filter(|file| file["state"] == "parked").collect();
    assert_eq!(parked.len(), 1, "{parked:?}");
    let to = mount.place().path().join("out");
    let id = parked[0]["id"].as_str().expect("an id");
    mount.place().supafs(["spool", "export", id, to.to_str().expect("a path")], &[]).ok();
    let mut mixed = first;
    mixed[..100_000].copy_from_slice(&body(2, 100_000));
    assert_eq!(fs::read(to.join("a")).expect("exported"), mixed);
}

#[test]
fn an_open_file_of_a_crashed_daemon_is_parked_with_its_bytes() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    let bytes = body(3, 50_000);
    let mut file = File::create(mount.at("open")).expect("created");
    file.write_all(&bytes).expect("written");
    let place = mount.kill();
    drop(file);
    let mount = MountOptions::new(&backend, &bucket.name).place(place).start();
    assert!(mount.names("").is_empty());
    let files = staged(mount.place());
    assert_eq!((files.len(), &files[0]["state"]), (1, &"parked".into()));
    let to = mount.place().path().join("out");
    let id = files[0]["id"].as_str().expect("an id");
    mount.place().supafs(["spool", "export", id, to.to_str().expect("a path")], &[]).ok();
    assert_eq!(fs::read(to.join("open")).expect("exported"), bytes);
    assert!(bucket.keys().is_empty());
}

#[test]
fn names_that_changed_before_a_crash_stay_changed() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("replaced", "old");
    bucket.put("removed", "old");
    let mount = Mount::with(&backend, &bucket, LATER);
    fs::write(mount.at("temporary"), b"new").expect("staged");
    fs::rename(mount.at("temporary"), mount.at("replaced")).expect("renamed");
    fs::write(mount.at("forgotten"), b"x").expect("staged");
    fs::remove_file(mount.at("forgotten")).expect("removed");
    fs::remove_file(mount.at("removed")).expect("queued");
    fs::write(mount.at("removed"), b"made again").expect("staged");
    let place = mount.kill();
    let mount = MountOptions::new(&backend, &bucket.name).args(LATER).place(place).start();
    assert_eq!(mount.names(""), ["removed", "replaced"]);
    assert_eq!((mount.read("replaced"), mount.read("removed")), (b"new".to_vec(), b"made again".to_vec()));
    mount.stop();
    assert_eq!(bucket.keys(), ["removed", "replaced"]);
    assert_eq!(bucket.bytes("replaced").expect("no conflict"), b"new");
    assert_eq!(bucket.bytes("removed").expect("no conflict"), b"made again");
}

#[test]
fn what_a_staged_file_was_moved_over_goes_with_it() {
    let backend = Backend::start();
    let staged_over = |mount: &Mount, text: &str| {
        fs::write(mount.at("new"), text).expect("staged");
        fs::rename(mount.at("new"), mount.at("old")).expect("renamed");
    };
    let after = |change: &dyn Fn(&Mount), dies: bool| {
        let bucket = backend.bucket();
        bucket.put("old", "uploaded");
        let mut mount = Mount::with(&backend, &bucket, LATER);
        staged_over(&mount, "staged");
        change(&mount);
        if dies {
            mount = MountOptions::new(&backend, &bucket.name).args(LATER).place(mount.kill()).start();
        }
        mount.stop();
        bucket.keys().into_iter().map(|key| (bucket.bytes(&key), key)).collect::<Vec<_>>()
    };
    for dies in [false, true] {
        let removed = after(&|mount| fs::remove_file(mount.at("old")).expect("queued"), dies);
        assert_eq!(removed, [], "{dies}");
        let moved = after(&|mount| fs::rename(mount.at("old"), mount.at("other")).expect("renamed"), dies);
        assert_eq!(moved, [(Some(b"staged".to_vec()), "other".to_owned())], "{dies}");
        let again = after(&|mount| staged_over(mount, "again"), dies);
        assert_eq!(again, [(Some(b"again".to_vec()), "old".to_owned())], "{dies}");
    }
}

#[test]
fn a_file_is_whole_at_every_moment_of_its_upload() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    // Every stat and read asks anew, and every close may be the last use of the draft.
    let options = "--write-back --write-back-delay 5ms --metadata-ttl 0s --negative-ttl 0s";
    let mount = Mount::with(&backend, &bucket, options);
    for number in 0..50u64 {
        let (path, bytes) = (mount.at(&format!("{number}")), body(number, 3000));
        fs::write(&path, &bytes).expect("staged");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        let until = Instant::now() + Duration::from_millis(40);
        while Instant::now() < until {
            let stat = fs::metadata(&path).expect("stat");
            assert_eq!((stat.len(), stat.mode() & 0o777), (3000, 0o640), "{number}");
            assert!(fs::read(&path).expect("readable") == bytes, "bytes of {number}");
        }
    }
    mount.stop();
    assert_eq!(bucket.keys().len(), 50);
}

#[test]
fn a_file_that_is_renamed_while_it_is_uploaded_keeps_its_mode_and_time() {
    let backend = standin_only!("a slow upload");
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--write-back --write-back-delay 200ms");
    let slow = backend.fault(Fault::new(Action::Latency(Duration::from_secs(1))).on("PutObject"));
    fs::write(mount.at("a"), b"staged").expect("staged");
    fs::set_permissions(mount.at("a"), fs::Permissions::from_mode(0o640)).expect("chmod");
    let what = |mount: &Mount, name: &str| {
        let stat = fs::metadata(mount.at(name)).expect("stat");
        (stat.mode() & 0o777, stat.mtime(), stat.mtime_nsec(), stat.len())
    };
    let before = what(&mount, "a");
    eventually("the upload", || (backend.standin().fault_hits(slow) == 1).then_some(()));
    fs::rename(mount.at("a"), mount.at("b")).expect("renamed");
    assert_eq!(what(&mount, "b"), before);
    let (place, _) = mount.leave();
    let mount = MountOptions::new(&backend, &bucket.name).place(place).start();
    assert_eq!(what(&mount, "b"), before, "before anything is read");
    assert_eq!(mount.read("b"), b"staged");
}

/// Puts a file there, and removes it while its next version goes up; the removal is still to be sent.
fn remove_during_an_upload(mount: &Mount, backend: &Backend, again: bool) {
    fs::write(mount.at("a"), b"first").expect("staged");
    eventually("the first upload", || (backend.standin().count("PutObject") == 1).then_some(()));
    assert_eq!(mount.names(""), ["a"]);
    let slow = backend.fault(Fault::new(Action::Latency(Duration::from_secs(1))).on("PutObject"));
    fs::write(mount.at("a"), b"the second").expect("staged");
    eventually("the second upload", || (backend.standin().fault_hits(slow) == 1).then_some(()));
    backend.fault(Fault::status(503, "SlowDown").on("DeleteObject"));
    fs::remove_file(mount.at("a")).expect("queued");
    if again {
        fs::write(mount.at("a"), b"made again").expect("staged");
    }
}

#[test]
fn a_removal_during_an_upload_survives_a_crash() {
    for (again, left) in [(false, None), (true, Some(b"made again".to_vec()))] {
        let backend = standin_only!("a server in trouble");
        let bucket = backend.bucket();
        let options =
            || MountOptions::new(&backend, &bucket.name).args("--write-back --write-back-delay 10ms");
        let mount = options().start();
        remove_during_an_upload(&mount, &backend, again);
        let place = mount.kill();
        backend.standin().clear_faults();
        let (place, code) = options().place(place).start().leave();
        assert_eq!((code, staged(&place).len()), (Some(0), 0));
        assert_eq!(bucket.bytes("a"), left);
        assert_eq!(bucket.keys().len(), usize::from(again), "{:?}", bucket.keys());
    }
}

#[test]
fn new_folders_come_through_a_crash_and_follow_a_rename() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, LATER);
    fs::create_dir_all(mount.at("a/b")).expect("made");
    fs::set_permissions(mount.at("a/b"), fs::Permissions::from_mode(0o700)).expect("chmod");
    fs::create_dir(mount.at("gone")).expect("made");
    fs::remove_dir(mount.at("gone")).expect("removed");
    fs::create_dir_all(mount.at("old/sub")).expect("made");
    fs::write(mount.at("old/file"), b"x").expect("staged");
    fs::rename(mount.at("old"), mount.at("new")).expect("renamed");
    assert_eq!(
        (mount.names(""), mount.names("new")),
        (vec!["a".into(), "new".into()], vec!["file".into(), "sub".into()])
    );
    let place = mount.kill();
    let mount = MountOptions::new(&backend, &bucket.name).args(LATER).place(place).start();
    assert_eq!((mount.names(""), mount.names("a")), (vec!["a".into(), "new".into()], vec!["b".into()]));
    assert_eq!(fs::metadata(mount.at("a/b")).expect("shown at once").mode() & 0o777, 0o700);
    mount.stop();
    let folder = |key: &str| format!("{key}/.emptyFolderPlaceholder");
    assert_eq!(
        bucket.keys(),
        [folder("a"), folder("a/b"), folder("new"), "new/file".to_owned(), folder("new/sub")]
    );
}

#[test]
fn a_folder_or_link_that_was_removed_before_a_crash_is_not_shown_again() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let keys = ["gone/.emptyFolderPlaceholder", "above/go!7Ene/.emptyFolderPlaceholder", "above/stays"];
    bucket.put_keys(keys);
    bucket.put("link.rclonelink", "target");
    let mount = Mount::with(&backend, &bucket, LATER);
    fs::remove_file(mount.at("link")).expect("queued");
    fs::remove_dir(mount.at("gone")).expect("queued");
    fs::remove_dir(mount.at("above/go~ne")).expect("queued");
    let place = mount.kill();
    let mount = MountOptions::new(&backend, &bucket.name).args(LATER).place(place).start();
    assert_eq!((mount.names(""), mount.names("above")), (vec!["above".into()], vec!["stays".into()]));
    assert!(!mount.at("gone").exists());
    assert!(fs::symlink_metadata(mount.at("link")).is_err());
    mount.stop();
    assert_eq!(bucket.keys(), ["above/stays"]);
}

#[test]
fn a_folder_that_the_server_refuses_is_not_shown_any_more() {
    let backend = standin_only!("the server refuses");
    let bucket = backend.bucket();
    let refusal = Action::Status { status: 403, code: "AccessDenied".into(), message: "no".into() };
    backend.fault(Fault::new(refusal).on("PutObject"));
    let mount = Mount::with(&backend, &bucket, "--write-back --write-back-delay 50ms");
    fs::create_dir(mount.at("dir")).expect("made");
    eventually("the folder to go", || (!mount.at("dir").exists()).then_some(()));
    assert!(mount.names("").is_empty());
    let files = staged(mount.place());
    assert_eq!((files.len(), &files[0]["state"]), (1, &"parked".into()), "until somebody decides");
}

#[test]
fn two_mounts_of_one_bucket_have_each_their_own_spool() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let place = Place::new();
    let spool = place.path().join("shared");
    let options = format!("{LATER} --spool-dir {}", spool.display());
    let first = Mount::with(&backend, &bucket, &options);
    let second = MountOptions::new(&backend, &bucket.name).args(&options).start();
    fs::write(first.at("a"), b"a").expect("staged");
    fs::write(second.at("b"), b"b").expect("staged");
    let list = ["spool", "list", "--json", "--spool-dir", spool.to_str().expect("a path")];
    let listed: serde_json::Value = serde_json::from_str(&place.supafs(list, &[]).ok().stdout).expect("JSON");
    let files = listed["files"].as_array().expect("files");
    assert_eq!(files.len(), 2);
    assert_ne!(files[0]["daemon"], files[1]["daemon"]);
    second.stop();
    assert_eq!(bucket.keys(), ["b"]);
    first.stop();
    assert_eq!(bucket.keys(), ["a", "b"]);
}

/// The text of every record below a directory.
pub fn records_below(dir: &std::path::Path) -> Vec<String> {
    let mut records = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            records.extend(records_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            records.extend(fs::read_to_string(&path));
        }
    }
    records
}

#[test]
fn uploads_that_nobody_completes_are_aborted_at_the_next_start() {
    let backend = standin_only!("unfinished uploads are looked at");
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--part-size 5MiB");
    let mut file = File::create(mount.at("large")).expect("created");
    file.write_all(&body(1, 12 << 20)).expect("written");
    eventually("parts on their way", || (!backend.standin().uploads(&bucket.name).is_empty()).then_some(()));
    // Without another process: its copy of the descriptor would tell of a close.
    eventually("its record", || {
        let records = records_below(&mount.place().home().join("state/supafs/spool"));
        records.iter().any(|record| record.contains("\"state\":\"upload\"")).then_some(())
    });
    let place = mount.kill();
    drop(file);
    let mount = MountOptions::new(&backend, &bucket.name).place(place).start();
    eventually("no upload", || backend.standin().uploads(&bucket.name).is_empty().then_some(()));
    drop(mount);
}

#[test]
fn a_name_whose_object_is_still_to_go_shows_nothing_of_it() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["moved", "removed", "kept"]);
    let options = "--write-back --write-back-delay 1h --metadata-ttl 0s";
    let mount = Mount::with(&backend, &bucket, options);
    mount.sh("rm moved removed");
    // What was made in their place went on before it was uploaded.
    mount.sh("echo new > moved; mv moved elsewhere; echo new > removed; rm removed");
    assert_eq!(mount.sh("ls"), "elsewhere\nkept\n");
    mount.sh("! cat moved 2> /dev/null; ! stat removed 2> /dev/null");
    mount.sh("echo again > moved");
    assert_eq!(mount.sh("cat moved elsewhere"), "again\nnew\n");
    mount.stop();
    assert_eq!(bucket.keys(), ["elsewhere", "kept", "moved"]);
    assert_eq!(bucket.bytes("moved").as_deref(), Some(&b"again\n"[..]));
}

#[test]
fn a_file_with_changes_keeps_its_name_whatever_becomes_of_its_object() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["staged", "open"]);
    let mount = Mount::with(&backend, &bucket, "--write-back --write-back-delay 1h --metadata-ttl 0s");
    mount.sh("echo first > staged");
    let mut open = File::create(mount.at("open")).expect("open");
    open.write_all(b"anew").expect("write");
    bucket.delete("staged");
    bucket.delete("open");
    assert_eq!(mount.sh("ls; cat staged"), "open\nstaged\nfirst\n");
    assert_eq!(fs::metadata(mount.at("open")).expect("it has changes").len(), 4);
    // One file, of which the last save counts: not two that race for a key.
    mount.sh("echo second > staged");
    drop(open);
    let used = spent(&backend, &mount, || drop(mount.sh("sync -d staged")));
    assert_eq!(used.get("PutObject"), 1, "{used:?}");
    mount.stop();
    assert_eq!(bucket.bytes("staged").as_deref(), Some(&b"second\n"[..]));
    assert_eq!(bucket.keys(), ["open", "staged"]);
}

#[test]
fn a_folder_is_kept_also_where_its_last_file_is_made_anew_before_it_went() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("f/a", "old");
    let mount = Mount::with(&backend, &bucket, "--write-back --write-back-delay 1h --metadata-ttl 0s");
    mount.sh("rm f/a; echo new > f/a; sync -d f/a");
    bucket.delete("f/a");
    assert_eq!(mount.sh("ls; ls f"), "f\n", "as with every last file that is removed here");
}

#[test]
fn a_name_stands_for_its_last_save_when_an_earlier_one_leaves_the_queue() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["a", "b"]);
    let mount = Mount::with(&backend, &bucket, "--write-back --write-back-delay 300ms");
    // A listing that knows nothing of what comes.
    mount.sh("ls -l");
    mount.sh("echo 1 > a; mv a f; sleep 0.1; echo 2 > f");
    while bucket.bytes("f").as_deref() != Some(&b"2\n"[..]) {
        assert_eq!(mount.sh("ls"), "b\nf\n");
    }
    mount.sh("rm f");
    mount.stop();
    assert_eq!(bucket.keys(), ["b"]);
}

#[test]
fn what_a_rename_is_about_to_replace_survives_a_crash() {
    let Some(backend) = Backend::standin_only("faults") else { return };
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--write-back --write-back-delay 100ms");
    let hang = backend.fault(Fault::new(Action::Hang).on("PutObject").key("new"));
    fs::write(mount.at("new"), b"new").expect("staged");
    eventually("its upload", || (backend.standin().fault_hits(hang) > 0).then_some(()));
    fs::write(mount.at("old"), b"old").expect("staged");
    let (from, to) = (mount.at("new"), mount.at("old"));
    let place = std::thread::scope(|scope| {
        // It waits for the upload.
        scope.spawn(move || drop(fs::rename(from, to)));
        // By then it is the turn of the other file to be uploaded.
        std::thread::sleep(Duration::from_millis(500));
        mount.kill()
    });
    backend.standin().clear_faults();
    MountOptions::new(&backend, &bucket.name).args("--write-back").place(place).start().stop();
    let old = bucket.bytes("old").expect("the one or the other");
    assert!(old == b"new" || (old == b"old" && bucket.bytes("new").as_deref() == Some(b"new")), "{old:?}");
}

#[test]
fn what_a_refused_rename_did_not_replace_is_uploaded() {
    let Some(backend) = Backend::standin_only("faults") else { return };
    let bucket = backend.bucket();
    bucket.put("from", "from");
    for delay in ["100ms", "1h"] {
        let mount = Mount::with(&backend, &bucket, &format!("--write-back --write-back-delay {delay}"));
        fs::write(mount.at("to"), b"staged").expect("staged");
        let slow = backend.fault(Fault::new(Action::Latency(Duration::from_millis(500))).on("CopyObject"));
        let refused = backend.fault(Fault::status(403, "AccessDenied").on("CopyObject"));
        let renamed = fs::rename(mount.at("from"), mount.at("to"));
        assert_eq!(errno(renamed), Errno::EACCES);
        assert_eq!(mount.read("to"), b"staged");
        backend.standin().clear_fault(slow);
        backend.standin().clear_fault(refused);
        mount.stop();
        assert_eq!(bucket.bytes("to").as_deref(), Some(&b"staged"[..]));
        bucket.delete("to");
    }
}

#[test]
fn a_crash_in_a_rename_brings_back_nothing_of_what_was_replaced() {
    let Some(backend) = Backend::standin_only("faults") else { return };
    // Copied, small and large; then uploaded, since it was changed again.
    for (len, operation) in [(10_000, "CopyObject"), (12 << 20, "CopyObject"), (10_000, "DeleteObject")] {
        let bucket = backend.bucket();
        let mount = Mount::with(&backend, &bucket, &format!("{LATER} --part-size 5MiB"));
        let mut new = body(1, len);
        fs::write(mount.at("new"), &new).expect("staged");
        File::open(mount.at("new")).expect("open").sync_all().expect("uploaded");
        if operation == "DeleteObject" {
            new = body(2, len);
            fs::write(mount.at("new"), &new).expect("staged");
        }
        fs::write(mount.at("old"), b"old").expect("staged");
        let copied = backend.fault(
            Fault::new(if operation == "CopyObject" { Action::LateHang } else { Action::Hang }).on(operation),
        );
        let (from, to) = (mount.at("new"), mount.at("old"));
        let place = std::thread::scope(|scope| {
            scope.spawn(move || drop(fs::rename(from, to)));
            eventually("the copy", || (backend.standin().fault_hits(copied) > 0).then_some(()));
            mount.kill()
        });
        backend.standin().clear_faults();
        MountOptions::new(&backend, &bucket.name).args("--write-back").place(place).start().stop();
        // The source may be there, too; but nothing lies beside the two.
        let keys: Vec<_> = bucket.keys().into_iter().filter(|key| key != "new").collect();
        assert_eq!(keys, ["old"], "{operation}");
        assert!(bucket.bytes("old").as_ref() == Some(&new), "{operation}");
    }
}

#[test]
fn what_is_written_after_a_crash_in_a_rename_is_kept() {
    let Some(backend) = Backend::standin_only("faults") else { return };
    let bucket = backend.bucket();
    bucket.put("new", "new");
    let mount = Mount::with(&backend, &bucket, LATER);
    fs::write(mount.at("old"), b"old").expect("staged");
    let copied = backend.fault(Fault::new(Action::LateHang).on("CopyObject"));
    let (from, to) = (mount.at("new"), mount.at("old"));
    let place = std::thread::scope(|scope| {
        scope.spawn(move || drop(fs::rename(from, to)));
        eventually("the copy", || (backend.standin().fault_hits(copied) > 0).then_some(()));
        mount.kill()
    });
    backend.standin().clear_faults();
    let mount = MountOptions::new(&backend, &bucket.name).args(LATER).place(place).start();
    mount.sh("echo -n ' and more' >> old");
    mount.stop();
    let kept = bucket.own();
    assert!(kept.values().any(|bytes| bytes == b"old and more"), "{:?}", kept.keys());
    assert_eq!(kept["old"], b"new");
}

#[test]
fn a_rename_that_nobody_knows_the_end_of_loses_neither_file() {
    let Some(backend) = Backend::standin_only("faults") else { return };
    let bucket = backend.bucket();
    bucket.put("from", "from");
    let mount = Mount::with(&backend, &bucket, &format!("{LATER} --op-timeout 3s"));
    fs::write(mount.at("to"), b"staged").expect("staged");
    // The source is deleted, without an answer, and the server cannot be asked.
    backend.fault(Fault::late_status(500, "InternalError").on("DeleteObject"));
    backend.fault(Fault::status(500, "InternalError").on("HeadObject"));
    fs::rename(mount.at("from"), mount.at("to")).expect_err("nobody knows");
    backend.standin().clear_faults();
    mount.stop();
    let kept = bucket.own();
    for bytes in [&b"from"[..], b"staged"] {
        assert!(kept.values().any(|kept| kept == bytes), "{:?}", kept.keys());
    }
}
