//! `supafs login` and `supafs logout`: sessions of Supabase Auth, kept under a name.

use std::io::{self, Write};

use super::access::{self, API_KEYS};
use super::args::{LoginArgs, LogoutArgs};
use super::error::CliError;
use super::online::{self, Hint};
use super::settings::Settings;
use super::{identity, password, warn};
use crate::auth::gotrue::{Auth, Grant, RefusalKind};
use crate::auth::jwt::{self, Claims};
use crate::auth::session_store::{self, Kept, Locked, SessionFile};
use crate::logging;
use crate::secret::Secret;

/// Signs in, and keeps the session.
///
/// # Errors
/// What is missing, what Auth says, and a name that is taken.
pub fn sign_in(args: &LoginArgs) -> Result<(), CliError> {
    logging::to_stderr(logging::Level::WARN);
    let settings = Settings::load(vec![args.layer()], &args.files())?;
    let url = access::api_url(&settings, None)?;
    let api_key = settings.one_of(API_KEYS)?.ok_or_else(|| {
        CliError::failed(
            "Supabase Auth asks for the project's key; set SUPABASE_PUBLISHABLE_KEY or SUPABASE_ANON_KEY, or give \
             --anon-key-file (dashboard: Project Settings > API Keys)",
        )
    })?;
    let api_key = identity::read_api_key(&api_key)?;
    let email = password::email(&settings)?;
    let name = args.name.clone().unwrap_or_else(|| email.clone());
    let file =
        SessionFile::named(&name).map_err(|why| CliError::usage(format!("{why}; give another --name")))?;
    let before = file.read().map_err(CliError::failed)?;
    if let Some(before) = before.filter(|before| before.url != url) {
        return Err(taken(&name, &format!("of project {} at {}", before.project_ref, before.url)));
    }
    let endpoint = access::endpoint(&settings, None, None)?;
    if url.starts_with("http://") && !endpoint.is_loopback() {
        warn(&format!("{url} is not https: the password can be read on the way"));
    }
    let password = password::of(&settings, &email)?;

    online::wait(&settings, None)?;
    let auth = Auth::new(&url, api_key.clone());
    let hint = Hint::begin(&url);
    let grant = auth.sign_in(&email, &password).map_err(|refusal| CliError::failed(refusal.message))?;
    drop(hint);
    let claims = jwt::user_claims(grant.access_token.expose()).map_err(CliError::failed)?;
    let project_ref = access::project_ref(&settings, &claims, &api_key, &endpoint)?;
    let kept = kept(url, project_ref, api_key, grant);
    let lock = file.lock().map_err(CliError::failed)?;
    replace(&lock, &name, &kept, &claims)?;
    say(&format!(
        "signed in as {} of project {}\nthe session is kept as {name:?}; mount with it: supafs mount --user {name} \
         BUCKET MOUNTPOINT",
        who(&kept, &claims),
        kept.project_ref
    ))
}

fn kept(url: String, project_ref: String, api_key: Secret, grant: Grant) -> Kept {
    Kept {
        url,
        project_ref,
        api_key,
        email: grant.email,
        access_token: grant.access_token,
        refresh_token: grant.refresh_token,
    }
}

/// Puts the session in the place of an earlier one of the same user, which is ended.
fn replace(lock: &Locked<'_>, name: &str, kept: &Kept, claims: &Claims) -> Result<(), CliError> {
    let before = lock.find().map_err(CliError::failed)?;
    if let Some(before) = &before {
        let was = jwt::decode(before.access_token.expose());
        if let Some(was) = was.filter(|was| was.sub != claims.sub) {
            end(kept);
            return Err(taken(name, &format!("of {}", who(before, &was))));
        }
    }
    lock.write(kept).map_err(|why| {
        end(kept);
        CliError::failed(why)
    })?;
    if let Some(before) = &before {
        end(before);
    }
    Ok(())
}

/// A session that nobody will use is ended where that is possible; if not, nobody has its tokens any more.
fn end(kept: &Kept) {
    if let Err(refusal) = kept.auth().sign_out(&kept.access_token) {
        tracing::debug!(%refusal, "a session that is no longer used could not be ended on the server");
    }
}

fn taken(name: &str, of: &str) -> CliError {
    CliError::failed(format!(
        "{name:?} names a session {of}; keep this one under another name with --name, or give that one up with \
         `supafs logout {name}`"
    ))
}

/// E.g. `alice@example.com (user 6c7b…, role authenticated)`.
pub fn who(kept: &Kept, claims: &Claims) -> String {
    let user = claims.sub.as_deref().map_or_else(String::new, |sub| format!("user {sub}, "));
    match &kept.email {
        Some(email) => format!("{email} ({user}role {})", claims.role),
        None => format!("{user}role {}", claims.role),
    }
}

/// Ends kept sessions on the server, and forgets them.
///
/// # Errors
/// No such session, or one that cannot be removed.
pub fn sign_out(args: &LogoutArgs) -> Result<(), CliError> {
    logging::to_stderr(logging::Level::WARN);
    let all = session_store::names()
        .map_err(|error| CliError::failed(format!("cannot look for kept sessions: {error}")))?;
    let names = match (&args.name, all.as_slice()) {
        (Some(name), _) => vec![name.clone()],
        (None, []) => return Err(CliError::failed("nobody is signed in: there is no kept session")),
        (None, [_]) => all,
        (None, _) if args.all => all,
        (None, _) => {
            return Err(CliError::usage(format!(
                "several sessions are kept: {}; name one, or give --all",
                all.join(", ")
            )));
        }
    };
    for name in names {
        sign_out_of(&name)?;
    }
    Ok(())
}

fn sign_out_of(name: &str) -> Result<(), CliError> {
    let file = SessionFile::named(name).map_err(CliError::usage)?;
    let lock = file.lock().map_err(CliError::failed)?;
    let kept = match lock.find() {
        Ok(Some(kept)) => kept,
        Ok(None) => return Err(CliError::failed(format!("there is no session {name:?}"))),
        Err(why) => {
            lock.remove().map_err(CliError::failed)?;
            warn(&format!("{why}; it was removed"));
            return Ok(());
        }
    };
    let auth = kept.auth();
    // An expired access token ends nothing: a last one is asked for.
    let ended = match auth.sign_out(&kept.access_token) {
        Err(refusal) if refusal.kind != RefusalKind::Away => match auth.refresh(&kept.refresh_token) {
            Ok(grant) => auth.sign_out(&grant.access_token),
            Err(refusal) if refusal.kind == RefusalKind::Ended => Ok(()),
            Err(refusal) => Err(refusal),
        },
        result => result,
    };
    lock.remove().map_err(CliError::failed)?;
    let said = say(&format!("signed out of {name:?}"));
    if let Err(refusal) = ended {
        warn(&format!("the session is forgotten here, but could not be ended on the server: {refusal}"));
    }
    said
}

fn say(text: &str) -> Result<(), CliError> {
    writeln!(io::stdout(), "{text}").map_err(|error| CliError::unprintable(&error))
}
