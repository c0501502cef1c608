//! The HTTP side: accepts connections, takes a request through log, latency, faults, authentication and
//! its operation, and shapes the answer. Beside S3 it answers the few REST and Auth requests a client of
//! S3 needs.

pub mod body;
mod bucket;
mod complete;
mod conn;
mod copy;
mod delete;
mod faulty;
mod get;
mod gotrue;
mod input;
mod latency;
mod limits;
mod listing;
mod multipart;
mod put;
pub mod reply;
mod rest;
pub mod target;
mod uploads;

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
use crate::config::{Backend, Credentials};
use crate::error::{S3Error, S3Result};
use crate::fault::Faults;
use crate::log::{Arrival, InFlight, RequestLog};
use crate::sessions::Sessions;
use crate::store::Store;
use crate::xml::Document;
use body::{ReplyBody, Shape};
pub use conn::serve;
use faulty::Plan;
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
    pub backend: Backend,
    /// Most bytes of an object, however it is uploaded.
    pub file_size_limit: AtomicU64,
    /// Most bytes of a PUT.
    pub standard_size_limit: AtomicU64,
    pub keys: KeyCache,
    /// Users of Supabase Auth and their sessions.
    pub sessions: Sessions,
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
    let mut target = match Target::parse(&head.method, &head.uri, &head.headers) {
        Ok(target) => target,
        Err(bad) => return Ok(refuse_target(&head, &bad).into_response()),
    };
    let size: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size > MAX_HEADERS {
        return Ok(Reply::new(431).header("connection", "close").into_response());
    }
    let mut input = Input::new(body);
    if target.op == Op::MoveObject {
        // What it moves stands in the body, and log and faults want to know.
        rest::read_move(&mut target, &input.prefetch().await);
    }
    let part = target.param("partNumber").and_then(|n| n.parse().ok()).filter(|_| target.op.of_part());
    let in_flight = shared.log.begin(arrival(&head, &target, part));
    let latency = Duration::from_nanos(shared.latency.load(Ordering::Relaxed));
    if !latency.is_zero() {
        latency::sleep(latency).await;
    }
    let plan = Plan::of(&shared, &target, part);
    in_flight.faults(plan.len());
    input.obstruct(plan.obstacle());
    let reply = match plan.before(&shared, &target).await? {
        Some(refused) => refused,
        None => answer(&shared, &target, &head, &in_flight, &mut input).await,
    };
    if input.was_reset() {
        return Err(ConnectionReset);
    }
    if reply.status >= 400 && input.is_refusal_lost().await {
        return Err(ConnectionReset);
    }
    let mut reply = plan.after(&shared, &target, reply).await?;
    // What the client still sends is read and thrown away, as long as the real server would. It closes the
    // connection of what is too large at once: bytes that arrive then are answered by a reset.
    if reply.status != 413 {
        input.drain(reply.has("connection").then_some(Duration::from_secs(3)));
    }
    let shape = plan.shape(&head.method, &mut reply);
    if target.op.changes() && reply.status < 300 {
        in_flight.changed();
    }
    Ok(finish(&head, reply, shape, in_flight))
}

fn arrival(head: &Parts, target: &Target, part_number: Option<u32>) -> Arrival {
    let range = header(&head.headers, "range").or_else(|| header(&head.headers, "x-amz-copy-source-range"));
    let moved = target.source.as_ref().map(|(bucket, key)| format!("{bucket}/{key}"));
    Arrival {
        operation: target.op.name(),
        bucket: target.bucket.clone(),
        key: target.subject().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        range,
        copy_source: moved.or_else(|| header(&head.headers, "x-amz-copy-source")),
        part_number,
        upload_id: target.param("uploadId").map(str::to_owned),
    }
}

/// An error in the form its API gives it.
fn refusal(target: &Target, error: &S3Error) -> Reply {
    let reply = match target.op {
        op if op.is_auth() => gotrue::error(error.status, &error.code, &error.message),
        op if op.is_rest() => rest::error(error),
        _ => Reply::error(&target.resource, error),
    };
    if target.op.uploads() { reply.header("connection", "close") } else { reply }
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
    if target.op.is_auth() {
        return gotrue::answer(shared, target, head, in_flight, input).await;
    }
    let refused = |error: S3Error| refusal(target, &error);
    if target.op.is_rest() {
        return rest::answer(shared, target, head, in_flight, input).await.unwrap_or_else(refused);
    }
    let early = |error: S3Error| Reply::error(&target.resource, &error);
    if let Err(error) = input::check_content_type(&head.method, &head.headers) {
        return early(error);
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
        Err(error) => return early(error),
    };
    in_flight.identity(&identity.label);
    if header(&head.headers, "content-type").is_some_and(|kind| kind.starts_with("multipart/form-data")) {
        // A web framework's object where a document is expected.
        let mut doc = Document::new("message");
        doc.text("Multipart form data not supported");
        return Reply::xml(doc).with_status(400);
    }
    let call = Call { shared, target, head, identity: &identity, in_flight };
    dispatch(&call, input).await.unwrap_or_else(refused)
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
        Op::CreateMultipartUpload => multipart::create(call),
        Op::UploadPart => multipart::part(call, input).await,
        Op::UploadPartCopy => multipart::part_copy(call),
        Op::CompleteMultipartUpload => complete::complete(call, input).await,
        Op::AbortMultipartUpload => multipart::abort(call),
        Op::ListParts => uploads::parts(call),
        Op::ListMultipartUploads => uploads::uploads(call),
        Op::MoveObject
        | Op::SignUploadUrl
        | Op::GetBucket
        | Op::AuthPassword
        | Op::AuthRefresh
        | Op::AuthLogout
        | Op::Unknown => Err(S3Error::new(501, "NotImplemented", "not implemented by the stand-in")),
    }
}

/// Hands the request's log handle to the body.
fn finish(head: &Parts, mut reply: Reply, shape: Shape, in_flight: InFlight) -> Response<ReplyBody> {
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

/// Binds 127.0.0.1 with a backlog that takes thousands of connections at once.
pub fn bind(port: u16) -> io::Result<tokio::net::TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    socket.listen(4096)
}
