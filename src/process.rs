//! What Linux tells of other processes: which threads belong together, and what they hold open.
//!
//! Everything here reads `/proc` and answers "unknown" where that is not to be had: in another process namespace, for
//! another user's processes, or for one that is gone.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Descriptors that are looked at: a process with more of them is not worth the time.
const MOST_DESCRIPTORS: usize = 256;

/// The process that a thread belongs to.
#[must_use]
pub fn of_thread(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Whether a process has a descriptor of the file with this inode number and name. Asks the kernel only, never the
/// file's own file system: it may be the one that asks.
#[must_use]
pub fn holds(process: u32, ino: u64, name: &[u8]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    descriptors.flatten().take(MOST_DESCRIPTORS).any(|descriptor| {
        let is_named = |target: &Path| target.file_name().is_some_and(|file| file.as_bytes() == name);
        fs::read_link(descriptor.path()).is_ok_and(|target| is_named(&target))
            && ino_of(process, &descriptor.file_name().to_string_lossy()) == Some(ino)
    })
}

fn ino_of(process: u32, descriptor: &str) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{descriptor}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("ino:"))?.trim().parse().ok()
}

/// Whether `/proc` shows this process under its own number: the numbers that the kernel names are good there, then.
#[must_use]
pub fn is_seen() -> bool {
    fs::read_link("/proc/self").is_ok_and(|number| number.as_os_str() == &*std::process::id().to_string())
}

/// All threads of the process that a thread belongs to.
#[must_use]
pub fn threads_of(thread: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{thread}/task")) else { return vec![] };
    threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a thread waits to be ended by a signal, or is being ended by one.
///
/// The kernel gives SIGKILL to every thread of a process that any fatal signal ends, except by one that leaves a core
/// dump: that signal itself stays pending. Once a thread has begun to end no signal is pending any more, and its
/// exit code tells (signal(7), proc(5)). The exit code of a process of another user is shown to root only.
#[must_use]
pub fn is_killed(thread: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{thread}/status")) else { return false };
    is_signalled(&status)
        || fs::read_to_string(format!("/proc/{thread}/stat")).is_ok_and(|stat| is_ended_by_signal(&stat))
}

/// Whether a thread has ended, by a signal or by itself. It may still be waited for by its parent.
///
/// Asked by signal 0 first: `/proc` may be mounted so that it hides the processes of other users.
#[must_use]
pub fn is_gone(thread: u32) -> bool {
    let Ok(pid) = i32::try_from(thread) else { return false };
    kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
        || fs::read_to_string(format!("/proc/{thread}/stat")).is_ok_and(|stat| has_ended(&stat))
}

fn has_ended(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(['Z', 'X']))
}

/// The bit of a signal in the masks of `/proc/<pid>/status`.
const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Signals whose default is to end the process with a core dump.
const DUMPING: u64 = bit(libc::SIGQUIT)
    | bit(libc::SIGILL)
    | bit(libc::SIGTRAP)
    | bit(libc::SIGABRT)
    | bit(libc::SIGBUS)
    | bit(libc::SIGFPE)
    | bit(libc::SIGSEGV)
    | bit(libc::SIGXCPU)
    | bit(libc::SIGXFSZ)
    | bit(libc::SIGSYS);

fn is_signalled(status: &str) -> bool {
    let mask = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).unwrap_or(0)
    };
    let pending = mask("SigPnd") | mask("ShdPnd");
    let is_default = !(mask("SigBlk") | mask("SigIgn") | mask("SigCgt"));
    pending & (bit(libc::SIGKILL) | DUMPING & is_default) != 0
}

fn is_ended_by_signal(stat: &str) -> bool {
    /// `PF_EXITING` of the kernel's task flags.
    const EXITING: u64 = 0x4;
    /// The part of a wait status that holds the signal.
    const SIGNAL: u64 = 0x7f;
    // The name of the command, in parentheses, may hold anything; field 3 follows it.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
    let field = |number: usize| fields.split(' ').nth(number - 3)?.trim().parse::<u64>().ok();
    field(9).is_some_and(|flags| flags & EXITING != 0) && field(52).is_some_and(|code| code & SIGNAL != 0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::{
        has_ended, holds, is_ended_by_signal, is_gone, is_killed, is_seen, is_signalled, of_thread,
        threads_of,
    };

    #[test]
    fn a_process_that_lives_is_not_killed() {
        let me = std::process::id();
        assert!(is_seen() && !is_killed(me) && !is_killed(0));
        assert!(threads_of(me).contains(&me));
    }

    #[test]
    fn only_a_signal_that_ends_the_process_counts() {
        let status = |pending: u64, shared: u64, caught: u64| {
            format!(
                "Name:\tcat\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t0000000000000000\n\
                 SigIgn:\t0000000000000000\nSigCgt:\t{caught:016x}\n"
            )
        };
        let (kill, quit, int) = (1 << 8, 1 << 2, 1 << 1);
        assert!(is_signalled(&status(kill, 0, 0)) && is_signalled(&status(0, kill, 0)));
        assert!(is_signalled(&status(0, quit, 0)), "Ctrl-\\");
        assert!(!is_signalled(&status(0, quit, quit)), "it is caught");
        assert!(!is_signalled(&status(0, 0, 0)));
        // One that nobody catches has become SIGKILL; this one is caught.
        assert!(!is_signalled(&status(0, int, int)));
    }

    #[test]
    fn an_end_by_a_signal_differs_from_an_exit() {
        let stat = |flags: u64, code: u64| {
            let rest = "0 ".repeat(42);
            format!("1 (a) b) D 1 1 1 0 -1 {flags} {rest}{code}\n")
        };
        assert!(is_ended_by_signal(&stat(0x40_0004, 9)));
        assert!(is_ended_by_signal(&stat(0x40_0004, 0x80 | 3)), "with a core dump");
        assert!(!is_ended_by_signal(&stat(0x40_0004, 1 << 8)), "exit 1");
        assert!(!is_ended_by_signal(&stat(0x40_0000, 9)), "it is not ending");
    }

    #[test]
    fn a_thread_is_gone_when_it_has_ended_whoever_waits_for_it() {
        let mut child = std::process::Command::new("sleep").arg("99").spawn().expect("sleep starts");
        assert!(!is_gone(std::process::id()) && !is_gone(child.id()));
        child.kill().expect("killed");
        while !is_gone(child.id()) {
            std::thread::yield_now();
        }
        child.wait().expect("it was not waited for before");
        assert!(is_gone(child.id()));
        assert!(has_ended("7 (a) b) Z 1 1") && !has_ended("7 (a) Z ) D 1 1"));
    }

    #[test]
    fn threads_belong_to_their_process() {
        let me = std::process::id();
        let thread =
            std::thread::spawn(|| nix::unistd::gettid().as_raw().unsigned_abs()).join().expect("a thread");
        assert_ne!(thread, me);
        assert_eq!(of_thread(nix::unistd::gettid().as_raw().unsigned_abs()), Some(me));
        assert_eq!(of_thread(0), None);
    }

    #[test]
    fn an_open_file_is_held_until_it_is_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = File::create(folder.path().join("held")).expect("a file");
        let (me, ino) = (std::process::id(), file.metadata().expect("attributes").ino());
        assert!(holds(me, ino, b"held"));
        assert!(!holds(me, ino + 1, b"held") && !holds(me, ino, b"other"));
        drop(file);
        assert!(!holds(me, ino, b"held"));
    }
}
