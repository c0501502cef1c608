//! The command line's shape. Values stay text here: `settings` parses them, so that a flag, a variable and a
//! profile key are checked by the same words.
#![allow(clippy::doc_markdown, reason = "these comments are the help text, where backticks would show")]

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};

use super::common_args::{AccessArgs, ProjectArgs, SettingsArgs};
use super::lab::args::{DiffArgs, RightsArgs, TestArgs};
use super::setting::Setting;
use super::settings::{Files, Layer, Source};

/// Paragraphs are one line each, which is wrapped to the terminal; examples are short enough to stay whole in 80 columns.
pub const EXAMPLES: &str = "\
Examples:
  # With S3 access keys: full access, Row Level Security bypassed.
  # (in the dashboard: Project Settings, Storage, S3 access keys)
  export SUPABASE_S3_ACCESS_KEY_ID=your-id
  export SUPABASE_S3_SECRET_ACCESS_KEY=your-secret
  export SUPABASE_PROJECT_REF=abcdefghijklmnopqrst
  supafs mount photos ~/photos

  # As one signed-in user: what the policies on storage.objects allow.
  export SUPABASE_PUBLISHABLE_KEY=your-key
  supafs login --email alice@example.com
  supafs mount --user alice@example.com photos ~/photos

  # On the local stack: with its access keys, or as any user.
  supafs mount --local photos ~/photos
  supafs mount --local --as-user a11ce000-5a1e-4c1d-9f00-00000000a11c photos ~/p

  supafs unmount ~/photos
  supafs doctor photos

  # What users may do there, found out by trying, without a trace.
  # (supafs test holds it against a file)
  supafs access --local photos --as anon

Settings come from, first match wins: flags, environment, --env-file, [profile.NAME] in ~/.config/supafs/config.toml. Profile keys are the long options with underscores, and access_key_id, secret_access_key, anon_key, publishable_key, session_token, password, jwt_secret. Secrets are never flags.

Credentials, by variable:
  SUPABASE_S3_ACCESS_KEY_ID, SUPABASE_S3_SECRET_ACCESS_KEY: access keys
  SUPABASE_ANON_KEY or SUPABASE_PUBLISHABLE_KEY, with one of these: one user
    SUPABASE_SESSION_TOKEN: the user's access_token (a JWT)
    SUPABASE_SESSION_TOKEN_FILE, SUPABASE_SESSION_TOKEN_COMMAND
    SUPABASE_EMAIL, SUPABASE_PASSWORD: sign in
    SUPABASE_JWT_SECRET: with --as-user or --as-anon

Only where none of these is set: the only session of `supafs login`, else the AWS environment and ~/.aws files.

Exit codes: 0 done, 1 failed, 2 wrong usage, 75 files are left in the spool (mount in the foreground, unmount).";

const BRIEF: &str = "\
supafs mount BUCKET MOUNTPOINT mounts a bucket. `supafs --help` has examples and says how credentials are given.";

/// Mount a Supabase Storage bucket as a directory.
#[derive(Debug, Parser)]
// The library's own limit is 100 columns.
#[command(name = "supafs", version, after_help = BRIEF, after_long_help = EXAMPLES, max_term_width = 0)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount a bucket, a folder of it, or all buckets; returns when the mount answers.
    #[command(
        override_usage = "supafs mount [OPTIONS] <BUCKET[/PREFIX]> <MOUNTPOINT>\n       \
                          supafs mount [OPTIONS] --all [--bucket NAME]… <MOUNTPOINT>",
        after_help = MOUNT_BRIEF,
        after_long_help = MOUNT_HELP
    )]
    Mount(Box<MountArgs>),
    /// Unmount, and wait until the mount point is free and the daemon has ended.
    #[command(visible_alias = "umount")]
    Unmount(UnmountArgs),
    /// Sign in through Supabase Auth, and keep the session under a name for `mount --user`.
    Login(LoginArgs),
    /// Sign out: end a kept session on the server, and forget it.
    Logout(LogoutArgs),
    /// Tell as whom a command with the same options would work.
    Whoami(WhoamiArgs),
    /// List the buckets that the credential can see.
    Buckets(BucketsArgs),
    /// See and decide about files that are not in the bucket: those that were refused, or that a crash left open.
    #[command(subcommand)]
    Spool(SpoolCommand),
    /// Find out what users and roles may do at a path, by trying, without a trace.
    Access(Box<RightsArgs>),
    /// List the objects that one of two users sees and the other does not.
    Diff(Box<DiffArgs>),
    /// Hold the expectations of a file against the policies, as a test runner does.
    Test(Box<TestArgs>),
    /// Check what a mount needs, one line each, with the fix.
    Doctor(DoctorArgs),
}

const MOUNT_HELP: &str = "\
Every option can also be set by variable (SUPAFS_ and its name, e.g. SUPAFS_METADATA_TTL, except those that name another), in an env file, in a profile, and in the list of -o with underscores: -o metadata_ttl=10s,ro. See `supafs --help` for credentials and examples.";

const MOUNT_BRIEF: &str = "\
These are the most used options; `supafs mount --help` has all, `supafs --help` examples.";

#[derive(Debug, Args, Default)]
pub struct MountArgs {
    /// What to mount and where: BUCKET[/PREFIX] MOUNTPOINT, or with --all the mount point alone
    #[arg(value_name = "BUCKET[/PREFIX]> <MOUNTPOINT", num_args = 1..=2, required = true)]
    pub targets: Vec<String>,
    /// Every bucket that the credential can list is a directory at the top
    #[arg(long)]
    pub all: bool,
    /// With --all: show this bucket instead of asking for the list; may be repeated
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    pub bucket: Vec<String>,
    /// Stay in the foreground and log to standard error
    #[arg(long, short = 'f')]
    pub foreground: bool,
    /// Options as in /etc/fstab, separated by commas; may be repeated
    #[arg(short = 'o', value_name = "OPTION[,…]", action = ArgAction::Append)]
    pub options: Vec<String>,
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub writing: WritingArgs,
    #[command(flatten)]
    pub tuning: TuningArgs,
}

#[derive(Debug, Args, Default)]
#[command(next_help_heading = "How files look")]
pub struct FileArgs {
    /// Refuse every change
    #[arg(long)]
    pub read_only: bool,
    /// Let other users of this machine use the mount, within the file modes
    #[arg(long)]
    pub allow_other: bool,
    /// Owner of every file, id or name [default: you]
    #[arg(long, value_name = "USER", hide_short_help = true)]
    pub uid: Option<String>,
    /// Group of every file, id or name [default: yours]
    #[arg(long, value_name = "GROUP", hide_short_help = true)]
    pub gid: Option<String>,
    /// Permissions of files, octal [default: 644]
    #[arg(long, value_name = "MODE", hide_short_help = true)]
    pub file_mode: Option<String>,
    /// Permissions of directories, octal [default: 755]
    #[arg(long, value_name = "MODE", hide_short_help = true)]
    pub dir_mode: Option<String>,
}

#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Writing")]
pub struct WritingArgs {
    /// Close returns when a file is in the spool; the upload follows
    #[arg(long)]
    pub write_back: bool,
    /// How long an upload waits for further changes, with --write-back [default: 2.5 round trips, 5ms to
    /// 50ms]; each change puts it off anew, by ten times that in all
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub write_back_delay: Option<String>,
    /// With --write-back, what close acknowledged is safe from a loss of power, too
    #[arg(long, hide_short_help = true)]
    pub spool_sync: bool,
    /// What fsync waits for with --write-back: remote (the bucket) or local (the spool) [default: remote]
    #[arg(long, value_name = "WHERE", hide_short_help = true)]
    pub fsync: Option<String>,
    /// Where files wait that are not in the bucket yet [default: $XDG_STATE_HOME/supafs/spool]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, hide_short_help = true)]
    pub spool_dir: Option<String>,
    /// How much may wait there [default: 10GiB]
    #[arg(long, value_name = "SIZE", hide_short_help = true)]
    pub spool_size: Option<String>,
    /// How long an unmount waits for uploads [default: 5m]
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub drain_timeout: Option<String>,
    /// When somebody else changed a file meanwhile: copy (ours goes beside it), overwrite, or fail [default: copy]
    #[arg(long, value_name = "WHAT", hide_short_help = true)]
    pub on_conflict: Option<String>,
    /// Refuse names that Supabase does not take, instead of escaping them
    #[arg(long, hide_short_help = true)]
    pub strict_names: bool,
    /// Cache-Control of new objects [default: none]
    #[arg(long, value_name = "VALUE", hide_short_help = true)]
    pub cache_control: Option<String>,
    /// Size of the parts of large uploads, at least 5MiB [default: 8MiB]
    #[arg(long, value_name = "SIZE", hide_short_help = true)]
    pub part_size: Option<String>,
    /// Most bytes of holes in one file, which are uploaded as zeros [default: 64GiB]
    #[arg(long, value_name = "SIZE", hide_short_help = true)]
    pub max_holes: Option<String>,
}

#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Caching and requests")]
pub struct TuningArgs {
    /// How long a listing or an attribute is believed [default: 5s]
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub metadata_ttl: Option<String>,
    /// How long a name that is not there is believed to be missing [default: 5s]
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub negative_ttl: Option<String>,
    /// Directory entries and attributes kept in memory [default: 200000, less where --cache-memory is below 100MiB]
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub metadata_entries: Option<String>,
    /// Memory for file contents, read-ahead, listings and uploads, at least 16MiB [default: 256MiB, less on a machine
    /// or in a control group of less than 2GiB]
    #[arg(long, value_name = "SIZE", hide_short_help = true)]
    pub cache_memory: Option<String>,
    /// Requests in flight at most [default: 64]
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub max_requests: Option<String>,
    /// An operation that makes no progress for this long ends with an error [default: 60s]
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub op_timeout: Option<String>,
    /// Log of the daemon [default: a file below $XDG_STATE_HOME/supafs/log]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub log_file: Option<String>,
    /// Where the daemon writes its counters
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, hide_short_help = true)]
    pub status_file: Option<String>,
}

impl MountArgs {
    /// The layer of these flags.
    #[must_use]
    pub fn layer(&self) -> Layer {
        let mut layer = self.access.layer();
        layer.set(Setting::ReadOnly, self.files.read_only.then_some("true"));
        layer.set(Setting::AllowOther, self.files.allow_other.then_some("true"));
        layer.set(Setting::Uid, self.files.uid.clone());
        layer.set(Setting::Gid, self.files.gid.clone());
        layer.set(Setting::FileMode, self.files.file_mode.clone());
        layer.set(Setting::DirMode, self.files.dir_mode.clone());
        layer.set(Setting::WriteBack, self.writing.write_back.then_some("true"));
        layer.set(Setting::WriteBackDelay, self.writing.write_back_delay.clone());
        layer.set(Setting::SpoolSync, self.writing.spool_sync.then_some("true"));
        layer.set(Setting::Fsync, self.writing.fsync.clone());
        layer.set(Setting::SpoolDir, self.writing.spool_dir.clone());
        layer.set(Setting::SpoolSize, self.writing.spool_size.clone());
        layer.set(Setting::DrainTimeout, self.writing.drain_timeout.clone());
        layer.set(Setting::OnConflict, self.writing.on_conflict.clone());
        layer.set(Setting::StrictNames, self.writing.strict_names.then_some("true"));
        layer.set(Setting::CacheControl, self.writing.cache_control.clone());
        layer.set(Setting::PartSize, self.writing.part_size.clone());
        layer.set(Setting::MaxHoles, self.writing.max_holes.clone());
        layer.set(Setting::MetadataTtl, self.tuning.metadata_ttl.clone());
        layer.set(Setting::NegativeTtl, self.tuning.negative_ttl.clone());
        layer.set(Setting::MetadataEntries, self.tuning.metadata_entries.clone());
        layer.set(Setting::CacheMemory, self.tuning.cache_memory.clone());
        layer.set(Setting::MaxRequests, self.tuning.max_requests.clone());
        layer.set(Setting::OpTimeout, self.tuning.op_timeout.clone());
        layer.set(Setting::LogFile, self.tuning.log_file.clone());
        layer.set(Setting::StatusFile, self.tuning.status_file.clone());
        layer
    }
}

#[derive(Debug, Args)]
pub struct UnmountArgs {
    /// The directory that a bucket is mounted on
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub mountpoint: PathBuf,
    /// Detach at once even while files are open; the daemon ends when the last is closed
    #[arg(long, short = 'l')]
    pub lazy: bool,
}

#[derive(Debug, Args)]
pub struct BucketsArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub access: AccessArgs,
}

#[derive(Debug, Subcommand)]
pub enum SpoolCommand {
    /// List the files, with their state and what keeps them.
    List {
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: SpoolArgs,
    },
    /// Upload parked files again: by the mount that runs, or by the next one.
    Retry {
        /// Ids that `supafs spool list` shows
        #[arg(value_name = "ID", required_unless_present = "all")]
        ids: Vec<String>,
        /// Every parked file
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        #[command(flatten)]
        place: SpoolArgs,
    },
    /// Copy files out of the spool, into a directory.
    Export {
        /// Ids that `supafs spool list` shows, and the directory
        #[arg(value_name = "ID> <DIR", num_args = 2.., required = true)]
        targets: Vec<String>,
        #[command(flatten)]
        place: SpoolArgs,
    },
    /// Delete files from the spool: what is in them is lost.
    Discard {
        /// Ids that `supafs spool list` shows
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
        /// Do not ask
        #[arg(long, short = 'y')]
        yes: bool,
        #[command(flatten)]
        place: SpoolArgs,
    },
}

/// Where the spool is. No credential is needed.
#[derive(Debug, Args)]
pub struct SpoolArgs {
    /// The spool of the mounts [env: SUPAFS_SPOOL_DIR] [default: $XDG_STATE_HOME/supafs/spool]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub spool_dir: Option<String>,
    #[command(flatten)]
    pub settings: SettingsArgs,
}

impl SpoolArgs {
    /// The layer of these flags.
    #[must_use]
    pub fn layer(&self) -> Layer {
        let mut layer = Layer::new(Source::Flag);
        layer.set(Setting::SpoolDir, self.spool_dir.clone());
        layer
    }

    /// The files that these flags name.
    #[must_use]
    pub fn files(&self) -> Files {
        self.settings.files()
    }
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// A bucket to check as well
    #[arg(value_name = "BUCKET[/PREFIX]")]
    pub bucket: Option<String>,
    /// Print JSON instead of lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub access: AccessArgs,
}

#[derive(Debug, Args, Default)]
pub struct LoginArgs {
    #[command(flatten)]
    pub project: ProjectArgs,
    /// Address to sign in with, else asked for; the password comes from SUPABASE_PASSWORD, standard input or the
    /// terminal [env: SUPABASE_EMAIL]
    #[arg(long, value_name = "EMAIL")]
    pub email: Option<String>,
    /// Name to keep the session under [default: the address]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub settings: SettingsArgs,
}

impl LoginArgs {
    /// The layer of these flags.
    #[must_use]
    pub fn layer(&self) -> Layer {
        let mut layer = Layer::new(Source::Flag);
        self.project.set(&mut layer);
        layer.set(Setting::Email, self.email.clone());
        layer
    }

    /// The files that these flags name.
    #[must_use]
    pub fn files(&self) -> Files {
        self.settings.files()
    }
}

#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// Name of the session; may be left out where there is only one
    #[arg(value_name = "NAME", conflicts_with = "all")]
    pub name: Option<String>,
    /// Every kept session
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct WhoamiArgs {
    /// Print JSON instead of lines
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub access: AccessArgs,
}
