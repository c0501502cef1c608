//! The matrix of Row Level Security: which policies an operation needs, and what the others answer.

use std::time::Duration;

use crate::common::{Client, standin};
use serde_json::json;
use supafs_standin::{ALICE, BOB, Command, Policy, Predicate, Standin};

const HOUR: Duration = Duration::from_hours(1);

fn user(standin: &Standin, sub: &str) -> Client {
    Client::user(standin, &standin.mint(sub, "authenticated", HOUR, &json!({})))
}

fn only(commands: &[Command]) -> Vec<Policy> {
    commands.iter().map(|c| Policy::new(*c, Predicate::Always).to("authenticated")).collect()
}

const NO_ROW: &str = "new row violates row-level security policy";

#[test]
fn each_operation_needs_its_policies() {
    use Command::{Delete, Insert, Select, Update};
    let standin = standin();
    let alice = user(&standin, ALICE);
    // Policies; statuses of LIST count, GET, PUT new, PUT existing, DELETE existing, DELETE missing.
    let cases: [(&[Command], _, [u16; 5]); 9] = [
        (&[], "0", [404, 403, 403, 403, 204]),
        (&[Select], "1", [200, 403, 403, 403, 204]),
        (&[Insert], "0", [404, 403, 403, 403, 204]),
        (&[Insert, Update], "0", [404, 403, 403, 403, 204]),
        (&[Delete], "0", [404, 403, 403, 403, 204]),
        (&[Select, Insert], "1", [200, 200, 403, 403, 204]),
        (&[Select, Insert, Update], "1", [200, 200, 200, 403, 204]),
        (&[Select, Delete], "1", [200, 403, 403, 204, 204]),
        (&Command::ALL, "1", [200, 200, 200, 204, 204]),
    ];
    for (commands, listed, expected) in cases {
        standin.set_policies("b", only(commands));
        standin.put("b", "old", "1");
        standin.delete("b", "new");
        assert_eq!(alice.list("b", &[]).one("KeyCount"), listed, "{commands:?}");
        let head = alice.head_of("/b/old").status;
        let statuses = [
            alice.get("/b/old").status,
            alice.put("/b/new", b"n").status,
            alice.put("/b/old", b"o").status,
            alice.delete("/b/old").status,
            alice.delete("/b/missing").status,
        ];
        assert_eq!(statuses, expected, "{commands:?}");
        assert_eq!(head, statuses[0]);
    }
}

#[test]
fn refusals_have_the_servers_words() {
    let standin = standin();
    standin.put("b", "old", "1");
    let alice = user(&standin, ALICE);
    let denied = |m: &str| (403, "AccessDenied".to_owned(), m.to_owned());
    assert_eq!(alice.put("/b/new", b"").refusal(), denied(NO_ROW));
    assert_eq!(alice.put("/b/new", b"").header("connection"), Some("close"));
    assert_eq!(alice.delete("/b/old").refusal(), denied("Access denied"));
    assert_eq!(alice.get("/b/old").refusal().1, "NoSuchKey");
    assert_eq!(alice.list("missing", &[]).refusal().1, "NoSuchBucket", "existence is no secret");
    assert_eq!(alice.get("/").all("Bucket").len(), 0);
    assert_eq!(alice.head_of("/b").status, 404);
    assert_eq!(alice.get("/b?location").refusal().1, "NoSuchBucket");
    assert_eq!(alice.put("/mine", b"").refusal(), denied(NO_ROW));
    standin.set_bucket_visible_to("b", &["authenticated"]);
    assert_eq!(alice.get("/").all("Name"), ["b"]);
    assert_eq!(alice.head_of("/b").status, 200);
}

#[test]
fn user_folders_separate_users() {
    let standin = standin();
    standin.set_policies("b", Policy::user_folders());
    standin.put("b", "shared/s", "s");
    standin.put("b", &format!("{BOB}/secret"), "bob's");
    let (alice, bob) = (user(&standin, ALICE), user(&standin, BOB));
    assert_eq!(alice.put(&format!("/b/{ALICE}/a/b/c"), b"1").status, 200);
    assert_eq!(alice.list_all("b", &[("delimiter", "/")]).1, [format!("{ALICE}/"), "shared/".to_owned()]);
    assert_eq!(bob.list_all("b", &[]).0, [format!("{BOB}/secret"), "shared/s".to_owned()]);
    assert_eq!(alice.get(&format!("/b/{BOB}/secret")).refusal().1, "NoSuchKey");
    assert_eq!(alice.get("/b/shared/s").status, 200);
    assert_eq!(alice.put("/b/shared/s", b"x").status, 403);
    assert_eq!(alice.put("/b/root", b"x").status, 403);
    let copy = |source: String, target: &str| {
        let header = [("x-amz-copy-source", source.as_str())];
        alice.send("PUT", target, &header, b"").refusal()
    };
    assert_eq!(copy("b/shared/s".into(), &format!("/b/{ALICE}/copy")).0, 200);
    assert_eq!(copy(format!("b/{BOB}/secret"), &format!("/b/{ALICE}/copy")).1, "NoSuchKey");
    assert_eq!(copy("b/shared/s".into(), "/b/shared/copy").2, NO_ROW);
    let body = format!(
        "<Delete><Object><Key>shared/s</Key></Object><Object><Key>{ALICE}/copy</Key></Object><Object><Key>gone</Key></Object></Delete>"
    );
    let answer = alice.send("POST", "/b?delete", &[("content-type", "application/xml")], body.as_bytes());
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.one("Error"),
        "<Key>shared/s</Key><Code>AccessDenied</Code><Message>Access Denied</Message>"
    );
    assert_eq!(answer.all("Deleted").len(), 2);
    assert_eq!(standin.keys("b").len(), 3);
}

#[test]
fn predicates_look_at_owner_role_and_claims() {
    let standin = standin();
    let claim = |path: &str, value| Predicate::Claim { path: path.to_owned(), value };
    standin.set_policies(
        "b",
        vec![
            Policy::all(Predicate::Owner).to("authenticated"),
            Policy::new(Command::Select, claim("app_metadata.team", json!("red"))),
            Policy::new(
                Command::Select,
                Predicate::And(vec![
                    Predicate::Role("anon".to_owned()),
                    Predicate::Or(vec![
                        Predicate::Under("public".to_owned()),
                        Predicate::Under("open/".to_owned()),
                    ]),
                    Predicate::Not(Box::new(Predicate::Under("public/not".to_owned()))),
                ]),
            ),
        ],
    );
    for key in ["public/a", "public/not/b", "publicity", "open/c", "closed"] {
        standin.put("b", key, "x");
    }
    let (alice, bob) = (user(&standin, ALICE), user(&standin, BOB));
    assert_eq!(alice.put("/b/mine", b"1").status, 200);
    assert_eq!(alice.put("/b/mine", b"2").status, 200);
    assert_eq!(bob.get("/b/mine").status, 404);
    assert_eq!(bob.put("/b/mine", b"3").status, 403);
    assert_eq!(alice.list_all("b", &[]).0, ["mine"]);
    let red = standin.mint(BOB, "authenticated", HOUR, &json!({"app_metadata": {"team": "red"}}));
    assert_eq!(Client::user(&standin, &red).list_all("b", &[]).0.len(), 6);
    let anon = standin.mint(BOB, "anon", HOUR, &json!({}));
    assert_eq!(Client::user(&standin, &anon).list_all("b", &[]).0, ["open/c", "public/a"]);
}

#[test]
fn the_laboratory_tells_by_owner_role_and_claim() {
    let standin = standin();
    standin.set_policies("b", Policy::laboratory());
    let alice = standin.mint(ALICE, "authenticated", HOUR, &json!({"app_metadata": {"team": "red"}}));
    let (alice, bob) = (Client::user(&standin, &alice), user(&standin, BOB));
    let anon = Client::user(&standin, &standin.mint("", "anon", HOUR, &json!({"sub": null})));
    for key in ["board/a", "public/a", "team/red/a"] {
        assert_eq!(alice.put(&format!("/b/{key}"), b"1").status, 200, "{key}");
    }
    let all = ["board/a", "public/a", "team/red/a"];
    assert_eq!(alice.list_all("b", &[]).0, all);
    assert_eq!(bob.list_all("b", &[]).0, all[..2]);
    assert_eq!(anon.list_all("b", &[]).0, all[1..2]);
    // What is alice's on the board stays as it is; beside it there is room.
    assert_eq!(bob.put("/b/board/a", b"2").status, 403);
    assert_eq!(bob.delete("/b/board/a").status, 403);
    assert_eq!(bob.put("/b/board/b", b"2").status, 200);
    assert_eq!(bob.put("/b/public/a", b"2").status, 200);
    assert_eq!(anon.put("/b/public/b", b"2").status, 403);
    // A team is a folder, and no file beside the folders.
    assert_eq!(alice.put("/b/team/red", b"2").status, 403);
    assert_eq!(alice.put("/b/team/blue/a", b"2").status, 403);
}
