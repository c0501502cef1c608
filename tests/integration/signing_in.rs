//! Getting an identity: signing in and out, kept sessions, the local stack, and being any user for a test.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use supafs_standin::{Fault, User};

use crate::common::{
    Backend, Bucket, Login, Mount, MountOptions, Outcome, Place, Users, is_mounted, outcome,
};

pub const PASSWORD: &str = "correct horse battery staple";

/// A stand-in whose Auth knows the two users of a bucket by `<id>@example.com`.
pub fn known(backend: &Backend) -> (Bucket<'_>, Users) {
    let (bucket, users) = backend.users();
    for sub in [&users.alice, &users.bob] {
        let user = User::new(&email(sub), PASSWORD, sub);
        backend.standin().configure_auth(|auth| auth.users.push(user));
    }
    bucket.put(&format!("{}/file", users.alice), "a");
    bucket.put(&format!("{}/file", users.bob), "b");
    (bucket, users)
}

pub fn email(sub: &str) -> String {
    format!("{sub}@example.com")
}

/// Runs the binary with this on its standard input.
pub fn with_input(place: &Place, args: &[&str], env: &[(&str, &str)], input: &str) -> Outcome {
    let path = place.file("input", input, 0o600);
    let mut command = place.command(args);
    command.envs(env.iter().copied()).stdin(File::open(path).expect("the input"));
    outcome(command)
}

/// Signs in with the password on standard input.
pub fn login(place: &Place, backend: &Backend, sub: &str, more: &[&str]) -> Outcome {
    let (url, address) = (backend.standin().plain_endpoint(), email(sub));
    let args = ["login", "--url", &url, "--email", &address].into_iter().chain(more.iter().copied());
    let args: Vec<&str> = args.collect();
    let key = backend.facts().anon_key;
    with_input(place, &args, &[("SUPABASE_ANON_KEY", &key)], &format!("{PASSWORD}\n"))
}

fn whoami(place: &Place, args: &[&str]) -> Value {
    let args: Vec<&str> = ["whoami", "--json"].into_iter().chain(args.iter().copied()).collect();
    serde_json::from_str(&place.supafs(args, &[]).ok().stdout).expect("JSON")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn a_session_is_kept_mounted_and_ended() {
    let backend = standin_only!("there is no Auth");
    let (bucket, users) = known(&backend);
    let place = Place::new();
    let told = login(&place, &backend, &users.alice, &[]).ok().stdout;
    assert!(told.contains(&users.alice) && told.contains("--user"), "{told}");
    let sessions = place.home().join("state/supafs/sessions");
    let file = sessions.join(format!("{}.json", email(&users.alice)));
    assert_eq!((mode(&sessions), mode(&file)), (0o700, 0o600));

    let who = whoami(&place, &[]);
    assert_eq!(who["user"], json!(users.alice));
    assert_eq!(who["email"], json!(email(&users.alice)));
    assert_eq!((&who["role"], &who["project_ref"]), (&json!("authenticated"), &json!("stub")));
    assert_eq!((&who["kind"], &who["expired"]), (&json!("session"), &json!(false)));
    assert!(who["refreshed"].as_str().is_some_and(|how| how.contains("refresh token")), "{who}");
    assert!(who["expires_at"].is_string(), "{who}");
    assert_eq!(who["endpoint"], json!(format!("{}/", backend.facts().endpoint)));
    let checks = place.supafs(["doctor", &format!("{}/{}", bucket.name, users.alice)], &[]).ok().stdout;
    assert!(checks.contains(&email(&users.alice)) && !checks.contains("warn"), "{checks}");

    // Nothing but the name: the session knows its project and its key. Without a name it is the only one.
    for args in [vec!["--user", &email(&users.alice)], vec![], vec!["--user"]] {
        let args: Vec<&str> = ["mount", &bucket.name, "mnt"].into_iter().chain(args).collect();
        place.supafs(&args, &[]).ok();
        let at = |sub: &str| place.mountpoint().join(sub).join("file");
        assert_eq!(fs::read(at(&users.alice)).expect("alice's own"), b"a", "{args:?}");
        assert!(!at(&users.bob).exists(), "bob's");
        place.supafs(["unmount", "mnt"], &[]).ok();
    }

    assert_eq!(backend.standin().session_count(&users.alice), 1);
    place.supafs(["logout"], &[]).ok();
    assert_eq!(backend.standin().session_count(&users.alice), 0, "ended on the server");
    assert!(!file.exists());
    let why = place.supafs(["mount", "--user", "x", &bucket.name, "mnt"], &[]).refused();
    assert!(why.contains("supafs login"), "{why}");
    let why = place.supafs(["logout"], &[]).refused();
    assert!(why.contains("nobody is signed in"), "{why}");
}

#[test]
fn several_sessions_are_told_apart_by_name() {
    let backend = standin_only!("there is no Auth");
    let (bucket, users) = known(&backend);
    let place = Place::new();
    login(&place, &backend, &users.alice, &["--name", "alice"]).ok();
    login(&place, &backend, &users.bob, &["--name", "bob"]).ok();
    let why = place.supafs(["mount", &bucket.name, "mnt"], &[]).refused();
    assert!(why.contains("alice, bob") && why.contains("--user"), "{why}");
    let why = place.supafs(["mount", &bucket.name, "mnt", "--user", "eve"], &[]).refused();
    assert!(why.contains("alice, bob"), "{why}");
    assert!(!is_mounted(place.mountpoint()));
    assert_eq!(whoami(&place, &["--user", "bob"])["user"], json!(users.bob));

    // A name is one user's: signing in as another leaves everything as it was.
    let why = login(&place, &backend, &users.bob, &["--name", "alice"]).refused();
    assert!(why.contains("--name") && why.contains(&users.alice), "{why}");
    assert_eq!(whoami(&place, &["--user", "alice"])["user"], json!(users.alice));
    assert_eq!(backend.standin().session_count(&users.bob), 1, "the session in vain was ended");
    // The same user again takes the place of the earlier session.
    login(&place, &backend, &users.alice, &["--name", "alice"]).ok();
    assert_eq!(backend.standin().session_count(&users.alice), 1);

    let why = place.supafs(["logout"], &[]).refused();
    assert!(why.contains("--all"), "{why}");
    place.supafs(["logout", "alice"], &[]).ok();
    assert_eq!(whoami(&place, &[])["session"], json!("bob"));
    let why = place.supafs(["whoami", "--user", "bob", "--project-ref", "another"], &[]).refused();
    assert!(why.contains("another") && why.contains("stub"), "{why}");
}

#[test]
fn who_cannot_sign_in_is_told_what_to_do() {
    let backend = standin_only!("there is no Auth");
    let (bucket, users) = known(&backend);
    let place = Place::new();
    let url = backend.standin().plain_endpoint();
    let key = backend.facts().anon_key;
    let address = email(&users.alice);
    let sign_in = |password: &str, key: &str, url: &str| {
        let env = [("SUPABASE_ANON_KEY", key), ("SUPABASE_PASSWORD", password)];
        let why = place.supafs(["login", "--url", url, "--email", &address], &env).refused();
        assert!(!why.contains(password), "{why}");
        why
    };
    assert!(sign_in("hunter2", &key, &url).contains("Invalid login credentials"));
    assert!(sign_in(PASSWORD, "sb_publishable_other", &url).contains("SUPABASE_PUBLISHABLE_KEY"));
    assert!(sign_in(PASSWORD, &key, "http://127.0.0.1:9").contains("127.0.0.1:9 refuses the connection"));
    let limited = backend.fault(Fault::status(429, "over_request_rate_limit").on("AuthPassword"));
    assert!(sign_in(PASSWORD, &key, &url).contains("too many"));
    backend.standin().clear_fault(limited);
    let why = with_input(
        &place,
        &["login", "--url", &url, "--email", &address],
        &[("SUPABASE_ANON_KEY", &key)],
        "",
    )
    .refused();
    assert!(why.contains("SUPABASE_PASSWORD"), "{why}");
    let why = place.supafs(["login", "--url", &url], &[("SUPABASE_ANON_KEY", &key)]).refused();
    assert!(why.contains("--email"), "{why}");
    let why = place.supafs(["login", "--url", &url, "--email", &address], &[]).refused();
    assert!(why.contains("SUPABASE_ANON_KEY"), "{why}");
    assert_eq!(backend.standin().session_count(&users.alice), 0);
    let env = [
        ("SUPABASE_URL", url.as_str()),
        ("SUPABASE_ANON_KEY", key.as_str()),
        ("SUPABASE_PASSWORD", "hunter2"),
    ];
    let why = place.supafs(["mount", "--email", &address, &bucket.name, "mnt"], &env).refused();
    assert!(why.contains("Invalid login credentials") && !is_mounted(place.mountpoint()), "{why}");
}

#[test]
fn a_mount_signs_in_by_itself() {
    let backend = standin_only!("there is no Auth");
    let (bucket, users) = known(&backend);
    let place = Place::new();
    let env = [
        ("SUPABASE_URL", backend.standin().plain_endpoint()),
        ("SUPABASE_ANON_KEY", backend.facts().anon_key),
        ("SUPABASE_PASSWORD", PASSWORD.to_owned()),
    ];
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    place.supafs(["mount", &bucket.name, "mnt", "--email", &email(&users.bob)], &env).ok();
    assert_eq!(fs::read(place.mountpoint().join(&users.bob).join("file")).expect("bob's own"), b"b");
    assert!(!place.mountpoint().join(&users.alice).exists());
    assert!(!place.home().join("state/supafs/sessions").exists(), "nothing is kept");
    place.supafs(["unmount", "mnt"], &[]).ok();
}

fn impersonating<'a>(backend: &'a Backend, bucket: &Bucket<'_>) -> MountOptions<'a> {
    let facts = backend.facts();
    MountOptions::new(backend, &bucket.name)
        .login(Login::Custom)
        .env("SUPABASE_ANON_KEY", facts.anon_key)
        .env("SUPABASE_PROJECT_REF", facts.project_ref)
        .env("SUPABASE_JWT_SECRET", facts.jwt_secret)
}

#[test]
fn any_user_and_nobody_can_be_impersonated() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let (alice, bob) = (format!("{}/file", users.alice), format!("{}/file", users.bob));
    let shared = format!("{}/file", users.shared);
    for (key, text) in [(&alice, "a"), (&bob, "b"), (&shared, "s")] {
        bucket.put(key, text);
    }
    let sees = |mount: &Mount| [&alice, &bob, &shared].map(|key| mount.at(key).exists());
    let facts = backend.facts();
    let mount = impersonating(&backend, &bucket).args(&format!("--as-user {}", users.alice)).start();
    assert_eq!(sees(&mount), [true, false, true]);
    fs::write(mount.at(&format!("{}/new", users.alice)), "mine").expect("alice may write in her folder");
    assert!(mount.log().contains(&format!("user {} (authenticated)", users.alice)), "{}", mount.log());
    assert!(!mount.log().contains(&facts.jwt_secret));
    mount.stop();
    assert_eq!(bucket.bytes(&format!("{}/new", users.alice)).expect("written"), b"mine");

    // A named user beats the keys that the environment happens to hold.
    let mount = impersonating(&backend, &bucket)
        .env("SUPABASE_S3_ACCESS_KEY_ID", facts.access_key_id)
        .env("SUPABASE_S3_SECRET_ACCESS_KEY", facts.secret_access_key)
        .args(&format!("--as-user {}", users.bob))
        .start();
    assert_eq!(sees(&mount), [false, true, true]);
    drop(mount);
    // The policies are for signed-in users: another role, and nobody, see nothing.
    let role = format!("--as-user {} --role anon", users.alice);
    for args in ["--as-anon", &role] {
        let mount = impersonating(&backend, &bucket).args(args).start();
        assert_eq!(sees(&mount), [false, false, false], "{args}");
    }
}

#[test]
fn an_impersonation_that_makes_no_sense_is_refused() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let facts = backend.facts();
    let place = Place::new();
    place.file("claims", r#"{"sub": "x"}"#, 0o644);
    let env = [
        ("SUPABASE_S3_ENDPOINT", facts.endpoint.as_str()),
        ("SUPABASE_ANON_KEY", facts.anon_key.as_str()),
        ("SUPABASE_PROJECT_REF", facts.project_ref.as_str()),
        ("SUPABASE_JWT_SECRET", facts.jwt_secret.as_str()),
    ];
    let alice = users.alice.as_str();
    let cases: [(&[&str], &str); 7] = [
        (&["--as-user", "alice"], "UUID"),
        (&["--as-user", alice, "--claims", "{"], "JSON"),
        (&["--as-user", alice, "--claims", "@claims"], "sub"),
        (&["--as-user", alice, "--claims", "@missing"], "missing"),
        (&["--as-user", alice, "--as-anon"], "--as-anon"),
        (&["--as-anon", "--role", "editor"], "--as-user"),
        (&["--as-user", alice, "--role", "a b"], "role"),
    ];
    for (args, word) in cases {
        let all: Vec<&str> = ["mount", &bucket.name, "mnt"].into_iter().chain(args.iter().copied()).collect();
        let why = place.supafs(&all, &env).refused();
        assert!(why.contains(word) && !why.contains(&facts.jwt_secret), "{args:?}: {why}");
        assert!(!is_mounted(place.mountpoint()));
    }
    let why = place.supafs(["mount", &bucket.name, "mnt", "--as-user", alice], &env[..3]).refused();
    assert!(why.contains("SUPABASE_JWT_SECRET"), "{why}");
    let wrong = [&env[..3], &[("SUPABASE_JWT_SECRET", facts.anon_key.as_str())]].concat();
    let why = place.supafs(["mount", &bucket.name, "mnt", "--as-user", alice], &wrong).refused();
    assert!(why.contains("JWT_SECRET") && !why.contains(&facts.anon_key), "{why}");
}

/// What `supabase status -o env` prints of this server.
pub fn status(backend: &Backend) -> String {
    let facts = backend.facts();
    format!(
        "ANON_KEY=\"{}\"\nAPI_URL=\"{}\"\nDB_URL=\"postgresql://postgres:postgres@127.0.0.1:54322/postgres\"\n\
         JWT_SECRET=\"{}\"\nPUBLISHABLE_KEY=\"sb_publishable_local\"\nS3_PROTOCOL_ACCESS_KEY_ID=\"{}\"\n\
         S3_PROTOCOL_ACCESS_KEY_SECRET=\"{}\"\nS3_PROTOCOL_REGION=\"{}\"\nSTORAGE_S3_URL=\"{}\"\n",
        facts.anon_key,
        facts.endpoint.trim_end_matches("/storage/v1/s3"),
        facts.jwt_secret,
        facts.access_key_id,
        facts.secret_access_key,
        facts.region,
        facts.endpoint,
    )
}

#[test]
fn the_local_stack_is_found_by_itself_or_piped_in() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    bucket.put(&format!("{}/file", users.alice), "a");
    bucket.put(&format!("{}/file", users.bob), "b");
    let place = Place::new();
    place.file("status.env", &status(&backend), 0o600);
    place.file(
        "bin/supabase",
        "#!/bin/sh\n[ \"$*\" = 'status -o env' ] || exit 1\necho 'A new version is available'\necho 'Stopped services: [x]' >&2\ncat status.env\n",
        0o755,
    );
    let path = format!("{}:{}", place.path().join("bin").display(), std::env::var("PATH").expect("a PATH"));
    // What the environment says of another project does not get in the way.
    let env = [
        ("PATH", path.as_str()),
        ("SUPABASE_PROJECT_REF", "abcdefghijklmnopqrst"),
        ("SUPABASE_ANON_KEY", "another"),
    ];
    let sees = |args: &[&str], env: &[(&str, &str)]| {
        let all: Vec<&str> = ["mount", &bucket.name, "mnt"].into_iter().chain(args.iter().copied()).collect();
        with_input(&place, &all, env, &status(&backend)).ok();
        let seen = [&users.alice, &users.bob].map(|sub| place.mountpoint().join(sub).join("file").exists());
        place.supafs(["unmount", "mnt"], &[]).ok();
        seen
    };
    assert_eq!(sees(&["--local"], &env), [true, true], "with the stack's access keys");
    assert_eq!(sees(&["--local", "--as-user", &users.alice], &env), [true, false]);
    assert_eq!(sees(&["--local", "--as-anon"], &env), [false, false]);
    assert_eq!(sees(&["--local", "--env-file", "-"], &env[1..]), [true, true], "piped in");
    assert_eq!(sees(&["--local", "--env-file", "status.env", "--as-user", &users.bob], &[]), [false, true]);

    // The laboratory finds it, too.
    let as_alice = format!("alice={}", users.alice);
    let diff = ["diff", "--local", &bucket.name, "--as", &as_alice, "--as", "service"];
    let told = place.supafs(diff, &env).ok().stdout;
    assert!(told.contains(&format!("+{}/{}/file", bucket.name, users.bob)), "{told}");
    assert!(!told.contains(&users.alice), "{told}");

    let empty = [("PATH", "/nowhere")];
    let why = place.supafs(["mount", "--local", &bucket.name, "mnt"], &empty).refused();
    assert!(why.contains("no `supabase` on the PATH") && why.contains("--env-file -"), "{why}");
    place.file("bin/supabase", "#!/bin/sh\necho 'no such container: supabase_db_x' >&2\nexit 1\n", 0o755);
    let why = place.supafs(["mount", "--local", &bucket.name, "mnt"], &env).refused();
    assert!(why.contains("no such container") && why.contains("supabase start"), "{why}");
    place.file("status.env", &status(&backend), 0o644);
    let why = place.supafs(["buckets", "--local", "--env-file", "status.env"], &[]).refused();
    assert!(why.contains("chmod 600"), "{why}");
}

#[test]
fn a_linked_folder_names_the_hosted_project() {
    let place = Place::new();
    let keys = [("SUPABASE_S3_ACCESS_KEY_ID", "id"), ("SUPABASE_S3_SECRET_ACCESS_KEY", "secret")];
    let why = place.supafs(["whoami"], &keys).refused();
    assert!(why.contains("--project-ref") && why.contains("supabase link"), "{why}");
    place.file("supabase/.temp/project-ref", "abcdefghijklmnopqrst", 0o644);
    let told = place.supafs(["whoami"], &keys).ok().stdout;
    assert!(told.contains("https://abcdefghijklmnopqrst.storage.supabase.co/storage/v1/s3/"), "{told}");
    assert!(told.contains("full access"), "{told}");
    let told = place.supafs(["whoami", "--project-ref", "tsrqponmlkjihgfedcba"], &keys).ok().stdout;
    assert!(told.contains("tsrqponmlkjihgfedcba"), "a flag beats the folder: {told}");
}
