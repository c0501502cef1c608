//! HS256 tokens: minting, and verification with the messages of the real server's library, in its order:
//! shape, header, algorithm, signature, then `nbf` and `exp`. No audience, issuer or leeway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::error::{S3Error, S3Result};

/// The claims of a verified token.
pub type Claims = Map<String, Value>;

fn mac(secret: &str, signed: &str) -> Hmac<Sha256> {
    // HMAC takes keys of any length, so this cannot fail.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes any key");
    mac.update(signed.as_bytes());
    mac
}

/// Signs `claims` with HS256. `iat` and `exp` are taken as given: none is added.
#[must_use]
pub fn mint_jwt(secret: &str, claims: &Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(mac(secret, &signed).finalize().into_bytes());
    format!("{signed}.{signature}")
}

fn json_part(part: &str) -> Option<Claims> {
    let bytes = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Verifies a token at `now` (seconds since 1970).
pub fn verify(secret: &str, token: &str, now: i64) -> S3Result<Claims> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        return Err(S3Error::access_denied("Invalid Compact JWS"));
    };
    let fields =
        json_part(header).ok_or_else(|| S3Error::access_denied("JWS Protected Header is invalid"))?;
    check_algorithm(&fields)?;
    let given = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| S3Error::access_denied("Failed to base64url decode the signature"))?;
    mac(secret, &format!("{header}.{payload}"))
        .verify_slice(&given)
        .map_err(|_| S3Error::access_denied("signature verification failed"))?;
    let claims = json_part(payload)
        .ok_or_else(|| S3Error::access_denied("JWT Claims Set must be a top-level JSON object"))?;
    check_times(&claims, now)?;
    Ok(claims)
}

fn check_algorithm(header: &Claims) -> S3Result<()> {
    match header.get("alg").and_then(Value::as_str) {
        Some("HS256") => Ok(()),
        Some(_) => Err(S3Error::access_denied("\"alg\" (Algorithm) Header Parameter value not allowed")),
        None => Err(S3Error::access_denied("JWS \"alg\" (Algorithm) Header Parameter missing or invalid")),
    }
}

fn check_times(claims: &Claims, now: i64) -> S3Result<()> {
    // Fractions of seconds are legal in tokens and irrelevant here.
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds are what is compared")]
    let seconds = |name| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(|s| Some(s as i64)).ok_or(name),
    };
    let number = |name: &str| S3Error::access_denied(format!("\"{name}\" claim must be a number"));
    if seconds("nbf").map_err(number)?.is_some_and(|nbf| nbf > now) {
        return Err(S3Error::access_denied("\"nbf\" claim timestamp check failed"));
    }
    if seconds("exp").map_err(number)?.is_some_and(|exp| exp <= now) {
        return Err(S3Error::access_denied("\"exp\" claim timestamp check failed"));
    }
    Ok(())
}
