//! Names that Supabase refuses, written here: stored escaped, shown as they are.

use std::fs::{self, File};

use crate::common::{Backend, Mount, errno};
use nix::errno::Errno;

/// Names that tools make, and the components that hold them.
const NAMES: [(&str, &str); 16] = [
    ("café.pdf", "caf!C3!A9.pdf"),
    ("[id].tsx", "!5Bid!5D.tsx"),
    ("file~", "file!7E"),
    ("#file#", "!23file!23"),
    (".#lock", ".!23lock"),
    ("100%", "100!25"),
    ("{a,b}", "!7Ba,b!7D"),
    ("back\\slash", "back!5Cslash"),
    ("a^b|c<d>e\"f`g", "a!5Eb!7Cc!3Cd!3Ee!22f!60g"),
    ("日本語", "!E6!97!A5!E6!9C!AC!E8!AA!9E"),
    ("line\nbreak\ttab", "line!0Abreak!09tab"),
    ("plain name (1).txt", "plain name (1).txt"),
    ("caf!C3!A9.pdf", "caf!21C3!21A9.pdf"),
    ("wow!", "wow!"),
    (" space", " space"),
    ("it's + $1 = @2; a:b, c&d?*", "it's + $1 = @2; a:b, c&d?*"),
];

#[test]
fn names_that_the_server_refuses_are_stored_escaped_and_shown_decoded() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    fs::create_dir(mount.at("ünder [dir]")).expect("mkdir");
    for (name, _) in NAMES {
        fs::write(mount.at(name), name).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        fs::write(mount.at("ünder [dir]").join(name), name).expect("write");
    }
    let folder = "!C3!BCnder !5Bdir!5D";
    let mut keys = vec![format!("{folder}/.emptyFolderPlaceholder")];
    let mut names: Vec<String> = vec!["ünder [dir]".to_owned()];
    for (name, component) in NAMES {
        keys.extend([component.to_owned(), format!("{folder}/{component}")]);
        names.push(name.to_owned());
        assert_eq!(bucket.bytes(component).as_deref(), Some(name.as_bytes()), "{name:?}");
    }
    keys.sort();
    names.sort();
    assert_eq!(bucket.keys(), keys);
    for mount in [mount, Mount::new(&backend, &bucket)] {
        assert_eq!(mount.names(""), names);
        for (name, _) in NAMES {
            assert_eq!(mount.read(name), name.as_bytes());
        }
    }
}

#[test]
fn escaped_names_are_renamed_copied_and_removed() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    for (name, _) in NAMES {
        fs::write(mount.at("file"), name).expect("write");
        fs::rename(mount.at("file"), mount.at(name)).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        fs::copy(mount.at(name), mount.at("copy")).expect("copied");
        assert_eq!(mount.read("copy"), name.as_bytes());
        fs::rename(mount.at(name), mount.at("café [2]")).expect("rename");
        assert_eq!(mount.read("café [2]"), name.as_bytes());
        fs::remove_file(mount.at("café [2]")).expect("unlink");
        assert_eq!(bucket.keys(), ["copy"], "{name:?}");
    }
    // A name that ends in a space cannot be the source of a copy in a header.
    fs::write(mount.at("ends in a space "), b"x").expect("write");
    fs::rename(mount.at("ends in a space "), mount.at("renamed")).expect("rename");
    assert_eq!(bucket.bytes("renamed").as_deref(), Some(&b"x"[..]));
    assert_eq!(bucket.keys(), ["copy", "renamed"]);
}

#[test]
fn a_name_that_is_too_long_once_encoded_is_enametoolong() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    // Three characters of the key for each byte.
    let (fits, long) = ("é".repeat(42), "é".repeat(43));
    fs::write(mount.at(&fits), b"x").expect("252 bytes of key");
    assert_eq!(mount.names(""), [fits]);
    assert_eq!(errno(File::create(mount.at(&long))), Errno::ENAMETOOLONG);
    assert_eq!(errno(fs::create_dir(mount.at(&long))), Errno::ENAMETOOLONG);
    fs::write(mount.at("file"), b"x").expect("write");
    assert_eq!(errno(fs::rename(mount.at("file"), mount.at(&long))), Errno::ENAMETOOLONG);
    let whole = "a".repeat(255);
    fs::write(mount.at(&whole), b"x").expect("255 bytes");
    assert_eq!(errno(File::create(mount.at(&"a".repeat(256)))), Errno::ENAMETOOLONG);
    assert!(bucket.keys().contains(&whole));
}

#[test]
fn strict_names_are_refused_with_the_character_in_the_log() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["caf!C3!A9"]);
    let mount = Mount::with(&backend, &bucket, "--strict-names");
    fs::write(mount.at("plain"), b"x").expect("write");
    for (name, character) in [("naïve", "ï"), ("file~", "~"), ("a#b%c", "#%")] {
        assert_eq!(errno(File::create(mount.at(name))), Errno::EINVAL, "{name}");
        assert_eq!(errno(fs::create_dir(mount.at(name))), Errno::EINVAL, "{name}");
        assert_eq!(errno(fs::rename(mount.at("plain"), mount.at(name))), Errno::EINVAL, "{name}");
        let log = mount.log();
        let line = log.lines().find(|line| line.contains(name)).expect("a line about it");
        assert!(line.contains("refused=") && line.contains(character), "{line}");
    }
    // What is there can be used.
    assert_eq!(mount.read("café"), b"caf!C3!A9");
    fs::write(mount.at("café"), b"changed").expect("write");
    assert_eq!(bucket.keys(), ["caf!C3!A9", "plain"]);
}
