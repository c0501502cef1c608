//! What people write for sizes, times, modes and users.

use std::time::Duration;

use nix::unistd::{Group, User};

pub use crate::size::shown;

/// `256MiB`, `1G`, `16777216`. `K`, `M`, `G` mean powers of 1024, `KB`, `MB`, `GB` powers of 1000.
///
/// # Errors
/// Text that is no size; it reads on after the value.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ').trim_end();
    let unit = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => 0,
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .filter(|_| unit != 0)
        .ok_or_else(|| "is no size; write e.g. 256MiB".to_owned())
}

/// `5s`, `500ms`, `2m`; a bare number counts seconds.
///
/// # Errors
/// Text that is no time; it reads on after the value.
pub fn duration(text: &str) -> Result<Duration, String> {
    text.parse()
        .map(Duration::from_secs)
        .or_else(|_| humantime::parse_duration(text))
        .map_err(|_| "is no time; write e.g. 5s or 500ms".to_owned())
}

/// Permission bits in octal: `644`, `0644`, `0o644`.
///
/// # Errors
/// Text that is no octal number, or bits beyond 0777; it reads on after the value.
pub fn mode(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text.trim_start_matches("0o"), 8)
        .ok()
        .filter(|bits| *bits <= 0o777)
        .ok_or_else(|| "is no octal mode; write e.g. 644".to_owned())
}

/// A user id or name.
///
/// # Errors
/// A name that the user database does not know; it reads on after the value.
pub fn uid(text: &str) -> Result<u32, String> {
    text.parse().or_else(|_| match User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => Err("is neither a user id nor a known user".to_owned()),
    })
}

/// A group id or name.
///
/// # Errors
/// A name that the group database does not know; it reads on after the value.
pub fn gid(text: &str) -> Result<u32, String> {
    text.parse().or_else(|_| match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        _ => Err("is neither a group id nor a known group".to_owned()),
    })
}

/// `true` or `false`, as environment variables and files write them.
///
/// # Errors
/// Anything else; it reads on after the value.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

/// A whole number.
///
/// # Errors
/// Anything else, and 0; it reads on after the value.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "is no whole number above 0".to_owned())
}

#[cfg(test)]
mod tests;
