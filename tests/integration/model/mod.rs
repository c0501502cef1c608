//! Random operations on a mount and by another client, with remounts and crashes, against a model in memory. After
//! every step the whole tree and all bytes are compared, through the mount and at the server; what fails is shrunk.
//!
//! The short form runs the same cases every time. `SUPAFS_MODEL_CASES=1000 cargo test --release --test integration
//! model::` runs so many others; the seed is printed, and `SUPAFS_MODEL_SEED` runs them again.

mod tree;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use world::World;

/// Names of files and folders alike, so that one stands where another is wanted. One has to be escaped.
const PATHS: [&str; 8] = ["a", "b~", "d", "d/a", "d/e", "d/e/x", "f", "f/a"];

const SLOTS: usize = 2;

#[derive(Clone, Debug)]
pub enum Op {
    /// Opens with `O_CREAT` and `O_TRUNC`, writes and closes.
    Create(&'static str, Bytes),
    WriteAt(&'static str, usize, Bytes),
    Append(&'static str, Bytes),
    Truncate(&'static str, usize),
    Unlink(&'static str),
    Mkdir(&'static str),
    Rmdir(&'static str),
    Rename(&'static str, &'static str),
    Symlink(&'static str),
    Chmod(&'static str, u32),
    Utimens(&'static str, i64),
    /// Keeps a file open over further steps, made if need be.
    Open(usize, &'static str),
    Write(usize, usize, Bytes),
    Cut(usize, usize),
    Fsync(usize),
    Close(usize),
    /// By another client.
    Put(&'static str, Bytes),
    Delete(&'static str),
    Remount,
    Crash,
}

/// Content, by seed and length.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64, pub usize);

fn operations() -> impl Strategy<Value = Vec<Op>> {
    let path = || prop::sample::select(&PATHS[..]);
    let slot = || 0..SLOTS;
    let size = || prop_oneof![Just(0usize), Just(1), 1..9000usize, Just(70_000)];
    let bytes = move || (any::<u64>(), size()).prop_map(|(seed, len)| Bytes(seed % 1000, len));
    let op = prop_oneof![
        6 => (path(), bytes()).prop_map(|(path, bytes)| Op::Create(path, bytes)),
        3 => (path(), size(), bytes()).prop_map(|(path, at, bytes)| Op::WriteAt(path, at, bytes)),
        2 => (path(), bytes()).prop_map(|(path, bytes)| Op::Append(path, bytes)),
        3 => (path(), size()).prop_map(|(path, size)| Op::Truncate(path, size)),
        4 => path().prop_map(Op::Unlink),
        5 => path().prop_map(Op::Mkdir),
        3 => path().prop_map(Op::Rmdir),
        8 => (path(), path()).prop_map(|(from, to)| Op::Rename(from, to)),
        2 => path().prop_map(Op::Symlink),
        2 => (path(), prop::sample::select(&[0o600, 0o640, 0o755, 0o700][..]))
            .prop_map(|(path, mode)| Op::Chmod(path, mode)),
        2 => (path(), 1_000_000_000..1_700_000_000i64).prop_map(|(path, time)| Op::Utimens(path, time)),
        4 => (slot(), path()).prop_map(|(slot, path)| Op::Open(slot, path)),
        4 => (slot(), size(), bytes()).prop_map(|(slot, at, bytes)| Op::Write(slot, at, bytes)),
        1 => (slot(), size()).prop_map(|(slot, size)| Op::Cut(slot, size)),
        1 => slot().prop_map(Op::Fsync),
        3 => slot().prop_map(Op::Close),
        4 => (path(), bytes()).prop_map(|(path, bytes)| Op::Put(path, bytes)),
        2 => path().prop_map(Op::Delete),
        1 => Just(Op::Remount),
        1 => Just(Op::Crash),
    ];
    prop::collection::vec(op, 1..40)
}

fn check(write_back: bool) {
    let wanted = std::env::var("SUPAFS_MODEL_CASES").ok().and_then(|text| text.parse().ok());
    let seed = std::env::var("SUPAFS_MODEL_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let seed = seed.unwrap_or_else(|| if wanted.is_some() { rand::random() } else { 1 });
    let config = Config {
        cases: wanted.unwrap_or(12),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    eprintln!("SUPAFS_MODEL_SEED={seed} SUPAFS_MODEL_CASES={}", config.cases);
    let result = TestRunner::new_with_rng(config, rng).run(&operations(), |operations| {
        let mut world = World::new(write_back);
        for op in &operations {
            world.step(op);
        }
        world.end();
        Ok(())
    });
    if let Err(TestError::Fail(why, least)) = &result {
        panic!("seed {seed}: {why}\nthe least sequence of operations that fails: {least:#?}");
    }
    result.expect("the cases run");
}

#[test]
fn a_mount_does_what_the_model_does() {
    check(false);
}

#[test]
fn a_mount_that_writes_back_does_what_the_model_does() {
    check(true);
}

/// What the model has found.
fn replay(write_back: bool, operations: &[Op]) {
    let mut world = World::new(write_back);
    for op in operations {
        world.step(op);
    }
    world.end();
}

#[test]
fn a_rename_over_a_link_leaves_nothing_of_it() {
    let some = Bytes(1, 10);
    replay(false, &[Op::Symlink("d"), Op::Create("a", some), Op::Rename("a", "d")]);
    replay(false, &[Op::Create("d", some), Op::Symlink("a"), Op::Rename("a", "d")]);
}

#[test]
fn what_takes_the_name_of_something_that_is_still_to_go_stands_alone() {
    let some = Bytes(1, 10);
    // What another client puts waits until the bucket holds all of it: then a removal is a request.
    replay(true, &[Op::Create("d", some), Op::Put("a", some), Op::Unlink("d"), Op::Mkdir("d")]);
    replay(true, &[Op::Symlink("d"), Op::Unlink("d"), Op::Create("d", some)]);
}

#[test]
fn what_is_still_to_go_does_not_come_along_with_its_folder() {
    let some = Bytes(1, 10);
    let before = [Op::Mkdir("d"), Op::Create("d/a", some), Op::Put("a", some)];
    replay(true, &[&before[..], &[Op::Unlink("d/a"), Op::Rename("d", "f")]].concat());
}

#[test]
fn a_folder_that_replaces_another_has_nothing_of_it() {
    let before = [Op::Mkdir("a"), Op::Chmod("a", 0o600), Op::Put("d/a", Bytes(1, 10)), Op::Rename("d", "a")];
    for write_back in [false, true] {
        replay(write_back, &before);
    }
}

#[test]
fn a_folder_that_only_staged_things_are_left_in_stays() {
    let some = Bytes(1, 10);
    for staged in [Op::Mkdir("d/e"), Op::Create("d/e", some)] {
        replay(true, &[Op::Put("d/a", some), staged.clone(), Op::Rename("d/a", "a")]);
        replay(true, &[Op::Put("d/a", some), staged, Op::Unlink("d/a")]);
    }
}

#[test]
fn a_folder_whose_only_file_is_being_written_is_shown() {
    replay(false, &[Op::Put("d/a", Bytes(0, 0)), Op::Open(0, "d/e"), Op::Delete("d/a")]);
}
