//! What copies keep, what buckets let in, and which rights writes need.

use std::time::Duration;

use serde_json::json;
use supafs_standin::{ALICE, BOB, BucketLimits, Command, Policy, Predicate, Standin};

use crate::common::{Answer, Client, standin};
use crate::parts::Upload;

const NO_ROW: &str = "new row violates row-level security policy";
const TOO_LARGE: &str = "The object exceeded the maximum allowed size";

fn user(standin: &Standin, sub: &str) -> Client {
    Client::user(standin, &standin.mint(sub, "authenticated", Duration::from_hours(1), &json!({})))
}

fn copy(client: &Client, target: &str, source: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("x-amz-copy-source", source)];
    all.extend_from_slice(headers);
    client.send("PUT", target, &all, b"")
}

const REPLACE: (&str, &str) = ("x-amz-metadata-directive", "REPLACE");

#[test]
fn copies_keep_or_replace_what_describes_them() {
    let standin = standin();
    let client = Client::admin(&standin);
    let headers = [("content-type", "text/plain"), ("cache-control", "max-age=5"), ("x-amz-meta-a", "1")];
    client.send("PUT", "/b/s", &headers, b"src");
    let described = |key: &str| {
        let stat = standin.stat("b", key).unwrap();
        (stat.content_type, stat.cache_control, stat.metadata.into_iter().collect::<Vec<_>>())
    };
    let text = |s: &str| Some(s.to_owned());
    let meta = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    assert_eq!(copy(&client, "/b/kept", "b/s", &[("content-type", "x/y")]).status, 200);
    assert_eq!(described("kept"), (text("text/plain"), text("max-age=5"), meta("a", "1")));
    assert_eq!(copy(&client, "/b/bare", "b/s", &[REPLACE]).status, 200);
    assert_eq!(described("bare"), (None, None, vec![]), "what is not sent vanishes");
    assert_eq!(client.head_of("/b/bare").header("content-type"), None);
    assert_eq!(client.get("/b/bare").header("content-type"), Some("application/octet-stream"));
    copy(&client, "/b/kept", "b/s", &[REPLACE, ("content-type", "a/b")]);
    assert_eq!(described("kept"), (text("a/b"), None, meta("a", "1")), "the destination's old metadata");
    copy(&client, "/b/kept", "b/s", &[REPLACE, ("x-amz-meta-z", "9")]);
    assert_eq!(described("kept"), (None, None, meta("z", "9")));
    client.put("/b/plain", b"p");
    copy(&client, "/b/kept", "b/plain", &[]);
    assert_eq!(described("kept"), (text("application/octet-stream"), text("no-cache"), vec![]));
    // Only the exact word COPY copies.
    copy(&client, "/b/lower", "b/s", &[("x-amz-metadata-directive", "copy"), ("content-type", "q/q")]);
    assert_eq!(described("lower"), (text("q/q"), None, vec![]));
}

#[test]
fn copying_onto_itself_touches() {
    let standin = standin();
    let client = Client::admin(&standin);
    client.send("PUT", "/b/k", &[("x-amz-meta-mode", "1")], b"bytes");
    let before = (standin.stat("b", "k").unwrap(), client.head_of("/b/k"));
    std::thread::sleep(Duration::from_millis(20));
    let sent = [REPLACE, ("content-type", "a/b"), ("cache-control", "no-cache"), ("x-amz-meta-mode", "2")];
    assert_eq!(copy(&client, "/b/k", "b/k", &sent).status, 200);
    let after = standin.stat("b", "k").unwrap();
    assert!(after.last_modified > before.0.last_modified);
    assert_eq!(after.etag, before.0.etag);
    assert_eq!(after.metadata["mode"], "2");
    assert_eq!(client.head_of("/b/k").header("created-at"), before.1.header("created-at"));
    assert_eq!(client.get("/b/k").text(), "bytes");
}

#[test]
fn copy_sources_are_taken_as_they_are() {
    let standin = standin();
    standin.create_bucket("c");
    let client = Client::admin(&standin);
    client.put("/b/end%20", b"x");
    client.put("/b/a%2Bb%26c", b"plus");
    let code = |source: &str| copy(&client, "/b/t", source, &[]).refusal();
    assert_eq!(code("b/end ").1, "NoSuchKey", "header values are trimmed");
    assert_eq!(code("/b/a+b&c").0, 200);
    assert_eq!(code("b/a%2Bb&c").1, "NoSuchKey");
    assert_eq!(code("").1, "MissingParameter");
    assert_eq!(code("b").1, "MissingParameter");
    assert_eq!(code("//b/k").1, "InvalidBucketName");
    assert_eq!(copy(&client, "/c/t", "b/a+b&c", &[]).status, 200, "across buckets");
    assert_eq!(copy(&client, "/b/dir/", "b/a+b&c", &[]).status, 200, "no placeholder");
    assert!(standin.keys("b").contains(&"dir/".to_owned()));
    let missing = copy(&client, "/none/t", "b/t", &[]).refusal();
    assert_eq!(missing, (404, "InvalidRequest".into(), "The related resource does not exist".into()));
    standin.put_synthetic("b", "huge", 4 << 40, 1);
    assert_eq!(copy(&client, "/b/huger", "b/huge", &[]).status, 200, "no bytes are copied");
}

#[test]
fn sizes_are_limited_by_bucket_and_project() {
    let standin = standin();
    let client = Client::admin(&standin);
    standin.set_bucket_limits("b", BucketLimits { file_size_limit: Some(1000), ..BucketLimits::default() });
    let refused = (413, "EntityTooLarge".to_owned(), TOO_LARGE.to_owned());
    assert_eq!(client.put("/b/k", &[0; 1000]).status, 200);
    let answer = client.put("/b/k", &[1; 1001]);
    assert_eq!((answer.refusal(), answer.header("connection")), (refused.clone(), Some("close")));
    assert_eq!(standin.get("b", "k").unwrap(), vec![0; 1000], "the old version stays");
    // Early: the announcement alone is enough.
    let announced = client.send("PUT", "/b/k", &[("content-length", "5000000000")], b"");
    assert_eq!(announced.refusal(), refused);
    let sha = ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    let body = [&b"3e9\r\n"[..], &[b'x'; 1001], b"\r\n0\r\n\r\n"].concat();
    let lied = client.send("PUT", "/b/k", &[sha, ("x-amz-decoded-content-length", "5")], &body);
    assert_eq!(lied.refusal(), refused, "what really comes counts, too");
    standin.put("b", "big", vec![0; 2000]);
    assert_eq!(copy(&client, "/b/copy", "b/big", &[]).status, 200, "copies are not held to it");
    standin.set_size_limits(500, 100);
    assert_eq!(client.put("/b/k", &[0; 101]).status, 413);
    let upload = Upload::create(&client, "/b/k");
    assert_eq!((upload.part(1, &[0; 500]).status, upload.part(2, b"x").status), (200, 413));
}

#[test]
fn media_types_are_compared_as_they_are() {
    let standin = standin();
    let client = Client::admin(&standin);
    let types = ["image/*", "text/plain"].map(str::to_owned).to_vec();
    standin.set_bucket_limits("b", BucketLimits { allowed_mime_types: types, ..BucketLimits::default() });
    let put = |kind: &str| client.send("PUT", "/b/k", &[("content-type", kind)], b"1");
    for fine in ["image/png", "image/png; charset=x", "text/plain"] {
        assert_eq!(put(fine).status, 200, "{fine}");
    }
    for bad in ["IMAGE/PNG", "text/plain; charset=utf-8", "text/html"] {
        let refused = (415, "InvalidMimeType".to_owned(), format!("mime type {bad} is not supported"));
        assert_eq!(put(bad).refusal(), refused);
    }
    assert_eq!(client.put("/b/k", b"1").refusal().2, "mime type application/octet-stream is not supported");
    assert_eq!(client.put("/b/dir/", b"").status, 200, "placeholders pass");
    assert_eq!(
        client.send("PUT", "/b/x.emptyFolderPlaceholder", &[("content-type", "text/html")], b"").status,
        200
    );
    let create = |headers: &[(&str, &str)]| client.send("POST", "/b/m?uploads", headers, b"").status;
    assert_eq!(create(&[("content-type", "text/html")]), 415);
    assert_eq!(create(&[]), 200, "no type is any type");
}

#[test]
fn each_call_of_an_upload_needs_the_rights_of_a_put() {
    use Command::{Insert, Select, Update};
    let standin = standin();
    let (alice, admin) = (user(&standin, ALICE), Client::admin(&standin));
    let only = |commands: &[Command]| {
        commands.iter().map(|c| Policy::new(*c, Predicate::Always).to("authenticated")).collect::<Vec<_>>()
    };
    standin.put("b", "src", "source");
    let upload = Upload::create(&admin, "/b/k");
    let part = upload.put(1, b"x");
    let as_alice = upload.of(&alice);
    let denied = (403, "AccessDenied".to_owned(), NO_ROW.to_owned());
    for commands in [&[][..], &[Select], &[Insert], &[Insert, Update]] {
        standin.set_policies("b", only(commands));
        assert_eq!(alice.send("POST", "/b/k?uploads", &[], b"").refusal(), denied, "{commands:?}");
        assert_eq!(as_alice.part(1, b"x").refusal(), denied);
        assert_eq!(as_alice.complete(std::slice::from_ref(&part)).refusal(), denied);
        assert_eq!(as_alice.abort().refusal(), denied);
    }
    assert_eq!(as_alice.copy(2, "b/src", None).refusal().1, "NoSuchKey", "the source is hidden");
    standin.set_policies("b", only(&[Select, Insert]));
    assert_eq!(as_alice.copy(2, "b/src", None).status, 200);
    assert_eq!(as_alice.listed().all("Part").len(), 0, "users see no parts");
    assert_eq!(alice.get("/b?uploads").one("KeyCount"), "0", "nor uploads");
    standin.put("b", "k", "now it exists");
    assert_eq!(as_alice.complete(std::slice::from_ref(&part)).refusal(), denied, "looked at again");
    standin.set_policies("b", only(&[Select, Insert, Update]));
    assert_eq!(as_alice.complete(&[part]).status, 200);
    assert_eq!(standin.stat("b", "k").unwrap().owner.as_deref(), Some(ALICE));
}

#[test]
fn copies_need_sight_of_the_source_and_a_puts_rights() {
    let standin = standin();
    standin.set_policies("b", Policy::user_folders());
    standin.put("b", "shared/s", "s");
    standin.put("b", &format!("{BOB}/secret"), "bob's");
    let alice = user(&standin, ALICE);
    let own = format!("/b/{ALICE}/copy");
    assert_eq!(copy(&alice, &own, &format!("b/{BOB}/secret"), &[]).refusal().1, "NoSuchKey");
    assert_eq!(copy(&alice, &own, "b/shared/s", &[]).status, 200);
    assert_eq!(copy(&alice, "/b/shared/copy", "b/shared/s", &[]).refusal().2, NO_ROW);
    let stat = standin.stat("b", &format!("{ALICE}/copy")).unwrap();
    assert_eq!(stat.owner.as_deref(), Some(ALICE));
    // A row the caller cannot see is in the way all the same.
    let insert_only = Predicate::Under("drop".to_owned());
    standin.set_policies("b", vec![Policy::new(Command::Insert, insert_only), Policy::all(Predicate::Owner)]);
    standin.put("b", "drop/there", "x");
    assert_eq!(alice.put("/b/drop/there", b"y").status, 403);
    assert_eq!(alice.delete("/b/drop/there").refusal(), (403, "AccessDenied".into(), "Access denied".into()));
    assert_eq!(alice.delete("/b/drop/none").status, 204);
}
