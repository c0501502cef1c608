//! Listings: order, paging, the keys that delimiter listings lose (with the numbers observed on the real
//! server), the workaround for it, and the server once it is fixed.

use std::collections::BTreeSet;

use crate::common::{Client, standin};
use supafs_standin::Standin;

fn fill(standin: &Standin, keys: impl IntoIterator<Item = impl AsRef<str>>) -> usize {
    let mut count = 0;
    for key in keys {
        standin.put_synthetic("b", key.as_ref(), 1, 1);
        count += 1;
    }
    count
}

/// 3000 photographs: the file, an older version, a sidecar.
fn photos() -> impl Iterator<Item = String> {
    (0..1000).flat_map(|i| ["", "-old", ".xmp"].map(|suffix| format!("p{i:04}.jpg{suffix}")))
}

fn lost(client: &Client, total: usize, query: &[(&str, &str)]) -> usize {
    let (keys, prefixes) = client.list_all("b", query);
    let found: BTreeSet<&String> = keys.iter().chain(&prefixes).collect();
    assert_eq!(found.len(), keys.len() + prefixes.len(), "no duplicates");
    total - found.len()
}

#[test]
fn pages_of_three_thousand_photos_lose_four_and_fifty_eight() {
    let standin = standin();
    let client = Client::admin(&standin);
    let total = fill(&standin, photos());
    assert_eq!(lost(&client, total, &[("delimiter", "/")]), 4);
    assert_eq!(lost(&client, total, &[("delimiter", "/"), ("max-keys", "100")]), 58);
    assert_eq!(lost(&client, total, &[]), 0, "flat listings are exact");
    assert_eq!(lost(&client, total, &[("max-keys", "100")]), 0);
    standin.set_list_loss(false);
    for max in ["1", "7", "100", "999", "1000"] {
        assert_eq!(lost(&client, total, &[("delimiter", "/"), ("max-keys", max)]), 0, "{max}");
    }
}

#[test]
fn a_full_page_loses_its_rest_and_says_it_is_complete() {
    let standin = standin();
    let client = Client::admin(&standin);
    fill(&standin, (0..=998).map(|i| format!("f{i:05}")));
    fill(&standin, ["g", "g-1", "g.txt"]);
    for query in [&[("delimiter", "/")][..], &[("delimiter", "/"), ("max-keys", "1000")]] {
        let page = client.list("b", query);
        assert_eq!(page.all("Key").len(), 1000);
        assert_eq!(page.one("IsTruncated"), "false");
        assert_eq!(page.all("Key").last().map(String::as_str), Some("g"));
    }
    assert_eq!(lost(&client, 1002, &[("delimiter", "/")]), 2);
    assert_eq!(lost(&client, 1002, &[]), 0);
    // A page of 999 has no boundary inside, but one behind.
    assert_eq!(lost(&client, 1002, &[("delimiter", "/"), ("max-keys", "999")]), 0);
    standin.set_list_loss(false);
    assert_eq!(lost(&client, 1002, &[("delimiter", "/")]), 0);
}

#[test]
fn a_boundary_behind_a_file_hides_the_directory_of_its_name() {
    let standin = standin();
    let client = Client::admin(&standin);
    fill(&standin, ["foo", "foo-1", "foo.txt", "foo/a", "fop"]);
    let (keys, prefixes) = client.list_all("b", &[("delimiter", "/"), ("max-keys", "1")]);
    assert_eq!((keys, prefixes), (vec!["foo".to_owned(), "fop".to_owned()], vec![]));
    let (keys, prefixes) = client.list_all("b", &[("delimiter", "/")]);
    assert_eq!(keys, ["foo", "foo-1", "foo.txt", "fop"]);
    assert_eq!(prefixes, ["foo/"]);
    standin.set_list_loss(false);
    let (keys, prefixes) = client.list_all("b", &[("delimiter", "/"), ("max-keys", "1")]);
    assert_eq!((keys.len(), prefixes.len()), (4, 1));
}

#[test]
fn pages_of_one_lose_ten_keys_and_a_prefix() {
    let standin = standin();
    let client = Client::admin(&standin);
    let lost_ones = ["a b", "a!1", "a$1", "a&1", "a'1", "a(1", "a*1", "a+1", "a-1", "a.txt"];
    fill(&standin, lost_ones);
    fill(&standin, ["a", "a/x", "b"]);
    let (keys, prefixes) = client.list_all("b", &[("delimiter", "/"), ("max-keys", "1")]);
    assert_eq!((keys, prefixes), (vec!["a".to_owned(), "b".to_owned()], vec![]));
    let (keys, _) = client.list_all("b", &[("delimiter", "/")]);
    assert_eq!(keys.len(), 12);
}

#[test]
fn an_underscore_in_the_cursor_is_a_wildcard() {
    let standin = standin();
    let client = Client::admin(&standin);
    // After `p_1` the server asks for rows like `p_1/%` and finds those of the directory pX1: it takes
    // `p_1` for a folder and goes on at `p_10`, behind `p_1/…`, were there any.
    fill(&standin, ["pX1/file", "p_1", "p_1-old", "p_2"]);
    let (keys, prefixes) = client.list_all("b", &[("delimiter", "/"), ("max-keys", "2")]);
    assert_eq!(keys, ["p_1", "p_2"]);
    assert_eq!(prefixes, ["pX1/"]);
}

/// The workaround of supafs, spelled out: small pages, begun behind the last name by start-after.
fn list_without_loss(client: &Client, prefix: &str, max: usize) -> (Vec<String>, Vec<String>) {
    let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
    let (max, mut after) = (max.to_string(), String::new());
    loop {
        let mut query = vec![("delimiter", "/"), ("max-keys", max.as_str()), ("prefix", prefix)];
        if !after.is_empty() {
            query.push(("start-after", &after));
        }
        let page = client.list("b", &query);
        let page_keys = page.all("Key");
        let page_prefixes: Vec<String> = page
            .all("CommonPrefixes")
            .iter()
            .map(|p| p.replace("<Prefix>", "").replace("</Prefix>", ""))
            .collect();
        let last_key = page_keys.last().cloned().unwrap_or_default();
        let last_prefix = page_prefixes.last().cloned().unwrap_or_default();
        after = if last_key > last_prefix {
            format!("{last_key}\u{1}")
        } else if last_prefix == prefix {
            format!("{last_prefix}/\u{10FFFF}")
        } else {
            format!("{last_prefix}\u{10FFFF}")
        };
        keys.extend(page_keys);
        prefixes.extend(page_prefixes.into_iter().filter(|p| p != prefix));
        if page.one("IsTruncated") != "true" {
            return (keys, prefixes);
        }
    }
}

#[test]
fn the_workaround_loses_nothing() {
    let standin = standin();
    let client = Client::admin(&standin);
    let mut names: BTreeSet<String> = (0..40)
        .flat_map(|i| ["", "-old", ".xmp", "/in", "_x", " 2"].map(|s| format!("d/p{i:02}{s}")))
        .collect();
    names.extend(["d//double".to_owned(), "d/".to_owned(), "e".to_owned()]);
    fill(&standin, &names);
    for max in [1, 2, 3, 7, 50, 100, 999] {
        let (keys, prefixes) = list_without_loss(&client, "d/", max);
        assert_eq!(keys.len(), 5 * 40 + 1, "{max}");
        assert_eq!(prefixes.len(), 40, "{max}");
        assert!(keys.is_sorted() && prefixes.is_sorted());
    }
    standin.set_list_loss(false);
    for max in [1, 3, 100] {
        let (keys, prefixes) = list_without_loss(&client, "d/", max);
        // Works on a fixed server, too, where `d//` is a prefix of its own.
        assert_eq!((keys.len(), prefixes.len()), (201, 41), "{max}");
    }
}

#[test]
fn doubled_and_leading_slashes_fold_oddly() {
    let standin = standin();
    let client = Client::admin(&standin);
    fill(&standin, ["a//b", "/x", "a/c"]);
    let prefixes = |query: &[(&str, &str)]| client.list_all("b", query).1;
    assert_eq!(prefixes(&[("delimiter", "/"), ("prefix", "a/")]), ["a/"], "the prefix itself");
    assert_eq!(prefixes(&[("delimiter", "/")]), ["/", "a/"]);
    standin.set_list_loss(false);
    assert_eq!(prefixes(&[("delimiter", "/"), ("prefix", "a/")]), ["a//"]);
}

#[test]
fn order_is_by_bytes_and_limits_are_clamped() {
    let standin = standin();
    let client = Client::admin(&standin);
    fill(&standin, ["b", "A", "a", "_", "a/b", "a-b", "Z"]);
    let page = client.list("b", &[]);
    assert_eq!(page.all("Key"), ["A", "Z", "_", "a", "a-b", "a/b", "b"]);
    assert_eq!(page.one("MaxKeys"), "1000");
    assert_eq!(client.list("b", &[("max-keys", "0")]).one("MaxKeys"), "1000");
    assert_eq!(client.list("b", &[("max-keys", "5000")]).one("MaxKeys"), "1000");
    assert_eq!(client.list("b", &[("max-keys", "0")]).all("Key").len(), 7);
    for bad in ["-1", "x", "1.5"] {
        let page = client.list("b", &[("max-keys", bad)]);
        assert_eq!((page.status, page.one("Code")), (400, "InvalidRequest".to_owned()), "{bad}");
    }
    let page = client.list("b", &[("continuation-token", "garbage")]);
    assert_eq!((page.status, page.one("Code")), (400, "InvalidParameter".to_owned()));
    assert_eq!(client.list("b", &[("start-after", "a-b")]).all("Key"), ["a/b", "b"]);
    assert_eq!(client.list("b", &[("prefix", "a")]).all("Key"), ["a", "a-b", "a/b"]);
    let page = client.list("b", &[("max-keys", "2")]);
    assert_eq!((page.one("IsTruncated").as_str(), page.one("KeyCount").as_str()), ("true", "2"));
    assert_eq!(page.one("NextContinuationToken"), "bDpa", "base64 of l:Z");
    assert_eq!(client.list("missing", &[]).refusal().1, "NoSuchBucket");
}

#[test]
fn documents_look_like_the_servers() {
    let standin = standin();
    let client = Client::admin(&standin);
    fill(&standin, ["d/a&b c", "d/e/f"]);
    let text = client.list("b", &[("delimiter", "/"), ("prefix", "d/"), ("encoding-type", "url")]).text();
    assert!(text.starts_with(
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>d/</Prefix><Contents><Key>d%2Fa%26b%20c</Key><LastModified>"#
    ), "{text}");
    assert!(text.ends_with(
        "<StorageClass>STANDARD</StorageClass></Contents><IsTruncated>false</IsTruncated><MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter><EncodingType>url</EncodingType><KeyCount>2</KeyCount><CommonPrefixes><Prefix>d%2Fe%2F</Prefix></CommonPrefixes></ListBucketResult>"
    ), "{text}");
    let plain = client.list("b", &[]).text();
    assert!(plain.contains("<Prefix/>") && plain.contains("<Key>d/a&amp;b c</Key>"), "{plain}");
    assert!(plain.contains(r#"<ETag>""#), "quotes are raw");
    // V1: the marker is the next one.
    let page = client.get("/b?delimiter=%2F&max-keys=1&prefix=d%2F");
    assert_eq!((page.one("Marker").as_str(), page.one("NextMarker").as_str()), ("d/a&b c", "d/a&b c"));
}

#[test]
fn big_folders_are_fast() {
    let standin = standin();
    let client = Client::admin(&standin);
    fill(&standin, (0..100_000).map(|i| format!("big/f{i:06}.txt")));
    fill(&standin, (0..50).map(|i| format!("other{i}")));
    let begun = std::time::Instant::now();
    let page = client.list("b", &[("delimiter", "/")]);
    assert_eq!((page.all("Key").len(), page.all("CommonPrefixes").len()), (50, 1));
    assert!(begun.elapsed().as_millis() < 500, "a folder is skipped by seeking");
    let (keys, _) = client.list_all("b", &[("delimiter", "/"), ("prefix", "big/"), ("max-keys", "999")]);
    assert_eq!(keys.len(), 100_000);
}
