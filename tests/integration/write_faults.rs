//! Every operation that changes the bucket fails in every way in which requests fail: nothing is corrupted, and
//! nothing that was acknowledged is lost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use supafs_standin::{Action, Fault, FaultId, WRITES};

use crate::common::{Backend, Bucket, Mount, MountOptions, Random, body, eventually};
use crate::spool::staged;

/// A way to fail once.
fn ways() -> Vec<(&'static str, Fault)> {
    vec![
        ("fails", Fault::status(503, "SlowDown")),
        ("fails late", Fault::late_status(504, "GatewayTimeout")),
        ("hangs", Fault::new(Action::Hang)),
        ("is cut off", Fault::new(Action::ResetBody(1000))),
        ("is reset", Fault::new(Action::Reset)),
        ("loses its reply", Fault::reply_lost()),
        ("hangs after the change", Fault::new(Action::LateHang)),
    ]
}

/// What makes the daemon send each operation, and what the bucket holds then.
fn work(mount: &Mount, bucket: &Bucket<'_>, operation: &str, seed: u64) {
    let name = format!("d/{operation}-{seed}");
    let (path, large) = (mount.at(&name), body(seed, 30 << 20));
    let save = |bytes: &[u8]| {
        let mut file = File::create(&path).expect("created");
        file.write_all(bytes).expect("written");
        file.sync_all().expect("acknowledged");
    };
    match operation {
        "PutObject" => save(b"small"),
        "CopyObject" | "DeleteObject" => {
            save(b"small");
            fs::rename(&path, mount.at(&format!("{name}-moved"))).expect("renamed");
            assert_eq!(bucket.bytes(&name), None);
            assert_eq!(bucket.bytes(&format!("{name}-moved")).expect("moved"), b"small");
            return;
        }
        "DeleteObjects" => {
            fs::create_dir(mount.at(&format!("{name}-dir"))).expect("made");
            fs::write(mount.at(&format!("{name}-dir/x")), b"x").expect("written");
            fs::rename(mount.at(&format!("{name}-dir")), mount.at(&format!("{name}-to"))).expect("renamed");
            assert_eq!(bucket.bytes(&format!("{name}-to/x")).expect("moved"), b"x");
            assert_eq!(bucket.bytes(&format!("{name}-dir/x")), None);
            return;
        }
        "UploadPartCopy" => {
            bucket.put(&name, large.clone());
            let file = File::options().write(true).open(&path).expect("opened");
            file.write_all_at(b"changed", 15 << 20).expect("written");
            file.sync_all().expect("acknowledged");
            let mut changed = large;
            changed[15 << 20..(15 << 20) + 7].copy_from_slice(b"changed");
            assert!(bucket.bytes(&name).expect("uploaded") == changed, "{name}");
            return;
        }
        _ => {
            save(&large);
            assert!(bucket.bytes(&name).expect("uploaded") == large, "{name}");
            return;
        }
    }
    assert_eq!(bucket.bytes(&name).expect("uploaded"), b"small");
}

fn each_way(operation: &str) {
    let Some(backend) = Backend::standin_only("faults") else { return };
    let bucket = backend.bucket();
    let mount = Mount::with(
        &backend,
        &bucket,
        "--part-size 5MiB --op-timeout 3s --metadata-ttl 0s --negative-ttl 0s",
    );
    fs::create_dir(mount.at("d")).expect("made");
    for (seed, (way, fault)) in (0..).zip(ways()) {
        let fault = backend.fault(fault.on(operation).times(1));
        work(&mount, &bucket, operation, seed);
        let is_bodiless = way == "is cut off" && !matches!(operation, "PutObject" | "UploadPart");
        assert!(is_bodiless || backend.standin().fault_hits(fault) == 1, "{operation} {way}: it was not hit");
        backend.standin().clear_fault(fault);
    }
    assert!(bucket.keys().iter().all(|key| !key.contains("conflict")), "{:?}", bucket.keys());
    eventually("no upload left", || backend.standin().uploads(&bucket.name).is_empty().then_some(()));
    mount.stop();
}

#[test]
fn a_put_may_fail_in_every_way() {
    each_way("PutObject");
}

#[test]
fn a_copy_may_fail_in_every_way() {
    each_way("CopyObject");
}

#[test]
fn a_delete_may_fail_in_every_way() {
    each_way("DeleteObject");
}

#[test]
fn a_batch_of_deletes_may_fail_in_every_way() {
    each_way("DeleteObjects");
}

#[test]
fn the_beginning_of_an_upload_may_fail_in_every_way() {
    let Some(backend) = Backend::standin_only("faults") else { return };
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--part-size 5MiB --op-timeout 3s");
    fs::create_dir(mount.at("d")).expect("made");
    for (seed, (_, fault)) in (0..).zip(ways()) {
        let fault = backend.fault(fault.on("CreateMultipartUpload").times(1));
        work(&mount, &bucket, "CreateMultipartUpload", seed);
        backend.standin().clear_fault(fault);
    }
    // One that began without our learning its id cannot be ended.
    mount.stop();
}

#[test]
fn a_part_may_fail_in_every_way() {
    each_way("UploadPart");
}

#[test]
fn a_copied_part_may_fail_in_every_way() {
    each_way("UploadPartCopy");
}

#[test]
fn the_end_of_an_upload_may_fail_in_every_way() {
    each_way("CompleteMultipartUpload");
}

#[test]
fn a_source_that_may_be_gone_keeps_its_copy() {
    let backend = standin_only!("faults");
    let bucket = backend.bucket();
    bucket.put("from", "the only one");
    let mount = Mount::with(&backend, &bucket, "--op-timeout 1s");
    let hang = backend.fault(Fault::new(Action::Hang).on("DeleteObject").key("from"));
    fs::rename(mount.at("from"), mount.at("to")).expect_err("nobody knows");
    backend.standin().clear_fault(hang);
    // Whatever became of the deletes that hung.
    assert_eq!(bucket.bytes("to").expect("the copy stays"), b"the only one");
}

/// Begins to stream a large file, and then wants it to be a small one.
fn abandon_an_upload(mount: &Mount, backend: &Backend, bucket: &Bucket<'_>, name: &str) {
    let mut file = File::create(mount.at(name)).expect("created");
    file.write_all(&body(1, 12 << 20)).expect("written");
    eventually("an upload", || (!backend.standin().uploads(&bucket.name).is_empty()).then_some(()));
    file.set_len(0).expect("cut off");
    file.write_all_at(b"small", 0).expect("written");
    file.sync_all().expect("acknowledged");
    assert_eq!(bucket.bytes(name).expect("uploaded"), b"small");
}

#[test]
fn to_give_an_upload_up_may_fail_in_every_way() {
    let backend = standin_only!("faults");
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--part-size 5MiB --op-timeout 3s");
    for (way, fault) in ways().into_iter().filter(|(way, _)| *way != "is cut off") {
        let fault = backend.fault(fault.on("AbortMultipartUpload").times(1));
        abandon_an_upload(&mount, &backend, &bucket, way);
        eventually(way, || (backend.standin().fault_hits(fault) == 1).then_some(()));
        eventually("no upload left", || backend.standin().uploads(&bucket.name).is_empty().then_some(()));
        backend.standin().clear_fault(fault);
    }
    mount.stop();
}

#[test]
fn an_upload_that_cannot_be_given_up_is_ended_by_the_next_mount() {
    let backend = standin_only!("faults");
    for fault in
        [Fault::status(503, "SlowDown"), Fault::status(500, "InternalError"), Fault::new(Action::Reset)]
    {
        let bucket = backend.bucket();
        let mount = Mount::with(&backend, &bucket, "--part-size 5MiB --op-timeout 1s");
        let fault = backend.fault(fault.on("AbortMultipartUpload"));
        abandon_an_upload(&mount, &backend, &bucket, "a");
        eventually("the daemon gives up", || {
            mount.log().contains("stays behind on the server").then_some(())
        });
        assert_eq!(backend.standin().uploads(&bucket.name).len(), 1);
        let (place, code) = mount.leave();
        assert_eq!(code, Some(0));
        backend.standin().clear_fault(fault);
        let mount = MountOptions::new(&backend, &bucket.name).place(place).start();
        eventually("no upload left", || backend.standin().uploads(&bucket.name).is_empty().then_some(()));
        assert_eq!(mount.read("a"), b"small");
        mount.stop();
        assert_eq!(bucket.bytes("a").expect("it stays"), b"small");
    }
}

/// One request in ten of every kind fails, of the rarer kinds one in three.
fn storm(backend: &Backend) -> Vec<(&'static str, Vec<FaultId>)> {
    let operations = WRITES.into_iter().filter(|operation| *operation != "MoveObject");
    let arm = |(seed, operation)| {
        let is_upload = matches!(operation, "PutObject" | "UploadPart");
        let is_common = is_upload || matches!(operation, "DeleteObject" | "CopyObject");
        let faults = Fault::storm(if is_common { 0.1 } else { 0.3 }, seed);
        // A body that hangs has all the time there is: that is an error, and nothing is acknowledged then.
        let hang = (!is_upload).then(|| Fault::new(Action::LateHang).chance(0.02, seed));
        let ids = faults.into_iter().chain(hang).map(|fault| backend.fault(fault.on(operation)));
        (operation, ids.collect())
    };
    (1..).map(|n| 100 * n).zip(operations).map(arm).collect()
}

/// One change of a load that sends every kind of request, and what it makes of the files.
fn change(mount: &Mount, random: &mut Random, model: &mut BTreeMap<String, Vec<u8>>, step: u64) {
    let name = format!("f{}", random.below(12));
    let other = format!("f{}", random.below(12));
    let save = |name: &str, bytes: &[u8]| {
        let mut file = File::create(mount.at(name)).expect("created");
        file.write_all(bytes).expect("written");
        file.sync_all().expect("acknowledged");
    };
    match random.below(12) {
        0 if model.contains_key(&name) => {
            fs::remove_file(mount.at(&name)).expect("removed");
            model.remove(&name);
        }
        1 | 2 if model.contains_key(&name) && name != other => {
            fs::rename(mount.at(&name), mount.at(&other)).expect("renamed");
            let bytes = model.remove(&name).expect("it is there");
            model.insert(other, bytes);
        }
        3 => {
            let (from, to) = (format!("from{step}"), format!("to{step}"));
            fs::create_dir(mount.at(&from)).expect("made");
            save(&format!("{from}/x"), b"inside");
            fs::rename(mount.at(&from), mount.at(&to)).expect("renamed");
            model.insert(format!("{to}/x"), b"inside".to_vec());
        }
        4 => {
            // Cut off while it goes up.
            let mut file = File::create(mount.at(&name)).expect("created");
            file.write_all(&body(step, 12 << 20)).expect("written");
            file.set_len(0).expect("cut off");
            file.write_all_at(b"small", 0).expect("written");
            file.sync_all().expect("acknowledged");
            model.insert(name, b"small".to_vec());
        }
        5 => {
            let mut bytes = body(step, 24 << 20);
            save(&name, &bytes);
            let file = File::options().write(true).open(mount.at(&name)).expect("opened");
            file.write_all_at(b"changed", 12 << 20).expect("written");
            file.sync_all().expect("acknowledged");
            bytes[12 << 20..(12 << 20) + 7].copy_from_slice(b"changed");
            model.insert(name, bytes);
        }
        _ => {
            let bytes = body(step, usize::try_from(random.below(50_000)).expect("a length"));
            save(&name, &bytes);
            model.insert(name, bytes);
        }
    }
}

fn live_through_a_storm(options: &str) {
    let Some(backend) = Backend::standin_only("faults") else { return };
    let bucket = backend.bucket();
    let mount = MountOptions::new(&backend, &bucket.name)
        .args("--part-size 5MiB --op-timeout 5s")
        .args(options)
        .watchdog(Duration::from_mins(4))
        .start();
    let faults = storm(&backend);
    let mut random = Random(11);
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for step in 0..150_u64 {
        change(&mount, &mut random, &mut model, step);
    }
    for (operation, faults) in faults {
        let hits: u64 = faults.iter().map(|id| backend.standin().fault_hits(*id)).sum();
        assert!(hits > 0, "no {operation} of {} was hit", backend.standin().count(operation));
    }
    backend.standin().clear_faults();
    let wanted: Vec<String> = model.keys().cloned().collect();
    assert_eq!(mount.files(), wanted);
    mount.stop();
    let is_file = |key: &String| !key.ends_with("/.emptyFolderPlaceholder");
    assert_eq!(bucket.keys().into_iter().filter(is_file).collect::<Vec<_>>(), wanted);
    for (name, bytes) in &model {
        assert!(bucket.bytes(name).as_ref() == Some(bytes), "{name}");
    }
}

#[test]
fn under_a_storm_nothing_is_corrupted_and_nothing_acknowledged_is_lost() {
    live_through_a_storm("");
}

#[test]
fn under_a_storm_nothing_that_was_staged_is_lost() {
    live_through_a_storm("--write-back --write-back-delay 20ms");
}

#[test]
fn an_answer_that_breaks_off_while_a_change_is_sent_is_asked_for_again() {
    let backend = standin_only!("answers break off");
    let bucket = backend.bucket();
    let mut bytes = body(9, 20 << 20);
    bucket.put("file", bytes.clone());
    let mount = Mount::new(&backend, &bucket);
    mount.names("");
    // What is missing of the part that is changed comes in five pieces.
    let broken = backend.fault(Fault::new(Action::Truncate(1_000_000)).on("GetObject").times(4));
    let file = File::options().write(true).open(mount.at("file")).expect("opened");
    file.write_all_at(b"changed", 7 << 20).expect("written");
    file.sync_all().expect("acknowledged");
    bytes[7 << 20..(7 << 20) + 7].copy_from_slice(b"changed");
    assert!(bucket.bytes("file") == Some(bytes));
    assert_eq!(backend.standin().fault_hits(broken), 4);
}

#[test]
fn the_same_bytes_again_are_stored_though_the_answer_that_says_so_is_lost() {
    let backend = standin_only!("answers get lost");
    for options in ["", "--write-back"] {
        let bucket = backend.bucket();
        let mount = Mount::with(&backend, &bucket, &format!("--part-size 5MiB {options}"));
        let content = body(7, 12 << 20);
        let save = || {
            let mut file = fs::File::create(mount.at("file"))?;
            file.write_all(&content)?;
            file.sync_all()
        };
        save().expect("stored");
        for fault in [Fault::reply_lost(), Fault::late_status(504, "GatewayTimeout")] {
            let fault = backend.fault(fault.on("CompleteMultipartUpload").bucket(&bucket.name).times(1));
            save().unwrap_or_else(|error| panic!("{options}: it is there: {error}"));
            backend.standin().clear_fault(fault);
            assert!(bucket.bytes("file").as_deref() == Some(&content[..]));
        }
        assert!(staged(mount.place()).iter().all(|file| file["state"] != "parked"));
        mount.stop();
        assert_eq!(backend.standin().uploads(&bucket.name), []);
    }
}
