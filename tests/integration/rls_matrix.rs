//! The proof: two users and nobody in particular, on one bucket with policies by folder, owner, role and claim. Each
//! sees and may do exactly what the policies say, through the mount and through `supafs access`; each denial is EACCES
//! at the call, or absence where the policy hides; and nothing of what was refused remains anywhere.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};

use nix::errno::Errno;
use serde_json::Value;

use crate::common::{Backend, Bucket, Laboratory, Login, Mount, MountOptions, Place, eventually};

/// What a policy lets one do in a folder.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rights {
    /// Nothing: the folder is not even there.
    Hidden,
    /// Listing and reading.
    Read,
    /// That, and adding names; what others own stays as it is.
    Add,
    /// Everything.
    All,
}

/// What a call is expected to give.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Done,
    Denied,
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Alice,
    Bob,
    Anon,
}

const EVERYBODY: [Who; 3] = [Who::Alice, Who::Bob, Who::Anon];

/// Files of each folder, one for each operation.
const FILES: [&str; 5] = ["append", "delete", "out", "overwrite", "read"];

/// The policies of `tests/rls.sql` in words: a folder, and what alice, bob and anon may there. Whatever is in it is
/// alice's.
fn policies(lab: &Laboratory) -> [(String, [Rights; 3]); 5] {
    use Rights::{Add, All, Hidden, Read};
    [
        (lab.alice.clone(), [All, Hidden, Hidden]),
        (lab.shared.clone(), [Read, Read, Hidden]),
        (lab.board.clone(), [All, Add, Hidden]),
        (lab.public.clone(), [All, All, Read]),
        (lab.team.clone(), [All, Hidden, Hidden]),
    ]
}

fn token(backend: &Backend, lab: &Laboratory, who: Who) -> String {
    match who {
        Who::Alice => backend.token_with(Some(&lab.alice), &lab.claims()),
        Who::Bob => {
            backend.token_with(Some(&lab.bob), &serde_json::json!({ "app_metadata": { "team": "other" } }))
        }
        Who::Anon => backend.token_with(None, &Value::Null),
    }
}

fn mount_as(backend: &Backend, bucket: &Bucket<'_>, lab: &Laboratory, who: Who, args: &str) -> Mount {
    let facts = backend.facts();
    MountOptions::new(backend, &bucket.name)
        .login(Login::Custom)
        .env("SUPABASE_PROJECT_REF", facts.project_ref)
        .env("SUPABASE_ANON_KEY", facts.anon_key)
        .env("SUPABASE_SESSION_TOKEN", token(backend, lab, who))
        .args(args)
        .start()
}

/// Five files in each folder: those of alice are made by her, the shared ones by the service.
fn fill(backend: &Backend, bucket: &Bucket<'_>, lab: &Laboratory) {
    // A folder of a folder is nobody's to make where the policy begins at the second one.
    let markers = policies(lab).map(|(folder, _)| (format!("{folder}/.emptyFolderPlaceholder"), Vec::new()));
    for (key, bytes) in markers {
        bucket.put(&key, bytes);
    }
    let alice = mount_as(backend, bucket, lab, Who::Alice, "");
    for (folder, [rights, ..]) in policies(lab) {
        match rights {
            Rights::All => {
                alice.sh(&format!("cd {folder}; for f in {}; do printf $f > $f; done", FILES.join(" ")));
            }
            _ => bucket.put_keys(FILES.map(|file| format!("{folder}/{file}"))),
        }
    }
    alice.stop();
}

fn answer<T>(result: &io::Result<T>) -> Answer {
    match result {
        Ok(_) => Answer::Done,
        Err(error) if error.raw_os_error() == Some(Errno::EACCES as i32) => Answer::Denied,
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Answer::Absent,
        Err(error) => panic!("{error}"),
    }
}

/// Writes and waits for the server's answer, which is where a user can see it.
fn write(mount: &Mount, path: &str, how: &OpenOptions) -> io::Result<()> {
    let mut file = how.open(mount.at(path))?;
    file.write_all(b"+")?;
    file.sync_all()
}

/// A folder of one's own to move files into and out of, with a file in it, where one can have such a folder.
fn desk(mount: &Mount, lab: &Laboratory, who: Who, index: usize) -> Option<String> {
    let own = match who {
        Who::Alice => &lab.alice,
        Who::Bob => &lab.bob,
        Who::Anon => return None,
    };
    let desk = format!("{own}/desk-{index}");
    mount.sh(&format!("mkdir -p {desk}; printf in > {desk}/in"));
    Some(desk)
}

/// Every operation of the file system in one folder; each with what the rights say.
fn operate(mount: &Mount, who: Who, folder: &str, rights: Rights, desk: Option<&str>) {
    let at = |name: &str| format!("{folder}/{name}");
    let changes = match rights {
        Rights::Hidden => Answer::Absent,
        Rights::Read | Rights::Add => Answer::Denied,
        Rights::All => Answer::Done,
    };
    let adds = if rights == Rights::Add { Answer::Done } else { changes };
    let reads = if rights == Rights::Hidden { Answer::Absent } else { Answer::Done };
    let check = |operation: &str, result: &io::Result<()>, expected: Answer| {
        assert_eq!(answer(result), expected, "{who:?} {operation} {folder}: {result:?}");
    };

    check("list", &fs::read_dir(mount.at(folder)).map(drop), reads);
    check("read", &fs::read(mount.at(&at("read"))).map(|bytes| assert!(bytes.ends_with(b"read"))), reads);
    check("create", &write(mount, &at("new"), OpenOptions::new().write(true).create_new(true)), adds);
    check(
        "overwrite",
        &write(mount, &at("overwrite"), OpenOptions::new().write(true).truncate(true)),
        changes,
    );
    check("append", &write(mount, &at("append"), OpenOptions::new().append(true)), changes);
    check("mkdir", &fs::create_dir(mount.at(&at("dir"))), adds);
    let out = desk.map_or_else(|| at("moved"), |desk| format!("{desk}/out"));
    check("rename out of", &fs::rename(mount.at(&at("out")), mount.at(&out)), changes);
    if let Some(desk) = desk {
        check("rename into", &fs::rename(mount.at(&format!("{desk}/in")), mount.at(&at("in"))), adds);
    }
    check("delete in", &fs::remove_file(mount.at(&at("delete"))), changes);
    if rights == Rights::Hidden {
        let missing = fs::create_dir_all(mount.at(&at("made")));
        check("mkdir -p", &missing, Answer::Denied);
    }
}

/// What the folder holds afterwards, if each right was used and nothing else happened.
fn expected(folder: &str, rights: Rights, moves_in: bool) -> Vec<(String, Option<&'static str>)> {
    let shared = folder.starts_with("shared/");
    let own = |name: &'static str| if shared { None } else { Some(name) };
    let mut files: Vec<_> = FILES.iter().map(|name| (*name, own(name))).collect();
    if matches!(rights, Rights::All) {
        files = vec![("append", Some("append+")), ("overwrite", Some("+")), ("read", Some("read"))];
    }
    if matches!(rights, Rights::All | Rights::Add) {
        files.extend([("dir/.emptyFolderPlaceholder", Some("")), ("new", Some("+"))]);
        if moves_in {
            files.push(("in", Some("in")));
        }
    }
    files.into_iter().map(|(name, bytes)| (format!("{folder}/{name}"), bytes)).collect()
}

#[track_caller]
fn assert_holds(bucket: &Bucket<'_>, folder: &str, rights: Rights, moves_in: bool) {
    let holds: BTreeMap<String, Vec<u8>> = bucket
        .own()
        .into_iter()
        .filter(|(key, _)| {
            key.starts_with(&format!("{folder}/")) && !key.starts_with(&format!("{folder}/desk-"))
        })
        // The marker of the folder itself, which alice's mkdir made.
        .filter(|(key, _)| *key != format!("{folder}/.emptyFolderPlaceholder"))
        .collect();
    let expected = expected(folder, rights, moves_in);
    let mut names: Vec<&String> = expected.iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(holds.keys().collect::<Vec<_>>(), names, "{folder}");
    for (name, bytes) in &expected {
        let bytes = bytes.map_or_else(|| name.clone(), ToOwned::to_owned);
        assert_eq!(String::from_utf8_lossy(&holds[name]), bytes, "{name}");
    }
}

/// Files in the spool, each with its key and what the server said.
fn spooled(place: &Place) -> Vec<(String, String)> {
    let listed = place.supafs(["spool", "list", "--json"], &[]).ok();
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed["unreadable"], serde_json::json!([]));
    let files = listed["files"].as_array().expect("an array").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    files.map(|file| (text(&file["key"]), text(&file["error"]))).collect()
}

fn through_the_mount(who: Who) {
    let backend = Backend::start();
    let (bucket, lab) = backend.laboratory();
    fill(&backend, &bucket, &lab);
    let mount = mount_as(&backend, &bucket, &lab, who, "");
    let index = EVERYBODY.iter().position(|other| *other == who).expect("one of them");
    for (number, (folder, rights)) in policies(&lab).into_iter().enumerate() {
        let rights = rights[index];
        let desk = desk(&mount, &lab, who, number);
        operate(&mount, who, &folder, rights, desk.as_deref());
        assert_holds(&bucket, &folder, rights, who != Who::Anon);
        if let Some(desk) = &desk {
            // What could not be moved out is not copied either, and what could not be moved in is where it was.
            let (moved_out, moved_in) = (rights == Rights::All, matches!(rights, Rights::All | Rights::Add));
            assert_eq!(bucket.bytes(&format!("{desk}/out")).is_some(), moved_out, "{folder}");
            assert_eq!(bucket.bytes(&format!("{desk}/in")).is_none(), moved_in, "{folder}");
        }
        // And the mount itself shows what is there, no more.
        if rights != Rights::Hidden {
            let mut shown: Vec<String> = expected(&folder, rights, who != Who::Anon)
                .into_iter()
                .map(|(key, _)| key[folder.len() + 1..].split('/').next().expect("a name").to_owned())
                .collect();
            shown.sort();
            // The last descriptor is closed behind the caller's back.
            eventually("the listing to be as the bucket", || {
                let mut names = mount.names(&folder);
                names.retain(|name| !name.starts_with("desk-"));
                (names == shown).then_some(())
            });
        }
        eventually("an empty spool", || spooled(mount.place()).is_empty().then_some(()));
    }
    mount.stop();
}

#[test]
fn alice_does_through_the_mount_what_the_policies_say() {
    through_the_mount(Who::Alice);
}

#[test]
fn bob_does_through_the_mount_what_the_policies_say() {
    through_the_mount(Who::Bob);
}

#[test]
fn anon_does_through_the_mount_what_the_policies_say() {
    through_the_mount(Who::Anon);
}

#[test]
fn access_says_the_same_and_leaves_no_trace() {
    let backend = Backend::start();
    let (bucket, lab) = backend.laboratory();
    fill(&backend, &bucket, &lab);
    let before = bucket.own();
    let place = Place::new();
    for probe_delete in [false, true] {
        for (folder, rights) in policies(&lab) {
            let verdicts = access(&backend, &place, &bucket, &lab, &folder, probe_delete);
            for (who, rights) in EVERYBODY.iter().zip(rights) {
                let name = format!("{who:?}").to_lowercase();
                let of = |operation: &str| verdicts[&(name.clone(), operation.to_owned())];
                let told = ["list", "read", "create", "overwrite", "delete"].map(of);
                let (yes, no) = (Some(true), Some(false));
                // What is hidden cannot be deleted; the rest is known by trying only.
                let unknown = None;
                let [list, read, create, overwrite, delete] = match rights {
                    Rights::Hidden => [no, no, no, no, no],
                    Rights::Read => [yes, yes, no, no, if probe_delete { no } else { unknown }],
                    // Of what it made itself.
                    Rights::Add => [yes, yes, yes, no, if probe_delete { yes } else { unknown }],
                    Rights::All => [yes, yes, yes, yes, if probe_delete { yes } else { unknown }],
                };
                assert_eq!(told, [list, read, create, overwrite, delete], "{name} in {folder}");
            }
        }
        assert_eq!(bucket.own(), before, "a trace is left");
        if !backend.is_real() {
            assert_eq!(backend.standin().uploads(&bucket.name), [], "an upload is left");
        }
    }
}

#[test]
fn what_a_write_back_had_acknowledged_leaves_the_listing_and_stays_parked() {
    let backend = Backend::start();
    let (bucket, lab) = backend.laboratory();
    fill(&backend, &bucket, &lab);
    // Nobody may change anything in public/ as anon, and bob nothing of what is alice's.
    for (who, folder) in [(Who::Anon, &lab.public), (Who::Bob, &lab.board)] {
        let mount = mount_as(&backend, &bucket, &lab, who, "--write-back --write-back-delay 50ms");
        let at = |name: &str| mount.at(&format!("{folder}/{name}"));
        let append = || {
            let file = OpenOptions::new().append(true).open(at("append"));
            file.and_then(|mut file| file.write_all(b"+"))
        };
        let mut refused = vec!["append", "overwrite"];
        if who == Who::Anon {
            // The server is asked at open.
            refused.clear();
            for result in [fs::write(at("overwrite"), "over"), append(), fs::write(at("new"), "new")] {
                assert_eq!(answer(&result), Answer::Denied, "{result:?}");
            }
        } else {
            // Bob may replace a file of his in this folder. After that, he is not asked about the next one.
            for version in ["one", "own"] {
                fs::write(at("own"), version).expect("his own");
                let key = format!("{folder}/own");
                eventually("the upload", || (bucket.bytes(&key)? == version.as_bytes()).then_some(()));
                eventually("an empty spool", || spooled(mount.place()).is_empty().then_some(()));
            }
        }
        let before = bucket.own();
        if who == Who::Bob {
            fs::write(at("overwrite"), "over").expect("close does not ask the server");
            append().expect("nor here");
        }
        fs::remove_file(at("delete")).expect("nor here");
        eventually("everything to be as it was", || {
            let whole = |name: &&str| fs::read(at(name)).is_ok_and(|bytes| bytes == name.as_bytes());
            let mut names = mount.names(folder);
            names.retain(|name| name != "own");
            (names == FILES && FILES.iter().all(whole)).then_some(())
        });
        let mut parked = eventually("what was refused", || {
            let parked = spooled(mount.place());
            (parked.len() == refused.len()).then_some(parked)
        });
        parked.sort();
        for ((key, words), name) in parked.iter().zip(&refused) {
            assert_eq!(*key, format!("{}/{folder}/{name}", bucket.name));
            assert!(words.contains("row-level security"), "{words}");
        }
        assert_eq!(bucket.own(), before, "{who:?}");
        drop(mount);
    }
}

/// Verdicts on one folder, by identity and operation.
fn access(
    backend: &Backend,
    place: &Place,
    bucket: &Bucket<'_>,
    lab: &Laboratory,
    folder: &str,
    probe_delete: bool,
) -> BTreeMap<(String, String), Option<bool>> {
    let (alice, bob) = (format!("alice={}", lab.alice), format!("bob={}", lab.bob));
    let claims = format!("alice={}", lab.claims());
    let path = format!("{}/{folder}/", bucket.name);
    let mut args =
        vec!["access", &path, "--json", "--depth", "0", "--as", &alice, "--as", &bob, "--as", "anon"];
    args.extend(["--claims", &claims]);
    args.extend(probe_delete.then_some("--probe-delete"));
    let outcome = place.supafs_as_owner(backend, args).ok();
    let rows: Vec<Value> = serde_json::from_str(&outcome.stdout).expect("JSON");
    rows.iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().expect("text").to_owned();
            assert_eq!(text("path"), path);
            ((text("identity"), text("operation")), row["allowed"].as_bool())
        })
        .collect()
}
