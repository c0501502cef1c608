//! `supafs test`: expectations of a file, held against the server.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

use futures::{StreamExt, TryStreamExt, stream};

use super::args::TestArgs;
use super::expect::{self, Case, Expectations, Expected};
use super::junit::{self, Outcome};
use super::rights::bucket_and_path;
use super::who::Project;
use super::{log_to_stderr, say_notes};
use crate::cli::error::CliError;
use crate::cli::settings::Settings;
use crate::lab::{Keys, Lab, Operation, Place, Trouble, View, is_marker};

/// Cases under way at a time.
const PARALLEL: usize = 8;

/// Names that a failure shows.
const SHOWN: usize = 5;

/// Runs the command.
///
/// # Errors
/// Exit code 2 for a file that cannot be used, 1 where an expectation is not met or the server cannot be asked.
pub fn run(args: &TestArgs) -> Result<(), CliError> {
    let name = args.file.display().to_string();
    let text = std::fs::read_to_string(&args.file)
        .map_err(|error| CliError::usage(format!("cannot read {name}: {error}")))?;
    let expectations = expect::parse(&name, &text).map_err(CliError::usage)?;
    let settings = Settings::load(vec![args.place.layer()], &args.place.files())?;
    log_to_stderr(&settings)?;
    let project = Project::of(&settings)?;
    let probe_delete = args.probe_delete || expectations.probe_delete;
    let lab = Lab::new(project.subjects(&expectations.identities)?, project.janitor()?, probe_delete);
    let (count, mut out) = (expectations.cases.len(), io::stdout());
    writeln!(out, "running {count} expectations of {name}").map_err(|error| cut_short(&error))?;
    let outcomes = super::run(
        &lab,
        hold(&lab, &expectations, |outcome| print(&mut out, outcome).map_err(|error| cut_short(&error))),
    )?;
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    writeln!(out, "\n{} passed, {failed} failed", count - failed).map_err(|error| cut_short(&error))?;
    if let Some(path) = &args.junit {
        junit::write(path, &name, &outcomes)
            .map_err(|error| CliError::failed(format!("cannot write {}: {error}", path.display())))?;
    }
    say_notes(&lab);
    if failed > 0 { Err(CliError::Told(1)) } else { Ok(()) }
}

/// What was not run has not passed, also where its reader has seen enough.
fn cut_short(error: &io::Error) -> CliError {
    match CliError::unprintable(error) {
        CliError::Told(_) => CliError::Told(1),
        error => error,
    }
}

fn print(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    match &outcome.failure {
        None => writeln!(out, "ok    {}", outcome.title),
        Some(why) => writeln!(out, "FAIL  {}\n      {why}", outcome.title),
    }
}

/// Goes through all cases, telling of each in its order.
async fn hold(
    lab: &Lab,
    expectations: &Expectations,
    mut tell: impl FnMut(&Outcome) -> Result<(), CliError>,
) -> Result<Vec<Outcome>, CliError> {
    let names = lab.names();
    let views = look(lab, expectations).await?;
    let cases = stream::iter(&expectations.cases).map(async |case| {
        let failure = check(lab, case, &views[&case.path]).await.inspect_err(|_| lab.stop())?;
        let identity = names[case.who].clone();
        Ok::<_, CliError>(Outcome { title: title(&identity, case), identity, failure })
    });
    let mut cases = std::pin::pin!(cases.buffered(PARALLEL));
    let (mut outcomes, mut trouble) = (Vec::new(), None);
    // To the end also after an error: what was begun clears itself away.
    while let Some(outcome) = cases.next().await {
        match outcome {
            Ok(outcome) => {
                if let Err(error) = tell(&outcome) {
                    lab.stop();
                    trouble.get_or_insert(error);
                }
                outcomes.push(outcome);
            }
            Err(error) => drop(trouble.get_or_insert(error)),
        }
    }
    trouble.map_or(Ok(outcomes), Err)
}

fn title(identity: &str, case: &Case) -> String {
    let path = &case.path;
    match &case.expected {
        Expected::May(operation) => format!("{identity} may {} {path}", operation.name()),
        Expected::MayNot(operation) => format!("{identity} may not {} {path}", operation.name()),
        Expected::SeesCount(count) => format!("{identity} sees {count} objects in {path}"),
        Expected::SeesNames(names) => format!("{identity} sees [{}] in {path}", names.join(", ")),
    }
}

/// What each path names, and who sees what there.
async fn look(lab: &Lab, expectations: &Expectations) -> Result<HashMap<String, View>, CliError> {
    let paths: BTreeSet<&String> = expectations.cases.iter().map(|case| &case.path).collect();
    let views = stream::iter(paths).map(async |whole| {
        let (bucket, path) = bucket_and_path(whole)?;
        Ok((whole.clone(), lab.look(bucket, path).await?))
    });
    views.buffered(PARALLEL).try_collect().await
}

/// `None` where it is as expected, else what is instead.
async fn check(lab: &Lab, case: &Case, view: &View) -> Result<Option<String>, CliError> {
    Ok(match &case.expected {
        Expected::May(operation) => right(lab, case.who, view, *operation, true).await?,
        Expected::MayNot(operation) => right(lab, case.who, view, *operation, false).await?,
        Expected::SeesCount(expected) => {
            let (mut count, mut files) = (0, Files::of(lab, case.who, view));
            while files.next().await?.is_some() {
                count += 1;
            }
            (count != *expected).then(|| format!("it sees {count}"))
        }
        Expected::SeesNames(names) => see(names, Files::of(lab, case.who, view)).await?,
    })
}

async fn right(
    lab: &Lab,
    who: usize,
    view: &View,
    operation: Operation,
    expected: bool,
) -> Result<Option<String>, Trouble> {
    let finding = lab.verdict(view, who, operation).await?.finding;
    Ok(match finding.allowed {
        Some(allowed) if allowed == expected => None,
        Some(_) => Some(finding.message),
        None => Some(format!("not known: {}", finding.message)),
    })
}

/// The objects of a place that one identity sees, as they are called from there.
struct Files {
    keys: Keys,
    place: Place,
}

impl Files {
    fn of(lab: &Lab, who: usize, view: &View) -> Self {
        Self { keys: lab.keys(who, &view.bucket, view.place.key()), place: view.place.clone() }
    }

    async fn next(&mut self) -> Result<Option<String>, Trouble> {
        while let Some(key) = self.keys.next().await? {
            match &self.place {
                Place::Folder(prefix) if !is_marker(&key) => {
                    return Ok(Some(key.strip_prefix(prefix.as_str()).unwrap_or(&key).to_owned()));
                }
                Place::Folder(_) => {}
                // The exact key comes first of all that begin with it.
                Place::Object(object) => {
                    let name = || key.rsplit('/').next().unwrap_or(&key).to_owned();
                    return Ok((key == *object).then(name));
                }
            }
        }
        Ok(None)
    }
}

/// Compares what is seen with the names of objects, and of folders that stand for all that is in them.
async fn see(names: &[String], mut files: Files) -> Result<Option<String>, Trouble> {
    let mut missing: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut more = Vec::new();
    while let Some(file) = files.next().await? {
        let covers = |name: &str| name == file || (name.ends_with('/') && file.starts_with(name));
        missing.retain(|name| !covers(name));
        if !names.iter().any(|name| covers(name)) && more.len() <= SHOWN {
            more.push(file);
        }
    }
    let mut wrong = Vec::new();
    if !missing.is_empty() {
        wrong.push(format!("it does not see {}", some(&missing)));
    }
    if !more.is_empty() {
        wrong.push(format!("it sees {} as well", some(&more)));
    }
    Ok((!wrong.is_empty()).then(|| wrong.join("; ")))
}

fn some<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("{:?}", name.as_ref())).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
