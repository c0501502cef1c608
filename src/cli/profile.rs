//! The profile file `~/.config/supafs/config.toml`: `[profile.NAME]` tables of settings.

use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::error::CliError;
use super::setting::{SPELLINGS, Setting, nearest};
use super::settings::{Layer, Source};
use crate::private_file::{self, Contents};
use crate::state_dir;

/// The profile that applies when none is named.
const DEFAULT: &str = "default";

/// The layer of the profile in force: the one named, else `default` where there is one.
///
/// # Errors
/// A named profile or file that does not exist, unknown keys, or a file that holds secrets and is not
/// private.
pub fn read(config: Option<&Path>, named: Option<&str>) -> Result<Option<Layer>, CliError> {
    let path = match config {
        Some(path) => path.to_owned(),
        None => match standard_path() {
            Some(path) => path,
            None if named.is_none() => return Ok(None),
            None => return Err(CliError::failed("no home directory to look for profiles in: set HOME")),
        },
    };
    let contents = match private_file::read(&path) {
        Ok(contents) => contents,
        Err(error) if error.kind() == io::ErrorKind::NotFound && config.is_none() => {
            return match named {
                None => Ok(None),
                Some(name) => Err(CliError::failed(format!(
                    "there is no profile {name:?}: {} does not exist. Create it with mode 600 and a table \
                     [profile.{name}]",
                    path.display()
                ))),
            };
        }
        Err(error) => {
            return Err(CliError::failed(format!("cannot read {}: {error}", path.display())));
        }
    };
    parse(&path, &contents, named)
}

/// The names of all profiles with their file, for a hint; nothing where the file is not there or cannot be read.
#[must_use]
pub fn names(config: Option<&Path>) -> Option<(PathBuf, Vec<String>)> {
    let path = config.map(Path::to_owned).or_else(standard_path)?;
    let contents = private_file::read(&path).ok()?;
    let mut file: Table = contents.text.expose().parse().ok()?;
    let Some(Value::Table(profiles)) = file.remove("profile") else { return None };
    Some((path, profiles.keys().cloned().collect()))
}

/// `$XDG_CONFIG_HOME/supafs/config.toml`.
fn standard_path() -> Option<PathBuf> {
    state_dir::xdg("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("supafs/config.toml"))
}

fn parse(path: &Path, contents: &Contents, named: Option<&str>) -> Result<Option<Layer>, CliError> {
    let text = contents.text.expose();
    let mut file: Table = text.parse().map_err(|error: toml::de::Error| {
        // The error's own display shows the line, which may hold a secret.
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        CliError::failed(format!("{}, line {line}: {}", path.display(), error.message()))
    })?;
    let profiles = match file.remove("profile") {
        Some(Value::Table(profiles)) => profiles,
        Some(_) => return Err(CliError::failed(format!("{}: `profile` must be tables", path.display()))),
        None => Table::new(),
    };
    if let Some(key) = file.keys().next() {
        return Err(CliError::failed(format!(
            "{}: unknown top-level key {key:?}; settings belong in a table [profile.NAME]",
            path.display()
        )));
    }
    let layers =
        profiles.iter().map(|(name, table)| layer(path, name, table)).collect::<Result<Vec<_>, _>>()?;
    let secret =
        SPELLINGS.iter().find(|s| s.secret && layers.iter().any(|l| l.values.contains_key(&s.setting)));
    if let Some(spelling) = secret {
        contents.must_be_private(path, spelling.key).map_err(CliError::failed)?;
    }
    let wanted = named.unwrap_or(DEFAULT);
    let found =
        layers.into_iter().find(|l| matches!(&l.source, Source::Profile { name, .. } if name == wanted));
    match (found, named) {
        (None, Some(name)) => Err(no_such_profile(path, name, &profiles)),
        (found, _) => Ok(found),
    }
}

fn no_such_profile(path: &Path, name: &str, profiles: &Table) -> CliError {
    let known: Vec<&str> = profiles.keys().map(String::as_str).collect();
    let has = if known.is_empty() { "no profile".to_owned() } else { known.join(", ") };
    CliError::failed(format!("there is no [profile.{name}] in {}; it has {has}", path.display()))
}

fn layer(path: &Path, name: &str, table: &Value) -> Result<Layer, CliError> {
    let place = || format!("{}: [profile.{name}]", path.display());
    let Value::Table(table) = table else {
        return Err(CliError::failed(format!("{} must be a table", place())));
    };
    let mut layer = Layer::new(Source::Profile { name: name.to_owned(), file: path.to_owned() });
    for (key, value) in table {
        let Some(spelling) = Setting::by_key(key) else {
            let hint = nearest(key, SPELLINGS.iter().map(|s| s.key)).map_or_else(
                || "see `supafs mount --help`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(CliError::failed(format!("{}: unknown key `{key}`; {hint}", place())));
        };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(yes) => yes.to_string(),
            Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                return Err(CliError::failed(format!(
                    "{}: `{key}` must be a string, a number or true/false",
                    place()
                )));
            }
        };
        layer.set(spelling.setting, Some(text).filter(|text| !text.trim().is_empty()));
    }
    Ok(layer)
}

#[cfg(test)]
mod tests;
