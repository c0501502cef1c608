//! Which object keys and bucket names the server takes.

use crate::error::{S3Error, S3Result};

/// Studio and the REST API make an empty folder with an object of this name.
pub const PLACEHOLDER: &str = ".emptyFolderPlaceholder";

const PUNCTUATION: &[u8] = b"_!.*'() &$=@;:+,?-";

fn in_charset(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || PUNCTUATION.contains(&byte)
}

/// Whether every character of a key is allowed.
pub fn valid_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b == b'/' || in_charset(b))
}

/// `valid_key` as a refusal.
pub fn check_key(key: &str) -> S3Result<()> {
    if valid_key(key) { Ok(()) } else { Err(S3Error::invalid_key(key)) }
}

/// What the file backend cannot store, though the database would take it.
pub fn check_storable(key: &str, tenant: &str, bucket: &str) -> S3Result<()> {
    if key.split('/').any(|segment| segment == "." || segment == "..") {
        // The message gives away the path of the version that could not be stored.
        let version = "00000000-0000-4000-8000-000000000000";
        let path = format!("{tenant}/stub/{bucket}/{key}/{version} contains dot path segment");
        return Err(S3Error::invalid_key(&path));
    }
    if key.split('/').any(|segment| segment.len() > 255) || key.len() > 4000 {
        return Err(S3Error::internal());
    }
    Ok(())
}

/// Whether a bucket may be created under this name.
pub fn check_bucket_name(name: &str) -> S3Result<()> {
    let fits = (1..=100).contains(&name.len())
        && name.bytes().all(in_charset)
        && name.trim() == name
        && !name.ends_with("--table-s3");
    if fits { Ok(()) } else { Err(S3Error::invalid_bucket_name()) }
}
