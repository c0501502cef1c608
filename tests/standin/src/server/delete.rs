//! `DeleteObject` and `DeleteObjects`. Existence is looked at as service role, so a refused delete tells
//! an object that is hidden from one that is missing.

use super::Call;
use super::input::Input;
use super::reply::Reply;
use crate::error::{S3Error, S3Result};
use crate::rls::{Access, Command, Row};
use crate::xml::{self, Document};

/// What became of one key.
#[derive(PartialEq)]
enum Outcome {
    Deleted,
    Missing,
    Denied,
}

fn delete(call: &Call<'_>, key: &str) -> S3Result<Outcome> {
    let store = &call.shared.store;
    let checked = store.read(&call.target.bucket, |bucket| {
        let access = Access { identity: call.identity, policies: &bucket.policies };
        let Some(object) = bucket.objects.get(key) else { return S3Result::Ok(Outcome::Missing) };
        let row = Row { key, owner: object.owner.as_deref() };
        let allowed = access.allows(Command::Select, row)? && access.allows(Command::Delete, row)?;
        Ok(if allowed { Outcome::Deleted } else { Outcome::Denied })
    });
    let outcome = checked.ok_or_else(S3Error::no_such_bucket)??;
    if outcome == Outcome::Deleted {
        store.delete(&call.target.bucket, key);
    }
    Ok(outcome)
}

/// `DeleteObject`
pub fn one(call: &Call<'_>) -> S3Result<Reply> {
    match delete(call, &call.target.key)? {
        Outcome::Denied => Err(S3Error::access_denied("Access denied")),
        Outcome::Deleted | Outcome::Missing => Ok(Reply::new(204)),
    }
}

/// `DeleteObjects`. `Quiet` is not looked at, missing keys count as deleted.
pub async fn many(call: &Call<'_>, input: &mut Input) -> S3Result<Reply> {
    let keys = requested_keys(call, input).await?;
    let mut doc = Document::new("DeleteResult");
    let mut denied = Vec::new();
    for key in keys {
        if delete(call, &key)? == Outcome::Denied {
            denied.push(key);
        } else {
            doc.open("Deleted").leaf("Key", &key).close("Deleted");
        }
    }
    for key in denied {
        doc.open("Error").leaf("Key", &key).leaf("Code", "AccessDenied");
        doc.leaf("Message", "Access Denied").close("Error");
    }
    Ok(Reply::xml(doc))
}

async fn requested_keys(call: &Call<'_>, input: &mut Input) -> S3Result<Vec<String>> {
    let kind = call.header("content-type").unwrap_or_default();
    let is_xml = ["application/xml", "text/xml"].iter().any(|k| kind.starts_with(k));
    let body = input.document(call).await?;
    if !is_xml {
        return Err(S3Error::invalid_request(" must have required property 'Body'"));
    }
    if body.is_empty() {
        return Err(S3Error::invalid_request("Body must be object"));
    }
    keys_of(&xml::elements(&body)?)
}

/// The keys of a `<Delete>` document, or the complaint of the server's schema.
fn keys_of(elements: &[(String, String)]) -> S3Result<Vec<String>> {
    if elements.last().is_none_or(|(root, _)| root != "Delete") {
        return Err(S3Error::invalid_request("Body must have required property 'Delete'"));
    }
    let mut keys: Vec<String> = Vec::new();
    let (mut objects, mut children) = (0, 0);
    for (path, text) in elements {
        match path.as_str() {
            "Delete/Object/Key" if keys.len() == objects => keys.push(text.clone()),
            "Delete/Object" => {
                if keys.len() == objects {
                    let what = if children == 0 { "be object" } else { "have required property 'Key'" };
                    let message = format!("Body, Delete, Object, {objects} must {what}");
                    return Err(S3Error::invalid_request(message));
                }
                objects += 1;
                children = 0;
                continue;
            }
            _ => {}
        }
        children += usize::from(path.starts_with("Delete/Object/"));
    }
    match (keys.is_empty(), elements.len()) {
        (false, _) => Ok(keys),
        (true, 1) => Err(S3Error::invalid_request("Body, Delete must be object")),
        (true, _) => Err(S3Error::invalid_request("Body, Delete must have required property 'Object'")),
    }
}
