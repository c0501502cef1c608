//! The shape of these commands on the command line.
#![allow(clippy::doc_markdown, reason = "these comments are the help text, where backticks would show")]

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueHint};

use crate::cli::common_args::WhereArgs;

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
