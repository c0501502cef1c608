//! The composition root: builds the layers, runs the mount, ends it.

mod ending;
mod status;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::SharedCredentialsProvider;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

pub use crate::fs::{Left, RefusedCount, Unsent};
pub use ending::{Remaining, Trouble, TroubleKind};

use crate::config::{MountConfig, Root, Writing};
use crate::fs::Fs;
use crate::fuse::{self, MountRequest, Mounted};
use crate::identity::{Authority, Identity, Refused};
use crate::meta::Known;
use crate::state_dir;
use crate::stats::Stats;
use crate::store::s3::S3Service;
use crate::store::{StoreError, StoreErrorKind, reach};
use crate::writeback::{Draft, Owner, Recovered, Spool, SpoolOptions};

/// More threads gain nothing: they only sign requests, copy bodies and fill replies.
const MAX_WORKERS: usize = 4;

/// How long the server may take to tell its time.
const CLOCK_PATIENCE: Duration = Duration::from_secs(5);

/// How long files that are open at an unmount keep being served.
const GRACE: Duration = Duration::from_secs(5);

/// Why the daemon could not start or ended; printed to the user as it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DaemonError(pub String);

/// Mounts, calls `ready` once the mount answers, serves until unmounted or told to stop (SIGTERM, SIGINT), and calls
/// `progress` while what is left is sent at the end. Answers what was acknowledged and is not so in the bucket. Called
/// with no other thread running; builds its own tokio runtime.
///
/// # Errors
/// When the bucket cannot be reached under this credential or the mount is refused; nothing is mounted then.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the daemon lives as long as the process: it owns what it runs on"
)]
pub fn run(
    config: MountConfig,
    provider: SharedCredentialsProvider,
    authority: Arc<dyn Authority>,
    ready: impl FnOnce(),
    progress: impl Fn(Remaining),
) -> Result<Left, DaemonError> {
    let runtime = runtime().map_err(|error| DaemonError(format!("cannot start: {error}")))?;
    let stats = Arc::new(Stats::default());
    let tuning = &config.tuning;
    let service =
        S3Service::new(&config.service, provider, Arc::clone(&authority), tuning, Arc::clone(&stats))
            .map_err(DaemonError)?;
    let store = service.root(&config.root);
    runtime.block_on(store.probe()).map_err(|error| {
        let date = runtime.block_on(server_date(&error, &config.service.endpoint));
        DaemonError(unreachable_message(&error, &config, &*authority, date))
    })?;

    let (invalidations, forgotten) = mpsc::unbounded_channel();
    let identity = authority.identity();
    let (writing, recovered) = {
        let _context = runtime.enter();
        spool(&config, &identity)?
    };
    let known = state_file(&config, &identity).map_or_else(|_| Known::new(), |file| Known::open(&file));
    let may_be_refused = !matches!(identity, Identity::Keys { .. });
    let is_writable = writing.is_some();
    let fs = Fs::new(
        Arc::clone(&store),
        config.presentation.clone(),
        tuning,
        &stats,
        invalidations,
        writing,
        (may_be_refused, Arc::new(known)),
    );
    let source = source(&config.root);
    let request = MountRequest {
        mountpoint: &config.mountpoint,
        source: &source,
        presentation: &config.presentation,
        kernel_options: &config.kernel_options,
        max_requests: tuning.max_requests,
    };
    // Before the mount: from now on a signal must find its way here.
    let signals = {
        let _context = runtime.enter();
        Signals::new().map_err(|error| DaemonError(format!("cannot wait for signals: {error}")))?
    };
    // Before the first lookup: what an earlier mount left is shown at once.
    if is_writable {
        let _context = runtime.enter();
        resume(&fs, recovered);
    }
    let mounted = fuse::mount(Arc::clone(&fs), forgotten, &request, runtime.handle().clone())
        .map_err(|error| DaemonError(refused_message(&config.mountpoint, &error)))?;
    tracing::info!(%source, mountpoint = %config.mountpoint.display(), identity = %authority.identity(), "mounted");
    ready();

    let report = status::Status {
        stats,
        fs: Arc::clone(&fs),
        file: config.status_file.clone(),
        runtime: runtime.handle().clone(),
    };
    runtime.block_on(serve(signals, mounted, &report, &*authority));
    let left = runtime.block_on(ending::drain(&fs, &report.stats, config.writing.drain_timeout, progress));
    fs.end();
    report.write();
    tracing::info!("unmounted");
    // Files that are still open may ask until the process ends, and an operation panics on a runtime that is down.
    std::mem::forget(runtime);
    Ok(left)
}

/// What a mount needs that may write.
type Written = (Arc<Spool>, Writing);

/// The spool of a mount that may write, and what an earlier one left in it.
fn spool(config: &MountConfig, identity: &Identity) -> Result<(Option<Written>, Recovered), DaemonError> {
    if config.presentation.read_only {
        return Ok((None, Recovered::default()));
    }
    let writing = &config.writing;
    let place = format!("{}\n{}", config.service.endpoint, identity.tag());
    let root = format!("{:?}", config.root);
    let dir = writing.spool_dir.join(state_dir::short_hash(&place)).join(state_dir::short_hash(&root));
    let options = SpoolOptions { capacity: writing.spool_size, sync: writing.spool_sync };
    let owner = Owner {
        identity: identity.to_string(),
        endpoint: config.service.endpoint.clone(),
        bucket: match &config.root {
            Root::Bucket { bucket, .. } => bucket.clone(),
            Root::Buckets { .. } => String::new(),
        },
        prefix: match &config.root {
            Root::Bucket { prefix, .. } => prefix.clone(),
            Root::Buckets { .. } => String::new(),
        },
    };
    let (spool, left) = Spool::open(&dir, options, owner).map_err(|error| {
        DaemonError(format!(
            "cannot keep a spool in {}: {error}\ngive another directory with --spool-dir, or mount with --read-only",
            dir.display()
        ))
    })?;
    Ok((Some((spool, writing.clone())), left))
}

/// Where attributes are remembered.
fn state_file(config: &MountConfig, identity: &Identity) -> io::Result<PathBuf> {
    let dir = state_dir::of_identity(&config.service.endpoint, identity)?;
    Ok(dir.join(format!("{}.attributes", state_dir::short_hash(&format!("{:?}", config.root)))))
}

/// Goes on where an earlier daemon stopped.
fn resume(fs: &Arc<Fs>, left: Recovered) {
    let Recovered { committed, removed, parked, quarantined, abandoned } = left;
    if parked > 0 {
        tracing::warn!(files = parked, "files in the spool wait for a decision: see `supafs spool list`");
    }
    for path in quarantined {
        tracing::error!(path = %path.display(), "a file in the spool cannot be read; it was moved aside");
    }
    if !committed.is_empty() {
        tracing::info!(files = committed.len(), "uploading what the last mount left");
    }
    fs.resume(committed.into_iter().map(|(file, record)| Draft::recovered(file, &record)).collect(), removed);
    fs.abort_abandoned(abandoned);
}

fn runtime() -> io::Result<Runtime> {
    let cores = thread::available_parallelism().map_or(2, usize::from);
    Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, MAX_WORKERS))
        .max_blocking_threads(16)
        .thread_name("worker")
        .enable_all()
        .build()
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    dump: Signal,
    /// `supafs spool` has changed something.
    spool: Signal,
    /// A file of the spool would grow beyond the limit of this process: whoever writes gets `EFBIG`, nobody dies.
    _too_large: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            dump: signal(SignalKind::user_defined1())?,
            spool: signal(SignalKind::user_defined2())?,
            _too_large: signal(SignalKind::from_raw(nix::libc::SIGXFSZ))?,
        })
    }
}

/// Waits for the end of the mount, and brings it about when told to.
async fn serve(mut signals: Signals, mounted: Mounted, status: &status::Status, authority: &dyn Authority) {
    let Mounted { unmount, mut end } = mounted;
    let mut estranged = authority.estranged();
    loop {
        tokio::select! {
            _ = &mut end => return,
            suspended = next(&mut estranged) => status.fs.suspend(suspended),
            _ = signals.dump.recv() => status.write(),
            _ = signals.spool.recv() => status.fs.rescan(),
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    tracing::info!("told to stop, unmounting");
    let unmounted = tokio::task::spawn_blocking(move || unmount.run()).await;
    if let Ok(Err(error)) = unmounted {
        tracing::error!(%error, "cannot unmount; `supafs unmount` clears the mount point once this has ended");
    }
    if tokio::time::timeout(GRACE, end).await.is_err() {
        tracing::info!(
            "files are still open; they end with the daemon, and what was written to them since their last close or fsync stays in the spool"
        );
    }
}

/// Waits for news of whether the credential's source speaks for somebody else.
async fn next(estranged: &mut Option<watch::Receiver<bool>>) -> bool {
    if let Some(news) = estranged
        && news.changed().await.is_ok()
    {
        return *news.borrow_and_update();
    }
    std::future::pending().await
}

/// What /proc/mounts and df show as the source.
fn source(root: &Root) -> String {
    match root {
        Root::Bucket { bucket, prefix } if prefix.is_empty() => bucket.clone(),
        Root::Bucket { bucket, prefix } => format!("{bucket}/{}", prefix.trim_end_matches('/')),
        Root::Buckets { .. } => "supabase".to_owned(),
    }
}

/// The server's clock, where a refused credential is to be explained.
async fn server_date(error: &StoreError, endpoint: &str) -> Option<SystemTime> {
    if !matches!(error.kind, StoreErrorKind::BadCredential | StoreErrorKind::Expired | StoreErrorKind::Denied)
    {
        return None;
    }
    reach::reach(endpoint, CLOCK_PATIENCE).await.ok()?.date
}

fn unreachable_message(
    error: &StoreError,
    config: &MountConfig,
    authority: &dyn Authority,
    date: Option<SystemTime>,
) -> String {
    let identity = authority.identity();
    let endpoint = &config.service.endpoint;
    if let Some(sentence) = error.unreached() {
        return sentence;
    }
    match error.kind {
        StoreErrorKind::NoSuchBucket => {
            format!("{}\n`supafs buckets` lists those at {endpoint} that you may list", error.message)
        }
        StoreErrorKind::BadCredential | StoreErrorKind::Expired | StoreErrorKind::Denied => {
            let refusal = Refused { code: &error.code, message: &error.message, date };
            format!(
                "{endpoint} refuses the credential ({identity}): {error}\n{}; `supafs doctor` looks closer",
                authority.explain(&refusal)
            )
        }
        StoreErrorKind::PolicyError => {
            format!(
                "policy error in bucket {:?}: a policy on storage.objects, or a trigger, raises an SQL error: {error}\ncorrect it in the database; the credential is not to blame",
                source(&config.root)
            )
        }
        StoreErrorKind::Unavailable | StoreErrorKind::TimedOut => {
            format!(
                "cannot reach {endpoint}: {error}\ncheck the endpoint and the network; `supafs doctor` looks closer"
            )
        }
        _ => format!(
            "{endpoint} does not answer as Supabase Storage's S3 endpoint does: {error}\nthe path should end in /storage/v1/s3; `supafs doctor` looks closer"
        ),
    }
}

fn refused_message(mountpoint: &Path, error: &io::Error) -> String {
    let mountpoint = mountpoint.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "cannot mount on {mountpoint}: {error}\nis FUSE there? (apt-get install fuse3; /dev/fuse must exist)"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "cannot mount on {mountpoint}: {error}\nthe mount point must be yours, and --allow-other needs user_allow_other in /etc/fuse.conf"
        ),
        _ => format!("cannot mount on {mountpoint}: {error}"),
    }
}
