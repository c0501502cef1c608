//! Multipart uploads on both backends.

use std::time::{Duration, Instant};

use crate::common::{Client, standin, standin_with};
use crate::parts::{Upload, XML, document};
use md5::{Digest as _, Md5};
use supafs_standin::{Backend, BucketLimits, Config, synthetic_bytes};

const MIB: usize = 1024 * 1024;

fn md5(bytes: &[u8]) -> String {
    hex::encode(Md5::digest(bytes))
}

#[test]
fn parts_become_an_object_with_what_was_fixed_at_first() {
    let standin = standin();
    let client = Client::admin(&standin);
    let headers = [("content-type", "video/mp4"), ("cache-control", "max-age=7"), ("x-amz-meta-mode", "1")];
    let upload = Upload::create_with(&client, "/b/dir/v.mp4", &headers);
    assert_eq!((upload.id.len(), upload.id.as_bytes()[14]), (36, b'4'), "a UUID: {}", upload.id);
    let second = upload.put(2, b"world");
    let first = upload.put(1, b"hello ");
    assert_eq!(first.1, md5(b"hello "), "without quotes");
    assert_eq!(standin.keys("b"), Vec::<String>::new(), "nothing to be seen yet");
    assert_eq!(standin.uploads("b")[0].parts, [1, 2]);
    let done = upload.complete(&[first.clone(), second]);
    assert_eq!((done.status, done.one("Location").as_str()), (200, "b/dir/v.mp4"));
    assert_eq!(done.one("ETag"), format!("\"{}\"", md5(b"hello world")), "as if it came in one piece");
    let head = client.head_of("/b/dir/v.mp4");
    for (name, value) in headers {
        assert_eq!(head.header(name), Some(value));
    }
    assert_eq!(client.get("/b/dir/v.mp4").text(), "hello world");
    let unknown = (404, "NoSuchUpload".to_owned(), "Upload not found".to_owned());
    assert_eq!(upload.complete(std::slice::from_ref(&first)).refusal(), unknown, "finished");
    assert_eq!(upload.part(1, b"x").refusal(), unknown);
    assert_eq!(upload.abort().refusal(), unknown);
    assert_eq!(upload.listed().refusal(), unknown);
    assert!(standin.uploads("b").is_empty());
}

#[test]
fn the_file_backend_takes_parts_as_listed_and_compares_their_tags_as_text() {
    let standin = standin();
    let client = Client::admin(&standin);
    let upload = Upload::create(&client, "/b/k");
    let (first, last) = (upload.put(1, b"one"), upload.put(10_000, b"last"));
    let quoted = (1, format!("\"{}\"", first.1));
    let refused = (400, "InvalidChecksum".to_owned(), "Invalid ETag for part 1".to_owned());
    assert_eq!(upload.complete(&[quoted]).refusal(), refused);
    let missing = (400, "MissingPart".to_owned(), format!("Part 9 is missing for upload id {}", upload.id));
    assert_eq!(upload.complete(&[(1, "wrong".into()), (9, "x".into())]).refusal(), missing);
    assert_eq!(upload.complete(&[last, first]).status, 200);
    assert_eq!(client.get("/b/k").text(), "lastone");
    // A subset will do, and so will one part twice.
    let upload = Upload::create(&client, "/b/k");
    upload.put(1, b"unused");
    let second = upload.put(2, b"ab");
    assert_eq!(upload.complete(&[second.clone(), second]).status, 200);
    assert_eq!(client.get("/b/k").text(), "abab");
}

#[test]
fn completing_needs_a_document_the_server_parses() {
    let standin = standin();
    let client = Client::admin(&standin);
    let upload = Upload::create(&client, "/b/k");
    let message = |body: &str| upload.finish(&XML, body).refusal().2;
    let part =
        |inner: &str| format!("<CompleteMultipartUpload><Part>{inner}</Part></CompleteMultipartUpload>");
    let of = "Body, CompleteMultipartUpload";
    assert_eq!(message("<CompleteMultipartUpload/>"), format!("{of} must be object"));
    assert_eq!(message(&part("")), format!("{of}, Part, 0 must be object"));
    assert_eq!(
        message(&part("<PartNumber>1</PartNumber>")),
        format!("{of}, Part, 0 must have required property 'ETag'")
    );
    assert_eq!(
        message(&part("<PartNumber>x</PartNumber><ETag>e</ETag>")),
        format!("{of}, Part, 0, PartNumber must be integer")
    );
    let padding = " ".repeat(MIB + 1);
    let large = upload.finish(&XML, &part(&padding));
    assert_eq!(large.refusal(), (413, "InvalidRequest".into(), "Request body is too large".into()));
    let many: Vec<_> = (1..=10_000).map(|n| (n, md5(b"x"))).collect();
    assert!(document(&many).len() < MIB, "10 000 parts without checksums fit");
    assert_eq!(upload.complete(&many).refusal().1, "MissingPart");
    assert_eq!(upload.finish(&[("content-type", "text/plain")], "x").refusal().2, "Body must be object");
    // Without a document all recorded parts count, which breaks if one was uploaded twice.
    upload.put(2, b"b");
    upload.put(1, b"a");
    let octets = upload.finish(&[("content-type", "application/octet-stream")], "unread");
    assert_eq!(octets.status, 200);
    assert_eq!(client.get("/b/k").text(), "ab");
    let upload = Upload::create(&client, "/b/k");
    upload.put(1, b"old");
    upload.put(1, b"new");
    assert_eq!(upload.listed().all("PartNumber"), ["1", "1"]);
    assert_eq!(upload.finish(&[], "").refusal().2, "Invalid ETag for part 1");
}

#[test]
fn part_numbers_lengths_and_keys_are_checked() {
    let standin = standin();
    let client = Client::admin(&standin);
    let upload = Upload::create(&client, "/b/k");
    for (number, what) in [(0, "&gt;= 1"), (10_001, "&lt;= 10000")] {
        let refused = upload.part(number, b"x");
        assert_eq!(refused.refusal().2, format!("Querystring, partNumber must be {what}"));
        assert_eq!(refused.header("connection"), Some("close"));
    }
    let streaming = [("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")];
    let unknown = client.send("PUT", &upload.part_target(1), &streaming, b"0\r\n\r\n");
    assert_eq!(unknown.refusal().1, "MissingContentLength");
    let elsewhere = Upload { target: "/b/other".into(), ..upload.clone() };
    assert_eq!(elsewhere.part(1, b"x").status, 500, "an upload id of another key");
    assert_eq!(standin.uploads("b")[0].progress, 0, "what failed does not count");
    assert_eq!(
        Upload { target: "/none/k".into(), ..upload.clone() }.part(1, b"x").refusal().1,
        "NoSuchBucket"
    );
    assert_eq!(client.send("POST", "/b/x~?uploads", &[], b"").refusal().1, "InvalidKey");
    assert_eq!(client.send("POST", "/none/x?uploads", &[], b"").refusal().1, "NoSuchBucket");
    assert_eq!(upload.abort().status, 200);
    assert_eq!(upload.abort().refusal().1, "NoSuchUpload");
}

#[test]
fn listings_of_uploads_and_parts() {
    let standin = standin();
    let client = Client::admin(&standin);
    let upload = Upload::create(&client, "/b/dir/a%20b");
    Upload::create(&client, "/b/dir/c");
    Upload::create(&client, "/b/z");
    for number in [3, 1, 2] {
        upload.put(number, b"x");
    }
    let page =
        client.get(&format!("{}?max-parts=1&part-number-marker=1&uploadId={}", upload.target, upload.id));
    assert_eq!(
        (page.all("PartNumber"), page.one("NextPartNumberMarker")),
        (vec!["2".to_owned()], "2".into())
    );
    assert_eq!(page.one("IsTruncated"), "true");
    assert_eq!(client.get("/b?uploads").all("Key"), ["dir/a b", "dir/c", "z"]);
    assert_eq!(client.get("/b?prefix=DIR%2F&uploads").all("Key").len(), 2, "whatever its case");
    let folded = client.get("/b?delimiter=%2F&uploads");
    assert_eq!(
        (folded.all("Key"), folded.one("CommonPrefixes")),
        (vec!["z".into()], "<Prefix>dir/</Prefix>".into())
    );
    let first = client.get("/b?max-uploads=1&uploads");
    let (key, id) = (first.one("NextKeyMarker"), first.one("NextUploadIdMarker"));
    let encode = crate::common::encode;
    let next =
        client.get(&format!("/b?key-marker={}&upload-id-marker={}&uploads", encode(&key), encode(&id)));
    assert_eq!(next.all("Key"), ["dir/c", "z"]);
    assert_eq!(client.get("/b?encoding-type=url&uploads").all("Key")[0], "dir%2Fa%20b");
    assert_eq!(client.get("/none?uploads").refusal().1, "NoSuchBucket");
    assert_eq!(client.delete("/b").refusal().1, "ResourceReferenced", "uploads keep the bucket");
}

#[test]
fn every_accepted_part_counts_toward_the_limit() {
    let standin = standin();
    let client = Client::admin(&standin);
    standin.set_bucket_limits("b", BucketLimits { file_size_limit: Some(1000), ..BucketLimits::default() });
    let upload = Upload::create(&client, "/b/k");
    let (half, rest) = (vec![1; 600], vec![2; 400]);
    let first = upload.put(1, &half);
    let again = upload.part(1, &half);
    assert_eq!((again.status, again.refusal().1.as_str()), (413, "EntityTooLarge"), "again counts again");
    assert_eq!(again.header("connection"), Some("close"));
    let second = upload.put(2, &rest);
    assert_eq!(upload.part(2, b"x").status, 413);
    assert_eq!(upload.complete(&[first, second]).status, 200);
    assert_eq!(standin.stat("b", "k").unwrap().size, 1000);
}

#[test]
fn copied_parts_take_exact_ranges() {
    let standin = standin();
    let client = Client::admin(&standin);
    standin.put("b", "src a", "0123456789");
    let upload = Upload::create(&client, "/b/k");
    for bad in ["bytes=5-10", "bytes=5-", "bytes=-3", "bytes=4-2", "junk", "bytes=0-0,2-3"] {
        let refused = upload.copy(1, "b/src a", Some(bad)).refusal();
        assert_eq!(refused, (400, "InvalidRange".into(), "invalid range provided".into()), "{bad}");
    }
    for missing in ["b/src%20a", "b/none", "none/x", "b"] {
        assert_eq!(upload.copy(1, missing, None).refusal().1, "NoSuchKey", "{missing}");
    }
    let parts = [
        upload.put_copy(1, "/b/src a", Some("bytes=7-9")),
        upload.put(2, b"-"),
        upload.put_copy(3, "b/src a", None),
    ];
    standin.put("b", "src a", "overwritten");
    assert_eq!(upload.complete(&parts).one("ETag"), format!("\"{}\"", md5(b"789-0123456789")));
    assert_eq!(client.get("/b/k").text(), "789-0123456789");
    let range = client.send("GET", "/b/k", &[("range", "bytes=2-5")], b"");
    assert_eq!(range.text(), "9-01");
}

#[test]
fn terabytes_are_assembled_in_no_time() {
    let standin = standin();
    let client = Client::admin(&standin);
    let (size, half) = (4_u64 << 40, 2_u64 << 40);
    standin.put_synthetic("b", "huge", size, 5);
    standin.set_size_limits(u64::MAX, u64::MAX);
    let begun = Instant::now();
    let upload = Upload::create(&client, "/b/again");
    let parts = [
        upload.put_copy(1, "b/huge", Some(&format!("bytes=0-{}", half - 1))),
        upload.put(2, b"inserted"),
        upload.put_copy(3, "b/huge", Some(&format!("bytes={half}-{}", size - 1))),
    ];
    assert_eq!(upload.complete(&parts).status, 200);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let range = |from: u64, to: u64| {
        client.send("GET", "/b/again", &[("range", &format!("bytes={from}-{to}"))], b"").body
    };
    let mut expected = synthetic_bytes(5, half - 4, 4).to_vec();
    expected.extend_from_slice(b"inserted");
    expected.extend_from_slice(&synthetic_bytes(5, half, 4));
    assert_eq!(range(half - 4, half + 11), expected);
    assert_eq!(range(size + 4, size + 7), synthetic_bytes(5, size - 4, 4));
    // A copy of a copy, cut elsewhere.
    let upload = Upload::create(&client, "/b/third");
    let part = upload.put_copy(1, "b/again", Some(&format!("bytes={}-{}", half - 4, half + 11)));
    assert_eq!(upload.complete(&[part]).status, 200);
    assert_eq!(client.get("/b/third").body, expected);
}

#[test]
fn many_memory_parts_read_back_at_any_range() {
    let standin = standin();
    let client = Client::admin(&standin);
    let upload = Upload::create(&client, "/b/k");
    let whole = synthetic_bytes(1, 0, 3 * MIB + 5);
    let parts: Vec<_> = (1..).zip(whole.chunks(MIB / 3)).map(|(n, bytes)| upload.put(n, bytes)).collect();
    assert_eq!(upload.complete(&parts).one("ETag"), format!("\"{}\"", md5(&whole)));
    assert!(client.get("/b/k").body == whole);
    for (from, to) in [(0, 0), (MIB / 3 - 1, MIB / 3), (MIB - 7, 2 * MIB), (3 * MIB, 3 * MIB + 4)] {
        let answer = client.send("GET", "/b/k", &[("range", &format!("bytes={from}-{to}"))], b"");
        assert!(answer.body == whole[from..=to], "{from}-{to}");
    }
    assert_eq!(standin.get("b", "k").unwrap(), whole);
}

#[test]
fn the_s3_backend_has_ways_of_its_own() {
    let standin = standin_with(Config { backend: Backend::S3, ..Config::default() });
    let client = Client::admin(&standin);
    let upload = Upload::create(&client, "/b/k");
    assert!(upload.id.len() > 36);
    let large = vec![7; 5 * MIB];
    let (small, first, last) = (upload.put(1, b"small"), upload.put(2, &large), upload.put(3, b"end"));
    assert_eq!(first.1, format!("\"{}\"", md5(&large)));
    let refusal = |parts: &[(u32, String)]| upload.complete(parts).refusal();
    let too_small = "Your proposed upload is smaller than the minimum allowed object size.";
    assert_eq!(refusal(&[small.clone(), first.clone()]), (400, "S3Error".into(), too_small.into()));
    assert_eq!(refusal(&[last.clone(), first.clone()]).1, "S3Error", "ascending");
    assert_eq!(refusal(&[first.clone(), (9, small.1)]).1, "S3Error", "missing");
    let unquoted = (last.0, last.1.trim_matches('"').to_owned());
    let done = upload.complete(&[first, unquoted]);
    assert_eq!(done.status, 200, "quotes do not matter: {}", done.text());
    let etag = done.one("ETag");
    assert!(etag.ends_with("-2\""), "{etag}");
    assert_eq!(client.head_of("/b/k").header("etag"), Some(etag.as_str()));
    // A copy has the MD5 of the whole; a long PUT has not.
    let copy = client.send("PUT", "/b/copy", &[("x-amz-copy-source", "b/k")], b"");
    assert_eq!(copy.one("ETag"), format!("\"{}\"", md5(&[&large[..], b"end"].concat())));
    let put = client.put("/b/long", &vec![1; 17 * MIB]);
    assert!(put.header("etag").unwrap().ends_with("-2\""));
}

#[test]
fn a_data_directory_holds_assembled_objects() {
    let dir = tempfile::tempdir().unwrap();
    let start = || standin_with(Config { data_dir: Some(dir.path().to_owned()), ..Config::default() });
    {
        let standin = start();
        let client = Client::admin(&standin);
        standin.put("b", "src", "0123456789");
        let upload = Upload::create(&client, "/b/k");
        let copied = upload.put_copy(1, "b/src", Some("bytes=2-4"));
        client.delete("/b/src");
        let own = upload.put(2, b"own");
        assert_eq!(upload.complete(&[copied, own]).status, 200);
        let upload = Upload::create(&client, "/b/single");
        let only = upload.put(1, b"only");
        assert_eq!(upload.complete(&[only]).status, 200);
        standin.put_synthetic("b", "big", 1 << 40, 3);
        let upload = Upload::create(&client, "/b/slice");
        let part = upload.put_copy(1, "b/big", Some("bytes=100-299"));
        assert_eq!(upload.complete(&[part]).status, 200);
        assert_eq!(client.get("/b/k").text(), "234own");
        Upload::create(&client, "/b/unfinished").put(1, b"gone with the process");
    }
    let standin = start();
    assert_eq!(standin.get("b", "k").unwrap(), "234own");
    assert_eq!(standin.get("b", "single").unwrap(), "only");
    assert_eq!(standin.get("b", "slice").unwrap(), synthetic_bytes(3, 100, 200));
    assert!(standin.uploads("b").is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn without_md5_every_large_version_has_a_tag_of_its_own() {
    let standin = standin_with(Config { md5: false, ..Config::default() });
    let client = Client::admin(&standin);
    // The tags of small ones are what clients check them by.
    let small = || client.put("/b/s", b"same").header("etag").unwrap().to_owned();
    assert_eq!(small(), small());
    let same = vec![7; (16 << 20) + 1];
    let tag = || client.put("/b/k", &same).header("etag").unwrap().to_owned();
    let (one, two) = (tag(), tag());
    assert_ne!(one, two);
    assert_eq!((one.len(), client.head_of("/b/k").header("etag")), (34, Some(two.as_str())));
    let upload = Upload::create(&client, "/b/m");
    let parts = [upload.put(1, b"a"), upload.put(2, b"b")];
    assert_eq!(upload.complete(&parts).status, 200);
    assert_eq!(client.get("/b/m").text(), "ab");
}
