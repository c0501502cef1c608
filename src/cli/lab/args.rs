//! The shape of these commands on the command line.
#![allow(clippy::doc_markdown, reason = "these comments are the help text, where backticks would show")]

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueHint};

use crate::cli::setting::Setting;
use crate::cli::settings::{Files, Layer, Source};

/// The project, and what its identities are signed with. Who they are is said otherwise.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Where")]
pub struct WhereArgs {
    /// Project: the part of its URL in front of .supabase.co [env: SUPABASE_PROJECT_REF]
    #[arg(long, value_name = "REF")]
    pub project_ref: Option<String>,
    /// API URL of the project, as supabase.createClient takes it, instead of the hosted one [env: SUPABASE_URL]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// URL of the S3 endpoint, instead of the project's [env: SUPABASE_S3_ENDPOINT]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// The stack of the Supabase CLI on this machine: what `supabase status -o env` prints, run here or piped in
    /// with --env-file - [env: SUPAFS_LOCAL]
    #[arg(long)]
    pub local: bool,
    /// Region of the signature [env: SUPABASE_S3_REGION] [default: us-east-1]
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// File with the anon or publishable key [env: SUPABASE_ANON_KEY_FILE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub anon_key_file: Option<String>,
    /// Take the access keys from this profile of ~/.aws/config and ~/.aws/credentials [env: SUPAFS_AWS_PROFILE]
    #[arg(long, value_name = "NAME")]
    pub aws_profile: Option<String>,
    /// Profile to use, else `default` where there is one [env: SUPAFS_PROFILE]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Profile file [env: SUPAFS_CONFIG] [default: ~/.config/supafs/config.toml]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// File of NAME=value lines, read as if they were in the environment; - is standard input
    /// [env: SUPAFS_ENV_FILE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub env_file: Option<PathBuf>,
    /// What to log: error, warn, info, debug or trace [env: SUPAFS_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

impl WhereArgs {
    /// The layer of these flags.
    #[must_use]
    pub fn layer(&self) -> Layer {
        let mut layer = Layer::new(Source::Flag);
        layer.set(Setting::ProjectRef, self.project_ref.clone());
        layer.set(Setting::Url, self.url.clone());
        layer.set(Setting::Endpoint, self.endpoint.clone());
        layer.set(Setting::Local, self.local.then_some("true"));
        layer.set(Setting::Region, self.region.clone());
        layer.set(Setting::AnonKeyFile, self.anon_key_file.clone());
        layer.set(Setting::AwsProfile, self.aws_profile.clone());
        layer.set(Setting::LogLevel, self.log_level.clone());
        layer
    }

    /// The files that these flags name.
    #[must_use]
    pub fn files(&self) -> Files {
        Files { env_file: self.env_file.clone(), profile: self.profile.clone(), config: self.config.clone() }
    }
}

/// The identities of a call.
#[derive(Debug, Args, Default)]
#[command(next_help_heading = "Identities")]
pub struct WhoArgs {
    /// NAME=UUID is the user with this id, NAME=EMAIL one who signs in (or did, by supafs login); `anon` is the anon
    /// role, `service` the access keys. Repeat for each
    #[arg(long = "as", value_name = "NAME=UUID", required = true, action = ArgAction::Append)]
    pub identities: Vec<String>,
    /// Role in the database of an identity, NAME=ROLE [default: authenticated, of anon: anon]
    #[arg(long, value_name = "NAME=ROLE", action = ArgAction::Append)]
    pub role: Vec<String>,
    /// Further claims of an identity, NAME=JSON or NAME=@FILE
    #[arg(long, value_name = "NAME=JSON", action = ArgAction::Append)]
    pub claims: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RightsArgs {
    /// A bucket, a folder or an object; a path that ends in / is a folder
    #[arg(value_name = "BUCKET[/PATH]")]
    pub path: String,
    /// Print JSON: an array of identity, path, operation, allowed (true, false or null) and message
    #[arg(long)]
    pub json: bool,
    /// Try deleting, too, on an object made for it in the same folder
    #[arg(long)]
    pub probe_delete: bool,
    /// Levels below a folder that are looked at
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub depth: usize,
    /// Names of each folder that are looked at
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub names: usize,
    /// Say of every verdict, not of refusals only, what it was won by
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    pub who: WhoArgs,
    #[command(flatten)]
    pub place: WhereArgs,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A bucket, or a folder of it
    #[arg(value_name = "BUCKET[/PREFIX]")]
    pub path: String,
    /// Print JSON: an array of path, and only, the identity that sees it
    #[arg(long)]
    pub json: bool,
    /// End with exit code 1 if there are differences
    #[arg(long)]
    pub exit_code: bool,
    #[command(flatten)]
    pub who: WhoArgs,
    #[command(flatten)]
    pub place: WhereArgs,
}

const TEST_HELP: &str = "\
The file:
  [identities]
  alice = { as_user = \"UUID\", claims = { app_metadata = { team = \"red\" } } }   # also role, email
  bob = { email = \"bob@example.com\" }    # the session of supafs login, or SUPABASE_PASSWORD
  anon = { anon = true }
  service = { keys = true }                # sees everything, so that absence can be told

  [[expect]]
  as = \"alice\"                           # or a list of names
  path = \"BUCKET/folder/\"                # or BUCKET/folder/object.txt, or BUCKET
  allow = [\"list\", \"read\", \"create\", \"overwrite\", \"delete\"]
  deny = []
  sees = [\"a.txt\", \"photos/\"]            # or a number of objects

Deletes are tried, on objects made for it, with --probe-delete or `probe_delete = true` at the top.
Exit codes: 0 as expected, 1 not, 2 a mistake in the file.";

#[derive(Debug, Args)]
#[command(after_help = TEST_HELP)]
pub struct TestArgs {
    /// File of identities and expectations
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Write the results as JUnit XML, too
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub junit: Option<PathBuf>,
    /// Try deleting, too, on objects made for it; so does `probe_delete = true` in the file
    #[arg(long)]
    pub probe_delete: bool,
    #[command(flatten)]
    pub place: WhereArgs,
}
