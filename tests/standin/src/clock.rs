//! Timestamps: milliseconds since the epoch inside, four textual forms outside.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::macros::format_description;

/// Milliseconds since 1970, the precision of the real database as S3 shows it.
pub type Millis = i64;

/// Now, as `Millis`.
pub fn now() -> Millis {
    from_system(SystemTime::now())
}

/// Whole seconds since 1970.
pub fn now_seconds() -> i64 {
    now().div_euclid(1000)
}

/// Cut to milliseconds; times before 1970 become 0.
pub fn from_system(time: SystemTime) -> Millis {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

fn civil(millis: Millis) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `2026-11-24T00:10:38.123Z`, as in listings.
pub fn iso(millis: Millis) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    civil(millis).format(format).unwrap_or_default()
}

/// `Tue, 24 Nov 2026 00:10:38 GMT`, as in HTTP headers.
pub fn http(millis: Millis) -> String {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    civil(millis).format(format).unwrap_or_default()
}

/// `Tue Nov 24 2026 00:10:38 GMT+0000 (Coordinated Universal Time)`: JavaScript's text of a date, which
/// the real HEAD sends as `created-at`.
pub fn javascript(millis: Millis) -> String {
    let format = format_description!(
        "[weekday repr:short] [month repr:short] [day] [year] [hour]:[minute]:[second] GMT+0000 (Coordinated Universal Time)"
    );
    civil(millis).format(format).unwrap_or_default()
}

/// An HTTP date, or nothing if it is not one.
pub fn parse_http(text: &str) -> Option<Millis> {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let parsed = time::PrimitiveDateTime::parse(text.trim(), format).ok()?;
    Some(parsed.assume_utc().unix_timestamp() * 1000)
}

/// The basic ISO form of `SigV4`, `20261124T001038Z`.
pub fn parse_amz(text: &str) -> Option<Millis> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let parsed = time::PrimitiveDateTime::parse(text, format).ok()?;
    Some(parsed.assume_utc().unix_timestamp() * 1000)
}
