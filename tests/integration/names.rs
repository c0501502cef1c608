//! Keys and file names: folders and their placeholders, an object beside a folder of its name, keys that cannot be
//! file names, and names that look like escapes. Every object is readable under some name, and none hides another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Backend, Bucket, Mount, Put};

const PLACEHOLDER: &str = ".emptyFolderPlaceholder";

fn put_empty(bucket: &Bucket<'_>, key: &str) {
    bucket.put_with(key, vec![], Put::default());
}

/// The key that a file stands for.
fn key_of(path: &Path) -> String {
    let output = Command::new("getfattr")
        .args(["--only-values", "--absolute-names", "-n", "user.supabase.key"])
        .arg(path)
        .output()
        .expect("getfattr (package attr)");
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// All files below a directory. Goes down by names, as any tool would; a loop would show as a path without end.
fn walk(dir: &Path, depth: usize, found: &mut BTreeMap<String, Vec<u8>>) {
    assert!(depth < 30, "{} has no end", dir.display());
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("an entry").path();
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if meta.is_dir() {
            walk(&path, depth + 1, found);
        } else {
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(found.insert(key_of(&path), bytes).is_none(), "{} twice", path.display());
        }
    }
}

/// Every key, read through the mount.
fn read_all(mount: &Mount) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    walk(&mount.path, 0, &mut found);
    found
}

#[track_caller]
fn assert_all_are_readable(mount: &Mount, keys: &[&str]) {
    let found = read_all(mount);
    let wanted: BTreeSet<&str> = keys.iter().copied().collect();
    assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), wanted);
    for (key, bytes) in found {
        assert_eq!(String::from_utf8_lossy(&bytes), key);
    }
}

#[test]
fn placeholders_are_hidden_and_the_folders_they_make_are_shown() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file", "full/inside"]);
    for folder in ["empty", "full", "nested/a/b"] {
        put_empty(&bucket, &format!("{folder}/{PLACEHOLDER}"));
    }
    let mount = Mount::new(&backend, &bucket);
    assert!(!mount.at(&format!("empty/{PLACEHOLDER}")).exists(), "before the listing");
    assert!(mount.at("nested/a/b").is_dir(), "before the listing");
    assert_eq!(
        mount.sh("find . | sort"),
        ".\n./empty\n./file\n./full\n./full/inside\n./nested\n./nested/a\n./nested/a/b\n"
    );
    assert!(!mount.at(&format!("empty/{PLACEHOLDER}")).exists());
}

#[test]
fn a_key_that_ends_in_a_slash_is_an_empty_folder() {
    let backend =
        standin_only!("a server stores such a key under another name, unless it comes by another way");
    let bucket = backend.bucket();
    bucket.put_with("made/", vec![], Put::default());
    bucket.put_keys(["filled/", "filled/inside"]);
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(mount.names(""), ["filled", "made"]);
    assert_eq!(mount.names("made"), [""; 0]);
    assert!(mount.at("made").is_dir());
    let found = read_all(&mount);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["filled/", "filled/inside"], "a body is not lost");
}

#[test]
fn an_object_beside_a_folder_of_its_name_is_readable_under_an_escaped_name() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["a", "a/one", "a/a", "a/a/two", "b-", "b", "b/x", "c"]);
    let mount = Mount::new(&backend, &bucket);
    assert!(mount.at("a").is_dir(), "before the listing");
    assert_eq!(mount.names(""), ["a", "a!00", "b", "b!00", "b-", "c"]);
    assert_eq!(mount.names("a"), ["a", "a!00", "one"]);
    assert_eq!(mount.read("a!00"), b"a");
    assert_eq!(mount.read("a/a!00"), b"a/a");
    assert_all_are_readable(&mount, &["a", "a/one", "a/a", "a/a/two", "b-", "b", "b/x", "c"]);
    // By name, without a listing first.
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(mount.read("b!00"), b"b");
    assert!(!mount.at("c!00").exists());
}

#[test]
fn double_and_leading_slashes_are_shown_once_and_without_a_loop() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let keys = ["a//b", "a/c", "a///d", "/lead", "//two", "x/y//", "x/y//z//w", "plain"];
    // A server may store a key with a slash at its end under another name.
    let keys: Vec<&str> = keys.into_iter().filter(|key| !key.ends_with('/')).collect();
    bucket.put_keys(&keys);
    let mount = Mount::new(&backend, &bucket);
    assert_all_are_readable(&mount, &keys);
    mount.sh("find . -type f -exec cat {} + > /dev/null; du -a > /dev/null; grep -r plain . > /dev/null");
}

#[test]
fn dot_components_do_not_lead_out_of_their_folder() {
    let backend = standin_only!("the file backend of a real server refuses such keys");
    let bucket = backend.bucket();
    let keys = ["./here", "../there", "a/../up", "a/./same", "a/..", "b/.", "a/plain", "..", "..."];
    bucket.put_keys(keys);
    let mount = Mount::new(&backend, &bucket);
    assert_all_are_readable(&mount, &keys);
    assert!(!mount.at("a/plain/..").exists());
    assert!(mount.at("...").is_file());
}

#[test]
fn components_that_are_too_long_are_shown_shortened() {
    let backend = standin_only!("the file backend of a real server cannot store them");
    let bucket = backend.bucket();
    let long = "x".repeat(300);
    let keys = [
        format!("{long}.txt"),
        format!("{long}.jpg"),
        format!("dir{long}/inside"),
        "y".repeat(255),
        "z".into(),
    ];
    bucket.put_keys(&keys);
    let mount = Mount::new(&backend, &bucket);
    assert_all_are_readable(&mount, &keys.each_ref().map(String::as_str));
    assert!(mount.names("").iter().all(|name| name.len() <= 255));
}

#[test]
fn escaped_names_are_shown_decoded_and_found_by_both() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    // (key, name): what this program would store `name` as is `key`.
    let pairs = [
        ("caf!C3!A9.txt", "café.txt"),
        ("100!25", "100%"),
        ("a!7Eb", "a~b"),
        ("!5Bdraft!5D", "[draft]"),
        ("wow!", "wow!"),
        ("what!!", "what!!"),
        ("!c3!a9", "!c3!a9"),
        ("lit!21C3", "lit!C3"),
        ("lit!2121C3", "lit!21C3"),
        ("!41", "!41"),
        ("!2100", "!212100"),
        ("!002F", "!21002F"),
        ("!", "!"),
    ];
    bucket.put_keys(pairs.map(|(key, _)| key));
    bucket.put_keys(pairs.map(|(key, _)| format!("in/{key}/{key}")));
    for cold in [true, false] {
        let mount = Mount::new(&backend, &bucket);
        if !cold {
            mount.files();
        }
        for (key, name) in pairs {
            let name_of_key = supafs::name::from_component(key);
            assert_eq!(String::from_utf8_lossy(&name_of_key), name, "the table of this test");
            assert_eq!(mount.read(name), key.as_bytes(), "{name} for {key}, cold: {cold}");
            assert_eq!(
                mount.read(&format!("in/{name}/{name}")),
                format!("in/{key}/{key}").as_bytes(),
                "{name}"
            );
        }
        let mut names = pairs.map(|(_, name)| name.to_owned()).to_vec();
        names.sort();
        assert_eq!(mount.names("in"), names);
    }
}

#[test]
fn keys_that_decode_to_one_name_are_both_shown() {
    let backend = standin_only!("a real server holds no key that needs an escape");
    let bucket = backend.bucket();
    bucket.put_keys(["100%", "100!25", "t~", "t!7E", "plain"]);
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(mount.names("").len(), 5, "{:?}", mount.names(""));
    let keys: BTreeSet<String> = mount.names("").iter().map(|name| key_of(&mount.at(name))).collect();
    assert_eq!(keys, bucket.keys().into_iter().collect());
    assert_eq!(mount.read("plain"), b"plain");
}

#[test]
fn a_key_of_blanks_disturbs_nobody() {
    let backend = standin_only!("the client that fills a real server takes such a key for none as well");
    let bucket = backend.bucket();
    bucket.put_keys([" ", "dir/ ", "plain", " x", "x "]);
    let mount = Mount::with(&backend, &bucket, "--op-timeout 2s");
    assert_eq!(mount.names(""), [" ", " x", "dir", "plain", "x "]);
    for key in [" ", "dir/ ", "plain", " x", "x "] {
        assert_eq!(mount.read(key), key.as_bytes());
    }
}

#[test]
fn every_character_that_a_server_accepts_can_be_in_a_name() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let accepted: Vec<u8> = (0..=255).filter(|&byte| supafs::name::is_allowed(byte)).collect();
    let keys: Vec<String> = accepted
        .iter()
        .map(|&byte| char::from(byte))
        .filter(|&c| c != '.')
        .flat_map(|c| [format!("{c}"), format!("{c}x"), format!("x{c}y"), format!("dir{c}/f{c}")])
        .filter(|key| key != " ")
        .collect();
    bucket.put_keys(&keys);
    let mount = Mount::new(&backend, &bucket);
    assert_all_are_readable(&mount, &keys.iter().map(String::as_str).collect::<Vec<_>>());
    let mount = Mount::new(&backend, &bucket);
    for key in &keys {
        assert_eq!(mount.read(key), key.as_bytes(), "{key} without a listing");
    }
}

#[test]
fn names_differ_by_case() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["readme", "README", "Dir/x", "dir/x"]);
    let mount = Mount::new(&backend, &bucket);
    assert_all_are_readable(&mount, &["readme", "README", "Dir/x", "dir/x"]);
}

#[test]
fn aliases_are_found_by_name_before_any_listing() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["/lead", "//two", "a/b", "a//b", "a///d", "a"]);
    let pairs = [
        ("!2F/lead", "/lead"),
        ("!2F/!2F/two", "//two"),
        ("a/b", "a/b"),
        ("a/!2F/b", "a//b"),
        ("a/!2F/!2F/d", "a///d"),
        ("a!00", "a"),
    ];
    for (path, key) in pairs {
        let mount = Mount::new(&backend, &bucket);
        assert_eq!(mount.read(path), key.as_bytes(), "{path}");
        assert!(!mount.at(&format!("{path}!00")).exists());
    }
}

#[test]
fn names_of_255_bytes_are_kept_and_longer_ones_refused() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let keys = ["n".repeat(255), format!("{}/{}", "d".repeat(255), "f".repeat(255)), "short".to_owned()];
    bucket.put_keys(&keys);
    for cold in [true, false] {
        let mount = Mount::new(&backend, &bucket);
        if !cold {
            assert_eq!(mount.files(), bucket.keys());
        }
        for key in &keys {
            assert_eq!(mount.read(key), key.as_bytes());
        }
        for path in ["n".repeat(256), format!("{}/x", "d".repeat(256))] {
            let error = fs::metadata(mount.at(&path)).expect_err("too long").raw_os_error();
            assert_eq!(error, Some(nix::errno::Errno::ENAMETOOLONG as i32), "cold: {cold}");
        }
    }
}

#[test]
fn a_name_of_255_bytes_may_be_stored_under_three_times_as_many() {
    let backend = standin_only!("the file backend of a real server cannot store such a component");
    let bucket = backend.bucket();
    let component = "!C3!A9".repeat(127) + "x";
    bucket.put_keys([component.as_str(), "z"]);
    let name = "é".repeat(127) + "x";
    assert_eq!(name.len(), 255);
    for cold in [true, false] {
        let mount = Mount::new(&backend, &bucket);
        if !cold {
            assert_eq!(mount.names(""), ["z".to_owned(), name.clone()]);
        }
        assert_eq!(mount.read(&name), component.as_bytes(), "cold: {cold}");
    }
}

#[test]
fn long_names_beside_their_folders_are_readable_or_counted() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    // They differ in their last byte only, where the mark of a name beside its folder stands.
    let stem = "x".repeat(252);
    let mut keys = Vec::new();
    for end in ["aaa", "aab", "bbb"] {
        keys.extend([format!("{stem}{end}"), format!("{stem}{end}/inside")]);
    }
    keys.push("z".to_owned());
    if backend.is_real() {
        // Its file backend has a directory of that name in the way of the longest of them.
        keys.truncate(2);
        keys.push("z".to_owned());
    }
    bucket.put_keys(&keys);
    let mount = Mount::new(&backend, &bucket);
    let found = read_all(&mount);
    for (key, bytes) in &found {
        assert_eq!(String::from_utf8_lossy(bytes), *key);
    }
    for key in keys.iter().filter(|key| key.contains('/') || *key == "z") {
        assert!(found.contains_key(key), "{key}");
    }
    let lost = keys.len() - found.len();
    assert_eq!(mount.status()["unshowable_keys"], lost, "what is not shown is counted");
    assert_eq!(mount.log().matches("cannot be shown").count(), usize::from(lost > 0), "and logged once");
    assert_eq!(lost, 0, "each can have a name of its own");
}

#[test]
fn spaces_at_the_ends_of_a_name_are_kept() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let keys = [" lead", "trail ", " both ", "in/ lead/ x ", "in/trail /y", "in/ /z", "in/.hidden", "x."];
    bucket.put_keys(keys);
    let mount = Mount::new(&backend, &bucket);
    assert_all_are_readable(&mount, &keys);
    for key in keys {
        assert_eq!(Mount::new(&backend, &bucket).read(key), key.as_bytes(), "{key:?} without a listing");
    }
}

#[test]
fn only_the_placeholder_itself_is_hidden() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_empty(&bucket, PLACEHOLDER);
    put_empty(&bucket, &format!("x{PLACEHOLDER}"));
    put_empty(&bucket, &format!("deep/x{PLACEHOLDER}"));
    bucket.put_keys([format!("{PLACEHOLDER}.txt").as_str(), "file"]);
    let mount = Mount::new(&backend, &bucket);
    let wanted = [format!("{PLACEHOLDER}.txt"), "deep".into(), "file".into(), format!("x{PLACEHOLDER}")];
    assert_eq!(mount.names(""), wanted);
    assert_eq!(mount.names("deep"), [format!("x{PLACEHOLDER}")]);
    assert!(!mount.at(PLACEHOLDER).exists());
}

#[test]
fn a_folder_named_like_the_placeholder_can_be_entered_or_is_not_shown() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys([format!("{PLACEHOLDER}/inside").as_str(), "file"]);
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 100ms --negative-ttl 100ms");
    for _ in 0..2 {
        let names = mount.names("");
        for name in names {
            assert!(mount.at(&name).symlink_metadata().is_ok(), "{name} is listed and cannot be looked up");
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        mount.drop_kernel_caches();
    }
}
