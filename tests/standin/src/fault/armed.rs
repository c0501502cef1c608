//! The faults that are armed, and which of them strike a request. Lock rank: leaf.

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Action, Fault, FaultId, Subject, Times};

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
            Times::Every(n) => (self.seen - self.fault.skip).is_multiple_of(n.max(1)),
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
    pub fn plan(&self, subject: &Subject<'_>) -> Vec<(FaultId, Action)> {
        let mut armed = self.armed.lock();
        let mut plan = Vec::new();
        for fault in &mut armed.1 {
            if fault.fault.matches(subject) && fault.strikes() {
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
