//! What is set on a file or a folder is stored a moment later. Where the server refuses that, its words are in the attribute
//! `last-error` of the file or folder, and of the folder above.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use supafs_standin::Fault;

use crate::common::{Backend, Login, Mount, MountOptions, eventually};

const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

fn last_error(mount: &Mount, path: &str) -> String {
    mount.sh(&format!("getfattr --only-values -n user.supabase.last-error '{path}' 2> /dev/null || true"))
}

/// Things that people set, as shell lines that succeed at once.
const SETTINGS: [&str; 4] = [
    "chmod 751 FILE",
    "touch -d '2001-02-03 04:05:06' FILE",
    "setfattr -n user.supabase.meta.author -v 'Jo Doe' FILE",
    "setfattr -n user.xdg.origin.url -v https://example.com FILE",
];

#[test]
fn what_a_policy_forbids_to_set_on_a_file_is_told_on_the_file_and_on_its_folder() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    for options in ["", "--write-back"] {
        for (number, line) in SETTINGS.iter().enumerate() {
            // A folder for each, so that nothing of the one before is seen.
            let folder = format!("{}/{number}{}", users.shared, options.len());
            let name = format!("{folder}/old");
            bucket.put(&name, "theirs");
            let mount = MountOptions::new(&backend, &bucket.name)
                .login(Login::User(users.alice.clone()))
                .args(LONG)
                .args(options)
                .start();
            let before = mount.sh(&format!("stat -c '%a %Y' {name}"));
            mount.sh(&line.replace("FILE", &name));
            for path in [&name, &folder] {
                let words = eventually(&format!("the words on {path} after {line}"), || {
                    Some(last_error(&mount, path)).filter(|words| !words.is_empty())
                });
                assert!(words.contains("row-level security"), "{path}: {words}");
            }
            // What was not taken is not shown either.
            eventually("the truth", || {
                (mount.sh(&format!("stat -c '%a %Y' {name}")) == before).then_some(())
            });
            assert!(!last_error(&mount, &name).is_empty(), "still on the file");
            assert_eq!(mount.read(&name), b"theirs");
            drop(mount.leave());
            assert_eq!(bucket.bytes(&name).as_deref(), Some(&b"theirs"[..]));
        }
    }
}

#[test]
fn a_setting_that_failed_and_is_stored_after_all_leaves_no_words() {
    let backend = standin_only!("the server fails for a while");
    let bucket = backend.bucket();
    bucket.put("dir/file", "content");
    let mount = Mount::with(&backend, &bucket, LONG);
    let fault = backend.fault(Fault::status(500, "InternalError").on("CopyObject"));
    mount.sh("chmod 751 dir/file");
    eventually("the words", || (!last_error(&mount, "dir/file").is_empty()).then_some(()));
    backend.standin().clear_fault(fault);
    eventually("its mode", || bucket.headers("dir/file")?.metadata.contains_key("mode").then_some(()));
    eventually("no words", || last_error(&mount, "dir/file").is_empty().then_some(()));
    assert_eq!(
        fs::metadata(mount.at("dir/file")).expect("its attributes").permissions().mode() & 0o777,
        0o751
    );
    mount.stop();
}

#[test]
fn what_is_refused_of_a_folder_is_told_on_the_folder_and_above_it() {
    let backend = standin_only!("the server refuses a placeholder");
    for options in ["", "--write-back"] {
        for line in SETTINGS {
            let bucket = backend.bucket();
            bucket.put_keys(["above/dir/.emptyFolderPlaceholder"]);
            let mount = Mount::with(&backend, &bucket, &format!("{LONG} {options}"));
            mount.names("above/dir");
            let fault =
                backend.fault(Fault::status(403, "AccessDenied").on("PutObject").bucket(&bucket.name));
            mount.sh(&line.replace("FILE", "above/dir"));
            for path in ["above/dir", "above"] {
                eventually(&format!("the words on {path} after {line}"), || {
                    (!last_error(&mount, path).is_empty()).then_some(())
                });
            }
            let logged = "what was set on a folder is not in the bucket";
            eventually("the log to say it", || mount.log().contains(logged).then_some(()));
            backend.standin().clear_fault(fault);
            drop(mount.leave());
        }
    }
}
