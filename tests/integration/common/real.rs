//! A real stack named by the environment, with a small client to fill and empty buckets.

use std::collections::BTreeMap;
use std::env;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use aws_smithy_http_client::{Builder, tls};
use serde_json::json;
use supafs_standin::mint_jwt;
use tokio::runtime::Runtime;

use super::backend::Put;

/// Uploads at a time.
const PARALLEL: usize = 8;

pub(super) struct Real {
    pub endpoint: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub project_ref: String,
    pub anon_key: String,
    pub jwt_secret: String,
    pub rls_bucket: String,
    runtime: Runtime,
    client: Client,
}

impl Real {
    /// The stack that the environment names, if it names one.
    pub fn from_env() -> Option<Self> {
        let get = |name: &str| env::var(format!("SUPAFS_TEST_{name}")).ok().filter(|v| !v.is_empty());
        let endpoint = get("ENDPOINT")?;
        let need = |name: &str| get(name).unwrap_or_else(|| panic!("SUPAFS_TEST_{name} is not set"));
        let (access_key_id, secret_access_key) = (need("ACCESS_KEY_ID"), need("SECRET_ACCESS_KEY"));
        let region = get("REGION").unwrap_or_else(|| "us-east-1".to_owned());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads");
        let client = client(&endpoint, &region, &access_key_id, &secret_access_key);
        Some(Self {
            project_ref: need("PROJECT_REF"),
            anon_key: need("ANON_KEY"),
            jwt_secret: need("JWT_SECRET"),
            rls_bucket: need("RLS_BUCKET"),
            endpoint,
            region,
            access_key_id,
            secret_access_key,
            runtime,
            client,
        })
    }

    pub fn create_bucket(&self, name: &str) {
        self.runtime.block_on(self.client.create_bucket().bucket(name).send()).expect("a new bucket");
    }

    pub fn put(&self, bucket: &str, objects: Vec<(String, Vec<u8>, Put)>) {
        self.runtime.block_on(async {
            let mut objects = objects.into_iter();
            loop {
                let batch: Vec<_> = objects.by_ref().take(PARALLEL).collect();
                if batch.is_empty() {
                    return;
                }
                let sent = batch.into_iter().map(|(key, bytes, how)| self.put_one(bucket, key, bytes, how));
                futures::future::join_all(sent).await;
            }
        });
    }

    async fn put_one(&self, bucket: &str, key: String, bytes: Vec<u8>, how: Put) {
        // Another writer of the same key can hold the server's lock for longer than it waits.
        for attempt in 1.. {
            let sent = self
                .client
                .put_object()
                .bucket(bucket)
                .key(&key)
                .body(bytes.clone().into())
                .set_content_type(how.content_type.clone())
                .set_cache_control(how.cache_control.clone())
                .set_metadata(Some(how.metadata.clone().into_iter().collect()))
                .send()
                .await;
            match sent {
                Ok(_) => return,
                Err(error) => assert!(attempt < 4, "PUT {key:?}: {error:?}"),
            }
        }
    }

    /// By the REST API, as the role that no policy binds.
    pub fn limit_size(&self, bucket: &str, bytes: u64) {
        let api = self.endpoint.trim_end_matches('/').trim_end_matches("/s3");
        let token = mint_jwt(&self.jwt_secret, &json!({ "role": "service_role", "exp": 4_000_000_000_u64 }));
        let config =
            format!("header = \"authorization: Bearer {token}\"\nheader = \"apikey: {}\"\n", self.anon_key);
        let mut curl = Command::new("curl")
            .args(["--silent", "--show-error", "--fail-with-body", "--config", "-", "--request", "PUT"])
            .args(["--header", "content-type: application/json", &format!("{api}/bucket/{bucket}")])
            .args(["--data", &json!({ "public": false, "file_size_limit": bytes }).to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("curl");
        curl.stdin.take().expect("its input").write_all(config.as_bytes()).expect("its settings");
        assert!(curl.wait().expect("curl").success(), "the limit of {bucket} is not set");
    }

    /// What a HEAD shows: ETag, content type, cache control.
    pub fn head(&self, bucket: &str, key: &str) -> BTreeMap<&'static str, String> {
        let head = self
            .runtime
            .block_on(self.client.head_object().bucket(bucket).key(key).send())
            .expect("the object is there");
        [("etag", head.e_tag), ("content-type", head.content_type), ("cache-control", head.cache_control)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    /// What an object holds; `None` where there is none.
    pub fn bytes(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        // A read that races an overwrite, such as the copy of attributes that are set a moment after chmod, is a 404 of this
        // code, and not the `NoSuchKey` of an object that is not there.
        let races = |code: Option<&str>| code == Some("S3Error");
        self.runtime.block_on(async {
            for _ in 0..10 {
                match self.client.get_object().bucket(bucket).key(key).send().await {
                    Ok(got) => return Some(got.body.collect().await.expect("a whole body").to_vec()),
                    Err(error) if races(error.code()) => tokio::time::sleep(Duration::from_millis(100)).await,
                    Err(_) => return None,
                }
            }
            panic!("GET {bucket}/{key} races an overwrite for a second")
        })
    }

    /// Content type, cache control and user metadata; `None` where there is no object.
    pub fn headers(&self, bucket: &str, key: &str) -> Option<Put> {
        let head = self.runtime.block_on(self.client.head_object().bucket(bucket).key(key).send()).ok()?;
        Some(Put {
            content_type: head.content_type,
            cache_control: head.cache_control,
            metadata: head.metadata.unwrap_or_default().into_iter().collect(),
        })
    }

    pub fn delete(&self, bucket: &str, keys: &[String]) {
        self.runtime.block_on(async {
            for batch in keys.chunks(500) {
                let objects = batch
                    .iter()
                    .map(|key| ObjectIdentifier::builder().key(key).build().expect("a key"))
                    .collect();
                let delete = Delete::builder().set_objects(Some(objects)).build().expect("objects");
                self.client.delete_objects().bucket(bucket).delete(delete).send().await.expect("deleted");
            }
        });
    }

    /// All keys below a prefix; listed flat, which the server pages correctly.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        self.runtime.block_on(async {
            let (mut keys, mut token) = (Vec::new(), None);
            loop {
                let page = self
                    .client
                    .list_objects_v2()
                    .bucket(bucket)
                    .prefix(prefix)
                    .set_continuation_token(token)
                    .send()
                    .await
                    .expect("a listing");
                keys.extend(page.contents().iter().filter_map(|object| object.key().map(ToOwned::to_owned)));
                token = page.next_continuation_token;
                if token.is_none() {
                    return keys;
                }
            }
        })
    }

    /// Multipart uploads of a bucket that are not completed.
    pub fn uploads(&self, bucket: &str) -> usize {
        let listed = self.runtime.block_on(self.client.list_multipart_uploads().bucket(bucket).send());
        listed.expect("a listing").uploads().len()
    }

    /// Empties and removes a bucket. Says what went wrong instead of failing: it runs while tests unwind.
    pub fn remove_bucket(&self, name: &str) {
        self.delete(name, &self.keys(name, ""));
        if let Err(error) = self.runtime.block_on(self.client.delete_bucket().bucket(name).send()) {
            eprintln!("the bucket {name} stays behind: {error:?}");
        }
    }
}

fn client(endpoint: &str, region: &str, id: &str, secret: &str) -> Client {
    let http = Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .build_https();
    Client::from_conf(
        aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            // The SDK joins a path without a slash at its end wrongly.
            .endpoint_url(format!("{}/", endpoint.trim_end_matches('/')))
            .region(Region::new(region.to_owned()))
            .credentials_provider(Credentials::new(id, secret, None, None, "tests"))
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .http_client(http)
            .build(),
    )
}
