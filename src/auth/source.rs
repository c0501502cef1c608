//! Where a user's token comes from: a fixed string, a file, or a command.
//!
//! Sources are plain blocking code without threads: the first token is read before the daemon forks, later
//! ones on the runtime's blocking pool.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use parking_lot::Mutex;

use crate::command;
use crate::private_file::{self, Stamp};
use crate::secret::Secret;

/// How long a token command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A token file that is found empty is looked at so often, so far apart: it may be between truncation and writing.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

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
    /// How the next token comes, for a person.
    fn renewal(&self) -> String;
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

    fn renewal(&self) -> String {
        "not at all: it is fixed".to_owned()
    }
}

/// A file that another program writes.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    loaded: Mutex<Option<Stamp>>,
}

impl TokenFile {
    /// `path` must be absolute: the daemon runs in `/`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, loaded: Mutex::new(None) }
    }
}

impl TokenSource for TokenFile {
    fn describe(&self) -> String {
        format!("--session-token-file {}", self.path.display())
    }

    fn load(&self) -> Result<Secret, String> {
        // Taken before reading: a change in between is seen as a change, and read again.
        for _ in 0..LOOKS {
            *self.loaded.lock() = private_file::stamp(&self.path);
            let contents = private_file::read(&self.path)
                .map_err(|error| format!("cannot read {}: {error}", self.path.display()))?;
            contents.must_be_private(&self.path, "a session token")?;
            let token = contents.text.expose().trim();
            if !token.is_empty() {
                return Ok(Secret::new(token));
            }
            // Whoever writes it without renaming truncates it first.
            std::thread::sleep(BETWEEN_LOOKS);
        }
        Err(format!("{} is empty", self.path.display()))
    }

    fn changed(&self) -> bool {
        let now = private_file::stamp(&self.path);
        now.is_some() && now != *self.loaded.lock()
    }

    fn remedy(&self) -> String {
        format!("write a new access_token to {}", self.path.display())
    }

    fn renewal(&self) -> String {
        format!("from {}, when it changes and ahead of expiry", self.path.display())
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
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(self.command.expose()).current_dir(&self.directory);
        let output = command::run(&mut shell, self.timeout)
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
        match text.trim() {
            "" => Err("--session-token-command printed nothing".to_owned()),
            token => Ok(Secret::new(token)),
        }
    }

    fn remedy(&self) -> String {
        "see why --session-token-command prints no new access_token".to_owned()
    }

    fn renewal(&self) -> String {
        "by --session-token-command, ahead of expiry".to_owned()
    }
}

#[cfg(test)]
mod tests;
