//! Supabase Auth's token endpoint and sign-out, as far as a client of Storage needs them.

use http::request::Parts;
use serde_json::{Map, Value, json};

use super::Shared;
use super::input::Input;
use super::reply::Reply;
use super::target::{Op, Target};
use crate::auth::sigv4::header;
use crate::clock;
use crate::log::InFlight;
use crate::sessions::{Granted, Refusal, Scope};

/// An error as Auth gives it.
pub fn error(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(status, &json!({"code": status, "error_code": code, "msg": message}))
}

/// The gateway's refusal of a request without the project's key, or with another's.
fn no_key(given: bool) -> Reply {
    let body = if given {
        json!({"message": "Invalid API key",
            "hint": "Double check your Supabase `anon` or `service_role` API key."})
    } else {
        json!({"message": "No API key found in request",
            "hint": "No `apikey` request header or url param was found."})
    };
    Reply::json(401, &body)
}

/// Answers a request to Auth.
pub async fn answer(
    shared: &Shared,
    target: &Target,
    head: &Parts,
    in_flight: &InFlight,
    input: &mut Input,
) -> Reply {
    let credentials = shared.credentials.read().clone();
    let key = header(&head.headers, "apikey").or_else(|| target.param("apikey").map(str::to_owned));
    if key.as_ref() != Some(&credentials.anon_key) {
        return no_key(key.is_some());
    }
    let Ok(body) = input.whole(shared, in_flight).await else {
        return error(413, "request_entity_too_large", "Request body too large");
    };
    let secret = &credentials.jwt_secret;
    let answered = match target.op {
        Op::AuthLogout => sign_out(shared, target, head, secret),
        _ => token(shared, target, &body, secret).map(|granted| {
            in_flight.identity(&granted.user.sub);
            grant(&granted)
        }),
    };
    answered.unwrap_or_else(|r| error(r.status, r.code, r.message))
}

fn token(shared: &Shared, target: &Target, body: &[u8], secret: &str) -> Result<Granted, Refusal> {
    let bad = |code, message| Refusal { status: 400, code, message };
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return Err(bad("bad_json", "Could not parse request body as JSON"));
    };
    let text = |name| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    match target.param("grant_type") {
        Some("password") if text("email").is_empty() => {
            Err(bad("validation_failed", "missing email or phone"))
        }
        Some("password") => shared.sessions.sign_in(text("email"), text("password"), secret),
        Some("refresh_token") if text("refresh_token").is_empty() => {
            Err(bad("validation_failed", "refresh_token required"))
        }
        Some("refresh_token") => shared.sessions.refresh(text("refresh_token"), secret),
        _ => Err(bad("invalid_credentials", "unsupported_grant_type")),
    }
}

fn grant(granted: &Granted) -> Reply {
    let now = clock::iso(clock::now());
    let user = &granted.user;
    let body = json!({
        "access_token": granted.access_token, "token_type": "bearer",
        "expires_in": granted.expires_in, "expires_at": granted.expires_at,
        "refresh_token": granted.refresh_token,
        "user": {
            "id": user.sub, "aud": "authenticated", "role": user.role, "email": user.email,
            "email_confirmed_at": now, "last_sign_in_at": now, "created_at": now, "updated_at": now,
            "app_metadata": {"provider": "email", "providers": ["email"]}, "user_metadata": {},
            "is_anonymous": false,
        },
        "weak_password": null,
    });
    Reply::json(200, &body)
}

fn sign_out(shared: &Shared, target: &Target, head: &Parts, secret: &str) -> Result<Reply, Refusal> {
    let authorization = header(&head.headers, "authorization").unwrap_or_default();
    let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
    if token.is_empty() {
        let message = "This endpoint requires a valid Bearer token";
        return Err(Refusal { status: 401, code: "no_authorization", message });
    }
    let scope = match target.param("scope") {
        None | Some("" | "global") => Scope::Global,
        Some("local") => Scope::Local,
        Some("others") => Scope::Others,
        Some(_) => {
            let message = "Unsupported logout scope";
            return Err(Refusal { status: 400, code: "validation_failed", message });
        }
    };
    shared.sessions.sign_out(token, scope, secret)?;
    Ok(Reply::new(204))
}
