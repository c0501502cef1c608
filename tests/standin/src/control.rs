//! Orders to a running stand-in, one JSON document a line, each answered by one: what a program that measures
//! clients needs. `{"do":"stats"}` and the like; the variants of `Order` are all there is.

use std::io::{BufRead, Write};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::log::LogEntry;
use crate::standin::Standin;
use crate::store::synthetic::fill_synthetic;

/// Seeded objects are made of pieces of this many bytes, in memory once.
const FILLER: usize = 64 * 1024 * 1024;

/// Objects up to this size have the MD5 that a PUT gives them.
const SMALL: usize = 1024 * 1024;

/// What can be asked for.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Order {
    /// Makes a bucket, or empties it.
    Reset { bucket: String },
    /// Stores `count` objects of `size` bytes: `{}` in `key` becomes the number, with `digits` digits.
    Seed {
        bucket: String,
        key: String,
        size: u64,
        #[serde(default = "one")]
        count: u64,
        #[serde(default = "one")]
        digits: usize,
    },
    /// Stores an object with these bytes.
    Put { bucket: String, key: String, text: String },
    /// Waits so long before each request from now on.
    Latency { ms: u64 },
    /// As `--hash-rate`; 0 for no delay.
    HashRate { bytes: u64 },
    /// Arms a fault, as `--fault`.
    Fault { spec: String },
    /// Disarms all faults.
    ClearFaults,
    /// Forgets what was counted.
    Clear,
    /// What was counted since.
    Stats,
    /// Sizes by key.
    Objects { bucket: String },
    /// The request log (see `--log-capacity`).
    Log,
}

fn one<N: From<u8>>() -> N {
    N::from(1)
}

/// Obeys until the orders end.
///
/// # Errors
/// If they cannot be read, or answers cannot be written.
pub fn obey(standin: &Standin, orders: impl BufRead, mut answers: impl Write) -> std::io::Result<()> {
    for line in orders.lines() {
        let answer = match serde_json::from_str(&line?) {
            Ok(order) => carry_out(standin, order).unwrap_or_else(|error| json!({ "error": error })),
            Err(error) => json!({"error": error.to_string()}),
        };
        writeln!(answers, "{answer}")?;
        answers.flush()?;
    }
    Ok(())
}

fn carry_out(standin: &Standin, order: Order) -> Result<Value, String> {
    let needs = |bucket: &str| {
        if standin.has_bucket(bucket) { Ok(()) } else { Err(format!("there is no bucket {bucket}")) }
    };
    match order {
        Order::Reset { bucket } => {
            standin.create_bucket(&bucket);
            for key in standin.keys(&bucket) {
                standin.delete(&bucket, &key);
            }
        }
        Order::Seed { bucket, key, size, count, digits } => {
            needs(&bucket)?;
            let pieces = filler_pieces(size);
            for number in 0..count {
                let key = key.replace("{}", &format!("{number:0digits$}"));
                match &pieces[..] {
                    [] => standin.put(&bucket, &key, Bytes::new()),
                    [small] if small.len() <= SMALL => standin.put(&bucket, &key, small.clone()),
                    large => standin.put_pieces(&bucket, &key, large),
                }
            }
        }
        Order::Put { bucket, key, text } => {
            needs(&bucket)?;
            standin.put(&bucket, &key, text);
        }
        Order::Latency { ms } => standin.set_latency(Duration::from_millis(ms)),
        Order::HashRate { bytes } => standin.set_hash_rate(Some(bytes).filter(|rate| *rate > 0)),
        Order::Fault { spec } => {
            standin.fault(spec.parse()?);
        }
        Order::ClearFaults => standin.clear_faults(),
        Order::Clear => standin.clear_log(),
        Order::Stats => return Ok(stats(standin)),
        Order::Objects { bucket } => {
            needs(&bucket)?;
            let keys = standin.keys(&bucket).into_iter();
            let sizes = keys.filter_map(|key| Some((key.clone(), json!(standin.stat(&bucket, &key)?.size))));
            return Ok(json!({ "objects": Value::Object(sizes.collect()) }));
        }
        Order::Log => return Ok(standin.log().iter().map(entry).collect()),
    }
    Ok(json!({}))
}

fn stats(standin: &Standin) -> Value {
    let totals = standin.totals();
    json!({
        "requests": standin.counts(),
        "in_flight": standin.in_flight(),
        "peak": standin.peak_in_flight(),
        "bytes_in": totals.bytes_in,
        "bytes_out": totals.bytes_out,
        "last_change": totals.last_change.map(seconds),
    })
}

fn entry(entry: &LogEntry) -> Value {
    json!({
        "operation": entry.operation, "key": entry.key, "query": entry.query, "range": entry.range,
        "part": entry.part_number, "copy_source": entry.copy_source, "status": entry.status,
        "bytes_in": entry.bytes_in, "bytes_out": entry.bytes_out,
        "started": seconds(entry.started), "took": entry.duration.as_secs_f64(),
    })
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// `size` bytes as slices of the filler: objects of gigabytes cost nothing.
fn filler_pieces(size: u64) -> Vec<Bytes> {
    static SHARED: OnceLock<Bytes> = OnceLock::new();
    let filler = SHARED.get_or_init(|| {
        let mut bytes = BytesMut::zeroed(FILLER);
        fill_synthetic(1, 0, &mut bytes);
        bytes.freeze()
    });
    let mut rest = size;
    let mut pieces = Vec::new();
    while rest > 0 {
        let len = usize::try_from(rest).unwrap_or(FILLER).min(FILLER);
        pieces.push(filler.slice(..len));
        rest -= len as u64;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The answer to each order, in turn.
    fn answers(standin: &Standin, orders: &[Value]) -> Vec<Value> {
        let lines: Vec<String> = orders.iter().map(|order| format!("{order}\n")).collect();
        let mut out = Vec::new();
        obey(standin, lines.concat().as_bytes(), &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn orders_seed_empty_and_show_a_bucket() {
        let standin = Standin::start(Config::default()).unwrap();
        let large = FILLER as u64 + 3;
        let got = answers(
            &standin,
            &[
                json!({"do": "seed", "bucket": "b", "key": "k", "size": 1}),
                json!({"do": "reset", "bucket": "b"}),
                json!({"do": "seed", "bucket": "b", "key": "d/f{}", "count": 2, "digits": 3, "size": 5}),
                json!({"do": "seed", "bucket": "b", "key": "large", "size": large}),
                json!({"do": "put", "bucket": "b", "key": "note", "text": "hello"}),
                json!({"do": "objects", "bucket": "b"}),
                json!({"do": "reset", "bucket": "b"}),
                json!({"do": "objects", "bucket": "b"}),
                json!({"do": "fly"}),
            ],
        );
        assert_eq!(got[0]["error"], "there is no bucket b");
        assert_eq!(got[5], json!({"objects": {"d/f000": 5, "d/f001": 5, "large": large, "note": 5}}));
        assert_eq!(got[7], json!({"objects": {}}));
        assert!(got[8]["error"].as_str().unwrap().contains("fly"), "{}", got[8]);
    }

    #[test]
    fn stats_start_at_nothing_after_a_clear() {
        let standin = Standin::start(Config::default()).unwrap();
        let got = answers(&standin, &[json!({"do": "clear"}), json!({"do": "stats"})]);
        let nothing = json!({"requests": {}, "in_flight": 0, "peak": 0, "bytes_in": 0, "bytes_out": 0,
            "last_change": null});
        assert_eq!(got[1], nothing);
    }
}
