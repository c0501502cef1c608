//! Why a command failed: text for a person, and the exit code that goes with it.

use std::{fmt, io};

/// A failed command. The text says what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CliError {
    /// The command line itself is wrong: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Failed(String),
    /// Failed, and said so already where it can be read.
    Told(u8),
}

impl CliError {
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// Why a command's output could not be written. A reader that has seen enough (`supafs buckets | head`) closes the
    /// pipe: that is an end like another.
    #[must_use]
    pub fn unprintable(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Told(0),
            _ => Self::failed(format!("cannot print: {error}")),
        }
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            Self::Told(code) => *code,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) => f.write_str(text),
            Self::Told(_) => f.write_str("see above"),
        }
    }
}

impl std::error::Error for CliError {}
