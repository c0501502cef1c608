//! The embedding API: a server on its own threads, seeded, observed and broken by plain method calls.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::auth::jwt::mint_jwt;
use crate::auth::sigv4::KeyCache;
use crate::clock;
use crate::config::{AuthConfig, Config, Credentials};
use crate::fault::{Fault, FaultId, Faults};
use crate::log::{LogEntry, RequestLog, Totals};
use crate::rls::Policy;
use crate::server::{self, Shared, target::PREFIX};
use crate::sessions::{Granted, Sessions};
use crate::store::content::Content;
use crate::store::etag::{self, Etag};
use crate::store::object::Object;
use crate::store::{Bucket, Store};

/// Attributes of a seeded object; the default is what a bare PUT stores.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// `application/octet-stream` if absent.
    pub content_type: Option<String>,
    /// `no-cache` if absent.
    pub cache_control: Option<String>,
    /// User metadata, names without `x-amz-meta-`, in lower case.
    pub metadata: BTreeMap<String, String>,
    /// `sub` of the user who uploaded it.
    pub owner: Option<String>,
    /// Now if absent; cut to milliseconds.
    pub last_modified: Option<SystemTime>,
}

/// What a bucket lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketLimits {
    /// Most bytes of an object; copies of objects are not held to it.
    pub file_size_limit: Option<u64>,
    /// `image/png`, `image/*`, …; empty for any.
    pub allowed_mime_types: Vec<String>,
}

/// A multipart upload under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadInfo {
    pub upload_id: String,
    pub key: String,
    /// Numbers of the parts that are there.
    pub parts: Vec<u32>,
    /// Bytes accepted, those of replaced parts included.
    pub progress: u64,
}

/// A running stand-in. Dropping it stops the server and frees the port.
pub struct Standin {
    shared: Arc<Shared>,
    port: u16,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Standin {
    /// Starts a server on 127.0.0.1 with threads of its own. Blocks until it listens.
    ///
    /// # Errors
    /// If the port is taken, the data directory cannot be read, or no thread can be started.
    pub fn start(config: Config) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .max_blocking_threads(16)
            .thread_name("standin")
            .enable_all()
            .build()?;
        let shared = Arc::new(Shared {
            store: Store::open(config.data_dir.as_deref(), config.md5)?,
            log: RequestLog::new(config.log_capacity),
            faults: Faults::new(),
            credentials: RwLock::new(config.credentials),
            region: config.region,
            latency: AtomicU64::new(nanos(config.latency)),
            hash_rate: AtomicU64::new(config.hash_rate.unwrap_or(0)),
            list_loss: AtomicBool::new(config.list_loss),
            backend: config.backend,
            file_size_limit: AtomicU64::new(config.file_size_limit),
            standard_size_limit: AtomicU64::new(config.standard_size_limit),
            sessions: Sessions::new(config.auth),
            keys: KeyCache::default(),
        });
        let listener = {
            let _context = runtime.enter();
            server::bind(config.port)?
        };
        let port = listener.local_addr()?.port();
        let (stop, stopped) = watch::channel(false);
        let serving = Arc::clone(&shared);
        // A thread of its own owns the runtime, so that the stand-in may be dropped inside another one.
        let thread = std::thread::Builder::new().name("standin-main".to_owned()).spawn(move || {
            runtime.block_on(server::serve(serving, listener, stopped));
            runtime.shutdown_timeout(Duration::from_secs(1));
        })?;
        Ok(Self { shared, port, stop, thread: Some(thread) })
    }

    /// The S3 endpoint, as Supabase publishes it (no trailing slash).
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}{PREFIX}", self.port)
    }

    /// The same without a path, for clients that cannot sign one.
    #[must_use]
    pub fn plain_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where Supabase Auth answers (`…/token`, `…/logout`).
    #[must_use]
    pub fn auth_url(&self) -> String {
        format!("http://127.0.0.1:{}/auth/v1", self.port)
    }

    /// Where the REST API of Storage answers (`…/object/move`, `…/bucket/<id>`).
    #[must_use]
    pub fn rest_url(&self) -> String {
        format!("http://127.0.0.1:{}/storage/v1", self.port)
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The region clients may sign with (`us-east-1` and `auto` work as well).
    #[must_use]
    pub fn region(&self) -> String {
        self.shared.region.clone()
    }

    /// The credentials accepted now.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.shared.credentials.read().clone()
    }

    /// Accepts other credentials from now on: rotated keys, another anon key, another JWT secret.
    pub fn set_credentials(&self, credentials: Credentials) {
        *self.shared.credentials.write() = credentials;
    }

    /// A user token that expires `ttl` from now. `extra` claims (an object) win over the standard ones, and
    /// a null among them removes the claim.
    #[must_use]
    pub fn mint(&self, sub: &str, role: &str, ttl: Duration, extra: &Value) -> String {
        let secret = self.shared.credentials.read().jwt_secret.clone();
        mint_user(&secret, sub, role, i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX / 2), extra)
    }

    /// Makes a bucket without policies: users see nothing in it. Does nothing if it exists.
    ///
    /// # Panics
    /// If the data directory cannot be written; so do all seeding methods.
    pub fn create_bucket(&self, name: &str) {
        self.shared.store.create_bucket(name, false).expect("bucket written");
    }

    /// Whether there is such a bucket.
    #[must_use]
    pub fn has_bucket(&self, name: &str) -> bool {
        self.shared.store.read(name, |_| ()).is_some()
    }

    /// Stores an object as the service role would.
    pub fn put(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) {
        self.put_with(bucket, key, bytes, PutOptions::default());
    }

    /// Stores an object with attributes.
    pub fn put_with(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>, options: PutOptions) {
        self.store(bucket, key, Object::from_bytes(bytes.into()), options);
    }

    /// Stores an object of `size` bytes that are computed when they are read: `synthetic_bytes(seed, …)`.
    pub fn put_synthetic(&self, bucket: &str, key: &str, size: u64, seed: u64) {
        self.put_synthetic_with(bucket, key, size, seed, PutOptions::default());
    }

    /// As `put_synthetic`, with attributes.
    pub fn put_synthetic_with(&self, bucket: &str, key: &str, size: u64, seed: u64, options: PutOptions) {
        self.store(bucket, key, Object::synthetic(size, seed), options);
    }

    /// Stores an object of these pieces, which are kept as they are, as if each had been a part.
    pub fn put_pieces(&self, bucket: &str, key: &str, pieces: &[Bytes]) {
        let content = Content::join(pieces.iter().cloned().map(Content::Memory));
        let etag = Etag { hash: etag::unique(), parts: u32::try_from(pieces.len()).unwrap_or(u32::MAX) };
        self.store(bucket, key, Object::new(content, etag), PutOptions::default());
    }

    fn store(&self, bucket: &str, key: &str, mut object: Object, options: PutOptions) {
        if let Some(kind) = options.content_type {
            object.content_type = Some(kind.into());
        }
        if let Some(cache) = options.cache_control {
            object.cache_control = Some(cache.into());
        }
        if !options.metadata.is_empty() {
            object.metadata = Some(Arc::new(options.metadata));
        }
        object.owner = options.owner.map(Arc::from);
        if let Some(time) = options.last_modified {
            object.updated_at = clock::from_system(time);
            object.created_at = object.updated_at;
        }
        let stored = self.shared.store.put(bucket, key, object);
        assert!(stored.is_ok(), "no bucket {bucket}, or the data directory cannot be written");
    }

    /// Removes an object; says whether it was there.
    #[allow(clippy::must_use_candidate, reason = "called for what it does")]
    pub fn delete(&self, bucket: &str, key: &str) -> bool {
        self.shared.store.delete(bucket, key).is_some()
    }

    /// All keys of a bucket in byte order; none if there is no such bucket.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let keys = |b: &Bucket| b.objects.keys().map(ToString::to_string).collect();
        self.shared.store.read(bucket, keys).unwrap_or_default()
    }

    /// The content of an object. Computes a synthetic one in memory: mind its size.
    #[must_use]
    pub fn get(&self, bucket: &str, key: &str) -> Option<Bytes> {
        let object = self.shared.store.get(bucket, key)?;
        object.content.read(0, usize::try_from(object.size()).ok()?).ok()
    }

    /// Attributes of an object as stored.
    #[must_use]
    pub fn stat(&self, bucket: &str, key: &str) -> Option<ObjectInfo> {
        let object = self.shared.store.get(bucket, key)?;
        Some(ObjectInfo {
            size: object.size(),
            etag: object.quoted_etag(),
            content_type: object.content_type.as_deref().map(str::to_owned),
            cache_control: object.cache_control.as_deref().map(str::to_owned),
            metadata: object.metadata.as_deref().cloned().unwrap_or_default(),
            owner: object.owner.as_deref().map(str::to_owned),
            last_modified: SystemTime::UNIX_EPOCH
                + Duration::from_millis(u64::try_from(object.updated_at).unwrap_or(0)),
        })
    }

    /// Replaces the policies on a bucket's objects.
    ///
    /// # Panics
    /// If there is no such bucket.
    pub fn set_policies(&self, bucket: &str, policies: Vec<Policy>) {
        self.shared.store.update(bucket, |b| b.policies = policies).expect("bucket exists");
    }

    /// Lets users of these roles see the bucket itself (`HeadBucket`, `ListBuckets`).
    ///
    /// # Panics
    /// If there is no such bucket.
    pub fn set_bucket_visible_to(&self, bucket: &str, roles: &[&str]) {
        let roles = roles.iter().map(|r| (*r).to_owned()).collect();
        self.shared.store.update(bucket, |b| b.visible_to = roles).expect("bucket exists");
    }

    /// Sets what a bucket lets in.
    ///
    /// # Panics
    /// If there is no such bucket.
    pub fn set_bucket_limits(&self, bucket: &str, limits: BucketLimits) {
        let set = |b: &mut Bucket| {
            b.file_size_limit = limits.file_size_limit;
            b.allowed_mime_types = limits.allowed_mime_types;
        };
        self.shared.store.update(bucket, set).expect("bucket exists");
    }

    /// Sets the project's limits: bytes of an object, however it is uploaded, and of a single PUT.
    pub fn set_size_limits(&self, any: u64, single: u64) {
        self.shared.file_size_limit.store(any, Ordering::Relaxed);
        self.shared.standard_size_limit.store(single, Ordering::Relaxed);
    }

    /// The multipart uploads under way in a bucket, by key, then by id.
    #[must_use]
    pub fn uploads(&self, bucket: &str) -> Vec<UploadInfo> {
        let uploads = &self.shared.store.uploads;
        let info = |(key, upload_id, _): (String, String, _)| {
            let (parts, progress) =
                uploads.with(&upload_id, |u| (u.parts.keys().copied().collect(), u.progress)).ok()?;
            Some(UploadInfo { upload_id, key, parts, progress })
        };
        uploads.of_bucket(bucket).into_iter().filter_map(info).collect()
    }

    /// Changes users and intervals of Supabase Auth.
    pub fn configure_auth(&self, change: impl FnOnce(&mut AuthConfig)) {
        self.shared.sessions.configure(change);
    }

    /// Signs a user in, as `grant_type=password` does.
    ///
    /// # Panics
    /// If there is no such user, or the password is another.
    #[must_use]
    pub fn sign_in(&self, email: &str, password: &str) -> Granted {
        let secret = self.shared.credentials.read().jwt_secret.clone();
        self.shared.sessions.sign_in(email, password, &secret).expect("signs in")
    }

    /// Ends all sessions of a user: their refresh tokens are no longer known.
    pub fn end_sessions(&self, sub: &str) {
        self.shared.sessions.end_all_of(sub);
    }

    /// Sessions of a user that can still be refreshed.
    #[must_use]
    pub fn session_count(&self, sub: &str) -> usize {
        self.shared.sessions.count_of(sub)
    }

    /// All requests since the last `clear_log`, in order of arrival, running ones included.
    #[must_use]
    pub fn log(&self) -> Vec<LogEntry> {
        self.shared.log.entries()
    }

    /// Requests by operation since the last `clear_log`.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.shared.log.counts()
    }

    /// Requests of one operation since the last `clear_log`.
    #[must_use]
    pub fn count(&self, operation: &str) -> u64 {
        self.counts().get(operation).copied().unwrap_or(0)
    }

    /// Requests without a complete answer right now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.log.in_flight()
    }

    /// Most requests that were in flight at once since the last `clear_log`.
    #[must_use]
    pub fn peak_in_flight(&self) -> usize {
        self.shared.log.peak()
    }

    /// The same for one operation.
    #[must_use]
    pub fn peak_of(&self, operation: &str) -> usize {
        self.shared.log.peak_of(operation)
    }

    /// What all requests since the last `clear_log` moved and did.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.log.totals()
    }

    /// Forgets log, counts, totals and peaks.
    pub fn clear_log(&self) {
        self.shared.log.clear();
    }

    /// Arms a fault.
    #[allow(clippy::must_use_candidate, reason = "called for what it does")]
    pub fn fault(&self, fault: Fault) -> FaultId {
        self.shared.faults.add(fault)
    }

    /// How often a fault has struck.
    #[must_use]
    pub fn fault_hits(&self, id: FaultId) -> u64 {
        self.shared.faults.hits(id)
    }

    /// Disarms one fault; requests that hang on it go on.
    pub fn clear_fault(&self, id: FaultId) {
        self.shared.faults.clear(Some(id));
    }

    /// Disarms all faults.
    pub fn clear_faults(&self) {
        self.shared.faults.clear(None);
    }

    /// Waits so long before every request.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.latency.store(nanos(latency), Ordering::Relaxed);
    }

    /// Delays every GET by the object's size at so many bytes per second; `None` for no delay.
    pub fn set_hash_rate(&self, bytes_per_second: Option<u64>) {
        self.shared.hash_rate.store(bytes_per_second.unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether delimiter listings lose keys, as the real server's do.
    pub fn set_list_loss(&self, list_loss: bool) {
        self.shared.list_loss.store(list_loss, Ordering::Relaxed);
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // Only fails if the server panicked, which its tests then show.
            let _ = thread.join();
        }
    }
}

/// What the store knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    pub size: u64,
    /// With quotes.
    pub etag: String,
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub owner: Option<String>,
    pub last_modified: SystemTime,
}

/// A token with the claims Supabase Auth issues. A negative `ttl` (seconds) makes an expired one.
#[must_use]
pub fn mint_user(secret: &str, sub: &str, role: &str, ttl: i64, extra: &Value) -> String {
    let now = clock::now_seconds();
    let mut claims = json!({
        "sub": sub, "role": role, "aud": "authenticated", "iss": "http://127.0.0.1/auth/v1",
        "iat": now, "exp": now.saturating_add(ttl),
    });
    if let (Some(claims), Some(extra)) = (claims.as_object_mut(), extra.as_object()) {
        for (name, value) in extra {
            claims.insert(name.clone(), value.clone());
        }
        claims.retain(|_, value| !value.is_null());
    }
    mint_jwt(secret, &claims)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
