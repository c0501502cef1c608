//! Faults as the program's command line names them.

use std::str::FromStr;
use std::time::Duration;

use super::{Action, Fault, KeyMatch, Times};

impl FromStr for Fault {
    type Err = String;

    /// `status:503:SlowDown,op=GetObject,key=prefix:videos/,times=2` — first the action (`latency:MS`,
    /// `reset`, `status:N[:CODE]`, `truncate:BYTES`, `etag`, `hang`, `slow:BYTES`, `stall:BYTES:MS`,
    /// `lost`, `late-status:N[:CODE]`, `late-hang`, `reset-body:BYTES`, `stop-reading:BYTES`,
    /// `slow-body:BYTES`, `refusal-lost`), then any of `op=` (repeatable, or `op=writes`), `bucket=`,
    /// `key=[exact:|prefix:|suffix:|contains:|glob:]…`, `part=N`, `after=N`, `times=N`, `every=N`,
    /// `chance=P[:SEED]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let mut fault = Self::new(parse_action(parts.next().unwrap_or_default())?);
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("no `=` in `{part}`"))?;
            match name.trim() {
                "op" if value == "writes" => fault = fault.on_writes(),
                "op" => fault = fault.on(value),
                "bucket" => fault.bucket = Some(value.to_owned()),
                "key" => fault.key = parse_key(value),
                "part" => fault.part = u32::try_from(number(value)?).ok(),
                "every" => fault.times = Times::Every(number(value)?),
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
        Some(("suffix", rest)) => KeyMatch::Suffix(rest.to_owned()),
        Some(("glob", rest)) => KeyMatch::Glob(rest.to_owned()),
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
        ["late-status", status] => Ok(Fault::late_status(status_code(status)?, "InternalError").action),
        ["late-status", status, code] => Ok(Fault::late_status(status_code(status)?, code).action),
        ["late-hang"] => Ok(Action::LateHang),
        ["reset-body", bytes] => Ok(Action::ResetBody(number(bytes)?)),
        ["stop-reading", bytes] => Ok(Action::StopReading(number(bytes)?)),
        ["slow-body", rate] => Ok(Action::SlowBody(number(rate)?)),
        ["refusal-lost"] => Ok(Action::RefusalLost),
        _ => Err(format!("unknown action `{text}`")),
    }
}

fn status_code(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|s| (200..1000).contains(s)).ok_or_else(|| format!("no status: `{text}`"))
}
