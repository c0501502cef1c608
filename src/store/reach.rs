//! One plain request without a signature: whether the endpoint can be reached, what answers there, and what
//! time it has.

use std::time::{Duration, SystemTime};

use crate::http::{self, NoAnswer, Request};

/// What answered.
#[derive(Debug, Clone)]
pub struct Reached {
    pub status: u16,
    /// The server's clock when it answered, in whole seconds.
    pub date: Option<SystemTime>,
    pub round_trip: Duration,
    /// Whether the answer is an S3 error document, as an unsigned request should get.
    pub speaks_s3: bool,
}

/// Sends `GET <endpoint>` and waits for the answer's head for `patience` at most.
///
/// # Errors
/// Why there was no answer: name resolution, connection, TLS, time-out.
pub async fn reach(endpoint: &str, patience: Duration) -> Result<Reached, NoAnswer> {
    let request = Request { method: "GET", url: endpoint, headers: &[], body: None };
    let answer = http::send(request, patience).await?;
    let text = answer.body.expose();
    Ok(Reached {
        status: answer.status,
        date: answer.date,
        round_trip: answer.round_trip,
        speaks_s3: text.contains("<Error") && text.contains("<Code>"),
    })
}
