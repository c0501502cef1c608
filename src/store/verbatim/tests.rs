use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use proptest::prelude::*;
use supafs_standin::{Config, PutOptions, Standin};
use tokio::sync::watch;

use super::*;
use crate::config::{Root, Service, Tuning};
use crate::identity::{Authority, Identity, Refused, Renewal};
use crate::name::is_allowed;
use crate::stats::Stats;
use crate::store::s3::S3Service;
use crate::store::{Doubt, ObjectHeaders, ObjectStore};

const BUCKET: &str = "bucket";

/// Access keys, which never expire.
#[derive(Debug)]
struct Keys;

#[async_trait]
impl Authority for Keys {
    fn identity(&self) -> Identity {
        Identity::Keys { access_key_id: "key".to_owned() }
    }

    fn expires_at(&self) -> Option<SystemTime> {
        None
    }

    async fn renew(&self, _: bool) -> Renewal {
        Renewal::StillValid
    }

    fn estranged(&self) -> Option<watch::Receiver<bool>> {
        None
    }

    fn explain(&self, refusal: &Refused<'_>) -> String {
        refusal.message.to_owned()
    }
}

fn store(standin: &Standin) -> Arc<dyn ObjectStore> {
    let keys = standin.credentials();
    let credentials = Credentials::new(keys.access_key_id, keys.secret_access_key, None, None, "test");
    let tuning = Tuning {
        metadata_ttl: Duration::ZERO,
        negative_ttl: Duration::ZERO,
        metadata_entries: 1000,
        cache_memory: 1 << 20,
        max_requests: 4,
        op_timeout: Duration::from_secs(20),
    };
    let endpoint = format!("{}/", standin.endpoint().trim_end_matches('/'));
    let service = Service { endpoint, region: standin.region() };
    let provider = SharedCredentialsProvider::new(credentials);
    let s3 = S3Service::new(&service, provider, Arc::new(Keys), &tuning, Arc::new(Stats::default()));
    s3.expect("a client").root(&Root::Bucket { bucket: BUCKET.to_owned(), prefix: String::new() })
}

/// What `setfattr` and `--cache-control` accept, with many runs of spaces.
fn value() -> impl Strategy<Value = String> {
    "[!-~]([!-~]| {1,4}){0,20}[!-~]"
        .prop_filter("a header's value", |value| is_header_value(value.as_bytes()))
}

/// A key that the server takes, with many spaces anywhere.
fn key() -> impl Strategy<Value = String> {
    let byte = prop_oneof![Just(b' '), any::<u8>().prop_filter("allowed", |byte| is_allowed(*byte))];
    let is_key = |key: &String| !matches!(key.as_str(), "." | "..");
    prop::collection::vec(byte, 1..30)
        .prop_map(|bytes| String::from_utf8(bytes).expect("ASCII"))
        .prop_filter("a name", is_key)
}

fn headers() -> impl Strategy<Value = ObjectHeaders> {
    let metadata = prop::collection::btree_map("[a-z][a-z0-9-]{0,8}", value(), 1..4);
    ("[a-z]{1,8}", "[a-z]{1,8}", value(), value(), metadata).prop_map(
        |(kind, subtype, parameter, cache_control, metadata)| ObjectHeaders {
            content_type: Some(format!("{kind}/{subtype};  note={parameter}")),
            cache_control: Some(cache_control),
            metadata,
        },
    )
}

fn stored(standin: &Standin, key: &str) -> (ObjectHeaders, Vec<u8>) {
    let info = standin.stat(BUCKET, key).unwrap_or_else(|| panic!("{key:?} is there"));
    let bytes = standin.get(BUCKET, key).expect("it is there").to_vec();
    let headers = ObjectHeaders {
        content_type: info.content_type,
        cache_control: info.cache_control,
        metadata: info.metadata,
    };
    (headers, bytes)
}

#[test]
fn whatever_is_in_a_key_or_a_value_the_servers_signature_check_agrees() {
    let standin = Standin::start(Config::default()).expect("a stand-in");
    standin.create_bucket(BUCKET);
    let store = store(&standin);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(from in key(), headers in headers())| {
        let metadata = BTreeMap::from([("old".to_owned(), "a  b".to_owned())]);
        let options = PutOptions { metadata: metadata.clone(), ..PutOptions::default() };
        standin.put_with(BUCKET, &from, from.clone(), options);
        runtime.block_on(async {
            store.copy(&from, "plain", from.len() as u64, None).await.expect("copied as it is");
            store.copy(&from, "changed", from.len() as u64, Some(&headers)).await.expect("copied");
            let id = store.create_upload("parts", &headers, &Doubt::default()).await.expect("an upload");
            let part = store.copy_part("parts", &id, 1, &from, 0..from.len() as u64).await.expect("a part");
            store.complete_upload("parts", &id, &[part]).await.expect("completed");
            assert_eq!(store.head(&from).await.expect("there").metadata, metadata);
            store.copy("plain", &from, from.len() as u64, Some(&headers)).await.expect("copied back");
            assert_eq!(store.head(&from).await.expect("there").metadata, headers.metadata);
        });
        assert_eq!(stored(&standin, "plain").0.metadata, metadata, "{from:?}");
        for key in ["changed", "parts", &from] {
            let (found, bytes) = stored(&standin, key);
            assert_eq!(found, headers, "{from:?} as {key:?}");
            assert_eq!(bytes, from.as_bytes());
        }
        runtime.block_on(store.delete(&from)).expect("deleted");
        assert!(standin.stat(BUCKET, &from).is_none());
    });
}

#[test]
fn media_types_are_told_from_what_the_server_refuses() {
    for good in ["text/plain", "text/plain;  charset=utf-8", "application/vnd.a+json", "x/y; a=\"b c\""] {
        assert!(is_media_type(good), "{good}");
    }
    for bad in
        ["", "text", "text/", "/plain", "a b/c", "text/a b", "multipart/form-data; boundary=x", "a/b/c"]
    {
        assert!(!is_media_type(bad), "{bad}");
    }
}
