//! A policy that forbids a write is told when the file is opened: a shell ignores what `close` says. What that costs,
//! and what only `close` can tell.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use supafs_standin::{Action, Command, Fault, Policy, Predicate};

use crate::common::{Backend, Bucket, Login, Mount, MountOptions, Ops, eventually, spent};
use crate::spool::staged;

const NOTHING: [(&str, u64); 0] = [];

fn mount_user(backend: &Backend, bucket: &Bucket<'_>, user: &str, args: &str) -> Mount {
    let options = MountOptions::new(backend, &bucket.name).login(Login::User(user.to_owned()));
    options.args("--metadata-ttl 1h --negative-ttl 1h").args(args).start()
}

#[track_caller]
fn assert_denied<T>(result: io::Result<T>) {
    let error = result.err().expect("it is refused");
    assert_eq!(error.raw_os_error(), Some(Errno::EACCES as i32), "{error}");
}

/// Whether a key is written to by any request that stores something.
fn was_stored(backend: &Backend, key: &str) -> bool {
    let stores = ["PutObject", "UploadPart", "CompleteMultipartUpload"];
    backend.standin().log().iter().any(|entry| entry.key == key && stores.contains(&entry.operation))
}

#[test]
fn whoever_may_not_write_is_told_when_the_file_is_opened() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let (old, new) = (format!("{}/old", users.shared), format!("{}/new", users.shared));
    bucket.put(&old, "old");
    let before = bucket.own();
    for args in ["", "--write-back --write-back-delay 1h"] {
        let mount = mount_user(&backend, &bucket, &users.alice, args);
        for name in [&new, &old] {
            for line in [
                format!("bash -c 'echo hi > {name}'"),
                format!("dash -c 'echo hi > {name}'"),
                format!("bash -c 'echo hi >> {name}'"),
                format!("dash -c 'echo hi >> {name}'"),
                format!("python3 -c \"f = open('{name}', 'w'); f.write('hi')\""),
                format!("python3 -c \"f = open('{name}', 'ab'); f.write(b'hi')\""),
                format!("cp /etc/hostname {name}"),
                format!("dd if=/dev/zero of={name} bs=1 count=1 conv=notrunc"),
            ] {
                // The exit code is that of the line itself, which is what scripts look at.
                let told = mount.sh(&format!("({line}) 2>&1 && echo 'exit 0' || echo \"exit $?\""));
                assert!(told.contains("Permission denied") && !told.ends_with("exit 0\n"), "{line}: {told}");
            }
        }
        let told = mount.sh(&format!("touch {new} 2>&1 || echo \"exit $?\""));
        assert!(told.contains("Permission denied") && told.ends_with("exit 1\n"), "{told}");
        assert_denied(File::create_new(mount.at(&new)));
        // Nothing shows afterwards, here, at the server, or in the spool; and what is only read can be read.
        assert_eq!(mount.names(&users.shared), ["old"]);
        assert_eq!(mount.read(&old), b"old");
        assert_eq!(staged(mount.place()), [] as [serde_json::Value; 0]);
        let words =
            mount.sh(&format!("getfattr --only-values -n user.supabase.last-error '{}'", users.shared));
        assert!(words.contains("row-level security"), "{words}");
        mount.stop();
        assert_eq!(bucket.own(), before, "{args}");
        if !backend.is_real() {
            assert!(![&new, &old].iter().any(|key| was_stored(&backend, key)));
            assert_eq!(backend.standin().uploads(&bucket.name), []);
        }
    }
}

#[test]
fn a_setting_that_waits_does_not_keep_a_refusal_from_whoever_writes() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    for (number, args) in ["", "--write-back"].into_iter().enumerate() {
        for set in ["touch FILE", "chmod 600 FILE", "setfattr -n user.supabase.meta.a -v b FILE"] {
            let name = format!("{}/{number}{}", users.shared, &set[..2]);
            bucket.put(&name, "old");
            let mount = mount_user(&backend, &bucket, &users.alice, args);
            let line = format!(
                "{}; bash -c 'echo hi > {name}' 2>&1 || echo \"exit $?\"",
                set.replace("FILE", &name)
            );
            let told = mount.sh(&line);
            assert!(told.contains("Permission denied") && told.ends_with("exit 1\n"), "{line}: {told}");
            eventually("nothing to wait", || staged(mount.place()).is_empty().then_some(()));
            assert_eq!(mount.read(&name), b"old");
            // What was set was refused a moment later.
            drop(mount.leave());
            assert_eq!(bucket.bytes(&name).as_deref(), Some(&b"old"[..]));
        }
    }
}

#[test]
fn a_policy_that_raises_an_error_when_something_is_written_is_told_at_open() {
    let backend = standin_only!("its policies raise errors for writes alone");
    let (bucket, users) = backend.users();
    let all = Predicate::Always;
    let raises =
        |sqlstate: &str| Predicate::Raises { sqlstate: sqlstate.to_owned(), of: Box::new(Predicate::Always) };
    for sqlstate in ["22012", "P0001"] {
        let name = &bucket.name;
        let policy = |command, predicate| Policy::new(command, predicate);
        backend.standin().set_policies(
            name,
            vec![
                policy(Command::Select, all.clone()),
                policy(Command::Insert, raises(sqlstate)),
                policy(Command::Update, raises(sqlstate)),
            ],
        );
        bucket.put("folder/old", "old");
        for args in ["", "--write-back"] {
            let mount = mount_user(&backend, &bucket, &users.alice, args);
            for path in ["folder/new", "folder/old"] {
                let told = mount.sh(&format!("bash -c 'echo hi > {path}' 2>&1 || echo \"exit $?\""));
                assert!(told.contains("Permission denied") && told.ends_with("exit 1\n"), "{path}: {told}");
            }
            let words = mount.sh("getfattr --only-values -n user.supabase.last-error folder");
            assert!(words.contains(sqlstate), "{words}");
            let log = mount.log();
            assert_eq!(log.lines().filter(|line| line.contains("policy error")).count(), 1, "{log}");
            assert_eq!(staged(mount.place()), [] as [serde_json::Value; 0]);
            mount.stop();
        }
        assert_eq!(bucket.bytes("folder/old").as_deref(), Some(&b"old"[..]));
    }
}

#[test]
fn the_first_file_that_is_made_in_a_folder_costs_one_request_more_and_later_ones_none() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    bucket.put(&format!("{}/a/old", users.alice), "old");
    bucket.put(&format!("{}/a/older", users.alice), "older");
    let at = |name: &str| format!("{}/a/{name}", users.alice);
    for (login, question) in [(Login::User(users.alice.clone()), 1), (Login::Keys, 0)] {
        let mount = MountOptions::new(&backend, &bucket.name)
            .login(login)
            .args("--metadata-ttl 1h --negative-ttl 1h")
            .start();
        mount.names(&format!("{}/a", users.alice));
        let asked = |more: &[(&'static str, u64)]| {
            let mut ops = more.to_vec();
            ops.extend([("SignUploadUrl", question)].iter().filter(|(_, count)| *count > 0));
            Ops::of(ops)
        };
        let write = |name: &str| fs::write(mount.at(&at(name)), "new").expect("written");
        // The bucket's limits are asked for once, for all folders.
        let first = [("PutObject", 1), ("GetBucket", question)];
        let first: Vec<_> = first.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(spent(&backend, &mount, || write("1")), asked(&first));
        assert_eq!(spent(&backend, &mount, || write("2.txt")), Ops::of([("PutObject", 1)]));
        // What was never in the bucket here is asked about once more: the right to replace is another one.
        let used = spent(&backend, &mount, || write("old"));
        assert_eq!(used, asked(&[("PutObject", 1), ("HeadObject", 1)]));
        let used = spent(&backend, &mount, || write("older"));
        assert_eq!(used, Ops::of([("PutObject", 1), ("HeadObject", 1)]));
        // Reading asks for nothing.
        assert_eq!(spent(&backend, &mount, || drop(mount.read(&at("1")))), Ops::of(NOTHING));
        mount.stop();
        for name in ["1", "2.txt"] {
            bucket.delete(&at(name));
        }
    }
}

#[test]
fn sixteen_files_at_once_ask_one_question() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let mount = mount_user(&backend, &bucket, &users.alice, "");
    fs::create_dir(mount.at(&users.alice)).expect("made");
    let used = spent(&backend, &mount, || {
        thread::scope(|scope| {
            for i in 0..16 {
                let path = mount.at(&format!("{}/{i}", users.alice));
                scope.spawn(move || fs::write(path, "new").expect("written"));
            }
        });
    });
    assert_eq!(used, Ops::of([("SignUploadUrl", 1), ("GetBucket", 1), ("PutObject", 16)]));
}

#[test]
fn a_policy_by_extension_refuses_one_name_and_allows_another_in_the_same_folder() {
    let backend = Backend::start();
    let (bucket, lab) = backend.laboratory();
    bucket.put(&format!("{}/.emptyFolderPlaceholder", lab.notes), "");
    for args in ["", "--write-back --write-back-delay 50ms"] {
        let mount = mount_user(&backend, &bucket, &lab.bob, args);
        let at = |name: &str| mount.at(&format!("{}/{name}", lab.notes));
        assert_denied(File::create(at("a.bin")));
        fs::write(at("a.txt"), "a").expect("it is allowed");
        // After one refusal the names of the folder are told apart.
        assert_denied(File::create(at("b.bin")));
        assert_denied(File::create(at("txt.bin")));
        fs::write(at("b.txt"), "b").expect("it is allowed");
        thread::scope(|scope| {
            for i in 0..8 {
                scope.spawn(move || fs::write(at(&format!("{i}.txt")), "text").expect("it is allowed"));
                scope.spawn(move || assert_denied(File::create(at(&format!("{i}.bin")))));
            }
        });
        mount.stop();
        let mut names: Vec<String> = (0..8).map(|i| format!("{i}.txt")).collect();
        names.extend(["a.txt".to_owned(), "b.txt".to_owned()]);
        let made: Vec<_> = bucket
            .own()
            .into_keys()
            .filter_map(|key| key.strip_prefix(&lab.notes).map(str::to_owned))
            .collect();
        let expected: Vec<_> = [".emptyFolderPlaceholder".to_owned()]
            .into_iter()
            .chain(names)
            .map(|n| format!("/{n}"))
            .collect();
        assert_eq!(made, expected);
    }
}

#[test]
fn a_question_without_an_answer_forbids_nothing() {
    let backend = standin_only!("the question fails");
    let refusals = [
        Fault::new(Action::Hang),
        Fault::new(Action::Reset),
        Fault::status(500, "InternalError"),
        Fault::status(503, "SlowDown"),
    ];
    for fault in refusals {
        let (bucket, users) = backend.users();
        bucket.put(&format!("{}/old", users.shared), "old");
        let mount = mount_user(&backend, &bucket, &users.alice, "");
        let armed = backend.fault(fault.clone().on("SignUploadUrl"));
        fs::create_dir_all(mount.at(&format!("{}/d", users.alice))).expect("made");
        let begun = Instant::now();
        for name in ["1", "2", "d/3"] {
            fs::write(mount.at(&format!("{}/{name}", users.alice)), name).expect("written all the same");
        }
        // One question is waited for, for three seconds, and the others are not asked.
        assert!(begun.elapsed() < Duration::from_secs(20), "{fault:?}: {:?}", begun.elapsed());
        assert_eq!(backend.standin().fault_hits(armed), 1, "{fault:?}");
        let mut file = File::create(mount.at(&format!("{}/new", users.shared))).expect("close tells");
        file.write_all(b"secret").expect("into the spool");
        assert_denied(file.sync_all());
        backend.standin().clear_fault(armed);
        drop(file);
        mount.stop();
    }
}

#[test]
fn a_mount_that_ends_before_a_refused_file_is_let_go_keeps_nothing_of_it() {
    let backend = standin_only!("the question fails");
    let (bucket, users) = backend.users();
    bucket.put(&format!("{}/old", users.shared), "old");
    let mount = mount_user(&backend, &bucket, &users.alice, "");
    let armed = backend.fault(Fault::status(500, "InternalError").on("SignUploadUrl"));
    let mut file = File::create(mount.at(&format!("{}/new", users.shared))).expect("fsync tells");
    file.write_all(b"secret").expect("into the spool");
    assert_denied(file.sync_all());
    assert_eq!(backend.standin().fault_hits(armed), 1);
    let (place, code) = mount.leave();
    assert_eq!(code, Some(0), "nothing is left to upload");
    assert_eq!(place.supafs(["spool", "list"], &[]).ok().stdout, "nothing waits\n");
    drop(file);
}

#[test]
fn where_the_api_does_not_know_the_question_an_upload_is_begun_and_aborted() {
    let backend = standin_only!("the API does not answer as it should");
    let (bucket, users) = backend.users();
    bucket.put(&format!("{}/old", users.shared), "old");
    let mount = mount_user(&backend, &bucket, &users.alice, "");
    fs::create_dir_all(mount.at(&format!("{}/d", users.alice))).expect("made");
    backend.fault(Fault::status(404, "NotFound").on("SignUploadUrl"));
    let begun = [("CreateMultipartUpload", 1), ("AbortMultipartUpload", 1), ("PutObject", 1)];
    let write = |name: &str| fs::write(mount.at(&format!("{}/{name}", users.alice)), "new").expect("written");
    let first = spent(&backend, &mount, || write("1"));
    assert_eq!(first, Ops::of(begun.into_iter().chain([("SignUploadUrl", 1), ("GetBucket", 1)])));
    // The API has misled once: it is not asked again.
    assert_eq!(spent(&backend, &mount, || write("d/1")), Ops::of(begun));
    assert_eq!(spent(&backend, &mount, || write("2")), Ops::of([("PutObject", 1)]));
    assert_denied(File::create(mount.at(&format!("{}/new", users.shared))));
    mount.stop();
    assert_eq!(backend.standin().uploads(&bucket.name), []);
}

#[test]
fn an_upload_that_only_asked_is_aborted_by_the_next_mount_after_a_crash() {
    let backend = standin_only!("an abort hangs");
    let (bucket, users) = backend.users();
    let mount = mount_user(&backend, &bucket, &users.alice, "");
    fs::create_dir(mount.at(&users.alice)).expect("made");
    backend.fault(Fault::status(404, "NotFound").on("SignUploadUrl"));
    let reset = backend.fault(Fault::new(Action::Reset).on("AbortMultipartUpload"));
    fs::write(mount.at(&format!("{}/a", users.alice)), "a").expect("the abort is not waited for");
    assert_eq!(backend.standin().uploads(&bucket.name).len(), 1);
    let place = mount.kill();
    backend.standin().clear_fault(reset);
    let options = MountOptions::new(&backend, &bucket.name).login(Login::User(users.alice.clone()));
    let mount = options.place(place).start();
    eventually("the abort", || backend.standin().uploads(&bucket.name).is_empty().then_some(()));
    mount.stop();
}

#[test]
fn a_policy_that_changes_is_told_at_close_and_then_at_open() {
    let backend = standin_only!("it changes policies");
    let (bucket, users) = backend.users();
    let mount = mount_user(&backend, &bucket, &users.alice, "");
    let at = |name: &str| mount.at(&format!("{}/{name}", users.alice));
    fs::create_dir(mount.at(&users.alice)).expect("made");
    fs::write(at("1"), "new").expect("allowed");
    backend.standin().set_policies(&bucket.name, Policy::authenticated_read());
    let mut file = File::create(at("2")).expect("what was allowed a moment ago is not asked again");
    file.write_all(b"new").expect("into the spool");
    assert_denied(file.sync_all());
    drop(file);
    assert_denied(File::create(at("3")));
    assert_denied(OpenOptions::new().append(true).open(at("1")));
    // And back.
    backend.standin().set_policies(&bucket.name, Policy::authenticated_all());
    eventually("the refusal to be forgotten", || fs::write(at("3"), "new").ok());
    assert_eq!(bucket.bytes(&format!("{}/3", users.alice)).as_deref(), Some(&b"new"[..]));
}

#[test]
fn who_may_add_but_not_replace_is_told_so_at_open() {
    let backend = standin_only!("it sets policies");
    let (bucket, users) = backend.users();
    let adds = [Command::Select, Command::Insert].map(|command| Policy::new(command, Predicate::Always));
    backend.standin().set_policies(&bucket.name, adds.to_vec());
    bucket.put_keys(["d/old", "d/older"]);
    let mount = mount_user(&backend, &bucket, &users.alice, "--write-back --write-back-delay 1h");
    fs::write(mount.at("d/new"), "new").expect("a new file");
    for name in ["d/old", "d/older"] {
        assert_denied(File::create(mount.at(name)));
        assert_denied(OpenOptions::new().append(true).open(mount.at(name)));
        assert_denied(OpenOptions::new().write(true).read(true).open(mount.at(name)));
    }
    // What is not in the bucket yet is written to as before.
    fs::write(mount.at("d/new"), "newer").expect("still ours alone");
    fs::write(mount.at("d/another"), "new").expect("a new file");
    mount.stop();
    assert_eq!(bucket.bytes("d/new").as_deref(), Some(&b"newer"[..]));
}
