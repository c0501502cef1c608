//! What can be checked without asking the server.

use std::time::{Duration, SystemTime};

use super::Check;
use crate::auth::Credential;
use crate::auth::jwt::{self, Claims, KeyKind};
use crate::cli::access::Choice;
use crate::cli::endpoint::{Endpoint, S3_PATH};
use crate::cli::fuse_access;
use crate::cli::identity::SessionParts;
use crate::cli::setting::Setting;
use crate::cli::settings::Settings;
use crate::proxy::Proxy;

pub fn fuse() -> Check {
    match fuse_access::check() {
        Ok(detail) => Check::ok("fuse", detail),
        Err(obstacle) => Check::fail("fuse", obstacle.problem, obstacle.fix),
    }
}

/// Only where the settings let other users in.
pub fn others(settings: &Settings) -> Option<Check> {
    let asked = settings.parsed(Setting::AllowOther, false, crate::cli::units::boolean).unwrap_or(false);
    asked.then(|| {
        if fuse_access::others_may_be_let_in() {
            Check::ok("allow_other", "permitted")
        } else {
            Check::fail(
                "allow_other",
                "only root may, until /etc/fuse.conf has a line user_allow_other",
                "echo user_allow_other | sudo tee -a /etc/fuse.conf",
            )
        }
    })
}

/// Only where the environment names a proxy for the endpoint.
pub fn proxy(endpoint: &Endpoint) -> Option<Check> {
    match Proxy::to(&endpoint.url) {
        Ok(proxy) => proxy.map(|proxy| Check::ok("proxy", format!("requests go by way of {proxy}"))),
        Err(why) => Some(Check::fail("proxy", why, "correct the variable, or unset it")),
    }
}

/// Keys of one kind where another belongs.
pub fn keys(choice: &Choice, parts: Option<&SessionParts>) -> Vec<Check> {
    match (choice, parts) {
        (Choice::Session { .. }, Some(SessionParts { api_key, api_key_origin, claims, .. })) => {
            vec![self::api_key(api_key_origin, api_key.expose(), claims)]
        }
        _ => Vec::new(),
    }
}

fn api_key(found: &str, text: &str, token: &Claims) -> Check {
    const GIVE: &str = "give the publishable key (sb_publishable_…) or the legacy anon key";
    match jwt::kind(text) {
        KeyKind::Publishable => Check::ok("keys", format!("{found} is a publishable key")),
        KeyKind::Secret => Check::fail("keys", format!("{found} is a secret key (sb_secret_…)"), GIVE),
        KeyKind::Jwt(key) if key.role != "anon" => {
            Check::fail("keys", format!("{found} is a JWT of the {}, not the anon key", key.who()), GIVE)
        }
        KeyKind::Jwt(key) => match (&key.project_ref, &token.project_ref) {
            (Some(of_key), Some(of_token)) if of_key != of_token => Check::fail(
                "keys",
                format!("{found} is of project {of_key}, the session token of {of_token}"),
                "take both from one project",
            ),
            _ => Check::ok("keys", format!("{found} is a legacy anon key")),
        },
        KeyKind::Other => {
            Check::warn("keys", format!("{found} is neither a publishable key nor a JWT"), GIVE)
        }
    }
}

pub fn endpoint(endpoint: &Endpoint) -> Check {
    let url = &endpoint.url;
    let expected = format!("end it in {S3_PATH}");
    if endpoint.completed {
        return Check::warn("endpoint", format!("{url}, completed: no path was given"), expected);
    }
    if !endpoint.path.ends_with(S3_PATH) {
        return Check::warn("endpoint", format!("{url} does not end in {S3_PATH}"), expected);
    }
    if !endpoint.https && !endpoint.is_loopback() {
        let problem = format!("{url} is not https: tokens and contents can be read on the way");
        return Check::warn("endpoint", problem, "use https");
    }
    Check::ok("endpoint", url)
}

pub fn region(region: &str) -> Check {
    match region {
        "us-east-1" | "auto" => Check::ok("region", format!("{region}, which every server accepts")),
        other => Check::ok("region", format!("{other}; if signatures are refused, use us-east-1")),
    }
}

/// The claims of a user's token: whose, of which project, and for how long.
pub fn token(credential: &Credential, settings: &Settings, endpoint: &Endpoint) -> Vec<Check> {
    let Some(claims) = &credential.claims else { return Vec::new() };
    let now = SystemTime::now();
    let mut checks = vec![subject(claims), expiry(claims, now)];
    if let Some(at) = claims.not_before.filter(|at| *at > now) {
        checks.push(Check::fail(
            "token",
            format!("not valid before {}", humantime::format_rfc3339_seconds(at)),
            "check the clock of this machine and of the token's issuer",
        ));
    }
    checks.extend(project(claims, settings, endpoint));
    checks
}

fn subject(claims: &Claims) -> Check {
    let role = &claims.role;
    match &claims.sub {
        Some(sub) => Check::ok("token", format!("sub {sub}, role {role}")),
        None if role == "service_role" => Check::warn(
            "token",
            "role service_role: Row Level Security is bypassed",
            "give the access_token of a signed-in user",
        ),
        None => Check::warn(
            "token",
            format!("no sub, role {role}: policies on auth.uid() allow nothing"),
            "give the access_token of a signed-in user, not an API key",
        ),
    }
}

fn expiry(claims: &Claims, now: SystemTime) -> Check {
    let Some(at) = claims.expires else { return Check::ok("token", "never expires") };
    let left = at.duration_since(now).unwrap_or_default();
    let left = Duration::from_secs(left.as_secs());
    let at = humantime::format_rfc3339_seconds(at);
    Check::ok("token", format!("expires at {at}, in {}", humantime::format_duration(left)))
}

fn project(claims: &Claims, settings: &Settings, endpoint: &Endpoint) -> Option<Check> {
    let of_token = claims.project_ref.as_deref()?;
    let given = settings.get(Setting::ProjectRef).map(|found| found.value.expose().trim().to_owned());
    let used = given.or_else(|| endpoint.project_ref().map(str::to_owned))?;
    Some(if used == of_token {
        Check::ok("token", format!("issued by project {of_token}"))
    } else {
        Check::fail(
            "token",
            format!("issued by project {of_token}, used for {used}"),
            "sign in to the project that is mounted, or correct --project-ref",
        )
    })
}
