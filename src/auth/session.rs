//! One user's token in force, and its successor.
//!
//! Invariants: a request takes one atomic load of the token in force; at most one renewal runs at a time; a
//! token of another user never comes into force, because caches and inodes belong to the first. From when the source
//! gives one until it gives the first user's again nothing is signed, and whoever serves the user is told.
//!
//! A task renews ahead of expiry. It starts with the first request and lives in that runtime, so that
//! nothing runs before the daemon forks. Locks: `renewing` is held across a renewal, `last` never across
//! an await.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::Session;
use super::diagnosis::{self, Subject};
use super::jwt::{self, Claims};
use super::source::TokenSource;
use crate::identity::{Authority, Identity, Refused, Renewal};
use crate::secret::Secret;

/// Renewals that failed are tried again after a second, then after twice as long each time up to this, or less with a
/// token that lives shortly.
const PAUSE: Duration = Duration::from_secs(30);
/// A failure that stays the same is logged again after this.
const SAY_AGAIN: Duration = Duration::from_mins(5);
/// The wall clock, which may jump while the machine sleeps, and the source are looked at this often at least.
const LOOK: Duration = Duration::from_secs(2);

type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A provider and an [`Authority`] over one [`TokenSource`]. Clones share everything.
#[derive(Clone)]
pub struct SessionCredentials(Arc<Inner>);

struct Inner {
    access_key_id: String,
    api_key: Secret,
    source: Arc<dyn TokenSource>,
    /// Of the token that began the session.
    first: Claims,
    clock: Clock,
    in_force: ArcSwap<InForce>,
    renewing: tokio::sync::Mutex<()>,
    last: Mutex<Last>,
    wake: Arc<Notify>,
    refresher: ArcSwapOption<AbortHandle>,
    /// Second in which the source was last asked whether it changed.
    looked: AtomicU64,
    /// Who the source speaks for instead of the first user.
    stranger: ArcSwapOption<String>,
    estranged: watch::Sender<bool>,
}

struct InForce {
    credentials: Credentials,
    expires: Option<SystemTime>,
    renew_at: Option<SystemTime>,
    lifetime: Duration,
    /// When it took the place of another.
    replaced_at: Option<SystemTime>,
}

/// The last renewal that brought no new token.
#[derive(Default)]
struct Last {
    failed_at: Option<SystemTime>,
    /// In a row.
    failures: u32,
    why: String,
    said_at: Option<SystemTime>,
    said: String,
}

enum Attempt {
    Renewed,
    Failed(String),
}

impl SessionCredentials {
    /// Takes the first token into force.
    ///
    /// # Errors
    /// A token that is no JWT or has expired, with what to do.
    pub fn start(
        session: Session,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let Session { project_ref, api_key, source, token } = session;
        let told =
            |why: String| format!("the session token of {}: {why}; {}", source.describe(), source.remedy());
        let claims = jwt::user_claims(token.expose()).map_err(told)?;
        let now = clock();
        refuse_expired(&claims, now).map_err(told)?;
        let first = in_force(&project_ref, &api_key, &token, &claims, now);
        Ok(Self(Arc::new(Inner {
            access_key_id: project_ref,
            api_key,
            source: Arc::from(source),
            first: claims,
            clock: Arc::new(clock),
            in_force: ArcSwap::from_pointee(first),
            renewing: tokio::sync::Mutex::default(),
            last: Mutex::default(),
            wake: Arc::default(),
            refresher: ArcSwapOption::empty(),
            looked: AtomicU64::new(0),
            stranger: ArcSwapOption::empty(),
            estranged: watch::channel(false).0,
        })))
    }

    /// What the first token says.
    #[must_use]
    pub fn first_claims(&self) -> &Claims {
        &self.0.first
    }

    /// Runs in a task of its own: a renewal that began is not lost with the request that asked for it.
    async fn attempt(&self, seen: Arc<InForce>) -> Attempt {
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move { inner.attempt(&seen).await })
            .await
            .unwrap_or_else(|error| Attempt::Failed(format!("the renewal itself failed: {error}")))
    }

    fn start_refresher(&self) {
        if self.0.refresher.load().as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        // Two first requests may both start one: they share `renewing`, and the loser ends below.
        let task = tokio::spawn(keep_fresh(Arc::downgrade(&self.0), Arc::clone(&self.0.wake))).abort_handle();
        if let Some(other) = self.0.refresher.swap(Some(Arc::new(task))) {
            other.abort();
        }
    }
}

impl ProvideCredentials for SessionCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.start_refresher();
        let inner = &self.0;
        let current = inner.in_force.load();
        let now = (inner.clock)();
        if inner.look_for_change(now) {
            inner.wake.notify_one();
        }
        if let Some(why) = inner.refuses(&current, now) {
            return future::ProvideCredentials::ready(Err(CredentialsError::provider_error(why)));
        }
        if !current.has_expired(now) {
            return future::ProvideCredentials::ready(Ok(current.credentials.clone()));
        }
        let seen = Arc::clone(&current);
        future::ProvideCredentials::new(async move {
            match self.attempt(seen).await {
                Attempt::Renewed => Ok(self.0.in_force.load().credentials.clone()),
                Attempt::Failed(why) => Err(CredentialsError::provider_error(self.0.expired_text(&why))),
            }
        })
    }
}

#[async_trait::async_trait]
impl Authority for SessionCredentials {
    fn identity(&self) -> Identity {
        Identity::User {
            project_ref: self.0.access_key_id.clone(),
            sub: self.0.first.sub.clone(),
            role: self.0.first.role.clone(),
        }
    }

    fn expires_at(&self) -> Option<SystemTime> {
        self.0.in_force.load().expires
    }

    async fn renew(&self, says_expired: bool) -> Renewal {
        let current = self.0.in_force.load_full();
        let now = (self.0.clock)();
        if let Some(why) = self.0.refuses(&current, now) {
            return Renewal::Expired(why);
        }
        // The request that was refused may have been signed just before the token changed.
        let fresh = current.replaced_at.is_some_and(|at| now.duration_since(at).is_ok_and(|age| age < PAUSE));
        if fresh && !current.has_expired(now) {
            return Renewal::Renewed;
        }
        let due = says_expired || current.renew_at.is_some_and(|at| at <= now);
        if !due && !self.0.source.changed() {
            return Renewal::StillValid;
        }
        match self.attempt(Arc::clone(&current)).await {
            Attempt::Renewed => Renewal::Renewed,
            Attempt::Failed(why) if current.has_expired((self.0.clock)()) => {
                Renewal::Expired(self.0.expired_text(&why))
            }
            Attempt::Failed(_) => Renewal::StillValid,
        }
    }

    fn estranged(&self) -> Option<watch::Receiver<bool>> {
        // A session may have begun without a runtime to look at its source in.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.start_refresher();
        }
        Some(self.0.estranged.subscribe())
    }

    fn explain(&self, refusal: &Refused<'_>) -> String {
        let subject = Subject {
            claims: &self.0.first,
            project_ref: &self.0.access_key_id,
            source: &self.0.source.describe(),
            expires: self.expires_at(),
            now: (self.0.clock)(),
        };
        diagnosis::of_token(&subject, refusal)
    }
}

impl fmt::Debug for SessionCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCredentials")
            .field("source", &self.0.source.describe())
            .field("user", &self.0.first.who())
            .finish_non_exhaustive()
    }
}

impl InForce {
    fn has_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// How long to leave a source alone that gave nothing new so many times.
    fn pause(&self, failures: u32) -> Duration {
        let longest = (self.lifetime / 20).clamp(Duration::from_secs(1), PAUSE);
        Duration::from_secs(1 << failures.saturating_sub(1).min(5)).min(longest)
    }
}

impl Inner {
    /// At most once a second: the look is a system call.
    fn look_for_change(&self, now: SystemTime) -> bool {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.looked.swap(second, Ordering::Relaxed) != second && self.source.changed()
    }

    /// Why nothing may be signed now, where that is known without a question to the source: an expired token fails at
    /// once while its source is known to give no new one. The refresher goes on asking.
    fn refuses(&self, current: &InForce, now: SystemTime) -> Option<String> {
        if let Some(stranger) = &*self.stranger.load() {
            return Some(self.estranged_text(stranger));
        }
        if !current.has_expired(now) {
            return None;
        }
        let why = {
            let last = self.last.lock();
            last.failed_at.map(|_| last.why.clone())?
        };
        if self.source.changed() { None } else { Some(self.expired_text(&why)) }
    }

    /// One renewal, shared by all who wait for it. `seen` is the token that the caller found wanting.
    async fn attempt(&self, seen: &Arc<InForce>) -> Attempt {
        let _one = self.renewing.lock().await;
        if !Arc::ptr_eq(&self.in_force.load(), seen) {
            return Attempt::Renewed;
        }
        let began = (self.clock)();
        if !self.wait_before_attempt(seen, began).is_zero() {
            return Attempt::Failed(self.last.lock().why.clone());
        }
        let source = Arc::clone(&self.source);
        let loaded = tokio::task::spawn_blocking(move || source.load())
            .await
            .unwrap_or_else(|error| Err(format!("reading the token failed: {error}")));
        match loaded.and_then(|token| self.adopt(&token, seen)) {
            Ok(()) => {
                *self.last.lock() = Last::default();
                Attempt::Renewed
            }
            Err(why) => {
                self.failed(&why, seen);
                Attempt::Failed(why)
            }
        }
    }

    /// How long a source that gave nothing new is still left alone.
    fn wait_before_attempt(&self, current: &InForce, now: SystemTime) -> Duration {
        let (failed_at, failures) = match &*self.last.lock() {
            Last { failed_at: Some(at), failures, .. } => (*at, *failures),
            Last { failed_at: None, .. } => return Duration::ZERO,
        };
        let pause = if self.source.changed() { Duration::from_secs(1) } else { current.pause(failures) };
        // A clock that was set back must not stretch the pause.
        now.duration_since(failed_at).map_or(Duration::ZERO, |age| pause.saturating_sub(age))
    }

    fn adopt(&self, token: &Secret, current: &InForce) -> Result<(), String> {
        let claims = jwt::user_claims(token.expose())?;
        let now = (self.clock)();
        if !claims.is_same_user(&self.first) {
            let who = claims.who();
            let why = self.estranged_text(&who);
            self.stranger.store(Some(Arc::new(who)));
            self.estranged.send_replace(true);
            return Err(why);
        }
        let was_estranged = self.stranger.load().is_some();
        if let Some(stranger) = self.stranger.swap(None) {
            tracing::info!(%stranger, "the source gives tokens of {} again", self.first.who());
            self.estranged.send_replace(false);
        }
        refuse_expired(&claims, now)?;
        if current.credentials.session_token() == Some(token.expose()) && was_estranged {
            return Ok(());
        }
        if current.credentials.session_token() == Some(token.expose()) {
            return Err("it still gives the same token".to_owned());
        }
        let mut next = in_force(&self.access_key_id, &self.api_key, token, &claims, now);
        next.replaced_at = Some(now);
        tracing::info!(expires = next.expires.map(rfc3339), "the session token was renewed");
        self.in_force.store(Arc::new(next));
        self.wake.notify_one();
        Ok(())
    }

    fn failed(&self, why: &str, current: &InForce) {
        let now = (self.clock)();
        let over = current.has_expired(now);
        let mut last = self.last.lock();
        last.failed_at = Some(now);
        last.failures = last.failures.saturating_add(1);
        why.clone_into(&mut last.why);
        let said = format!("{over} {why}");
        let recently = last.said_at.is_some_and(|at| now.duration_since(at).is_ok_and(|age| age < SAY_AGAIN));
        if recently && said == last.said {
            return;
        }
        last.said_at = Some(now);
        last.said = said;
        drop(last);
        let (source, remedy) = (self.source.describe(), self.source.remedy());
        if self.stranger.load().is_some() && why.starts_with(&source) {
            tracing::error!("{why}");
        } else if self.stranger.load().is_some() {
            tracing::error!("{source}: {why}");
        } else if over {
            tracing::error!("{}", self.expired_text(why));
        } else {
            let expires = current.expires.map_or_else(|| "never".to_owned(), rfc3339);
            tracing::warn!("{source}: {why}; the token in force expires at {expires}: {remedy}");
        }
    }

    fn estranged_text(&self, stranger: &str) -> String {
        format!(
            "{} now gives a token of {stranger}, but this is a session of {}: nothing is shown or uploaded until it \
             gives theirs again; to work as {stranger}, unmount and mount again",
            self.source.describe(),
            self.first.who()
        )
    }

    fn expired_text(&self, why: &str) -> String {
        let at = self.in_force.load().expires.map(rfc3339).unwrap_or_default();
        format!(
            "the session token expired at {at} and {} gives no new one ({why}): {}",
            self.source.describe(),
            self.source.remedy()
        )
    }

    /// How long until something is to be done; `None` means until woken.
    fn due(&self, current: &InForce, now: SystemTime) -> Option<Duration> {
        let at = if self.source.changed() { now } else { current.renew_at? };
        let ahead = at.duration_since(now).unwrap_or(Duration::ZERO);
        Some(ahead.max(self.wait_before_attempt(current, now)))
    }
}

/// Renews ahead of expiry, for as long as the credentials are in use.
async fn keep_fresh(inner: Weak<Inner>, wake: Arc<Notify>) {
    loop {
        let due = {
            let Some(inner) = inner.upgrade() else { return };
            let current = inner.in_force.load_full();
            let due = inner.due(&current, (inner.clock)());
            if due == Some(Duration::ZERO) {
                // What it came to is in the log, and asked for again by whoever needs it.
                inner.attempt(&current).await;
                continue;
            }
            due
        };
        // Not less than a moment: the wall clock and the timer round differently.
        let nap = due.unwrap_or(LOOK).clamp(Duration::from_millis(10), LOOK);
        tokio::select! {
            () = wake.notified() => {}
            () = tokio::time::sleep(nap) => {}
        }
    }
}

fn in_force(
    access_key_id: &str,
    api_key: &Secret,
    token: &Secret,
    claims: &Claims,
    now: SystemTime,
) -> InForce {
    InForce {
        credentials: Credentials::new(
            access_key_id,
            api_key.expose(),
            Some(token.expose().to_owned()),
            None,
            "supafs-session",
        ),
        expires: claims.expires,
        renew_at: claims.renewal(now),
        lifetime: claims.lifetime(now),
        replaced_at: None,
    }
}

fn refuse_expired(claims: &Claims, now: SystemTime) -> Result<(), String> {
    match claims.expires {
        Some(at) if at <= now => Err(format!("it expired at {}", rfc3339(at))),
        _ => Ok(()),
    }
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests;
