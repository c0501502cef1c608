//! What a refused credential means: `iss`, `exp` and `nbf` of a token, the server's words and its clock decide as far as
//! they go; where they do not, the causes that remain are named.

use std::time::{Duration, SystemTime};

use super::jwt::Claims;
use crate::identity::Refused;

/// Clocks that differ by less than this agree: the server's is told in whole seconds.
const AGREE: Duration = Duration::from_secs(5);

/// What is known of the token here.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub claims: &'a Claims,
    /// What the session is signed for.
    pub project_ref: &'a str,
    pub source: &'a str,
    /// Of the token in force, which may be a later one than that of the claims.
    pub expires: Option<SystemTime>,
    pub now: SystemTime,
}

/// Of a pair of access keys.
pub fn of_keys(refusal: &Refused<'_>) -> String {
    if refusal.code == "SignatureDoesNotMatch" {
        "the secret does not belong to this access key id, or the region is not accepted: set both of one pair, and \
         leave the region at us-east-1"
            .to_owned()
    } else {
        "the server does not know this access key id: make a pair in the dashboard under Storage > S3, and check that \
         the project is the one that it was made in"
            .to_owned()
    }
}

/// Of a user's token.
pub fn of_token(token: &Subject<'_>, refusal: &Refused<'_>) -> String {
    let message = refusal.message;
    if message.contains("Access Key") {
        return unknown_project(token);
    }
    if refusal.code == "SignatureDoesNotMatch" {
        return wrong_api_key(token);
    }
    if message.contains("\"exp\"") {
        return expired(token, refusal.date);
    }
    if message.contains("\"nbf\"") {
        return not_yet_valid(token, refusal.date);
    }
    if message.contains("type uuid") {
        return format!(
            "the policies compare the user's id with UUIDs, and the token's `sub` is none: take a token of a user of \
             Supabase Auth, or give the user's UUID ({})",
            token.source
        );
    }
    if message.ends_with("code: 22023") {
        return format!(
            "the database has no role {:?}: correct --role, or the claim `role` of the token ({})",
            token.claims.role, token.source
        );
    }
    if let Some(project) = other_project(token) {
        return format!(
            "the token is of project {project} (iss), not of {}: sign in to the project that is asked, or correct \
             --project-ref",
            token.project_ref
        );
    }
    if message.contains("signature verification failed") || message.contains("Key for the") {
        return wrong_secret(token);
    }
    if ["JWS", "JWT", "Header", "Failed to base64url"].iter().any(|words| message.contains(words)) {
        return format!(
            "the token is malformed: {} must give the access_token of a signed-in user, whole and unchanged",
            token.source
        );
    }
    format!("{}; {}", by_the_clock(token, refusal.date), remaining(token))
}

fn unknown_project(token: &Subject<'_>) -> String {
    let of_token =
        other_project(token).map(|project| format!(" (the token is of {project})")).unwrap_or_default();
    format!(
        "the server does not know the project {}{of_token}: correct --project-ref (self-hosted: the TENANT_ID of the \
         storage service, `stub` by default)",
        token.project_ref
    )
}

fn wrong_api_key(token: &Subject<'_>) -> String {
    format!(
        "the API key does not sign for project {}: try the project's other key, the legacy anon key (a JWT) in place \
         of the publishable key or the other way round; check that it is of this project; and leave the region at \
         us-east-1",
        token.project_ref
    )
}

fn other_project<'a>(token: &'a Subject<'_>) -> Option<&'a str> {
    token.claims.project_ref.as_deref().filter(|project| *project != token.project_ref)
}

fn expired(token: &Subject<'_>, date: Option<SystemTime>) -> String {
    let at = token.expires.map_or_else(|| "a time it does not tell".to_owned(), rfc3339);
    match date.and_then(|date| clock_is_off(token.now, date)) {
        Some(off) => format!(
            "the token expired at {at} by the server's clock, and this machine's is {off}: set the clock (sudo \
             timedatectl set-ntp true)"
        ),
        None => format!("the token expired at {at}: a new one is needed from {}", token.source),
    }
}

fn not_yet_valid(token: &Subject<'_>, date: Option<SystemTime>) -> String {
    let at = token.claims.not_before.map_or_else(|| "a time it does not tell".to_owned(), rfc3339);
    let server =
        date.map_or_else(String::new, |date| format!(", and the server's clock says {}", rfc3339(date)));
    let whose = match date.and_then(|date| clock_is_off(token.now, date)) {
        Some(off) => format!("this machine's clock is {off}: set it if the token was made here"),
        None => "the clock of whoever made the token is ahead, or it was made for later".to_owned(),
    };
    format!("the token is not valid before {at} (nbf){server}: {whose}")
}

fn wrong_secret(token: &Subject<'_>) -> String {
    let issuer = token.claims.iss.as_deref().map_or_else(
        || "it does not say who issued it".to_owned(),
        |issuer| format!("it says it was issued by {issuer}"),
    );
    format!(
        "the token is signed with a secret or key that this server does not accept, and {issuer}; what remains: it is \
         of another project or stack, the project's JWT secret or signing keys were changed since, or it was cut or changed \
         on its way, or minted with a wrong SUPABASE_JWT_SECRET"
    )
}

fn by_the_clock(token: &Subject<'_>, date: Option<SystemTime>) -> String {
    let off = date.and_then(|date| clock_is_off(token.now, date));
    off.map_or_else(
        || "by exp, nbf and the clocks the token is good".to_owned(),
        |off| format!("this machine's clock is {off}, which may be all"),
    )
}

fn remaining(token: &Subject<'_>) -> String {
    format!(
        "what remains: a project ref other than {}, an API key of another project, a token signed with another \
         secret, or a user who is banned or deleted",
        token.project_ref
    )
}

/// E.g. `300 s ahead of the server's`.
pub fn clock_is_off(now: SystemTime, date: SystemTime) -> Option<String> {
    let (difference, direction) = match now.duration_since(date) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    (difference > AGREE).then(|| format!("{} s {direction} the server's", difference.as_secs()))
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests;
