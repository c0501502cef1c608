//! File descriptors: files that wait for their upload take none, files that are open for writing one each. A lack of
//! them is told as one.

use std::fs::{self, File};
use std::io::Write as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use supafs_standin::{Action, Fault};

use crate::common::{Backend, Mount, MountOptions, eventually};
use crate::spool::staged;

const FEW: u64 = 200;
/// What uploads take: 48 at a time, each with a connection and a file, and what any daemon has open.
const FOR_UPLOADS: usize = 150;
const WAITING: &str = "--write-back --write-back-delay 20ms --drain-timeout 1s";

/// What this process may open: as many files as the daemon.
fn open_many() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
}

fn descriptors(mount: &Mount) -> usize {
    fs::read_dir(format!("/proc/{}/fd", mount.pid())).expect("the daemon lives").count()
}

fn name(number: usize) -> String {
    format!("d{:03}/file-{number:06}", number / 1000)
}

fn content(number: usize) -> Vec<u8> {
    format!("content of {number}\n").into_bytes()
}

#[test]
fn thousands_of_files_wait_for_the_server_with_few_descriptors() {
    wait(3000, Duration::from_mins(2));
}

#[test]
#[ignore = "100,000 files take some minutes"]
fn a_hundred_thousand_files_wait_for_the_server_with_few_descriptors() {
    wait(100_000, Duration::from_mins(20));
}

/// Files are written during an outage, read, survive the daemon's death, and reach the bucket in the end.
fn wait(files: usize, limit: Duration) {
    let Some(backend) = Backend::standin_only("the server does not answer uploads") else { return };
    let bucket = backend.bucket();
    let start = |place| {
        let options = MountOptions::new(&backend, &bucket.name).args(WAITING).descriptors(FEW, FEW);
        options.watchdog(limit).place(place).start()
    };
    let outage = backend.fault(Fault::new(Action::Hang).on("PutObject"));
    let mount = start(crate::common::Place::new());
    let before = mount.resident();
    let begun = Instant::now();
    for number in 0..files {
        if number % 1000 == 0 {
            fs::create_dir(mount.at(&name(number)).parent().expect("a folder")).expect("made");
        }
        fs::write(mount.at(&name(number)), content(number)).expect("acknowledged");
    }
    let written = begun.elapsed();
    let grown = mount.resident().saturating_sub(before);
    eventually("descriptors to be given back", || (descriptors(&mount) < FOR_UPLOADS).then_some(()));
    for number in (0..files).step_by(7) {
        assert!(mount.read(&name(number)) == content(number), "{number}");
    }
    // Changed, renamed and removed while they wait: the last ones, whose uploads have not begun.
    let [changed, moved, removed] = [1, 2, 3].map(|back| files - back);
    let mut appended = fs::OpenOptions::new().append(true).open(mount.at(&name(changed))).expect("opened");
    appended.write_all(b"+").expect("more");
    drop(appended);
    fs::rename(mount.at(&name(moved)), mount.at("renamed")).expect("renamed");
    let gone = File::open(mount.at(&name(removed))).expect("opened");
    fs::remove_file(mount.at(&name(removed))).expect("removed");
    assert_eq!(std::io::read_to_string(&gone).expect("it can still be read").as_bytes(), content(removed));
    drop(gone);
    let place = mount.kill();

    let begun = Instant::now();
    let mount = start(place);
    let recovered = begun.elapsed();
    println!(
        "{files} files: written in {written:?}, {} bytes of memory each, the next mount after {recovered:?} with {} bytes each",
        grown / files as u64,
        mount.resident() / files as u64
    );
    assert!(descriptors(&mount) < FOR_UPLOADS, "{} descriptors", descriptors(&mount));
    for number in (0..files - 3).step_by(11) {
        assert!(mount.read(&name(number)) == content(number), "{number}");
    }
    backend.standin().clear_fault(outage);
    let begun = Instant::now();
    while mount.status()["waiting"] != 0 {
        assert!(begun.elapsed() < limit, "not all is uploaded: {}", mount.status());
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("uploaded in {:?}", begun.elapsed());
    for number in 0..files - 3 {
        assert!(bucket.bytes(&name(number)) == Some(content(number)), "{number}");
    }
    assert_eq!(bucket.bytes(&name(changed)), Some([content(changed), b"+".to_vec()].concat()));
    assert_eq!(bucket.bytes("renamed"), Some(content(moved)));
    assert_eq!([moved, removed].map(|number| bucket.bytes(&name(number))), [None, None]);
    assert_eq!(staged(mount.place()), Vec::<serde_json::Value>::new());
    assert!(!mount.log().contains("Too many open files"), "descriptors were lacking");
    mount.stop();
}

#[test]
fn files_open_for_writing_may_be_as_many_as_the_hard_limit_lets() {
    const FILES: usize = 2000;
    let backend = Backend::start();
    let bucket = backend.bucket();
    open_many();
    let mount = MountOptions::new(&backend, &bucket.name)
        .args("--write-back")
        .descriptors(1024, 4096)
        .watchdog(Duration::from_mins(3))
        .start();
    let mut open: Vec<File> = (0..FILES)
        .map(|number| File::create(mount.at(&format!("{number}"))).expect("opened for writing"))
        .collect();
    for (number, file) in open.iter_mut().enumerate() {
        file.write_all(&content(number)).expect("written");
    }
    for (number, file) in open.into_iter().enumerate() {
        nix::unistd::close(file).unwrap_or_else(|error| panic!("{number}: {error}"));
    }
    mount.stop();
    assert_eq!(bucket.keys().len(), FILES);
    assert_eq!(bucket.bytes("1999"), Some(content(1999)));
}

#[test]
fn a_lack_of_descriptors_is_told_as_one_and_the_mount_goes_on() {
    let backend = Backend::start();
    for options in ["", "--write-back"] {
        let bucket = backend.bucket();
        let mount = MountOptions::new(&backend, &bucket.name).args(options).descriptors(FEW, FEW).start();
        let mut open = Vec::new();
        let refused = loop {
            match File::create(mount.at(&format!("{}", open.len()))) {
                Ok(file) => open.push(file),
                Err(error) => break error,
            }
            assert!(open.len() < 300, "more files than descriptors");
        };
        assert_eq!(refused.raw_os_error(), Some(Errno::ENFILE as i32), "{refused}");
        assert!(open.len() >= 50, "{} files", open.len());
        let log = mount.log();
        assert!(
            log.contains("no file descriptor is free") && !log.contains("the spool's disk fails"),
            "{log}"
        );
        for (number, file) in open.iter_mut().enumerate() {
            file.write_all(&content(number)).expect("what is open can be written");
        }
        assert_eq!(mount.names("").len(), open.len());
        drop(open.pop());
        eventually("its place", || File::create(mount.at("another")).ok());
        let files = open.len();
        for file in open {
            nix::unistd::close(file).expect("stored");
        }
        mount.stop();
        assert_eq!(bucket.keys().len(), files + 2);
        assert_eq!(bucket.bytes("7"), Some(content(7)));
    }
}
