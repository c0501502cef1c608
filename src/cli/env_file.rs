//! The `.env` file of `--env-file`, `-` for standard input: parsed without touching the environment of this process.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use super::error::CliError;
use super::local_stack;
use super::setting::SPELLINGS;
use crate::private_file;
use crate::secret::Secret;

/// The variables that `path` sets. Those that supafs does not know are left out: such a file often serves
/// other programs too.
///
/// # Errors
/// A file that cannot be read or parsed, or that holds a secret and is not private.
pub fn read(path: &Path) -> Result<HashMap<String, Secret>, CliError> {
    let told = |error: std::io::Error| {
        CliError::failed(format!("cannot read --env-file {}: {error}", path.display()))
    };
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(told)?;
        return parse(path, &Secret::new(text));
    }
    let contents = private_file::read(path).map_err(told)?;
    let values = parse(path, &contents.text)?;
    let known = SPELLINGS.iter().filter(|s| s.secret).map(|s| s.variable);
    let secrets: Vec<&str> =
        known.chain(local_stack::SECRETS.iter().copied()).filter(|name| values.contains_key(*name)).collect();
    if !secrets.is_empty() {
        contents.must_be_private(path, &secrets.join(", ")).map_err(CliError::failed)?;
    }
    Ok(values)
}

/// The variables of an env file's text, which came from `path`.
///
/// # Errors
/// Text that is none.
pub fn parse(path: &Path, text: &Secret) -> Result<HashMap<String, Secret>, CliError> {
    let mut values = HashMap::new();
    for (index, entry) in dotenvy::from_read_iter(text.expose().as_bytes()).enumerate() {
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
    Ok(values)
}

#[cfg(test)]
mod tests;
