//! How verdicts are printed: an object as a table, a folder as a tree, or all as JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::lab::{Node, Operation, Place, Verdict};

/// One verdict of the JSON array.
#[derive(Serialize)]
struct Row<'a> {
    identity: &'a str,
    path: &'a str,
    operation: &'static str,
    allowed: Option<bool>,
    message: &'a str,
}

/// An array, one verdict a line.
pub fn json(out: &mut impl Write, verdicts: &[Verdict]) -> io::Result<()> {
    write!(out, "[")?;
    for (index, verdict) in verdicts.iter().enumerate() {
        let row = Row {
            identity: &verdict.identity,
            path: &verdict.path,
            operation: verdict.operation.name(),
            allowed: verdict.finding.allowed,
            message: &verdict.finding.message,
        };
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}\n  {}", serde_json::to_string(&row)?)?;
    }
    writeln!(out, "\n]")
}

/// For people. `verdicts` are those of the nodes in order, for each identity all operations.
pub fn text(
    out: &mut impl Write,
    names: &[String],
    nodes: &[Node],
    verdicts: &[Verdict],
    verbose: bool,
) -> io::Result<()> {
    match nodes {
        [node] if matches!(node.view.place, Place::Object(_)) => table(out, names, node, verdicts)?,
        _ => tree(out, names, nodes, verdicts)?,
    }
    reasons(out, verdicts, verbose)
}

fn table(out: &mut impl Write, names: &[String], node: &Node, verdicts: &[Verdict]) -> io::Result<()> {
    writeln!(out, "{}", node.name)?;
    let width = width(names.iter().map(String::as_str));
    write!(out, "{:width$}", "")?;
    for operation in Operation::ALL {
        write!(out, "  {}", operation.name())?;
    }
    writeln!(out)?;
    for (name, cells) in names.iter().zip(verdicts.chunks(Operation::ALL.len())) {
        let words = cells.iter().map(|verdict| {
            let word = word(verdict);
            format!("  {word:<0$}", verdict.operation.name().len())
        });
        let line = format!("{name:width$}{}", words.collect::<String>());
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict.finding.allowed {
        Some(true) => "yes",
        Some(false) => "no",
        None => "?",
    }
}

fn tree(out: &mut impl Write, names: &[String], nodes: &[Node], verdicts: &[Verdict]) -> io::Result<()> {
    writeln!(out, "l list, r read, c create, o overwrite, d delete; - refused, ? not known")?;
    let labels = labels(nodes);
    let first = width(labels.iter().map(|(label, _)| label.as_str()));
    let column = |name: &String| width([name.as_str(), "lrcod"]);
    let head: Vec<String> = names.iter().map(|name| format!("  {name:<0$}", column(name))).collect();
    writeln!(out, "{}", format!("{:first$}{}", "", head.concat()).trim_end())?;
    let mut cells = verdicts.chunks(Operation::ALL.len());
    for (label, has_verdicts) in labels {
        let of_all = if has_verdicts { names } else { &[] };
        let cells = of_all.iter().zip(&mut cells).map(|(name, verdicts)| {
            let letters: String = verdicts.iter().map(letter).collect();
            format!("  {letters:<0$}", column(name))
        });
        let line = format!("{label:first$}{}", cells.collect::<String>());
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// The first column, and whether verdicts belong beside it.
fn labels(nodes: &[Node]) -> Vec<(String, bool)> {
    let mut labels: Vec<(String, bool)> = Vec::new();
    // Whether more follows at each level above.
    let mut open: Vec<bool> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        open.truncate(node.depth.saturating_sub(1));
        let stem: String = open.iter().map(|more| if *more { "│   " } else { "    " }).collect();
        let branch = match (node.depth, node.is_last) {
            (0, _) => "",
            (_, false) => "├── ",
            (_, true) => "└── ",
        };
        labels.push((format!("{stem}{branch}{}", node.name), true));
        if node.depth > 0 {
            open.push(!node.is_last);
        }
        // What is left out of a folder is said at its end.
        let next = nodes.get(index + 1).map_or(0, |next| next.depth);
        for parent in (next..=node.depth).rev() {
            let of = nodes[..=index].iter().rfind(|earlier| earlier.depth == parent);
            if of.is_some_and(|of| of.cut) {
                labels.push((format!("{}… and more (--names)", "    ".repeat(parent)), false));
            }
        }
    }
    labels
}

fn letter(verdict: &Verdict) -> char {
    match (verdict.finding.allowed, verdict.operation) {
        (Some(false), _) => '-',
        (None, _) => '?',
        (_, Operation::List) => 'l',
        (_, Operation::Read) => 'r',
        (_, Operation::Create) => 'c',
        (_, Operation::Overwrite) => 'o',
        (_, Operation::Delete) => 'd',
    }
}

/// What the verdicts were won by: of refusals always, of all if `verbose`.
fn reasons(out: &mut impl Write, verdicts: &[Verdict], verbose: bool) -> io::Result<()> {
    let told: Vec<&Verdict> =
        verdicts.iter().filter(|verdict| verbose || verdict.finding.allowed == Some(false)).collect();
    if told.is_empty() {
        return Ok(());
    }
    let name = width(told.iter().map(|verdict| verdict.identity.as_str()));
    let path = width(told.iter().map(|verdict| verdict.path.as_str()));
    writeln!(out)?;
    for verdict in told {
        let mark = word(verdict);
        writeln!(
            out,
            "{:name$}  {:path$}  {:9}  {mark:3}  {}",
            verdict.identity,
            verdict.path,
            verdict.operation.name(),
            verdict.finding.message
        )?;
    }
    Ok(())
}

fn width<'a>(texts: impl IntoIterator<Item = &'a str>) -> usize {
    texts.into_iter().map(|text| text.chars().count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
