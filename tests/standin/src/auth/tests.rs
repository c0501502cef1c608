//! Known answers: a signature from AWS's own documentation, token verification, aws-chunked decoding.

use http::HeaderMap;
use serde_json::json;

use super::chunked::ChunkDecoder;
use super::jwt;
use super::sigv4::{self, KeyCache, Query, Signed};

/// "GET Object" of <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.
#[test]
fn aws_documents_this_signature() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "examplebucket.s3.amazonaws.com"),
        ("range", "bytes=0-9"),
        ("x-amz-content-sha256", empty),
        ("x-amz-date", "20130524T000000Z"),
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let query = Query::new();
    let request = Signed { method: "GET", raw_path: "/test.txt", query: &query, headers: &headers };
    let client = sigv4::parse(&headers, &query).unwrap();
    let keys = KeyCache::default();
    let matches = |secret| sigv4::matches(&client, &request, secret, "us-east-1", &keys);
    assert!(matches("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"));
    assert!(!matches("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEX"));
}

/// "GET Bucket (List Objects)" of the same page: query parameters.
#[test]
fn aws_documents_this_query_signature() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "examplebucket.s3.amazonaws.com"),
        ("x-amz-content-sha256", empty),
        ("x-amz-date", "20130524T000000Z"),
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let query: Query = vec![("prefix".into(), "J".into()), ("max-keys".into(), "2".into())];
    let request = Signed { method: "GET", raw_path: "/", query: &query, headers: &headers };
    let client = sigv4::parse(&headers, &query).unwrap();
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    assert!(sigv4::matches(&client, &request, secret, "us-east-1", &KeyCache::default()));
}

#[test]
fn tokens_are_checked_in_the_servers_order() {
    let refusal = |token: &str| jwt::verify("secret", token, 100).unwrap_err().message.into_owned();
    let token = jwt::mint_jwt("secret", &json!({"sub": "u", "exp": 101, "nbf": 100}));
    assert_eq!(jwt::verify("secret", &token, 100).unwrap()["sub"], "u");
    assert_eq!(jwt::verify("other", &token, 100).unwrap_err().message, "signature verification failed");
    let mint = |claims| jwt::mint_jwt("secret", &claims);
    assert_eq!(refusal(&mint(json!({"exp": 100}))), "\"exp\" claim timestamp check failed");
    assert_eq!(refusal(&mint(json!({"nbf": 101}))), "\"nbf\" claim timestamp check failed");
    assert!(jwt::verify("secret", &mint(json!({"iat": 999})), 100).is_ok(), "no exp: never expires");
    assert_eq!(refusal("junk"), "Invalid Compact JWS");
    assert_eq!(refusal("a.b.c"), "JWS Protected Header is invalid");
    // {"alg":"none"}
    assert_eq!(refusal("eyJhbGciOiJub25lIn0.e30."), "\"alg\" (Algorithm) Header Parameter value not allowed");
}

#[test]
fn chunks_are_decoded_however_they_are_cut() {
    let wire = b"5;chunk-signature=abc\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
    for cut in 1..wire.len() {
        let mut decoder = ChunkDecoder::new();
        let mut out = Vec::new();
        for piece in wire.chunks(cut) {
            decoder.push(piece, &mut out).unwrap();
        }
        decoder.finish().unwrap();
        assert_eq!(out.concat(), b"hello world", "{cut}");
    }
    let mut decoder = ChunkDecoder::new();
    decoder.push(b"0\r\n", &mut Vec::new()).unwrap();
    assert_eq!(decoder.finish().unwrap_err().message, "Incomplete trailer section");
    let mut decoder = ChunkDecoder::new();
    assert_eq!(decoder.push(b"800001\r\n", &mut Vec::new()).unwrap_err().status, 413);
}
