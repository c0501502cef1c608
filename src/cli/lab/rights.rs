//! `supafs access`: what each identity may do at a path, as a table or a tree.

use super::args::RightsArgs;
use super::who::{self, Project};
use super::{log_to_stderr, say_notes, show};
use crate::cli::error::CliError;
use crate::cli::mount;
use crate::cli::settings::Settings;
use crate::lab::{Lab, TreeLimits, Trouble};

/// Runs the command.
///
/// # Errors
/// Missing settings, an identity that the server does not take, and what could not be taken away.
pub fn run(args: &RightsArgs) -> Result<(), CliError> {
    let all = who::parse(&args.who)?;
    let (bucket, path) = bucket_and_path(&args.path)?;
    let settings = Settings::load(vec![args.place.layer()], &args.place.files())?;
    log_to_stderr(&settings)?;
    let project = Project::of(&settings)?;
    let lab = Lab::new(project.subjects(&all)?, project.janitor()?, args.probe_delete);
    let limits = TreeLimits { depth: args.depth, names: args.names };
    let (nodes, verdicts) = super::run(&lab, async {
        let root = lab.look(bucket, path).await?;
        let nodes = lab.tree(root, limits).await?;
        let views: Vec<_> = nodes.iter().map(|node| node.view.clone()).collect();
        let verdicts = lab.verdicts(&views).await?;
        Ok::<_, Trouble>((nodes, verdicts))
    })?;
    let mut out = std::io::stdout().lock();
    let printed = if args.json {
        show::json(&mut out, &verdicts)
    } else {
        show::text(&mut out, &lab.names(), &nodes, &verdicts, args.verbose)
    };
    printed.map_err(|error| CliError::unprintable(&error))?;
    say_notes(&lab);
    Ok(())
}

/// `photos/2024/a.jpg` is the key `2024/a.jpg` of the bucket `photos`; a slash at the end says that it is a folder.
pub(super) fn bucket_and_path(text: &str) -> Result<(&str, &str), CliError> {
    let (bucket, path) = text.split_once('/').unwrap_or((text, ""));
    mount::bucket_and_prefix(bucket).map(|_| (bucket, path))
}
