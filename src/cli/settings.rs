//! Layered settings: flag, `-o`, environment, env file, profile - the first that has a value wins.
//!
//! Invariant: every value is kept as a [`Secret`] with the place it came from, so that messages can name
//! the place and no message can show a secret by accident.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::error::CliError;
use super::setting::{SPELLINGS, Setting};
use super::{env_file, local_stack, misplaced, profile, units, variables};
use crate::secret::Secret;

/// Where the values of one layer come from. The order of the variants is the order of precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Flag,
    /// The list given with `-o`.
    OptionList,
    /// The local stack, as `supabase status` describes it; it stands right below the place that asks for it.
    LocalStack,
    Environment,
    EnvFile(PathBuf),
    Profile {
        name: String,
        file: PathBuf,
    },
    /// The only session of `supafs login`.
    Login,
}

/// Values of one source.
#[derive(Debug, Clone)]
pub struct Layer {
    pub source: Source,
    pub values: BTreeMap<Setting, Secret>,
}

impl Layer {
    /// An empty layer.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self { source, values: BTreeMap::new() }
    }

    /// Sets `setting` where there is a value.
    pub fn set(&mut self, setting: Setting, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.values.insert(setting, Secret::new(value));
        }
    }

    /// The variables of the table that `get` answers; an empty variable counts as unset.
    pub fn of_variables(source: Source, get: impl Fn(&str) -> Option<String>) -> Self {
        let mut layer = Self::new(source);
        for spelling in SPELLINGS {
            layer.set(spelling.setting, get(spelling.variable).filter(|value| !value.trim().is_empty()));
        }
        layer
    }
}

/// A value, with the place it was found in.
#[derive(Debug, Clone)]
pub struct Found {
    pub setting: Setting,
    pub value: Secret,
    /// Index of its layer: lower comes first.
    pub rank: usize,
    /// E.g. `SUPABASE_S3_REGION in the environment`.
    pub origin: String,
    pub source: Source,
}

impl Found {
    /// The only session of `supafs login`: what remains where nothing is set.
    #[must_use]
    pub fn only_session(name: &str) -> Self {
        Self {
            setting: Setting::User,
            value: Secret::new(name),
            rank: usize::MAX,
            origin: "`supafs login`".to_owned(),
            source: Source::Login,
        }
    }

    /// Whether it was given for this one command.
    #[must_use]
    pub fn is_given(&self) -> bool {
        matches!(self.source, Source::Flag | Source::OptionList)
    }

    /// Its text without blanks around it.
    #[must_use]
    pub fn text(&self) -> &str {
        self.value.expose().trim()
    }
}

/// Which files hold settings, as the command line says.
#[derive(Debug, Clone, Default)]
pub struct Files {
    pub env_file: Option<PathBuf>,
    pub profile: Option<String>,
    pub config: Option<PathBuf>,
}

/// All layers of one command.
#[derive(Debug, Clone)]
pub struct Settings {
    layers: Vec<Layer>,
    /// The profile file that was named, if one was.
    config: Option<PathBuf>,
}

impl Settings {
    /// From layers in order of precedence.
    #[must_use]
    pub fn new(layers: Vec<Layer>) -> Self {
        Self { layers, config: None }
    }

    /// Reads the environment and the files below the layers that the command line gave.
    ///
    /// # Errors
    /// A file that cannot be read, holds secrets while others may read it, or has unknown keys.
    pub fn load(mut layers: Vec<Layer>, files: &Files) -> Result<Self, CliError> {
        layers.push(Layer::of_variables(Source::Environment, |name| std::env::var(name).ok()));
        let mut named = files.profile.clone().or_else(|| non_empty("SUPAFS_PROFILE"));
        let mut config = files.config.clone().or_else(|| non_empty("SUPAFS_CONFIG").map(PathBuf::from));
        let mut variables = None;
        let env_file = files.env_file.clone().or_else(|| non_empty("SUPAFS_ENV_FILE").map(PathBuf::from));
        check_names(named.as_deref(), config.as_deref(), env_file.as_deref())?;
        if let Some(path) = env_file {
            let env = variables.insert(env_file::read(&path)?);
            variables::take_over(env);
            named = named.or_else(|| env.get("SUPAFS_PROFILE").map(|name| name.expose().to_owned()));
            config = config.or_else(|| env.get("SUPAFS_CONFIG").map(|file| PathBuf::from(file.expose())));
            check_names(named.as_deref(), config.as_deref(), None)?;
            layers.push(Layer::of_variables(Source::EnvFile(path), |name| {
                env.get(name).map(|value| value.expose().to_owned())
            }));
        }
        layers.extend(profile::read(config.as_deref(), named.as_deref())?);
        let mut settings = Self { config, ..Self::new(layers) };
        if let Some(asked) = settings.get(Setting::Local)
            && settings.parsed(Setting::Local, false, units::boolean)?
        {
            settings.layers.insert(asked.rank + 1, local_stack::layer(variables.as_ref())?);
        }
        misplaced::check(&settings)?;
        Ok(settings)
    }

    /// A profile that may be what is missing, in words; empty where there is none.
    #[must_use]
    pub fn profiles_hint(&self) -> String {
        match profile::names(self.config.as_deref()) {
            Some((file, names)) if !names.is_empty() => format!(
                ". Or use a profile of {}, with --profile or SUPAFS_PROFILE: {}",
                file.display(),
                names.join(", ")
            ),
            _ => String::new(),
        }
    }

    /// The switch, which is off where it is not set.
    ///
    /// # Errors
    /// A value that is neither yes nor no.
    pub fn is_on(&self, setting: Setting) -> Result<bool, CliError> {
        self.parsed(setting, false, units::boolean)
    }

    /// The value in force.
    #[must_use]
    pub fn get(&self, setting: Setting) -> Option<Found> {
        self.layers.iter().enumerate().find_map(|(rank, layer)| {
            let value = layer.values.get(&setting)?.clone();
            let (origin, source) = (origin(&layer.source, setting), layer.source.clone());
            Some(Found { setting, value, rank, origin, source })
        })
    }

    /// Of several settings that mean the same thing, the one in force: that of the first layer with any.
    ///
    /// # Errors
    /// Where one layer holds two of them: it cannot be known which is meant.
    pub fn one_of(&self, settings: &[Setting]) -> Result<Option<Found>, CliError> {
        let mut found: Vec<Found> = settings.iter().filter_map(|setting| self.get(*setting)).collect();
        found.sort_by_key(|found| found.rank);
        if let [first, second, ..] = &found[..]
            && first.rank == second.rank
        {
            return Err(CliError::failed(format!(
                "{} and {} are both set and mean the same thing; remove one of them",
                first.origin, second.origin
            )));
        }
        Ok(found.into_iter().next())
    }

    /// The value in force, parsed, or the default.
    ///
    /// # Errors
    /// A value that `parse` refuses, with the place it came from.
    pub fn parsed<T>(
        &self,
        setting: Setting,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, CliError> {
        let Some(found) = self.get(setting) else { return Ok(default) };
        let text = found.value.expose().trim();
        parse(text).map_err(|why| {
            // Only what is no secret is parsed, so the value can be shown, unless one was put there by mistake.
            CliError::usage(format!("{}: {:?} {why}", found.origin, misplaced::shown(text)))
        })
    }

    /// A path, with `~/` understood where no shell could have expanded it.
    #[must_use]
    pub fn path(&self, setting: Setting) -> Option<PathBuf> {
        self.get(setting).map(|found| expand(found.value.expose().trim()))
    }
}

/// Absolute, because the daemon works in `/`, and with `~/` understood where no shell could have expanded it.
#[must_use]
pub fn expand(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), crate::state_dir::home()) {
        (Some(rest), Some(home)) => home.join(rest),
        // Only an empty text has no absolute form; whoever opens it says so.
        _ => std::path::absolute(text).unwrap_or_else(|_| PathBuf::from(text)),
    }
}

/// Messages show these, so that a key must not be in them.
fn check_names(
    profile: Option<&str>,
    config: Option<&Path>,
    env_file: Option<&Path>,
) -> Result<(), CliError> {
    let text = |path: Option<&Path>| path.map(|path| path.to_string_lossy().into_owned());
    for (origin, name) in [
        ("the profile's name", profile.map(str::to_owned)),
        ("the profile file's name", text(config)),
        ("the env file's name", text(env_file)),
    ] {
        misplaced::check_name(origin, name.as_deref().unwrap_or_default())?;
    }
    Ok(())
}

fn non_empty(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

fn origin(source: &Source, setting: Setting) -> String {
    let spelling = setting.spelling();
    match source {
        Source::Flag => format!("--{}", spelling.key.replace('_', "-")),
        Source::OptionList => format!("-o {}", spelling.key),
        Source::LocalStack => format!("{} of the local stack", spelling.key),
        Source::Login => "`supafs login`".to_owned(),
        Source::Environment => format!("{} in the environment", spelling.variable),
        Source::EnvFile(path) => format!("{} in {}", spelling.variable, path.display()),
        Source::Profile { name, file } => {
            format!("{} in [profile.{name}] of {}", spelling.key, file.display())
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

#[cfg(test)]
mod tests;
