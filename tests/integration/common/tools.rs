//! Small tools: commands with a limit, checksums, reproducible bytes and numbers.

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use sha2::{Digest as _, Sha256};

/// Runs a shell line in `dir` and gives what it printed.
///
/// # Panics
/// If it fails; the text shows what it wrote to both streams.
pub fn run(dir: &Path, line: &str) -> String {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", line])
        .current_dir(dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .expect("bash starts");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "`{line}` failed ({}):\n{err}{out}", output.status);
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines of a text in byte order.
pub fn sorted_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    lines.sort();
    lines
}

/// Waits until `done` gives a value; polls, because what is waited for happens in another process.
///
/// # Panics
/// If nothing comes within 30 seconds.
pub fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for a child with everything it prints, and kills it after `limit`.
///
/// # Panics
/// If the limit was needed.
pub fn wait_with_limit(mut child: Child, limit: Duration) -> Output {
    let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut bytes);
            }
            bytes
        })
    };
    let out = read(child.stdout.take().map(|p| Box::new(p) as _));
    let err = read(child.stderr.take().map(|p| Box::new(p) as _));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of this process") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("a command did not end within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    // A daemon that went into the background must not hold the pipes: joining proves it.
    let finish = |reader: std::thread::JoinHandle<Vec<u8>>| {
        eventually("the end of a command's output", || reader.is_finished().then_some(()));
        reader.join().expect("the reader does not panic")
    };
    Output { status, stdout: finish(out), stderr: finish(err) }
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(sha256(bytes))
}

/// `len` bytes that depend on `seed`, the same on every run.
pub fn body(seed: u64, len: usize) -> Vec<u8> {
    supafs_standin::synthetic_bytes(seed, 0, len).to_vec()
}

/// Whether something is mounted on exactly this directory. Asks the table, so that a dead mount cannot hang it.
pub fn is_mounted(dir: impl AsRef<OsStr>) -> bool {
    device_of(Path::new(&dir)).is_some()
}

/// The minor device number of the mount on this directory: the name of its FUSE connection.
pub(super) fn device_of(dir: &Path) -> Option<u32> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().rev().find_map(|line| {
        let mut fields = line.split(' ');
        let device = fields.nth(2)?;
        let at = fields.nth(1)?.replace("\\040", " ");
        (Path::new(&at) == dir).then(|| device.split_once(':')?.1.parse().ok())?
    })
}

/// A reproducible generator of numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).expect("a usize")]
    }
}

/// Inode number of a path.
pub fn ino(path: &Path) -> u64 {
    fs::metadata(path).expect("stat").ino()
}

/// Why an operation failed.
pub fn errno<T>(result: std::io::Result<T>) -> Errno {
    let error = result.err().expect("a failure");
    Errno::from_raw(error.raw_os_error().unwrap_or_else(|| panic!("no errno: {error}")))
}
