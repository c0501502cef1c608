//! Waiting for the network: `--wait-online`, and what a person sees who waits.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::access::{self, Choice};
use super::endpoint::Endpoint;
use super::error::CliError;
use super::setting::Setting;
use super::settings::Settings;
use super::{block_on, identity, units};
use crate::obstacle::{Obstacle, host_of};
use crate::store::reach;

/// Silence that needs a word.
const SILENCE: Duration = Duration::from_secs(2);
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits until the server answers, for as long as `--wait-online` says. Without it, nothing is asked: the command's own
/// first request finds out.
///
/// # Errors
/// What is in the way when the time is over, or at once where waiting does not help: a certificate that is not accepted.
pub fn wait(settings: &Settings, choice: Option<&Choice>) -> Result<(), CliError> {
    let time = settings.parsed(Setting::WaitOnline, Duration::ZERO, units::duration)?;
    // What is wrong with the endpoint is told by whoever needs it.
    let Some(endpoint) = place(settings, choice).filter(|_| !time.is_zero()) else { return Ok(()) };
    let until = Instant::now() + time;
    let _hint = Hint::begin(&endpoint.url);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let answer = block_on(reach::reach(&endpoint.url, left.clamp(PAUSE, PATIENCE)))?;
        let is_over = Instant::now() >= until;
        match answer {
            // A gateway answers before the service behind it is up.
            Ok(reached) if reached.status < 500 || is_over => return Ok(()),
            Err(why) if is_over || why.obstacle.as_ref().is_some_and(Obstacle::stays) => {
                return Err(CliError::failed(format!("cannot reach the server: {why}")));
            }
            _ => thread::sleep(PAUSE.min(until.saturating_duration_since(Instant::now()))),
        }
    }
}

/// The endpoint, as far as it is known without a question to the network.
fn place(settings: &Settings, choice: Option<&Choice>) -> Option<Endpoint> {
    if let Some(Choice::Session { who, .. }) = choice
        && who.setting == Setting::User
        && let Ok((_, kept)) = identity::find_kept(settings, who)
    {
        return Endpoint::of_api(&kept.url).ok();
    }
    access::endpoint(settings, choice, None).ok()
}

/// While it lives, a terminal is told after a moment that the command still tries.
#[derive(Debug)]
pub struct Hint {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Hint {
    /// For the server of this URL.
    #[must_use]
    pub fn begin(url: &str) -> Self {
        Self::unless(url, || false)
    }

    /// The same, where the server may have answered while the command goes on.
    #[must_use]
    pub fn unless(url: &str, has_answered: impl Fn() -> bool + Send + 'static) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { running: None };
        }
        let host = host_of(url).to_owned();
        let (end, ended) = mpsc::channel();
        let thread = thread::spawn(move || {
            if ended.recv_timeout(SILENCE) == Err(RecvTimeoutError::Timeout) && !has_answered() {
                eprintln!("supafs: still trying to reach {host}");
            }
        });
        Self { running: Some((end, thread)) }
    }
}

impl Drop for Hint {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.running.take() {
            drop(end);
            // It may be followed by a fork, which wants one thread.
            let _ended = thread.join();
        }
    }
}
