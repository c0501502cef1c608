//! Entity tags: opaque version tokens, kept in 16 bytes where they are an MD5.

use std::fmt;

/// The version of an object's content, without the quotes. Compared for equality, never interpreted.
///
/// On Supabase it is mostly an MD5; a multipart or mtime-based tag is kept as text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ETag(Repr);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Repr {
    Md5([u8; 16]),
    Text(Box<str>),
}

impl ETag {
    /// The tag of what has no version.
    #[must_use]
    pub const fn none() -> Self {
        Self(Repr::Md5([0; 16]))
    }

    /// From a header or a listing, with or without quotes.
    #[must_use]
    pub fn new(raw: &str) -> Self {
        let text = raw.trim().trim_matches('"');
        let canonical_md5 =
            text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !canonical_md5 {
            return Self(Repr::Text(text.into()));
        }
        let mut md5 = [0u8; 16];
        for (byte, pair) in md5.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = hex_digit(pair[0]) << 4 | hex_digit(pair[1]);
        }
        Self(Repr::Md5(md5))
    }
}

fn hex_digit(b: u8) -> u8 {
    if b.is_ascii_digit() { b - b'0' } else { b - b'a' + 10 }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Md5(md5) => md5.iter().try_for_each(|b| write!(f, "{b:02x}")),
            Repr::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ETag({self})")
    }
}
