//! Commands of the user's that print something short: a token, or where a stack is.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// What is asked for is a few kilobytes; anything beyond is something else.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// What it printed, and how it ended.
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs a command with a deadline, in a process group of its own that is killed with it.
///
/// # Errors
/// Where it cannot be started, does not end in time, or prints without end.
pub fn run(command: &mut Command, timeout: Duration) -> io::Result<Output> {
    let mut child = command
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
            return Err(io::Error::other("it prints without end"));
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
