//! What an operation costs, whatever it is: requests by their S3 name.

use std::collections::BTreeMap;
use std::ops::Sub;

use super::backend::Backend;
use super::mount::Mount;
use super::tools::eventually;

/// Requests by operation; those that were not sent are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ops(BTreeMap<String, u64>);

impl Ops {
    pub fn of<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        Self(counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect())
    }

    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl Sub for Ops {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let spent = self.0.into_iter().map(|(name, count)| {
            let since = count - before.get(&name);
            (name, since)
        });
        Self(spent.filter(|(_, count)| *count > 0).collect())
    }
}

/// Requests of a mount so far, with nothing in flight: by the stand-in's log, or by the daemon's own counters.
pub fn ops(backend: &Backend, mount: &Mount) -> Ops {
    eventually("no request in flight", || {
        let status = mount.status();
        (status["requests_in_flight"] == 0).then(|| {
            if !backend.is_real() {
                return Ops(backend.standin().counts());
            }
            let requests = status["requests"].as_object().expect("counters");
            let counted =
                requests.iter().map(|(name, count)| (name.clone(), count.as_u64().expect("a number")));
            Ops(counted.filter(|(_, count)| *count > 0).collect())
        })
    })
}

/// What `work` costs.
pub fn spent(backend: &Backend, mount: &Mount, work: impl FnOnce()) -> Ops {
    let before = ops(backend, mount);
    work();
    ops(backend, mount) - before
}
