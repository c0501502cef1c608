//! What a file system knows of a file and an object store does not: times, mode and owner, kept in user metadata.
//!
//! `mtime` is written as rclone and s3fs write it (decimal seconds with a fraction), `mode`, `uid` and `gid` as s3fs
//! writes them (decimal); rclone's octal mode is read as well.

use std::collections::BTreeMap;

/// The type bits of a regular file's mode, as `st_mode` has them.
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// When a version became what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modified {
    /// Milliseconds since the Unix epoch.
    pub ms: i64,
    /// The listing says so, which alone tells versions with the same content apart. Otherwise it is what is known
    /// here: the time of our own upload, or an answer's time in whole seconds.
    pub is_listed: bool,
}

impl Modified {
    #[must_use]
    pub fn listed(ms: i64) -> Self {
        Self { ms, is_listed: true }
    }

    #[must_use]
    pub fn unlisted(ms: i64) -> Self {
        Self { ms, is_listed: false }
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub fn nanos(self) -> i64 {
        self.ms.saturating_mul(1_000_000)
    }
}

/// What was set explicitly; the rest follows from the server and the mount's options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Nanoseconds since the Unix epoch.
    pub mtime: Option<i64>,
    /// Permission bits, `0o7777` at most.
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl Attrs {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What user metadata says.
    #[must_use]
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Self {
        let number = |name: &str| metadata.get(name).and_then(|text| text.parse().ok());
        Self {
            mtime: metadata.get("mtime").and_then(|text| parse_mtime(text)),
            mode: metadata.get("mode").and_then(|text| parse_mode(text)),
            uid: number("uid"),
            gid: number("gid"),
        }
    }

    /// Writes what is set into user metadata.
    pub fn write_to(&self, metadata: &mut BTreeMap<String, String>, is_directory: bool) {
        let mut set = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                metadata.insert(name.to_owned(), value);
            }
        };
        let kind = if is_directory { DIRECTORY } else { REGULAR };
        set("mtime", self.mtime.map(format_mtime));
        set("mode", self.mode.map(|mode| (kind | u32::from(mode)).to_string()));
        set("uid", self.uid.map(|uid| uid.to_string()));
        set("gid", self.gid.map(|gid| gid.to_string()));
    }

    /// These, where set, over `below`.
    #[must_use]
    pub fn over(&self, below: &Self) -> Self {
        Self {
            mtime: self.mtime.or(below.mtime),
            mode: self.mode.or(below.mode),
            uid: self.uid.or(below.uid),
            gid: self.gid.or(below.gid),
        }
    }
}

/// `st_mode` in decimal (s3fs), or in octal (rclone: a leading zero, or too few digits to hold the type in decimal).
fn parse_mode(text: &str) -> Option<u16> {
    let is_octal = text.starts_with('0') || text.len() < 5 || (text.len() == 6 && text.starts_with("10"));
    let mode = if is_octal && text.bytes().all(|b| b.is_ascii_digit() && b < b'8') {
        u32::from_str_radix(text, 8).ok()?
    } else {
        text.parse().ok()?
    };
    u16::try_from(mode & 0o7777).ok()
}

/// Decimal seconds, with up to nine digits behind the point counted.
#[must_use]
pub fn parse_mtime(text: &str) -> Option<i64> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(fraction) || !is_number(seconds) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9.9}").parse().ok()?;
    let total = seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    Some(if negative { -total } else { total })
}

fn format_mtime(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    format!("{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtime_is_read_as_rclone_and_s3fs_write_it() {
        assert_eq!(parse_mtime("1600000000"), Some(1_600_000_000_000_000_000));
        assert_eq!(parse_mtime("1600000000.123456789"), Some(1_600_000_000_123_456_789));
        assert_eq!(parse_mtime("1600000000.5"), Some(1_600_000_000_500_000_000));
        assert_eq!(parse_mtime("-1.5"), Some(-1_500_000_000));
        for bad in ["", "now", "1e9", "1.x", "+1", "99999999999999999999"] {
            assert_eq!(parse_mtime(bad), None, "{bad}");
        }
    }

    #[test]
    fn modes_are_read_as_s3fs_and_rclone_write_them() {
        for (text, mode) in
            [("33188", 0o644), ("33261", 0o755), ("0100644", 0o644), ("100755", 0o755), ("644", 0o644)]
        {
            assert_eq!(parse_mode(text), Some(mode), "{text}");
        }
        assert_eq!(parse_mode("rw-r--r--"), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let attrs = Attrs { mtime: Some(-1), mode: Some(0o4751), uid: Some(0), gid: Some(u32::MAX) };
        let mut metadata = BTreeMap::new();
        attrs.write_to(&mut metadata, false);
        assert_eq!(metadata["mode"], (0o104_751).to_string());
        assert_eq!(Attrs::from_metadata(&metadata), attrs);
        let later = Attrs { mtime: Some(1_600_000_000_500_000_000), ..Attrs::default() };
        later.write_to(&mut metadata, false);
        assert_eq!(metadata["mtime"], "1600000000.500000000");
    }
}
