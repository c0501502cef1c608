//! Whom a session is of: the settings that name a user become a source of tokens, and its first token.

use std::path::PathBuf;

use super::access::{self, Choice};
use super::error::CliError;
use super::online::Hint;
use super::password;
use super::setting::Setting;
use super::settings::{Found, Settings, expand};
use crate::auth::gotrue::Auth;
use crate::auth::jwt::{self, Claims, KeyKind};
use crate::auth::mint::{Impersonation, Mint};
use crate::auth::session_store::{self, Kept, SessionFile};
use crate::auth::sign_in::{KeptSession, OwnSession};
use crate::auth::source::{Fixed, TokenCommand, TokenFile, TokenSource};
use crate::private_file;
use crate::secret::Secret;

/// What names one user. A token comes first: it is the most precise.
const IDENTITIES: &[Setting] = &[
    Setting::SessionToken,
    Setting::SessionTokenFile,
    Setting::SessionTokenCommand,
    Setting::User,
    Setting::Email,
    Setting::AsUser,
    Setting::AsAnon,
];

/// A user session's parts as they were read from where the choice says.
#[derive(Debug)]
pub struct SessionParts {
    pub api_key: Secret,
    /// Where the key comes from.
    pub api_key_origin: String,
    pub token: Secret,
    pub source: Box<dyn TokenSource>,
    pub claims: Claims,
    /// Where a session of `supafs login` is at home.
    pub home: Option<Home>,
}

/// A project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The API URL.
    pub url: String,
    pub project_ref: String,
}

/// What names the user, of the settings that do.
///
/// # Errors
/// Where one place names two users.
pub fn named(settings: &Settings) -> Result<Option<Found>, CliError> {
    settings.one_of(&candidates(settings)?)
}

/// The same, without a look at what else that place names.
///
/// # Errors
/// A switch that is neither on nor off.
pub fn first_named(settings: &Settings) -> Result<Option<Found>, CliError> {
    let found = candidates(settings)?.into_iter().filter_map(|setting| settings.get(setting));
    Ok(found.min_by_key(|found| found.rank))
}

fn candidates(settings: &Settings) -> Result<Vec<Setting>, CliError> {
    let anon = settings.is_on(Setting::AsAnon)?;
    Ok(IDENTITIES.iter().copied().filter(|setting| anon || *setting != Setting::AsAnon).collect())
}

/// The only session of `supafs login`, of the project that the settings name, if they name one.
///
/// # Errors
/// Where there are several.
pub fn only_session(settings: &Settings) -> Result<Option<String>, CliError> {
    let names = session_store::names()
        .map_err(|error| CliError::failed(format!("cannot look for kept sessions: {error}")))?;
    let place = access::endpoint(settings, None, None).ok();
    let is_of_project = |name: &String| {
        let Some(place) = &place else { return true };
        // What cannot be read is said when it is the one in question.
        let kept = SessionFile::named(name).and_then(|file| file.read()).ok().flatten();
        kept.is_some_and(|kept| kept.url == place.api_url())
    };
    let mut names: Vec<String> = names.into_iter().filter(is_of_project).collect();
    match names.len() {
        0 | 1 => Ok(names.pop()),
        _ => Err(CliError::failed(format!(
            "several sessions are kept: {}; say which one with --user NAME",
            names.join(", ")
        ))),
    }
}

/// Reads the files, runs the command, or signs in, as the choice says.
///
/// # Errors
/// A source that gives nothing, and keys in the wrong place.
pub fn read(settings: &Settings, choice: &Choice) -> Result<Option<SessionParts>, CliError> {
    let Choice::Session { api_key, who } = choice else { return Ok(None) };
    if who.setting == Setting::User {
        return kept(settings, who).map(Some);
    }
    check_role_and_claims(settings, who)?;
    let Some(api_key) = api_key else {
        return Err(without_key(who));
    };
    let key = read_api_key(api_key)?;
    let source = source(settings, choice, who, &key)?;
    let token = source.load().map_err(CliError::failed)?;
    let claims = jwt::user_claims(token.expose())
        .map_err(|why| CliError::failed(format!("the session token of {who}: {why}")))?;
    let api_key_origin = api_key.origin.clone();
    Ok(Some(SessionParts { api_key: key, api_key_origin, token, source, claims, home: None }))
}

/// What to say where a user is named, but no key to sign with.
pub fn without_key(who: &Found) -> CliError {
    CliError::failed(format!(
        "{who} names a user, whose requests the project's anon or publishable key must sign; set \
         SUPABASE_PUBLISHABLE_KEY or SUPABASE_ANON_KEY, or give --anon-key-file"
    ))
}

/// The key that signs a user's requests.
///
/// # Errors
/// A file that cannot be read, and a key of another kind.
pub fn read_api_key(found: &Found) -> Result<Secret, CliError> {
    let key = if found.setting == Setting::AnonKeyFile {
        let path = expand(found.text());
        let contents = private_file::read(&path)
            .map_err(|error| CliError::failed(format!("{found}: cannot read {}: {error}", path.display())))?;
        contents.must_be_private(&path, "a key").map_err(CliError::failed)?;
        Secret::new(contents.text.expose().trim())
    } else {
        Secret::new(found.text())
    };
    if matches!(jwt::kind(key.expose()), KeyKind::Secret) {
        return Err(CliError::failed(format!(
            "{found} is a secret key (sb_secret_…), which the S3 protocol does not take; give the publishable \
             key (sb_publishable_…) or the legacy anon key"
        )));
    }
    Ok(key)
}

/// A kept session, and its file.
///
/// # Errors
/// A name without a session, with the names that have one.
pub fn find_kept(settings: &Settings, who: &Found) -> Result<(SessionFile, Kept), CliError> {
    let name = match who.text() {
        "" => only_session(settings)?.ok_or_else(|| CliError::failed(nobody_is_signed_in()))?,
        name => name.to_owned(),
    };
    let file = SessionFile::named(&name).map_err(|why| CliError::usage(format!("{who}: {why}")))?;
    let Some(kept) = file.read().map_err(CliError::failed)? else {
        let names = session_store::names().unwrap_or_default();
        return Err(CliError::failed(if names.is_empty() {
            format!("{who}: there is no session {name:?}; {}", nobody_is_signed_in())
        } else {
            format!("{who}: there is no session {name:?}; kept are: {}", names.join(", "))
        }));
    };
    if let Some(given) = settings.get(Setting::ProjectRef).filter(|given| given.rank <= who.rank)
        && given.text() != kept.project_ref
    {
        return Err(CliError::failed(format!(
            "the session {name:?} is of project {}, not of {} ({given}); sign in to that project under another \
             name: supafs login --name NAME",
            kept.project_ref,
            given.text()
        )));
    }
    Ok((file, kept))
}

fn nobody_is_signed_in() -> String {
    "nobody is signed in; sign in with: supafs login --project-ref REF --email EMAIL".to_owned()
}

fn kept(settings: &Settings, who: &Found) -> Result<SessionParts, CliError> {
    check_role_and_claims(settings, who)?;
    let (file, kept) = find_kept(settings, who)?;
    let source = KeptSession::new(file);
    let _hint = Hint::begin(&kept.url);
    let token = source.load().map_err(|why| CliError::failed(format!("{}: {why}", source.describe())))?;
    let claims = jwt::user_claims(token.expose())
        .map_err(|why| CliError::failed(format!("the token of {}: {why}", source.describe())))?;
    Ok(SessionParts {
        api_key: kept.api_key,
        api_key_origin: format!("the key of {}", source.describe()),
        token,
        source: Box::new(source),
        claims,
        home: Some(Home { url: kept.url, project_ref: kept.project_ref }),
    })
}

fn source(
    settings: &Settings,
    choice: &Choice,
    who: &Found,
    api_key: &Secret,
) -> Result<Box<dyn TokenSource>, CliError> {
    let here = |error: std::io::Error| CliError::failed(format!("{who}: {error}"));
    let text = who.text();
    Ok(match who.setting {
        Setting::SessionTokenFile => {
            // The daemon runs in `/`.
            let path = std::path::absolute(expand(text)).map_err(here)?;
            Box::new(TokenFile::new(path))
        }
        Setting::SessionTokenCommand => {
            let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
            Box::new(TokenCommand::new(Secret::new(text), directory))
        }
        Setting::Email => {
            let auth = Auth::new(&access::api_url(settings, Some(choice))?, api_key.clone());
            let password = password::of(settings, text)?;
            let _hint = Hint::begin(&access::api_url(settings, Some(choice))?);
            let session = OwnSession::sign_in(auth, text, &password);
            Box::new(session.map_err(|refusal| CliError::failed(refusal.message))?)
        }
        Setting::AsUser | Setting::AsAnon => impersonation(settings, choice, who, api_key)?,
        _ => Box::new(Fixed { token: Secret::new(text), origin: who.origin.clone() }),
    })
}

fn impersonation(
    settings: &Settings,
    choice: &Choice,
    who: &Found,
    api_key: &Secret,
) -> Result<Box<dyn TokenSource>, CliError> {
    let is_user = who.setting == Setting::AsUser;
    let wrong = |found: &Found, why: String| CliError::usage(format!("{found}: it {why}"));
    let mut whom = if is_user {
        Impersonation::user(who.text()).map_err(|why| wrong(who, why))?
    } else {
        Impersonation::anon()
    };
    if let Some(role) = settings.get(Setting::Role).filter(|_| is_user) {
        whom = whom.with_role(role.text()).map_err(|why| wrong(&role, why))?;
    }
    let claims = settings.get(Setting::Claims);
    if let Some(claims) = &claims {
        whom = whom.with_claims(&claims_text(claims)?).map_err(|why| wrong(claims, why))?;
    }
    let secret = settings.get(Setting::JwtSecret);
    match (secret, is_user || claims.is_some()) {
        (Some(secret), _) => {
            let issuer = format!("{}/auth/v1", access::api_url(settings, Some(choice))?);
            let mint = Mint::new(Secret::new(secret.text()), whom, &issuer);
            Ok(Box::new(mint.map_err(|why| CliError::failed(format!("{secret}: {why}")))?))
        }
        // The legacy anon key is itself a token of nobody.
        (None, false) if jwt::decode(api_key.expose()).is_some_and(|key| key.role == "anon") => {
            Ok(Box::new(Fixed { token: api_key.clone(), origin: "the anon key".to_owned() }))
        }
        (None, _) => Err(CliError::failed(format!(
            "{who} needs the secret that the project's tokens are signed with; set SUPABASE_JWT_SECRET (`supabase \
             status -o env` prints it as JWT_SECRET; with --local it is found by itself)"
        ))),
    }
}

/// `@FILE` is a file of JSON.
fn claims_text(found: &Found) -> Result<String, CliError> {
    let Some(path) = found.text().strip_prefix('@') else { return Ok(found.text().to_owned()) };
    let path = expand(path);
    std::fs::read_to_string(&path)
        .map_err(|error| CliError::failed(format!("{found}: cannot read {}: {error}", path.display())))
}

/// What would have no effect was meant for something else.
fn check_role_and_claims(settings: &Settings, who: &Found) -> Result<(), CliError> {
    let given = |setting| settings.get(setting).filter(Found::is_given);
    if let Some(role) = given(Setting::Role).filter(|_| who.setting != Setting::AsUser) {
        return Err(CliError::usage(format!("{role} goes with --as-user; {who} has a role of its own")));
    }
    let mints = matches!(who.setting, Setting::AsUser | Setting::AsAnon);
    match given(Setting::Claims).filter(|_| !mints) {
        Some(claims) => Err(CliError::usage(format!(
            "{claims} goes with --as-user or --as-anon; {who} has claims of its own"
        ))),
        None => Ok(()),
    }
}
