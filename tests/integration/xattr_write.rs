//! What is stored with an object beside its bytes: Content-Type, Cache-Control, metadata, and the server's own words
//! where it refuses.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

use crate::common::{
    Backend, Bucket, Login, Mount, MountOptions, Ops, Put, body, errno, eventually, run, spent,
};
use nix::errno::Errno;
use supafs_standin::{Action, BucketLimits, Fault};

/// Keeps what the mount knows for the whole test.
const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

/// Content type, cache control and the entry `author`.
fn headers(bucket: &Bucket<'_>, key: &str) -> (String, String, String) {
    let Put { content_type, cache_control, metadata } = bucket.headers(key).expect("the object is there");
    let author = metadata.get("author").cloned();
    (content_type.unwrap_or_default(), cache_control.unwrap_or_default(), author.unwrap_or_default())
}

fn rich() -> Put {
    Put {
        content_type: Some("image/special".to_owned()),
        cache_control: Some("max-age=77".to_owned()),
        metadata: [("author".to_owned(), "Jo Doe".to_owned())].into(),
    }
}

fn are_rich(bucket: &Bucket<'_>, key: &str) -> bool {
    headers(bucket, key) == ("image/special".to_owned(), "max-age=77".to_owned(), "Jo Doe".to_owned())
}

#[test]
fn attributes_can_be_set_before_and_after_the_upload() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, LONG);
    let set = "setfattr -n user.supabase.content-type -v image/special FILE; \
               setfattr -n user.supabase.cache-control -v max-age=77 FILE; \
               setfattr -n user.supabase.meta.Author -v 'Jo Doe' FILE";
    let file = File::create(mount.at("before.txt")).expect("create");
    file.write_all_at(b"before", 0).expect("write");
    mount.sh(&set.replace("FILE", "before.txt"));
    let get = "getfattr --only-values -n user.supabase.meta.author before.txt";
    assert_eq!(mount.sh(get), "Jo Doe", "not uploaded yet");
    let listed = mount.sh("getfattr before.txt");
    for name in ["content-type", "cache-control", "meta.author"] {
        assert!(listed.contains(&format!("user.supabase.{name}\n")), "{listed}");
    }
    drop(file);
    assert!(are_rich(&bucket, "before.txt"), "{:?}", headers(&bucket, "before.txt"));
    assert_eq!(mount.sh(get), "Jo Doe");
    bucket.put("after.txt", "after");
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.sh(&set.replace("FILE", "after.txt"));
    assert_eq!(mount.sh("getfattr --only-values -n user.supabase.content-type after.txt"), "image/special");
    assert!(mount.sh("getfattr after.txt").contains("user.supabase.meta.author\n"), "what is set is listed");
    eventually("the attributes in the bucket", || are_rich(&bucket, "after.txt").then_some(()));
    assert_eq!(bucket.bytes("after.txt").as_deref(), Some(&b"after"[..]));
    mount.sh("setfattr -x user.supabase.meta.author after.txt");
    eventually("the attribute to go", || headers(&bucket, "after.txt").2.is_empty().then_some(()));
    mount.sh("! getfattr -n user.supabase.meta.author after.txt 2> /dev/null");
}

#[test]
fn the_attributes_of_a_file_that_is_not_in_the_bucket_are_listed_without_a_request() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, &format!("{LONG} --write-back --write-back-delay 1m"));
    mount.names("");
    let used = spent(&backend, &mount, || {
        mount.sh("echo x > new.txt; setfattr -n user.supabase.meta.a -v b new.txt");
        let listed = mount.sh("getfattr -d new.txt");
        assert!(listed.contains("user.supabase.content-type=\"text/plain\""), "{listed}");
        assert!(listed.contains("user.supabase.meta.a=\"b\""), "{listed}");
    });
    assert_eq!(used, Ops::default());
    mount.stop();
    assert_eq!(bucket.headers("new.txt").expect("there").metadata["a"], "b");
}

#[test]
fn what_no_header_can_hold_is_refused() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let mount = Mount::with(&backend, &bucket, LONG);
    for (name, value, words) in [
        ("user.supabase.meta.a", "'line\nline'", "Invalid argument"),
        ("user.supabase.meta.a", "' edge'", "Invalid argument"),
        ("user.supabase.meta.a", "é", "Invalid argument"),
        ("'user.supabase.meta.a b'", "x", "Invalid argument"),
        ("user.supabase.unknown", "x", "Operation not permitted"),
        ("user.supabase.meta.", "x", "Operation not permitted"),
        ("user.supabase.meta.supafs-xattr-a", "x", "Operation not permitted"),
        ("security.other", "x", "not supported"),
    ] {
        let said = mount.sh(&format!("! setfattr -n {name} -v {value} file 2>&1"));
        assert!(said.contains(words), "{name} {value:?}: {said}");
    }
    mount.sh("! setfattr -x user.supabase.meta.nothing file 2> /dev/null");
}

#[test]
fn an_object_that_is_replaced_renamed_or_retimed_keeps_its_headers() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    for key in ["replaced.txt", "renamed.txt", "retimed.txt", "appended.txt"] {
        bucket.put_with(key, key, rich());
    }
    bucket.put_with("large.bin", body(1, 12 << 20), rich());
    let mount = Mount::with(&backend, &bucket, LONG);
    fs::write(mount.at("replaced.txt"), b"all of it").expect("O_TRUNC");
    mount.sh("mv renamed.txt renamed.json; touch -d 2001-02-03 retimed.txt; echo more >> appended.txt");
    OpenOptions::new()
        .write(true)
        .open(mount.at("large.bin"))
        .and_then(|file| file.write_all_at(b"x", 6 << 20))
        .expect("write");
    eventually("the time", || bucket.headers("retimed.txt")?.metadata.contains_key("mtime").then_some(()));
    for key in ["replaced.txt", "renamed.json", "retimed.txt", "appended.txt", "large.bin"] {
        assert!(are_rich(&bucket, key), "{key}: {:?}", headers(&bucket, key));
    }
    // Twice, and with what the first time has taught.
    fs::write(mount.at("replaced.txt"), b"again").expect("write");
    mount.sh("mv replaced.txt second.txt; echo third >> second.txt; chmod 600 second.txt");
    eventually("the mode", || bucket.headers("second.txt")?.metadata.contains_key("mode").then_some(()));
    assert!(are_rich(&bucket, "second.txt"), "{:?}", headers(&bucket, "second.txt"));
    assert_eq!(bucket.bytes("second.txt").as_deref(), Some(&b"againthird\n"[..]));
}

#[test]
fn the_content_type_follows_from_the_name() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, LONG);
    for (name, kind) in [
        ("a.html", "text/html"),
        ("a.css", "text/css"),
        ("a.js", "text/javascript"),
        ("a.mjs", "text/javascript"),
        ("a.json", "application/json"),
        ("a.txt", "text/plain"),
        ("a.md", "text/markdown"),
        ("a.csv", "text/csv"),
        ("a.xml", "text/xml"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("photo.JPG", "image/jpeg"),
        ("a.jpeg", "image/jpeg"),
        ("a.gif", "image/gif"),
        ("a.webp", "image/webp"),
        ("a.avif", "image/avif"),
        ("a.heic", "image/heic"),
        ("a.ico", "image/x-icon"),
        ("a.pdf", "application/pdf"),
        ("a.zip", "application/zip"),
        ("a.gz", "application/gzip"),
        ("a.wasm", "application/wasm"),
        ("a.woff2", "font/woff2"),
        ("a.mp3", "audio/mpeg"),
        ("a.wav", "audio/wav"),
        ("a.mp4", "video/mp4"),
        ("a.webm", "video/webm"),
        ("a.mov", "video/quicktime"),
        ("café.pdf", "application/pdf"),
        ("[id].tsx", "text/plain"),
        ("a.ts", "video/mp2t"),
        ("a.unknown-ending", "application/octet-stream"),
        ("none", "application/octet-stream"),
    ] {
        fs::write(mount.at(name), b"x").expect("write");
        let key = mount.sh(&format!("getfattr --only-values -n user.supabase.key '{name}'"));
        assert_eq!(headers(&bucket, &key).0, kind, "{name}");
    }
    // A file that is renamed before anybody else can know of it has the type of its last name.
    mount.sh("echo x > upload.tmp; mv upload.tmp page.html");
    assert_eq!(headers(&bucket, "page.html").0, "text/html");
}

#[test]
fn new_objects_get_the_default_cache_control() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_with("theirs", "x", rich());
    let mount = Mount::with(&backend, &bucket, &format!("{LONG} --cache-control max-age=31536000"));
    fs::write(mount.at("small"), b"x").expect("write");
    fs::write(mount.at("large"), body(1, 20 << 20)).expect("write");
    fs::write(mount.at("theirs"), b"y").expect("write");
    assert_eq!(headers(&bucket, "small").1, "max-age=31536000");
    assert_eq!(headers(&bucket, "large").1, "max-age=31536000");
    assert_eq!(headers(&bucket, "theirs").1, "max-age=77", "what an object has stays");
}

/// getfattr of the last error, or nothing.
fn last_error(mount: &Mount, path: &str) -> String {
    mount.sh(&format!("getfattr --only-values -n user.supabase.last-error '{path}' 2> /dev/null || true"))
}

fn write_error(mount: &Mount, name: &str, bytes: &[u8]) -> Errno {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(mount.at(name)).expect("open");
    let written = bytes
        .chunks(1 << 20)
        .enumerate()
        .try_for_each(|(at, chunk)| file.write_all_at(chunk, (at as u64) << 20));
    let result = written.and_then(|()| file.sync_all());
    Errno::from_raw(result.expect_err("it is refused").raw_os_error().expect("an errno"))
}

#[test]
fn what_is_too_large_is_efbig_and_the_server_has_the_last_word() {
    let backend = standin_only!("it sets limits");
    let bucket = backend.bucket();
    bucket.put_keys(["dir/old"]);
    let limits = BucketLimits { file_size_limit: Some(3 << 20), ..BucketLimits::default() };
    backend.standin().set_bucket_limits(&bucket.name, limits);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("dir");
    assert_eq!(write_error(&mount, "dir/small", &body(1, 4 << 20)), Errno::EFBIG);
    assert!(mount.log().contains("limits the size of a file"), "the log says what to do");
    assert!(last_error(&mount, "dir").contains("exceeded the maximum allowed size"));
    for (name, size) in [("dir/large", 40 << 20), ("dir/old", 4 << 20)] {
        assert_eq!(write_error(&mount, name, &body(1, size)), Errno::EFBIG, "{name}");
    }
    assert!(last_error(&mount, "dir/old").contains("refused a file of 4194304 bytes"), "on the file");
    // The listing tells the truth.
    eventually("the listing to tell the truth", || (mount.names("dir") == ["old"]).then_some(()));
    assert_eq!(mount.read("dir/old"), b"dir/old");
    assert_eq!(bucket.keys(), ["dir/old"]);
    // No unfinished upload stays behind.
    eventually("the end of the uploads", || backend.standin().uploads(&bucket.name).is_empty().then_some(()));
    fs::write(mount.at("dir/old"), b"small").expect("write");
    assert_eq!(last_error(&mount, "dir/old"), "", "it was taken since");
}

#[test]
fn what_is_too_large_is_efbig_also_where_the_connection_is_cut_under_the_answer() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.limit_size(5 << 20);
    if !backend.is_real() {
        backend.fault(Fault::new(Action::RefusalLost).bucket(&bucket.name));
    }
    let mount = || Mount::with(&backend, &bucket, &format!("{LONG} --part-size 5MiB"));
    // One PUT, and a multipart upload; each time, since a reset overtakes the answer now and then. A mount that was
    // refused once does not ask again.
    for (round, size) in (0..3).flat_map(|round| [(round, (5 << 20) + 1), (round, 14 << 20)]) {
        let name = format!("{size}-{round}");
        let mount = mount();
        assert_eq!(write_error(&mount, &name, &body(1, size)), Errno::EFBIG, "{name}");
        eventually("what to do", || mount.log().contains("limits the size of a file").then_some(()));
    }
    let mount = mount();
    fs::write(mount.at("fits"), body(1, 5 << 20)).expect("what the bucket takes");
    assert_eq!(bucket.keys(), ["fits"]);
}

#[test]
fn a_type_that_the_bucket_does_not_take_is_told_on_the_handle_the_file_and_the_folder() {
    let backend = standin_only!("it sets limits");
    let bucket = backend.bucket();
    bucket.put_keys(["dir/old.txt"]);
    let limits = BucketLimits { allowed_mime_types: vec!["image/*".to_owned()], ..BucketLimits::default() };
    backend.standin().set_bucket_limits(&bucket.name, limits);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("dir");
    fs::write(mount.at("dir/a.png"), b"png").expect("an image");
    let file = File::create(mount.at("dir/a.txt")).expect("create");
    file.write_all_at(b"text", 0).expect("write");
    let refused = file.sync_all().expect_err("refused");
    assert_eq!(refused.raw_os_error(), Some(libc::EMEDIUMTYPE));
    let words = "mime type text/plain is not supported";
    let handle = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let get = format!("getfattr --only-values -n user.supabase.last-error {handle}");
    assert!(run(&mount.path, &get).contains(words), "on the handle");
    assert!(last_error(&mount, "dir").contains(words), "on the folder");
    assert!(mount.log().contains("restricts the MIME types"), "the log says what to do");
    drop(file);
    eventually("the listing to tell the truth", || {
        (mount.names("dir") == ["a.png", "old.txt"]).then_some(())
    });
    assert!(last_error(&mount, "dir").contains(words), "still on the folder");
    // The type can be told beforehand.
    mount.sh(
        "python3 -c \"import os; f = open('dir/b.txt', 'w'); \
         os.setxattr(f.fileno(), 'user.supabase.content-type', b'image/x-text'); f.write('text'); f.close()\"",
    );
    assert_eq!(headers(&bucket, "dir/b.txt").0, "image/x-text");
}

#[test]
fn a_refusal_by_a_policy_is_eacces_and_told() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let old = format!("{}/old", users.shared);
    bucket.put(&old, "theirs");
    let mount = MountOptions::new(&backend, &bucket.name).login(Login::User(users.alice)).args(LONG).start();
    mount.names(&users.shared);
    let new = format!("{}/new", users.shared);
    for name in [&new, &old] {
        assert_eq!(errno(fs::write(mount.at(name), b"mine")), Errno::EACCES, "{name}");
        assert!(last_error(&mount, &users.shared).contains("violates row-level security policy"));
    }
    eventually("the listing to tell the truth", || (mount.names(&users.shared) == ["old"]).then_some(()));
    assert_eq!(mount.read(&old), b"theirs");
    assert!(last_error(&mount, &old).contains("violates row-level security policy"), "on the file");
    assert!(mount.log().contains("a policy on storage.objects forbids it"));
}

#[test]
fn tools_that_copy_attributes_have_no_trouble_with_those_that_nobody_sets() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_with("from/a.png", b"bytes", rich());
    bucket.put("from/b.txt", "plain");
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.sh(
        "mkdir to back && cp --preserve=xattr from/* to/ && rsync -aX from/ back/ && rsync -aX from/ back/",
    );
    for folder in ["to", "back"] {
        let key = format!("{folder}/a.png");
        eventually(&format!("the attributes of {key}"), || are_rich(&bucket, &key).then_some(()));
        assert_eq!(headers(&bucket, &format!("{folder}/b.txt")), headers(&bucket, "from/b.txt"));
    }
    // What comes from elsewhere has none of ours: the file keeps the type of its name.
    let local = tempfile::tempdir().expect("a folder");
    fs::write(local.path().join("c.json"), "{}").expect("write");
    let sync = format!("rsync -aX {}/ back/", local.path().display());
    mount.sh(&format!("{sync} && touch {}/c.json && {sync}", local.path().display()));
    assert_eq!(headers(&bucket, "back/c.json").0, "application/json");
    // Removing gives the default back.
    mount.sh(
        "setfattr -x user.supabase.content-type back/a.png; setfattr -x user.supabase.meta.author back/a.png",
    );
    assert_eq!(mount.sh("getfattr --only-values -n user.supabase.content-type back/a.png"), "image/png");
    eventually("the default type", || (headers(&bucket, "back/a.png").0 == "image/png").then_some(()));
    eventually("no author", || headers(&bucket, "back/a.png").2.is_empty().then_some(()));
    assert_eq!(mount.sh("setfattr -n user.supabase.etag -v x from/b.txt && getfattr --only-values -n user.supabase.key from/b.txt"), "from/b.txt");
}
