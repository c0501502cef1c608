//! Every setting by name: its key in a profile, its variable, and whether it is a secret.
//!
//! The one table that flags, environment, env files and profiles share. A key is the long option or the
//! variable in lower case with underscores.

pub use crate::similar::nearest;

/// One thing that can be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    ProjectRef,
    Url,
    Endpoint,
    Region,
    Local,
    WaitOnline,
    Auth,
    AccessKeyId,
    SecretAccessKey,
    AwsProfile,
    AnonKey,
    PublishableKey,
    AnonKeyFile,
    SessionToken,
    SessionTokenFile,
    SessionTokenCommand,
    User,
    Email,
    Password,
    AsUser,
    AsAnon,
    Role,
    Claims,
    JwtSecret,
    ReadOnly,
    AllowOther,
    Uid,
    Gid,
    FileMode,
    DirMode,
    MetadataTtl,
    NegativeTtl,
    MetadataEntries,
    CacheMemory,
    MaxRequests,
    OpTimeout,
    WriteBack,
    WriteBackDelay,
    SpoolSync,
    Fsync,
    SpoolDir,
    SpoolSize,
    DrainTimeout,
    OnConflict,
    StrictNames,
    CacheControl,
    PartSize,
    MaxHoles,
    LogFile,
    LogLevel,
    StatusFile,
}

/// How one setting is written where it can be written.
#[derive(Debug)]
pub struct Spelling {
    pub setting: Setting,
    /// Key in a profile.
    pub key: &'static str,
    /// Variable in the environment or an env file.
    pub variable: &'static str,
    /// Whether a file that holds it must be private. The anon key counts: it signs the requests.
    pub secret: bool,
    /// Whether there is a flag, `--` and the key with dashes.
    pub flag: bool,
}

const fn plain(setting: Setting, key: &'static str, variable: &'static str) -> Spelling {
    Spelling { setting, key, variable, secret: false, flag: true }
}

const fn hidden(setting: Setting, key: &'static str, variable: &'static str, secret: bool) -> Spelling {
    Spelling { setting, key, variable, secret, flag: false }
}

/// The table.
pub const SPELLINGS: &[Spelling] = &[
    plain(Setting::ProjectRef, "project_ref", "SUPABASE_PROJECT_REF"),
    plain(Setting::Url, "url", "SUPABASE_URL"),
    plain(Setting::Endpoint, "endpoint", "SUPABASE_S3_ENDPOINT"),
    plain(Setting::Region, "region", "SUPABASE_S3_REGION"),
    plain(Setting::Local, "local", "SUPAFS_LOCAL"),
    plain(Setting::WaitOnline, "wait_online", "SUPAFS_WAIT_ONLINE"),
    plain(Setting::Auth, "auth", "SUPAFS_AUTH"),
    hidden(Setting::AccessKeyId, "access_key_id", "SUPABASE_S3_ACCESS_KEY_ID", false),
    hidden(Setting::SecretAccessKey, "secret_access_key", "SUPABASE_S3_SECRET_ACCESS_KEY", true),
    plain(Setting::AwsProfile, "aws_profile", "SUPAFS_AWS_PROFILE"),
    hidden(Setting::AnonKey, "anon_key", "SUPABASE_ANON_KEY", true),
    hidden(Setting::PublishableKey, "publishable_key", "SUPABASE_PUBLISHABLE_KEY", true),
    plain(Setting::AnonKeyFile, "anon_key_file", "SUPABASE_ANON_KEY_FILE"),
    hidden(Setting::SessionToken, "session_token", "SUPABASE_SESSION_TOKEN", true),
    plain(Setting::SessionTokenFile, "session_token_file", "SUPABASE_SESSION_TOKEN_FILE"),
    plain(Setting::SessionTokenCommand, "session_token_command", "SUPABASE_SESSION_TOKEN_COMMAND"),
    plain(Setting::User, "user", "SUPAFS_USER"),
    plain(Setting::Email, "email", "SUPABASE_EMAIL"),
    hidden(Setting::Password, "password", "SUPABASE_PASSWORD", true),
    plain(Setting::AsUser, "as_user", "SUPAFS_AS_USER"),
    plain(Setting::AsAnon, "as_anon", "SUPAFS_AS_ANON"),
    plain(Setting::Role, "role", "SUPAFS_ROLE"),
    plain(Setting::Claims, "claims", "SUPAFS_CLAIMS"),
    hidden(Setting::JwtSecret, "jwt_secret", "SUPABASE_JWT_SECRET", true),
    plain(Setting::ReadOnly, "read_only", "SUPAFS_READ_ONLY"),
    plain(Setting::AllowOther, "allow_other", "SUPAFS_ALLOW_OTHER"),
    plain(Setting::Uid, "uid", "SUPAFS_UID"),
    plain(Setting::Gid, "gid", "SUPAFS_GID"),
    plain(Setting::FileMode, "file_mode", "SUPAFS_FILE_MODE"),
    plain(Setting::DirMode, "dir_mode", "SUPAFS_DIR_MODE"),
    plain(Setting::MetadataTtl, "metadata_ttl", "SUPAFS_METADATA_TTL"),
    plain(Setting::NegativeTtl, "negative_ttl", "SUPAFS_NEGATIVE_TTL"),
    plain(Setting::MetadataEntries, "metadata_entries", "SUPAFS_METADATA_ENTRIES"),
    plain(Setting::CacheMemory, "cache_memory", "SUPAFS_CACHE_MEMORY"),
    plain(Setting::MaxRequests, "max_requests", "SUPAFS_MAX_REQUESTS"),
    plain(Setting::OpTimeout, "op_timeout", "SUPAFS_OP_TIMEOUT"),
    plain(Setting::WriteBack, "write_back", "SUPAFS_WRITE_BACK"),
    plain(Setting::WriteBackDelay, "write_back_delay", "SUPAFS_WRITE_BACK_DELAY"),
    plain(Setting::SpoolSync, "spool_sync", "SUPAFS_SPOOL_SYNC"),
    plain(Setting::Fsync, "fsync", "SUPAFS_FSYNC"),
    plain(Setting::SpoolDir, "spool_dir", "SUPAFS_SPOOL_DIR"),
    plain(Setting::SpoolSize, "spool_size", "SUPAFS_SPOOL_SIZE"),
    plain(Setting::DrainTimeout, "drain_timeout", "SUPAFS_DRAIN_TIMEOUT"),
    plain(Setting::OnConflict, "on_conflict", "SUPAFS_ON_CONFLICT"),
    plain(Setting::StrictNames, "strict_names", "SUPAFS_STRICT_NAMES"),
    plain(Setting::CacheControl, "cache_control", "SUPAFS_CACHE_CONTROL"),
    plain(Setting::PartSize, "part_size", "SUPAFS_PART_SIZE"),
    plain(Setting::MaxHoles, "max_holes", "SUPAFS_MAX_HOLES"),
    plain(Setting::LogFile, "log_file", "SUPAFS_LOG_FILE"),
    plain(Setting::LogLevel, "log_level", "SUPAFS_LOG_LEVEL"),
    plain(Setting::StatusFile, "status_file", "SUPAFS_STATUS_FILE"),
];

impl Setting {
    /// How it is written.
    #[must_use]
    pub fn spelling(self) -> &'static Spelling {
        let position = SPELLINGS.iter().position(|spelling| spelling.setting == self);
        &SPELLINGS[position.expect("every setting is in the table; a test goes through them")]
    }

    /// By its key in a profile.
    #[must_use]
    pub fn by_key(key: &str) -> Option<&'static Spelling> {
        SPELLINGS.iter().find(|spelling| spelling.key == key)
    }
}
