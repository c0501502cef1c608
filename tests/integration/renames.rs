//! Renames: of files, open or not yet uploaded, of folders, as keys and as a user whom policies hold back.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use crate::common::{Backend, Bucket, Login, Mount, MountOptions, Put, body, errno, eventually, ops, spent};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use supafs_standin::{Action, Command, Fault, Policy, Predicate};

/// Keeps what the mount knows for the whole test.
const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

fn rename_with(from: &Path, to: &Path, flags: RenameFlags) -> Result<(), Errno> {
    renameat2(AT_FDCWD, from, AT_FDCWD, to, flags)
}

fn text(bucket: &Bucket<'_>, key: &str) -> Option<String> {
    bucket.bytes(key).map(|bytes| String::from_utf8(bytes).expect("text"))
}

#[test]
fn a_file_moves_with_all_that_belongs_to_it() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let how = Put {
        content_type: Some("image/special".to_owned()),
        cache_control: Some("max-age=77".to_owned()),
        metadata: [("author".to_owned(), "Jo".to_owned())].into(),
    };
    bucket.put_with("a/file", "content", how.clone());
    bucket.put_keys(["a/stays", "b/there"]);
    let other = Put { metadata: [("theirs".to_owned(), "old".to_owned())].into(), ..Put::default() };
    bucket.put_with("b/named", "named", other);
    let mount = Mount::new(&backend, &bucket);
    fs::rename(mount.at("a/file"), mount.at("b/moved.txt")).expect("rename");
    assert_eq!(bucket.keys(), ["a/stays", "b/moved.txt", "b/named", "b/there"]);
    assert_eq!(mount.names("a"), ["stays"]);
    assert_eq!(mount.names("b"), ["moved.txt", "named", "there"]);
    assert_eq!(mount.read("b/moved.txt"), b"content");
    let now = bucket.headers("b/moved.txt").expect("there");
    assert_eq!((now.content_type, now.cache_control), (how.content_type, how.cache_control));
    assert_eq!(now.metadata.get("author").map(String::as_str), Some("Jo"));
    // Over another one, of which nothing stays, and onto itself.
    fs::rename(mount.at("a/stays"), mount.at("b/named")).expect("rename");
    assert_eq!(bucket.headers("b/named").expect("there").metadata.get("theirs"), None);
    fs::rename(mount.at("b/moved.txt"), mount.at("b/there")).expect("rename");
    fs::rename(mount.at("b/there"), mount.at("b/there")).expect("rename onto itself");
    assert_eq!(text(&bucket, "b/there").as_deref(), Some("content"));
    assert_eq!(mount.read("b/there"), b"content");
    assert_eq!(errno(fs::rename(mount.at("b/moved.txt"), mount.at("x"))), Errno::ENOENT);
}

#[test]
fn rename_flags_mean_what_they_say() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["one", "two", "folder/file"]);
    let mount = Mount::new(&backend, &bucket);
    let at = |name: &str| mount.at(name);
    let no_replace = RenameFlags::RENAME_NOREPLACE;
    assert_eq!(rename_with(&at("one"), &at("two"), no_replace), Err(Errno::EEXIST));
    assert_eq!(rename_with(&at("folder"), &at("two"), no_replace), Err(Errno::EEXIST));
    rename_with(&at("one"), &at("three"), no_replace).expect("a free name");
    assert_eq!(rename_with(&at("two"), &at("three"), RenameFlags::RENAME_EXCHANGE), Err(Errno::EINVAL));
    assert_eq!(bucket.keys(), ["folder/file", "three", "two"]);
    assert_eq!(text(&bucket, "two").as_deref(), Some("two"));
}

#[test]
fn an_open_file_goes_on_under_its_new_name() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mut model = body(3, 2_000_000);
    bucket.put("old", model.clone());
    let mount = Mount::new(&backend, &bucket);
    let file = OpenOptions::new().read(true).write(true).open(mount.at("old")).expect("open");
    let mut start = vec![0; 1000];
    file.read_exact_at(&mut start, 0).expect("read");
    fs::rename(mount.at("old"), mount.at("new")).expect("rename");
    let mut seen = Vec::new();
    (&file).seek(SeekFrom::Start(0)).expect("seek");
    (&file).read_to_end(&mut seen).expect("read on");
    assert!(seen == model);
    file.write_all_at(b"after", 1_500_000).expect("write");
    model[1_500_000..1_500_005].copy_from_slice(b"after");
    drop(file);
    assert!(bucket.bytes("new").as_ref() == Some(&model));
    // Changed, and not saved yet, when it is renamed.
    let file = OpenOptions::new().read(true).write(true).open(mount.at("new")).expect("open");
    file.write_all_at(b"before", 100).expect("write");
    model[100..106].copy_from_slice(b"before");
    fs::rename(mount.at("new"), mount.at("newer")).expect("rename");
    drop(file);
    assert_eq!(bucket.keys(), ["newer"]);
    assert!(bucket.bytes("newer").as_ref() == Some(&model));
    assert!(mount.read("newer") == model);
}

#[test]
fn a_file_that_is_not_uploaded_yet_is_renamed_without_a_request() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    let file = File::create(mount.at("first.json")).expect("create");
    file.write_all_at(b"staged", 0).expect("write");
    let used = spent(&backend, &mount, || {
        fs::rename(mount.at("first.json"), mount.at("second.html")).expect("rename");
        fs::rename(mount.at("second.html"), mount.at("third.txt")).expect("rename");
        assert_eq!(mount.names(""), ["third.txt"]);
    });
    assert_eq!(used.total(), 0, "{used:?}");
    let used = spent(&backend, &mount, || drop(file));
    assert_eq!((used.get("PutObject"), used.total()), (1, 1), "{used:?}");
    assert_eq!(bucket.keys(), ["third.txt"]);
    assert_eq!(bucket.headers("third.txt").and_then(|now| now.content_type).as_deref(), Some("text/plain"));
    // The same with --write-back, where close has returned already.
    let mount = Mount::with(&backend, &bucket, &format!("{LONG} --write-back --write-back-delay 1m"));
    mount.names("");
    let used = spent(&backend, &mount, || {
        fs::write(mount.at("temporary"), b"saved").expect("write");
        fs::rename(mount.at("temporary"), mount.at("fourth")).expect("rename");
    });
    assert_eq!(used.total(), 0, "{used:?}");
    mount.stop();
    assert_eq!(bucket.keys(), ["fourth", "third.txt"]);
    assert_eq!(text(&bucket, "fourth").as_deref(), Some("saved"));
}

#[test]
fn a_folder_moves_with_everything_below() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mut names: Vec<String> = (0..40).map(|i| format!("{i:02}")).collect();
    names.extend(["sub/deep/file", "caf!C3!A9", "sub/with space", "link.rclonelink"].map(ToOwned::to_owned));
    bucket.put_keys(names.iter().map(|name| format!("from/{name}")));
    bucket.put_keys(["beside", "full/file"]);
    let mount = Mount::new(&backend, &bucket);
    mount.sh("touch -d 2001-02-03 from/00; chmod 600 from/01");
    let open = File::open(mount.at("from/02")).expect("open");
    fs::write(mount.at("from/new"), b"from/new").expect("write");
    fs::create_dir(mount.at("empty")).expect("mkdir");
    assert_eq!(errno(fs::rename(mount.at("from"), mount.at("full"))), Errno::ENOTEMPTY);
    assert_eq!(errno(fs::rename(mount.at("from"), mount.at("from/sub/x"))), Errno::EINVAL);
    assert_eq!(errno(fs::rename(mount.at("from"), mount.at("beside"))), Errno::ENOTDIR);
    assert_eq!(errno(fs::rename(mount.at("beside"), mount.at("from"))), Errno::EISDIR);
    fs::rename(mount.at("from"), mount.at("empty")).expect("over an empty folder");
    let mut keys: Vec<String> = names.iter().map(|name| format!("empty/{name}")).collect();
    keys.extend(["empty/new", "beside", "full/file"].map(ToOwned::to_owned));
    keys.sort();
    let there: Vec<String> = bucket.keys().into_iter().filter(|key| !key.ends_with("Placeholder")).collect();
    assert_eq!(there, keys);
    for key in keys.iter().filter(|key| key.starts_with("empty/")) {
        assert_eq!(text(&bucket, key), Some(key.replace("empty/", "from/")));
    }
    let mut seen = String::new();
    (&open).read_to_string(&mut seen).expect("an open file goes on");
    assert_eq!(seen, "from/02");
    assert_eq!(mount.sh("stat -c '%y' empty/00")[..10], *"2001-02-03");
    assert_eq!(mount.sh("stat -c '%a' empty/01"), "600\n");
    assert!(!mount.at("from").exists());
    assert_eq!(mount.read("empty/café"), b"from/caf!C3!A9");
}

#[test]
fn open_files_follow_their_folder() {
    let backend = Backend::start();
    for mode in ["", " --write-back --write-back-delay 1h"] {
        let bucket = backend.bucket();
        let mount = Mount::with(&backend, &bucket, &format!("--part-size 5MiB{mode}"));
        fs::create_dir(mount.at("d")).expect("mkdir");
        // An upload in parts has another kind of `ETag` than the copy that a rename makes.
        let mut contents = [body(1, 12 << 20), body(2, 1000)];
        let names = ["large", "small"];
        let mut files: Vec<_> = names
            .iter()
            .zip(&contents)
            .map(|(name, bytes)| {
                let path = mount.at(&format!("d/{name}"));
                fs::write(&path, bytes).expect("written");
                let file = OpenOptions::new().read(true).write(true).open(&path).expect("open");
                file.sync_all().expect("in the bucket");
                (file, File::open(path).expect("open"))
            })
            .collect();
        for (round, (from, to)) in [("d", "e"), ("e", "f")].into_iter().enumerate() {
            fs::rename(mount.at(from), mount.at(to)).expect("rename");
            for ((name, bytes), (file, reader)) in names.iter().zip(&mut contents).zip(&mut files) {
                let at = 500 + round;
                file.write_at(b"changed", at as u64).expect("written");
                bytes[at..at + 7].copy_from_slice(b"changed");
                file.sync_all().unwrap_or_else(|error| panic!("{mode} {name} in {to}: {error}"));
                let mut read = [0; 100];
                reader.read_exact_at(&mut read, 450).expect("it follows, too");
                assert_eq!(read[..], bytes[450..550]);
                assert!(mount.read(&format!("{to}/{name}")) == *bytes);
            }
        }
        drop(files);
        mount.stop();
        assert_eq!(bucket.keys(), ["f/.emptyFolderPlaceholder", "f/large", "f/small"]);
        for (name, bytes) in names.iter().zip(&contents) {
            assert!(bucket.bytes(&format!("f/{name}")).as_ref() == Some(bytes), "{mode} {name}");
        }
    }
}

#[test]
fn what_is_saved_while_its_folder_moves_arrives_with_it() {
    let Some(backend) = Backend::standin_only("latency") else { return };
    for mode in ["", "--write-back --write-back-delay 10ms"] {
        let bucket = backend.bucket();
        bucket.put_keys(["d/one", "d/two"]);
        let mount = Mount::with(&backend, &bucket, mode);
        let open = |name| OpenOptions::new().append(true).open(mount.at(name)).expect("open");
        let (mut one, mut two) = (open("d/one"), open("d/two"));
        two.write_all(b" begun").expect("written");
        let copied = backend.fault(Fault::new(Action::LateHang).on("CopyObject"));
        std::thread::scope(|scope| {
            let renaming = scope.spawn(|| fs::rename(mount.at("d"), mount.at("e")));
            eventually("the copies", || (backend.standin().fault_hits(copied) == 2).then_some(()));
            let saving = scope.spawn(|| {
                for file in [&mut one, &mut two] {
                    file.write_all(b" more").expect("written");
                    file.sync_all().expect("saved");
                }
            });
            // Time to upload it to a place that is about to be deleted.
            std::thread::sleep(Duration::from_millis(300));
            backend.standin().clear_fault(copied);
            renaming.join().expect("no panic").expect("renamed");
            saving.join().expect("no panic");
        });
        assert_eq!(mount.names("e"), ["one", "two"]);
        drop((one, two));
        mount.stop();
        assert_eq!(bucket.keys(), ["e/one", "e/two"], "{mode:?}");
        assert_eq!(text(&bucket, "e/one").as_deref(), Some("d/one more"));
        assert_eq!(text(&bucket, "e/two").as_deref(), Some("d/two begun more"));
    }
}

#[test]
fn names_that_change_while_their_folder_moves_arrive_with_it() {
    let Some(backend) = Backend::standin_only("latency") else { return };
    for mode in ["", "--write-back --write-back-delay 10ms"] {
        let bucket = backend.bucket();
        bucket.put_keys(["d/sub/gone", "d/sub/old"]);
        let mount = Mount::with(&backend, &bucket, mode);
        assert_eq!(mount.names("d/sub"), ["gone", "old"]);
        let copied = backend.fault(Fault::new(Action::LateHang).on("CopyObject"));
        std::thread::scope(|scope| {
            let renaming = scope.spawn(|| fs::rename(mount.at("d"), mount.at("e")));
            eventually("the copies", || (backend.standin().fault_hits(copied) == 2).then_some(()));
            let changes = [
                "mkdir d/sub/new",
                "ln -s there d/sub/link",
                "rm d/sub/gone",
                "mv d/sub/old d/sub/young",
                "chmod 700 d/sub",
            ];
            for change in changes {
                scope.spawn(|| mount.sh(change));
            }
            // Time to do it at a place that is about to go.
            std::thread::sleep(Duration::from_millis(500));
            backend.standin().clear_fault(copied);
            renaming.join().expect("no panic").expect("renamed");
        });
        assert_eq!(mount.names("e/sub"), ["link", "new", "young"], "{mode:?}");
        assert_eq!(mount.names(""), ["e"], "{mode:?}");
        assert_eq!(fs::metadata(mount.at("e/sub")).expect("there").permissions().mode() & 0o777, 0o700);
        mount.stop();
        let keys = [".emptyFolderPlaceholder", "link.rclonelink", "new/.emptyFolderPlaceholder", "young"];
        assert_eq!(bucket.keys(), keys.map(|key| format!("e/sub/{key}")), "{mode:?}");
    }
}

#[test]
fn names_that_are_being_changed_when_their_folder_begins_to_move_arrive_with_it() {
    let Some(backend) = Backend::standin_only("latency") else { return };
    let bucket = backend.bucket();
    bucket.put_keys(["d/sub/gone", "d/sub/old"]);
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(mount.names("d/sub"), ["gone", "old"]);
    let held = backend.fault(Fault::new(Action::Hang).on("PutObject"));
    std::thread::scope(|scope| {
        scope.spawn(|| mount.sh("mkdir d/sub/new"));
        scope.spawn(|| mount.sh("ln -s there d/link"));
        eventually("two requests", || (backend.standin().fault_hits(held) == 2).then_some(()));
        let renaming = scope.spawn(|| fs::rename(mount.at("d"), mount.at("e")));
        scope.spawn(|| mount.sh("mv d/sub/old d/sub/young"));
        // Time to list what is there.
        std::thread::sleep(Duration::from_millis(300));
        backend.standin().clear_fault(held);
        renaming.join().expect("no panic").expect("renamed");
    });
    assert_eq!(mount.names("e"), ["link", "sub"]);
    assert_eq!(mount.names("e/sub"), ["gone", "new", "young"]);
    assert_eq!(mount.names(""), ["e"]);
    mount.stop();
    let keys = ["link.rclonelink", "sub/gone", "sub/new/.emptyFolderPlaceholder", "sub/young"];
    assert_eq!(bucket.keys(), keys.map(|key| format!("e/{key}")));
}

#[test]
fn a_file_is_read_on_while_it_moves() {
    let Some(backend) = Backend::standin_only("faults") else { return };
    for (operation, from, to) in [("DeleteObject", "d/file", "d/other"), ("DeleteObjects", "d", "e")] {
        let bucket = backend.bucket();
        let bytes = body(1, 24 << 20);
        bucket.put("d/file", bytes.clone());
        bucket.put_keys(["d/more"]);
        let mount = Mount::with(&backend, &bucket, "--cache-memory 16MiB");
        let reader = File::open(mount.at("d/file")).expect("open");
        let writer = OpenOptions::new().read(true).write(true).open(mount.at("d/file")).expect("open");
        reader.read_exact_at(&mut [0; 100], 0).expect("read");
        for is_draft in [false, true] {
            if is_draft {
                writer.write_at(&bytes[..1], 0).expect("written");
                writer.sync_all().expect("saved");
            }
            let (from, to) = if is_draft { (to, from) } else { (from, to) };
            let deleted = backend.fault(Fault::new(Action::LateHang).on(operation));
            std::thread::scope(|scope| {
                let renaming = scope.spawn(|| fs::rename(mount.at(from), mount.at(to)));
                eventually("the delete", || (backend.standin().fault_hits(deleted) > 0).then_some(()));
                let at: usize = if is_draft { 20 << 20 } else { 12 << 20 };
                let reader = &reader;
                let reading = scope.spawn(move || {
                    let mut read = [0; 1000];
                    reader.read_exact_at(&mut read, at as u64).expect("read on");
                    read
                });
                std::thread::sleep(Duration::from_millis(200));
                backend.standin().clear_fault(deleted);
                renaming.join().expect("no panic").expect("renamed");
                assert!(reading.join().expect("no panic")[..] == bytes[at..at + 1000]);
            });
        }
    }
}

#[test]
fn what_was_removed_from_a_folder_does_not_come_back_with_its_new_name() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["from/one", "from/two", "to/three"]);
    let mount = Mount::with(&backend, &bucket, &format!("{LONG} --write-back --write-back-delay 1m"));
    mount.sh("rm from/one to/three; mv -T from to");
    assert_eq!(mount.names("to"), ["two"]);
    mount.stop();
    let left: Vec<_> = bucket.keys().into_iter().filter(|key| !key.ends_with("Placeholder")).collect();
    assert_eq!(left, ["to/two"]);
}

#[test]
fn a_link_that_replaces_a_file_is_alone_under_its_name_and_so_is_a_file_that_replaces_a_link() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file", "name"]);
    let mount = Mount::new(&backend, &bucket);
    mount.sh("ln -s target link; mv -T link name");
    assert_eq!(bucket.keys(), ["file", "name.rclonelink"]);
    mount.sh("mv -T file name");
    assert_eq!(bucket.keys(), ["name"]);
    assert_eq!(text(&bucket, "name").as_deref(), Some("file"));
    mount.sh("ln -s a x; ln -sfn b x");
    assert_eq!(bucket.keys(), ["name", "x.rclonelink"]);
    // By a file that is not uploaded yet.
    let file = File::create(mount.at("staged")).expect("create");
    file.write_all_at(b"staged", 0).expect("write");
    fs::rename(mount.at("staged"), mount.at("x")).expect("rename");
    drop(file);
    assert_eq!(bucket.keys(), ["name", "x"]);
    assert_eq!(mount.names(""), ["name", "x"]);
    assert_eq!(mount.read("x"), b"staged");
}

/// A bucket in which everybody may do this, and a mount of it by a user.
fn held_back<'a>(backend: &'a Backend, commands: &[Command]) -> (Bucket<'a>, Mount) {
    let (bucket, users) = backend.users();
    let policies = commands.iter().map(|&command| Policy::new(command, Predicate::Always)).collect();
    backend.standin().set_policies(&bucket.name, policies);
    let mount = MountOptions::new(backend, &bucket.name).login(Login::User(users.alice)).args(LONG).start();
    (bucket, mount)
}

#[test]
fn under_a_token_a_rename_that_replaces_keeps_the_old_version_on_the_server_until_it_is_done() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let at = |name: &str| format!("{}/{name}", users.alice);
    bucket.put(&at("new.txt"), "new");
    bucket.put(&at("old.txt"), body(1, 5_000_000));
    let mount =
        MountOptions::new(&backend, &bucket.name).login(Login::User(users.alice.clone())).args(LONG).start();
    mount.names(&users.alice);
    let used = spent(&backend, &mount, || {
        fs::rename(mount.at(&at("new.txt")), mount.at(&at("old.txt"))).expect("rename");
    });
    assert_eq!((used.get("CopyObject"), used.get("DeleteObject"), used.total()), (2, 2, 4), "{used:?}");
    assert_eq!(mount.names(&users.alice), ["old.txt"]);
    assert_eq!(text(&bucket, &at("old.txt")).as_deref(), Some("new"));
    let mine: Vec<_> = bucket.keys().into_iter().filter(|key| key.starts_with(&users.alice)).collect();
    assert_eq!(mine, [at("old.txt")], "nothing stays behind");
}

#[test]
fn a_user_who_must_not_delete_gets_eacces_and_everything_is_as_it_was() {
    let backend = standin_only!("it takes policies of the test's own");
    let (bucket, mount) = held_back(&backend, &[Command::Select, Command::Insert, Command::Update]);
    let how = Put { cache_control: Some("max-age=9".to_owned()), ..Put::default() };
    bucket.put("dir/a.txt", "a");
    bucket.put_with("dir/b.txt", "b", how);
    mount.names("dir");
    for _ in 0..2 {
        let refused = fs::rename(mount.at("dir/a.txt"), mount.at("dir/b.txt"));
        assert_eq!(errno(refused), Errno::EACCES);
    }
    assert_eq!(text(&bucket, "dir/a.txt").as_deref(), Some("a"));
    assert_eq!(text(&bucket, "dir/b.txt").as_deref(), Some("b"));
    let headers = bucket.headers("dir/b.txt").expect("there");
    assert_eq!(headers.cache_control.as_deref(), Some("max-age=9"));
    assert_eq!((mount.read("dir/a.txt"), mount.read("dir/b.txt")), (b"a".to_vec(), b"b".to_vec()));
    // The user cannot delete the copy of the old version either: the log says so, and it is one.
    let left: Vec<_> = bucket.keys().into_iter().filter(|key| key.contains(".supafs-replaced-")).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(mount.log().contains(&left[0]) && mount.log().contains("stays behind"));
}

#[test]
fn a_refused_rename_to_a_new_name_leaves_the_source() {
    let backend = standin_only!("it takes policies of the test's own");
    let (bucket, users) = backend.users();
    let mut policies = vec![Policy::new(Command::Delete, Predicate::Under("free".to_owned()))];
    for command in [Command::Select, Command::Insert, Command::Update] {
        policies.push(Policy::new(command, Predicate::Always));
    }
    backend.standin().set_policies(&bucket.name, policies);
    bucket.put_keys(["kept/a", "kept/b", "free/old"]);
    let mount = MountOptions::new(&backend, &bucket.name).login(Login::User(users.alice)).args(LONG).start();
    assert_eq!(errno(fs::rename(mount.at("kept/a"), mount.at("free/new"))), Errno::EACCES);
    assert_eq!(errno(fs::rename(mount.at("kept/a"), mount.at("free/old"))), Errno::EACCES);
    assert_eq!(bucket.keys(), ["free/old", "kept/a", "kept/b"], "nothing stays behind");
    assert_eq!(text(&bucket, "free/old").as_deref(), Some("free/old"));
    assert_eq!(mount.names("free"), ["old"]);
    assert_eq!(errno(fs::rename(mount.at("kept"), mount.at("free/folder"))), Errno::EACCES);
    assert_eq!(bucket.keys(), ["free/old", "kept/a", "kept/b"], "nor of a folder");
}

#[test]
fn a_rename_whose_delete_was_answered_by_nothing_loses_nothing() {
    let backend = standin_only!("it loses answers");
    let bucket = backend.bucket();
    bucket.put_keys(["a", "b", "c"]);
    let mount = Mount::with(&backend, &bucket, &format!("{LONG} --op-timeout 5s"));
    mount.names("");
    // The delete is made, and nobody hears of it: the source is seen to be gone.
    backend.fault(Fault::new(Action::ReplyLost).on("DeleteObject").times(100));
    fs::rename(mount.at("a"), mount.at("moved")).expect("rename");
    backend.standin().clear_faults();
    assert_eq!(text(&bucket, "moved").as_deref(), Some("a"));
    // It is never made: both are there.
    backend.fault(Fault::status(500, "InternalError").on("DeleteObject"));
    fs::rename(mount.at("b"), mount.at("c")).expect_err("it cannot be done");
    backend.standin().clear_faults();
    assert_eq!(text(&bucket, "b").as_deref(), Some("b"));
    assert!(bucket.bytes("c").is_some());
    ops(&backend, &mount);
}
