//! The server that a test talks to: an embedded stand-in, or the real stack that the environment names.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use supafs_standin::{BucketLimits, Config, Fault, FaultId, Policy, PutOptions, Standin, mint_user};

use super::counts::Counts;
use super::real::Real;

enum Server {
    Standin(Box<Standin>),
    Real(Box<Real>),
}

/// A server.
pub struct Backend {
    server: Server,
}

/// Attributes of a seeded object.
#[derive(Clone, Debug, Default)]
pub struct Put {
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub metadata: BTreeMap<String, String>,
}

/// What a client needs to know of a server.
#[derive(Clone, Debug)]
pub struct Facts {
    pub endpoint: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
    pub project_ref: String,
    pub anon_key: String,
    pub jwt_secret: String,
}

/// A name that no other test, nor another run, uses.
pub fn unique(stem: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{stem}-{:x}-{:x}-{count}", nanos % (1 << 60), std::process::id())
}

/// A user id of this test's own, in the form that policies cast to.
fn unique_user() -> String {
    let hex = supafs_user_hex(&unique("user"));
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

fn supafs_user_hex(text: &str) -> String {
    super::tools::sha256_hex(text.as_bytes())
}

impl Backend {
    /// The server of this run.
    pub fn start() -> Self {
        match Real::from_env() {
            Some(real) => Self { server: Server::Real(Box::new(real)) },
            None => Self::with(Config::default()),
        }
    }

    /// A stand-in, or nothing, with a line that says so, where this run is for a real stack.
    pub fn standin_only(why: &str) -> Option<Self> {
        if Real::from_env().is_some() {
            eprintln!("skipped on a real stack: {why}");
            return None;
        }
        Some(Self::with(Config::default()))
    }

    fn with(config: Config) -> Self {
        Self { server: Server::Standin(Box::new(Standin::start(config).expect("the stand-in starts"))) }
    }

    pub fn is_real(&self) -> bool {
        matches!(self.server, Server::Real(_))
    }

    /// The stand-in itself, to break and to observe.
    ///
    /// # Panics
    /// On a real stack: such tests begin with `standin_only!`.
    pub fn standin(&self) -> &Standin {
        match &self.server {
            Server::Standin(standin) => standin,
            Server::Real(_) => panic!("this test needs the stand-in"),
        }
    }

    /// Arms a fault of the stand-in.
    pub fn fault(&self, fault: Fault) -> FaultId {
        self.standin().fault(fault)
    }

    pub fn facts(&self) -> Facts {
        match &self.server {
            Server::Standin(standin) => {
                let credentials = standin.credentials();
                Facts {
                    endpoint: standin.endpoint(),
                    region: standin.region(),
                    access_key_id: credentials.access_key_id,
                    secret_access_key: credentials.secret_access_key,
                    project_ref: credentials.project_ref,
                    anon_key: credentials.anon_key,
                    jwt_secret: credentials.jwt_secret,
                }
            }
            Server::Real(real) => Facts {
                endpoint: real.endpoint.clone(),
                region: real.region.clone(),
                access_key_id: real.access_key_id.clone(),
                secret_access_key: real.secret_access_key.clone(),
                project_ref: real.project_ref.clone(),
                anon_key: real.anon_key.clone(),
                jwt_secret: real.jwt_secret.clone(),
            },
        }
    }

    /// A token of a user with the role `authenticated`; negative seconds make an expired one.
    pub fn token(&self, sub: &str, seconds: i64) -> String {
        mint_user(&self.facts().jwt_secret, sub, "authenticated", seconds, &json!({}))
    }

    /// A token of a user, with further claims; without a `sub`, one of the role anon.
    pub fn token_with(&self, sub: Option<&str>, claims: &Value) -> String {
        let secret = self.facts().jwt_secret;
        match sub {
            Some(sub) => mint_user(&secret, sub, "authenticated", 3600, claims),
            None => mint_user(&secret, "", "anon", 3600, &json!({ "sub": null })),
        }
    }

    /// An empty bucket of the test's own.
    pub fn bucket(&self) -> Bucket<'_> {
        let name = unique("supafs-test");
        match &self.server {
            Server::Standin(standin) => standin.create_bucket(&name),
            Server::Real(real) => real.create_bucket(&name),
        }
        Bucket { backend: self, name, owned: Owned::Whole }
    }

    /// The bucket with the policies of `tests/rls.sql`, and two users with folders of their own in it.
    pub fn users(&self) -> (Bucket<'_>, Users) {
        let users =
            Users { alice: unique_user(), bob: unique_user(), shared: format!("shared/{}", unique("t")) };
        let name = match &self.server {
            Server::Standin(standin) => {
                let name = unique("supafs-rls");
                standin.create_bucket(&name);
                standin.set_policies(&name, Policy::user_folders());
                name
            }
            Server::Real(real) => real.rls_bucket.clone(),
        };
        let prefixes = [&users.alice, &users.bob, &users.shared].map(|prefix| format!("{prefix}/"));
        (Bucket { backend: self, name, owned: Owned::Prefixes(prefixes.to_vec()) }, users)
    }

    /// The bucket with the further policies of `tests/rls.sql` (by owner, role and claim), and folders in it that are
    /// this test's own.
    pub fn laboratory(&self) -> (Bucket<'_>, Laboratory) {
        let name = match &self.server {
            Server::Standin(standin) => {
                let name = unique("supafs-rls-lab");
                standin.create_bucket(&name);
                standin.set_policies(&name, Policy::laboratory());
                name
            }
            Server::Real(real) => format!("{}-lab", real.rls_bucket),
        };
        let t = unique("t");
        let lab = Laboratory {
            alice: unique_user(),
            bob: unique_user(),
            shared: format!("shared/{t}"),
            board: format!("board/{t}"),
            public: format!("public/{t}"),
            team: format!("team/{t}"),
            notes: format!("notes/{t}"),
        };
        let own = [&lab.alice, &lab.bob, &lab.shared, &lab.board, &lab.public, &lab.team, &lab.notes];
        let prefixes = own.map(|prefix| format!("{prefix}/"));
        (Bucket { backend: self, name, owned: Owned::Prefixes(prefixes.to_vec()) }, lab)
    }

    /// The bucket whose policy divides by zero for names below `broken/`, a folder there that is this test's own, and a
    /// user.
    pub fn broken(&self) -> (Bucket<'_>, String, String) {
        let name = match &self.server {
            Server::Standin(standin) => {
                let name = unique("supafs-rls-broken");
                standin.create_bucket(&name);
                standin.set_policies(&name, Policy::broken());
                name
            }
            Server::Real(real) => format!("{}-broken", real.rls_bucket),
        };
        let folder = format!("broken/{}", unique("t"));
        let owned = Owned::Prefixes(vec![format!("{folder}/")]);
        (Bucket { backend: self, name, owned }, folder, unique_user())
    }

    /// Requests that the stand-in has seen for a bucket; `None` on a real stack.
    pub fn logged(&self, bucket: &str) -> Option<Counts> {
        match &self.server {
            Server::Standin(standin) => {
                let log = standin.log();
                let of_bucket = |e: &&supafs_standin::LogEntry| e.bucket == bucket || e.bucket.is_empty();
                Some(Counts::of_log(log.iter().filter(of_bucket)))
            }
            Server::Real(_) => None,
        }
    }
}

/// Two users and the folder they share.
#[derive(Clone, Debug)]
pub struct Users {
    pub alice: String,
    pub bob: String,
    /// Below `shared/`, without a slash at the end.
    pub shared: String,
}

/// Two users, and a folder for each kind of policy; without slashes at the end.
#[derive(Clone, Debug)]
pub struct Laboratory {
    pub alice: String,
    pub bob: String,
    /// Read by whoever is signed in.
    pub shared: String,
    /// Read and added to by whoever is signed in, changed by the owner.
    pub board: String,
    /// Changed by whoever is signed in, read by anon.
    pub public: String,
    /// Read by whoever is signed in, who may change `*.txt` there.
    pub notes: String,
    /// Of those whose `app_metadata.team` is its last component.
    pub team: String,
}

impl Laboratory {
    /// The claims of who belongs to the team.
    pub fn claims(&self) -> Value {
        json!({ "app_metadata": { "team": self.team.trim_start_matches("team/") } })
    }
}

enum Owned {
    Whole,
    Prefixes(Vec<String>),
}

/// A bucket, or the part of one, that is the test's own and goes with this value.
pub struct Bucket<'a> {
    backend: &'a Backend,
    pub name: String,
    owned: Owned,
}

impl Bucket<'_> {
    pub fn put(&self, key: &str, bytes: impl Into<Vec<u8>>) {
        self.put_with(key, bytes, Put::default());
    }

    pub fn put_with(&self, key: &str, bytes: impl Into<Vec<u8>>, how: Put) {
        self.put_all(vec![(key.to_owned(), bytes.into(), how)]);
    }

    /// Objects that hold their own key.
    pub fn put_keys<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) {
        let object = |key: K| {
            let key = key.as_ref();
            // The server takes a placeholder only if it is empty.
            let bytes = if key.ends_with(".emptyFolderPlaceholder") { vec![] } else { key.into() };
            (key.to_owned(), bytes, Put::default())
        };
        self.put_all(keys.into_iter().map(object).collect());
    }

    fn put_all(&self, objects: Vec<(String, Vec<u8>, Put)>) {
        match &self.backend.server {
            Server::Real(real) => real.put(&self.name, objects),
            Server::Standin(standin) => {
                for (key, bytes, how) in objects {
                    let Put { content_type, cache_control, metadata } = how;
                    let options =
                        PutOptions { content_type, cache_control, metadata, ..PutOptions::default() };
                    standin.put_with(&self.name, &key, bytes, options);
                }
            }
        }
    }

    /// Sets the most bytes that an object of this bucket may have.
    pub fn limit_size(&self, bytes: u64) {
        match &self.backend.server {
            Server::Real(real) => real.limit_size(&self.name, bytes),
            Server::Standin(standin) => {
                let limits = BucketLimits { file_size_limit: Some(bytes), ..BucketLimits::default() };
                standin.set_bucket_limits(&self.name, limits);
            }
        }
    }

    pub fn delete(&self, key: &str) {
        match &self.backend.server {
            Server::Standin(standin) => drop(standin.delete(&self.name, key)),
            Server::Real(real) => real.delete(&self.name, &[key.to_owned()]),
        }
    }

    /// What is in it, by key; of a bucket that others use as well, what is the test's own.
    pub fn own(&self) -> BTreeMap<String, Vec<u8>> {
        let is_own = |key: &String| match &self.owned {
            Owned::Whole => true,
            Owned::Prefixes(prefixes) => prefixes.iter().any(|prefix| key.starts_with(prefix)),
        };
        let own = self.keys().into_iter().filter(is_own);
        own.filter_map(|key| Some((key.clone(), self.bytes(&key)?))).collect()
    }

    /// All keys in byte order.
    pub fn keys(&self) -> Vec<String> {
        match &self.backend.server {
            Server::Standin(standin) => standin.keys(&self.name),
            Server::Real(real) => real.keys(&self.name, ""),
        }
    }

    /// Multipart uploads that are not completed.
    pub fn uploads(&self) -> usize {
        match &self.backend.server {
            Server::Standin(standin) => standin.uploads(&self.name).len(),
            Server::Real(real) => real.uploads(&self.name),
        }
    }

    /// What an object holds, as another client reads it.
    pub fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        match &self.backend.server {
            Server::Standin(standin) => standin.get(&self.name, key).map(|bytes| bytes.to_vec()),
            Server::Real(real) => real.bytes(&self.name, key),
        }
    }

    /// What is stored with an object beside its bytes, as another client sees it.
    pub fn headers(&self, key: &str) -> Option<Put> {
        match &self.backend.server {
            Server::Standin(standin) => standin.stat(&self.name, key).map(|info| Put {
                content_type: info.content_type,
                cache_control: info.cache_control,
                metadata: info.metadata,
            }),
            Server::Real(real) => real.headers(&self.name, key),
        }
    }

    /// The ETag with its quotes.
    pub fn etag(&self, key: &str) -> String {
        match &self.backend.server {
            Server::Standin(standin) => standin.stat(&self.name, key).expect("the object is there").etag,
            Server::Real(real) => real.head(&self.name, key)["etag"].clone(),
        }
    }
}

impl Drop for Bucket<'_> {
    fn drop(&mut self) {
        if let Server::Real(real) = &self.backend.server {
            match &self.owned {
                Owned::Whole => real.remove_bucket(&self.name),
                Owned::Prefixes(prefixes) => {
                    for prefix in prefixes {
                        real.delete(&self.name, &real.keys(&self.name, prefix));
                    }
                }
            }
        }
    }
}
