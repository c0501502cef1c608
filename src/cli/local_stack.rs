//! `--local`: the stack of the Supabase CLI on this machine, as `supabase status -o env` describes it, printed by the
//! CLI itself or piped in with `--env-file -`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::env_file;
use super::error::CliError;
use super::setting::Setting;
use super::settings::{Layer, Source};
use crate::command;
use crate::secret::Secret;

/// The CLI asks Docker.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the CLI calls the settings, the present name first. Of the API keys the storage server knows the anon key.
const NAMES: &[(Setting, &[&str])] = &[
    (Setting::Url, &["API_URL", "SUPABASE_URL"]),
    (Setting::Endpoint, &["STORAGE_S3_URL", "S3_URL"]),
    (Setting::AccessKeyId, &["S3_PROTOCOL_ACCESS_KEY_ID", "S3_ACCESS_KEY_ID", "S3_ACCESS_KEY"]),
    (Setting::SecretAccessKey, &["S3_PROTOCOL_ACCESS_KEY_SECRET", "S3_SECRET_ACCESS_KEY", "S3_SECRET_KEY"]),
    (Setting::Region, &["S3_PROTOCOL_REGION", "S3_REGION"]),
    (Setting::AnonKey, &["ANON_KEY", "PUBLISHABLE_KEY"]),
    (Setting::JwtSecret, &["JWT_SECRET"]),
];

/// Those of the names whose values must not be seen.
pub const SECRETS: &[&str] = &[
    "S3_PROTOCOL_ACCESS_KEY_SECRET",
    "S3_SECRET_ACCESS_KEY",
    "S3_SECRET_KEY",
    "JWT_SECRET",
    "SERVICE_ROLE_KEY",
];

/// What the CLI calls its one project.
pub const PROJECT_REF: &str = "stub";

const HOW: &str = "start it with `supabase start` in the project's folder and run this there, or pipe what the CLI \
                   prints: supabase status -o env | supafs … --local --env-file -";

/// The settings of the local stack: those in an env file, where it has them, else what the CLI prints.
///
/// # Errors
/// No CLI, or a stack that does not run, with what to do.
pub fn layer(env: Option<&HashMap<String, Secret>>) -> Result<Layer, CliError> {
    if let Some(layer) = env.and_then(of_variables) {
        return Ok(layer);
    }
    let printed =
        ask_cli(&which("supabase").ok_or_else(|| {
            CliError::failed(format!("--local: there is no `supabase` on the PATH; {HOW}"))
        })?)?;
    of_variables(&printed).ok_or_else(|| {
        CliError::failed(format!("--local: `supabase status` tells of no API or storage; {HOW}"))
    })
}

fn of_variables(variables: &HashMap<String, Secret>) -> Option<Layer> {
    let mut layer = Layer::new(Source::LocalStack);
    for (setting, names) in NAMES {
        let value = names.iter().find_map(|name| variables.get(*name));
        layer.set(*setting, value.map(|value| value.expose().to_owned()));
    }
    let is_there = [Setting::Url, Setting::Endpoint].iter().any(|place| layer.values.contains_key(place));
    layer.set(Setting::ProjectRef, Some(PROJECT_REF));
    is_there.then_some(layer)
}

fn ask_cli(program: &Path) -> Result<HashMap<String, Secret>, CliError> {
    let told = |why: String| CliError::failed(format!("--local: `supabase status -o env` {why}; {HOW}"));
    let mut status = Command::new(program);
    status.args(["status", "-o", "env"]);
    let output =
        command::run(&mut status, PATIENCE).map_err(|error| told(format!("cannot be run: {error}")))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(told(format!("failed ({}): {complaint}", output.status)));
    }
    // It may say more than variables, e.g. that there is a newer version.
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().filter(|line| is_assignment(line)).collect();
    env_file::parse(Path::new("`supabase status`"), &Secret::new(lines.join("\n")))
}

fn is_assignment(line: &str) -> bool {
    let name = line.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| is_executable(file.as_os_str()))
}

fn is_executable(file: &OsStr) -> bool {
    nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && Path::new(file).is_file()
}

/// The hosted project that a folder, or one above it, is linked to, as `supabase link` notes it.
#[must_use]
pub fn linked_project(from: &Path) -> Option<(String, PathBuf)> {
    from.ancestors().find_map(|dir| {
        let file = dir.join("supabase/.temp/project-ref");
        let text = std::fs::read_to_string(&file).ok()?;
        let project_ref = text.trim();
        super::endpoint::check_project_ref(project_ref).is_ok().then(|| (project_ref.to_owned(), file))
    })
}

#[cfg(test)]
mod tests;
