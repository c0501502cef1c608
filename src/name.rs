//! File names and key components: how one is written as the other, both ways.
//!
//! Supabase refuses many characters in keys (everything outside ASCII, and `~ # % [ ] { } ^ | \ < > "` and
//! more), so a name that holds them is stored escaped: each refused byte becomes `!` and two upper-case
//! hexadecimal digits (`café` is `caf!C3!A9`). Keys of other clients that happen to look like an escape must
//! stay apart from ours, so the mapping is a bijection: an escape that is meant literally gains one `21` (the
//! code of `!`) after its `!`, and loses it on the way back.
//!
//! Three codes that no name can hold, `!00`, `!2E` and `!2F`, mark *aliases*: the names under which components
//! are shown that cannot be a file name (see [`alias`]). An alias is resolved by a listing only.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

/// The longest file name, in bytes (`NAME_MAX`).
pub const MAX_LEN: usize = 255;

/// The object that Supabase's dashboard puts into an empty folder; never shown.
pub const PLACEHOLDER: &str = ".emptyFolderPlaceholder";

/// What rclone appends to the key of a symbolic link.
pub const LINK_SUFFIX: &str = ".rclonelink";

/// Marks the object that stands beside a folder of the same name.
const BESIDE: &[u8] = b"!00";
const DOT: &[u8] = b"!2E";
const SLASH: &[u8] = b"!2F";

/// Whether Supabase accepts the byte in a key component.
#[must_use]
pub fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_!.*'() &$=@;:+,?-".contains(&byte)
}

/// What a `!` begins.
enum Escape {
    /// `!`, `nested` times `21`, and the code of a byte that keys cannot hold.
    Byte { nested: usize, byte: u8 },
    /// The same with a code that marks an alias.
    Marker { nested: usize },
}

impl Escape {
    /// The escape at the start of `text`, if there is one, and its length.
    fn at(text: &[u8]) -> Option<(Self, usize)> {
        if text.first() != Some(&b'!') {
            return None;
        }
        let mut nested = 0;
        while text[1 + 2 * nested..].starts_with(b"21") {
            nested += 1;
        }
        let at = 1 + 2 * nested;
        let byte = hex_digit(*text.get(at)?)? << 4 | hex_digit(*text.get(at + 1)?)?;
        let escape = match byte {
            0x00 | 0x2E | 0x2F => Self::Marker { nested },
            byte if is_allowed(byte) => return None,
            byte => Self::Byte { nested, byte },
        };
        Some((escape, at + 2))
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The file name under which a key component is shown. Components that cannot be a name need [`alias`].
#[must_use]
pub fn from_component(component: &str) -> Cow<'_, [u8]> {
    let raw = component.as_bytes();
    if !raw.contains(&b'!') {
        return Cow::Borrowed(raw);
    }
    let mut name = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(&first) = rest.first() {
        let Some((escape, len)) = Escape::at(rest) else {
            name.push(first);
            rest = &rest[1..];
            continue;
        };
        match escape {
            Escape::Byte { nested: 0, byte } => name.push(byte),
            Escape::Byte { .. } => {
                name.push(b'!');
                name.extend_from_slice(&rest[3..len]);
            }
            Escape::Marker { .. } => {
                name.extend_from_slice(b"!21");
                name.extend_from_slice(&rest[1..len]);
            }
        }
        rest = &rest[len..];
    }
    Cow::Owned(name)
}

/// The key component of a file name, or `None` where the name is an alias.
#[must_use]
pub fn to_component(name: &[u8]) -> Option<String> {
    let mut component = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(&first) = rest.first() {
        match Escape::at(rest) {
            Some((Escape::Marker { nested: 0 }, _)) => return None,
            Some((Escape::Marker { .. }, len)) => {
                component.push('!');
                component.extend(rest[3..len].iter().map(|&b| char::from(b)));
                rest = &rest[len..];
            }
            Some((Escape::Byte { .. }, len)) => {
                component.push_str("!21");
                component.extend(rest[1..len].iter().map(|&b| char::from(b)));
                rest = &rest[len..];
            }
            None if is_allowed(first) => {
                component.push(char::from(first));
                rest = &rest[1..];
            }
            None => {
                use std::fmt::Write;
                write!(component, "!{first:02X}").expect("writing to a String");
                rest = &rest[1..];
            }
        }
    }
    Some(component)
}

/// Whether a lookup of this name must go through the listing of its directory: aliases, and names whose key
/// would be escaped (a server that accepts more characters may hold it unescaped).
#[must_use]
pub fn needs_listing(name: &[u8]) -> bool {
    name.ends_with(LINK_SUFFIX.as_bytes())
        || to_component(name).is_none_or(|component| component.as_bytes() != name)
}

/// The name of a component that is shown under another one than its own: `.`, `..`, an empty component
/// (as in `a//b`), or one that is too long. `None` for a component that can be a file name.
#[must_use]
pub fn alias(component: &str) -> Option<Vec<u8>> {
    match component {
        "" => return Some(SLASH.to_vec()),
        "." => return Some(DOT.to_vec()),
        ".." => return Some(DOT.repeat(2)),
        _ => {}
    }
    let name = from_component(component);
    (name.len() > MAX_LEN).then(|| shortened(&name, MAX_LEN, component.as_bytes()))
}

/// The beginning of a name, and a digest of what it stands for, in `len` bytes.
fn shortened(name: &[u8], len: usize, whole: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(whole);
    let number = digest[..8].iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    let mark = format!("{number:016x}");
    let mut short = name[..len - SLASH.len() - mark.len()].to_vec();
    short.extend_from_slice(SLASH);
    short.extend_from_slice(mark.as_bytes());
    short
}

/// The name of an object whose own name is taken by a folder, or by another key that is shown the same.
#[must_use]
pub fn beside(name: &[u8]) -> Vec<u8> {
    let mut shown = if name.len() + BESIDE.len() <= MAX_LEN {
        name.to_vec()
    } else {
        shortened(name, MAX_LEN - BESIDE.len(), name)
    };
    shown.extend_from_slice(BESIDE);
    shown
}

#[cfg(test)]
mod tests;
