use std::os::unix::fs::{FileExt, PermissionsExt};

use super::*;

const OPTIONS: SpoolOptions = SpoolOptions { capacity: 1000, sync: false };

fn open(dir: &Path) -> (Arc<Spool>, Recovered) {
    Spool::open(dir, OPTIONS, Owner::default()).expect("the spool opens")
}

fn record(key: &str, state: RecordState) -> Record {
    Record { key: key.to_owned(), state, size: 4, local: vec![(0, 4)], ..Record::new(&Owner::default()) }
}

fn leave(spool: &Arc<Spool>, key: &str, state: RecordState) -> String {
    let file = spool.create(record(key, state)).expect("a file");
    file.data().expect("it opens").write_all_at(b"data", 0).expect("data");
    file.id().to_owned()
}

#[test]
fn what_was_committed_is_found_again_and_what_was_open_is_kept_aside() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spool, _) = open(dir.path());
    leave(&spool, "a", RecordState::Committed);
    leave(&spool, "b", RecordState::Open);
    leave(&spool, "", RecordState::Open);
    drop(spool);
    let (spool, recovered) = open(dir.path());
    let keys: Vec<&str> = recovered.committed.iter().map(|(_, record)| record.key.as_str()).collect();
    assert_eq!((keys, recovered.parked, recovered.quarantined.len()), (vec!["a"], 1, 0));
    let mut bytes = [0; 4];
    recovered.committed[0].0.data().expect("it opens").read_exact_at(&mut bytes, 0).expect("its data");
    assert_eq!(&bytes, b"data");
    assert_eq!(spool.used(), 8);
    // Once more: a parked file stays parked, and is not lost.
    drop((spool, recovered));
    assert_eq!(open(dir.path()).1.parked, 1);
}

#[test]
fn what_cannot_be_read_is_moved_aside() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spool, _) = open(dir.path());
    let torn = leave(&spool, "torn", RecordState::Committed);
    let lonely = leave(&spool, "lonely", RecordState::Committed);
    let bare = leave(&spool, "bare", RecordState::Committed);
    let slot = spool.dir().to_owned();
    drop(spool);
    fs::write(slot.join(format!("{torn}.json")), b"{\"version\":1,").expect("torn");
    fs::remove_file(slot.join(format!("{lonely}.data"))).expect("lonely");
    fs::remove_file(slot.join(format!("{bare}.json"))).expect("bare");
    fs::write(slot.join(format!("{bare}.json.new")), b"{").expect("a record that was never renamed");
    let (_spool, recovered) = open(dir.path());
    assert!(recovered.committed.is_empty());
    assert_eq!(recovered.quarantined.len(), 4, "{:?}", recovered.quarantined);
    assert!(recovered.quarantined.iter().all(|path| path.exists()));
}

#[test]
fn a_record_that_was_being_replaced_does_not_keep_the_spool_from_opening() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spool, _) = open(dir.path());
    // That of the open file is replaced again at the start.
    let ids = [RecordState::Committed, RecordState::Open].map(|state| leave(&spool, "a", state));
    let slot = spool.dir().to_owned();
    drop(spool);
    for id in ids {
        fs::write(slot.join(format!("{id}.json.new")), b"{").expect("a record that was never renamed");
    }
    let (_spool, recovered) = open(dir.path());
    assert_eq!((recovered.committed.len(), recovered.parked, recovered.quarantined.len()), (1, 1, 0));
    let left = fs::read_dir(slot).expect("the spool").flatten().map(|entry| entry.file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().ends_with(".new")).count(), 0);
}

#[test]
fn a_second_mount_has_its_own_place_and_the_dead_are_taken_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, _) = open(dir.path());
    let (second, _) = open(dir.path());
    assert_ne!(first.dir(), second.dir());
    leave(&second, "of-the-second", RecordState::Committed);
    drop(second);
    // The first still runs; the next one finds what the second left.
    let (_third, recovered) = open(dir.path());
    assert_eq!(recovered.committed.len(), 1);
}

#[test]
fn a_full_spool_refuses_and_takes_again_what_was_given_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spool, _) = open(dir.path());
    let file = spool.create(record("a", RecordState::Open)).expect("a file");
    file.reserve(900).expect("there is room");
    assert_eq!(file.reserve(101).expect_err("full").kind(), io::ErrorKind::StorageFull);
    file.release(500);
    file.reserve(600).expect("there is room again");
    file.remove().expect("it goes");
    assert_eq!(spool.used(), 0);
    assert_eq!(fs::read_dir(spool.dir()).expect("the spool").count(), 1, "only the lock is left");
}

#[test]
fn nobody_else_may_look() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spool, _) = open(&dir.path().join("spool"));
    leave(&spool, "a", RecordState::Open);
    assert_eq!(fs::metadata(spool.dir()).expect("it is there").permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(spool.dir()).expect("the spool") {
        let mode = entry.expect("an entry").metadata().expect("its mode").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
