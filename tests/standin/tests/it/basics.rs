//! Objects and buckets over HTTP: what a PUT stores, what HEAD and GET say of it, names, misrouting.

use crate::common::{Client, standin};

#[test]
fn put_head_get_delete_show_one_object() {
    let standin = standin();
    let client = Client::admin(&standin);
    let put = client.send(
        "PUT",
        "/b/dir/a%20b.txt",
        &[("content-type", "text/plain"), ("x-amz-meta-mode", "33188")],
        b"hello",
    );
    assert_eq!((put.status, put.header("etag")), (200, Some("\"5d41402abc4b2a76b9719d911017c592\"")));
    let head = client.head_of("/b/dir/a%20b.txt");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-length"), Some("5"));
    assert_eq!(head.header("content-type"), Some("text/plain"));
    assert_eq!(head.header("cache-control"), Some("no-cache"));
    assert_eq!(head.header("x-amz-meta-mode"), Some("33188"));
    assert!(head.header("created-at").is_some_and(|d| d.ends_with("GMT+0000 (Coordinated Universal Time)")));
    assert!(head.header("last-modified").is_some_and(|d| d.ends_with(" GMT")));
    let get = client.get("/b/dir/a%20b.txt");
    assert_eq!((get.status, get.text().as_str()), (200, "hello"));
    assert_eq!(get.header("etag"), put.header("etag"));
    assert_eq!(standin.keys("b"), ["dir/a b.txt"]);
    assert_eq!(client.delete("/b/dir/a%20b.txt").status, 204);
    assert_eq!(client.delete("/b/dir/a%20b.txt").status, 204, "missing is fine");
    assert_eq!(
        client.get("/b/dir/a%20b.txt").refusal(),
        (404, "NoSuchKey".into(), "Object not found".into())
    );
    assert_eq!(client.head_of("/b/dir/a%20b.txt").status, 404);
}

#[test]
fn ranges_are_clamped_or_refused() {
    let standin = standin();
    standin.put("b", "k", "0123456789");
    standin.put("b", "empty", "");
    let client = Client::admin(&standin);
    let get = |key: &str, range: &str| {
        let answer = client.send("GET", &format!("/b/{key}"), &[("range", range)], b"");
        (answer.status, answer.text(), answer.header("content-range").map(str::to_owned))
    };
    for (range, text, shown) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=-200", "0123456789", "bytes 0-9/10"),
        ("bytes=8-200", "89", "bytes 8-9/10"),
    ] {
        assert_eq!(get("k", range), (206, text.to_owned(), Some(shown.to_owned())), "{range}");
    }
    for range in ["bytes=10-", "bytes=5-2", "bytes=0-1,4-5", "bytes=x", "junk", "bytes=-", "bytes=-0"] {
        let (status, text, shown) = get("k", range);
        assert_eq!((status, shown), (416, None), "{range}");
        assert!(text.contains("<Code>InvalidRange</Code><Message>invalid range provided</Message>"));
    }
    assert_eq!(get("empty", "bytes=0-0").0, 416);
    assert_eq!(client.get("/b/empty").header("content-length"), Some("0"));
    assert_eq!(client.head_of("/b/empty").header("content-length"), None, "lost in the database");
}

#[test]
fn conditions_count_for_get_alone() {
    let standin = standin();
    standin.put("b", "k", "v");
    let client = Client::admin(&standin);
    let etag = standin.stat("b", "k").unwrap().etag;
    let get = |name, value: &str| client.send("GET", "/b/k", &[(name, value)], b"").status;
    assert_eq!(get("if-none-match", &etag), 304);
    for other in ["*", etag.trim_matches('"'), "\"x\""] {
        assert_eq!(get("if-none-match", other), 200, "{other}");
    }
    assert_eq!(get("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT"), 304);
    assert_eq!(get("if-modified-since", "Fri, 01 Jan 2010 00:00:00 GMT"), 200);
    assert_eq!(get("if-match", "\"x\""), 200);
    assert_eq!(client.send("HEAD", "/b/k", &[("if-none-match", &etag)], b"").status, 200);
    assert_eq!(client.send("PUT", "/b/k", &[("if-none-match", "*")], b"w").status, 200);
    assert_eq!(client.send("PUT", "/b/k", &[("if-match", "\"x\"")], b"w").status, 200);
}

#[test]
fn keys_outside_the_charset_are_refused() {
    let standin = standin();
    let client = Client::admin(&standin);
    for bad in
        ["~", "%23", "%25", "%5B", "%7B", "%5E", "%7C", "%5C", "%3C", "%22", "%60", "%09", "%7F", "%C3%A9"]
    {
        for method in ["PUT", "GET", "HEAD"] {
            assert_eq!(client.send(method, &format!("/b/x{bad}"), &[], b"").status, 400, "{method} {bad}");
        }
        assert_eq!(client.delete(&format!("/b/x{bad}")).status, 204);
    }
    assert_eq!(client.put("/b/x~", b"").refusal(), (400, "InvalidKey".into(), "Invalid key: x~".into()));
    let good = "/b/aZ0_!.*'()%20&$=@;:+,%3F-";
    assert_eq!(client.put(good, b"1").status, 200);
    assert_eq!(client.get(good).text(), "1");
    assert_eq!(client.put("/b/a", b"file").status, 200);
    assert_eq!(client.put("/b/a/b", b"below").status, 200, "a file and a folder of one name");
    assert_eq!(client.put("/b/a//b", b"double").status, 200);
    assert_eq!(client.get("/b/a//b").text(), "double");
    assert_eq!(client.put(&format!("/b/{}", "x".repeat(256)), b"").status, 500);
    assert_eq!(client.put("/b/x/../y", b"").refusal().1, "InvalidKey");
}

#[test]
fn an_empty_put_to_a_folder_makes_the_placeholder() {
    let standin = standin();
    let client = Client::admin(&standin);
    assert_eq!(client.put("/b/dir/", b"").status, 200);
    assert_eq!(standin.keys("b"), ["dir/.emptyFolderPlaceholder"]);
    assert_eq!(client.head_of("/b/dir/").status, 404);
    assert_eq!(client.put("/b/dir/", b"content").status, 200);
    assert_eq!(client.get("/b/dir/").text(), "content", "with a body the key is literal");
    let full = client.put("/b/dir/.emptyFolderPlaceholder", b"x");
    assert_eq!(
        full.refusal(),
        (413, "EntityTooLarge".into(), "The object exceeded the maximum allowed size".into())
    );
}

#[test]
fn sub_resources_are_misrouted() {
    let standin = standin();
    standin.put("b", "k", "v");
    let client = Client::admin(&standin);
    assert_eq!(client.get("/b/k?acl").text(), "v");
    assert_eq!(client.put("/b/k?tagging", b"<Tagging/>").status, 200);
    assert_eq!(client.get("/b/k").text(), "<Tagging/>");
    assert_eq!(client.delete("/b/k?tagging").status, 204);
    assert_eq!(client.head_of("/b/k").status, 404);
    assert_eq!(client.delete("/b?lifecycle").status, 204);
    assert_eq!(client.list("b", &[]).refusal().1, "NoSuchBucket");
}

#[test]
fn buckets_follow_their_rules() {
    let standin = standin();
    let client = Client::admin(&standin);
    assert_eq!(client.put("/Other.Bucket_1", b"").status, 200);
    assert_eq!(client.put("/b", b"").refusal().1, "BucketAlreadyExists");
    for bad in ["/a~b", "/%20a", "/x--table-s3"] {
        assert_eq!(
            client.put(bad, b"").refusal(),
            (400, "InvalidBucketName".into(), "Bucket name invalid".into())
        );
    }
    assert_eq!(client.get("/").all("Name"), ["Other.Bucket_1", "b"]);
    assert_eq!(client.head_of("/b/").status, 200, "trailing slash");
    assert!(client.get("/b?location").text().contains(">local</LocationConstraint>"));
    standin.put("b", "k", "v");
    assert_eq!(client.delete("/b").refusal().1, "ResourceNotEmpty");
    standin.delete("b", "k");
    assert_eq!(client.delete("/b").status, 204);
    assert_eq!(client.delete("/b").refusal().1, "NoSuchBucket");
    assert_eq!(client.put("/b/k", b"").refusal().1, "NoSuchBucket");
    assert_eq!(client.get("/b/k").refusal().1, "NoSuchKey");
}

#[test]
fn copies_take_their_source_literally() {
    let standin = standin();
    let client = Client::admin(&standin);
    let headers = [("content-type", "text/plain"), ("cache-control", "max-age=5"), ("x-amz-meta-mode", "1")];
    client.send("PUT", "/b/a%20b", &headers, b"source");
    let copy = |target: &str, headers: &[(&str, &str)]| client.send("PUT", target, headers, b"");
    let answer = copy("/b/c", &[("x-amz-copy-source", "b/a b")]);
    assert_eq!((answer.status, answer.one("ETag")), (200, standin.stat("b", "a b").unwrap().etag));
    let copied = standin.stat("b", "c").unwrap();
    assert_eq!((copied.content_type.as_deref(), copied.metadata.len()), (Some("text/plain"), 1));
    assert_eq!(copy("/b/d", &[("x-amz-copy-source", "b/a%20b")]).refusal().1, "NoSuchKey");
    assert_eq!(copy("/b/d", &[("x-amz-copy-source", "b%2Fa b")]).refusal().1, "MissingParameter");
    assert_eq!(copy("/no/d", &[("x-amz-copy-source", "b/a b")]).refusal().0, 404);
    // REPLACE without anything: type and cache control vanish, user metadata of the target stays.
    let replace = [("x-amz-copy-source", "b/c"), ("x-amz-metadata-directive", "REPLACE")];
    assert_eq!(copy("/b/c", &replace).status, 200);
    let touched = standin.stat("b", "c").unwrap();
    assert_eq!((touched.content_type, touched.cache_control, touched.metadata.len()), (None, None, 1));
    assert_eq!(client.head_of("/b/c").header("content-type"), None);
    assert_eq!(client.get("/b/c").header("content-type"), Some("application/octet-stream"));
}

#[test]
fn chunked_bodies_are_decoded() {
    let standin = standin();
    let client = Client::admin(&standin);
    let headers = [
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "11"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
    ];
    let body = b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
    assert_eq!(client.send("PUT", "/b/k", &headers, body).status, 200);
    assert_eq!(standin.get("b", "k").unwrap(), "hello world");
    let answer = client.send("PUT", "/b/k", &headers, b"5\r\nhello\r\n0\r\n");
    assert_eq!(answer.refusal().2, "Incomplete trailer section");
    assert_eq!(standin.get("b", "k").unwrap(), "hello world", "the old version stays");
    // The size of the body counts, not the false announcement; an empty one to a folder keeps the key.
    assert_eq!(client.send("PUT", "/b/dir/", &headers, b"0\r\n\r\n").status, 200);
    assert!(standin.keys("b").contains(&"dir/".to_owned()));
}

#[test]
fn a_data_directory_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let config = supafs_standin::Config { data_dir: Some(dir.path().to_owned()), ..Default::default() };
        supafs_standin::Standin::start(config).unwrap()
    };
    let before = {
        let standin = start();
        standin.create_bucket("b");
        standin.set_policies("b", supafs_standin::Policy::user_folders());
        let client = Client::admin(&standin);
        let big: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        assert_eq!(client.send("PUT", "/b/a", &[("x-amz-meta-m", "1")], b"old").status, 200);
        assert_eq!(client.send("PUT", "/b/a", &[("x-amz-meta-m", "2")], &big).status, 200);
        assert_eq!(client.put("/b/a/b", b"below").status, 200);
        assert_eq!(client.get("/b/a").body, big);
        assert_eq!(client.send("PUT", "/b/copy", &[("x-amz-copy-source", "b/a")], b"").status, 200);
        assert_eq!(client.delete("/b/a").status, 204);
        assert_eq!(client.get("/b/copy").body, big, "a copy outlives its source");
        standin.put_synthetic("b", "s", 1 << 40, 9);
        standin.stat("b", "copy").unwrap()
    };
    let standin = start();
    assert_eq!(standin.keys("b"), ["a/b", "copy", "s"]);
    assert_eq!(standin.stat("b", "copy").unwrap(), before);
    assert_eq!(standin.get("b", "a/b").unwrap(), "below");
    assert_eq!(standin.stat("b", "s").unwrap().size, 1 << 40);
    let client = Client::admin(&standin);
    let answer = client.send("GET", "/b/copy", &[("range", "bytes=2999999-")], b"");
    assert_eq!((answer.status, answer.body.len()), (206, 1));
}

#[test]
fn dropping_a_standin_frees_its_port() {
    let standin = standin();
    let port = standin.port();
    drop(standin);
    let config = supafs_standin::Config { port, ..Default::default() };
    drop(supafs_standin::Standin::start(config).unwrap());
}
