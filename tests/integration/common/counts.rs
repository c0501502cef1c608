//! How many requests something cost: from the stand-in's log, or from the daemon's own counters.

use std::ops::Sub;

/// Requests by operation, and the body bytes of GETs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub list: u64,
    pub get: u64,
    pub head: u64,
    pub list_buckets: u64,
    /// Body bytes that GETs brought.
    pub bytes: u64,
}

impl Counts {
    /// No request at all.
    pub const NONE: Self = Self { list: 0, get: 0, head: 0, list_buckets: 0, bytes: 0 };

    pub fn total(&self) -> u64 {
        self.list + self.get + self.head + self.list_buckets
    }

    pub fn of_log<'a>(entries: impl IntoIterator<Item = &'a supafs_standin::LogEntry>) -> Self {
        let mut counts = Self::default();
        for entry in entries {
            match entry.operation {
                "ListObjectsV2" => counts.list += 1,
                "GetObject" => {
                    counts.get += 1;
                    counts.bytes += entry.bytes_out;
                }
                "HeadObject" => counts.head += 1,
                "ListBuckets" => counts.list_buckets += 1,
                other => panic!("the daemon sent {other}"),
            }
        }
        counts
    }

    pub fn of_status(status: &serde_json::Value) -> Self {
        let request = |name: &str| status["requests"][name].as_u64().expect("a counter");
        Self {
            list: request("ListObjectsV2"),
            get: request("GetObject"),
            head: request("HeadObject"),
            list_buckets: request("ListBuckets"),
            bytes: status["bytes_received"].as_u64().expect("a counter"),
        }
    }
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            list: self.list - before.list,
            get: self.get - before.get,
            head: self.head - before.head,
            list_buckets: self.list_buckets - before.list_buckets,
            bytes: self.bytes - before.bytes,
        }
    }
}
