//! Which service a command talks to, and as whom: settings become an endpoint and a credential.
//!
//! Invariant: where the settings name two identities nothing is guessed; the error says what was found
//! where, and how to choose.

use std::time::{Duration, SystemTime};

use super::block_on;
use super::endpoint::{Endpoint, check_project_ref};
use super::error::CliError;
use super::identity::{self, Home, SessionParts};
use super::local_stack;
use super::misplaced;
use super::online;
use super::setting::Setting;
use super::settings::{Found, Settings, Source};
use crate::auth::aws_chain::{self, Chain};
use crate::auth::jwt::{self, Claims, KeyKind};
use crate::auth::{self, Credential, diagnosis};
use crate::config::Service;
use crate::secret::Secret;
use crate::store::reach;

/// The region that every Supabase server accepts.
const REGION: &str = "us-east-1";
/// How long the server may take to tell its time.
const CLOCK_PATIENCE: Duration = Duration::from_secs(5);
const KEYS: &[Setting] = &[Setting::AccessKeyId, Setting::SecretAccessKey];
pub const API_KEYS: &[Setting] = &[Setting::AnonKey, Setting::PublishableKey, Setting::AnonKeyFile];
const HOW: &str = "Set SUPABASE_S3_ACCESS_KEY_ID and SUPABASE_S3_SECRET_ACCESS_KEY for full access, or, to work as one \
                   user, sign in with `supafs login`, or set SUPABASE_PUBLISHABLE_KEY (or SUPABASE_ANON_KEY) with \
                   SUPABASE_SESSION_TOKEN or --session-token-file";

/// What a command needs to send requests.
#[derive(Debug)]
pub struct Access {
    pub service: Service,
    pub credential: Credential,
    /// Things worth a line on standard error.
    pub warnings: Vec<String>,
    /// Things worth a line in the log.
    pub notes: Vec<String>,
}

/// The credential that the settings choose, not yet read.
#[derive(Debug)]
pub enum Choice {
    Keys {
        id: Found,
        secret: Found,
    },
    /// A session of `supafs login` has a key of its own.
    Session {
        api_key: Option<Found>,
        who: Found,
    },
    Chain(Box<Chain>),
}

/// Resolves everything.
///
/// # Errors
/// What is missing or contradicts itself, with the next step.
pub fn resolve(settings: &Settings) -> Result<Access, CliError> {
    let choice = choose(settings)?;
    online::wait(settings, Some(&choice))?;
    let parts = identity::read(settings, &choice)?;
    let endpoint = endpoint(settings, Some(&choice), parts.as_ref())?;
    let mut notes = Vec::new();
    if let Some(file) = &endpoint.linked {
        notes.push(format!("the project is the one that {} names", file.display()));
    }
    if endpoint.completed {
        notes.push(format!("the endpoint had no path: using {}", endpoint.url));
    }
    let warnings = warnings(settings, &choice, parts.as_ref(), &endpoint);
    let service = Service { region: region(settings, Some(&choice)), endpoint: endpoint.url.clone() };
    let credential = credential(settings, choice, parts, &endpoint)?;
    Ok(Access { service, credential, warnings, notes })
}

/// Chooses among what is configured.
///
/// # Errors
/// Where nothing is, where half of a pair is missing, and where two identities are.
pub fn choose(settings: &Settings) -> Result<Choice, CliError> {
    let keys = KEYS.iter().find_map(|setting| settings.get(*setting));
    let who = identity::first_named(settings)?;
    let aws = settings.get(Setting::AwsProfile);
    let auth = settings.get(Setting::Auth);
    match auth.as_ref().map(|found| found.value.expose()) {
        Some("session") => session(settings),
        Some("keys") if keys.is_some() => key_pair(settings),
        Some("keys") if aws.is_some() => chain(settings, aws.as_ref()),
        Some("keys") => Err(CliError::failed(
            "--auth keys, but there are no access keys; set SUPABASE_S3_ACCESS_KEY_ID and \
             SUPABASE_S3_SECRET_ACCESS_KEY, or name an --aws-profile",
        )),
        Some(other) => Err(CliError::usage(format!(
            "{}: {:?} is neither `keys` nor `session`",
            auth.as_ref().map_or("--auth", |found| &found.origin),
            misplaced::shown(other)
        ))),
        None => match (keys.or(aws.clone()), who) {
            (Some(key), Some(who)) if decides(&who, &key) => session(settings),
            (Some(key), Some(who)) => Err(CliError::failed(format!(
                "both kinds of credentials are configured: access keys by {key}, a user session by {who}. \
                 Say which to use: --auth keys or --auth session"
            ))),
            (Some(key), None) if key.setting != Setting::AwsProfile => key_pair(settings),
            (Some(_), None) => chain(settings, aws.as_ref()),
            (None, Some(_)) => session(settings),
            (None, None) => match identity::only_session(settings)? {
                Some(name) => Ok(Choice::Session { api_key: None, who: Found::only_session(&name) }),
                None => chain(settings, None),
            },
        },
    }
}

/// Whether naming a user leaves no doubt although there are keys: it was said for this command, and the keys were not,
/// or they only came along with the local stack.
fn decides(who: &Found, key: &Found) -> bool {
    who.is_given() && !key.is_given() || key.source == Source::LocalStack
}

fn key_pair(settings: &Settings) -> Result<Choice, CliError> {
    match (settings.get(Setting::AccessKeyId), settings.get(Setting::SecretAccessKey)) {
        (Some(id), Some(secret)) => pair(id, secret),
        (Some(id), None) => {
            Err(CliError::failed(format!("{id} is set; set SUPABASE_S3_SECRET_ACCESS_KEY as well")))
        }
        (_, Some(secret)) => {
            Err(CliError::failed(format!("{secret} is set; set SUPABASE_S3_ACCESS_KEY_ID as well")))
        }
        (None, None) => Err(CliError::failed(format!("no access keys. {HOW}"))),
    }
}

/// Two settings that are to be a pair of access keys.
///
/// # Errors
/// What cannot be a pair, before anything of it is sent or shown.
pub fn pair(id: Found, secret: Found) -> Result<Choice, CliError> {
    match auth::mistake(id.text(), secret.text()) {
        Some(why) => Err(CliError::failed(format!("{id} and {secret}: {why}"))),
        None => Ok(Choice::Keys { id, secret }),
    }
}

fn session(settings: &Settings) -> Result<Choice, CliError> {
    let who = match identity::named(settings)? {
        Some(who) => who,
        None => identity::only_session(settings)?.map(|name| Found::only_session(&name)).ok_or_else(|| {
            CliError::failed(
                "no user session; sign in with `supafs login`, set SUPABASE_SESSION_TOKEN to the access_token of a \
                 signed-in user, or give --session-token-file or --session-token-command",
            )
        })?,
    };
    let api_key = settings.one_of(API_KEYS)?;
    if api_key.is_none() && who.setting != Setting::User {
        return Err(identity::without_key(&who));
    }
    Ok(Choice::Session { api_key, who })
}

/// The AWS chain is asked where it is named, or where nothing of Supabase's is set.
fn chain(settings: &Settings, profile: Option<&Found>) -> Result<Choice, CliError> {
    if profile.is_none()
        && let Some(api_key) = settings.one_of(API_KEYS)?
    {
        return Err(CliError::failed(format!(
            "{api_key} is set, but neither a user's token nor access keys. {HOW}"
        )));
    }
    match aws_chain::load(profile.map(|found| found.value.expose())) {
        Ok(chain) => Ok(Choice::Chain(Box::new(chain))),
        Err(why) if profile.is_some() => Err(CliError::failed(why)),
        Err(why) => {
            Err(CliError::failed(format!("no credentials: {why}. {HOW}{}", settings.profiles_hint())))
        }
    }
}

/// The endpoint in force.
///
/// # Errors
/// Where none is known, or what is wrong with the one given.
pub fn endpoint(
    settings: &Settings,
    choice: Option<&Choice>,
    parts: Option<&SessionParts>,
) -> Result<Endpoint, CliError> {
    let home = parts.and_then(|parts| parts.home.as_ref());
    if let Some(found) = place(settings, choice, home) {
        let parsed = match found.setting {
            Setting::Endpoint => Endpoint::parse(found.text()),
            Setting::Url => Endpoint::of_api(found.text()),
            _ => Endpoint::of_project(found.text()),
        };
        return parsed.map_err(|why| CliError::usage(format!("{found}: {why}")));
    }
    if let Some(home) = home {
        return Endpoint::of_api(&home.url).map_err(CliError::failed);
    }
    if let Some(Choice::Chain(chain)) = choice
        && let Some(url) = &chain.endpoint_url
    {
        return Endpoint::parse(url)
            .map_err(|why| CliError::failed(format!("endpoint_url of {}: {why}", chain.origin())));
    }
    let here = std::env::current_dir().ok();
    if let Some((project_ref, file)) = here.and_then(|here| local_stack::linked_project(&here)) {
        let endpoint = Endpoint::of_project(&project_ref).map_err(CliError::failed)?;
        return Ok(Endpoint { linked: Some(file), ..endpoint });
    }
    let hint = parts
        .and_then(|parts| parts.claims.project_ref.as_ref())
        .map(|project| format!(" (the token is of project {project})"))
        .unwrap_or_default();
    Err(CliError::failed(format!(
        "no project; give --project-ref or SUPABASE_PROJECT_REF{hint}, or a URL with --url or --endpoint, or run \
         this in a folder that `supabase link` has linked"
    )))
}

/// The setting that says where the endpoint is. A URL goes before a project ref, which may only name the tenant; and a
/// kept session knows its home better than a place that has less to say than the one that names the session.
fn place(settings: &Settings, choice: Option<&Choice>, home: Option<&Home>) -> Option<Found> {
    let reach = match (choice, home) {
        (Some(Choice::Session { who, .. }), Some(_)) => who.rank,
        _ => usize::MAX,
    };
    let of = |setting| settings.get(setting).filter(|found| found.rank <= reach);
    let (endpoint, url, project) = (of(Setting::Endpoint), of(Setting::Url), of(Setting::ProjectRef));
    let by_url = match (endpoint, url) {
        (Some(endpoint), Some(url)) if url.rank < endpoint.rank => Some(url),
        (endpoint, url) => endpoint.or(url),
    };
    match (by_url, project) {
        (Some(url), Some(project)) if url.setting == Setting::Url && project.rank < url.rank => Some(project),
        (url, project) => url.or(project),
    }
}

/// The API URL of the project, without a slash at its end.
///
/// # Errors
/// Where no project is known.
pub fn api_url(settings: &Settings, choice: Option<&Choice>) -> Result<String, CliError> {
    // Storage may have an endpoint of its own; Auth is at the API URL.
    let place = place(settings, choice, None);
    let url = settings.get(Setting::Url).filter(|url| place.is_none_or(|place| url.rank <= place.rank));
    let endpoint = match url {
        Some(found) => {
            Endpoint::of_api(found.text()).map_err(|why| CliError::usage(format!("{found}: {why}")))?
        }
        None => endpoint(settings, choice, None)?,
    };
    Ok(endpoint.api_url())
}

/// The region in force.
#[must_use]
pub fn region(settings: &Settings, choice: Option<&Choice>) -> String {
    let of_chain = match choice {
        Some(Choice::Chain(chain)) => chain.region.clone(),
        _ => None,
    };
    settings
        .get(Setting::Region)
        .map(|found| found.value.expose().trim().to_owned())
        .or(of_chain)
        .unwrap_or_else(|| REGION.to_owned())
}

/// The credential of the choice.
///
/// # Errors
/// An expired token, or a project that cannot be known.
pub fn credential(
    settings: &Settings,
    choice: Choice,
    parts: Option<SessionParts>,
    endpoint: &Endpoint,
) -> Result<Credential, CliError> {
    match (choice, parts) {
        (Choice::Keys { id, secret }, _) => {
            let origin = if id.rank == secret.rank { id.origin } else { format!("{id} with {secret}") };
            let secret_text = Secret::new(secret.value.expose().trim());
            Ok(auth::access_keys(id.value.expose().trim(), &secret_text, &origin))
        }
        (Choice::Chain(chain), _) => chain.credential().map_err(CliError::failed),
        (Choice::Session { who, .. }, Some(SessionParts { api_key, token, source, claims, home, .. })) => {
            let project_ref = match home {
                Some(home) if settings.get(Setting::ProjectRef).is_none_or(|given| given.rank > who.rank) => {
                    home.project_ref
                }
                _ => project_ref(settings, &claims, &api_key, endpoint)?,
            };
            let session = auth::Session { project_ref, api_key, source, token };
            session.credential().map_err(|why| CliError::failed(with_clock(why, &claims, endpoint)))
        }
        (Choice::Session { .. }, None) => Err(CliError::failed("the session token was not read")),
    }
}

/// A token that has expired by this machine's clock may be good by the server's.
fn with_clock(why: String, claims: &Claims, endpoint: &Endpoint) -> String {
    let now = SystemTime::now();
    if claims.expires.is_none_or(|at| at > now) {
        return why;
    }
    let date = block_on(reach::reach(&endpoint.url, CLOCK_PATIENCE)).ok().and_then(Result::ok);
    match date.and_then(|reached| diagnosis::clock_is_off(now, reached.date?)) {
        Some(off) => {
            format!("{why}. But this machine's clock is {off}: set it first (sudo timedatectl set-ntp true)")
        }
        None => why,
    }
}

/// The access key id of the session protocol: the first place that names the project.
///
/// # Errors
/// Where none does.
pub fn project_ref(
    settings: &Settings,
    claims: &Claims,
    api_key: &Secret,
    endpoint: &Endpoint,
) -> Result<String, CliError> {
    if let Some(found) = settings.get(Setting::ProjectRef) {
        let text = found.value.expose().trim();
        check_project_ref(text).map_err(|why| CliError::usage(format!("{found}: {why}")))?;
        return Ok(text.to_owned());
    }
    let of_key = || jwt::decode(api_key.expose()).and_then(|claims| claims.project_ref);
    let of_host = || endpoint.project_ref().map(str::to_owned);
    // What the Supabase CLI and a default self-hosted installation call their one project.
    let local = || endpoint.is_loopback().then(|| "stub".to_owned());
    claims.project_ref.clone().or_else(of_key).or_else(of_host).or_else(local).ok_or_else(|| {
        CliError::failed(format!(
            "neither the token nor {} names the project; give --project-ref (self-hosted: the TENANT_ID of the \
             storage service, `stub` by default)",
            endpoint.host
        ))
    })
}

fn warnings(
    settings: &Settings,
    choice: &Choice,
    parts: Option<&SessionParts>,
    endpoint: &Endpoint,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if !endpoint.https && !endpoint.is_loopback() {
        warnings.push(format!("{} is not https: tokens and contents can be read on the way", endpoint.url));
    }
    if let Some(SessionParts { claims, api_key, .. }) = parts {
        let asked_for = matches!(choice, Choice::Session { who, .. } if who.setting == Setting::AsAnon);
        if claims.role == "anon" && claims.sub.is_none() && !asked_for {
            warnings.push(
                "the session token is an anon key, which is no user's: only what policies allow to everybody is shown; \
                 give the access_token of a signed-in user, or say --as-anon"
                    .into(),
            );
        }
        if claims.role == "service_role" {
            warnings
                .push("the session token has the role service_role: Row Level Security is bypassed".into());
        }
        if matches!(jwt::kind(api_key.expose()), KeyKind::Jwt(key) if key.role == "service_role") {
            warnings.push("the anon key is a service_role key: the server will refuse the signature".into());
        }
        if let (Some(of_token), Some(given)) = (&claims.project_ref, settings.get(Setting::ProjectRef))
            && of_token != given.value.expose().trim()
        {
            warnings.push(format!("the session token is of project {of_token}, not of {given}"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
