//! Text that must not be seen: keys and tokens.
//!
//! Invariant: the only way to the text is [`Secret::expose`], so that a search for it shows every place
//! where a secret leaves. `Debug` prints `***`, there is no `Display`, and the memory is wiped on drop.

use std::fmt;

use zeroize::Zeroizing;

/// A key, a token, or any setting that may hold one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. It must go to the signer or a parser, never to a log or a message.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Characters of an id that are shown: enough to tell which one it is, and of no use if it was a secret after all.
const SHOWN: usize = 8;

/// An id as it is shown: its first characters alone.
#[must_use]
pub fn masked(id: &str) -> String {
    match id.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &id[..end]),
        None => id.to_owned(),
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
