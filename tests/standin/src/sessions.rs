//! Users of Supabase Auth and their sessions: signing in, and refresh tokens that are good for one use.
//! A used token may be used again within the reuse interval, or as long as the one it was traded for has
//! not been used; after that its use ends the session. Lock rank: leaf.

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::auth::jwt::{self, Claims, mint_jwt};
use crate::clock;
use crate::config::{AuthConfig, User};
use crate::store::etag::{unique, uuid};

/// Why Auth refuses, as its answers say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub message: &'static str,
}

const fn refusal(status: u16, code: &'static str, message: &'static str) -> Refusal {
    Refusal { status, code, message }
}

const BAD_LOGIN: Refusal = refusal(400, "invalid_credentials", "Invalid login credentials");
const UNCONFIRMED: Refusal = refusal(400, "email_not_confirmed", "Email not confirmed");
const UNKNOWN: Refusal =
    refusal(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found");
const USED: Refusal = refusal(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used");
const NO_SESSION: Refusal =
    refusal(403, "session_not_found", "Session from session_id claim in JWT does not exist");
const BAD_JWT: Refusal =
    refusal(403, "bad_jwt", "invalid JWT: unable to parse or verify signature, token is malformed");

/// What a sign-in or a refresh gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub access_token: String,
    pub refresh_token: String,
    /// Seconds since 1970.
    pub expires_at: i64,
    pub expires_in: i64,
    pub user: User,
}

#[derive(Debug)]
struct Token {
    session: String,
    /// The token this one was traded for.
    parent: Option<String>,
    /// When it was used; unused ones are live.
    used: Option<Instant>,
    revoked: bool,
    /// Higher for later ones.
    serial: u64,
}

impl Token {
    fn live(&self) -> bool {
        self.used.is_none() && !self.revoked
    }
}

#[derive(Debug)]
struct State {
    config: AuthConfig,
    /// Subjects by session id.
    sessions: HashMap<String, String>,
    tokens: HashMap<String, Token>,
    serial: u64,
}

/// Supabase Auth's tables.
#[derive(Debug)]
pub struct Sessions(Mutex<State>);

/// Which of a user's sessions a sign-out ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Global,
    Local,
    Others,
}

impl Sessions {
    pub fn new(config: AuthConfig) -> Self {
        let (sessions, tokens) = (HashMap::new(), HashMap::new());
        Self(Mutex::new(State { config, sessions, tokens, serial: 0 }))
    }

    /// Changes users and intervals.
    pub fn configure(&self, change: impl FnOnce(&mut AuthConfig)) {
        change(&mut self.0.lock().config);
    }

    /// `grant_type=password`
    pub fn sign_in(&self, email: &str, password: &str, secret: &str) -> Result<Granted, Refusal> {
        let mut state = self.0.lock();
        let is = |user: &&User| user.email.eq_ignore_ascii_case(email) && user.password == password;
        let user = state.config.users.iter().find(is).cloned().ok_or(BAD_LOGIN)?;
        if !user.confirmed {
            return Err(UNCONFIRMED);
        }
        let session = uuid();
        state.sessions.insert(session.clone(), user.sub.clone());
        let token = state.issue(&session, None);
        Ok(state.grant(user, &session, token, secret))
    }

    /// `grant_type=refresh_token`
    pub fn refresh(&self, token: &str, secret: &str) -> Result<Granted, Refusal> {
        let mut state = self.0.lock();
        let known = state.tokens.get(token).ok_or(UNKNOWN)?;
        let session = known.session.clone();
        let (live, used_at, revoked) = (known.live(), known.used, known.revoked);
        let is = |user: &&User| state.sessions.get(&session) == Some(&user.sub);
        let user = state.config.users.iter().find(is).cloned().ok_or(UNKNOWN)?;
        if live {
            let next = state.trade(token, &session);
            return Ok(state.grant(user, &session, next, secret));
        }
        // The client never saw, or never kept, what it got: it gets the same again.
        if let Some(active) = state.active(&session)
            && state.tokens[&active].parent.as_deref() == Some(token)
        {
            return Ok(state.grant(user, &session, active, secret));
        }
        if !revoked && used_at.is_some_and(|at| at.elapsed() <= state.config.reuse_interval) {
            let next = state.trade(token, &session);
            return Ok(state.grant(user, &session, next, secret));
        }
        // Somebody else has it: nothing that came of it is good any more.
        for token in state.tokens.values_mut().filter(|token| token.session == session) {
            token.revoked = true;
        }
        Err(USED)
    }

    /// Ends sessions of the user an access token belongs to.
    pub fn sign_out(&self, access_token: &str, scope: Scope, secret: &str) -> Result<(), Refusal> {
        let claims = jwt::verify(secret, access_token, clock::now_seconds()).map_err(|_| BAD_JWT)?;
        let text = |claims: &Claims, name| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let own = text(&claims, "session_id").unwrap_or_default();
        let mut state = self.0.lock();
        let sub = state.sessions.get(&own).cloned().ok_or(NO_SESSION)?;
        state.end(|session, of| match scope {
            Scope::Global => of == sub,
            Scope::Local => session == own,
            Scope::Others => of == sub && session != own,
        });
        Ok(())
    }

    /// Ends all sessions of a user, as an administrator does.
    pub fn end_all_of(&self, sub: &str) {
        self.0.lock().end(|_, of| of == sub);
    }

    /// Sessions of a user that can still be refreshed.
    pub fn count_of(&self, sub: &str) -> usize {
        let state = self.0.lock();
        let own = state.sessions.iter().filter(|(_, of)| *of == sub);
        own.filter(|(session, _)| state.active(session).is_some()).count()
    }
}

impl State {
    fn issue(&mut self, session: &str, parent: Option<&str>) -> String {
        // Twelve characters, as the real ones.
        let token = hex::encode(&unique()[..6]);
        self.serial += 1;
        let (session, parent) = (session.to_owned(), parent.map(str::to_owned));
        let row = Token { session, parent, used: None, revoked: false, serial: self.serial };
        self.tokens.insert(token.clone(), row);
        token
    }

    /// Uses a token up and issues the next one.
    fn trade(&mut self, token: &str, session: &str) -> String {
        if let Some(used) = self.tokens.get_mut(token) {
            used.used = used.used.or_else(|| Some(Instant::now()));
        }
        self.issue(session, Some(token))
    }

    /// The latest token of a session that was not used.
    fn active(&self, session: &str) -> Option<String> {
        let live = self.tokens.iter().filter(|(_, token)| token.session == session && token.live());
        live.max_by_key(|(_, token)| token.serial).map(|(name, _)| name.clone())
    }

    fn end(&mut self, ends: impl Fn(&str, &str) -> bool) {
        self.sessions.retain(|session, sub| !ends(session, sub));
        let sessions = &self.sessions;
        self.tokens.retain(|_, token| sessions.contains_key(&token.session));
    }

    fn grant(&self, user: User, session: &str, refresh_token: String, secret: &str) -> Granted {
        let lifetime = self.config.token_lifetime;
        let expires_in = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX / 2);
        let now = clock::now_seconds();
        let claims = json!({
            "iss": "http://127.0.0.1/auth/v1", "sub": user.sub, "aud": "authenticated", "role": user.role,
            "email": user.email, "session_id": session, "aal": "aal1", "is_anonymous": false,
            "app_metadata": {"provider": "email", "providers": ["email"]}, "user_metadata": {},
            "iat": now, "exp": now.saturating_add(expires_in),
        });
        Granted {
            access_token: mint_jwt(secret, &claims),
            refresh_token,
            expires_at: now.saturating_add(expires_in),
            expires_in,
            user,
        }
    }
}
