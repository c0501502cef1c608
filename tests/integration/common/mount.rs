//! The real binary, mounted: a process of its own in an environment of its own.
//!
//! A [`Place`] is a temporary home with a mount point; whatever is mounted there, and every daemon that serves it,
//! is gone when it is dropped. A [`Mount`] is a daemon in the foreground in such a place. It dies with the thread
//! that started it (PDEATHSIG), and a watchdog aborts its FUSE connection, so that no process can hang for ever.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::backend::{Backend, Bucket, Facts};
use super::counts::Counts;
use super::tools::{device_of, eventually, is_mounted, run, wait_with_limit};

const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// A mount may live this long before its watchdog ends it.
const WATCHDOG: Duration = Duration::from_mins(1);

/// The same on a real server, of which many requests one after another take their time.
const REAL_WATCHDOG: Duration = Duration::from_mins(4);

/// A command of the CLI may take this long.
const COMMAND_LIMIT: Duration = Duration::from_mins(1);

/// A temporary home, and a mount point in it.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("supafs-test-").tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("mnt")).expect("a mount point");
        fs::create_dir_all(dir.path().join("home")).expect("a home");
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn mountpoint(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// The binary with nothing of this process's environment but the path and what TLS needs.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_supafs"));
        command.args(args);
        self.furnish(&mut command);
        command
    }

    fn furnish(&self, command: &mut Command) {
        command.env_clear().current_dir(self.path()).stdin(Stdio::null());
        for name in ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE", "NO_PROXY"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let home = self.home();
        command.env("HOME", &home);
        for name in ["CONFIG", "STATE", "CACHE", "DATA"] {
            command.env(format!("XDG_{name}_HOME"), home.join(name.to_lowercase()));
        }
        command.env("XDG_RUNTIME_DIR", home.join("runtime"));
    }

    /// Runs the binary to its end.
    pub fn supafs<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        env: &[(&str, &str)],
    ) -> Outcome {
        let mut command = self.command(args);
        command.envs(env.iter().copied());
        outcome(command)
    }

    /// Runs the binary as whoever owns the project: with its access keys and its JWT secret.
    pub fn supafs_as_owner<S: AsRef<OsStr>>(
        &self,
        backend: &Backend,
        args: impl IntoIterator<Item = S>,
    ) -> Outcome {
        outcome(self.owners_command(backend, args))
    }

    /// The same, not started yet.
    pub fn owners_command<S: AsRef<OsStr>>(
        &self,
        backend: &Backend,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let facts = backend.facts();
        let mut command = self.command(args);
        command.envs(Login::Keys.variables(&facts, |_| String::new()));
        command.env("SUPABASE_PROJECT_REF", facts.project_ref).env("SUPABASE_ANON_KEY", facts.anon_key);
        command.env("SUPABASE_JWT_SECRET", facts.jwt_secret);
        command
    }

    /// A file in this place with these permissions.
    pub fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path().join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a directory");
        }
        // By renaming, as whoever hands out tokens should.
        let next = path.with_extension("next");
        fs::write(&next, text).expect("a file");
        fs::set_permissions(&next, fs::Permissions::from_mode(mode)).expect("its mode");
        fs::rename(&next, &path).expect("renamed");
        path
    }

    /// Processes that serve this place's mount point, or are about to.
    pub fn daemons(&self) -> Vec<Pid> {
        let mountpoint = self.mountpoint();
        let announced = self.announced();
        let names_us = |pid: i32| -> Option<bool> {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let mut args = line.split(|byte| *byte == 0);
            let is_supafs = args.next()?.ends_with(b"supafs");
            let is_named = args.any(|arg| arg == mountpoint.as_os_str().as_encoded_bytes());
            Some(is_supafs && (is_named || announced.contains(&pid)))
        };
        let processes = fs::read_dir("/proc").expect("proc").filter_map(Result::ok);
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|&pid| names_us(pid) == Some(true))
            .map(Pid::from_raw)
            .collect()
    }

    /// Daemons that were started with another spelling of the mount point leave their number where `unmount` looks.
    fn announced(&self) -> Vec<i32> {
        let files = fs::read_dir(self.home().join("state/supafs/mounts")).into_iter().flatten().flatten();
        files.filter_map(|file| file.file_name().to_str()?.rsplit('-').next()?.parse().ok()).collect()
    }
}

/// What a command of the CLI printed and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// # Panics
    /// If the command failed.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "{self:#?}");
        self
    }

    /// What it complained of.
    ///
    /// # Panics
    /// If it did not fail, or without a word.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(!self.status.success(), "{self:#?}");
        assert!(self.status.code().is_some(), "ended by a signal: {self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        assert!(!self.stderr.is_empty(), "failed without a word: {self:#?}");
        self.stderr
    }
}

/// Runs a command with a limit.
pub fn outcome(mut command: Command) -> Outcome {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let output = wait_with_limit(child, COMMAND_LIMIT);
    Outcome {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mountpoint = self.mountpoint();
        for pid in self.daemons() {
            let _ = kill(pid, Signal::SIGTERM);
        }
        for _ in 0..300 {
            if self.daemons().is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Some(device) = device_of(&mountpoint) {
            abort(device);
        }
        for pid in self.daemons() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        while is_mounted(&mountpoint) {
            if umount2(&mountpoint, MntFlags::MNT_DETACH).is_err()
                && !Command::new("fusermount3")
                    .args(["-u", "-z"])
                    .arg(&mountpoint)
                    .status()
                    .is_ok_and(|s| s.success())
            {
                eprintln!("{} stays mounted", mountpoint.display());
                break;
            }
        }
    }
}

/// As whom a mount signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    Keys,
    /// As the user with this id, by a token of an hour.
    User(String),
    /// With exactly the variables given.
    Custom,
}

impl Login {
    /// The variables that the binary reads.
    pub fn variables(&self, facts: &Facts, token: impl Fn(&str) -> String) -> Vec<(String, String)> {
        let mut variables = vec![
            ("SUPABASE_S3_ENDPOINT".to_owned(), facts.endpoint.clone()),
            ("SUPABASE_S3_REGION".to_owned(), facts.region.clone()),
        ];
        match self {
            Self::Keys => variables.extend([
                ("SUPABASE_S3_ACCESS_KEY_ID".to_owned(), facts.access_key_id.clone()),
                ("SUPABASE_S3_SECRET_ACCESS_KEY".to_owned(), facts.secret_access_key.clone()),
            ]),
            Self::User(sub) => variables.extend([
                ("SUPABASE_PROJECT_REF".to_owned(), facts.project_ref.clone()),
                ("SUPABASE_ANON_KEY".to_owned(), facts.anon_key.clone()),
                ("SUPABASE_SESSION_TOKEN".to_owned(), token(sub)),
            ]),
            Self::Custom => {}
        }
        variables
    }
}

/// How something is mounted.
pub struct MountOptions<'a> {
    backend: &'a Backend,
    targets: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    login: Login,
    watchdog: Duration,
    place: Option<Place>,
    /// Arguments of prlimit.
    limits: Vec<String>,
}

impl<'a> MountOptions<'a> {
    /// `target` is `BUCKET[/PREFIX]`, or empty where `--all` is among the arguments.
    pub fn new(backend: &'a Backend, target: &str) -> Self {
        let targets = if target.is_empty() { vec![] } else { vec![target.to_owned()] };
        Self {
            backend,
            targets,
            args: vec![],
            env: vec![],
            login: Login::Keys,
            watchdog: if backend.is_real() { REAL_WATCHDOG } else { WATCHDOG },
            place: None,
            limits: vec![],
        }
    }

    /// Adds arguments, separated by spaces.
    pub fn args(mut self, args: &str) -> Self {
        self.args.extend(args.split_whitespace().map(ToOwned::to_owned));
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub fn login(mut self, login: Login) -> Self {
        self.login = login;
        self
    }

    /// Lets the mount live for so long.
    pub fn watchdog(mut self, limit: Duration) -> Self {
        self.watchdog = limit;
        self
    }

    /// Starts the daemon with these limits of open files, the soft and the hard one.
    pub fn descriptors(mut self, soft: u64, hard: u64) -> Self {
        self.limits.push(format!("--nofile={soft}:{hard}"));
        self
    }

    /// Starts the daemon with this limit of the size of a file.
    pub fn file_size(mut self, most: u64) -> Self {
        self.limits.push(format!("--fsize={most}"));
        self
    }

    /// Mounts in this place, which may hold files that the options name.
    pub fn place(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Mounts.
    ///
    /// # Panics
    /// If the mount does not come to answer; the daemon's words are shown.
    pub fn start(self) -> Mount {
        self.try_start().unwrap_or_else(|refused| panic!("the mount failed: {refused:#?}"))
    }

    /// Mounts, or tells why not.
    ///
    /// # Errors
    /// The daemon ended before the mount answered.
    pub fn try_start(self) -> Result<Mount, Refused> {
        let place = self.place.unwrap_or_else(Place::new);
        let (log, status) = (place.path().join("log"), place.path().join("status"));
        // PDEATHSIG without a line of unsafe: the daemon ends with the thread that starts it.
        let mut command = Command::new(if self.limits.is_empty() { "setpriv" } else { "prlimit" });
        if !self.limits.is_empty() {
            command.args(&self.limits).arg("setpriv");
        }
        command.args(["--pdeathsig", "TERM", env!("CARGO_BIN_EXE_supafs"), "mount", "--foreground"]);
        command.args(&self.targets).arg(place.mountpoint());
        command.arg("--status-file").arg(&status).args(&self.args);
        place.furnish(&mut command);
        let facts = self.backend.facts();
        command.env("SUPAFS_LOG_LEVEL", "debug");
        command.envs(self.login.variables(&facts, |sub| self.backend.token(sub, 3600)));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::null()).stderr(File::create(&log).expect("a log file"));
        let mut child = command.spawn().expect("setpriv (util-linux) starts");

        let answers = eventually("the mount to answer, or the daemon to end", || {
            if let Some(status) = child.try_wait().expect("a child of this process") {
                return Some(Err(status));
            }
            (is_mounted(place.mountpoint()) && fs::metadata(place.mountpoint()).is_ok()).then_some(Ok(()))
        });
        if let Err(status) = answers {
            let stderr = fs::read_to_string(&log).unwrap_or_default();
            let is_mounted = is_mounted(place.mountpoint());
            return Err(Refused { status, stderr, is_mounted });
        }
        let bucket = self.targets.first().and_then(|target| target.split('/').next()).unwrap_or_default();
        let device = device_of(&place.mountpoint()).expect("it is mounted");
        Ok(Mount {
            path: place.mountpoint(),
            bucket: bucket.to_owned(),
            log,
            status,
            child,
            secrets: vec![facts.secret_access_key, facts.anon_key],
            watchdog: Watchdog::start(device, self.watchdog),
            ended: false,
            place,
        })
    }
}

/// Why there is no mount.
#[derive(Debug)]
pub struct Refused {
    pub status: ExitStatus,
    pub stderr: String,
    /// Whether something is mounted nevertheless.
    pub is_mounted: bool,
}

/// A mounted bucket and its daemon.
pub struct Mount {
    pub path: PathBuf,
    bucket: String,
    log: PathBuf,
    status: PathBuf,
    child: Child,
    secrets: Vec<String>,
    watchdog: Watchdog,
    ended: bool,
    place: Place,
}

impl Mount {
    /// Mounts a bucket with access keys.
    pub fn new(backend: &Backend, bucket: &Bucket<'_>) -> Self {
        MountOptions::new(backend, &bucket.name).start()
    }

    /// Mounts a bucket with access keys and further arguments, separated by spaces.
    pub fn with(backend: &Backend, bucket: &Bucket<'_>, args: &str) -> Self {
        MountOptions::new(backend, &bucket.name).args(args).start()
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A path in the mount.
    pub fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.path.clone() } else { self.path.join(path) }
    }

    /// The content of a file.
    ///
    /// # Panics
    /// If it cannot be read.
    #[track_caller]
    pub fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Names in a directory, in byte order.
    #[track_caller]
    pub fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.at(path))
            .and_then(|entries| entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect())
            .unwrap_or_else(|error: std::io::Error| panic!("{path}: {error}"));
        names.sort();
        names
    }

    /// Paths of all files below the root, relative, in byte order.
    pub fn files(&self) -> Vec<String> {
        super::tools::sorted_lines(&self.sh("find . -type f -printf '%P\\n'"))
    }

    /// Runs a shell line in the root of the mount.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        run(&self.path, line)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the daemon lives");
    }

    /// The daemon's counters, freshly written.
    pub fn status(&self) -> serde_json::Value {
        let _ = fs::remove_file(&self.status);
        self.signal(Signal::SIGUSR1);
        let text = eventually("the status file", || fs::read_to_string(&self.status).ok());
        serde_json::from_str(&text).expect("JSON")
    }

    /// Requests sent so far: by the stand-in's log, or by the daemon's own counters on a real server. Waits until
    /// nothing is in flight.
    pub fn counts(&self, backend: &Backend) -> Counts {
        eventually("no request in flight", || {
            let status = self.status();
            (status["requests_in_flight"] == 0).then(|| {
                let own = Counts::of_status(&status);
                backend.logged(&self.bucket).unwrap_or(own)
            })
        })
    }

    /// What the daemon logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory of the daemon in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that was ever resident, in bytes.
    pub fn peak_resident(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the daemon lives");
        let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("a line of the kernel's");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Drops the kernel's own caches of this mount, so that the next read reaches the daemon.
    pub fn drop_kernel_caches(&self) {
        run(&self.path, "sync");
        fs::OpenOptions::new()
            .write(true)
            .open("/proc/sys/vm/drop_caches")
            .and_then(|mut file| file.write_all(b"3"))
            .expect("the kernel's caches can be dropped by root");
    }

    /// Stops the daemon as a user would, and checks that it ends well.
    pub fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "the daemon ended with {status}\n{}", self.log());
        assert!(!is_mounted(&self.path), "still mounted");
    }

    /// Ends the daemon as a user would; the place keeps its spool, and its exit code is told.
    pub fn leave(mut self) -> (Place, Option<i32>) {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        (std::mem::replace(&mut self.place, Place::new()), status.code())
    }

    /// Kills the daemon where it stands, and clears away the dead mount; the place keeps its spool.
    pub fn kill(mut self) -> Place {
        self.signal(Signal::SIGKILL);
        self.wait();
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        std::mem::replace(&mut self.place, Place::new())
    }

    /// Waits for the end of the daemon.
    pub fn wait(&mut self) -> ExitStatus {
        let status =
            eventually("the end of the daemon", || self.child.try_wait().expect("a child of this process"));
        self.ended = true;
        self.watchdog.rest();
        status
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.ended {
            let _ = kill(self.pid(), Signal::SIGTERM);
            let mut waited = Duration::ZERO;
            while self.child.try_wait().is_ok_and(|status| status.is_none()) {
                if waited > Duration::from_secs(15) {
                    eprintln!("the daemon does not end on SIGTERM; aborting its connection");
                    self.watchdog.bite();
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
                waited += Duration::from_millis(5);
            }
        }
        self.watchdog.rest();
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(80)..];
            eprintln!(
                "--- the daemon's log (last {} of {} lines)\n{}\n---",
                tail.len(),
                lines.len(),
                tail.join("\n")
            );
            return;
        }
        for secret in &self.secrets {
            assert!(!log.contains(secret.as_str()), "a secret is in the log");
        }
        assert!(!log.contains("panicked"), "the daemon panicked:\n{log}");
    }
}

/// Aborts a FUSE connection that lives too long.
struct Watchdog {
    device: u32,
    stop: Option<mpsc::Sender<()>>,
}

impl Watchdog {
    fn start(device: u32, limit: Duration) -> Self {
        if fs::read_dir(CONNECTIONS).is_ok_and(|mut entries| entries.next().is_none()) {
            // Needs root; without it a hang is left to --op-timeout.
            let _ = Command::new("mount")
                .args(["-t", "fusectl", "fusectl", CONNECTIONS])
                .stderr(Stdio::null())
                .status();
        }
        let (stop, stopped) = mpsc::channel();
        std::thread::spawn(move || {
            if stopped.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("watchdog: a mount lived longer than {limit:?}, aborting its connection");
                abort(device);
            }
        });
        Self { device, stop: Some(stop) }
    }

    fn rest(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    fn bite(&self) {
        abort(self.device);
    }
}

fn abort(device: u32) {
    let _ = fs::write(format!("{CONNECTIONS}/{device}/abort"), "1");
}
