//! Spaces in names and in values: in a row, at the ends, and nothing else. The server copies such objects and keeps
//! such values.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, SystemTime};

use crate::common::{Backend, Mount, MountOptions, body, eventually};

const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

/// Names that a shell's user can make by a slip of the thumb.
fn names() -> Vec<String> {
    let many = " ".repeat(200);
    ["a  b", " a", "a ", "  a", "a  ", "a \t b", "\t", " ", "  "]
        .into_iter()
        .map(ToOwned::to_owned)
        .chain([format!("a{many}b"), many])
        .collect()
}

/// The key that holds what a file is.
fn key(mount: &Mount, name: &str) -> String {
    let quoted = name.replace('\t', "'$'\\t''");
    mount.sh(&format!("getfattr --only-values -n user.supabase.key './{quoted}'"))
}

#[test]
fn a_file_whose_name_holds_runs_of_spaces_can_be_moved_and_changed() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, LONG);
    for name in names() {
        fs::write(mount.at(&name), &name).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        let path = mount.at(&name);
        let key = key(&mount, &name);
        assert!(bucket.keys().contains(&key), "{name:?}");
        // A time, a mode.
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(981_173_106);
        let file = OpenOptions::new().write(true).open(&path).expect("open");
        file.set_modified(time).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        file.sync_all().unwrap_or_else(|error| panic!("the time of {name:?}: {error}"));
        drop(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        // Away, into a folder of such a name, and back.
        fs::create_dir_all(mount.at("dir  of ")).expect("mkdir");
        let aside = mount.at("dir  of ").join(&name);
        fs::rename(&path, &aside).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        fs::rename(&aside, mount.at("plain")).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        assert_eq!(bucket.bytes("plain").as_deref(), Some(name.as_bytes()), "{name:?}");
        let says = |entry: &str, value: &str| {
            let headers = bucket.headers("plain")?;
            headers.metadata.get(entry)?.starts_with(value).then_some(())
        };
        eventually(&format!("the mode of {name:?}"), || says("mode", "33152"));
        eventually(&format!("the time of {name:?}"), || says("mtime", "981173106"));
        fs::rename(mount.at("plain"), &path).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        assert!(bucket.keys().contains(&key), "{name:?}");
        // The client that looks into a real server's bucket takes a key of spaces alone for none.
        if !backend.is_real() || !key.trim().is_empty() {
            assert_eq!(bucket.bytes(&key).as_deref(), Some(name.as_bytes()), "{name:?}");
        }
        let metadata = fs::metadata(&path).expect("stat");
        assert_eq!((metadata.mtime(), metadata.mode() & 0o7777), (981_173_106, 0o600), "{name:?}");
    }
    mount.stop();
    let mount = Mount::with(&backend, &bucket, LONG);
    for name in names() {
        assert_eq!(fs::read(mount.at(&name)).expect("read"), name.as_bytes(), "{name:?}");
        fs::remove_file(mount.at(&name)).unwrap_or_else(|error| panic!("{name:?}: {error}"));
    }
    eventually("the end of the files", || {
        bucket.keys().iter().all(|key| key.ends_with("older")).then_some(())
    });
}

#[test]
fn a_large_file_whose_name_holds_runs_of_spaces_grows_on_the_server() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let files = [("a  b", body(1, 21 << 20)), ("a ", body(2, 21 << 20)), (" a", body(3, 21 << 20))];
    for (name, whole) in &files {
        bucket.put(name, whole.clone());
    }
    let mount = Mount::with(&backend, &bucket, &format!("{LONG} --part-size 5MiB"));
    for (name, mut whole) in files {
        let mut file = OpenOptions::new().append(true).open(mount.at(name)).expect("open");
        file.write_all(b"more").expect("write");
        file.sync_all().unwrap_or_else(|error| panic!("{name:?}: {error}"));
        whole.extend_from_slice(b"more");
        assert!(bucket.bytes(name).expect("there") == whole, "{name:?}");
    }
}

#[test]
fn values_with_runs_of_spaces_are_kept_and_what_cannot_be_kept_is_refused() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("file.txt", "x");
    let mount = MountOptions::new(&backend, &bucket.name)
        .args(LONG)
        .env("SUPAFS_CACHE_CONTROL", "max-age=7,  public")
        .start();
    let many = format!("a{}b", " ".repeat(200));
    let values = [
        ("meta.x", "a  b"),
        ("meta.many", many.as_str()),
        ("cache-control", "max-age=5,  public"),
        ("content-type", "text/plain;   charset=utf-8"),
    ];
    for (name, value) in values {
        mount.sh(&format!("setfattr -n user.supabase.{name} -v '{value}' file.txt"));
    }
    let found = || {
        let headers = bucket.headers("file.txt")?;
        let found = [
            ("meta.x", headers.metadata.get("x")?.as_str()),
            ("meta.many", headers.metadata.get("many")?.as_str()),
            ("cache-control", headers.cache_control.as_deref()?),
            ("content-type", headers.content_type.as_deref()?),
        ];
        (found == values).then_some(())
    };
    eventually("the values in the bucket", found);
    mount.sh("echo y > new.txt; cp --preserve=xattr file.txt copy.txt");
    let headers = bucket.headers("new.txt").expect("there");
    assert_eq!(headers.cache_control.as_deref(), Some("max-age=7,  public"));
    eventually("the copy's values", || {
        let metadata = bucket.headers("copy.txt")?.metadata;
        (metadata.get("x")? == "a  b" && metadata.get("many")? == &many).then_some(())
    });
    let refused = [
        ("meta.x", " a"),
        ("meta.x", "a "),
        ("meta.x", "a\tb"),
        ("meta.x", "é"),
        ("cache-control", " no-cache"),
        ("content-type", "text"),
        ("content-type", "multipart/form-data; boundary=x"),
    ];
    for (name, value) in refused {
        let said = mount.sh(&format!("! setfattr -n user.supabase.{name} -v '{value}' file.txt 2>&1"));
        assert!(said.contains("Invalid argument"), "{name} {value:?}: {said}");
    }
    found().expect("nothing was changed by what was refused");
    assert!(!mount.log().contains("WARN"), "{}", mount.log());
}
