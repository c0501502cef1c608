//! The stand-in as a program: flags to a `Config`, the variables a client needs to stdout or a file, then
//! wait for SIGTERM or SIGINT.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use supafs_standin::{
    ALICE, BOB, Backend, BucketLimits, Config, Credentials, Fault, Policy, Standin, control, demo, mint_user,
};

/// A local stand-in for Supabase Storage's S3 endpoint
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Print a signed user token
    Token(Token),
}

#[derive(Args)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Serve {
    /// TCP port on 127.0.0.1; 0 picks a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Keep buckets and objects below this directory instead of in memory
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Make the sample buckets `demo` and `team`
    #[arg(long)]
    demo_data: bool,
    /// Make a bucket (repeatable)
    #[arg(long, value_name = "NAME")]
    bucket: Vec<String>,
    /// Policies of a bucket: BUCKET=PRESET (`user_folders`, `laboratory`, `broken`, `authenticated_all`,
    /// `authenticated_read`, `none`) or BUCKET=@FILE with a JSON array (repeatable)
    #[arg(long, value_name = "BUCKET=WHAT")]
    policies: Vec<String>,
    /// Most bytes of an object in a bucket: BUCKET=BYTES (repeatable)
    #[arg(long, value_name = "BUCKET=BYTES")]
    bucket_limit: Vec<String>,
    /// Media types a bucket takes: BUCKET=TYPE,TYPE/* (repeatable)
    #[arg(long, value_name = "BUCKET=TYPES")]
    bucket_types: Vec<String>,
    /// What stores the bytes behind the server, which shows in multipart uploads
    #[arg(long, default_value = "file", value_parser = ["file", "s3"])]
    backend: String,
    /// Do not compute the MD5 of large bodies and parts: their `ETag`s are numbers that cost nothing
    #[arg(long)]
    no_md5: bool,
    /// Milliseconds to wait before every request
    #[arg(long, value_name = "MS", default_value_t = 0)]
    rtt: u64,
    /// Delay every GET by its object's size at so many bytes per second (the file backend's hashing)
    #[arg(long, value_name = "BYTES")]
    hash_rate: Option<u64>,
    /// List as a server that has been fixed: lose no keys in delimiter listings
    #[arg(long)]
    no_list_loss: bool,
    /// Arm a fault, e.g. `status:503:SlowDown,op=GetObject,key=prefix:videos/,times=2` (repeatable)
    #[arg(long, value_name = "SPEC")]
    fault: Vec<Fault>,
    /// Worker threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Write the variables a client needs to this file (mode 0600) once the server is ready
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Write the SHA-256 of every demo object to this file, lines `sha256  bucket/key`
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Write a line to this file descriptor once the server is ready
    #[arg(long, value_name = "FD")]
    ready_fd: Option<u32>,
    /// Requests kept for the order `log`
    #[arg(long, value_name = "N", default_value_t = 0)]
    log_capacity: usize,
    /// Obey orders on standard input, a JSON document a line, answered on standard output after the variables;
    /// end with them
    #[arg(long)]
    control: bool,
    /// Lifetime of the printed demo tokens, in seconds
    #[arg(long, value_name = "S", default_value_t = 86_400)]
    token_ttl: i64,
}

#[derive(Args)]
struct Token {
    /// The user's id
    #[arg(long)]
    sub: String,
    /// The database role
    #[arg(long, default_value = "authenticated")]
    role: String,
    /// Seconds until it expires; negative for an expired one
    #[arg(long, default_value_t = 3600, allow_negative_numbers = true)]
    ttl: i64,
    /// Further claims, a JSON object
    #[arg(long, default_value = "{}")]
    claims: serde_json::Value,
    /// The project's JWT secret, if not the default one
    #[arg(long)]
    secret: Option<String>,
}

fn main() -> io::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Subcommands::Token(token)) => {
            let secret = token.secret.unwrap_or_else(|| Credentials::default().jwt_secret);
            writeln!(
                io::stdout(),
                "{}",
                mint_user(&secret, &token.sub, &token.role, token.ttl, &token.claims)
            )
        }
        None => serve(cli.serve),
    }
}

fn serve(args: Serve) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything is announced: whoever waits for readiness may signal at once.
    let (mut term, mut int) = {
        use tokio::signal::unix::{SignalKind, signal};
        let _context = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let standin = start(&args)?;
    let variables = variables(&standin, args.token_ttl);
    if let Some(path) = &args.manifest {
        fs::write(path, demo::manifest(&standin))?;
    }
    for fault in args.fault {
        standin.fault(fault);
    }
    let mut out = io::stdout().lock();
    for (name, value) in &variables {
        writeln!(out, "export {name}='{value}'")?;
    }
    out.flush()?;
    drop(out);
    if let Some(path) = &args.env_file {
        write_env(path, &variables)?;
    }
    if let Some(fd) = args.ready_fd {
        fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}"))?.write_all(b"ready\n")?;
    }
    let standin = Arc::new(standin);
    let (end, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    if args.control {
        let standin = Arc::clone(&standin);
        std::thread::spawn(move || {
            // An error here is a reader or writer that went away, which ends the orders all the same.
            let _ = control::obey(&standin, io::stdin().lock(), io::stdout().lock());
            drop(end);
        });
    }
    runtime.block_on(async {
        tokio::select! {
            _ = ended.recv(), if args.control => {}
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    });
    drop(standin);
    Ok(())
}

fn start(args: &Serve) -> io::Result<Standin> {
    let standin = Standin::start(Config {
        port: args.port,
        data_dir: args.data.clone(),
        latency: Duration::from_millis(args.rtt),
        hash_rate: args.hash_rate,
        list_loss: !args.no_list_loss,
        backend: if args.backend == "s3" { Backend::S3 } else { Backend::File },
        md5: !args.no_md5,
        threads: args.threads,
        log_capacity: args.log_capacity,
        ..Config::default()
    })?;
    if args.demo_data {
        demo::seed(&standin);
    }
    for bucket in &args.bucket {
        standin.create_bucket(bucket);
    }
    set_limits(&standin, args)?;
    for setting in &args.policies {
        let (bucket, what) = split(setting)?;
        let policies = match what.strip_prefix('@') {
            Some(file) => serde_json::from_slice(&fs::read(file)?)?,
            None => Policy::preset(what).ok_or_else(|| invalid(format!("no preset `{what}`")))?,
        };
        standin.create_bucket(bucket);
        standin.set_policies(bucket, policies);
    }
    Ok(standin)
}

fn split(setting: &str) -> io::Result<(&str, &str)> {
    setting.split_once('=').ok_or_else(|| invalid(format!("no `=` in `{setting}`")))
}

fn set_limits(standin: &Standin, args: &Serve) -> io::Result<()> {
    let mut limits: BTreeMap<&str, BucketLimits> = BTreeMap::new();
    for setting in &args.bucket_limit {
        let (bucket, bytes) = split(setting)?;
        let bytes = bytes.parse().map_err(|_| invalid(format!("no number in `{setting}`")))?;
        limits.entry(bucket).or_default().file_size_limit = Some(bytes);
    }
    for setting in &args.bucket_types {
        let (bucket, types) = split(setting)?;
        limits.entry(bucket).or_default().allowed_mime_types = types.split(',').map(str::to_owned).collect();
    }
    for (bucket, limits) in limits {
        standin.create_bucket(bucket);
        standin.set_bucket_limits(bucket, limits);
    }
    Ok(())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn variables(standin: &Standin, ttl: i64) -> Vec<(&'static str, String)> {
    let credentials = standin.credentials();
    let token = |sub| mint_user(&credentials.jwt_secret, sub, "authenticated", ttl, &serde_json::json!({}));
    vec![
        ("SUPABASE_URL", standin.plain_endpoint()),
        ("SUPABASE_S3_ENDPOINT", standin.endpoint()),
        ("SUPABASE_S3_REGION", standin.region()),
        ("SUPABASE_S3_ACCESS_KEY_ID", credentials.access_key_id.clone()),
        ("SUPABASE_S3_SECRET_ACCESS_KEY", credentials.secret_access_key.clone()),
        ("SUPABASE_PROJECT_REF", credentials.project_ref.clone()),
        ("SUPABASE_ANON_KEY", credentials.anon_key.clone()),
        ("SUPABASE_JWT_SECRET", credentials.jwt_secret.clone()),
        ("ALICE_ID", ALICE.to_owned()),
        ("ALICE_TOKEN", token(ALICE)),
        ("BOB_ID", BOB.to_owned()),
        ("BOB_TOKEN", token(BOB)),
    ]
}

/// Secrets: readable by the owner alone from the first byte on, and there as a whole or not at all.
fn write_env(path: &Path, variables: &[(&str, String)]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let tmp = PathBuf::from(name);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    for (name, value) in variables {
        writeln!(file, "{name}={value}")?;
    }
    fs::rename(tmp, path)
}
