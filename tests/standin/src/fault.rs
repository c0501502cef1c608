//! Faults on demand: which requests they hit, how often, and what they do. The server asks `Faults::plan`
//! once per request; hanging requests wait for the fault to be cleared.

use std::str::FromStr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

/// What happens to a request that a fault hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Waits before the request is looked at.
    Latency(Duration),
    /// Resets the connection instead of answering.
    Reset,
    /// Answers with an error.
    Status { status: u16, code: String, message: String },
    /// Announces the full length, closes the connection after so many body bytes.
    Truncate(u64),
    /// A GET answers with the `ETag` of another version.
    OtherEtag,
    /// Does not answer until the fault is cleared or the client goes.
    Hang,
    /// Sends the body at so many bytes per second.
    Slow(u64),
    /// Stops for a while after so many body bytes.
    Stall { after: u64, pause: Duration },
    /// Carries the request out, then resets the connection instead of answering.
    ReplyLost,
}

/// Which keys (for listings, prefixes) a fault hits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeyMatch {
    #[default]
    Any,
    Exact(String),
    Prefix(String),
    Contains(String),
}

/// How often a fault strikes among the requests it matches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Times {
    Forever,
    First(u64),
    /// Each matching request with this probability, from a seeded generator.
    Chance {
        probability: f64,
        seed: u64,
    },
}

/// A fault. `Fault::new(action)` hits every request forever; the builders narrow it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub action: Action,
    /// S3 operation name, e.g. `GetObject`; every operation if absent.
    pub operation: Option<String>,
    pub bucket: Option<String>,
    pub key: KeyMatch,
    /// Matching requests let through first.
    pub skip: u64,
    pub times: Times,
}

impl Fault {
    #[must_use]
    pub fn new(action: Action) -> Self {
        Self { action, operation: None, bucket: None, key: KeyMatch::Any, skip: 0, times: Times::Forever }
    }

    /// An error answer with the message the code usually has.
    #[must_use]
    pub fn status(status: u16, code: &str) -> Self {
        let message = format!("injected {code}");
        Self::new(Action::Status { status, code: code.to_owned(), message })
    }

    #[must_use]
    pub fn on(mut self, operation: &str) -> Self {
        self.operation = Some(operation.to_owned());
        self
    }

    #[must_use]
    pub fn bucket(mut self, bucket: &str) -> Self {
        self.bucket = Some(bucket.to_owned());
        self
    }

    #[must_use]
    pub fn key(mut self, key: &str) -> Self {
        self.key = KeyMatch::Exact(key.to_owned());
        self
    }

    #[must_use]
    pub fn key_prefix(mut self, prefix: &str) -> Self {
        self.key = KeyMatch::Prefix(prefix.to_owned());
        self
    }

    #[must_use]
    pub fn key_contains(mut self, part: &str) -> Self {
        self.key = KeyMatch::Contains(part.to_owned());
        self
    }

    /// Lets the first `n` matching requests through.
    #[must_use]
    pub fn after(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }

    /// Strikes `n` times only.
    #[must_use]
    pub fn times(mut self, n: u64) -> Self {
        self.times = Times::First(n);
        self
    }

    /// Strikes with a probability of 0 to 1.
    #[must_use]
    pub fn chance(mut self, probability: f64, seed: u64) -> Self {
        self.times = Times::Chance { probability, seed };
        self
    }

    fn matches(&self, operation: &str, bucket: &str, key: &str) -> bool {
        self.operation.as_deref().is_none_or(|o| o == operation)
            && self.bucket.as_deref().is_none_or(|b| b == bucket)
            && match &self.key {
                KeyMatch::Any => true,
                KeyMatch::Exact(exact) => key == exact,
                KeyMatch::Prefix(prefix) => key.starts_with(prefix.as_str()),
                KeyMatch::Contains(part) => key.contains(part.as_str()),
            }
    }
}

/// Names a fault to clear it or to ask for its hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FaultId(u64);

#[derive(Debug)]
struct Armed {
    id: FaultId,
    fault: Fault,
    seen: u64,
    struck: u64,
    random: u64,
}

impl Armed {
    fn strikes(&mut self) -> bool {
        self.seen += 1;
        if self.seen <= self.fault.skip {
            return false;
        }
        let strike = match self.fault.times {
            Times::Forever => true,
            Times::First(n) => self.struck < n,
            Times::Chance { probability, .. } => self.uniform() < probability,
        };
        self.struck += u64::from(strike);
        strike
    }

    /// A number in 0..1 from a xorshift generator: reproducible, and no crate.
    fn uniform(&mut self) -> f64 {
        let mut x = self.random;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random = x;
        #[expect(clippy::cast_precision_loss, reason = "53 bits are all a f64 holds")]
        let fraction = (x >> 11) as f64 / (1_u64 << 53) as f64;
        fraction
    }
}

/// The faults of one stand-in.
#[derive(Debug)]
pub struct Faults {
    armed: Mutex<(u64, Vec<Armed>)>,
    changed: watch::Sender<()>,
}

impl Faults {
    pub fn new() -> Self {
        Self { armed: Mutex::default(), changed: watch::Sender::new(()) }
    }

    pub fn add(&self, fault: Fault) -> FaultId {
        let seed = match fault.times {
            Times::Chance { seed, .. } => seed,
            _ => 0,
        };
        let mut armed = self.armed.lock();
        armed.0 += 1;
        let id = FaultId(armed.0);
        // Xorshift must not start at 0, and small seeds must not start alike.
        let random = (seed ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xD6E8_FEB8_6659_FD93) | 1;
        armed.1.push(Armed { id, fault, seen: 0, struck: 0, random });
        id
    }

    pub fn clear(&self, only: Option<FaultId>) {
        self.armed.lock().1.retain(|a| only.is_some_and(|id| id != a.id));
        self.changed.send_replace(());
    }

    /// How often a fault has struck; 0 once it is cleared.
    pub fn hits(&self, id: FaultId) -> u64 {
        self.armed.lock().1.iter().find(|a| a.id == id).map_or(0, |a| a.struck)
    }

    /// The actions for one request, in the order the faults were added.
    pub fn plan(&self, operation: &str, bucket: &str, key: &str) -> Vec<(FaultId, Action)> {
        let mut armed = self.armed.lock();
        let mut plan = Vec::new();
        for fault in &mut armed.1 {
            if fault.fault.matches(operation, bucket, key) && fault.strikes() {
                plan.push((fault.id, fault.fault.action.clone()));
            }
        }
        plan
    }

    /// Waits until the fault is cleared.
    pub async fn cleared(&self, id: FaultId) {
        let mut changed = self.changed.subscribe();
        while self.armed.lock().1.iter().any(|a| a.id == id) {
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    /// `status:503:SlowDown,op=GetObject,key=prefix:videos/,times=2` — first the action (`latency:MS`,
    /// `reset`, `status:N[:CODE]`, `truncate:BYTES`, `etag`, `hang`, `slow:BYTES`, `stall:BYTES:MS`,
    /// `lost`), then any of `op=`, `bucket=`, `key=[exact:|prefix:|contains:]…`, `after=N`, `times=N`,
    /// `chance=P[:SEED]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let mut fault = Self::new(parse_action(parts.next().unwrap_or_default())?);
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("no `=` in `{part}`"))?;
            match name.trim() {
                "op" => fault.operation = Some(value.to_owned()),
                "bucket" => fault.bucket = Some(value.to_owned()),
                "key" => fault.key = parse_key(value),
                "after" => fault.skip = number(value)?,
                "times" => fault.times = Times::First(number(value)?),
                "chance" => {
                    let (chance, seed) = value.split_once(':').unwrap_or((value, "1"));
                    let probability = chance.parse().map_err(|_| format!("no chance: `{chance}`"))?;
                    fault.times = Times::Chance { probability, seed: number(seed)? };
                }
                other => return Err(format!("unknown `{other}`")),
            }
        }
        Ok(fault)
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("not a number: `{text}`"))
}

fn parse_key(text: &str) -> KeyMatch {
    match text.split_once(':') {
        Some(("prefix", rest)) => KeyMatch::Prefix(rest.to_owned()),
        Some(("contains", rest)) => KeyMatch::Contains(rest.to_owned()),
        Some(("exact", rest)) => KeyMatch::Exact(rest.to_owned()),
        _ => KeyMatch::Exact(text.to_owned()),
    }
}

fn parse_action(text: &str) -> Result<Action, String> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        ["latency", ms] => Ok(Action::Latency(Duration::from_millis(number(ms)?))),
        ["reset"] => Ok(Action::Reset),
        ["status", status] => Ok(Fault::status(status_code(status)?, "InternalError").action),
        ["status", status, code] => Ok(Fault::status(status_code(status)?, code).action),
        ["truncate", bytes] => Ok(Action::Truncate(number(bytes)?)),
        ["etag"] => Ok(Action::OtherEtag),
        ["hang"] => Ok(Action::Hang),
        ["slow", rate] => Ok(Action::Slow(number(rate)?)),
        ["stall", after, ms] => {
            Ok(Action::Stall { after: number(after)?, pause: Duration::from_millis(number(ms)?) })
        }
        ["lost"] => Ok(Action::ReplyLost),
        _ => Err(format!("unknown action `{text}`")),
    }
}

fn status_code(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|s| (200..1000).contains(s)).ok_or_else(|| format!("no status: `{text}`"))
}
