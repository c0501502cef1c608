//! What a mount is told: plain, resolved values, with no trace of where they came from.
//!
//! `cli` builds these from flags, environment, files and profiles; everything below only reads them.
//! Nothing secret lives here: credentials travel in [`crate::auth`].

use std::path::PathBuf;
use std::time::Duration;

/// Where the S3 endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Base URL of the S3 endpoint. Always ends in `/`: the SDK joins a path without it wrongly
    /// (aws-sdk-rust#1387).
    pub endpoint: String,
    /// Region of the signature's scope.
    pub region: String,
}

/// What appears at the root of the mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// One bucket, or the part of it below a prefix. `prefix` is empty or ends in `/`.
    Bucket { bucket: String, prefix: String },
    /// Every bucket is a directory: those named, or, when none is named, those the credential can list.
    Buckets { named: Vec<String> },
}

/// How the mount presents files to the kernel.
#[derive(Debug, Clone)]
pub struct Presentation {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits of files, e.g. `0o644`.
    pub file_mode: u16,
    /// Permission bits of directories, e.g. `0o755`.
    pub dir_mode: u16,
    pub read_only: bool,
    pub allow_other: bool,
}

/// Sizes and times that shape caching and requests.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// How long a listing or an attribute is believed.
    pub metadata_ttl: Duration,
    /// How long "there is no such name" is believed.
    pub negative_ttl: Duration,
    /// How many directory entries and attributes the metadata cache keeps.
    pub metadata_entries: usize,
    /// Bytes of object data kept in memory, read-ahead included.
    pub cache_memory: u64,
    /// Requests in flight at most.
    pub max_requests: usize,
    /// An operation without progress for this long ends with an error.
    pub op_timeout: Duration,
}

/// What becomes of a file that somebody else changed while it was being changed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Theirs keeps the name, ours goes beside it.
    Copy,
    /// Ours replaces theirs.
    Overwrite,
    /// Ours stays in the spool, and the writer gets an error.
    Fail,
}

/// How files are written.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Writing {
    /// `close()` returns when the file is in the spool, and the upload follows.
    pub write_back: bool,
    /// How long an upload waits for further changes of the file; `None`: as the server is far.
    pub delay: Option<Duration>,
    /// What is in the spool is safe from a loss of power.
    pub spool_sync: bool,
    /// `fsync()` waits for the spool only.
    pub fsync_local: bool,
    pub spool_dir: PathBuf,
    /// Bytes in the spool at most.
    pub spool_size: u64,
    /// How long an unmount waits for uploads.
    pub drain_timeout: Duration,
    pub on_conflict: OnConflict,
    /// Names that Supabase does not take are refused instead of escaped.
    pub strict_names: bool,
    /// Cache-Control of new objects.
    pub cache_control: Option<String>,
    /// Bytes in a part of a multipart upload.
    pub part_size: u64,
    /// Bytes of holes that one file may have: they are uploaded as zeros.
    pub max_holes: u64,
}

/// Everything the daemon needs besides the credential.
#[derive(Debug, Clone)]
pub struct MountConfig {
    pub service: Service,
    pub root: Root,
    pub mountpoint: PathBuf,
    pub presentation: Presentation,
    pub tuning: Tuning,
    pub writing: Writing,
    /// Further kernel mount options (`-o`), already validated, e.g. `noatime`, `noexec`.
    pub kernel_options: Vec<String>,
    /// Where the daemon writes its counters, if anywhere.
    pub status_file: Option<PathBuf>,
}
