//! Somebody else changes what is being changed here.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use supafs_standin::Fault;

use crate::common::{Backend, Mount, body, eventually};
use crate::spool::staged;

/// Closes a file with the error that close returns.
fn close(file: File) -> Result<(), nix::errno::Errno> {
    let fd = file.as_raw_fd();
    // A duplicate, so that its close tells and the file's own has nothing left to say.
    let told = nix::unistd::close(nix::unistd::dup(&file).expect("a descriptor"));
    assert!(fd >= 0);
    drop(file);
    told
}

/// Overwrites the start of a file that another client replaces meanwhile.
fn change_both(backend: &Backend, options: &str, theirs: &str) -> (String, Vec<String>, Option<Vec<u8>>) {
    let bucket = backend.bucket();
    bucket.put("note.txt", "the old text");
    let mount = Mount::with(backend, &bucket, options);
    let file = File::options().write(true).open(mount.at("note.txt")).expect("opened");
    file.set_len(0).expect("cut");
    file.write_all_at(b"our text", 0).expect("written");
    bucket.put("note.txt", theirs);
    let told = close(file);
    let told = told.err().map_or_else(|| "ok".to_owned(), |error| error.to_string());
    let keys = bucket.keys();
    let ours = keys.iter().find(|key| key.contains("conflict")).and_then(|key| bucket.bytes(key));
    let conflicts = &mount.status()["conflicts"];
    if options.contains("fail") {
        eventually("it is kept", || (staged(mount.place()).len() == 1).then_some(()));
        assert!(conflicts.as_u64() >= Some(1));
    }
    let name = bucket.bytes("note.txt").expect("the name stays");
    (format!("{told} {}", String::from_utf8_lossy(&name)), keys, ours)
}

#[test]
fn theirs_keeps_the_name_and_ours_goes_beside_it() {
    let backend = Backend::start();
    let (told, keys, ours) = change_both(&backend, "", "their text");
    assert_eq!(told, "ok their text");
    assert_eq!((keys.len(), ours), (2, Some(b"our text".to_vec())), "{keys:?}");
}

#[test]
fn ours_replaces_theirs_where_that_is_wanted() {
    let backend = Backend::start();
    let (told, keys, _) = change_both(&backend, "--on-conflict overwrite", "their text");
    assert_eq!((told.as_str(), keys.len()), ("ok our text", 1));
}

#[test]
fn a_conflict_can_be_an_error_that_keeps_ours_in_the_spool() {
    let backend = Backend::start();
    let (told, keys, _) = change_both(&backend, "--on-conflict fail", "their text");
    assert!(told.starts_with("ESTALE") && told.ends_with("their text"), "{told}");
    assert_eq!(keys.len(), 1);
}

#[test]
fn a_base_that_changes_while_its_parts_are_copied_is_never_mixed_in() {
    let backend = standin_only!("the moment between two requests");
    let bucket = backend.bucket();
    let old = body(1, 40 << 20);
    bucket.put("large", old);
    let mount = Mount::with(&backend, &bucket, "--part-size 5MiB");
    let file = File::options().write(true).open(mount.at("large")).expect("opened");
    file.write_all_at(b"changed", 20 << 20).expect("written");
    // The copies of parts take long enough to replace the object behind the check.
    let slow = Fault::new(supafs_standin::Action::Latency(std::time::Duration::from_millis(1500)));
    let slow = backend.fault(slow.on("UploadPart"));
    let theirs = body(2, 40 << 20);
    let told = std::thread::scope(|scope| {
        let closing = scope.spawn(|| close(file));
        eventually("a copied part", || (backend.standin().count("UploadPartCopy") > 0).then_some(()));
        bucket.put("large", theirs.clone());
        closing.join().expect("close returns")
    });
    assert_eq!(told, Err(nix::errno::Errno::ESTALE));
    assert!(backend.standin().fault_hits(slow) > 0);
    assert_eq!(bucket.bytes("large").expect("it is theirs"), theirs);
    eventually("no upload left", || backend.standin().uploads(&bucket.name).is_empty().then_some(()));
    eventually("it is kept", || (staged(mount.place()).len() == 1).then_some(()));
    assert_eq!(bucket.keys().len(), 1);
}

#[test]
fn what_is_set_on_a_file_that_others_replace_meanwhile_leaves_theirs_as_it_is() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("file", "before");
    let options = "--write-back --write-back-delay 2s --metadata-ttl 1h";
    let mount = Mount::with(&backend, &bucket, options);
    assert_eq!(mount.names(""), ["file"]);
    mount.sh("chmod 600 file");
    bucket.put("file", "theirs, and longer");
    let (place, code) = mount.leave();
    assert_eq!(code, Some(0));
    assert_eq!(bucket.bytes("file").as_deref(), Some(&b"theirs, and longer"[..]));
    assert_eq!(bucket.own().len(), 1, "nothing lies beside it");
    assert_eq!(staged(&place), [] as [serde_json::Value; 0]);
}

#[test]
fn what_is_written_after_a_setting_that_lost_is_not_lost_with_it() {
    let backend = Backend::start();
    for options in ["", "--write-back"] {
        let bucket = backend.bucket();
        bucket.put("file", "before");
        let mount = Mount::with(&backend, &bucket, &format!("{options} --metadata-ttl 1h"));
        let file = File::options().read(true).write(true).open(mount.at("file")).expect("opened");
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).expect("it is set");
        bucket.put("file", "theirs, and longer");
        // The mode goes up now, and finds another object.
        let synced = file.sync_all();
        let written = file.write_all_at(b"ours", 0).is_ok();
        let is_acknowledged = close(file).is_ok() && written;
        let (place, _) = mount.leave();
        assert_eq!(bucket.bytes("file").as_deref(), Some(&b"theirs, and longer"[..]), "{synced:?}");
        let beside =
            bucket.own().into_keys().any(|key| bucket.bytes(&key).is_some_and(|b| b.starts_with(b"ours")));
        let is_kept = staged(&place).iter().any(|file| file["settings_only"] == false);
        assert!(!is_acknowledged || beside || is_kept, "{options}: acknowledged, and nowhere");
    }
}
