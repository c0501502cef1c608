//! The HTTP side: accepts connections, takes a request through log, latency, faults, authentication and
//! its operation, and shapes the answer.

pub mod body;
mod bucket;
mod conn;
mod copy;
mod delete;
mod get;
mod input;
mod listing;
mod put;
pub mod reply;
pub mod target;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::RwLock;
use serde_json::json;

use crate::auth::sigv4::{KeyCache, Signed, header};
use crate::auth::{Identity, authenticate};
use crate::config::Credentials;
use crate::error::{S3Error, S3Result};
use crate::fault::{Action, Faults};
use crate::log::{Arrival, InFlight, RequestLog};
use crate::store::Store;
use crate::xml::Document;
use body::{ReplyBody, Shape};
pub use conn::serve;
use input::Input;
use reply::Reply;
use target::{BadTarget, Op, Target};

/// Everything requests share. The switches can be turned at any time.
pub struct Shared {
    pub store: Store,
    pub log: Arc<RequestLog>,
    pub faults: Faults,
    pub credentials: RwLock<Credentials>,
    pub region: String,
    /// Nanoseconds before every request.
    pub latency: AtomicU64,
    /// Bytes per second; 0 for no delay.
    pub hash_rate: AtomicU64,
    pub list_loss: AtomicBool,
    pub keys: KeyCache,
}

/// One request under way.
pub struct Call<'a> {
    pub shared: &'a Shared,
    pub target: &'a Target,
    pub head: &'a Parts,
    pub identity: &'a Identity,
    pub in_flight: &'a InFlight,
}

impl Call<'_> {
    /// A request header as text.
    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.head.headers, name)
    }
}

/// The request ends without an answer: the connection is reset.
#[derive(Debug)]
pub struct ConnectionReset;

impl std::fmt::Display for ConnectionReset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset by a fault")
    }
}

impl std::error::Error for ConnectionReset {}

type Answer = Result<Response<ReplyBody>, ConnectionReset>;

/// Total size of request headers the real server's HTTP parser takes.
const MAX_HEADERS: usize = 16 * 1024;

/// Answers one request.
pub async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let target = match Target::parse(&head.method, &head.uri, &head.headers) {
        Ok(target) => target,
        Err(bad) => return Ok(refuse_target(&head, &bad).into_response()),
    };
    let size: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size > MAX_HEADERS {
        return Ok(Reply::new(431).header("connection", "close").into_response());
    }
    let in_flight = shared.log.begin(arrival(&head, &target));
    let latency = Duration::from_nanos(shared.latency.load(Ordering::Relaxed));
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let faults = shared.faults.plan(target.op.name(), &target.bucket, fault_key(&target));
    let mut reply = None;
    for (id, action) in &faults {
        match action {
            Action::Latency(pause) => tokio::time::sleep(*pause).await,
            Action::Hang => shared.faults.cleared(*id).await,
            Action::Reset => return Err(ConnectionReset),
            Action::Status { status, code, message } => {
                let error = S3Error::new(*status, code.clone(), message.clone());
                reply = Some(Reply::error(&target.resource, &error));
            }
            _ => {}
        }
    }
    let mut input = Input::new(body);
    let reply = match reply {
        Some(reply) => reply,
        None => answer(&shared, &target, &head, &in_flight, &mut input).await,
    };
    // What the client still sends is read and thrown away, as long as the real server would.
    input.drain(reply.has("connection").then_some(Duration::from_secs(3)));
    if faults.iter().any(|(_, action)| *action == Action::ReplyLost) {
        return Err(ConnectionReset);
    }
    Ok(finish(&head, reply, faults.into_iter().map(|(_, action)| action), in_flight))
}

fn arrival(head: &Parts, target: &Target) -> Arrival {
    let range = header(&head.headers, "range").or_else(|| header(&head.headers, "x-amz-copy-source-range"));
    Arrival {
        operation: target.op.name(),
        bucket: target.bucket.clone(),
        key: fault_key(target).to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        range,
    }
}

/// The key, or for listings the prefix.
fn fault_key(target: &Target) -> &str {
    if target.op.lists() { target.param("prefix").unwrap_or_default() } else { &target.key }
}

fn refuse_target(head: &Parts, bad: &BadTarget) -> Reply {
    let path = head.uri.path();
    match bad {
        BadTarget::NoRoute => no_route(head),
        BadTarget::BadEscape => Reply::json(
            400,
            &json!({"error": "Bad Request", "code": "FST_ERR_BAD_URL",
                "message": format!("'{}' is not a valid url component", routed(path)), "statusCode": 400}),
        ),
    }
}

/// A path as the server behind the gateway sees it.
fn routed(path: &str) -> &str {
    path.strip_prefix("/storage/v1").unwrap_or(path)
}

fn no_route(head: &Parts) -> Reply {
    let message = format!("Route {}:{} not found", head.method, routed(&head.uri.to_string()));
    Reply::json(404, &json!({"message": message, "error": "Not Found", "statusCode": 404}))
}

/// Authentication and the operation; every error becomes its answer here.
async fn answer(
    shared: &Shared,
    target: &Target,
    head: &Parts,
    in_flight: &InFlight,
    input: &mut Input,
) -> Reply {
    if target.op == Op::Unknown {
        return if head.method == "POST" { Reply::new(404) } else { no_route(head) };
    }
    let refused = |error: S3Error| Reply::error(&target.resource, &error);
    if let Err(error) = input::check_content_type(&head.method, &head.headers) {
        return refused(error);
    }
    let signed = Signed {
        method: head.method.as_str(),
        raw_path: head.uri.path(),
        query: &target.query,
        headers: &head.headers,
    };
    let credentials = shared.credentials.read().clone();
    let identity = match authenticate(&signed, &credentials, &shared.region, &shared.keys) {
        Ok(identity) => identity,
        Err(error) => return refused(error),
    };
    in_flight.identity(&identity.label);
    if header(&head.headers, "content-type").is_some_and(|kind| kind.starts_with("multipart/form-data")) {
        // A web framework's object where a document is expected.
        let mut doc = Document::new("message");
        doc.text("Multipart form data not supported");
        return Reply::xml(doc).with_status(400);
    }
    let call = Call { shared, target, head, identity: &identity, in_flight };
    dispatch(&call, input).await.unwrap_or_else(|error| {
        let reply = refused(error);
        if target.op.uploads() { reply.header("connection", "close") } else { reply }
    })
}

async fn dispatch(call: &Call<'_>, input: &mut Input) -> S3Result<Reply> {
    match call.target.op {
        Op::ListBuckets => Ok(bucket::list(call)),
        Op::CreateBucket => bucket::create(call),
        Op::HeadBucket => bucket::head(call),
        Op::DeleteBucket => bucket::delete(call),
        Op::GetBucketLocation => bucket::location(call),
        Op::GetBucketVersioning => bucket::versioning(call),
        Op::ListObjects => listing::version_one(call),
        Op::ListObjectsV2 => listing::version_two(call),
        Op::HeadObject => get::head(call),
        Op::GetObject => get::get(call).await,
        Op::GetObjectTagging => get::tagging(call),
        Op::PutObject => put::put(call, input).await,
        Op::CopyObject => copy::copy(call),
        Op::DeleteObject => delete::one(call),
        Op::DeleteObjects => delete::many(call, input).await,
        Op::CreateMultipartUpload
        | Op::UploadPart
        | Op::UploadPartCopy
        | Op::CompleteMultipartUpload
        | Op::AbortMultipartUpload
        | Op::ListParts
        | Op::ListMultipartUploads
        | Op::Unknown => Err(S3Error::new(501, "NotImplemented", "not implemented by the stand-in")),
    }
}

/// Applies what remains of the faults and hands the request's log handle to the body.
fn finish(
    head: &Parts,
    mut reply: Reply,
    faults: impl Iterator<Item = Action>,
    in_flight: InFlight,
) -> Response<ReplyBody> {
    let mut shape = Shape::default();
    let carries_body = head.method != "HEAD" && reply.body.length() > 0;
    for action in faults {
        match action {
            Action::Truncate(after) if carries_body => {
                shape.truncate = Some(after).filter(|a| *a < reply.body.length());
            }
            Action::Slow(rate) => shape.rate = Some(rate),
            Action::Stall { after, pause } => shape.stall = Some((after, pause)),
            Action::OtherEtag if head.method == "GET" => {
                if let Some(etag) = reply.get("etag").map(other_etag) {
                    reply.push("etag", &etag);
                }
            }
            _ => {}
        }
    }
    in_flight.status(reply.status);
    let length = reply.body.length();
    if length > 0 && !reply.has("content-length") {
        reply.push("content-length", &length.to_string());
    }
    if head.method == "HEAD" {
        // Errors announce the length of a document that is not sent.
        reply.body = ReplyBody::empty();
    }
    reply.body.attach(shape, in_flight);
    reply.into_response()
}

/// A well-formed `ETag` of no version there ever was.
fn other_etag(etag: &str) -> String {
    etag.chars().map(|c| c.to_digit(16).map_or(c, |d| char::from_digit(15 - d, 16).unwrap_or(c))).collect()
}

/// Binds 127.0.0.1 with a backlog that takes thousands of connections at once.
pub fn bind(port: u16) -> io::Result<tokio::net::TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    socket.listen(4096)
}
