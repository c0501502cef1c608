//! Faults on demand: which requests they hit, how often, and what they do.
//!
//! A test arms them with `Standin::fault`, one builder call per restriction:
//!
//! ```no_run
//! use std::time::Duration;
//! use supafs_standin::{Action, Config, Fault, Standin};
//!
//! let standin = Standin::start(Config::default()).unwrap();
//! // The first two reads below `videos/` are refused.
//! standin.fault(Fault::status(503, "SlowDown").on("GetObject").key_prefix("videos/").times(2));
//! // Every third upload of a part is carried out, but its reply is lost.
//! standin.fault(Fault::reply_lost().on("UploadPart").every(3));
//! // Part 2 of any upload is cut off when 1 MiB has arrived.
//! standin.fault(Fault::new(Action::ResetBody(1 << 20)).on("UploadPart").part(2).times(1));
//! // One write in ten fails, in one of the ways in which writes fail; the same ones for the same seed.
//! for fault in Fault::storm(0.1, 42) {
//!     standin.fault(fault.on_writes());
//! }
//! // The Auth server is down.
//! let down = standin.fault(Fault::new(Action::Reset).on("AuthRefresh"));
//! assert_eq!(standin.fault_hits(down), 0);
//! standin.clear_fault(down);
//! ```
//!
//! Operations go by their S3 names (`PutObject`, `UploadPartCopy`, …); those beside S3 are `MoveObject`,
//! `SignUploadUrl` and `GetBucket` (REST), `AuthPassword`, `AuthRefresh` and `AuthLogout`. Keys are the object's, of a
//! copy the destination's, of a move either one, of a listing its prefix; Auth has none.
//!
//! What becomes of a change depends on the action:
//!
//! | action | the change | the client sees |
//! |---|---|---|
//! | `Status`, `Reset` | is not made | an error; a reset |
//! | `ResetBody`, `StopReading`, `SlowBody` | is not made (`SlowBody`: is) | a reset; nothing; a slow server |
//! | `RefusalLost` | is refused anyway | a reset if it sends the body at once, else the refusal |
//! | `Hang` | is made once the fault is cleared | nothing until then |
//! | `ReplyLost` | **is made** | a reset |
//! | `LateStatus` | **is made** | an error all the same, as from a gateway that timed out |
//! | `LateHang` | **is made** | nothing until the fault is cleared, then the reply |
//! | `Latency` | is made after the wait | a slow server |
//!
//! A client that gives up on a request that hangs does not take it back: what had arrived of it may be
//! carried out when the fault is cleared, as on a real server that was merely slow.
//!
//! Several faults that hit one request act together, in the order in which they were armed. The server
//! asks `Faults::plan` once per request; hanging requests wait for their fault to be cleared.

mod armed;
mod parse;

use std::time::Duration;

pub use armed::Faults;

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
    /// Carries the request out, then answers with an error.
    LateStatus { status: u16, code: String, message: String },
    /// Carries the request out, then does not answer until the fault is cleared or the client goes.
    LateHang,
    /// Resets the connection when so many bytes of the request's body have arrived; does nothing to a
    /// shorter body.
    ResetBody(u64),
    /// Stops reading the request's body after so many bytes until the fault is cleared.
    StopReading(u64),
    /// Takes the request's body at so many bytes per second.
    SlowBody(u64),
    /// Resets the connection under a refusal that is on its way while the client still sends the body, as
    /// the real server's closing of the connection does now and then. A client that waits with the body
    /// reads the refusal.
    RefusalLost,
}

/// Which keys (for listings, prefixes) a fault hits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeyMatch {
    #[default]
    Any,
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    /// `*` stands for anything, slashes included.
    Glob(String),
}

impl KeyMatch {
    fn matches(&self, key: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => key == exact,
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => key.ends_with(suffix.as_str()),
            Self::Contains(part) => key.contains(part.as_str()),
            Self::Glob(glob) => matches_glob(glob, key),
        }
    }
}

fn matches_glob(glob: &str, key: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else { return glob == key };
    let Some(mut key) = key.strip_prefix(first) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return key.ends_with(part);
        }
        let Some(at) = key.find(part) else { return false };
        key = &key[at + part.len()..];
    }
    true
}

/// How often a fault strikes among the requests it matches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Times {
    Forever,
    First(u64),
    /// The nth, the 2nth and so on.
    Every(u64),
    /// Each matching request with this probability, from a seeded generator.
    Chance {
        probability: f64,
        seed: u64,
    },
}

/// The operations that change something.
pub const WRITES: [&str; 10] = [
    "PutObject",
    "CopyObject",
    "DeleteObject",
    "DeleteObjects",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "MoveObject",
];

/// A fault. `Fault::new(action)` hits every request forever; the builders narrow it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub action: Action,
    /// Operation names, e.g. `GetObject`; every operation if there are none.
    pub operations: Vec<String>,
    pub bucket: Option<String>,
    pub key: KeyMatch,
    /// Number of a part of an upload.
    pub part: Option<u32>,
    /// Matching requests let through first.
    pub skip: u64,
    pub times: Times,
}

/// A request, as far as faults tell requests apart.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub operation: &'a str,
    pub bucket: &'a str,
    pub key: &'a str,
    /// Of a move: where the object comes from.
    pub other_key: Option<&'a str>,
    pub part: Option<u32>,
}

fn injected(code: &str) -> String {
    format!("injected {code}")
}

impl Fault {
    #[must_use]
    pub fn new(action: Action) -> Self {
        Self {
            action,
            operations: Vec::new(),
            bucket: None,
            key: KeyMatch::Any,
            part: None,
            skip: 0,
            times: Times::Forever,
        }
    }

    /// An error answer.
    #[must_use]
    pub fn status(status: u16, code: &str) -> Self {
        Self::new(Action::Status { status, code: code.to_owned(), message: injected(code) })
    }

    /// An error answer to a request that was carried out.
    #[must_use]
    pub fn late_status(status: u16, code: &str) -> Self {
        Self::new(Action::LateStatus { status, code: code.to_owned(), message: injected(code) })
    }

    /// No answer to a request that was carried out.
    #[must_use]
    pub fn reply_lost() -> Self {
        Self::new(Action::ReplyLost)
    }

    /// All the ways in which requests fail in passing, which together strike with about this probability:
    /// 500, 503 before and 504 after the change, resets before and after it, half a body, a delay. Narrow
    /// each with `on_writes` or the like.
    #[must_use]
    pub fn storm(probability: f64, seed: u64) -> Vec<Self> {
        let faults = [
            Self::status(500, "InternalError"),
            Self::status(503, "SlowDown"),
            Self::late_status(504, "GatewayTimeout"),
            Self::new(Action::Reset),
            Self::reply_lost(),
            Self::new(Action::ResetBody(1000)),
            Self::new(Action::Latency(Duration::from_millis(50))),
        ];
        #[expect(clippy::cast_precision_loss, reason = "seven")]
        let each = probability / faults.len() as f64;
        (seed..).zip(faults).map(|(seed, fault)| fault.chance(each, seed.wrapping_mul(0x9E37_79B9))).collect()
    }

    /// Hits this operation (call again for more).
    #[must_use]
    pub fn on(mut self, operation: &str) -> Self {
        self.operations.push(operation.to_owned());
        self
    }

    /// Hits every operation that changes something.
    #[must_use]
    pub fn on_writes(mut self) -> Self {
        self.operations.extend(WRITES.map(str::to_owned));
        self
    }

    /// Hits this part of uploads.
    #[must_use]
    pub fn part(mut self, number: u32) -> Self {
        self.part = Some(number);
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

    #[must_use]
    pub fn key_suffix(mut self, suffix: &str) -> Self {
        self.key = KeyMatch::Suffix(suffix.to_owned());
        self
    }

    /// `*` stands for anything, slashes included.
    #[must_use]
    pub fn key_glob(mut self, glob: &str) -> Self {
        self.key = KeyMatch::Glob(glob.to_owned());
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

    /// Strikes every `n`th time.
    #[must_use]
    pub fn every(mut self, n: u64) -> Self {
        self.times = Times::Every(n);
        self
    }

    /// Strikes with a probability of 0 to 1.
    #[must_use]
    pub fn chance(mut self, probability: f64, seed: u64) -> Self {
        self.times = Times::Chance { probability, seed };
        self
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        (self.operations.is_empty() || self.operations.iter().any(|o| o == subject.operation))
            && self.bucket.as_deref().is_none_or(|b| b == subject.bucket)
            && self.part.is_none_or(|part| subject.part == Some(part))
            && (self.key.matches(subject.key) || subject.other_key.is_some_and(|k| self.key.matches(k)))
    }
}

/// Names a fault to clear it or to ask for its hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FaultId(u64);

#[cfg(test)]
mod tests {
    use super::matches_glob;

    #[test]
    fn globs_match_as_shells_do() {
        for (glob, yes, no) in [
            ("a*z", &["az", "abz", "a/b/z"][..], &["a", "z", "azb"][..]),
            ("*.tmp", &[".tmp", "x/y.tmp"], &["tmp", "x.tmp/y"]),
            ("dir/*", &["dir/", "dir/a/b"], &["dir", "adir/"]),
            ("*a*b*", &["ab", "xaxbx"], &["ba", "a"]),
            ("plain", &["plain"], &["plain2"]),
        ] {
            assert!(yes.iter().all(|key| matches_glob(glob, key)), "{glob}");
            assert!(!no.iter().any(|key| matches_glob(glob, key)), "{glob}");
        }
    }
}
