//! Extended attributes of other programs, such as `user.xdg.origin.url`, as entries of an object's user metadata.
//!
//! A header name is lower-cased by the server, and proxies drop names with dots and underscores: every byte of an
//! attribute's name but `a-z` and `0-9` becomes `-` and two hexadecimal digits. A header value loses spaces and holds
//! ASCII only: a value becomes Base64 behind `0s`, as getfattr prints it, which also keeps an empty one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// What the names of these entries begin with.
const RESERVED: &str = "supafs-xattr-";
const BINARY: &str = "0s";

/// What all entries of an object may take in the headers of a request: the server takes 16 KiB, of which up to 8 KiB are
/// for the token, the key, twice in a copy, and the signature. A value of more than 8 KiB it would not give back.
const ROOM: usize = 8 << 10;

/// An HTTP client takes an answer with up to 100 headers, of which the server needs some.
const MOST_ENTRIES: usize = 64;

/// What an entry takes beside its name and value: `x-amz-meta-` twice (the signature names it again), `: `, the end of
/// the line and a semicolon.
const OVERHEAD: usize = 2 * "x-amz-meta-".len() + 5;

/// Entries that a later chmod, chown or touch adds.
const LATER: [&str; 4] = ["mtime", "mode", "uid", "gid"];

/// The entry that holds an attribute; `name` is without `user.`.
pub(super) fn entry_of(name: &[u8]) -> String {
    let mut entry = RESERVED.to_owned();
    for &byte in name {
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() {
            entry.push(char::from(byte));
        } else {
            let _infallible = write!(entry, "-{byte:02x}");
        }
    }
    entry
}

/// The attribute that an entry holds, without `user.`; `None` for any other entry.
pub(super) fn name_of(entry: &str) -> Option<Vec<u8>> {
    let mut rest = entry.strip_prefix(RESERVED)?.bytes();
    let mut name = Vec::new();
    while let Some(byte) = rest.next() {
        if byte == b'-' {
            let digits = [rest.next()?, rest.next()?];
            name.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            name.push(byte);
        }
    }
    // What is written otherwise than here is an entry like others.
    (entry_of(&name) == entry && !name.is_empty()).then_some(name)
}

/// What the header of a value says.
pub(super) fn encode(value: &[u8]) -> String {
    format!("{BINARY}{}", BASE64.encode(value))
}

/// The value that a header says; `None` where no mount has written it.
pub(super) fn decode(header: &str) -> Option<Vec<u8>> {
    BASE64.decode(header.strip_prefix(BINARY)?).ok()
}

/// Whether an object's entries fit into the headers of one request, together with those of a later chmod.
pub(super) fn fits(metadata: &BTreeMap<String, String>) -> bool {
    const LONGEST_NUMBER: usize = 24;
    let taken: usize = metadata.iter().map(|(name, value)| OVERHEAD + 2 * name.len() + value.len()).sum();
    let later = LATER.iter().filter(|name| !metadata.contains_key(**name));
    let later: usize = later.map(|name| OVERHEAD + 2 * name.len() + LONGEST_NUMBER).sum();
    taken + later <= ROOM && metadata.len() <= MOST_ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_readable_and_made_of_what_every_proxy_lets_through() {
        assert_eq!(entry_of(b"xdg.origin.url"), "supafs-xattr-xdg-2eorigin-2eurl");
        assert_eq!(entry_of(b"DOSATTRIB"), "supafs-xattr--44-4f-53-41-54-54-52-49-42");
        for other in ["mtime", "supafs-xattr-", "supafs-xattr-A", "supafs-xattr--4", "supafs-xattr--61"] {
            assert_eq!(name_of(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_name_and_value_comes_back(
            name in prop::collection::vec(any::<u8>(), 1..250),
            value in prop::collection::vec(any::<u8>(), 0..4000),
        ) {
            let (entry, header) = (entry_of(&name), encode(&value));
            prop_assert!(entry.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(header.bytes().all(|b| b.is_ascii_graphic()));
            prop_assert_eq!(name_of(&entry), Some(name));
            prop_assert_eq!(decode(&header), Some(value));
        }
    }

    #[test]
    fn what_does_not_fit_into_a_request_is_told() {
        let one = |len: usize| BTreeMap::from([("a".to_owned(), "x".repeat(len))]);
        assert!(fits(&one(7 << 10)) && !fits(&one(8 << 10)));
        assert!(!fits(&(0..65).map(|at| (format!("a{at}"), "x".to_owned())).collect()));
    }
}
