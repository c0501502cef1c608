//! Where log lines go: standard error, or a file private to the user.
//!
//! A file over [`ROTATE_AT`] bytes is renamed to `.old` when it is opened, and truncated where the daemon
//! itself fills it: the log never grows without bound, and rotation needs no thread.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tracing::Event;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{EnvFilter, Layer};

use crate::state_dir;

/// Bytes after which a log file gives way to a new one.
pub const ROTATE_AT: u64 = 10 * 1024 * 1024;

/// What to log: `error`, `warn`, `info`, `debug` or `trace`.
pub type Level = LevelFilter;

/// Sends log lines to standard error.
pub fn to_stderr(level: Level) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .finish();
    install(subscriber);
}

/// Sends log lines to `log`.
pub fn to_file(level: Level, log: LogFile) {
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter(level)).with_writer(log).with_ansi(false).finish();
    install(subscriber);
}

/// A second call changes nothing: tests and a command that mounts may both ask.
fn install(subscriber: impl tracing::Subscriber + Send + Sync + 'static) {
    let _ = tracing::subscriber::set_global_default(subscriber.with(Once::default()));
}

/// Lets a line of a library through the first time only: the AWS configuration is read several times, and would warn of
/// the same line of a file each time.
#[derive(Default)]
struct Once {
    seen: Mutex<HashSet<u64>>,
}

/// Lines that are remembered.
const REMEMBERED: usize = 1000;

impl<S: tracing::Subscriber> Layer<S> for Once {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        if event.metadata().target().starts_with("supafs") {
            return true;
        }
        let mut line = Said(DefaultHasher::new());
        event.metadata().target().hash(&mut line.0);
        event.record(&mut line);
        let mut seen = self.seen.lock();
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(line.0.finish())
    }
}

/// What an event says, as a number.
struct Said(DefaultHasher);

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        field.name().hash(&mut self.0);
        format!("{value:?}").hash(&mut self.0);
    }
}

/// The SDK and the HTTP client stay at `warn`: at `debug` they print headers, and a header may be a token.
fn filter(level: Level) -> EnvFilter {
    let others = level.min(LevelFilter::WARN);
    EnvFilter::new(format!("{others},supafs={level}"))
}

/// A log file that bounds its own size.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    written: u64,
}

impl LogFile {
    /// Opens or creates `path`, mode 0600.
    ///
    /// # Errors
    /// The file system's own, with the path.
    pub fn open(path: &Path) -> io::Result<Self> {
        let open = open_rotated(path)?;
        Ok(Self { path: path.to_owned(), open: Mutex::new(open) })
    }

    /// A second descriptor of the file, for standard error of a daemon: a panic's words must not be lost.
    ///
    /// # Errors
    /// The system's own.
    pub fn duplicate(&self) -> io::Result<File> {
        self.open.lock().file.try_clone()
    }
}

fn open_rotated(path: &Path) -> io::Result<Open> {
    if fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > ROTATE_AT) {
        let mut old = path.as_os_str().to_owned();
        old.push(".old");
        fs::rename(path, PathBuf::from(old))?;
    }
    let file = state_dir::append_private(path)?;
    let written = file.metadata()?.len();
    Ok(Open { file, written })
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Writes one log line at a time.
#[derive(Debug)]
pub struct Line<'a>(&'a LogFile);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = self.0.open.lock();
        if open.written > ROTATE_AT {
            // A failure to rotate must not cost the line.
            if let Ok(next) = open_rotated(&self.0.path) {
                *open = next;
            }
        }
        let written = open.file.write(bytes)?;
        open.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
