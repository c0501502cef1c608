//! The commands of the laboratory for Row Level Security: `access`, `diff` and `test`.

pub mod args;
mod diff;
mod expect;
mod junit;
mod rights;
mod show;
mod test;
mod who;

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use super::error::CliError;
use super::online::Hint;
use super::settings::Settings;
use super::{block_on, mount, warn};
use crate::lab::{Lab, Trouble};
use crate::logging;

pub use diff::run as diff;
pub use rights::run as access;
pub use test::run as test;

/// What the client libraries do otherwise; said whenever rights were probed.
const NOTES: [&str; 2] = [
    "a write by S3 is always an upsert: besides INSERT it needs SELECT, and UPDATE where the object exists. \
     upload() of the client libraries needs no more than INSERT for a new object",
    "policies that call storage.operation() see the names of S3 here, such as storage.s3.object.get, and not \
     storage.object.get_authenticated",
];

fn say_notes(lab: &Lab) {
    for name in lab.repeated() {
        warn(&format!(
            "requests of {name} were sent again; if an answer was lost, an upload of a probe may still be open \
             (`aws s3api list-multipart-uploads` with the access keys shows it)"
        ));
    }
    for note in NOTES {
        eprintln!("supafs: note: {note}");
    }
}

/// A command that only asks logs what went wrong, unless more is wanted.
fn log_to_stderr(settings: &Settings) -> Result<(), CliError> {
    let level = match settings.get(super::setting::Setting::LogLevel) {
        Some(_) => mount::log_level(settings)?,
        None => logging::Level::ERROR,
    };
    logging::to_stderr(level);
    Ok(())
}

/// Runs to the end, also when interrupted: what was begun is cleared away first.
fn run<T, E: Into<CliError>>(lab: &Lab, work: impl Future<Output = Result<T, E>>) -> Result<T, CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("cannot listen for signals: {error}"));
    let stats = lab.stats();
    let hint = Hint::unless(lab.host(), move || stats.iter().any(|stats| stats.was_answered()));
    let done = block_on(async {
        let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminated = signal(SignalKind::terminate()).map_err(failed)?;
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => return done.map_err(Into::into),
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        lab.stop();
        work.await.map_err(Into::into)
    })?;
    drop(hint);
    let left = lab.left();
    for what in &left {
        warn(&format!("left behind: {what}"));
    }
    if !left.is_empty() && done.is_ok() {
        return Err(CliError::failed("not everything that was made could be taken away"));
    }
    done
}

impl From<Trouble> for CliError {
    fn from(trouble: Trouble) -> Self {
        Self::failed(trouble.to_string())
    }
}
