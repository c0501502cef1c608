//! Going into the background without losing the answer: the parent returns when the mount answers, or prints
//! why it does not.
//!
//! One pipe carries one message: `R` for ready, or `E` and the error. Its end without a message means that
//! the daemon died. The fork comes before any thread.

use std::fs::File;
use std::io::{self, Read, Write};

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{self, Pid};

use super::error::CliError;
use crate::sys::{self, Side};

/// Tells the waiting parent, once, how the start went.
#[derive(Debug)]
pub struct Report {
    pipe: Option<File>,
}

impl Report {
    /// For a daemon that nobody waits for.
    #[must_use]
    pub fn to_nobody() -> Self {
        Self { pipe: None }
    }

    /// The mount answers.
    pub fn ready(&mut self) {
        let Some(mut pipe) = self.pipe.take() else { return };
        if pipe.write_all(b"R").is_err() {
            // The command was interrupted while it waited: nothing must stay mounted.
            tracing::warn!("the mount command was interrupted; unmounting");
            let _ = raise(Signal::SIGTERM);
        }
    }

    /// The start failed. Without effect once it has succeeded.
    pub fn failed(&mut self, error: &CliError) {
        if let Some(mut pipe) = self.pipe.take() {
            let _ = pipe.write_all(format!("E{}{error}", error.code()).as_bytes());
        }
    }
}

/// Which process this is after [`detach`].
#[derive(Debug)]
pub enum Role {
    /// The command; the daemon is up.
    Command,
    Daemon(Report),
}

/// Forks. In the daemon it returns at once, in a session of its own, with output going to `output` (else
/// nowhere). In the command it returns when the daemon has reported; what `meanwhile` gives lives until then.
///
/// # Errors
/// In the command: what the daemon reported, or that it died.
pub fn detach<G>(output: Option<File>, meanwhile: impl FnOnce() -> G) -> Result<Role, CliError> {
    let told = |error: io::Error| CliError::failed(format!("cannot go into the background: {error}"));
    let (read, write) = unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| told(errno.into()))?;
    match sys::fork_single_threaded().map_err(told)? {
        Side::Parent(child) => {
            drop(write);
            let _meanwhile = meanwhile();
            wait(File::from(read), child).map(|()| Role::Command)
        }
        Side::Child => {
            drop(read);
            let mut report = Report { pipe: Some(File::from(write)) };
            if let Err(error) = settle(output) {
                let error = told(error);
                report.failed(&error);
                return Err(error);
            }
            Ok(Role::Daemon(report))
        }
    }
}

fn settle(output: Option<File>) -> io::Result<()> {
    unistd::setsid()?;
    // Otherwise the directory of the caller could not be unmounted.
    unistd::chdir("/")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let output = output.map_or_else(|| null.try_clone(), Ok)?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(&output)?;
    unistd::dup2_stderr(&output)?;
    Ok(())
}

fn wait(mut pipe: File, child: Pid) -> Result<(), CliError> {
    let mut message = Vec::new();
    let read = pipe.read_to_end(&mut message);
    let text = String::from_utf8_lossy(&message);
    if text.starts_with('R') {
        return Ok(());
    }
    let status = waitpid(child, None);
    match (text.strip_prefix("E2"), text.strip_prefix("E1"), status) {
        (Some(error), _, _) => Err(CliError::usage(error)),
        (_, Some(error), _) => Err(CliError::failed(error)),
        (_, _, Ok(WaitStatus::Signaled(_, signal, _))) => {
            Err(CliError::failed(format!("the daemon was killed by {signal} before the mount answered")))
        }
        _ => Err(CliError::failed(match read {
            Err(error) => format!("the daemon cannot be heard: {error}"),
            Ok(_) => "the daemon ended before the mount answered; its log says more".to_owned(),
        })),
    }
}
