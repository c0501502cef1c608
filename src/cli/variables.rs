//! Variables of the environment that name files, and are read by libraries: made absolute at the start.
//!
//! The daemon of a background mount works in `/`, so that the directory of its caller can be unmounted. What a library
//! reads later must still mean what it meant to the caller.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, absolute};

use crate::secret::Secret;
use crate::sys;

/// Each holds one path.
const PATHS: &[&str] =
    &["SSL_CERT_FILE", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "HOME"];
/// Each holds paths with colons between them.
const LISTS: &[&str] = &["SSL_CERT_DIR"];

/// Variables that only libraries read, and that an env file may set, too.
const OF_LIBRARIES: &[&str] = &[
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "AWS_CA_BUNDLE",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// Puts those that an env file sets into the environment, which wins where it has one. To be called before the first
/// thread.
pub fn take_over(values: &HashMap<String, Secret>) {
    for name in OF_LIBRARIES {
        let is_set = env::var_os(name).is_some_and(|value| !value.is_empty());
        if let Some(value) = values.get(*name).filter(|_| !is_set) {
            sys::set_variable(name, value.expose().as_ref());
        }
    }
    make_absolute();
}

/// Makes them absolute. To be called before the first thread.
pub fn make_absolute() {
    for name in PATHS {
        if let Some(path) = relative(name, |value| Path::new(value).is_relative())
            && let Ok(whole) = absolute(&path)
        {
            sys::set_variable(name, whole.as_os_str());
        }
    }
    for name in LISTS {
        let is_relative = |value: &OsString| env::split_paths(value).any(|path| path.is_relative());
        let Some(list) = relative(name, is_relative) else { continue };
        let paths = env::split_paths(&list).map(|path| absolute(&path).unwrap_or(path));
        if let Ok(whole) = env::join_paths(paths) {
            sys::set_variable(name, &whole);
        }
    }
}

/// A value that is to be changed. `~/` is the AWS library's own way to write the home directory.
fn relative(name: &str, is_relative: impl Fn(&OsString) -> bool) -> Option<OsString> {
    let value = env::var_os(name).filter(|value| !value.is_empty())?;
    (is_relative(&value) && !value.as_encoded_bytes().starts_with(b"~")).then_some(value)
}
