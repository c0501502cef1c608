//! The picture of the layers in `src/lib.rs` stays true: imports go downward only, and each foreign library has its
//! one place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, from the bottom. Modules of one layer do not see each other; what is not named here is layer 0.
const LAYERS: [&[&str]; 7] = [
    &[],
    &["store", "auth"],
    &["meta", "data", "writeback"],
    &["fs"],
    &["fuse"],
    &["daemon", "lab"],
    &["cli"],
];

/// Crates that only these modules may use.
const PLACES: [(&[&str], &[&str]); 3] = [
    (&["fuser"], &["fuse"]),
    (
        &[
            "aws_config",
            "aws_sdk_s3",
            "aws_types",
            "aws_smithy_http_client",
            "aws_smithy_runtime_api",
            "aws_smithy_types",
        ],
        &["store", "auth", "http"],
    ),
    (&["clap"], &["cli"]),
];

struct Source {
    path: PathBuf,
    /// The top module: `store` for `src/store/s3.rs`, `name` for `src/name.rs`.
    module: String,
    /// Without comments.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 30, "{} files", found.len());
    found
}

fn collect(root: &Path, dir: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(root).expect("below the root").to_owned();
            let first =
                below.components().next().expect("a component").as_os_str().to_string_lossy().into_owned();
            let code = fs::read_to_string(&path).expect("text");
            let code: Vec<&str> =
                code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
            found.push(Source {
                path: below,
                module: first.trim_end_matches(".rs").to_owned(),
                code: code.join("\n"),
            });
        }
    }
}

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|modules| modules.contains(&module)).unwrap_or(0)
}

/// Top modules that a file names by `crate::`, also in a group like `crate::{config, store::s3}`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let group = rest.strip_prefix('{');
        let text = match group {
            Some(group) => group,
            None => &rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())],
        };
        let (mut depth, mut name, mut is_first) = (0, String::new(), true);
        for c in text.chars().chain([',']) {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.push(std::mem::take(&mut name));
                    is_first = true;
                }
                c if depth == 0 && is_first && (c.is_alphanumeric() || c == '_') => name.push(c),
                c if depth == 0 && !c.is_whitespace() => is_first = false,
                _ => {}
            }
        }
        found.push(name);
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn imports_are_found_in_every_form() {
    assert_eq!(imports("use crate::store::s3::X;"), ["store"]);
    assert_eq!(imports("use crate::{config::{A, B}, fs, daemon::run};"), ["config", "fs", "daemon"]);
    assert_eq!(imports("x: crate::auth::Session, y: &crate::stats::Stats"), ["auth", "stats"]);
}

#[test]
fn imports_go_downward_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        if ["lib", "main"].contains(&source.module.as_str()) {
            continue;
        }
        let own = layer(&source.module);
        for import in imports(&source.code) {
            let is_allowed =
                import == source.module || layer(&import) < own || (own == 0 && layer(&import) == 0);
            // What only tests import is not in the picture of the program.
            let is_test = source.path.ends_with("tests.rs")
                || source.path.components().any(|c| c.as_os_str() == "tests");
            if !is_allowed && !is_test {
                wrong.push(format!(
                    "{} (layer {own}) imports {import} (layer {})",
                    source.path.display(),
                    layer(&import)
                ));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_foreign_library_has_its_one_place() {
    let mut wrong: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for source in sources() {
        for (crates, modules) in PLACES {
            let uses = |name: &&&str| {
                source.code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == **name)
            };
            if !modules.contains(&source.module.as_str()) {
                for name in crates.iter().filter(uses) {
                    wrong.entry(source.path.display().to_string()).or_default().push(name);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_code_is_in_one_file() {
    for source in sources() {
        let words = source.code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let count = words.filter(|word| *word == "unsafe").count();
        assert!(count == 0 || source.path == Path::new("sys.rs"), "{} has {count}", source.path.display());
    }
}

#[test]
fn every_file_says_what_it_owns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &root.join("src"), &mut files);
    for source in files {
        let text = fs::read_to_string(root.join("src").join(&source.path)).expect("text");
        let is_tests = source.path.file_name().is_some_and(|name| name == "tests.rs");
        assert!(is_tests || text.starts_with("//!"), "{} has no `//!`", source.path.display());
        assert!(text.lines().count() <= 650, "{} is too long", source.path.display());
    }
}
