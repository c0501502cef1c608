//! `supafs mount`: everything is resolved and checked first, then the daemon is started and heard.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::access::{self, Access};
use super::args::MountArgs;
use super::background::{self, Report, Role};
use super::error::CliError;
use super::online::Hint;
use super::option_list::{self, OptionList};
use super::presence::{Daemons, Presence};
use super::setting::Setting;
use super::settings::{Files, Settings};
use super::{buckets, fuse_access, mount_table, mountpoint, units, warn};
use crate::config::{MountConfig, OnConflict, Presentation, Root, Tuning, Writing};
use crate::identity::Identity;
use crate::logging::{self, Level, LogFile};
use crate::store::is_header_value;
use crate::writeback::MIN_PART;
use crate::{daemon, machine, state_dir, sys};

/// Exit code where not all that was acknowledged is in the bucket (`EX_TEMPFAIL`).
pub const STAGED: u8 = 75;

const MIN_CACHE: u64 = 16 << 20;

/// Runs the command; in the daemon it returns when the mount ends.
///
/// # Errors
/// Whatever keeps the mount from answering; nothing is mounted then.
pub fn run(args: &MountArgs) -> Result<(), CliError> {
    let options = option_list::parse(args.options.iter().map(String::as_str))?;
    let settings = Settings::load(vec![args.layer(), options.layer.clone()], &files(args, &options))?;
    let (root, mountpoint) = targets(args, &options)?;
    sys::share_allocator_arenas();
    let level = log_level(&settings)?;
    let presentation = presentation(&settings)?;
    let tuning = tuning(&settings)?;
    fuse_access::check()
        .map_err(|obstacle| CliError::failed(format!("{}; {}", obstacle.problem, obstacle.fix)))?;
    let mountpoint = mountpoint::prepare(&mountpoint, options.nonempty)?;
    let access = access::resolve(&settings)?;
    caution(&access, &presentation)?;
    let config = MountConfig {
        service: access.service.clone(),
        root,
        presentation,
        tuning,
        writing: writing(&settings)?,
        kernel_options: options.kernel,
        status_file: outside(&settings, Setting::StatusFile, &mountpoint)?,
        mountpoint,
    };
    let log = outside(&settings, Setting::LogFile, &config.mountpoint)?;
    outside(&settings, Setting::SpoolDir, &config.mountpoint)?;
    outside(&settings, Setting::SessionTokenFile, &config.mountpoint)?;
    if args.foreground {
        match log {
            Some(path) => logging::to_file(level, open_log(&path)?),
            None => logging::to_stderr(level),
        }
        return serve(config, access, &mut Report::to_nobody());
    }
    in_background(level, log, config, access)
}

fn in_background(
    level: Level,
    log: Option<PathBuf>,
    config: MountConfig,
    access: Access,
) -> Result<(), CliError> {
    let path = match log {
        Some(path) => path,
        None => default_log(&config)?,
    };
    let log = open_log(&path)?;
    let output = log.duplicate().ok();
    let mut report = match background::detach(output, || Hint::begin(&config.service.endpoint))? {
        Role::Command => return Ok(()),
        Role::Daemon(report) => report,
    };
    logging::to_file(level, log);
    serve(config, access, &mut report).map_err(|error| {
        tracing::error!("{error}");
        report.failed(&error);
        CliError::Told(error.code())
    })
}

/// The daemon's life.
fn serve(config: MountConfig, access: Access, report: &mut Report) -> Result<(), CliError> {
    let Access { credential, notes, .. } = access;
    let (version, endpoint) = (env!("CARGO_PKG_VERSION"), &config.service.endpoint);
    tracing::info!(version, endpoint, "{}", credential.description);
    for note in notes {
        tracing::info!("{note}");
    }
    if matches!(&config.root, Root::Buckets { named } if named.is_empty()) {
        buckets::must_be_listable(&config.service, &credential, &config.tuning)?;
    }
    if !mount_table::at(&config.mountpoint).is_ok_and(|entry| entry.is_some_and(|entry| entry.is_supafs())) {
        Daemons::of(&config.mountpoint).wait_before_mount();
    }
    let presence = Presence::announce(&config.mountpoint)
        .map_err(|error| CliError::failed(format!("cannot keep state: {error}; set XDG_STATE_HOME")))?;
    let hint = Hint::begin(endpoint);
    let ready = || {
        drop(hint);
        report.ready();
    };
    let ended =
        daemon::run(config, credential.provider, Arc::clone(&credential.authority), ready, |remaining| {
            presence.tell(remaining);
        });
    drop(presence);
    match ended {
        Ok(left) if left.total() == 0 => Ok(()),
        // What is left was said in the log; sysexits calls it a temporary failure.
        Ok(_) => Err(CliError::Told(STAGED)),
        Err(error) => Err(CliError::failed(error.to_string())),
    }
}

fn files(args: &MountArgs, options: &OptionList) -> Files {
    let Files { env_file, profile, config } = args.access.files();
    Files {
        env_file: env_file.or_else(|| options.files.env_file.clone()),
        profile: profile.or_else(|| options.files.profile.clone()),
        config: config.or_else(|| options.files.config.clone()),
    }
}

/// What is mounted, and where.
fn targets(args: &MountArgs, options: &OptionList) -> Result<(Root, PathBuf), CliError> {
    let named: Vec<String> = args.bucket.iter().chain(&options.buckets).cloned().collect();
    let all = args.all || options.all;
    match (all, args.targets.as_slice()) {
        (true, [mountpoint]) => Ok((Root::Buckets { named }, PathBuf::from(mountpoint))),
        // mount(8) always passes a source.
        (true, [_, mountpoint]) if options.all => Ok((Root::Buckets { named }, PathBuf::from(mountpoint))),
        (true, _) => {
            Err(CliError::usage("with --all, give the mount point alone: supafs mount --all MOUNTPOINT"))
        }
        (false, _) if !named.is_empty() => Err(CliError::usage("--bucket goes with --all")),
        (false, [bucket, mountpoint]) => {
            let (bucket, prefix) = bucket_and_prefix(bucket)?;
            Ok((Root::Bucket { bucket, prefix }, PathBuf::from(mountpoint)))
        }
        (false, [_]) if args.access.user.as_deref().is_some_and(|user| !user.is_empty()) => {
            Err(CliError::usage(format!(
                "--user took {:?} for the name of a session, so that a bucket or a mount point is missing; write \
                 --user=NAME, or --user alone behind the mount point",
                args.access.user.as_deref().unwrap_or_default()
            )))
        }
        (false, _) => Err(CliError::usage(
            "give a bucket and a mount point: supafs mount BUCKET[/PREFIX] MOUNTPOINT, or --all with a mount point",
        )),
    }
}

/// `photos/2024` is the bucket `photos` below the prefix `2024/`.
///
/// # Errors
/// A name that cannot be a bucket.
pub fn bucket_and_prefix(text: &str) -> Result<(String, String), CliError> {
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    if matches!(bucket, "" | "." | "..") {
        return Err(CliError::usage(format!(
            "{text:?} does not begin with a bucket's name; write BUCKET or BUCKET/FOLDER (`supafs buckets` lists them)"
        )));
    }
    let prefix = prefix.trim_end_matches('/');
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok((bucket.to_owned(), prefix))
}

fn presentation(settings: &Settings) -> Result<Presentation, CliError> {
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    Ok(Presentation {
        uid: settings.parsed(Setting::Uid, uid, units::uid)?,
        gid: settings.parsed(Setting::Gid, gid, units::gid)?,
        file_mode: settings.parsed(Setting::FileMode, 0o644, units::mode)?,
        dir_mode: settings.parsed(Setting::DirMode, 0o755, units::mode)?,
        read_only: settings.parsed(Setting::ReadOnly, false, units::boolean)?,
        allow_other: settings.parsed(Setting::AllowOther, false, units::boolean)?,
    })
}

fn writing(settings: &Settings) -> Result<Writing, CliError> {
    let seconds = Duration::from_secs;
    let part_size = |text: &str| match units::size(text)? {
        size if size < MIN_PART => Err("is too small; the server takes no parts below 5MiB".to_owned()),
        size => Ok(size),
    };
    let fsync_local = |text: &str| match text {
        "local" => Ok(true),
        "remote" => Ok(false),
        _ => Err("is neither remote nor local".to_owned()),
    };
    let on_conflict = |text: &str| match text {
        "copy" => Ok(OnConflict::Copy),
        "overwrite" => Ok(OnConflict::Overwrite),
        "fail" => Ok(OnConflict::Fail),
        _ => Err("is not copy, overwrite or fail".to_owned()),
    };
    Ok(Writing {
        write_back: settings.parsed(Setting::WriteBack, false, units::boolean)?,
        delay: settings.parsed(Setting::WriteBackDelay, None, |text| units::duration(text).map(Some))?,
        spool_sync: settings.parsed(Setting::SpoolSync, false, units::boolean)?,
        fsync_local: settings.parsed(Setting::Fsync, false, fsync_local)?,
        spool_dir: spool_dir(settings)?,
        spool_size: settings.parsed(Setting::SpoolSize, 10 << 30, units::size)?,
        drain_timeout: settings.parsed(Setting::DrainTimeout, seconds(300), units::duration)?,
        on_conflict: settings.parsed(Setting::OnConflict, OnConflict::Copy, on_conflict)?,
        strict_names: settings.parsed(Setting::StrictNames, false, units::boolean)?,
        cache_control: settings.parsed(Setting::CacheControl, None, |text| header_value(text).map(Some))?,
        part_size: settings.parsed(Setting::PartSize, 8 << 20, part_size)?,
        max_holes: settings.parsed(Setting::MaxHoles, 64 << 30, units::size)?,
    })
}

fn header_value(text: &str) -> Result<String, String> {
    if is_header_value(text.as_bytes()) {
        Ok(text.to_owned())
    } else {
        Err("cannot be the value of an HTTP header: write printable ASCII, without spaces at its ends"
            .to_owned())
    }
}

/// Where the spool is.
///
/// # Errors
/// Where it is not given and no home is known.
pub fn spool_dir(settings: &Settings) -> Result<PathBuf, CliError> {
    let dir = match settings.path(Setting::SpoolDir) {
        Some(dir) => std::path::absolute(dir),
        None => state_dir::base().map(|base| base.join("spool")),
    };
    dir.map_err(|error| CliError::failed(format!("{error}; give --spool-dir")))
}

/// Sizes and times, with their defaults.
///
/// # Errors
/// A value out of its bounds, with the place it came from.
pub fn tuning(settings: &Settings) -> Result<Tuning, CliError> {
    let at_least_the_minimum = |text: &str| match units::size(text)? {
        size if size < MIN_CACHE => Err("is too small; the minimum is 16MiB".to_owned()),
        size => Ok(size),
    };
    let positive = |text: &str| match units::duration(text)? {
        Duration::ZERO => Err("must be more than nothing".to_owned()),
        time => Ok(time),
    };
    let seconds = Duration::from_secs;
    let cache_memory =
        settings.parsed(Setting::CacheMemory, machine::default_cache(), at_least_the_minimum)?;
    // Listings take a fifth of the memory at most.
    let entries = usize::try_from(cache_memory / 512).unwrap_or(usize::MAX).min(200_000);
    Ok(Tuning {
        metadata_ttl: settings.parsed(Setting::MetadataTtl, seconds(5), units::duration)?,
        negative_ttl: settings.parsed(Setting::NegativeTtl, seconds(5), units::duration)?,
        metadata_entries: settings.parsed(Setting::MetadataEntries, entries, units::count)?,
        cache_memory,
        max_requests: settings.parsed(Setting::MaxRequests, 64, units::count)?,
        op_timeout: settings.parsed(Setting::OpTimeout, seconds(60), positive)?,
    })
}

/// The log level in force.
///
/// # Errors
/// A level that does not exist.
pub fn log_level(settings: &Settings) -> Result<Level, CliError> {
    settings.parsed(Setting::LogLevel, Level::INFO, |text| {
        text.parse().map_err(|_| "is no log level; it is one of error, warn, info, debug, trace".to_owned())
    })
}

/// A file that the daemon uses must not lie in the mount that it serves.
fn outside(settings: &Settings, setting: Setting, mountpoint: &Path) -> Result<Option<PathBuf>, CliError> {
    let (Some(path), Some(found)) = (settings.path(setting), settings.get(setting)) else { return Ok(None) };
    let path = std::path::absolute(&path).map_err(|error| CliError::failed(format!("{found}: {error}")))?;
    let resolved = path
        .parent()
        .and_then(|parent| parent.canonicalize().ok())
        .map_or_else(|| path.clone(), |parent| parent.join(path.file_name().unwrap_or_default()));
    if resolved.starts_with(mountpoint) {
        return Err(CliError::usage(format!("{found}: {} lies below the mount point", path.display())));
    }
    Ok(Some(path))
}

/// Says what the user should know before others get at the files.
fn caution(access: &Access, presentation: &Presentation) -> Result<(), CliError> {
    for warning in &access.warnings {
        warn(warning);
    }
    if !presentation.allow_other {
        return Ok(());
    }
    if !fuse_access::others_may_be_let_in() {
        return Err(CliError::failed(
            "--allow-other: only root may, until /etc/fuse.conf has a line user_allow_other. Run: \
             echo user_allow_other | sudo tee -a /etc/fuse.conf",
        ));
    }
    if matches!(access.credential.authority.identity(), Identity::Keys { .. }) {
        warn(
            "--allow-other with access keys: every user of this machine acts with full rights on the bucket, as \
             far as --file-mode and --dir-mode let them",
        );
    }
    Ok(())
}

fn default_log(config: &MountConfig) -> Result<PathBuf, CliError> {
    let dir = state_dir::below("log")
        .map_err(|error| CliError::failed(format!("cannot keep a log: {error}; give --log-file")))?;
    let name = match &config.root {
        Root::Bucket { bucket, .. } => bucket.as_str(),
        Root::Buckets { .. } => "all-buckets",
    };
    // A bucket's name may have any of many characters, but no slash.
    Ok(dir.join(format!("{name}-{}.log", state_dir::short_hash(&config.mountpoint.to_string_lossy()))))
}

fn open_log(path: &Path) -> Result<LogFile, CliError> {
    LogFile::open(path).map_err(|error| CliError::failed(format!("cannot open the log: {error}")))
}

#[cfg(test)]
mod tests;
