//! What the kernel has mounted where, from `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub mountpoint: PathBuf,
    pub fstype: String,
    pub source: String,
}

impl Entry {
    /// Whether supafs serves it, or served it before it died.
    #[must_use]
    pub fn is_supafs(&self) -> bool {
        self.fstype == "fuse.supafs" || (self.fstype == "fuse" && self.source.starts_with("supafs"))
    }
}

/// The mount that is on top at exactly `path`, which must be absolute and without symbolic links.
///
/// # Errors
/// Where the table cannot be read.
pub fn at(path: &Path) -> io::Result<Option<Entry>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(parse(&table).into_iter().rfind(|entry| entry.mountpoint == path))
}

fn parse(table: &[u8]) -> Vec<Entry> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mount/point options optional… - fstype source superoptions`
fn parse_line(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mountpoint = unescape(fields.nth(4)?);
    let mut after = fields.skip_while(|field| *field != b"-").skip(1);
    let fstype = String::from_utf8_lossy(after.next()?).into_owned();
    let source = unescape(after.next()?);
    Some(Entry {
        mountpoint: PathBuf::from(OsString::from_vec(mountpoint)),
        fstype,
        source: String::from_utf8_lossy(&source).into_owned(),
    })
}

/// Blank, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let code =
            tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(code) = code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            plain.push(code);
            rest = &tail[3..];
        } else {
            plain.push(byte);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests;
