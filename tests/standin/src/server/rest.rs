//! The requests of the REST API that a client of S3 may want: moving an object, asking whether one may be uploaded, and
//! a bucket's limits.
//! Errors are JSON, and nearly all of them HTTP 400 with the real status inside.

use std::sync::Arc;

use http::request::Parts;
use serde_json::{Map, Value, json};

use super::input::Input;
use super::put::{check_backend, check_write};
use super::reply::Reply;
use super::target::{Op, Target};
use super::{Call, Shared};
use crate::auth::jwt::mint_jwt;
use crate::auth::sigv4::header;
use crate::auth::{Identity, bearer};
use crate::clock;
use crate::error::{S3Error, S3Result};
use crate::key::check_key;
use crate::log::InFlight;
use crate::rls::{Access, Command, Row};
use crate::store::Bucket;
use crate::store::object::{Object, default_cache, default_type};

/// How long a URL to upload to is good for.
const SIGNED_URL_SECONDS: i64 = 2 * 60 * 60;

/// An error as the REST API gives it.
pub fn error(error: &S3Error) -> Reply {
    let status = match error.status {
        // The last few are what a gateway in front says, or a fault.
        500 | 544 | 429 | 502..=504 => error.status,
        _ => 400,
    };
    let label = match (&*error.code, error.status) {
        ("AccessDenied", _) => "Unauthorized",
        ("NoSuchKey", _) => "not_found",
        ("NoSuchBucket", _) => "Bucket not found",
        ("ResourceAlreadyExists", _) => "Duplicate",
        // The web framework's own complaints.
        ("InvalidRequest", 400) if error.message.starts_with("Body ") => "FastifyError",
        ("InvalidRequest", 400) => "Error",
        (code, _) => code,
    };
    let body = json!({
        "statusCode": error.status.to_string(), "error": label,
        "message": error.message, "code": error.code,
    });
    Reply::json(status, &body)
}

/// Takes bucket and keys of a move from its body, as far as it has them.
pub fn read_move(target: &mut Target, body: &[u8]) {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else { return };
    let text = |name| field(&fields, name).unwrap_or_default();
    let bucket = text("bucketId");
    let destination = field(&fields, "destinationBucket").filter(|b| !b.is_empty());
    target.key = text("destinationKey");
    target.source = Some((bucket.clone(), text("sourceKey")));
    target.bucket = destination.unwrap_or(bucket);
}

/// Numbers count as their text.
fn field(fields: &Map<String, Value>, name: &str) -> Option<String> {
    match fields.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// Answers a request of the REST API.
pub async fn answer(
    shared: &Shared,
    target: &Target,
    head: &Parts,
    in_flight: &InFlight,
    input: &mut Input,
) -> S3Result<Reply> {
    let body = input.whole(shared, in_flight).await?;
    let kind = header(&head.headers, "content-type").unwrap_or_default();
    if target.op == Op::MoveObject {
        check_document(&kind, &body)?;
    }
    let authorization = header(&head.headers, "authorization").filter(|a| !a.is_empty());
    let authorization = authorization
        .ok_or_else(|| S3Error::invalid_request("headers must have required property 'authorization'"))?;
    let identity = bearer(&authorization, &shared.credentials.read())?;
    in_flight.identity(&identity.label);
    let call = Call { shared, target, head, identity: &identity, in_flight };
    match target.op {
        Op::GetBucket => bucket(&call),
        Op::SignUploadUrl => sign_upload(&call),
        _ => move_object(&call),
    }
}

/// What the web framework and the route's schema say to a body.
fn check_document(kind: &str, body: &[u8]) -> S3Result<()> {
    let refuse = |message: String| Err(S3Error::invalid_request(message));
    if !kind.starts_with("application/json") {
        return refuse("body must be object".to_owned());
    }
    if body.is_empty() {
        return refuse("Body cannot be empty when content-type is set to 'application/json'".to_owned());
    }
    let fields = match serde_json::from_slice(body) {
        Err(_) => {
            return refuse("Body is not valid JSON but content-type is set to 'application/json'".to_owned());
        }
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return refuse("body must be object".to_owned()),
    };
    for name in ["bucketId", "sourceKey", "destinationKey"] {
        if !fields.contains_key(name) {
            return refuse(format!("body must have required property '{name}'"));
        }
    }
    Ok(())
}

/// `GET /storage/v1/bucket/<id>`: a row that few may see.
fn bucket(call: &Call<'_>) -> S3Result<Reply> {
    let id = &call.target.bucket;
    let row = call.shared.store.read(id, |bucket| {
        let sees = call.identity.bypasses_policies() || bucket.visible_to.contains(&call.identity.role);
        sees.then(|| {
            let types = Some(&bucket.allowed_mime_types).filter(|types| !types.is_empty());
            let created = clock::iso(bucket.created_at);
            json!({
                "id": id, "name": id, "owner": "", "public": bucket.public,
                "file_size_limit": bucket.file_size_limit, "allowed_mime_types": types,
                "created_at": created, "updated_at": created,
            })
        })
    });
    let row = row.flatten().ok_or_else(S3Error::no_such_bucket)?;
    Ok(Reply::json(200, &row))
}

/// `POST /storage/v1/object/upload/sign/<bucket>/<key>`: the check of an upload, which stores nothing, and a URL that
/// lets its bearer upload once. With `x-upsert: true` the check is the one of S3's PUT.
fn sign_upload(call: &Call<'_>) -> S3Result<Reply> {
    let (bucket, key) = (&call.target.bucket, &call.target.key);
    let upsert = call.header("x-upsert").is_some_and(|value| value == "true");
    if upsert {
        check_write(call, bucket, key)?;
    } else {
        let new = |of: &Bucket| {
            Access { identity: call.identity, policies: &of.policies }.check_upsert(key, None)?;
            if of.objects.contains_key(key.as_str()) { Err(S3Error::already_exists()) } else { Ok(()) }
        };
        call.shared.store.read(bucket, new).unwrap_or_else(|| Err(S3Error::row_security()))?;
    }
    let url = format!("{bucket}/{key}");
    let claims = json!({
        "owner": call.identity.sub, "url": url, "upsert": upsert, "scope": "upload",
        "exp": clock::now_seconds() + SIGNED_URL_SECONDS,
    });
    let token = mint_jwt(&call.shared.credentials.read().jwt_secret, &claims);
    Ok(Reply::json(200, &json!({"url": format!("/object/upload/sign/{url}?token={token}"), "token": token})))
}

/// `POST /storage/v1/object/move`: an UPDATE of the row's name, after a copy of the bytes.
fn move_object(call: &Call<'_>) -> S3Result<Reply> {
    let (bucket, key) = (&call.target.bucket, &call.target.key);
    let Some((source_bucket, source_key)) = &call.target.source else { return Err(S3Error::no_such_key()) };
    check_key(key)?;
    let store = &call.shared.store;
    let found = store.read(source_bucket, |from| may_leave(call.identity, from, source_key));
    let object = found.unwrap_or_else(|| Err(S3Error::no_such_key()))?;
    let moved = Reply::json(200, &json!({"message": "Successfully moved"}));
    let same = bucket == source_bucket && key == source_key;
    let owner = call.identity.sub.as_deref().or(object.owner.as_deref());
    let arrives = store.read(bucket, |to| may_arrive(call.identity, to, key, owner, same));
    match arrives {
        Some(result) => result?,
        None if call.identity.bypasses_policies() => return Err(S3Error::related_missing()),
        None => return Err(S3Error::row_security()),
    }
    if same {
        return Ok(moved);
    }
    check_backend(call, bucket, key)?;
    let mut renamed = Object::clone(&object);
    renamed.owner = owner.map(Arc::from);
    renamed.updated_at = clock::now();
    // The copy on the backend has a type of its own where the row had none.
    renamed.content_type = renamed.content_type.or_else(|| Some(default_type()));
    renamed.cache_control = renamed.cache_control.or_else(|| Some(default_cache()));
    store.rename((source_bucket, source_key), (bucket, key), renamed)?;
    Ok(moved)
}

/// The row, if the caller sees it and may update it.
fn may_leave(identity: &Identity, bucket: &Bucket, key: &str) -> S3Result<Arc<Object>> {
    let access = Access { identity, policies: &bucket.policies };
    let object = bucket.objects.get(key).ok_or_else(S3Error::no_such_key)?;
    let row = Row { key, owner: object.owner.as_deref() };
    let allowed = access.allows(Command::Select, row)? && access.allows(Command::Update, row)?;
    if allowed { Ok(Arc::clone(object)) } else { Err(S3Error::no_such_key()) }
}

/// Whether the row may have its new name: policies come before the index.
fn may_arrive(
    identity: &Identity,
    bucket: &Bucket,
    key: &str,
    owner: Option<&str>,
    same: bool,
) -> S3Result<()> {
    let access = Access { identity, policies: &bucket.policies };
    let row = Row { key, owner };
    if !(access.allows(Command::Update, row)? && access.allows(Command::Select, row)?) {
        return Err(S3Error::row_security());
    }
    if bucket.objects.contains_key(key) && !same {
        return Err(S3Error::already_exists());
    }
    Ok(())
}
