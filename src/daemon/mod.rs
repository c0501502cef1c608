//! The composition root: builds the layers, runs the mount, ends it.

mod status;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{MountConfig, Root};
use crate::fs::Fs;
use crate::fuse::{self, MountRequest, Mounted};
use crate::identity::Authority;
use crate::stats::Stats;
use crate::store::s3::S3Service;
use crate::store::{StoreError, StoreErrorKind};

/// More threads gain nothing: they only sign requests, copy bodies and fill replies.
const MAX_WORKERS: usize = 4;

/// How long files that are open at an unmount keep being served.
const GRACE: Duration = Duration::from_secs(5);

/// Why the daemon could not start or ended; printed to the user as it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DaemonError(pub String);

/// Mounts, calls `ready` once the mount answers, and serves until unmounted or told to stop
/// (SIGTERM, SIGINT). Called with no other thread running; builds its own tokio runtime.
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
) -> Result<(), DaemonError> {
    let runtime = runtime().map_err(|error| DaemonError(format!("cannot start: {error}")))?;
    let stats = Arc::new(Stats::default());
    let tuning = &config.tuning;
    let service =
        S3Service::new(&config.service, provider, Arc::clone(&authority), tuning, Arc::clone(&stats))
            .map_err(DaemonError)?;
    let store = service.root(&config.root);
    runtime
        .block_on(store.probe())
        .map_err(|error| DaemonError(unreachable_message(&error, &config, &*authority)))?;

    let (invalidations, forgotten) = mpsc::unbounded_channel();
    let fs = Arc::new(Fs::new(store, config.presentation.clone(), tuning, &stats, invalidations));
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
    let mounted = fuse::mount(Arc::clone(&fs), forgotten, &request, runtime.handle().clone())
        .map_err(|error| DaemonError(refused_message(&config.mountpoint, &error)))?;
    tracing::info!(%source, mountpoint = %config.mountpoint.display(), identity = %authority.identity(), "mounted");
    ready();

    let report = status::Status { stats, fs, file: config.status_file.clone() };
    runtime.block_on(serve(signals, mounted, &report));
    report.write();
    tracing::info!("unmounted");
    // Requests that are still under way serve nobody any more.
    runtime.shutdown_timeout(Duration::from_millis(500));
    Ok(())
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
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            dump: signal(SignalKind::user_defined1())?,
        })
    }
}

/// Waits for the end of the mount, and brings it about when told to.
async fn serve(mut signals: Signals, mounted: Mounted, status: &status::Status) {
    let Mounted { unmount, mut end } = mounted;
    loop {
        tokio::select! {
            _ = &mut end => return,
            _ = signals.dump.recv() => status.write(),
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
        tracing::info!("files are still open; they end with the daemon, and nothing in them is unsaved");
    }
}

/// What /proc/mounts and df show as the source.
fn source(root: &Root) -> String {
    match root {
        Root::Bucket { bucket, prefix } if prefix.is_empty() => bucket.clone(),
        Root::Bucket { bucket, prefix } => format!("{bucket}/{}", prefix.trim_end_matches('/')),
        Root::Buckets { .. } => "supabase".to_owned(),
    }
}

fn unreachable_message(error: &StoreError, config: &MountConfig, authority: &dyn Authority) -> String {
    let identity = authority.identity();
    let endpoint = &config.service.endpoint;
    match error.kind {
        StoreErrorKind::NoSuchBucket => {
            format!(
                "there is no bucket {:?} at {endpoint}; `supafs buckets` lists those you may list",
                match &config.root {
                    Root::Bucket { bucket, .. } => bucket.clone(),
                    Root::Buckets { named } => named.join(", "),
                }
            )
        }
        StoreErrorKind::BadCredential | StoreErrorKind::Expired | StoreErrorKind::Denied => {
            format!(
                "{endpoint} refuses the credential ({identity}): {error}\n`supafs doctor` tells what is wrong"
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
