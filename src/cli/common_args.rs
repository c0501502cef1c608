//! Flags that many commands share: where the bucket is, as whom, and where settings come from.
#![allow(clippy::doc_markdown, reason = "these comments are the help text, where backticks would show")]

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::setting::Setting;
use super::settings::{Files, Layer, Source};

/// The project, and the key that its users' requests carry.
#[derive(Debug, Args, Default)]
pub struct ProjectArgs {
    /// Project: the part of its URL in front of .supabase.co [env: SUPABASE_PROJECT_REF]
    #[arg(long, value_name = "REF", help_heading = "Where")]
    pub project_ref: Option<String>,
    /// API URL of the project, as supabase.createClient takes it, instead of the hosted one [env: SUPABASE_URL]
    #[arg(long, value_name = "URL", help_heading = "Where")]
    pub url: Option<String>,
    /// The stack of the Supabase CLI on this machine: what `supabase status -o env` prints, run here or piped in
    /// with --env-file - [env: SUPAFS_LOCAL]
    #[arg(long, help_heading = "Where")]
    pub local: bool,
    /// Keep trying for so long to reach the server, at boot for instance [env: SUPAFS_WAIT_ONLINE] [default: 0s, so
    /// that a wrong name or a closed port is told at once, silence after 10s]
    #[arg(long, value_name = "TIME", help_heading = "Where", hide_short_help = true)]
    pub wait_online: Option<String>,
    /// File with the anon or publishable key [env: SUPABASE_ANON_KEY_FILE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Credentials", hide_short_help = true)]
    pub anon_key_file: Option<String>,
}

impl ProjectArgs {
    pub(super) fn set(&self, layer: &mut Layer) {
        layer.set(Setting::ProjectRef, self.project_ref.clone());
        layer.set(Setting::Url, self.url.clone());
        layer.set(Setting::Local, self.local.then_some("true"));
        layer.set(Setting::WaitOnline, self.wait_online.clone());
        layer.set(Setting::AnonKeyFile, self.anon_key_file.clone());
    }
}

/// The files that settings come from.
#[derive(Debug, Args, Default)]
pub struct SettingsArgs {
    /// Profile to use, else `default` where there is one [env: SUPAFS_PROFILE]
    #[arg(long, value_name = "NAME", help_heading = "Settings")]
    pub profile: Option<String>,
    /// Profile file [env: SUPAFS_CONFIG] [default: ~/.config/supafs/config.toml]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Settings", hide_short_help = true)]
    pub config: Option<PathBuf>,
    /// File of NAME=value lines, read as if they were in the environment; - is standard input
    /// [env: SUPAFS_ENV_FILE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Settings")]
    pub env_file: Option<PathBuf>,
}

impl SettingsArgs {
    /// The files that these flags name.
    #[must_use]
    pub fn files(&self) -> Files {
        Files { env_file: self.env_file.clone(), profile: self.profile.clone(), config: self.config.clone() }
    }
}

/// The server, and what is signed with. Who the users are is said otherwise.
#[derive(Debug, Args, Default)]
pub struct WhereArgs {
    #[command(flatten)]
    pub project: ProjectArgs,
    /// URL of the S3 endpoint, instead of the project's [env: SUPABASE_S3_ENDPOINT]
    #[arg(long, value_name = "URL", help_heading = "Where", hide_short_help = true)]
    pub endpoint: Option<String>,
    /// Region of the signature [env: SUPABASE_S3_REGION] [default: us-east-1]
    #[arg(long, value_name = "REGION", help_heading = "Where", hide_short_help = true)]
    pub region: Option<String>,
    /// Take the access keys from this profile of ~/.aws/config and ~/.aws/credentials [env: SUPAFS_AWS_PROFILE]
    #[arg(long, value_name = "NAME", help_heading = "Credentials", hide_short_help = true)]
    pub aws_profile: Option<String>,
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// What to log: error, warn, info, debug or trace [env: SUPAFS_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL", help_heading = "Settings", hide_short_help = true)]
    pub log_level: Option<String>,
}

impl WhereArgs {
    /// The layer of these flags.
    #[must_use]
    pub fn layer(&self) -> Layer {
        let mut layer = Layer::new(Source::Flag);
        self.project.set(&mut layer);
        layer.set(Setting::Endpoint, self.endpoint.clone());
        layer.set(Setting::Region, self.region.clone());
        layer.set(Setting::AwsProfile, self.aws_profile.clone());
        layer.set(Setting::LogLevel, self.log_level.clone());
        layer
    }

    /// The files that these flags name.
    #[must_use]
    pub fn files(&self) -> Files {
        self.settings.files()
    }
}

/// The server, and as whom it is talked to.
#[derive(Debug, Args, Default)]
pub struct AccessArgs {
    #[command(flatten)]
    pub place: WhereArgs,
    /// Which credential to use where both are configured: keys or session [env: SUPAFS_AUTH]
    #[arg(long, value_name = "KIND", help_heading = "Credentials", hide_short_help = true)]
    pub auth: Option<String>,
    /// File with the user's access token; read again when it changes or the token nears expiry
    /// [env: SUPABASE_SESSION_TOKEN_FILE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Credentials")]
    pub session_token_file: Option<String>,
    /// Shell command that prints the user's access token; run again near expiry
    /// [env: SUPABASE_SESSION_TOKEN_COMMAND]
    #[arg(long, value_name = "CMD", help_heading = "Credentials", hide_short_help = true)]
    pub session_token_command: Option<String>,
    /// A session of `supafs login`; without a name, the only one [env: SUPAFS_USER]
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", help_heading = "Credentials")]
    pub user: Option<String>,
    /// Sign in with this address; the password comes from SUPABASE_PASSWORD, standard input or the terminal
    /// [env: SUPABASE_EMAIL]
    #[arg(long, value_name = "EMAIL", help_heading = "Credentials")]
    pub email: Option<String>,
    /// Be the user with this id, with tokens minted from SUPABASE_JWT_SECRET [env: SUPAFS_AS_USER]
    #[arg(long, value_name = "UUID", help_heading = "Credentials")]
    pub as_user: Option<String>,
    /// Be nobody: the anon role [env: SUPAFS_AS_ANON]
    #[arg(long, help_heading = "Credentials", hide_short_help = true)]
    pub as_anon: bool,
    /// With --as-user: the database role [env: SUPAFS_ROLE] [default: authenticated]
    #[arg(long, value_name = "ROLE", help_heading = "Credentials", hide_short_help = true)]
    pub role: Option<String>,
    /// With --as-user or --as-anon: more claims of the token, a JSON object or a file of one [env: SUPAFS_CLAIMS]
    #[arg(long, value_name = "JSON|@FILE", help_heading = "Credentials", hide_short_help = true)]
    pub claims: Option<String>,
}

impl AccessArgs {
    /// The layer of these flags.
    #[must_use]
    pub fn layer(&self) -> Layer {
        let mut layer = self.place.layer();
        layer.set(Setting::Auth, self.auth.clone());
        layer.set(Setting::SessionTokenFile, self.session_token_file.clone());
        layer.set(Setting::SessionTokenCommand, self.session_token_command.clone());
        layer.set(Setting::User, self.user.clone());
        layer.set(Setting::Email, self.email.clone());
        layer.set(Setting::AsUser, self.as_user.clone());
        layer.set(Setting::AsAnon, self.as_anon.then_some("true"));
        layer.set(Setting::Role, self.role.clone());
        layer.set(Setting::Claims, self.claims.clone());
        layer
    }

    /// The files that these flags name.
    #[must_use]
    pub fn files(&self) -> Files {
        self.place.files()
    }
}
