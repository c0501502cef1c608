//! How long changes are gathered before they are sent.

use std::sync::Arc;
use std::time::Duration;

use crate::store::ObjectStore;

/// Where the server is far, what is joined saves time; where it is near, waiting costs more than a request.
const LEAST: Duration = Duration::from_millis(5);
const MOST: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Clone)]
pub enum Delay {
    Fixed(Duration),
    /// Two and a half round trips to this store.
    Measured(Arc<dyn ObjectStore>),
}

impl Delay {
    #[must_use]
    pub fn now(&self) -> Duration {
        match self {
            Self::Fixed(delay) => *delay,
            Self::Measured(store) => of_round_trip(store.round_trip()),
        }
    }
}

fn of_round_trip(round_trip: Duration) -> Duration {
    // Zero: none was seen yet.
    if round_trip.is_zero() { MOST } else { (round_trip * 5 / 2).clamp(LEAST, MOST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_follows_the_round_trip() {
        let millis = |of: u64| of_round_trip(Duration::from_millis(of)).as_millis();
        assert_eq!([0, 1, 10, 20, 100].map(millis), [50, 5, 25, 50, 50]);
    }
}
