//! `supafs whoami`: as whom a command with the same options would work. Sends nothing, except where the options
//! say to sign in.

use std::io::Write;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::access::{self, Access, Choice};
use super::args::WhoamiArgs;
use super::endpoint::Endpoint;
use super::error::CliError;
use super::identity;
use super::setting::Setting;
use super::settings::Settings;
use crate::auth::jwt::{self, Claims};
use crate::identity::Identity;
use crate::logging;
use crate::secret::masked;

/// What there is to tell.
#[derive(Debug, Default)]
struct Told {
    session: Option<String>,
    email: Option<String>,
    access_key_id: Option<String>,
    claims: Option<Claims>,
    project_ref: Option<String>,
    endpoint: String,
    refreshed: String,
}

/// Runs the command.
///
/// # Errors
/// Missing settings, with the next step.
pub fn run(args: &WhoamiArgs) -> Result<(), CliError> {
    let settings = Settings::load(vec![args.access.layer()], &args.access.files())?;
    logging::to_stderr(logging::Level::WARN);
    let choice = access::choose(&settings)?;
    let told = match &choice {
        Choice::Session { who, .. } if who.setting == Setting::User => kept(&settings, &choice)?,
        _ => configured(access::resolve(&settings)?),
    };
    print(&told, args.json).map_err(|error| CliError::unprintable(&error))
}

/// A kept session is shown as it lies there: looking does not refresh it.
fn kept(settings: &Settings, choice: &Choice) -> Result<Told, CliError> {
    let Choice::Session { who, .. } = choice else { return Ok(Told::default()) };
    let (file, kept) = identity::find_kept(settings, who)?;
    Ok(Told {
        session: Some(file.name().to_owned()),
        email: kept.email,
        claims: jwt::decode(kept.access_token.expose()),
        project_ref: Some(kept.project_ref),
        endpoint: Endpoint::of_api(&kept.url).map_err(CliError::failed)?.url,
        refreshed: "with its refresh token, ahead of expiry; new ones are kept".to_owned(),
        ..Told::default()
    })
}

fn configured(access: Access) -> Told {
    let (endpoint, credential) = (access.service.endpoint, access.credential);
    let told = Told { endpoint, claims: credential.claims, refreshed: credential.renewal, ..Told::default() };
    match credential.authority.identity() {
        Identity::Keys { access_key_id } => Told { access_key_id: Some(masked(&access_key_id)), ..told },
        Identity::User { project_ref, .. } => Told { project_ref: Some(project_ref), ..told },
    }
}

fn print(told: &Told, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let time = |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string();
    let Told { session, email, access_key_id, claims, project_ref, endpoint, refreshed } = told;
    let expires = claims.as_ref().and_then(|claims| claims.expires);
    let now = SystemTime::now();
    if json {
        let all = json!({
            "kind": if access_key_id.is_some() { "keys" } else { "session" },
            "session": session, "access_key_id": access_key_id, "email": email,
            "user": claims.as_ref().and_then(|claims| claims.sub.clone()),
            "role": claims.as_ref().map(|claims| &claims.role),
            "project_ref": project_ref, "endpoint": endpoint, "expires_at": expires.map(time),
            "expired": expires.is_some_and(|at| at <= now), "refreshed": refreshed,
        });
        return writeln!(out, "{all:#}");
    }
    let mut line = |name: &str, text: &str| writeln!(out, "{name:<10} {text}");
    if let Some(id) = access_key_id {
        line("access key", &format!("{id}: full access, Row Level Security is bypassed"))?;
    }
    if let Some(claims) = claims {
        match (&claims.sub, email) {
            (Some(sub), Some(email)) => line("user", &format!("{sub} ({email})"))?,
            (Some(sub), None) => line("user", sub)?,
            (None, _) => line("user", "none")?,
        }
        line("role", &claims.role)?;
    }
    if let Some(project_ref) = project_ref {
        line("project", project_ref)?;
    }
    line("endpoint", endpoint)?;
    if let Some(name) = session {
        line("session", name)?;
    }
    line("expires", &expires.map_or_else(|| "never".to_owned(), |at| expiry(at, now)))?;
    line("refreshed", refreshed)
}

fn expiry(at: SystemTime, now: SystemTime) -> String {
    let shown = humantime::format_rfc3339_seconds(at);
    let whole = |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs()));
    match at.duration_since(now) {
        Ok(left) => format!("{shown}, in {}", whole(left)),
        Err(past) => format!("{shown}, {} ago", whole(past.duration())),
    }
}
