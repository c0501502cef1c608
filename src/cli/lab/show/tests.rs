//! The forms that people read.

use super::*;
use crate::lab::{Finding, Seen, View};

fn node(depth: usize, name: &str, place: Place, is_last: bool, cut: bool) -> Node {
    let view = View { bucket: "b".to_owned(), place, seen: vec![Seen::default()] };
    Node { depth, name: name.to_owned(), is_last, cut, view }
}

fn verdicts(identity: &str, path: &str, allowed: [Option<bool>; 5]) -> Vec<Verdict> {
    let verdict = |(operation, allowed)| Verdict {
        identity: identity.to_owned(),
        path: path.to_owned(),
        operation,
        finding: Finding { allowed, message: "words".to_owned() },
    };
    Operation::ALL.into_iter().zip(allowed).map(verdict).collect()
}

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);

fn printed(names: &[&str], nodes: &[Node], verdicts: &[Verdict], verbose: bool) -> String {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut out = Vec::new();
    text(&mut out, &names, nodes, verdicts, verbose).expect("memory");
    String::from_utf8(out).expect("text")
}

#[test]
fn an_object_is_a_table_with_the_refusals_below() {
    let object = node(0, "b/x", Place::Object("x".to_owned()), true, false);
    let mut all = verdicts("alice", "b/x", [YES, YES, YES, NO, None]);
    all.extend(verdicts("bob", "b/x", [YES; 5]));
    assert_eq!(
        printed(&["alice", "bob"], &[object], &all, false),
        "b/x\n       list  read  create  overwrite  delete\nalice  yes   yes   yes     no         ?\n\
         bob    yes   yes   yes     yes        yes\n\nalice  b/x  overwrite  no   words\n"
    );
}

#[test]
fn a_folder_is_a_tree() {
    let folder =
        |depth, name: &str, is_last, cut| node(depth, name, Place::Folder(name.to_owned()), is_last, cut);
    let nodes = [
        folder(0, "b/", true, true),
        folder(1, "d/", false, true),
        node(2, "f", Place::Object("d/f".to_owned()), true, false),
        node(1, "g", Place::Object("g".to_owned()), true, false),
    ];
    let all: Vec<Verdict> = (0..4).flat_map(|_| verdicts("a", "p", [YES, YES, NO, None, YES])).collect();
    let text = printed(&["a"], &nodes, &all, false);
    let tree: Vec<&str> = text.lines().take(8).collect();
    assert_eq!(
        tree,
        [
            "l list, r read, c create, o overwrite, d delete; - refused, ? not known",
            "                          a",
            "b/                        lr-?d",
            "├── d/                    lr-?d",
            "│   └── f                 lr-?d",
            "    … and more (--names)",
            "└── g                     lr-?d",
            "… and more (--names)",
        ]
    );
}

#[test]
fn json_has_one_row_for_each_verdict() {
    let mut out = Vec::new();
    json(&mut out, &verdicts("a", "p", [YES, NO, None, YES, NO])).expect("memory");
    let rows: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(rows.as_array().map(Vec::len), Some(5));
    assert_eq!(
        rows[2],
        serde_json::json!({"identity": "a", "path": "p", "operation": "create", "allowed": null, "message": "words"})
    );
    out.clear();
    json(&mut out, &[]).expect("memory");
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).expect("JSON"), serde_json::json!([]));
}
