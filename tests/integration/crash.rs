//! The daemon is killed under load and at named points. After the next start, every file whose close was acknowledged
//! is in the bucket or in the queue, byte for byte, and nothing is torn. `scripts/crash` runs the long form.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::Signal;
use supafs_standin::{Action, Fault};

use crate::common::{Backend, Bucket, Login, Mount, MountOptions, Place, Random, body, eventually};

const NAMES: u64 = 8;

/// What a name may hold: the last acknowledged content, or that of an operation that was under way at the kill.
#[derive(Default)]
struct Model {
    names: BTreeMap<String, Vec<Option<Vec<u8>>>>,
    /// A rename that was under way: from where to where.
    moving: Option<(String, String)>,
    /// What was done since the last start, for whoever reads of a failure.
    history: Vec<String>,
}

impl Model {
    /// Until it is acknowledged, a name may hold this or what it held.
    fn may_be(&mut self, name: &str, next: Option<Vec<u8>>) {
        self.names.entry(name.to_owned()).or_insert_with(|| vec![None]).push(next);
    }

    fn is(&mut self, name: &str, bytes: Option<Vec<u8>>) {
        self.names.insert(name.to_owned(), vec![bytes]);
        self.moving = None;
    }

    /// What was acknowledged last.
    fn known(&self, name: &str) -> Option<Vec<u8>> {
        self.names.get(name)?.last()?.clone()
    }

    /// Of a file that moved before it was uploaded, the bucket may still have an older version at its old name; all
    /// that was acknowledged is at the new one then.
    fn is_left_behind(&self, name: &str, bucket: &Bucket<'_>) -> bool {
        let Some((from, to)) = &self.moving else { return false };
        from == name && bucket.bytes(to).is_some() && bucket.bytes(to) == self.known(to)
    }
}

/// Writes, removes and renames until the daemon is gone.
fn load(mount: &std::path::Path, random: &mut Random, model: &Mutex<Model>, serial: &mut u64) {
    let model = || model.lock().expect("a model");
    loop {
        let [name, other] = [(); 2].map(|()| format!("f{}", random.below(NAMES)));
        *serial += 1;
        let len = if random.below(12) == 0 { 11 << 20 } else { random.below(100_000) };
        let kind = random.below(8);
        model().history.push(format!("{kind}: {name} {other} #{serial} of {len}"));
        let (changes, done): (Vec<_>, _) = match kind {
            0 => {
                model().may_be(&name, None);
                let done = match fs::remove_file(mount.join(&name)) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    other => other,
                };
                (vec![(name, None)], done)
            }
            1 if name != other && model().known(&name).is_some() => {
                let moved = model().known(&name);
                model().moving = Some((name.clone(), other.clone()));
                model().may_be(&name, None);
                model().may_be(&other, moved.clone());
                let done = fs::rename(mount.join(&name), mount.join(&other));
                (vec![(name, None), (other, moved)], done)
            }
            2 if model().known(&name).is_some() => {
                let mut bytes = model().known(&name).unwrap_or_default();
                let more = body(*serial, 1000);
                bytes.extend_from_slice(&more);
                model().may_be(&name, Some(bytes.clone()));
                (vec![(name.clone(), Some(bytes))], append(&mount.join(&name), &more))
            }
            3 if model().known(&name).is_some() => {
                let mode = fs::Permissions::from_mode(0o600 | (u32::try_from(*serial % 8).unwrap_or(0)));
                let done = fs::set_permissions(mount.join(&name), mode);
                (vec![], done)
            }
            _ => {
                let bytes = body(*serial, usize::try_from(len).expect("a length"));
                model().may_be(&name, Some(bytes.clone()));
                let done = save(&mount.join(&name), &bytes);
                (vec![(name, Some(bytes))], done)
            }
        };
        if let Err(error) = done {
            model().history.push(error.to_string());
            return;
        }
        for (name, bytes) in changes {
            model().is(&name, bytes);
        }
    }
}

/// What a program does that looks at every answer.
fn save(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    Ok(nix::unistd::close(file)?)
}

fn append(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::options().append(true).open(path)?;
    file.write_all(bytes)?;
    Ok(nix::unistd::close(file)?)
}

/// The bucket is what was acknowledged; then the model is what the bucket is.
fn compare(bucket: &Bucket<'_>, model: &mut Model) {
    let strange: Vec<_> = bucket.keys().into_iter().filter(|key| !model.names.contains_key(key)).collect();
    let history = model.history.join("\n");
    assert!(strange.is_empty(), "{strange:?}; moving: {:?}; operations:\n{history}", model.moving);
    if let Some((from, to)) = &model.moving {
        let is_there = [from, to].iter().any(|end| bucket.bytes(end) == model.known(to));
        assert!(is_there, "what was renamed from {from} to {to} is at neither end");
    }
    let mut found = BTreeMap::new();
    for (name, may_be) in &model.names {
        let is = bucket.bytes(name);
        let sizes: Vec<_> = may_be.iter().map(|bytes| bytes.as_ref().map(Vec::len)).collect();
        let is_one = may_be.contains(&is) || (is.is_some() && model.is_left_behind(name, bucket));
        let (len, moving) = (is.as_ref().map(Vec::len), &model.moving);
        assert!(
            is_one,
            "{name} holds {len:?} bytes, not one of {sizes:?}; moving: {moving:?}; operations:\n{history}"
        );
        found.insert(name.clone(), vec![is]);
    }
    *model = Model { names: found, ..Model::default() };
}

fn kills() -> u64 {
    std::env::var("SUPAFS_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

fn kill_under_load(options: &str, seed: u64) {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let (mut random, mut serial) = (Random(seed), 0);
    let model = Mutex::new(Model::default());
    let mut place = Place::new();
    for round in 0..kills() {
        let mount = MountOptions::new(&backend, &bucket.name).args(options).place(place).start();
        let pause = Duration::from_millis(50 + random.below(1200));
        let path = mount.path.clone();
        place = std::thread::scope(|scope| {
            let loading = scope.spawn(|| load(&path, &mut random, &model, &mut serial));
            std::thread::sleep(pause);
            mount.signal(Signal::SIGKILL);
            // Before the dead mount is cleared: the directory beneath would take everything.
            loading.join().expect("the load ends with the daemon");
            mount.kill()
        });
        // What is left goes up, and then the bucket tells.
        let mount = MountOptions::new(&backend, &bucket.name).args(options).place(place).start();
        let code;
        (place, code) = mount.leave();
        let log = || fs::read_to_string(place.path().join("log")).unwrap_or_default();
        // A request that was under way at the kill may be carried out between the look of the next mount at the object and
        // its upload: what was being written is kept then, as if another client had come between.
        let is_kept = backend.is_real() && code == Some(75) && log().contains("kept in the spool");
        assert!(code == Some(0) || is_kept, "round {round}: {code:?} {}", log());
        if backend.is_real() {
            // A request that was under way at the kill may be carried out a moment later, as by any server.
            std::thread::sleep(Duration::from_secs(1));
        }
        let compared = || compare(&bucket, &mut model.lock().expect("a model"));
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compared)) {
            eprintln!("round {round}; {}", log());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_daemon_killed_at_random_loses_nothing_that_was_uploaded() {
    kill_under_load("--part-size 5MiB --metadata-ttl 0s", 1);
}

#[test]
fn a_daemon_killed_at_random_loses_nothing_that_was_staged() {
    kill_under_load("--part-size 5MiB --metadata-ttl 0s --write-back --write-back-delay 200ms", 2);
}

#[test]
fn a_folder_that_is_renamed_by_a_daemon_killed_at_random_is_whole() {
    const FILES: u64 = 40;
    let backend = Backend::start();
    let bucket = backend.bucket();
    let name = |folder: &str, number: u64| format!("{folder}/sub{}/{number}", number % 3);
    let (mut random, mut place) = (Random(3), Place::new());
    for round in 0..kills() {
        for number in 0..FILES {
            bucket.delete(&name("b", number));
            bucket.put(&name("a", number), number.to_string());
        }
        let mount = MountOptions::new(&backend, &bucket.name).place(place).start();
        let (pause, path) = (Duration::from_millis(5 + random.below(200)), mount.path.clone());
        place = std::thread::scope(|scope| {
            let renaming = scope.spawn(move || {
                let there = |from: &str, to: &str| fs::rename(path.join(from), path.join(to));
                while there("a", "b").and_then(|()| there("b", "a")).is_ok() {}
            });
            std::thread::sleep(pause);
            mount.signal(Signal::SIGKILL);
            renaming.join().expect("it ends with the daemon");
            mount.kill()
        });
        let mount = MountOptions::new(&backend, &bucket.name).place(place).start();
        let found = bucket.own();
        for number in 0..FILES {
            let copies: Vec<_> = ["a", "b"].iter().filter_map(|at| found.get(&name(at, number))).collect();
            assert!(!copies.is_empty(), "round {round}: {number} is nowhere");
            assert!(copies.iter().all(|copy| **copy == number.to_string().as_bytes()), "round {round}");
        }
        // What the README says to do.
        mount.sh("mkdir -p a b; rsync -a --remove-source-files a/ b/");
        let files: Vec<_> = bucket.keys().into_iter().filter(|key| !key.ends_with("Placeholder")).collect();
        assert_eq!(files.len() as u64, FILES, "{files:?}");
        assert!(files.iter().all(|key| key.starts_with("b/")), "{files:?}");
        place = mount.leave().0;
    }
}

/// A daemon that is killed after the server has carried out its upload, and the next mount, which has the file in its
/// spool: most of it is only in the bucket, and not in the version that the record names.
fn after_an_upload_that_outlived_its_daemon(check: impl FnOnce(&Mount, &mut Vec<u8>)) {
    let Some(backend) = Backend::standin_only("it carries out a request and does not answer") else { return };
    let bucket = backend.bucket();
    let mut content = body(1, 20 << 20);
    bucket.put("file", content.clone());
    let mount = Mount::with(&backend, &bucket, "--part-size 5MiB --write-back --write-back-delay 10ms");
    let lost = backend.fault(Fault::new(Action::LateHang).on("CompleteMultipartUpload"));
    append(&mount.at("file"), b"more").expect("close does not wait");
    content.extend_from_slice(b"more");
    eventually("the upload", || (backend.standin().fault_hits(lost) > 0).then_some(()));
    eventually("the new version", || (bucket.bytes("file")? == content).then_some(()));
    let place = mount.kill();
    backend.standin().clear_fault(lost);
    let options = MountOptions::new(&backend, &bucket.name).args("--write-back --write-back-delay 1h");
    let mount = options.place(place).start();
    check(&mount, &mut content);
    assert!(mount.read("file") == content);
    mount.stop();
    assert!(bucket.bytes("file").expect("it is there") == content);
    assert_eq!(bucket.keys(), ["file"], "nothing is taken for another client's change");
}

#[test]
fn a_file_whose_upload_outlived_its_daemon_can_be_read_before_it_is_uploaded_again() {
    after_an_upload_that_outlived_its_daemon(|_, _| {});
}

#[test]
fn a_file_whose_upload_outlived_its_daemon_can_be_changed_before_it_is_uploaded_again() {
    after_an_upload_that_outlived_its_daemon(|mount, content| {
        append(&mount.at("file"), b"and more").expect("appended");
        content.extend_from_slice(b"and more");
    });
}

/// Empties a file and writes it anew, by the mebibyte, until the daemon is killed behind the last one.
fn kill_while_parts_are_sent(
    backend: &Backend,
    bucket: &Bucket<'_>,
    mebibytes: usize,
    pause: Duration,
) -> Place {
    bucket.put("file", "version");
    let mount = Mount::with(backend, bucket, "--part-size 5MiB");
    let mut file = File::options().write(true).truncate(true).open(mount.at("file")).expect("opened");
    let mebibyte = body(1, 1 << 20);
    for _ in 0..mebibytes {
        file.write_all(&mebibyte).expect("written");
    }
    std::thread::sleep(pause);
    mount.signal(Signal::SIGKILL);
    let place = mount.kill();
    drop(file);
    place
}

/// The next mount ends what the dead one began, and the version that was there is there.
fn assert_ended(backend: &Backend, bucket: &Bucket<'_>, place: Place) {
    let mount = MountOptions::new(backend, &bucket.name).place(place).start();
    let records = || crate::write_back::records_below(&mount.place().home().join("state/supafs/spool"));
    let is_upload = |record: &String| record.contains("\"state\":\"upload\"");
    eventually("no upload on record", || (!records().iter().any(is_upload)).then_some(()));
    assert_eq!(bucket.uploads(), 0, "nothing is on record any more");
    assert_eq!(bucket.bytes("file").expect("it is there"), b"version");
    mount.stop();
}

#[test]
fn an_upload_whose_daemon_was_killed_is_ended_by_the_next_mount() {
    let backend = Backend::start();
    // The first part can be sent once there are more than two: the kill meets the beginning of the upload, or its parts.
    let kills = [(11, 0), (11, 2), (11, 5), (12, 20), (40, 0), (40, 500)];
    let killed = kills.map(|(mebibytes, millis)| {
        let bucket = backend.bucket();
        let pause = Duration::from_millis(millis);
        let place = kill_while_parts_are_sent(&backend, &bucket, mebibytes, pause);
        (bucket, place)
    });
    for (bucket, place) in killed {
        assert_ended(&backend, &bucket, place);
    }
}

#[test]
fn an_upload_of_a_file_that_is_discarded_is_ended_by_the_next_mount() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let place = kill_while_parts_are_sent(&backend, &bucket, 40, Duration::from_millis(500));
    assert_eq!(bucket.uploads(), 1, "its parts are at the server");
    let staged = crate::spool::staged(&place);
    let id = staged[0]["id"].as_str().expect("an id");
    let discarded = place.supafs(["spool", "discard", "--yes", id], &[]).ok();
    assert!(discarded.stderr.contains("removed by the next mount"), "{}", discarded.stderr);
    assert!(crate::spool::staged(&place).is_empty());
    assert_ended(&backend, &bucket, place);
}

#[test]
fn an_upload_whose_beginning_was_not_answered_is_ended_by_the_next_mount() {
    let backend = standin_only!("faults");
    let bucket = backend.bucket();
    let fault = backend.fault(Fault::new(Action::LateHang).on("CreateMultipartUpload"));
    let place = kill_while_parts_are_sent(&backend, &bucket, 40, Duration::from_millis(300));
    assert_eq!(bucket.uploads(), 1, "it was begun, and nobody was told");
    backend.standin().clear_fault(fault);
    assert_ended(&backend, &bucket, place);
}

#[test]
fn an_upload_whose_beginning_was_not_answered_is_ended_by_the_mount_that_lives() {
    let backend = standin_only!("faults");
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--part-size 5MiB --op-timeout 1s");
    let fault = backend.fault(Fault::new(Action::LateHang).on("CreateMultipartUpload"));
    save(&mount.at("file"), &body(1, 12 << 20)).expect_err("the server does not answer");
    assert!(bucket.uploads() > 0, "it was begun, and nobody was told");
    backend.standin().clear_fault(fault);
    eventually("no upload left", || (bucket.uploads() == 0).then_some(()));
    mount.stop();
}

/// Saves a file whose upload is begun twice: the first answer is lost.
fn begin_twice(backend: &Backend, bucket: &Bucket<'_>, mount: &Mount) -> Vec<u8> {
    let lost = backend.fault(Fault::new(Action::ReplyLost).on("CreateMultipartUpload").times(1));
    let bytes = body(1, 12 << 20);
    save(&mount.at("file"), &bytes).expect("the second attempt is answered");
    eventually("the upload", || (bucket.bytes("file")? == bytes).then_some(()));
    assert_eq!(backend.standin().fault_hits(lost), 1);
    assert_eq!(bucket.uploads(), 1, "the first one was begun, and nobody was told");
    bytes
}

#[test]
fn an_upload_that_was_begun_twice_is_ended_by_the_mount_that_lives() {
    for args in ["", "--write-back"] {
        let backend = standin_only!("faults");
        let bucket = backend.bucket();
        let mount = Mount::with(&backend, &bucket, &format!("--part-size 5MiB {args}"));
        begin_twice(&backend, &bucket, &mount);
        // What the same key gets meanwhile is another upload, which holds no part for a while, and stays.
        let slow = Fault::new(Action::Latency(Duration::from_secs(12))).on("UploadPart").times(2);
        let slow = backend.fault(slow);
        let bytes = body(2, 12 << 20);
        save(&mount.at("file"), &bytes).expect("saved");
        eventually("no upload left", || (bucket.uploads() == 0).then_some(()));
        assert!(bucket.bytes("file").as_ref() == Some(&bytes), "{args}");
        assert!(backend.standin().fault_hits(slow) > 0);
        assert_eq!(backend.standin().count("CreateMultipartUpload"), 3, "{args}");
        let spool = mount.place().home().join("state/supafs/spool");
        eventually("an empty spool", || crate::write_back::records_below(&spool).is_empty().then_some(()));
        mount.stop();
    }
}

#[test]
fn an_upload_that_was_begun_twice_is_on_record_until_it_is_ended() {
    let backend = standin_only!("faults");
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--part-size 5MiB");
    begin_twice(&backend, &bucket, &mount);
    let place = mount.kill();
    bucket.put("file", "version");
    assert_ended(&backend, &bucket, place);
}

#[test]
fn an_upload_that_was_begun_twice_is_left_to_whom_the_server_shows_none() {
    let backend = standin_only!("faults");
    let (bucket, users) = backend.users();
    let as_user = MountOptions::new(&backend, &bucket.name).login(Login::User(users.alice.clone()));
    let mount = as_user.args("--part-size 5MiB --log-level debug").start();
    bucket.put(&format!("{}/other", users.alice), "x");
    backend.fault(Fault::new(Action::ReplyLost).on("CreateMultipartUpload").times(1));
    save(&mount.at(&format!("{}/file", users.alice)), &body(1, 12 << 20)).expect("saved");
    eventually("the word about it", || mount.log().contains("to a user none ever is").then_some(()));
    let spool = mount.place().home().join("state/supafs/spool");
    eventually("an empty spool", || crate::write_back::records_below(&spool).is_empty().then_some(()));
    assert_eq!(bucket.uploads(), 1, "README says so");
    mount.stop();
}

/// Kills while a fault holds or breaks an operation, and looks at what the next mount makes of it.
fn kill_during(operation: &str, fault: Fault) {
    let Some(backend) = Backend::standin_only("faults") else { return };
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--part-size 5MiB --write-back --write-back-delay 10ms");
    let (small, large) = (body(1, 10_000), body(2, 23 << 20));
    let fault = backend.fault(fault.on(operation));
    save(&mount.at("small"), &small).expect("acknowledged");
    save(&mount.at("large"), &large).expect("acknowledged");
    eventually("the point", || (backend.standin().fault_hits(fault) > 0).then_some(()));
    let place = mount.kill();
    backend.standin().clear_faults();
    let mount = MountOptions::new(&backend, &bucket.name).place(place).start();
    assert!(mount.read("large") == large && mount.read("small") == small);
    eventually("no upload left", || (bucket.uploads() == 0).then_some(()));
    mount.stop();
    assert_eq!(bucket.keys(), ["large", "small"], "no conflict with oneself: {operation}");
    assert!(bucket.bytes("large").as_ref() == Some(&large), "{operation}");
    assert!(bucket.bytes("small").as_ref() == Some(&small), "{operation}");
}

fn kill_in_every_way(operation: &str) {
    for action in [Action::Hang, Action::LateHang, Action::ReplyLost, Action::ResetBody(1000)] {
        let is_bodiless = !matches!(operation, "PutObject" | "UploadPart");
        if !(is_bodiless && matches!(action, Action::ResetBody(_))) {
            kill_during(operation, Fault::new(action));
        }
    }
}

#[test]
fn a_daemon_killed_during_a_put_loses_nothing() {
    kill_in_every_way("PutObject");
}

#[test]
fn a_daemon_killed_between_parts_loses_nothing() {
    kill_in_every_way("UploadPart");
}

#[test]
fn a_daemon_killed_while_an_upload_is_completed_loses_nothing() {
    kill_in_every_way("CompleteMultipartUpload");
}

#[test]
fn a_daemon_killed_during_a_rename_leaves_the_object_at_one_end_or_both() {
    for operation in ["CopyObject", "DeleteObject"] {
        for action in [Action::Hang, Action::LateHang] {
            let Some(backend) = Backend::standin_only("faults") else { return };
            let bucket = backend.bucket();
            bucket.put("from", "the only one");
            let mount = Mount::new(&backend, &bucket);
            let hang = backend.fault(Fault::new(action).on(operation));
            let (from, to) = (mount.at("from"), mount.at("to"));
            let place = std::thread::scope(|scope| {
                scope.spawn(move || drop(fs::rename(from, to)));
                eventually("the point", || (backend.standin().fault_hits(hang) > 0).then_some(()));
                mount.kill()
            });
            backend.standin().clear_faults();
            let mount = MountOptions::new(&backend, &bucket.name).place(place).start();
            let keys = mount.names("");
            assert!(!keys.is_empty(), "{operation}");
            assert!(keys.iter().all(|key| mount.read(key) == b"the only one"), "{operation}: {keys:?}");
            mount.stop();
        }
    }
}
