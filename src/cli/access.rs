//! Which service a command talks to, and as whom: settings become an endpoint and a credential.
//!
//! Invariant: where the settings name two identities nothing is guessed; the error says what was found
//! where, and how to choose.

use std::path::PathBuf;

use super::endpoint::{Endpoint, check_project_ref};
use super::error::CliError;
use super::setting::Setting;
use super::settings::{Found, Settings};
use crate::auth::aws_chain::{self, Chain};
use crate::auth::jwt::{self, Claims, KeyKind};
use crate::auth::source::{Fixed, TokenCommand, TokenFile, TokenSource};
use crate::auth::{self, Credential};
use crate::config::Service;
use crate::private_file;
use crate::secret::Secret;

/// The region that every Supabase server accepts.
const REGION: &str = "us-east-1";
const KEYS: &[Setting] = &[Setting::AccessKeyId, Setting::SecretAccessKey];
pub const API_KEYS: &[Setting] = &[Setting::AnonKey, Setting::PublishableKey, Setting::AnonKeyFile];
const TOKENS: &[Setting] = &[Setting::SessionToken, Setting::SessionTokenFile, Setting::SessionTokenCommand];
const HOW: &str = "Set SUPABASE_S3_ACCESS_KEY_ID and SUPABASE_S3_SECRET_ACCESS_KEY for full access, or \
                   SUPABASE_PUBLISHABLE_KEY (or SUPABASE_ANON_KEY) with SUPABASE_SESSION_TOKEN or \
                   --session-token-file to work as one user";

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
    Keys { id: Found, secret: Found },
    Session { api_key: Found, token: Found },
    Chain(Box<Chain>),
}

/// Resolves everything.
///
/// # Errors
/// What is missing or contradicts itself, with the next step.
pub fn resolve(settings: &Settings) -> Result<Access, CliError> {
    let choice = choose(settings)?;
    let parts = read(&choice)?;
    let endpoint = endpoint(settings, Some(&choice), parts.as_ref().map(|parts| &parts.claims))?;
    let mut notes = Vec::new();
    if endpoint.completed {
        notes.push(format!("the endpoint had no path: using {}", endpoint.url));
    }
    let warnings = warnings(settings, parts.as_ref(), &endpoint);
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
    let token = TOKENS.iter().find_map(|setting| settings.get(*setting));
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
            "{}: {other:?} is neither `keys` nor `session`",
            auth.as_ref().map_or("--auth", |found| &found.origin)
        ))),
        None => match (keys.or(aws.clone()), token) {
            (Some(key), Some(token)) => Err(CliError::failed(format!(
                "both kinds of credentials are configured: access keys by {key}, a user session by {token}. \
                 Say which to use: --auth keys or --auth session"
            ))),
            (Some(key), None) if key.setting != Setting::AwsProfile => key_pair(settings),
            (Some(_), None) => chain(settings, aws.as_ref()),
            (None, Some(_)) => session(settings),
            (None, None) => chain(settings, None),
        },
    }
}

fn key_pair(settings: &Settings) -> Result<Choice, CliError> {
    match (settings.get(Setting::AccessKeyId), settings.get(Setting::SecretAccessKey)) {
        (Some(id), Some(secret)) => Ok(Choice::Keys { id, secret }),
        (Some(id), None) => {
            Err(CliError::failed(format!("{id} is set; set SUPABASE_S3_SECRET_ACCESS_KEY as well")))
        }
        (_, Some(secret)) => {
            Err(CliError::failed(format!("{secret} is set; set SUPABASE_S3_ACCESS_KEY_ID as well")))
        }
        (None, None) => Err(CliError::failed(format!("no access keys. {HOW}"))),
    }
}

fn session(settings: &Settings) -> Result<Choice, CliError> {
    match (settings.one_of(API_KEYS)?, settings.one_of(TOKENS)?) {
        (Some(api_key), Some(token)) => Ok(Choice::Session { api_key, token }),
        (None, Some(token)) => Err(CliError::failed(format!(
            "{token} gives a user's token, which the project's anon or publishable key must sign; set \
             SUPABASE_PUBLISHABLE_KEY or SUPABASE_ANON_KEY, or give --anon-key-file"
        ))),
        (_, None) => Err(CliError::failed(
            "no user session; set SUPABASE_SESSION_TOKEN to the access_token of a signed-in user, or give \
             --session-token-file or --session-token-command",
        )),
    }
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
        Err(why) => Err(CliError::failed(format!("no credentials. {HOW}. ({why})"))),
    }
}

/// A user session's parts as they were read from where the choice says.
#[derive(Debug)]
pub struct SessionParts {
    pub api_key: Secret,
    pub token: Secret,
    pub source: Box<dyn TokenSource>,
    pub claims: Claims,
}

/// Reads the files and runs the command that the choice names.
///
/// # Errors
/// A file or command that gives nothing, and keys in the wrong place.
pub fn read(choice: &Choice) -> Result<Option<SessionParts>, CliError> {
    let Choice::Session { api_key, token } = choice else { return Ok(None) };
    let api_key_text = read_api_key(api_key)?;
    if matches!(jwt::kind(api_key_text.expose()), KeyKind::Secret) {
        return Err(CliError::failed(format!(
            "{api_key} is a secret key (sb_secret_…), which the S3 protocol does not take; give the publishable \
             key (sb_publishable_…) or the legacy anon key"
        )));
    }
    let source = token_source(token)?;
    let text = source.load().map_err(CliError::failed)?;
    let claims = jwt::user_claims(text.expose())
        .map_err(|why| CliError::failed(format!("the session token of {token}: {why}")))?;
    Ok(Some(SessionParts { api_key: api_key_text, token: text, source, claims }))
}

/// The anon or publishable key itself.
///
/// # Errors
/// A file that cannot be read, or that others can read.
pub fn read_api_key(found: &Found) -> Result<Secret, CliError> {
    if found.setting != Setting::AnonKeyFile {
        return Ok(Secret::new(found.value.expose().trim()));
    }
    let path = super::settings::expand(found.value.expose().trim());
    let contents = private_file::read(&path)
        .map_err(|error| CliError::failed(format!("{found}: cannot read {}: {error}", path.display())))?;
    contents.must_be_private(&path, "a key").map_err(CliError::failed)?;
    Ok(Secret::new(contents.text.expose().trim()))
}

fn token_source(found: &Found) -> Result<Box<dyn TokenSource>, CliError> {
    let here = |error: std::io::Error| CliError::failed(format!("{found}: {error}"));
    let text = found.value.expose().trim();
    Ok(match found.setting {
        Setting::SessionTokenFile => {
            // The daemon runs in `/`.
            let path = std::path::absolute(super::settings::expand(text)).map_err(here)?;
            Box::new(TokenFile::new(path))
        }
        Setting::SessionTokenCommand => {
            let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
            Box::new(TokenCommand::new(Secret::new(text), directory))
        }
        _ => Box::new(Fixed { token: Secret::new(text), origin: found.origin.clone() }),
    })
}

/// The endpoint in force.
///
/// # Errors
/// Where none is known, or what is wrong with the one given.
pub fn endpoint(
    settings: &Settings,
    choice: Option<&Choice>,
    claims: Option<&Claims>,
) -> Result<Endpoint, CliError> {
    if let Some(found) = settings.get(Setting::Endpoint) {
        return Endpoint::parse(found.value.expose())
            .map_err(|why| CliError::usage(format!("{found}: {why}")));
    }
    if let Some(found) = settings.get(Setting::ProjectRef) {
        return Endpoint::of_project(found.value.expose().trim())
            .map_err(|why| CliError::usage(format!("{found}: {why}")));
    }
    if let Some(Choice::Chain(chain)) = choice
        && let Some(url) = &chain.endpoint_url
    {
        return Endpoint::parse(url)
            .map_err(|why| CliError::failed(format!("endpoint_url of {}: {why}", chain.origin())));
    }
    let hint = claims
        .and_then(|claims| claims.project_ref.as_ref())
        .map(|project| format!(" (the token is of project {project})"))
        .unwrap_or_default();
    Err(CliError::failed(format!(
        "no project; give --project-ref or SUPABASE_PROJECT_REF{hint}, or a URL with --endpoint or \
         SUPABASE_S3_ENDPOINT"
    )))
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
        (Choice::Session { .. }, Some(SessionParts { api_key, token, source, claims })) => {
            let project_ref = project_ref(settings, &claims, &api_key, endpoint)?;
            auth::Session { project_ref, api_key, source, token }.credential().map_err(CliError::failed)
        }
        (Choice::Session { .. }, None) => Err(CliError::failed("the session token was not read")),
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

fn warnings(settings: &Settings, parts: Option<&SessionParts>, endpoint: &Endpoint) -> Vec<String> {
    let mut warnings = Vec::new();
    if !endpoint.https && !endpoint.is_loopback() {
        warnings.push(format!("{} is not https: tokens and contents can be read on the way", endpoint.url));
    }
    if let Some(SessionParts { claims, api_key, .. }) = parts {
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
