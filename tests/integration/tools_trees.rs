//! Tools that go through whole trees, with what the server has afterwards.

use std::path::Path;

use crate::common::{Backend, Bucket, Mount, MountOptions, run, sorted_lines};

/// Files, a link, modes and times, in a directory of its own.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = "mkdir -p t/d/e; head -c 300000 /dev/urandom > t/r; echo x > t/d/x; chmod 640 t/d/x
        touch -d '2001-02-03 04:05:06.789' t/d/x; ln -s d/x t/l; : > t/d/e/empty";
    run(dir.path(), lines);
    dir
}

/// Every file below `local` is in the bucket, byte for byte.
#[track_caller]
fn assert_stored(bucket: &Bucket<'_>, prefix: &str, local: &Path) {
    for path in sorted_lines(&run(local, "find . -type f -printf '%P\\n'")) {
        let expected = std::fs::read(local.join(&path)).expect("a file");
        assert!(bucket.bytes(&format!("{prefix}{path}")) == Some(expected), "{path}");
    }
}

#[test]
fn cp_and_mv_keep_a_tree() {
    let backend = Backend::start();
    for args in ["", "--write-back"] {
        let bucket = backend.bucket();
        let local = tree();
        let mount = Mount::with(&backend, &bucket, args);
        let (from, shape) = (local.path().display(), "find . -type f -printf '%P %m %T@\\n' | sort");
        mount
            .sh(&format!("cp -a {from}/t a; diff -r --no-dereference {from}/t a; [ $(readlink a/l) = d/x ]"));
        assert_eq!(run(&mount.at("a"), shape), run(&local.path().join("t"), shape));
        // Across file systems, within one, and back.
        mount.sh(&format!("cp -a a {from}/u; mv {from}/u b; mv b c; cp -a c c2; mv c2 {from}/v"));
        run(local.path(), "diff -r --no-dereference t v");
        mount.stop();
        assert_stored(&bucket, "a/", &local.path().join("t"));
        assert_stored(&bucket, "c/", &local.path().join("t"));
        assert!(!bucket.keys().iter().any(|key| key.starts_with("b/") || key.starts_with("c2/")));
    }
}

#[test]
fn a_second_rsync_transfers_nothing_also_after_a_remount() {
    let backend = Backend::start();
    for args in ["", "--write-back"] {
        let bucket = backend.bucket();
        let local = tree();
        let home = local.path().join("state").display().to_string();
        let mount =
            || MountOptions::new(&backend, &bucket.name).args(args).env("XDG_STATE_HOME", &home).start();
        let sync = format!("rsync -ai {}/t/ t/", local.path().display());
        let first = mount();
        first.sh(&sync);
        assert_eq!(first.sh(&sync), "");
        first.stop();
        assert_stored(&bucket, "t/", &local.path().join("t"));
        let second = mount();
        assert_eq!(second.sh(&sync), "");
        run(local.path(), "echo more >> t/r; touch -d 2020-02-02 t/r");
        second.sh(&format!(
            "rsync -a --append {0}/t/ t/; rsync -a --inplace --no-whole-file {0}/t/ t/",
            local.path().display()
        ));
        second.stop();
        assert_stored(&bucket, "t/", &local.path().join("t"));
    }
}

#[test]
fn tar_unpacks_a_thousand_files_and_rm_removes_them() {
    let backend = Backend::start();
    for args in ["", "--write-back"] {
        let bucket = backend.bucket();
        let local = tempfile::tempdir().expect("a directory");
        run(local.path(), "mkdir k; for i in $(seq 1000); do echo file $i > k/f$i; done; tar cf k.tar k");
        let mount = Mount::with(&backend, &bucket, args);
        let at = local.path().display();
        // Read while uploads are on their way.
        mount.sh(&format!(
            "tar xf {at}/k.tar; diff -r {at}/k k; tar cf - k | tar xf - -C {at} --transform s/^k/l/"
        ));
        run(local.path(), "diff -r k l");
        mount.stop();
        assert_stored(&bucket, "k/", &local.path().join("k"));
        let mount = Mount::with(&backend, &bucket, args);
        mount.sh("find k -name 'f1*' -delete; [ $(ls k | wc -l) = 888 ]; rm -r k; [ ! -e k ]");
        mount.stop();
        assert_eq!(bucket.keys(), [""; 0]);
    }
}

#[test]
fn rm_removes_what_is_still_on_its_way_up() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--write-back --write-back-delay 20ms");
    mount.sh("for n in 1 2 3 4 5; do mkdir d; for i in $(seq 60); do echo $i > d/$i; done; rm -r d; done");
    mount.stop();
    assert_eq!(bucket.keys(), [""; 0]);
}

#[test]
fn git_works_in_a_mount() {
    let backend = Backend::start();
    for args in ["", "--write-back"] {
        let bucket = backend.bucket();
        let local = tempfile::tempdir().expect("a directory");
        let at = local.path().display();
        let mount = Mount::with(&backend, &bucket, args);
        mount.sh(&format!(
            "export HOME={at} GIT_CONFIG_NOSYSTEM=1; git config --global user.email a@b.c
            git config --global user.name n; git config --global init.defaultBranch main
            git init -q r; cd r; for i in 1 2 3; do echo $i > f$i; git add -A; git commit -qm c$i; done
            git fsck --strict; git gc -q; git status --porcelain >&2; [ -z \"$(git status --porcelain)\" ]
            git clone -q . ../c; cd ../c; git fsck --strict; git clone -q . {at}/out"
        ));
        mount.stop();
        let fresh = Mount::new(&backend, &bucket);
        fresh.sh(&format!(
            "export HOME={at}; git -C c fsck --strict; git -C r log --oneline | wc -l | grep -qx 3"
        ));
        assert_eq!(run(local.path(), "cat out/f3"), "3\n");
        assert_eq!(bucket.bytes("c/f3").as_deref(), Some(&b"3\n"[..]));
    }
}
