//! Every operation that changes the bucket fails in every way in which requests fail: nothing is corrupted, and
//! nothing that was acknowledged is lost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use supafs_standin::{Action, Fault};

use crate::common::{Backend, Bucket, Mount, Random, body, eventually};

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
    // What the server may take minutes for is waited for that long: a hang is not for a short test.
    let may_take_long = matches!(operation, "CopyObject" | "DeleteObjects" | "CompleteMultipartUpload");
    let ways = ways().into_iter().filter(|(way, _)| !(may_take_long && way.starts_with("hangs")));
    for (seed, (way, fault)) in (0..).zip(ways) {
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

#[test]
fn under_a_storm_nothing_is_corrupted_and_nothing_acknowledged_is_lost() {
    let backend = standin_only!("faults");
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--part-size 5MiB --op-timeout 5s");
    for fault in Fault::storm(0.1, 7) {
        backend.fault(fault.on_writes());
    }
    let mut random = Random(11);
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for step in 0..150_u64 {
        let name = format!("f{}", random.below(12));
        let other = format!("f{}", random.below(12));
        match random.below(10) {
            0 if model.contains_key(&name) => {
                fs::remove_file(mount.at(&name)).expect("removed");
                model.remove(&name);
            }
            1 | 2 if model.contains_key(&name) && name != other => {
                fs::rename(mount.at(&name), mount.at(&other)).expect("renamed");
                let bytes = model.remove(&name).expect("it is there");
                model.insert(other, bytes);
            }
            _ => {
                let len = if step % 30 == 7 { 12 << 20 } else { random.below(50_000) };
                let bytes = body(step, usize::try_from(len).expect("a length"));
                let mut file = File::create(mount.at(&name)).expect("created");
                file.write_all(&bytes).expect("written");
                file.sync_all().expect("acknowledged");
                model.insert(name, bytes);
            }
        }
    }
    backend.standin().clear_faults();
    assert_eq!(mount.names(""), model.keys().cloned().collect::<Vec<_>>());
    mount.stop();
    assert_eq!(bucket.keys(), model.keys().cloned().collect::<Vec<_>>());
    for (name, bytes) in &model {
        assert!(bucket.bytes(name).as_ref() == Some(bytes), "{name}");
    }
}
