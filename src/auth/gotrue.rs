//! The client of Supabase Auth (GoTrue): password and refresh grants, and signing out.
//!
//! Plain blocking code, as all sources of tokens are. What is refused is told in the server's words, with what to
//! do next; no message has a password or a token in it.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::http::{self, Answer, Request};
use crate::secret::Secret;

/// How long the server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The server's words in a message are cut here.
const WORDS: usize = 300;

/// Supabase Auth of one project.
#[derive(Debug, Clone)]
pub struct Auth {
    /// `<API URL>/auth/v1`
    url: String,
    /// The anon or publishable key: the gateway asks for it.
    api_key: Secret,
}

/// What a sign-in or a refresh gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub access_token: Secret,
    /// Good for one use.
    pub refresh_token: Secret,
    /// Of the user, where they have one.
    pub email: Option<String>,
}

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// Email and password do not go together, or the user may not sign in.
    BadLogin,
    /// The session is over: its refresh token will never be taken again.
    Ended,
    /// The project's key is refused.
    BadKey,
    /// Asked too often.
    RateLimited,
    /// No answer, or one of a gateway or a server in trouble: it passes.
    Away,
    /// Anything else.
    Other,
}

/// Why Auth gives nothing, with what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[derive(Deserialize)]
struct GrantBody {
    access_token: String,
    refresh_token: String,
    user: Option<UserBody>,
}

#[derive(Deserialize)]
struct UserBody {
    email: Option<String>,
}

/// All the forms that errors of Auth and of the gateway before it have had.
#[derive(Default, Deserialize)]
struct ErrorBody {
    error_code: Option<String>,
    msg: Option<String>,
    message: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Auth {
    /// `url` is the API URL of the project, without a slash at its end.
    #[must_use]
    pub fn new(url: &str, api_key: Secret) -> Self {
        Self { url: format!("{url}/auth/v1"), api_key }
    }

    /// `grant_type=password`
    ///
    /// # Errors
    /// A refusal, or no answer.
    pub fn sign_in(&self, email: &str, password: &Secret) -> Result<Grant, Refusal> {
        let body = Secret::new(json!({ "email": email, "password": password.expose() }).to_string());
        self.grant("password", &body)
    }

    /// `grant_type=refresh_token`
    ///
    /// # Errors
    /// A refusal, or no answer.
    pub fn refresh(&self, refresh_token: &Secret) -> Result<Grant, Refusal> {
        let body = Secret::new(json!({ "refresh_token": refresh_token.expose() }).to_string());
        self.grant("refresh_token", &body)
    }

    /// Ends the session that an access token belongs to, and no other of the user.
    ///
    /// # Errors
    /// A refusal, or no answer. A session that is over already is none.
    pub fn sign_out(&self, access_token: &Secret) -> Result<(), Refusal> {
        let bearer = Secret::new(format!("Bearer {}", access_token.expose()));
        let url = format!("{}/logout?scope=local", self.url);
        let headers = [("apikey", &self.api_key), ("authorization", &bearer)];
        let answer = self.ask(Request { method: "POST", url: &url, headers: &headers, body: None })?;
        match answer.status {
            200..300 => Ok(()),
            _ => match self.refusal(&answer) {
                Refusal { kind: RefusalKind::Ended, .. } => Ok(()),
                refusal => Err(refusal),
            },
        }
    }

    fn grant(&self, grant_type: &str, body: &Secret) -> Result<Grant, Refusal> {
        let url = format!("{}/token?grant_type={grant_type}", self.url);
        let headers = [("apikey", &self.api_key)];
        let answer = self.ask(Request { method: "POST", url: &url, headers: &headers, body: Some(body) })?;
        if answer.status != 200 {
            return Err(self.refusal(&answer));
        }
        // The parser's own words may show a part of the text.
        let GrantBody { access_token, refresh_token, user } = serde_json::from_str(answer.body.expose())
            .map_err(|_| Refusal {
                kind: RefusalKind::Other,
                message: format!(
                    "{} answers, but not as Supabase Auth does; --url must be the API URL of the project",
                    self.url
                ),
                retry_after: None,
            })?;
        Ok(Grant {
            access_token: Secret::new(access_token),
            refresh_token: Secret::new(refresh_token),
            email: user.and_then(|user| user.email).filter(|email| !email.is_empty()),
        })
    }

    fn ask(&self, request: Request<'_>) -> Result<Answer, Refusal> {
        http::send_blocking(request, PATIENCE).map_err(|why| Refusal {
            kind: RefusalKind::Away,
            message: format!("cannot reach Supabase Auth at {}: {why}", self.url),
            retry_after: None,
        })
    }

    fn refusal(&self, answer: &Answer) -> Refusal {
        let body: ErrorBody = serde_json::from_str(answer.body.expose()).unwrap_or_default();
        let code = body.error_code.or_else(|| body.error.clone()).unwrap_or_default();
        let words = body.msg.or(body.error_description).or(body.message).unwrap_or_default();
        let words: String = words.chars().filter(|c| !c.is_control()).take(WORDS).collect();
        let kind = kind(answer.status, &code, &words);
        let said = match (words.is_empty(), code.is_empty()) {
            (true, true) => format!("status {}", answer.status),
            (true, false) => code,
            (false, true) => words,
            (false, false) => format!("{words} ({code})"),
        };
        Refusal {
            kind,
            message: format!("Supabase Auth: {said}; {}", self.advice(kind, answer)),
            retry_after: answer.retry_after,
        }
    }

    fn advice(&self, kind: RefusalKind, answer: &Answer) -> String {
        match kind {
            RefusalKind::BadLogin => {
                "check the email and the password, and that the address is confirmed; users \
                                      are in the dashboard under Authentication"
                    .to_owned()
            }
            RefusalKind::Ended => "the session is over; sign in again with `supafs login`".to_owned(),
            RefusalKind::BadKey => {
                "give the publishable key (sb_publishable_…) or the anon key of this project \
                                    in SUPABASE_PUBLISHABLE_KEY or SUPABASE_ANON_KEY"
                    .to_owned()
            }
            RefusalKind::RateLimited => {
                let wait = answer.retry_after.unwrap_or(Duration::from_mins(1));
                format!(
                    "too many sign-ins or refreshes from this address; wait {} and try again (the limits are in \
                     the dashboard under Authentication > Rate Limits)",
                    humantime::format_duration(wait)
                )
            }
            RefusalKind::Away => format!("the server at {} is in trouble; try again in a moment", self.url),
            RefusalKind::Other => {
                format!(
                    "check that {} is the API URL of the project and that Auth allows this sign-in",
                    self.url
                )
            }
        }
    }
}

/// The code decides where there is one; older servers have only words.
fn kind(status: u16, code: &str, words: &str) -> RefusalKind {
    match (status, code) {
        (429, _) | (_, "over_request_rate_limit") => RefusalKind::RateLimited,
        (408 | 500.., _) => RefusalKind::Away,
        (
            _,
            "refresh_token_already_used"
            | "refresh_token_not_found"
            | "session_not_found"
            | "session_expired"
            | "user_not_found",
        ) => RefusalKind::Ended,
        (_, "invalid_credentials" | "email_not_confirmed" | "phone_not_confirmed" | "user_banned") => {
            RefusalKind::BadLogin
        }
        (400, "invalid_grant") if words.contains("Refresh Token") => RefusalKind::Ended,
        (400, "invalid_grant") => RefusalKind::BadLogin,
        (401 | 403, _) if words.to_ascii_lowercase().contains("api key") => RefusalKind::BadKey,
        _ => RefusalKind::Other,
    }
}

#[cfg(test)]
mod tests;
