//! Endpoints end in one slash, whatever was written.

use super::*;

fn url(text: &str) -> String {
    Endpoint::parse(text).expect("an endpoint").url
}

#[test]
fn an_endpoint_ends_in_one_slash() {
    for text in [
        "https://a.supabase.co/storage/v1/s3",
        "https://a.supabase.co/storage/v1/s3/",
        "HTTPS://A.supabase.co/storage/v1/s3//",
    ] {
        assert_eq!(url(text), "https://a.supabase.co/storage/v1/s3/");
    }
    assert_eq!(url("http://[::1]:54321/s3"), "http://[::1]:54321/s3/");
}

#[test]
fn a_bare_host_gets_the_path() {
    for text in ["http://127.0.0.1:54321", "http://127.0.0.1:54321/"] {
        let endpoint = Endpoint::parse(text).expect("an endpoint");
        assert_eq!(endpoint.url, "http://127.0.0.1:54321/storage/v1/s3/");
        assert!(endpoint.completed && endpoint.is_loopback());
    }
    assert!(!Endpoint::parse("http://127.0.0.1/s3").expect("an endpoint").completed);
}

#[test]
fn a_project_ref_gives_the_storage_host() {
    let endpoint = Endpoint::of_project("abc").expect("an endpoint");
    assert_eq!(endpoint.url, "https://abc.storage.supabase.co/storage/v1/s3/");
    assert_eq!(endpoint.project_ref(), Some("abc"));
    assert_eq!(Endpoint::parse("https://abc.supabase.co").expect("an endpoint").project_ref(), Some("abc"));
    assert_eq!(Endpoint::parse("https://example.com/s3").expect("an endpoint").project_ref(), None);
    for bad in ["", "https://abc.supabase.co", "a.b", "a/b", "a b"] {
        assert!(Endpoint::of_project(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_is_no_endpoint_is_refused() {
    for bad in [
        "",
        "abc",
        "ftp://a/b",
        "https://",
        "https:///s3",
        "https://a b/s3",
        "https://a/s3?x=1",
        "https://a:99999/",
        "https://a/#f",
    ] {
        assert!(Endpoint::parse(bad).is_err(), "{bad}");
    }
    let why = Endpoint::parse("https://me:hunter2@a/s3").expect_err("refused");
    assert!(!why.contains("hunter2"), "{why}");
}

#[test]
fn an_api_url_leads_to_the_endpoint_and_back() {
    let cases = [
        (
            "https://abc.supabase.co",
            "https://abc.storage.supabase.co/storage/v1/s3/",
            "https://abc.supabase.co",
        ),
        (
            "https://abc.supabase.co/",
            "https://abc.storage.supabase.co/storage/v1/s3/",
            "https://abc.supabase.co",
        ),
        ("http://127.0.0.1:54321", "http://127.0.0.1:54321/storage/v1/s3/", "http://127.0.0.1:54321"),
        ("https://example.com/api", "https://example.com/api/storage/v1/s3/", "https://example.com/api"),
        ("https://example.com/storage/v1/s3", "https://example.com/storage/v1/s3/", "https://example.com"),
    ];
    for (api, endpoint, back) in cases {
        let found = Endpoint::of_api(api).expect("an endpoint");
        assert_eq!((found.url.as_str(), found.api_url().as_str()), (endpoint, back), "{api}");
        assert!(!found.completed);
    }
    let bare = Endpoint::parse("http://127.0.0.1:5000/s3").expect("an endpoint");
    assert_eq!(bare.api_url(), "http://127.0.0.1:5000");
}
