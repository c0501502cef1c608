//! Everyday tools that change single files, with what the server has afterwards.

use crate::common::{Backend, Bucket, Mount, body, run};

/// Runs shell lines on a mount of each kind, and gives the bucket to look at once the mount is gone.
fn on_each_mount(lines: &str, check: impl Fn(&Bucket<'_>)) {
    let backend = Backend::start();
    for args in ["", "--write-back"] {
        let bucket = backend.bucket();
        let mount = Mount::with(&backend, &bucket, args);
        mount.sh(lines);
        mount.stop();
        check(&bucket);
    }
}

#[track_caller]
fn assert_text(bucket: &Bucket<'_>, key: &str, text: &str) {
    let found = bucket.bytes(key).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert_eq!(found.as_deref(), Some(text), "{key}");
}

#[test]
fn vim_saves() {
    let lines = "printf 'one\\ntwo\\n' > a.txt
        vim -N -u NONE -es -c 'set backup writebackup swapfile backupskip=' -c '%s/one/ONE/' -c wq a.txt";
    on_each_mount(lines, |bucket| {
        assert_text(bucket, "a.txt", "ONE\ntwo\n");
        // The backup, under a name that Supabase refuses, and no swap file.
        assert_eq!(bucket.keys(), ["a.txt", "a.txt!7E"]);
        assert_text(bucket, "a.txt!7E", "one\ntwo\n");
    });
}

#[test]
fn nano_saves() {
    // Types a word, saves, confirms the name, leaves.
    let lines = "printf 'first\\n' > a.txt
        { sleep 1; printf 'HELLO '; sleep .2; printf '\\017'; sleep .2; printf '\\r'; sleep .2; printf '\\030'; sleep .5; } |
            TERM=xterm timeout 20 script -qec 'nano -I a.txt' /dev/null > /dev/null";
    on_each_mount(lines, |bucket| {
        assert_text(bucket, "a.txt", "HELLO first\n");
        assert_eq!(bucket.keys(), ["a.txt"]);
    });
}

#[test]
fn sed_and_patch_change_files_in_place() {
    let lines = r"printf 'a\nb\nc\n' > s.txt
        sed -i s/a/X/ s.txt
        sed -i.bak s/X/Y/ s.txt
        printf -- '--- s.txt\n+++ s.txt\n@@ -1,3 +1,3 @@\n Y\n-b\n+B\n c\n' | patch -s s.txt";
    on_each_mount(lines, |bucket| {
        assert_text(bucket, "s.txt", "Y\nB\nc\n");
        assert_text(bucket, "s.txt.bak", "X\nb\nc\n");
        assert_eq!(bucket.keys(), ["s.txt", "s.txt.bak"]);
    });
}

#[test]
fn an_office_saves_beside_and_renames_over() {
    // As LibreOffice does: a lock file, a look at the old document under a lock, a new one beside it.
    let lines = "mkdir d; echo old > d/doc.odt; chmod 640 d/doc.odt; python3 - <<'P'
import fcntl, os
os.chdir('d')
lock = os.open('.~lock.doc.odt#', os.O_RDWR | os.O_CREAT | os.O_EXCL); os.write(lock, b'me'); os.close(lock)
old = os.open('doc.odt', os.O_RDWR); fcntl.lockf(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
assert os.read(old, 10) == b'old\\n'
new = os.open('lu12.tmp', os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.write(new, b'xxx\\n'); os.lseek(new, 0, 0); os.write(new, b'new'); os.fchmod(new, 0o640); os.fsync(new); os.close(new)
os.rename('lu12.tmp', 'doc.odt')
os.lseek(old, 0, 0); assert os.read(old, 10) == b'old\\n'
os.close(old); os.unlink('.~lock.doc.odt#')
assert open('doc.odt').read() == 'new\\n' and os.stat('doc.odt').st_mode & 0o777 == 0o640
P";
    on_each_mount(lines, |bucket| {
        assert_text(bucket, "d/doc.odt", "new\n");
        assert_eq!(bucket.keys(), ["d/.emptyFolderPlaceholder", "d/doc.odt"]);
    });
}

#[test]
fn dd_and_truncate_change_parts() {
    let lines =
        "head -c 1000000 /dev/zero > a; printf hello | dd of=a bs=1 seek=500000 conv=notrunc status=none
        truncate -s 500003 a
        dd if=/dev/zero of=b bs=64k count=3 oflag=direct status=none
        truncate -s 1M c; truncate -s 0 a0";
    on_each_mount(lines, |bucket| {
        let mut expected = vec![0; 500_003];
        expected[500_000..].copy_from_slice(b"hel");
        assert!(bucket.bytes("a") == Some(expected));
        assert!(bucket.bytes("b") == Some(vec![0; 3 << 16]));
        assert!(bucket.bytes("c") == Some(vec![0; 1 << 20]));
        assert!(bucket.bytes("a0") == Some(vec![]));
    });
}

#[test]
fn python_replaces_by_a_temporary_file() {
    let lines = "python3 - <<'P'
import os, tempfile
for i in range(3):
    with tempfile.NamedTemporaryFile('w', dir='.', delete=False) as f:
        f.write('v%d' % i); f.flush(); os.fsync(f.fileno())
    os.replace(f.name, 'a')
    assert open('a').read() == 'v%d' % i
with tempfile.TemporaryFile(dir='.') as f:
    f.write(b'x' * 100000); f.seek(0); assert len(f.read()) == 100000
P";
    on_each_mount(lines, |bucket| {
        assert_text(bucket, "a", "v2");
        assert_eq!(bucket.keys(), ["a"]);
    });
}

#[test]
fn sqlite_inserts_one_by_one_and_in_a_transaction() {
    let lines = "sqlite3 a.db 'create table t(a);'
        for i in $(seq 5); do sqlite3 a.db \"insert into t values($i);\"; done
        { echo 'begin;'; for i in $(seq 500); do echo \"insert into t values(hex(randomblob(99)));\"; done; echo 'commit;'; } | sqlite3 a.db
        [ \"$(sqlite3 a.db 'pragma integrity_check; select count(*) from t;')\" = $'ok\\n505' ]";
    on_each_mount(lines, |bucket| {
        assert_eq!(bucket.keys(), ["a.db"]);
        let copy = tempfile::tempdir().expect("a directory");
        std::fs::write(copy.path().join("a.db"), bucket.bytes("a.db").expect("it is there")).expect("a file");
        let found = run(copy.path(), "sqlite3 a.db 'pragma integrity_check; select count(*) from t;'");
        assert_eq!(found, "ok\n505\n");
    });
}

#[test]
fn sqlite_writes_ahead_beside_readers_and_recovers_from_a_killed_writer() {
    let lines = "python3 - <<'P'
import os, signal, sqlite3
a = sqlite3.connect('w.db', isolation_level=None)
assert a.execute('pragma journal_mode=wal').fetchone() == ('wal',)
a.execute('create table t(n)')
b = sqlite3.connect('w.db', isolation_level=None)
a.execute('insert into t values(0)')
b.execute('begin'); assert b.execute('select count(*) from t').fetchone() == (1,)
for n in range(1, 50): a.execute('insert into t values(?)', (n,))
# A reader keeps what it began with.
assert b.execute('select count(*) from t').fetchone() == (1,)
b.execute('commit'); assert b.execute('select count(*) from t').fetchone() == (50,)
if os.fork() == 0:
    c = sqlite3.connect('w.db', isolation_level=None)
    c.execute('insert into t values(50)')
    c.execute('begin immediate'); c.execute('insert into t values(51)')
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
assert a.execute('select count(*) from t').fetchone() == (51,)
os.kill(os.getpid(), signal.SIGKILL)
P
        [ $? = 137 ] && [ -s w.db-wal ]
        [ \"$(sqlite3 w.db 'pragma integrity_check; select count(*), sum(n) from t;')\" = $'ok\\n51|1275' ]";
    on_each_mount(&format!("set +e; {lines}"), |bucket| {
        // The last one to close has taken the log in.
        assert_eq!(bucket.keys(), ["w.db"]);
        let copy = tempfile::tempdir().expect("a directory");
        std::fs::write(copy.path().join("w.db"), bucket.bytes("w.db").expect("it is there")).expect("a file");
        let found = run(copy.path(), "sqlite3 w.db 'pragma integrity_check; select count(*) from t;'");
        assert_eq!(found, "ok\n51\n");
    });
}

#[test]
fn du_counts_what_was_written_and_ln_replaces_a_link() {
    let lines = "mkdir d; head -c 5000 /dev/urandom > d/a; : > d/none; truncate -s 100000 d/b; cp --reflink=auto d/a d/c
        [ \"$(du -B 512 d/a d/b d/none)\" = $'10\\td/a\\n196\\td/b\\n0\\td/none' ]
        [ $(du -s -B 512 d | cut -f 1) = 216 ]; cmp d/a d/c
        [ $(df --output=avail . | tail -1) -gt 1000000 ]
        ln -s a d/l; ln -sf c d/l; [ $(readlink d/l) = c ]; cmp d/l d/a; ln -sfn nowhere d/l; [ $(readlink d/l) = nowhere ]";
    on_each_mount(lines, |bucket| {
        assert_text(bucket, "d/l.rclonelink", "nowhere");
        assert_eq!(bucket.bytes("d/c"), bucket.bytes("d/a"));
    });
}

#[test]
fn a_copy_onto_a_file_keeps_the_content_type_that_was_set() {
    let lines = "echo 1 > a.txt; setfattr -n user.supabase.content-type -v application/x-own a.txt
        echo 2 > b.txt; cp b.txt a.txt; install -m 750 b.txt c.txt; [ $(stat -c %a c.txt) = 750 ]";
    on_each_mount(lines, |bucket| {
        assert_text(bucket, "a.txt", "2\n");
        let of = |key| bucket.headers(key).expect("it is there").content_type;
        assert_eq!(of("a.txt").as_deref(), Some("application/x-own"));
        assert_eq!(of("c.txt").as_deref(), Some("text/plain"));
    });
}

#[test]
fn split_and_cat_and_zip_and_unzip() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let bytes = body(7, 100_000);
    bucket.put("a", bytes.clone());
    let mount = Mount::new(&backend, &bucket);
    mount.sh("split -b 30000 a a.; cat a.* > b; zip -q z.zip a b; unzip -q z.zip -d out; cmp a out/b");
    mount.stop();
    for key in ["b", "out/a", "out/b"] {
        assert!(bucket.bytes(key).as_ref() == Some(&bytes), "{key}");
    }
}
