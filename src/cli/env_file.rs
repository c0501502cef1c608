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
    if let Some((line, quote)) = open_quote(text.expose()) {
        return Err(CliError::failed(format!(
            "{}, line {line}: the quote {quote} is not closed; close it, or write a value that has one in quotes of the \
             other kind",
            path.display()
        )));
    }
    for entry in dotenvy::from_read_iter(text.expose().as_bytes()) {
        // The parser's own message shows the line, which may hold a secret.
        let (name, value) = entry.map_err(|error| {
            CliError::failed(format!(
                "{}{}: it is not NAME=value; put a value with spaces or $ in single quotes",
                path.display(),
                line_of(&error, text).map_or_else(String::new, |line| format!(", line {line}"))
            ))
        })?;
        if !value.is_empty() {
            values.insert(name, Secret::new(value));
        }
    }
    Ok(values)
}

/// The line of the text, from 1 on, that the parser does not understand.
fn line_of(error: &dotenvy::Error, text: &Secret) -> Option<usize> {
    let dotenvy::Error::LineParse(entry, _) = error else { return None };
    let first = entry.lines().next()?.trim();
    // The parser may have taken away what it understood.
    let is_it = |line: &str| line.trim() == first || (!first.is_empty() && line.contains(first));
    text.expose().lines().position(is_it).map(|index| index + 1)
}

/// The line and the sign of a quote that is still open at the end: everything behind it would be one value.
fn open_quote(text: &str) -> Option<(usize, char)> {
    let mut open = None;
    let (mut line, mut escaped, mut before) = (1, false, '\n');
    let mut is_comment = false;
    for c in text.chars() {
        match (c, open) {
            _ if std::mem::take(&mut escaped) => {}
            ('\\', None | Some((_, '"'))) if !is_comment => escaped = true,
            ('#', None) if before.is_whitespace() => is_comment = true,
            ('\'' | '"', None) if !is_comment => open = Some((line, c)),
            ('\'' | '"', Some((_, quote))) if c == quote => open = None,
            _ => {}
        }
        if c == '\n' {
            line += 1;
            is_comment = false;
        }
        before = c;
    }
    open
}

#[cfg(test)]
mod tests;
