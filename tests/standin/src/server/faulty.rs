//! What the faults that hit a request do to it: before it is carried out, to its body, and to its answer.

use super::body::Shape;
use super::input::Obstacle;
use super::reply::Reply;
use super::target::Target;
use super::{ConnectionReset, Shared, refusal};
use crate::error::S3Error;
use crate::fault::{Action, FaultId, Subject};

/// The faults of one request, in the order in which they were armed.
pub struct Plan(Vec<(FaultId, Action)>);

impl Plan {
    /// The faults that strike this request.
    pub fn of(shared: &Shared, target: &Target, part: Option<u32>) -> Self {
        let subject = Subject {
            operation: target.op.name(),
            bucket: &target.bucket,
            key: target.subject(),
            other_key: target.source.as_ref().map(|(_, key)| key.as_str()),
            part,
        };
        Self(shared.faults.plan(&subject))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What happens before the request is looked at: a refusal, if one of the faults is one.
    pub async fn before(&self, shared: &Shared, target: &Target) -> Result<Option<Reply>, ConnectionReset> {
        let mut refused = None;
        for (id, action) in &self.0 {
            match action {
                Action::Latency(pause) => tokio::time::sleep(*pause).await,
                Action::Hang => shared.faults.cleared(*id).await,
                Action::Reset => return Err(ConnectionReset),
                Action::Status { status, code, message } => {
                    refused = Some(refusal(target, &S3Error::new(*status, code.clone(), message.clone())));
                }
                _ => {}
            }
        }
        Ok(refused)
    }

    /// What is in the way of the request's body.
    pub fn obstacle(&self) -> Obstacle {
        let mut obstacle = Obstacle::default();
        for (id, action) in &self.0 {
            match action {
                Action::ResetBody(after) => obstacle.reset_after = Some(*after),
                Action::StopReading(after) => obstacle.stop_after = Some((*after, *id)),
                Action::SlowBody(rate) => obstacle.rate = Some(*rate),
                Action::RefusalLost => obstacle.loses_refusal = true,
                _ => {}
            }
        }
        obstacle
    }

    /// What happens once the request was carried out.
    pub async fn after(
        &self,
        shared: &Shared,
        target: &Target,
        mut reply: Reply,
    ) -> Result<Reply, ConnectionReset> {
        for (id, action) in &self.0 {
            match action {
                Action::ReplyLost => return Err(ConnectionReset),
                Action::LateHang => shared.faults.cleared(*id).await,
                Action::LateStatus { status, code, message } => {
                    reply = refusal(target, &S3Error::new(*status, code.clone(), message.clone()));
                }
                _ => {}
            }
        }
        Ok(reply)
    }

    /// What is done to the answer and its body.
    pub fn shape(self, method: &http::Method, reply: &mut Reply) -> Shape {
        let mut shape = Shape::default();
        let carries_body = method != http::Method::HEAD && reply.body.length() > 0;
        for (_, action) in self.0 {
            match action {
                Action::Truncate(after) if carries_body => {
                    shape.truncate = Some(after).filter(|a| *a < reply.body.length());
                }
                Action::Slow(rate) => shape.rate = Some(rate),
                Action::Stall { after, pause } => shape.stall = Some((after, pause)),
                Action::OtherEtag if method == http::Method::GET => {
                    if let Some(etag) = reply.get("etag").map(other_etag) {
                        reply.push("etag", &etag);
                    }
                }
                _ => {}
            }
        }
        shape
    }
}

/// A well-formed `ETag` of no version there ever was.
fn other_etag(etag: &str) -> String {
    etag.chars().map(|c| c.to_digit(16).map_or(c, |d| char::from_digit(15 - d, 16).unwrap_or(c))).collect()
}
