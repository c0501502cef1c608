//! Signed-in users as sources of tokens: a session that is kept under a name, or one that lives with the process.
//!
//! Refresh tokens are good for one use. So a new one is kept before its access token is used, and a kept session
//! is refreshed under its lock by one process at a time, which first looks whether another one did it already.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::gotrue::{Auth, Grant, Refusal, RefusalKind};
use super::jwt;
use super::session_store::{Kept, Locked, SessionFile};
use super::source::TokenSource;
use crate::private_file::Stamp;
use crate::secret::Secret;

/// An answer that was lost on its way is asked for again at once: Auth takes the parent of the live token once more. One
/// that did not come for longer than this is given up: somebody may be waiting.
const SOON: Duration = Duration::from_secs(2);
/// What Auth asks for in a `Retry-After` is granted up to this.
const LONGEST_REST: Duration = Duration::from_mins(1);

/// A session of `supafs login`.
#[derive(Debug)]
pub struct KeptSession {
    file: SessionFile,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was seen of the file when the token in use was read.
    stamp: Option<Stamp>,
    /// The refresh token beside the access token given last: access tokens of one second are the same.
    given: Option<Secret>,
    restraint: Restraint,
}

/// What earlier refusals forbid: to ask again with a refresh token that Auth will never take, or too soon.
#[derive(Debug, Default)]
struct Restraint {
    ended: Option<(Secret, String)>,
    rest: Option<(Instant, String)>,
}

impl Restraint {
    /// Asks Auth, unless that is known to be in vain.
    fn refresh(&mut self, auth: &Auth, token: &Secret) -> Result<Grant, String> {
        if let Some((_, words)) = self.ended.as_ref().filter(|(ended, _)| ended == token) {
            return Err(words.clone());
        }
        if let Some((_, words)) = self.rest.as_ref().filter(|(until, _)| *until > Instant::now()) {
            return Err(words.clone());
        }
        refresh(auth, token).map_err(|refusal| {
            if matches!(refusal.kind, RefusalKind::Ended | RefusalKind::BadLogin) {
                self.ended = Some((token.clone(), refusal.message.clone()));
            }
            let rest = refusal.retry_after.map(|rest| Instant::now() + rest.min(LONGEST_REST));
            self.rest = rest.map(|until| (until, refusal.message.clone()));
            refusal.message
        })
    }
}

impl State {
    fn gives(&mut self, kept: &Kept) -> Secret {
        self.given = Some(kept.refresh_token.clone());
        kept.access_token.clone()
    }
}

impl KeptSession {
    #[must_use]
    pub fn new(file: SessionFile) -> Self {
        Self { file, state: Mutex::default() }
    }

    /// Refreshes under the lock, unless another process has put a token there meanwhile.
    fn renew(&self, state: &mut State) -> Result<Secret, String> {
        let lock = self.file.lock()?;
        let kept = lock.read()?;
        state.stamp = lock.stamp();
        let is_new = state.given.as_ref() != Some(&kept.refresh_token);
        if is_new && is_fresh(&kept.access_token) {
            return Ok(state.gives(&kept));
        }
        let grant = state.restraint.refresh(&kept.auth(), &kept.refresh_token)?;
        let kept = keep(&lock, kept, grant)?;
        state.stamp = lock.stamp();
        Ok(state.gives(&kept))
    }
}

/// The new tokens come into the file before anybody uses them. Where that fails the old ones stay: Auth takes the
/// parent of a token that was never used.
fn keep(lock: &Locked<'_>, kept: Kept, grant: Grant) -> Result<Kept, String> {
    let next = Kept {
        access_token: grant.access_token,
        refresh_token: grant.refresh_token,
        email: grant.email.or(kept.email),
        ..kept
    };
    lock.write(&next)?;
    Ok(next)
}

/// Whether a token need not be renewed yet.
fn is_fresh(token: &Secret) -> bool {
    let now = SystemTime::now();
    jwt::decode(token.expose()).is_some_and(|claims| claims.renewal(now).is_none_or(|at| at > now))
}

fn refresh(auth: &Auth, token: &Secret) -> Result<Grant, Refusal> {
    let began = Instant::now();
    match auth.refresh(token) {
        Err(refusal) if refusal.kind == RefusalKind::Away && began.elapsed() < SOON => auth.refresh(token),
        result => result,
    }
}

impl TokenSource for KeptSession {
    fn describe(&self) -> String {
        format!("the session {:?} of `supafs login`", self.file.name())
    }

    fn load(&self) -> Result<Secret, String> {
        self.renew(&mut self.state.lock())
    }

    fn changed(&self) -> bool {
        // Not waited for: while a refresh is under way there is nothing new to see.
        let Some(state) = self.state.try_lock() else { return false };
        let now = self.file.stamp();
        now.is_some() && now != state.stamp
    }

    fn remedy(&self) -> String {
        format!("if it stays so, sign in again: supafs login --name {:?}", self.file.name())
    }

    fn renewal(&self) -> String {
        "with its refresh token, ahead of expiry; new ones are kept".to_owned()
    }
}

/// A session that nobody else has, in memory: `mount --email`.
#[derive(Debug)]
pub struct OwnSession {
    auth: Auth,
    email: String,
    state: Mutex<OwnState>,
}

#[derive(Debug)]
struct OwnState {
    refresh_token: Secret,
    /// The token of the sign-in, until it is asked for.
    first: Option<Secret>,
    restraint: Restraint,
}

impl OwnSession {
    /// Signs in.
    ///
    /// # Errors
    /// What Auth says, with what to do.
    pub fn sign_in(auth: Auth, email: &str, password: &Secret) -> Result<Self, Refusal> {
        let Grant { access_token, refresh_token, .. } = auth.sign_in(email, password)?;
        let state = OwnState { refresh_token, first: Some(access_token), restraint: Restraint::default() };
        Ok(Self { auth, email: email.to_owned(), state: Mutex::new(state) })
    }
}

impl TokenSource for OwnSession {
    fn describe(&self) -> String {
        format!("the sign-in of {}", self.email)
    }

    fn load(&self) -> Result<Secret, String> {
        let mut state = self.state.lock();
        if let Some(token) = state.first.take() {
            return Ok(token);
        }
        let OwnState { refresh_token, restraint, .. } = &mut *state;
        let grant = restraint.refresh(&self.auth, refresh_token)?;
        *refresh_token = grant.refresh_token;
        Ok(grant.access_token)
    }

    fn remedy(&self) -> String {
        "if it stays so, unmount and mount again, which signs in anew".to_owned()
    }

    fn renewal(&self) -> String {
        "with its refresh token, ahead of expiry; it is kept in memory only".to_owned()
    }
}

#[cfg(test)]
mod tests;
