//! Where a user's token comes from: a fixed string, a file, or a command.
//!
//! Sources are plain blocking code without threads: the first token is read before the daemon forks, later
//! ones on the runtime's blocking pool.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::private_file;
use crate::secret::Secret;

/// How long a token command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// A token is a few kilobytes; anything beyond is not one.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// Something that gives tokens.
pub trait TokenSource: Send + Sync + fmt::Debug {
    /// For messages, e.g. `--session-token-file /run/token`.
    fn describe(&self) -> String;
    /// Reads the token now; may block for as long as a command takes.
    ///
    /// # Errors
    /// Why there is none, never with any of its text.
    fn load(&self) -> Result<Secret, String>;
    /// Whether there may be another token than the one loaded last; a cheap look.
    fn changed(&self) -> bool {
        false
    }
    /// What a person does to bring a new token in.
    fn remedy(&self) -> String;
}

/// A token that never changes.
#[derive(Debug)]
pub struct Fixed {
    pub token: Secret,
    pub origin: String,
}

impl TokenSource for Fixed {
    fn describe(&self) -> String {
        self.origin.clone()
    }

    fn load(&self) -> Result<Secret, String> {
        Ok(self.token.clone())
    }

    fn remedy(&self) -> String {
        "mount again with a new token, or use --session-token-file or --session-token-command, which are \
         asked for a new one"
            .to_owned()
    }
}

/// A file that another program writes.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    loaded: Mutex<Option<Stamp>>,
}

/// Tells one writing of a file from the next.
/// The change time is in it so that a chmod, too, has the file read again.
type Stamp = (u64, u64, i64, i64, i64, i64, u64);

impl TokenFile {
    /// `path` must be absolute: the daemon runs in `/`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, loaded: Mutex::new(None) }
    }

    fn stamp(&self) -> Option<Stamp> {
        let meta = std::fs::metadata(&self.path).ok()?;
        Some((
            meta.dev(),
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
            meta.size(),
        ))
    }
}

impl TokenSource for TokenFile {
    fn describe(&self) -> String {
        format!("--session-token-file {}", self.path.display())
    }

    fn load(&self) -> Result<Secret, String> {
        // Taken before reading: a change in between is seen as a change, and read again.
        *self.loaded.lock() = self.stamp();
        let contents = private_file::read(&self.path)
            .map_err(|error| format!("cannot read {}: {error}", self.path.display()))?;
        contents.must_be_private(&self.path, "a session token")?;
        Ok(Secret::new(contents.text.expose().trim()))
    }

    fn changed(&self) -> bool {
        let now = self.stamp();
        now.is_some() && now != *self.loaded.lock()
    }

    fn remedy(&self) -> String {
        format!("write a new access_token to {}", self.path.display())
    }
}

/// A shell command that prints a token.
#[derive(Debug)]
pub struct TokenCommand {
    command: Secret,
    directory: PathBuf,
    timeout: Duration,
}

impl TokenCommand {
    /// Runs `command` in `directory`, where the user gave it.
    #[must_use]
    pub fn new(command: Secret, directory: PathBuf) -> Self {
        Self { command, directory, timeout: COMMAND_TIMEOUT }
    }

    #[cfg(test)]
    pub(super) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl TokenSource for TokenCommand {
    fn describe(&self) -> String {
        // The command is not shown: people put keys into such lines.
        "--session-token-command".to_owned()
    }

    fn load(&self) -> Result<Secret, String> {
        let output = run(self.command.expose(), &self.directory, self.timeout)
            .map_err(|error| format!("--session-token-command: {error}"))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint = complaint.trim();
        if !output.status.success() {
            let said =
                if complaint.is_empty() { "it printed no error".to_owned() } else { complaint.to_owned() };
            return Err(format!("--session-token-command failed ({}): {said}", output.status));
        }
        let text = String::from_utf8(output.stdout)
            .map_err(|_| "--session-token-command printed something that is no text".to_owned())?;
        Ok(Secret::new(text.trim()))
    }

    fn remedy(&self) -> String {
        "see why --session-token-command prints no new access_token".to_owned()
    }
}

struct Output {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Runs a shell command with a deadline, in a process group of its own that is killed with it.
fn run(command: &str, directory: &Path, timeout: Duration) -> io::Result<Output> {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let result = collect(&mut child, Instant::now() + timeout, timeout);
    if result.is_err() {
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        // It may just have ended by itself.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
    }
    result
}

fn collect(child: &mut Child, deadline: Instant, timeout: Duration) -> io::Result<Output> {
    let mut stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fcntl(&stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        let status = child.try_wait()?;
        let open = drain(&mut stdout, &mut out)? | drain(&mut stderr, &mut err)?;
        // Once the shell has ended nothing is waited for: what it left running may keep the pipes open.
        if let Some(status) = status {
            return Ok(Output { status, stdout: out, stderr: err });
        }
        if out.len() > OUTPUT_LIMIT || err.len() > OUTPUT_LIMIT {
            return Err(io::Error::other("it prints far more than a token"));
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "it did not end within {}",
                humantime::format_duration(timeout)
            )));
        }
        if open {
            use std::os::fd::AsFd;
            let mut pipes = [
                PollFd::new(stdout.as_fd(), PollFlags::POLLIN),
                PollFd::new(stderr.as_fd(), PollFlags::POLLIN),
            ];
            // A pipe at its end is always ready, hence the pause below as well.
            let _ = poll(&mut pipes, PollTimeout::from(20u8));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads what is there; `false` once the other side has closed.
fn drain(pipe: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; 4096];
    while into.len() <= OUTPUT_LIMIT {
        match pipe.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(n) => into.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
