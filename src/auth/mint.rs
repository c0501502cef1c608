//! Tokens minted here: being any user, or nobody, for a test, with the project's JWT secret.
//!
//! A minted token says what Supabase Auth would have put into it and lives for five minutes; a session gets the
//! next one as from any [`TokenSource`]. Only servers that take HS256 know the secret; hosted projects with
//! asymmetric signing keys do not.
//!
//! Invariant: the secret stays in memory, and is in no message, no log and no `Debug`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;
use uuid::Uuid;

use super::source::TokenSource;
use crate::secret::Secret;

/// How long a minted token is good.
pub const LIFETIME: Duration = Duration::from_mins(5);
/// What `--claims` cannot change: who it is has options of its own, and the times are renewed.
const OURS: &[&str] = &["sub", "role", "iat", "exp", "nbf"];

/// Whom a token is minted for.
#[derive(Debug, Clone, PartialEq)]
pub struct Impersonation {
    sub: Option<Uuid>,
    role: String,
    claims: Map<String, Value>,
}

impl Impersonation {
    /// The user with this id, as signed in: role `authenticated`.
    ///
    /// # Errors
    /// Text that is no UUID: `auth.uid()` is one, and policies that ask for it would fail.
    pub fn user(sub: &str) -> Result<Self, String> {
        let sub = Uuid::try_parse(sub.trim())
            .map_err(|_| "is no UUID; a user's id is in auth.users, or the `sub` of a token".to_owned())?;
        Ok(Self { sub: Some(sub), role: "authenticated".to_owned(), claims: Map::new() })
    }

    /// Nobody: the `anon` role, without a `sub`.
    #[must_use]
    pub fn anon() -> Self {
        Self { sub: None, role: "anon".to_owned(), claims: Map::new() }
    }

    /// In another role of the database.
    ///
    /// # Errors
    /// Text that can be no role.
    pub fn with_role(mut self, role: &str) -> Result<Self, String> {
        if role.is_empty() || role.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("is no name of a database role".to_owned());
        }
        role.clone_into(&mut self.role);
        Ok(self)
    }

    /// With more claims, a JSON object; they also take the place of those that Auth would set (`aal`,
    /// `app_metadata`, `aud`, `iss`, …).
    ///
    /// # Errors
    /// What is no JSON object, and claims that are set in other ways.
    pub fn with_claims(mut self, json: &str) -> Result<Self, String> {
        let claims: Map<String, Value> =
            serde_json::from_str(json).map_err(|error| format!("is no JSON object: {error}"))?;
        if let Some(name) = OURS.iter().find(|name| claims.contains_key(**name)) {
            return Err(format!(
                "cannot set {name:?}: the user and the role have options of their own, and times are renewed"
            ));
        }
        self.claims = claims;
        Ok(self)
    }

    /// E.g. `user 6c7b… (authenticated)`.
    #[must_use]
    pub fn who(&self) -> String {
        match self.sub {
            Some(sub) => format!("user {sub} ({})", self.role),
            None => format!("role {}", self.role),
        }
    }

    /// As Supabase Auth writes them; without a user, as in the anon key of a project.
    fn claims_at(&self, issuer: &str, now: SystemTime) -> Map<String, Value> {
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut all = Map::new();
        let mut set = |name: &str, value: Value| drop(all.insert(name.to_owned(), value));
        set("iss", issuer.into());
        if let Some(sub) = self.sub {
            set("sub", sub.to_string().into());
            set("aud", "authenticated".into());
            set("aal", "aal1".into());
            set("is_anonymous", false.into());
            set("app_metadata", Map::new().into());
            set("user_metadata", Map::new().into());
        }
        set("role", self.role.clone().into());
        set("iat", seconds(now).into());
        set("exp", seconds(now + LIFETIME).into());
        all.extend(self.claims.clone());
        all
    }
}

/// A [`TokenSource`] that mints.
#[derive(Debug)]
pub struct Mint {
    secret: Secret,
    who: Impersonation,
    issuer: String,
}

impl Mint {
    /// `secret` is the project's JWT secret, `issuer` what its Auth calls itself: `<API URL>/auth/v1`.
    ///
    /// # Errors
    /// An empty secret, and keys that are given in its place.
    pub fn new(secret: Secret, who: Impersonation, issuer: &str) -> Result<Self, String> {
        let text = secret.expose();
        let wrong = if text.is_empty() {
            "it is empty"
        } else if text.starts_with("sb_") || super::jwt::decode(text).is_some() {
            "it is an API key or a token, not the secret that tokens are signed with"
        } else {
            return Ok(Self { secret, who, issuer: issuer.to_owned() });
        };
        Err(format!("{wrong}; `supabase status -o env` prints it as JWT_SECRET"))
    }

    /// A token that is good from `now`.
    #[must_use]
    pub fn token_at(&self, now: SystemTime) -> Secret {
        let claims = Value::from(self.who.claims_at(&self.issuer, now)).to_string();
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.secret.expose().as_bytes()).expect("HMAC takes any key");
        mac.update(signed.as_bytes());
        Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
    }
}

impl TokenSource for Mint {
    fn describe(&self) -> String {
        format!("the JWT secret, as {}", self.who.who())
    }

    fn load(&self) -> Result<Secret, String> {
        Ok(self.token_at(SystemTime::now()))
    }

    fn remedy(&self) -> String {
        "compare the clocks of this machine and the server".to_owned()
    }
}

#[cfg(test)]
mod tests;
