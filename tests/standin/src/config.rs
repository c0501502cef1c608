//! What a stand-in is started with: port, region, credentials and the switches that can also be turned
//! while it runs. Owns the fixed default credentials.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::auth::jwt::mint_jwt;

/// The user id of the demo user Alice, as Supabase Auth would have issued it.
pub const ALICE: &str = "a11ce000-5a1e-4c1d-9f00-00000000a11c";
/// The user id of the demo user Bob.
pub const BOB: &str = "b0b00000-7e57-4d0e-8b00-000000000b0b";

/// Everything a client may need to sign for either mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Access key id of the full-access pair.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Access key id of the session-token mode (the tenant id; `stub` on the Supabase CLI).
    pub project_ref: String,
    /// Secret of the session-token mode: the anon key, used as a plain string.
    pub anon_key: String,
    /// HS256 secret that user tokens are verified with.
    pub jwt_secret: String,
}

impl Default for Credentials {
    fn default() -> Self {
        let jwt_secret = "standin-jwt-secret-with-at-least-32-characters".to_owned();
        // `exp` lies in 2099, as the CLI's demo keys, too, outlive every test run.
        let claims = json!({"iss": "supabase-standin", "role": "anon", "iat": 1_700_000_000, "exp": 4_070_908_800_u64});
        Self {
            access_key_id: "5d1f0c3b9a7e42c68b10f4d2e6a97350".to_owned(),
            secret_access_key: "9c41b7e05fd2836a1e7740c9ab35d8f21604ce9d7b82a3f5500e6d1c94b7f8a2".to_owned(),
            project_ref: "stub".to_owned(),
            anon_key: mint_jwt(&jwt_secret, &claims),
            jwt_secret,
        }
    }
}

/// What stores the bytes behind the server, which shows through in multipart uploads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// As on the CLI and by default on one's own host: part `ETag`s without quotes, compared as strings;
    /// parts of any size, assembled in the order listed; an object's `ETag` is its MD5 however it came.
    #[default]
    File,
    /// As on the hosted product: part `ETag`s with quotes, which do not matter when they come back; parts
    /// of 5 MiB at least and in ascending order, or completing fails with 400 `S3Error`; upload ids that
    /// are no UUIDs; `ETag`s `…-N` of multipart objects and of PUTs above 16 MiB.
    S3,
}

/// A user of Supabase Auth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub email: String,
    pub password: String,
    /// The user's id.
    pub sub: String,
    /// `authenticated`, as a rule.
    pub role: String,
    /// Users who have not confirmed their address cannot sign in.
    pub confirmed: bool,
}

impl User {
    /// A confirmed user with the role `authenticated`.
    #[must_use]
    pub fn new(email: &str, password: &str, sub: &str) -> Self {
        Self {
            email: email.to_owned(),
            password: password.to_owned(),
            sub: sub.to_owned(),
            role: "authenticated".to_owned(),
            confirmed: true,
        }
    }
}

/// Supabase Auth. Its requests carry `apikey`: the anon key.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    pub users: Vec<User>,
    /// Until an access token expires.
    pub token_lifetime: Duration,
    /// How long a refresh token may be used again after its first use.
    pub reuse_interval: Duration,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            users: vec![
                User::new("alice@example.com", "alice-password", ALICE),
                User::new("bob@example.com", "bob-password", BOB),
            ],
            token_lifetime: Duration::from_hours(1),
            reuse_interval: Duration::from_secs(10),
        }
    }
}

/// How a stand-in is started.
#[derive(Clone, Debug)]
pub struct Config {
    /// TCP port on 127.0.0.1; 0 picks a free one.
    pub port: u16,
    /// The server's region. `us-east-1`, `auto` and the empty region are accepted as well.
    pub region: String,
    /// Accepted credentials.
    pub credentials: Credentials,
    /// Keep buckets and objects below this directory; in memory when absent.
    pub data_dir: Option<PathBuf>,
    /// Added before every request is looked at.
    pub latency: Duration,
    /// Bytes per second at which a GET "hashes" the whole object before its first byte (the file backend's
    /// MD5); no delay when absent.
    pub hash_rate: Option<u64>,
    /// Lose keys in delimiter listings at page boundaries, as the real server does.
    pub list_loss: bool,
    /// What stores the bytes.
    pub backend: Backend,
    /// Most bytes of an object (the CLI's default); buckets may have a lower limit.
    pub file_size_limit: u64,
    /// Most bytes of a single PUT (the CLI's default).
    pub standard_size_limit: u64,
    /// Make `ETag`s by MD5, which takes 600 MB/s of a core. Without, those of parts and of
    /// PUTs above 16 MiB are numbers: for benchmarks.
    pub md5: bool,
    /// Supabase Auth.
    pub auth: AuthConfig,
    /// Tokio worker threads.
    pub threads: usize,
    /// Requests kept in the log; later ones are only counted.
    pub log_capacity: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: 0,
            region: "local".to_owned(),
            credentials: Credentials::default(),
            data_dir: None,
            latency: Duration::ZERO,
            hash_rate: None,
            list_loss: true,
            backend: Backend::File,
            file_size_limit: 52_428_800_000,
            standard_size_limit: 5_242_880_000,
            md5: true,
            auth: AuthConfig::default(),
            threads: 2,
            log_capacity: 500_000,
        }
    }
}
