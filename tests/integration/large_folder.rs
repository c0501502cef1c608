//! `--write-back` in a large folder: what is written here does not make the folder be listed again, and what waits for
//! its upload is removed without the server.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use supafs_standin::{Action, Fault, FaultId};

use crate::common::{Backend, Bucket, Mount, MountOptions, eventually};
use crate::spool::staged;

/// Files that wait.
const WAITING: usize = 1000;

/// How long work may take that waits for nobody, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Runs work that must not wait for the server.
fn soon(what: &str, work: impl FnOnce() + Send + 'static) {
    let (done, heard) = mpsc::channel();
    let worker = thread::spawn(move || {
        work();
        let _gone = done.send(());
    });
    match heard.recv_timeout(SOON) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} waits for the server"),
        _ => worker.join().expect("done"),
    }
}

#[test]
fn a_large_folder_is_not_listed_again_because_of_uploads_to_it() {
    let backend = standin_only!("it is far away");
    let bucket = backend.bucket();
    bucket.put_keys((0..2000).map(|i| format!("d/old-{i:04}")));
    let mount = Mount::with(&backend, &bucket, "--write-back --metadata-ttl 1s --negative-ttl 1s");
    mount.names("d");
    backend.standin().set_latency(Duration::from_millis(50));
    let before = backend.standin().count("ListObjectsV2");
    let begun = Instant::now();
    let mut count = 0;
    // The listing expires again and again while uploads end all the time.
    while count < 500 || begun.elapsed() < Duration::from_secs(4) {
        fs::write(mount.at(&format!("d/new-{count:05}")), "new").expect("into the spool");
        count += 1;
        thread::sleep(Duration::from_millis(4));
    }
    let lived = begun.elapsed().as_secs();
    let lists = backend.standin().count("ListObjectsV2") - before;
    // Each time to live: three pages, and single names while they are on their way.
    assert!(lists <= 12 * (lived + 2), "{lists} listings for {count} files in {lived} s");
    let names = mount.names("d");
    assert_eq!(names.len(), 2000 + count);
    backend.standin().set_latency(Duration::ZERO);
    mount.stop();
    assert_eq!(bucket.keys().len(), 2000 + count);
}

/// A mount that knows the folder `d`, in which files wait because the server hangs.
fn with_waiting(backend: &Backend, bucket: &Bucket<'_>) -> (Mount, FaultId, Vec<PathBuf>) {
    bucket.put("d/.emptyFolderPlaceholder", "");
    let mount = MountOptions::new(backend, &bucket.name)
        .args("--write-back --metadata-ttl 1h --negative-ttl 1h --drain-timeout 10s")
        .start();
    mount.names("d");
    let hang = backend.fault(Fault::new(Action::Hang));
    let paths: Vec<_> = (0..WAITING).map(|i| mount.at(&format!("d/{i:04}"))).collect();
    let written = paths.clone();
    soon("writing", move || written.iter().for_each(|path| fs::write(path, "first").expect("spooled")));
    // As many uploads as ever are at a time.
    let mut last = 0;
    eventually("the first uploads", || {
        let now = backend.standin().in_flight();
        (now > 0 && std::mem::replace(&mut last, now) == now)
            .then(|| thread::sleep(Duration::from_millis(200)))
    });
    (mount, hang, paths)
}

fn remove_all(paths: &[PathBuf]) {
    let paths = paths.to_vec();
    soon("rm", move || paths.iter().for_each(|path| fs::remove_file(path).expect("removed")));
}

#[test]
fn files_that_wait_for_their_upload_are_removed_without_a_request_while_the_server_hangs() {
    let backend = standin_only!("it hangs");
    let bucket = backend.bucket();
    let (mount, hang, paths) = with_waiting(&backend, &bucket);
    let before = backend.standin().counts();
    remove_all(&paths);
    assert_eq!(backend.standin().counts(), before);
    let directory = mount.at("d");
    soon("ls", move || assert_eq!(fs::read_dir(directory).expect("listed").count(), 0));
    backend.standin().clear_fault(hang);
    // What had been sent by then arrives, and goes.
    eventually("an empty folder", || (bucket.keys() == ["d/.emptyFolderPlaceholder"]).then_some(()));
    eventually("an empty spool", || staged(mount.place()).is_empty().then_some(()));
    assert!(backend.standin().count("PutObject") < 100, "most were never sent");
    let (_, code) = mount.leave();
    assert_eq!(code, Some(0));
    assert_eq!(bucket.keys(), ["d/.emptyFolderPlaceholder"]);
}

#[test]
fn what_is_made_anew_while_the_first_upload_hangs_is_what_remains() {
    let backend = standin_only!("it hangs");
    let bucket = backend.bucket();
    let (mount, hang, paths) = with_waiting(&backend, &bucket);
    remove_all(&paths);
    let again = paths.clone();
    soon("writing", move || again[..200].iter().for_each(|path| fs::write(path, "second").expect("spooled")));
    // Some of these go, too, and one more comes.
    remove_all(&paths[100..200]);
    let third = paths[100].clone();
    soon("writing", move || fs::write(third, "third").expect("spooled"));
    backend.standin().clear_fault(hang);
    let mut expected: Vec<(String, &[u8])> =
        (0..100).map(|i| (format!("d/{i:04}"), &b"second"[..])).collect();
    expected.push(("d/0100".to_owned(), b"third"));
    let (_, code) = mount.leave();
    assert_eq!(code, Some(0));
    let mut keys: Vec<_> = expected.iter().map(|(key, _)| key.clone()).collect();
    keys.insert(0, "d/.emptyFolderPlaceholder".to_owned());
    assert_eq!(bucket.keys(), keys);
    for (key, bytes) in expected {
        assert_eq!(bucket.bytes(&key).as_deref(), Some(bytes), "{key}");
    }
}

#[test]
fn what_was_removed_while_its_upload_hung_goes_also_after_a_crash() {
    let backend = standin_only!("a reply is lost");
    let bucket = backend.bucket();
    bucket.put("keep", "keep");
    let mount = Mount::with(&backend, &bucket, "--write-back --metadata-ttl 1h --negative-ttl 1h");
    mount.names("");
    // Carried out, but not answered.
    let hang = backend.fault(Fault::new(Action::LateHang).on("PutObject"));
    let path = mount.at("a");
    soon("writing", move || {
        fs::File::create(&path).and_then(|mut file| file.write_all(b"first")).expect("spooled");
    });
    eventually("the upload", || bucket.bytes("a"));
    let path = mount.at("a");
    soon("rm", move || fs::remove_file(path).expect("removed"));
    let place = mount.kill();
    backend.standin().clear_fault(hang);
    assert_eq!(bucket.keys(), ["a", "keep"]);
    let mount = MountOptions::new(&backend, &bucket.name).args("--write-back").place(place).start();
    assert_eq!(mount.names(""), ["keep"]);
    eventually("the removal", || (bucket.keys() == ["keep"]).then_some(()));
    mount.stop();
}
