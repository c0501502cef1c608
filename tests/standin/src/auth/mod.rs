//! Who is asking: both credential modes, and the order in which the server refuses (access key, service,
//! signature, token, role).

pub mod chunked;
pub mod jwt;
pub mod sigv4;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::clock;
use crate::config::Credentials;
use crate::error::{S3Error, S3Result};
use jwt::Claims;
use sigv4::{KeyCache, Signed};

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The database role: `service_role` passes every policy.
    pub role: String,
    /// The token's subject; absent for access keys.
    pub sub: Option<String>,
    /// All claims, for policies that look at others.
    pub claims: Claims,
    /// What the request log shows: the access key id, or the subject, or the role of a token without one.
    pub label: String,
}

impl Identity {
    /// Whether Row Level Security is off for the caller.
    pub fn bypasses_policies(&self) -> bool {
        self.role == "service_role"
    }
}

/// Checks a request's signature and, in session mode, its token.
pub fn authenticate(
    request: &Signed<'_>,
    credentials: &Credentials,
    region: &str,
    keys: &KeyCache,
) -> S3Result<Identity> {
    let client = sigv4::parse(request.headers, request.query)?;
    let (access_key, secret) = if client.token.is_some() {
        (&credentials.project_ref, &credentials.anon_key)
    } else {
        (&credentials.access_key_id, &credentials.secret_access_key)
    };
    if client.access_key != *access_key {
        return Err(S3Error::access_denied("Invalid Access Key"));
    }
    if client.service != "s3" {
        return Err(S3Error::access_denied("Invalid Service"));
    }
    if !sigv4::matches(&client, request, secret, region, keys) {
        return Err(S3Error::signature_mismatch(client.token.is_some()));
    }
    let Some(token) = client.token else {
        return Ok(Identity {
            role: "service_role".to_owned(),
            sub: None,
            claims: Claims::new(),
            label: client.access_key,
        });
    };
    identity_of(jwt::verify(&credentials.jwt_secret, &token, clock::now_seconds())?)
}

/// The caller of the REST API, from its Authorization header.
pub fn bearer(authorization: &str, credentials: &Credentials) -> S3Result<Identity> {
    let (scheme, rest) = authorization.split_once(' ').unwrap_or(("", authorization));
    let token = if scheme.eq_ignore_ascii_case("bearer") { rest.trim_start() } else { authorization };
    identity_of(jwt::verify(&credentials.jwt_secret, token, clock::now_seconds())?)
}

fn identity_of(claims: Claims) -> S3Result<Identity> {
    let text = |name| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    let sub = text("sub");
    let role = text("role").filter(|r| !r.is_empty()).unwrap_or_else(|| "anon".to_owned());
    if !["anon", "authenticated", "service_role"].contains(&role.as_str()) {
        // `SET LOCAL role` fails in the database.
        return Err(S3Error::new(500, "DatabaseError", "database error, code: 22023"));
    }
    let label = sub.clone().unwrap_or_else(|| role.clone());
    Ok(Identity { role, sub, claims, label })
}
