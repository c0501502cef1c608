//! What a user's token says: its claims, read without verifying them (the server does that).
//!
//! Nothing here is trusted for access: the claims tell when to renew, which cache to use, and what to say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

/// Some issuers pad; the standard says not to.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a string that may be a key or a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyKind {
    Jwt(Claims),
    /// `sb_publishable_…`
    Publishable,
    /// `sb_secret_…`
    Secret,
    Other,
}

/// A token is renewed this long before it expires, or a fifth of its life before where that is less.
const MARGIN: Duration = Duration::from_secs(90);

/// The claims that supafs reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub sub: Option<String>,
    /// `anon` where the token has none: so the server reads it.
    pub role: String,
    pub expires: Option<SystemTime>,
    pub not_before: Option<SystemTime>,
    pub issued: Option<SystemTime>,
    pub iss: Option<String>,
    /// The project ref that `iss` or, in the API keys of a project, `ref` names.
    pub project_ref: Option<String>,
}

#[derive(Deserialize)]
struct Raw {
    sub: Option<String>,
    role: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    iss: Option<String>,
    r#ref: Option<String>,
}

impl Claims {
    /// Whose token it is: a later token must say the same.
    #[must_use]
    pub fn is_same_user(&self, other: &Self) -> bool {
        self.sub == other.sub && self.role == other.role
    }

    /// How long the token lives in all; `now` stands in where it does not say when it was issued.
    #[must_use]
    pub fn lifetime(&self, now: SystemTime) -> Duration {
        let began = self.issued.filter(|issued| Some(*issued) < self.expires).unwrap_or(now);
        self.expires.and_then(|at| at.duration_since(began).ok()).unwrap_or(Duration::MAX)
    }

    /// When to ask for the next token; `None` where this one never expires.
    #[must_use]
    pub fn renewal(&self, now: SystemTime) -> Option<SystemTime> {
        self.expires?.checked_sub(MARGIN.min(self.lifetime(now) / 5))
    }

    /// E.g. `user 6c7b… (authenticated)`.
    #[must_use]
    pub fn who(&self) -> String {
        match &self.sub {
            Some(sub) => format!("user {sub} ({})", self.role),
            None => format!("role {}", self.role),
        }
    }
}

/// Says what `text` is.
#[must_use]
pub fn kind(text: &str) -> KeyKind {
    if text.starts_with("sb_publishable_") {
        KeyKind::Publishable
    } else if text.starts_with("sb_secret_") {
        KeyKind::Secret
    } else {
        decode(text).map_or(KeyKind::Other, KeyKind::Jwt)
    }
}

/// What `text` is where it can only be an API key of a project, or a token.
#[must_use]
pub fn api_key(text: &str) -> Option<&'static str> {
    match kind(text) {
        KeyKind::Publishable => Some("a publishable key"),
        KeyKind::Secret => Some("a secret key, sb_secret_…"),
        KeyKind::Jwt(_) => Some("a JWT"),
        // One that was cut or changed on its way.
        KeyKind::Other => (text.starts_with("eyJ") && text.contains('.')).then_some("a JWT"),
    }
}

/// The claims of `token`, unless it is no JWT.
#[must_use]
pub fn decode(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let header: serde_json::Value = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
    header.get("alg")?;
    let raw: Raw = serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()?;
    let project_ref = raw.iss.as_deref().and_then(ref_of_issuer).or(raw.r#ref);
    Some(Claims {
        sub: raw.sub.filter(|sub| !sub.is_empty()),
        role: raw.role.filter(|role| !role.is_empty()).unwrap_or_else(|| "anon".to_owned()),
        expires: raw.exp.and_then(time),
        not_before: raw.nbf.and_then(time),
        issued: raw.iat.and_then(time),
        iss: raw.iss,
        project_ref,
    })
}

/// Why `text` cannot be a user's token, with what to give instead.
///
/// # Errors
/// Anything that is no JWT.
pub fn user_claims(text: &str) -> Result<Claims, String> {
    match kind(text) {
        KeyKind::Jwt(claims) => Ok(claims),
        KeyKind::Publishable => {
            Err("it is a publishable key, which belongs in SUPABASE_PUBLISHABLE_KEY; the \
                                     session token is the access_token of a signed-in user"
                .to_owned())
        }
        KeyKind::Secret => Err("it is a secret key (sb_secret_…), which the S3 protocol does not take; the \
                                session token is the access_token of a signed-in user, and for full access \
                                there are S3 access keys"
            .to_owned()),
        KeyKind::Other if text.is_empty() => Err("it is empty".to_owned()),
        KeyKind::Other => {
            Err("it is no JWT; the session token is the access_token of a signed-in user".to_owned())
        }
    }
}

fn ref_of_issuer(iss: &str) -> Option<String> {
    let host = iss.strip_prefix("https://")?.split('/').next()?;
    let project = host.strip_suffix(".supabase.co").or_else(|| host.strip_suffix(".supabase.in"))?;
    (!project.is_empty() && !project.contains('.')).then(|| project.to_owned())
}

fn time(seconds: f64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
pub(crate) mod tests;
