//! A process that is killed while it waits for a server that does not answer is gone in a moment, whatever it asked
//! for; its operation goes on, and nothing of what it had written is lost. `--op-timeout` is what it is by default.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use supafs_standin::{Action, Fault};

use crate::common::{Backend, Login, Mount, MountOptions, body, eventually};

/// The README says 2 s; the rest is for a machine that has other things to do.
const GONE: Duration = Duration::from_secs(4);

/// Names stay known, so that it is the call itself that waits.
const KNOWN: &str = "--metadata-ttl 1h --negative-ttl 1h --part-size 5MiB";

/// One system call.
struct Call {
    name: &'static str,
    /// Python, while the server answers; `d` is a folder of its own.
    before: &'static str,
    /// Python, while it does not.
    then: &'static str,
    waits: Waits,
}

/// Which calls do wait for the server.
#[derive(Clone, Copy, PartialEq)]
enum Waits {
    Always,
    /// Not with `--write-back`.
    Change,
    /// Where it is done at once and nobody waits, the call is made nevertheless.
    Perhaps,
}

const fn change(name: &'static str, before: &'static str, call: &'static str) -> Call {
    Call { name, before, then: call, waits: Waits::Change }
}

const fn question(name: &'static str, before: &'static str, call: &'static str) -> Call {
    Call { name, before, then: call, waits: Waits::Always }
}

const fn perhaps(name: &'static str, before: &'static str, call: &'static str) -> Call {
    Call { name, before, then: call, waits: Waits::Perhaps }
}

const CALLS: [Call; 25] = [
    change("mkdir", "", "os.mkdir(d + '/x')"),
    change("rmdir", "os.mkdir(d + '/x')", "os.rmdir(d + '/x')"),
    change("unlink", "save(d + '/x')", "os.unlink(d + '/x')"),
    change("rename", "save(d + '/x')", "os.rename(d + '/x', d + '/y')"),
    change("rename-folder", "os.mkdir(d + '/x'); save(d + '/x/y')", "os.rename(d + '/x', d + '/y')"),
    change("symlink", "", "os.symlink('target', d + '/x')"),
    change("mknod", "", "os.mknod(d + '/x')"),
    change("truncate", "save(d + '/x')", "os.truncate(d + '/x', 2)"),
    perhaps("chmod-folder", "os.mkdir(d + '/x')", "os.chmod(d + '/x', 0o700)"),
    change("close", "f = os.open(d + '/x', W); os.write(f, b'kept')", "os.close(f)"),
    change("fsync", "f = os.open(d + '/x', W); os.write(f, b'kept')", "os.fsync(f)"),
    change("close-large", "f = os.open(d + '/x', W); os.write(f, large)", "os.close(f)"),
    change("fsync-large", "f = os.open(d + '/x', W); os.write(f, large)", "os.fsync(f)"),
    change(
        "fdatasync-again",
        "save(d + '/x'); f = os.open(d + '/x', os.O_RDWR); os.write(f, b'kept')",
        "os.fdatasync(f)",
    ),
    change(
        "write",
        "f = os.open(d + '/x', W); os.write(f, b'kept')",
        "behind(os.fsync, f); os.write(f, b'more')",
    ),
    change(
        "fallocate",
        "f = os.open(d + '/x', W); os.write(f, b'kept')",
        "behind(os.fsync, f); os.posix_fallocate(f, 0, 99)",
    ),
    change(
        "threads",
        "fs = [os.open(d + f'/{n}', W) for n in range(4)]; [os.write(f, b'kept') for f in fs]",
        "[behind(os.fsync, f) for f in fs]; time.sleep(99)",
    ),
    question("read", "", "open(d + '/object', 'rb').read()"),
    question(
        "mmap",
        "",
        "import mmap; f = os.open(d + '/object', os.O_RDONLY); mmap.mmap(f, 0, prot=mmap.PROT_READ)[0]",
    ),
    change(
        "copy_file_range",
        "f = os.open(d + '/object', os.O_RDONLY); g = os.open(d + '/copy', W); os.write(g, b'kept')",
        "behind(os.fsync, g); os.copy_file_range(f, g, 9)",
    ),
    perhaps("statfs", "", "os.statvfs(d)"),
    perhaps("setxattr", "save(d + '/x')", "os.setxattr(d + '/x', 'user.supabase.meta.k', b'v')"),
    perhaps("chmod", "save(d + '/x')", "os.chmod(d + '/x', 0o600)"),
    question("getxattr", "", "os.getxattr(d + '/object', 'user.supabase.content-type')"),
    question("readlink", "", "os.readlink(d + '/link')"),
];

/// What finds out for itself what names stand for.
const LOOKS: [Call; 6] = [
    question("stat", "", "os.stat(d + '/object')"),
    question("stat-absent", "", "os.stat(d + '/absent')"),
    question("listdir", "", "os.listdir(d)"),
    question("scandir", "", "[e.stat() for e in os.scandir(d)]"),
    question("open", "", "os.open(d + '/object', os.O_RDONLY)"),
    question("create", "", "os.open(d + '/x', W)"),
];

const PRELUDE: &str = "
import os, sys, threading, time
W = os.O_CREAT | os.O_TRUNC | os.O_RDWR
d = sys.argv[1]
large = b'l' * (12 << 20)
def save(path):
    with open(path, 'wb') as f:
        f.write(b'saved')
def behind(call, *args):
    threading.Thread(target=call, args=args, daemon=True).start()
    time.sleep(0.3)
def tell(word):
    print(word, flush=True)
";

/// A process that stands before its call.
struct Caller {
    name: &'static str,
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Caller {
    fn new(mount: &Mount, folder: &str, call: &Call) -> Self {
        let Call { before, then, .. } = call;
        let program = format!(
            "{PRELUDE}\n{before}\ntell('ready')\nsys.stdin.readline()\n{then}\ntell('done')\nsys.stdin.readline()\n"
        );
        let mut command = Command::new("python3");
        command.args(["-c", &program]).arg(mount.at(folder));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut caller = Self { name: call.name, child, out };
        assert_eq!(caller.line(), "ready\n", "{}", call.name);
        caller
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        line
    }

    fn go(&mut self) {
        self.child.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("told");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal).expect("it is there");
    }

    /// Waits for the end after a kill. Whether the call had come to its end before.
    fn gone(mut self, killed: Instant) -> bool {
        self.is_gone(killed);
        self.is_done()
    }

    /// Waits for the end after a kill.
    fn is_gone(&mut self, killed: Instant) {
        while self.child.try_wait().expect("a child").is_none() {
            assert!(killed.elapsed() < GONE, "{}: still there {GONE:?} after it was killed", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether its call comes to its end, or came to it before the process ended.
    fn is_done(&mut self) -> bool {
        self.line() == "done\n"
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// Kills callers of everything while the server hangs, and looks what became of it.
fn kill_all(backend: &Backend, mount: &Mount, folder: &str, calls: &[Call], waits: bool) {
    let mut callers: Vec<_> = calls
        .iter()
        .map(|call| (Caller::new(mount, &format!("{folder}{}", call.name), call), call))
        .collect();
    let hang = backend.fault(Fault::new(Action::Hang));
    for (caller, _) in &mut callers {
        caller.go();
    }
    // Each of them waits by then, save those that need not.
    std::thread::sleep(Duration::from_secs(2));
    for (caller, _) in &callers {
        caller.signal(Signal::SIGKILL);
    }
    let killed = Instant::now();
    for (caller, call) in callers {
        let is_done = caller.gone(killed);
        let has_to_wait = call.waits == Waits::Always || (waits && call.waits == Waits::Change);
        assert!(!(is_done && has_to_wait), "{}: it did not wait at all", call.name);
    }
    backend.standin().clear_fault(hang);
}

fn seed(bucket: &crate::common::Bucket<'_>, folder: &str, calls: &[Call]) {
    for call in calls {
        bucket.put(&format!("{folder}{}/object", call.name), body(1, 300_000));
        bucket.put(&format!("{folder}{}/link.rclonelink", call.name), "object");
    }
}

/// What the callers had written arrives, and the mount works.
fn all_is_well(mount: &Mount, bucket: &crate::common::Bucket<'_>, folder: &str) {
    let holds = |name: &str, bytes: &[u8]| {
        let key = format!("{folder}{name}");
        eventually(name, || (bucket.bytes(&key)? == bytes).then_some(()));
    };
    for name in ["close/x", "fsync/x", "threads/0", "threads/3"] {
        holds(name, b"kept");
    }
    holds("fdatasync-again/x", b"keptd");
    holds("close-large/x", &vec![b'l'; 12 << 20]);
    holds("fsync-large/x", &vec![b'l'; 12 << 20]);
    holds("truncate/x", b"sa");
    holds("rename/y", b"saved");
    holds("rename-folder/y/y", b"saved");
    holds("mkdir/x/.emptyFolderPlaceholder", b"");
    eventually("removed", || bucket.bytes(&format!("{folder}unlink/x")).is_none().then_some(()));
    let shown = |name: &str| mount.names(&format!("{folder}{name}")).join(" ");
    eventually("what became of the names is shown", || {
        (shown("rename") == "link object y" && shown("unlink") == "link object").then_some(())
    });
    std::fs::write(mount.at(&format!("{folder}close/after")), b"works").expect("written");
    holds("close/after", b"works");
    let status = mount.status();
    assert_eq!(status["open_handles"], 0, "{status}");
}

fn changes(options: &str, login: impl FnOnce(&str) -> Login, waits: bool) {
    let Some(backend) = Backend::standin_only("a server that hangs") else { return };
    let (bucket, users) = backend.users();
    let folder = format!("{}/", users.alice);
    seed(&bucket, &folder, &CALLS);
    let mount = MountOptions::new(&backend, &bucket.name)
        .args(KNOWN)
        .args(options)
        .login(login(&users.alice))
        .start();
    mount.sh(&format!("find {folder} > /dev/null"));
    kill_all(&backend, &mount, &folder, &CALLS, waits);
    all_is_well(&mount, &bucket, &folder);
    mount.stop();
}

#[test]
fn whoever_waits_for_a_server_that_hangs_can_be_killed() {
    changes("", |_| Login::Keys, true);
}

#[test]
fn whoever_waits_with_write_back_can_be_killed() {
    changes("--write-back", |_| Login::Keys, false);
}

#[test]
fn whoever_waits_as_a_user_can_be_killed() {
    changes("", |user| Login::User(user.to_owned()), true);
}

#[test]
fn whoever_looks_for_names_can_be_killed() {
    let backend = standin_only!("a server that hangs");
    let bucket = backend.bucket();
    seed(&bucket, "", &LOOKS);
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 0s --negative-ttl 0s");
    kill_all(&backend, &mount, "", &LOOKS, true);
    assert_eq!(mount.names("stat"), ["link", "object"]);
    eventually("no inode is held that the kernel does not know", || {
        mount.drop_kernel_caches();
        (mount.status()["inodes"] == 1).then_some(())
    });
    mount.stop();
}

#[test]
fn a_process_with_many_files_is_killed_at_once() {
    let backend = standin_only!("a server that hangs");
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    std::fs::create_dir(mount.at("d")).expect("made");
    let call = change(
        "many",
        "fs = [os.open(d + f'/{n}', W) for n in range(20)]; [os.write(f, b'kept') for f in fs]",
        "time.sleep(99)",
    );
    let mut caller = Caller::new(&mount, "d", &call);
    let hang = backend.fault(Fault::new(Action::Hang));
    caller.go();
    // It waits for nothing: it is killed where it sleeps, and its files are closed then.
    caller.signal(Signal::SIGKILL);
    assert!(!caller.gone(Instant::now()));
    backend.standin().clear_fault(hang);
    eventually("what it had written", || {
        (0..20).all(|n| bucket.bytes(&format!("d/{n}")).is_some_and(|bytes| bytes == b"kept")).then_some(())
    });
    mount.stop();
}

#[test]
fn a_process_that_exits_by_itself_waits_for_its_upload() {
    let backend = standin_only!("a server that is slow");
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    mount.sh("ls");
    backend.fault(Fault::new(Action::Latency(Duration::from_secs(2))).on("PutObject"));
    mount.sh("python3 -c 'import os; f = os.open(\"x\", os.O_CREAT | os.O_WRONLY); os.write(f, b\"kept\"); os._exit(0)'");
    assert_eq!(bucket.bytes("x").expect("it is there when the process has ended"), b"kept");
    mount.stop();
}

#[test]
fn tools_end_by_the_signals_that_end_them() {
    let backend = standin_only!("a server that hangs");
    let bucket = backend.bucket();
    bucket.put("file", body(1, 300_000));
    let mount = Mount::new(&backend, &bucket);
    mount.names("");
    let hang = backend.fault(Fault::new(Action::Hang));
    let begun = Instant::now();
    let status =
        Command::new("timeout").args(["1", "cat"]).arg(mount.at("file")).status().expect("timeout starts");
    assert_eq!(status.code(), Some(124), "cat was ended");
    assert!(begun.elapsed() < Duration::from_secs(1) + GONE);
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let mut copy =
            Command::new("cp").arg("/proc/self/status").arg(mount.at("copy")).spawn().expect("cp starts");
        std::thread::sleep(Duration::from_secs(1));
        assert!(copy.try_wait().expect("a child").is_none(), "it waits");
        kill(Pid::from_raw(i32::try_from(copy.id()).expect("a pid")), signal).expect("it is there");
        let killed = Instant::now();
        while copy.try_wait().expect("a child").is_none() {
            assert!(killed.elapsed() < GONE, "cp is still there after {signal}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    backend.standin().clear_fault(hang);
    mount.stop();
}

#[test]
fn what_fails_after_its_caller_was_killed_is_told() {
    let backend = standin_only!("a server that hangs");
    let bucket = backend.bucket();
    bucket.put("d/x", "here");
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 1h --negative-ttl 1h");
    mount.sh("find . > /dev/null");
    let mut caller = Caller::new(&mount, "d", &change("rename", "", "os.rename(d + '/x', d + '/y')"));
    let hang = backend.fault(Fault::new(Action::Hang));
    backend.fault(Fault::status(403, "AccessDenied").on("CopyObject"));
    caller.go();
    std::thread::sleep(Duration::from_secs(1));
    caller.signal(Signal::SIGKILL);
    caller.gone(Instant::now());
    backend.standin().clear_fault(hang);
    eventually("the reason", || {
        let output = Command::new("getfattr")
            .args(["--only-values", "-n", "user.supabase.last-error"])
            .arg(mount.at("d/x"))
            .output()
            .expect("getfattr starts");
        (!output.stdout.is_empty()).then_some(())
    });
    assert!(mount.log().contains("a policy on storage.objects forbids it"), "the log tells it, too");
    assert_eq!(mount.names("d"), ["x"]);
    mount.stop();
}

/// Readers of `d/object` that are killed while they wait for its bytes.
const READERS: [Call; 2] = [
    question("read-through", "", "open(d + '/object', 'rb').read()"),
    question(
        "read-mapped",
        "",
        "import mmap; f = os.open(d + '/object', os.O_RDONLY); m = mmap.mmap(f, 0, prot=mmap.PROT_READ); m[9 << 20]",
    ),
];

/// What makes the kernel take pages of a changed file out of its cache, where no signal reaches it.
const MEETS_PAGES: [Call; 5] = [
    perhaps("stat-changed", "", "os.stat(d + '/object')"),
    perhaps("fstat-changed", "f = os.open(d + '/object', os.O_RDONLY)", "os.fstat(f)"),
    perhaps("open-changed", "", "os.open(d + '/object', os.O_RDONLY)"),
    perhaps("truncate-changed", "f = os.open(d + '/object', os.O_RDWR)", "os.ftruncate(f, 2)"),
    perhaps("open-truncating", "", "os.open(d + '/object', os.O_WRONLY | os.O_TRUNC)"),
];

#[test]
fn killed_readers_leave_no_page_behind_that_others_wait_for() {
    for args in ["", "--write-back"] {
        let backend = standin_only!("a server that hangs");
        let bucket = backend.bucket();
        let mut folders = vec![];
        for meets in &MEETS_PAGES {
            bucket.put(&format!("{}/object", meets.name), body(1, 24 << 20));
        }
        let mount = Mount::with(&backend, &bucket, &format!("{KNOWN} {args}"));
        mount.sh("ls -lR > /dev/null");
        for meets in &MEETS_PAGES {
            let append = perhaps(
                "append",
                "f = os.open(d + '/object', os.O_WRONLY | os.O_APPEND)",
                "os.write(f, b'++'); os.close(f); time.sleep(99)",
            );
            let callers = READERS.iter().chain([&append, meets]);
            folders.push(callers.map(|call| Caller::new(&mount, meets.name, call)).collect::<Vec<_>>());
        }
        let hang = backend.fault(Fault::new(Action::Hang));
        // One after the other, as each finds what the one before has left.
        let many = READERS.len() + 2;
        for number in 0..many {
            for callers in &mut folders {
                callers[number].go();
            }
            let pause = if number < READERS.len() { 200 } else { 1000 };
            std::thread::sleep(Duration::from_millis(pause));
            for callers in &mut folders {
                callers[number].signal(Signal::SIGKILL);
            }
            let killed = Instant::now();
            for callers in &mut folders {
                callers[number].is_gone(killed);
            }
        }
        drop(folders);
        backend.standin().clear_fault(hang);
        eventually("the end of a file that was written", || {
            let bytes = bucket.bytes("stat-changed/object")?;
            (bytes.len() == (24 << 20) + 2 && bytes.ends_with(b"++")).then_some(())
        });
        assert_eq!(mount.read("stat-changed/object").len(), (24 << 20) + 2);
        mount.stop();
    }
}

#[test]
fn what_a_reader_asked_for_ahead_and_left_is_read_by_others() {
    let backend = standin_only!("a server that is slow");
    let bucket = backend.bucket();
    let bytes = body(1, 8 << 20);
    bucket.put("d/object", bytes.clone());
    let mount = Mount::with(&backend, &bucket, &format!("{KNOWN} --log-level debug"));
    mount.sh("ls -lR > /dev/null");
    let asks = "os.posix_fadvise(os.open(d + '/object', os.O_RDONLY), 0, 2 << 20, os.POSIX_FADV_WILLNEED); os._exit(0)";
    let mut asks = Caller::new(&mount, "d", &perhaps("asks", "", asks));
    let mapped = "import mmap; f = os.open(d + '/object', os.O_RDONLY); m = mmap.mmap(f, 0, prot=mmap.PROT_READ); \
                  assert m[1 << 20:][:99] == open(d + '/object', 'rb').read()[1 << 20:][:99]";
    let mut mapped = Caller::new(&mount, "d", &perhaps("mapped", "", mapped));
    backend.fault(Fault::new(Action::Latency(Duration::from_secs(2))).on("GetObject"));
    asks.go();
    assert!(!asks.is_done(), "it has ended by itself");
    mapped.go();
    assert!(mount.read("d/object") == bytes);
    assert!(mapped.is_done());
    eventually("its pages were answered", || mount.log().contains("the caller is gone").then_some(()));
    mount.stop();
}
