//! Named pipes and sockets live on the mount alone: no object, no request.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::common::{Backend, Login, Mount, MountOptions, Ops, errno, eventually, spent};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknod};
use supafs_standin::Fault;

/// Keeps what the mount knows for the whole test.
const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

/// Follows changes at once.
const QUICK: &str = "--metadata-ttl 100ms --negative-ttl 100ms";

fn is_pipe(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.file_type().is_fifo())
}

fn make_pipe(path: &Path) {
    mknod(path, SFlag::S_IFIFO, Mode::from_bits_truncate(0o640), 0).expect("mkfifo");
}

#[test]
fn a_pipe_carries_bytes_and_costs_no_request() {
    let backend = Backend::start();
    for args in ["", "--write-back"] {
        let bucket = backend.bucket();
        bucket.put("dir/file", "x");
        let mount = Mount::with(&backend, &bucket, &format!("{LONG} {args}"));
        mount.sh("ls -lR > /dev/null");
        let used = spent(&backend, &mount, || {
            mount.sh(
                "umask 022; mkfifo p dir/q; timeout 10 cat p > /dev/shm/supafs-$$ & echo hi > p; wait $!; \
                      [ \"$(cat /dev/shm/supafs-$$)\" = hi ]; rm /dev/shm/supafs-$$",
            );
            assert_eq!(mount.sh("stat -c '%F %a' p dir/q"), "fifo 644\nfifo 644\n");
            assert_eq!(mount.names(""), ["dir", "p"]);
            assert_eq!(mount.names("dir"), ["file", "q"]);
            fs::set_permissions(mount.at("p"), fs::Permissions::from_mode(0o600)).expect("chmod");
            mount.sh("touch -d 2001-02-03T00:00:00Z p; mv p dir/r; mv dir/r dir/q");
            let stat = fs::metadata(mount.at("dir/q")).expect("stat");
            assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o600, 981_158_400));
            if nix::unistd::geteuid().is_root() {
                chown(mount.at("dir/q"), Some(1234), Some(5678)).expect("chown");
                let stat = fs::metadata(mount.at("dir/q")).expect("stat");
                assert_eq!((stat.uid(), stat.gid()), (1234, 5678));
            }
            fs::remove_file(mount.at("dir/q")).expect("unlink");
            assert_eq!(errno(fs::metadata(mount.at("dir/q"))), Errno::ENOENT);
        });
        assert_eq!(used, Ops::default());
        assert_eq!(bucket.keys(), ["dir/file"]);
    }
}

#[test]
fn a_socket_is_bound_and_found_by_other_processes() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let as_user = MountOptions::new(&backend, &bucket.name).login(Login::User(users.alice.clone()));
    let own = users.alice.clone();
    bucket.put(&format!("{own}/file"), "x");
    for (mount, folder) in [(Mount::new(&backend, &bucket), "run"), (as_user.start(), own.as_str())] {
        mount.sh(&format!("mkdir -p {folder}"));
        let path = mount.at(folder).join("socket");
        let listener = UnixListener::bind(&path).expect("bind");
        assert!(fs::metadata(&path).expect("stat").file_type().is_socket());
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut got = [0; 4];
            stream.read_exact(&mut got).expect("read");
            stream.write_all(&got).expect("write");
        });
        let client = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('socket'); s.sendall(b'ping'); \
                      assert s.recv(4) == b'ping'";
        mount.sh(&format!("cd {folder}; timeout 20 python3 -c \"{client}\""));
        answering.join().expect("it answered");
        fs::remove_file(&path).expect("unlink");
        mount.sh(&format!("rm -rf {folder}"));
    }
}

#[test]
fn a_socket_that_is_linked_is_the_same_as_ssh_needs_it() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.sh("mkdir d");
    // ssh binds its control socket to a name of the moment, links it to its own, and removes the first.
    let listener = UnixListener::bind(mount.at("control.tmp")).expect("bind");
    fs::hard_link(mount.at("control.tmp"), mount.at("d/control")).expect("link");
    let links = |name: &str| fs::metadata(mount.at(name)).map(|stat| (stat.nlink(), stat.ino())).expect(name);
    assert_eq!(links("control.tmp"), links("d/control"));
    assert_eq!(links("d/control").0, 2);
    assert_eq!(errno(fs::hard_link(mount.at("control.tmp"), mount.at("d/control"))), Errno::EEXIST);
    fs::remove_file(mount.at("control.tmp")).expect("unlink");
    assert_eq!(links("d/control").0, 1);
    assert_eq!(mount.names(""), ["d"]);
    mount.sh("mv d/control d/moved; mv d e");
    drop(UnixStream::connect(mount.at("e/moved")).expect("connect"));
    drop(listener);
    mount.sh("rm e/moved; rmdir e");
    assert_eq!(bucket.keys(), Vec::<String>::new());
}

#[test]
fn a_pipe_stays_until_it_is_removed_whatever_others_do() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["d/file", "d/sub/file"]);
    let mount = Mount::with(&backend, &bucket, QUICK);
    make_pipe(&mount.at("d/sub/pipe"));
    make_pipe(&mount.at("d/pipe"));
    // An object of its name is hidden by it, and shown when it is gone.
    bucket.put("d/pipe", "theirs");
    bucket.delete("d/sub/file");
    std::thread::sleep(std::time::Duration::from_millis(300));
    mount.drop_kernel_caches();
    assert_eq!(mount.names("d"), ["file", "pipe", "sub"]);
    assert_eq!(mount.names("d/sub"), ["pipe"], "the folder stands by what is in it");
    assert!(is_pipe(&mount.at("d/pipe")) && is_pipe(&mount.at("d/sub/pipe")));
    assert_eq!(fs::metadata(mount.at("d/pipe")).expect("stat").mode() & 0o777, 0o640 & !0o022);
    assert_eq!(errno(fs::remove_dir(mount.at("d/sub"))), Errno::ENOTEMPTY);
    mount.sh("mv d moved");
    assert!(is_pipe(&mount.at("moved/pipe")) && is_pipe(&mount.at("moved/sub/pipe")));
    fs::remove_file(mount.at("moved/pipe")).expect("unlink");
    eventually("the object behind it", || {
        fs::read(mount.at("moved/pipe")).is_ok_and(|bytes| bytes == b"theirs").then_some(())
    });
    mount.sh("rm moved/sub/pipe");
    mount.stop();
    let mount = Mount::new(&backend, &bucket);
    make_pipe(&mount.at("gone"));
    mount.stop();
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(mount.names(""), ["moved"], "gone at unmount");
}

#[test]
fn pipes_and_files_replace_one_another() {
    let backend = Backend::start();
    for args in ["", "--write-back"] {
        let bucket = backend.bucket();
        bucket.put_keys(["old", "other/file"]);
        let mount = Mount::with(&backend, &bucket, &format!("{LONG} {args}"));
        for name in ["a", "b", "c"] {
            make_pipe(&mount.at(name));
        }
        assert_eq!(errno(fs::rename(mount.at("a"), mount.at("other"))), Errno::EISDIR);
        assert_eq!(errno(fs::rename(mount.at("other"), mount.at("a"))), Errno::ENOTDIR);
        assert_eq!(errno(fs::create_dir(mount.at("a"))), Errno::EEXIST);
        fs::rename(mount.at("a"), mount.at("b")).expect("a pipe over a pipe");
        fs::rename(mount.at("b"), mount.at("old")).expect("a pipe over a file");
        assert!(is_pipe(&mount.at("old")));
        fs::write(mount.at("new"), b"new").expect("write");
        fs::rename(mount.at("new"), mount.at("c")).expect("a file over a pipe");
        assert_eq!(fs::read(mount.at("c")).expect("read"), b"new");
        assert_eq!(mount.names(""), ["c", "old", "other"]);
        // The last object that leaves a folder leaves the folder, also where a pipe is in it.
        make_pipe(&mount.at("other/pipe"));
        mount.sh("rm other/file; rm other/pipe");
        assert_eq!(mount.names("other"), Vec::<String>::new());
        mount.stop();
        assert_eq!(bucket.keys(), ["c", "other/.emptyFolderPlaceholder"]);
    }
}

/// The removals of the first round end while pipes have the names.
const ENDED: &str = "--write-back --write-back-delay 10ms";

#[test]
fn what_had_a_name_before_a_pipe_does_not_come_back_with_its_end() {
    let backend = Backend::start();
    for args in ["", ENDED, "--write-back --write-back-delay 1h"] {
        let bucket = backend.bucket();
        bucket.put_keys(["a", "b", "c", "e", "d/file", "gone/file"]);
        bucket.put("l.rclonelink", "target");
        bucket.put("k.rclonelink", "target");
        let mount = Mount::with(&backend, &bucket, &format!("{LONG} {args}"));
        mount.sh("ls -lR > /dev/null");
        let names = ["a", "b", "c", "d/file", "e", "gone", "k", "l"];
        mount.sh("rm a b e l d/file; rm -r gone; mkfifo a b e l d/file gone p q; mv p c; mv q k");
        assert!(names.iter().all(|name| is_pipe(&mount.at(name))), "{args}");
        if args == ENDED {
            eventually("the removals", || (bucket.keys() == ["d/.emptyFolderPlaceholder"]).then_some(()));
        }
        // Removed, renamed away after they were made there, and after they came there over something.
        mount.sh("rm a l gone d/file; mv b b2; mv c c2; mv k k2");
        let is_gone = |name: &&str| assert_eq!(errno(fs::symlink_metadata(mount.at(name))), Errno::ENOENT);
        ["a", "b", "c", "d/file", "gone", "k", "l"].iter().for_each(is_gone);
        mount.drop_kernel_caches();
        assert_eq!(mount.names(""), ["b2", "c2", "d", "e", "k2"], "{args}");
        assert_eq!(mount.names("d"), Vec::<String>::new(), "{args}");
        // A file in the place of a pipe goes like any file, and a pipe moves with its folder.
        mount.sh("echo new > f; mv f e; rm e; mkfifo d/pipe; mv d m; rm m/pipe b2 c2 k2");
        ["b", "b2", "c2", "d", "e", "f", "k2", "m/file", "m/pipe"].iter().for_each(is_gone);
        assert_eq!((mount.names(""), mount.names("m")), (vec!["m".to_owned()], vec![]), "{args}");
        mount.sh("set -C; echo x > a; mkdir l; ln -s there c");
        mount.stop();
        let folder = |name: &str| format!("{name}/.emptyFolderPlaceholder");
        assert_eq!(bucket.keys(), ["a".to_owned(), "c.rclonelink".to_owned(), folder("l"), folder("m")]);
    }
}

#[test]
fn a_folder_stays_when_its_last_object_goes_from_under_a_pipe() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["d/file", "e/file"]);
    // Nothing is known of a folder's content, so that the server is asked.
    let mount = Mount::with(&backend, &bucket, &format!("--metadata-ttl 0s --negative-ttl 0s {ENDED}"));
    mount.sh("rm d/file; mkfifo d/file; rm -r e; mkfifo e");
    let left = ["d/.emptyFolderPlaceholder"];
    eventually("the removals", || (bucket.keys() == left).then_some(()));
    mount.sh("rm d/file e");
    assert_eq!((mount.names(""), mount.names("d")), (vec!["d".to_owned()], vec![]));
    mount.stop();
    assert_eq!(bucket.keys(), left);
}

#[test]
fn a_refused_removal_under_a_pipe_is_told_and_shown_when_the_pipe_goes() {
    let backend = standin_only!("a refusal");
    let bucket = backend.bucket();
    bucket.put("a", "theirs");
    let mount = Mount::with(&backend, &bucket, &format!("{LONG} {ENDED}"));
    mount.sh("ls");
    let refusal = backend.fault(Fault::status(403, "AccessDenied").on("DeleteObject"));
    mount.sh("rm a; mkfifo a");
    eventually("the refusal", || mount.log().contains("refused to delete it").then_some(()));
    assert!(is_pipe(&mount.at("a")) && backend.standin().fault_hits(refusal) > 0);
    mount.sh("rm a");
    assert_eq!(mount.read("a"), b"theirs");
    let (_place, code) = mount.leave();
    assert_eq!(code, Some(75));
}
