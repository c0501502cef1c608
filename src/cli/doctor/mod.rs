//! `supafs doctor`: what a mount needs, one line a check, with the fix.
//!
//! A failed check does not end the examination; only checks that need its result are left out.

mod local;
mod remote;

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use super::access::{self, Choice};
use super::args::DoctorArgs;
use super::endpoint::Endpoint;
use super::error::CliError;
use super::settings::Settings;
use super::{block_on, identity, mount};
use crate::logging;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// One check and what it found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the JSON")]
struct Check {
    check: &'static str,
    status: Status,
    detail: String,
    fix: Option<String>,
}

impl Check {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, detail: detail.into(), fix: None }
    }

    fn warn(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, status: Status::Warn, detail: detail.into(), fix: Some(fix.into()) }
    }

    fn fail(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, status: Status::Fail, detail: detail.into(), fix: Some(fix.into()) }
    }

    /// Messages of errors are written as `what is wrong; what to do`, or in two sentences.
    fn error(check: &'static str, error: &CliError) -> Self {
        let text = error.to_string();
        let parts = text.split_once("; ").or_else(|| text.split_once(". "));
        let (detail, fix) =
            parts.map_or((text.as_str(), None), |(detail, fix)| (detail, Some(fix.to_owned())));
        Self { check, status: Status::Fail, detail: detail.to_owned(), fix }
    }
}

/// Runs the command: exit code 1 where a check failed.
pub fn run(args: &DoctorArgs) -> ExitCode {
    logging::to_stderr(logging::Level::OFF);
    let checks = match examine(args) {
        Ok(checks) => checks,
        Err(error) => {
            eprintln!("supafs: {error}");
            return ExitCode::from(error.code());
        }
    };
    let failed = checks.iter().any(|check| check.status == Status::Fail);
    let printed = print(&checks, args.json).map_err(|error| CliError::unprintable(&error));
    if let Err(error @ CliError::Failed(_)) = printed {
        eprintln!("supafs: {error}");
        return ExitCode::from(error.code());
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// # Errors
/// Only a wrong command line: everything else is a finding.
fn examine(args: &DoctorArgs) -> Result<Vec<Check>, CliError> {
    let bucket = args.bucket.as_deref().map(mount::bucket_and_prefix).transpose()?;
    let mut checks = vec![local::fuse()];
    let settings = match Settings::load(vec![args.access.layer()], &args.access.files()) {
        Ok(settings) => settings,
        Err(error) => {
            checks.push(Check::error("settings", &error));
            return Ok(checks);
        }
    };
    checks.extend(local::others(&settings));
    let choice = recorded(&mut checks, "credential", access::choose(&settings));
    let parts = choice
        .as_ref()
        .and_then(|choice| recorded(&mut checks, "credential", identity::read(&settings, choice)));
    if let (Some(choice), Some(parts)) = (&choice, &parts) {
        checks.extend(local::keys(choice, parts.as_ref()));
    }
    let session = parts.as_ref().and_then(Option::as_ref);
    let endpoint = recorded(&mut checks, "endpoint", access::endpoint(&settings, choice.as_ref(), session));
    if let Some(endpoint) = &endpoint {
        checks.push(local::endpoint(endpoint));
        checks.extend(local::proxy(endpoint));
    }
    let region = access::region(&settings, choice.as_ref());
    checks.push(local::region(&region));
    let tuning = recorded(&mut checks, "settings", mount::tuning(&settings));
    let credential = match (choice, parts, &endpoint) {
        (Some(choice), Some(parts), Some(endpoint)) => {
            let kind = kind(&choice);
            let found = access::credential(&settings, choice, parts, endpoint);
            recorded(&mut checks, "credential", found).inspect(|credential| {
                checks.push(Check::ok("credential", format!("{kind}: {}", credential.description)));
                checks.extend(local::token(credential, &settings, endpoint));
            })
        }
        _ => None,
    };
    let (Some(endpoint), Some(tuning)) = (endpoint, tuning) else { return Ok(checks) };
    checks.extend(ask_server(&endpoint, region, credential, &tuning, bucket)?);
    Ok(checks)
}

fn ask_server(
    endpoint: &Endpoint,
    region: String,
    credential: Option<crate::auth::Credential>,
    tuning: &crate::config::Tuning,
    bucket: Option<(String, String)>,
) -> Result<Vec<Check>, CliError> {
    let service = crate::config::Service { endpoint: endpoint.url.clone(), region };
    block_on(remote::checks(service, credential, tuning.clone(), bucket))
}

fn kind(choice: &Choice) -> &'static str {
    match choice {
        Choice::Keys { .. } => "access keys, full access",
        Choice::Session { .. } => "one user",
        Choice::Chain(_) => "AWS chain",
    }
}

fn recorded<T>(checks: &mut Vec<Check>, check: &'static str, result: Result<T, CliError>) -> Option<T> {
    result.inspect_err(|error| checks.push(Check::error(check, error))).ok()
}

fn print(checks: &[Check], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, checks)?;
        return writeln!(out);
    }
    for Check { check, status, detail, fix } in checks {
        let status = match status {
            Status::Ok => "ok  ",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        let fix = fix.as_ref().map(|fix| format!(". Fix: {fix}")).unwrap_or_default();
        let line = format!("{}{fix}", detail.trim_end_matches('.'));
        writeln!(out, "{status}  {check:<11} {}", line.replace('\n', " "))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
