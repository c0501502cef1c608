//! `supafs diff`: the objects that one of two identities sees and the other does not.

use std::io::{BufWriter, Write};

use serde_json::json;

use super::args::DiffArgs;
use super::log_to_stderr;
use super::rights::bucket_and_path;
use super::who::{self, Project};
use crate::cli::error::CliError;
use crate::cli::settings::Settings;
use crate::lab::{Lab, Side, differences};

/// Runs the command.
///
/// # Errors
/// Missing settings, an identity that the server does not take; exit code 1 where there are differences and that was
/// asked for.
pub fn run(args: &DiffArgs) -> Result<(), CliError> {
    let all = who::parse(&args.who)?;
    let [left, right] = all.as_slice() else {
        return Err(CliError::usage(format!("a difference is one of two identities, not of {}", all.len())));
    };
    let (bucket, path) = bucket_and_path(&args.path)?;
    let prefix = match path.trim_end_matches('/') {
        "" => String::new(),
        path => format!("{path}/"),
    };
    let settings = Settings::load(vec![args.place.layer()], &args.place.files())?;
    log_to_stderr(&settings)?;
    let project = Project::of(&settings)?;
    let lab = Lab::new(project.subjects(&all)?, None, false);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut count = 0_u64;
    let compared = super::run(&lab, async {
        let begin =
            if args.json { String::from("[") } else { format!("--- {}\n+++ {}\n", left.name, right.name) };
        write!(out, "{begin}").map_err(|error| CliError::unprintable(&error))?;
        let keys = |subject| lab.keys(subject, bucket, &prefix);
        differences(keys(0), keys(1), |side, key| {
            let (mark, only) = match side {
                Side::Left => ('-', &left.name),
                Side::Right => ('+', &right.name),
            };
            let printed = if args.json {
                let comma = if count == 0 { "" } else { "," };
                write!(out, "{comma}\n{}", json!({ "path": format!("{bucket}/{key}"), "only": only }))
            } else {
                writeln!(out, "{mark}{bucket}/{key}")
            };
            count += 1;
            printed.map_err(|error| CliError::unprintable(&error))
        })
        .await?;
        let end = if args.json { "\n]\n" } else { "" };
        write!(out, "{end}").and_then(|()| out.flush()).map_err(|error| CliError::unprintable(&error))
    });
    compared?;
    if args.exit_code && count > 0 { Err(CliError::Told(1)) } else { Ok(()) }
}
