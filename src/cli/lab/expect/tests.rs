//! The file's forms, and that every mistake is told with its line and column.

use super::*;

const ALICE: &str = "a11ce000-5a1e-4c1d-9f00-00000000a11c";

fn file(rest: &str) -> String {
    format!(
        "[identities]\nalice = {{ as_user = \"{ALICE}\" }}\nanon = {{ anon = true }}\nservice = {{ keys = true }}\n{rest}"
    )
}

fn mistake(text: &str) -> String {
    parse("f.toml", text).expect_err("it is wrong")
}

#[test]
fn every_form_is_understood() {
    let text = format!(
        "probe_delete = true\n[identities]\nalice = {{ as_user = \"{ALICE}\", role = \"staff\", email = \"a@b.c\", claims = {{ \
         app_metadata = {{ team = \"red\" }} }} }}\nanon = {{ anon = true }}\n\
         [[expect]]\nas = \"alice\"\npath = \"b/x/\"\nallow = [\"list\", \"read\"]\ndeny = [\"delete\"]\nsees = 3\n\
         [[expect]]\nas = [\"anon\", \"alice\"]\npath = \"b\"\nsees = [\"a\", \"x/\"]\n"
    );
    let read = parse("f", &text).expect("it is right");
    assert!(read.probe_delete);
    let Kind::Minted { sub, role, claims } = &read.identities[0].kind else { panic!("{read:?}") };
    assert_eq!((sub.as_deref(), role.as_deref()), (Some(ALICE), Some("staff")));
    assert_eq!(claims["email"], "a@b.c");
    assert_eq!(claims["app_metadata"]["team"], "red");
    let of = |path: &str| {
        let cases = read.cases.iter().filter(|case| case.path == path);
        cases.map(|case| (read.identities[case.who].name.clone(), case.expected.clone())).collect::<Vec<_>>()
    };
    let alice = |expected| ("alice".to_owned(), expected);
    assert_eq!(
        of("b/x/"),
        [
            alice(Expected::May(Operation::List)),
            alice(Expected::May(Operation::Read)),
            alice(Expected::MayNot(Operation::Delete)),
            alice(Expected::SeesCount(3)),
        ]
    );
    let names = Expected::SeesNames(vec!["a".to_owned(), "x/".to_owned()]);
    assert_eq!(of("b"), [("anon".to_owned(), names.clone()), alice(names)]);
}

#[test]
fn an_address_alone_is_who_signs_in() {
    let read = parse("f", "[identities]\nbob = { email = \"bob@example.com\" }\n").expect("it is right");
    assert_eq!(read.identities[0].kind, Kind::SignsIn("bob@example.com".to_owned()));
}

#[test]
fn mistakes_are_told_with_line_and_column() {
    for (text, place, words) in [
        ("[identities", "f.toml:1:12: ", ""),
        ("identities = 3", "f.toml:1:14: ", "invalid type"),
        ("[[expect]]\n", "f.toml:1:1: ", "missing field"),
        ("probe_delete = true\n", "f.toml:1:1: ", "identities"),
        ("[identities]\nx = { as_usr = \"a\" }\n", "f.toml:2:7: ", "as_usr"),
        ("[identities]\nx = { }\n", "f.toml:2:5: ", "as_user"),
        ("[identities]\nx = { anon = true, keys = true }\n", "f.toml:2:5: ", "one of"),
        ("[identities]\nx = { keys = true, role = \"r\" }\n", "f.toml:2:5: ", "no role"),
        ("[identities]\nx = { email = \"a@b.c\", role = \"r\" }\n", "f.toml:2:5: ", "as_user"),
        ("[identities]\nx = { as_user = \"alice\" }\n", "f.toml:2:5: ", "no UUID"),
        ("[identities]\nx = { anon = true, claims = { sub = \"x\" } }\n", "f.toml:2:5: ", "sub"),
    ] {
        let told = mistake(text);
        assert!(told.starts_with(place) && told.contains(words), "{text:?}: {told}");
    }
    for (rest, place, words) in [
        ("[[expect]]\nas = \"alcie\"\npath = \"b\"\nsees = 1\n", "f.toml:6:6: ", "did you mean \"alice\""),
        ("[[expect]]\nas = []\npath = \"b\"\nsees = 1\n", "f.toml:6:6: ", "name"),
        ("[[expect]]\nas = \"alice\"\npath = \"b\"\n", "f.toml:5:1: ", "expects nothing"),
        ("[[expect]]\nas = \"alice\"\npath = \"/b\"\nsees = 1\n", "f.toml:7:8: ", "BUCKET"),
        (
            "[[expect]]\nas = \"alice\"\npath = \"b\"\nallow = [\"list\", \"raed\"]\n",
            "f.toml:8:18: ",
            "did you mean \"read\"",
        ),
        (
            "[[expect]]\nas = \"alice\"\npath = \"b\"\nallow = [\"list\"]\ndeny = [\"list\"]\n",
            "f.toml:5:1: ",
            "at once",
        ),
        ("[[expect]]\nas = \"alice\"\npath = \"b\"\nsees = -1\n", "f.toml:8:8: ", "number"),
        ("[[expect]]\nas = \"alice\"\npath = \"b\"\nsees = [1]\n", "f.toml:8:8: ", "number"),
        ("[[expect]]\nas = \"alice\"\npath = \"b\"\nalow = [\"list\"]\n", "f.toml:8:1: ", "alow"),
        ("[[expect]]\nas = \"älice\"\npath = \"ä\" x\n", "f.toml:7:12: ", ""),
    ] {
        let told = mistake(&file(rest));
        assert!(told.starts_with(place) && told.contains(words), "{rest:?}: {told}");
    }
}
