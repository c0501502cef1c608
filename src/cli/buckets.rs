//! `supafs buckets`: what the credential can list.

use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;

use super::args::BucketsArgs;
use super::error::CliError;
use super::online::Hint;
use super::settings::Settings;
use super::{access, block_on, mount, warn};
use crate::auth::Credential;
use crate::config::{Service, Tuning};
use crate::identity::Identity;
use crate::logging;
use crate::stats::Stats;
use crate::store::BucketEntry;
use crate::store::s3::S3Service;

const POLICIES: &str = "the server shows a user only the buckets that a SELECT policy on storage.buckets allows, \
                        and usually there is none";

/// Runs the command.
///
/// # Errors
/// Missing settings, or the server's refusal.
pub fn run(args: &BucketsArgs) -> Result<(), CliError> {
    let settings = Settings::load(vec![args.access.layer()], &args.access.files())?;
    logging::to_stderr(settings_level(&settings)?);
    let access = access::resolve(&settings)?;
    for warning in &access.warnings {
        warn(warning);
    }
    let buckets = list(&access.service, &access.credential, &mount::tuning(&settings)?)?;
    print(&buckets, args.json).map_err(|error| CliError::unprintable(&error))?;
    if buckets.is_empty() {
        match access.credential.authority.identity() {
            Identity::User { .. } => {
                warn(&format!(
                    "no bucket is listed: {POLICIES}. A bucket that is known by name can be mounted"
                ));
            }
            Identity::Keys { .. } => {
                warn("the project has no bucket; create one in the dashboard under Storage");
            }
        }
    }
    Ok(())
}

/// A command that only asks logs what went wrong, unless more is wanted.
fn settings_level(settings: &Settings) -> Result<logging::Level, CliError> {
    match settings.get(super::setting::Setting::LogLevel) {
        Some(_) => mount::log_level(settings),
        None => Ok(logging::Level::WARN),
    }
}

/// `mount --all` without names shows the list, so there must be one.
///
/// # Errors
/// An empty list, with the way round it, and the server's refusal.
pub fn must_be_listable(service: &Service, credential: &Credential, tuning: &Tuning) -> Result<(), CliError> {
    if !list(service, credential, tuning)?.is_empty() {
        return Ok(());
    }
    Err(CliError::failed(match credential.authority.identity() {
        Identity::User { .. } => {
            format!("no bucket to show: {POLICIES}. Name the buckets: --all --bucket NAME (repeatedly)")
        }
        Identity::Keys { .. } => "no bucket to show: the project has none yet".to_owned(),
    }))
}

fn list(service: &Service, credential: &Credential, tuning: &Tuning) -> Result<Vec<BucketEntry>, CliError> {
    let _hint = Hint::begin(&service.endpoint);
    let service = S3Service::new(
        service,
        credential.provider.clone(),
        Arc::clone(&credential.authority),
        tuning,
        Arc::new(Stats::default()),
    )
    .map_err(CliError::failed)?;
    block_on(async { service.buckets().await })?.map_err(|error| {
        CliError::failed(
            error
                .unreached()
                .unwrap_or_else(|| format!("cannot list the buckets: {error}. `supafs doctor` says more")),
        )
    })
}

fn print(buckets: &[BucketEntry], json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let time = |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string();
    if json {
        let rows: Vec<_> =
            buckets.iter().map(|b| json!({ "name": b.name, "created": b.created.map(time) })).collect();
        return writeln!(out, "{:#}", json!(rows));
    }
    if buckets.is_empty() {
        return Ok(());
    }
    let width = buckets.iter().map(|b| b.name.chars().count()).max().unwrap_or(0).max(4);
    writeln!(out, "{:<width$}  CREATED", "NAME")?;
    for bucket in buckets {
        writeln!(out, "{:<width$}  {}", bucket.name, bucket.created.map_or_else(|| "-".to_owned(), time))?;
    }
    Ok(())
}
