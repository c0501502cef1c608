//! The `.env` file of `--env-file`: parsed without touching the environment of this process.

use std::collections::HashMap;
use std::path::Path;

use super::error::CliError;
use super::setting::SPELLINGS;
use crate::private_file;
use crate::secret::Secret;

/// The variables that `path` sets. Those that supafs does not know are left out: such a file often serves
/// other programs too.
///
/// # Errors
/// A file that cannot be read or parsed, or that holds a secret and is not private.
pub fn read(path: &Path) -> Result<HashMap<String, Secret>, CliError> {
    let contents = private_file::read(path)
        .map_err(|error| CliError::failed(format!("cannot read --env-file {}: {error}", path.display())))?;
    let mut values = HashMap::new();
    for (index, entry) in dotenvy::from_read_iter(contents.text.expose().as_bytes()).enumerate() {
        // The parser's own message shows the line, which may hold a secret.
        let (name, value) = entry.map_err(|_| {
            CliError::failed(format!(
                "{}: entry {} is not NAME=value; put a value with spaces or $ in single quotes",
                path.display(),
                index + 1
            ))
        })?;
        if !value.is_empty() {
            values.insert(name, Secret::new(value));
        }
    }
    let secrets: Vec<&str> = SPELLINGS
        .iter()
        .filter(|s| s.secret && values.contains_key(s.variable))
        .map(|s| s.variable)
        .collect();
    if !secrets.is_empty() {
        contents.must_be_private(path, &secrets.join(", ")).map_err(CliError::failed)?;
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
