//! The identities of a call, each with a credential: users and roles by minted tokens, users who sign in, and the access
//! keys as they are configured.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::args::WhoArgs;
use crate::auth::gotrue::Auth;
use crate::auth::mint::{Impersonation, Mint};
use crate::auth::session_store::SessionFile;
use crate::auth::sign_in::{KeptSession, OwnSession};
use crate::auth::source::TokenSource;
use crate::auth::{self, Credential, aws_chain, jwt};
use crate::cli::access::Choice;
use crate::cli::endpoint::Endpoint;
use crate::cli::error::CliError;
use crate::cli::setting::Setting;
use crate::cli::settings::Settings;
use crate::cli::{access, identity, mount, online, password, warn};
use crate::config::{Service, Tuning};
use crate::lab::Subject;
use crate::private_file;
use crate::secret::Secret;
use crate::stats::Stats;
use crate::store::s3::S3Service;

/// Whom a name stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A minted token: of a user, or without one of a role.
    Minted { sub: Option<String>, role: Option<String>, claims: Map<String, Value> },
    /// Whoever has this address: the session of `supafs login`, or a sign-in.
    SignsIn(String),
    /// The access keys.
    Keys,
}

/// An identity of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Who {
    pub name: String,
    pub kind: Kind,
}

impl Kind {
    /// What it can be minted as.
    ///
    /// # Errors
    /// What is wrong with the id, the role or the claims.
    fn impersonation(&self) -> Result<Option<Impersonation>, String> {
        let Self::Minted { sub, role, claims } = self else { return Ok(None) };
        let mut who = match sub {
            Some(sub) => Impersonation::user(sub).map_err(|why| format!("{sub:?} {why}"))?,
            None => Impersonation::anon(),
        };
        if let Some(role) = role {
            who = who.with_role(role).map_err(|why| format!("{role:?} {why}"))?;
        }
        if !claims.is_empty() {
            let json = Value::from(claims.clone()).to_string();
            who = who.with_claims(&json).map_err(|why| format!("its claims: {why}"))?;
        }
        Ok(Some(who))
    }

    /// Whether a token can be minted for it; used where a file can be blamed by line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        self.impersonation().map(drop)
    }
}

/// Reads `--as`, `--role` and `--claims`.
///
/// # Errors
/// What cannot be read, with how it is written.
pub fn parse(args: &WhoArgs) -> Result<Vec<Who>, CliError> {
    let mut all: Vec<Who> = Vec::new();
    for text in &args.identities {
        let who = one(text)?;
        if all.iter().any(|other| other.name == who.name) {
            return Err(CliError::usage(format!("--as {text}: there are two identities {:?}", who.name)));
        }
        all.push(who);
    }
    for text in &args.role {
        let (role, given) = minted(&mut all, "--role", text)?;
        match role {
            Kind::Minted { role, .. } => *role = Some(given.to_owned()),
            other => return Err(has_none(other, "--role", text)),
        }
    }
    for text in &args.claims {
        let (kind, given) = minted(&mut all, "--claims", text)?;
        match kind {
            Kind::Minted { claims, .. } => *claims = read_claims(given)?,
            other => return Err(has_none(other, "--claims", text)),
        }
    }
    for who in &all {
        who.kind.check().map_err(|why| CliError::usage(format!("the identity {}: {why}", who.name)))?;
    }
    Ok(all)
}

fn one(text: &str) -> Result<Who, CliError> {
    let anybody = Kind::Minted { sub: None, role: None, claims: Map::new() };
    let (name, kind) = match (text, text.split_once('=')) {
        ("anon", _) | (_, Some((_, "anon"))) => (text, anybody),
        ("service", _) | (_, Some((_, "service"))) => (text, Kind::Keys),
        (_, Some((_, email))) if email.contains('@') => (text, Kind::SignsIn(email.to_owned())),
        (_, Some((_, sub))) => {
            (text, Kind::Minted { sub: Some(sub.to_owned()), role: None, claims: Map::new() })
        }
        (_, None) => {
            return Err(CliError::usage(format!(
                "--as {text}: write NAME=UUID or NAME=EMAIL for a user, `anon`, or `service` for the access keys"
            )));
        }
    };
    let name = name.split('=').next().unwrap_or(name);
    if name.is_empty() {
        return Err(CliError::usage(format!("--as {text}: the identity has no name; write NAME=UUID")));
    }
    Ok(Who { name: name.to_owned(), kind })
}

/// The identity that an option speaks of, and what it says.
fn minted<'a, 't>(
    all: &'a mut [Who],
    option: &str,
    text: &'t str,
) -> Result<(&'a mut Kind, &'t str), CliError> {
    let (name, given) = text
        .split_once('=')
        .ok_or_else(|| CliError::usage(format!("{option} {text}: write NAME=…, with a name of --as")))?;
    let who = all
        .iter_mut()
        .find(|who| who.name == name)
        .ok_or_else(|| CliError::usage(format!("{option} {text}: there is no --as {name}=…")))?;
    Ok((&mut who.kind, given))
}

fn has_none(kind: &Kind, option: &str, text: &str) -> CliError {
    let why = match kind {
        Kind::Keys => "access keys have neither a role nor claims",
        _ => "who signs in has a role and claims of their own",
    };
    CliError::usage(format!("{option} {text}: {why}"))
}

fn read_claims(given: &str) -> Result<Map<String, Value>, CliError> {
    let text = match given.strip_prefix('@') {
        Some(path) => private_file::read(path.as_ref())
            .map_err(|error| CliError::usage(format!("--claims: cannot read {path}: {error}")))?
            .text
            .expose()
            .to_owned(),
        None => given.to_owned(),
    };
    serde_json::from_str(&text)
        .map_err(|error| CliError::usage(format!("--claims: not a JSON object: {error}")))
}

/// A project, with what can sign requests to it.
#[derive(Debug)]
pub struct Project {
    settings: Settings,
    endpoint: Endpoint,
    service: Service,
    tuning: Tuning,
    keys: Option<Credential>,
}

impl Project {
    /// From the settings. What is missing is told when it is needed.
    ///
    /// # Errors
    /// No endpoint, or half of a pair of keys.
    pub fn of(settings: &Settings) -> Result<Self, CliError> {
        let endpoint = access::endpoint(settings, None, None)?;
        online::wait(settings, None)?;
        if !endpoint.https && !endpoint.is_loopback() {
            warn(&format!("{} is not https: tokens and contents can be read on the way", endpoint.url));
        }
        let service = Service { region: access::region(settings, None), endpoint: endpoint.url.clone() };
        let keys = keys(settings)?
            .map(|choice| access::credential(settings, choice, None, &endpoint))
            .transpose()?;
        let (tuning, settings) = (mount::tuning(settings)?, settings.clone());
        Ok(Self { settings, endpoint, service, tuning, keys })
    }

    /// Those identities as the laboratory knows them.
    ///
    /// # Errors
    /// Where the secret or the keys are missing that one of them needs.
    pub fn subjects(&self, all: &[Who]) -> Result<Vec<Subject>, CliError> {
        all.iter()
            .map(|who| {
                let credential = self.credential(who)?;
                let stats = Arc::new(Stats::default());
                let service = self.connect(&credential, &stats)?;
                Ok(Subject { name: who.name.clone(), service, stats })
            })
            .collect()
    }

    fn credential(&self, who: &Who) -> Result<Credential, CliError> {
        match &who.kind {
            Kind::Keys => self.keys.clone().ok_or_else(|| {
                CliError::failed(format!(
                    "the identity {} is the access keys, and there are none; set SUPABASE_S3_ACCESS_KEY_ID and \
                     SUPABASE_S3_SECRET_ACCESS_KEY",
                    who.name
                ))
            }),
            Kind::SignsIn(email) => self.sign_in(email),
            Kind::Minted { .. } => match who.kind.impersonation() {
                Ok(Some(impersonation)) => self.mint(impersonation),
                Ok(None) => unreachable!("it is minted"),
                Err(why) => Err(CliError::usage(format!("the identity {}: {why}", who.name))),
            },
        }
    }

    /// The session that is kept under this address, or a new one.
    fn sign_in(&self, email: &str) -> Result<Credential, CliError> {
        let file = SessionFile::named(email).map_err(|why| CliError::usage(format!("{email}: {why}")))?;
        let kept = file.read().map_err(CliError::failed)?.filter(|kept| kept.url == self.endpoint.api_url());
        if let Some(kept) = kept {
            return self.session(Box::new(KeptSession::new(file)), kept.api_key, Some(kept.project_ref));
        }
        let api_key = api_key(&self.settings)?;
        let auth = Auth::new(&self.endpoint.api_url(), api_key.clone());
        let session = OwnSession::sign_in(auth, email, &password::of(&self.settings, email)?)
            .map_err(|refusal| CliError::failed(format!("{email}: {}", refusal.message)))?;
        self.session(Box::new(session), api_key, None)
    }

    /// What may take away whatever a probe made: the access keys, or the service role.
    ///
    /// # Errors
    /// A certificate file that cannot be used.
    pub fn janitor(&self) -> Result<Option<S3Service>, CliError> {
        let minted = || {
            let role = Impersonation::anon().with_role("service_role").ok()?;
            self.mint(role).ok()
        };
        self.keys
            .clone()
            .or_else(minted)
            .map(|credential| self.connect(&credential, &Arc::default()))
            .transpose()
    }

    fn mint(&self, who: Impersonation) -> Result<Credential, CliError> {
        let secret = self.settings.get(Setting::JwtSecret).ok_or_else(|| {
            CliError::failed(
                "users and roles are minted with the project's JWT secret; set SUPABASE_JWT_SECRET (`supabase status \
                 -o env` prints it as JWT_SECRET; with --local it is found by itself)",
            )
        })?;
        let issuer = format!("{}/auth/v1", self.endpoint.api_url());
        let source = Mint::new(Secret::new(secret.text()), who, &issuer)
            .map_err(|why| CliError::failed(format!("{secret}: {why}")))?;
        self.session(Box::new(source), api_key(&self.settings)?, None)
    }

    fn session(
        &self,
        source: Box<dyn TokenSource>,
        api_key: Secret,
        project_ref: Option<String>,
    ) -> Result<Credential, CliError> {
        let token = source.load().map_err(CliError::failed)?;
        let claims = jwt::user_claims(token.expose()).map_err(CliError::failed)?;
        let project_ref = match project_ref {
            Some(project_ref) => project_ref,
            None => access::project_ref(&self.settings, &claims, &api_key, &self.endpoint)?,
        };
        auth::Session { project_ref, api_key, source, token }.credential().map_err(CliError::failed)
    }

    fn connect(&self, credential: &Credential, stats: &Arc<Stats>) -> Result<S3Service, CliError> {
        S3Service::new(
            &self.service,
            credential.provider.clone(),
            Arc::clone(&credential.authority),
            &self.tuning,
            Arc::clone(stats),
        )
        .map_err(CliError::failed)
    }
}

/// The access keys, if they are configured, or those of a profile of AWS that is named.
fn keys(settings: &Settings) -> Result<Option<Choice>, CliError> {
    match (settings.get(Setting::AccessKeyId), settings.get(Setting::SecretAccessKey)) {
        (Some(id), Some(secret)) => return access::pair(id, secret).map(Some),
        (Some(found), None) | (None, Some(found)) => {
            return Err(CliError::failed(format!(
                "{found} is half of a pair; set both SUPABASE_S3_ACCESS_KEY_ID and SUPABASE_S3_SECRET_ACCESS_KEY"
            )));
        }
        (None, None) => {}
    }
    let Some(profile) = settings.get(Setting::AwsProfile) else { return Ok(None) };
    let chain = aws_chain::load(Some(profile.value.expose())).map_err(CliError::failed)?;
    Ok(Some(Choice::Chain(Box::new(chain))))
}

fn api_key(settings: &Settings) -> Result<Secret, CliError> {
    let found = settings.one_of(access::API_KEYS)?.ok_or_else(|| {
        CliError::failed(
            "a user's requests are signed with the project's anon or publishable key; set SUPABASE_ANON_KEY or \
             SUPABASE_PUBLISHABLE_KEY",
        )
    })?;
    identity::read_api_key(&found)
}

#[cfg(test)]
mod tests;
