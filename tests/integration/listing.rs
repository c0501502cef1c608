//! Listings are complete. The server's listing with a delimiter silently loses keys where a page ends; each case
//! here is one in which clients that trust it come short. On the stand-in every case also runs with the loss
//! switched off: the way round it must not depend on it. Streams keep their places while a directory changes.

#![allow(unsafe_code, reason = "telldir and seekdir are to be had from the C library only")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::common::{Backend, Mount, MountOptions, Random};

/// Lists a bucket with these keys, and its fullest folder by itself, as the server is and as it will be once it is
/// mended.
#[track_caller]
fn assert_complete(keys: &[String]) {
    let backend = Backend::start();
    for loses in [true, false] {
        if backend.is_real() && !loses {
            continue;
        }
        if !backend.is_real() {
            backend.standin().set_list_loss(loses);
        }
        let bucket = backend.bucket();
        bucket.put_keys(keys);
        let wanted: BTreeSet<String> = keys.iter().map(|key| shown(key, keys)).collect();
        assert_shows(&Mount::new(&backend, &bucket), &wanted, &format!("loss {loses}"));
        let Some(folder) = fullest_folder(keys) else { continue };
        let below = |path: &String| path.strip_prefix(&format!("{folder}/")).map(ToOwned::to_owned);
        let wanted: BTreeSet<String> = wanted.iter().filter_map(below).collect();
        let mount = MountOptions::new(&backend, &format!("{}/{folder}", bucket.name)).start();
        assert_shows(&mount, &wanted, &format!("loss {loses}, below {folder:?}"));
    }
}

#[track_caller]
fn assert_shows(mount: &Mount, wanted: &BTreeSet<String>, what: &str) {
    let files = mount.files();
    let found: BTreeSet<String> = files.iter().cloned().collect();
    assert_eq!(found.len(), files.len(), "{what}: doubles");
    let missing: Vec<_> = wanted.difference(&found).take(10).collect();
    let strange: Vec<_> = found.difference(wanted).take(10).collect();
    assert!(missing.is_empty() && strange.is_empty(), "{what}: missing {missing:?}, strange {strange:?}");
}

fn fullest_folder(keys: &[String]) -> Option<&str> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for (folder, _) in keys.iter().filter_map(|key| key.split_once('/')) {
        *counts.entry(folder).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(folder, _)| folder)
}

/// The path of a key: beside a folder of its own name it is marked.
fn shown(key: &str, keys: &[String]) -> String {
    let folder = format!("{key}/");
    if keys.iter().any(|other| other.starts_with(&folder)) { format!("{key}!00") } else { key.to_owned() }
}

fn strings<const N: usize>(keys: [&str; N]) -> Vec<String> {
    keys.map(ToOwned::to_owned).to_vec()
}

#[test]
fn a_folder_of_3_003_photos_and_sidecars_is_complete() {
    let photos = (0..1001)
        .flat_map(|i| ["jpg", "jpg-old", "jpg.xmp"].map(|suffix| format!("photos/p{i:04}.{suffix}")));
    assert_complete(&photos.collect::<Vec<_>>());
}

#[test]
fn a_page_of_1000_with_more_behind_it_is_complete() {
    let mut keys: Vec<String> = (0..999).map(|i| format!("d/f{i:05}")).collect();
    keys.extend(strings(["d/g", "d/g-1", "d/g.txt"]));
    assert_complete(&keys);
}

#[test]
fn neighbours_of_a_folder_are_complete() {
    assert_complete(&strings(["foo", "foo-1", "foo.txt", "foo/a", "fop"]));
    assert_complete(&strings([
        "a", "a b", "a-1", "a.txt", "a/x", "a!", "a$", "a(1)", "a+b", "a,b", "a_b", "ab",
    ]));
}

#[test]
fn neighbours_of_a_folder_at_the_end_of_a_page_are_complete() {
    // Each of the five in turn is the last of the first page of 999.
    for before in 994..=999 {
        let mut keys: Vec<String> = (0..before).map(|i| format!("d/a{i:05}")).collect();
        keys.extend(strings(["d/foo", "d/foo-1", "d/foo.txt", "d/foo/a", "d/fop", "d/foo/b/c"]));
        let backend = Backend::start();
        if backend.is_real() && before != 996 {
            continue;
        }
        drop(backend);
        assert_complete(&keys);
    }
}

#[test]
fn a_directory_of_many_folders_is_complete() {
    // Each folder costs a request: on a real server just more entries than a page holds.
    let count = if Backend::start().is_real() { 400 } else { 1100 };
    let keys: Vec<String> = (0..count)
        .flat_map(|i| [format!("d/{i:04}/x"), format!("d/{i:04}-x"), format!("d/{i:04}")])
        .filter(|key| !key.ends_with('7'))
        .collect();
    assert_complete(&keys);
}

#[test]
fn an_object_pages_before_its_folder_is_shown_beside_it() {
    // Between `x` and `x/` stands every key that goes on with one of the characters before `/`.
    let mut keys: Vec<String> = (0..2100).map(|i| format!("d/x-{i:05}")).collect();
    keys.extend((0..5).map(|i| format!("d/x.{i:05}")));
    keys.extend(strings(["d/x", "d/x/inside", "d/x-00998/inside", "d/x-02099/inside", "d/y"]));
    assert_complete(&keys);
}

#[test]
fn underscores_and_percent_like_characters_are_literal() {
    let mut keys: Vec<String> = (0..1005).map(|i| format!("a_b/f_{i:04}")).collect();
    keys.extend((0..5).map(|i| format!("aXb/fX{i:04}")));
    keys.extend(strings(["a_b/f_0998-x", "a_b/fX0998-x", "a_c"]));
    assert_complete(&keys);
}

#[test]
fn random_sets_of_keys_are_complete() {
    let rounds = if Backend::start().is_real() { 1 } else { 5 };
    for round in 0..rounds {
        assert_complete(&random_keys(round, if rounds == 1 { 1300 } else { 2200 }));
    }
}

/// Keys full of the characters that sort just before and behind `/`, with few distinct beginnings, so that many
/// are neighbours of folders.
fn random_keys(seed: u64, count: usize) -> Vec<String> {
    let mut random = Random(seed);
    let alphabet: Vec<char> = "ab01 !$&'()*+,-.:;=?@_".chars().collect();
    let mut keys = BTreeSet::new();
    while keys.len() < count {
        let mut components = Vec::new();
        for _ in 0..=random.below(3) {
            let length = 1 + random.below(4);
            let component: String = (0..length).map(|_| *random.pick(&alphabet)).collect();
            components.push(component.replace('!', "!-"));
        }
        let key = components.join("/");
        let is_plain = components.iter().all(|c| c.trim() == c && !c.is_empty() && c != "." && c != "..");
        if is_plain {
            keys.insert(key);
        }
    }
    keys.into_iter().collect()
}

/// A directory stream of the C library.
struct Stream(*mut libc::DIR);

impl Stream {
    fn open(path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        // SAFETY: a string that ends in NUL.
        let dir = unsafe { libc::opendir(path.as_ptr()) };
        assert!(!dir.is_null(), "opendir: {}", std::io::Error::last_os_error());
        Self(dir)
    }

    fn tell(&self) -> libc::c_long {
        // SAFETY: the stream is open, here and below.
        unsafe { libc::telldir(self.0) }
    }

    fn seek(&self, place: libc::c_long) {
        // SAFETY: as above.
        unsafe { libc::seekdir(self.0, place) }
    }

    fn rewind(&self) {
        // SAFETY: as above.
        unsafe { libc::rewinddir(self.0) }
    }

    fn next(&self) -> Option<String> {
        // SAFETY: as above; errno belongs to this thread.
        let entry = unsafe {
            *libc::__errno_location() = 0;
            libc::readdir64(self.0)
        };
        if entry.is_null() {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(0), "readdir");
            return None;
        }
        // SAFETY: an entry is valid until the next call, and its name ends in NUL.
        let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) };
        Some(name.to_str().expect("text").to_owned())
    }

    /// What is left, without `.` and `..`.
    fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).filter(|name| name != "." && name != "..").collect()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: closed once.
        unsafe { libc::closedir(self.0) };
    }
}

#[test]
fn places_in_a_large_directory_hold_while_it_changes() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let count = if backend.is_real() { 2_000 } else { 20_000 };
    let keys: Vec<String> = (0..count).map(|i| format!("d/{i:05}")).collect();
    bucket.put_keys(&keys);
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 100ms --negative-ttl 100ms");
    assert_eq!(mount.files(), keys);

    let mut random = Random(20_000);
    let mut deleted = BTreeSet::new();
    let stream = Stream::open(&mount.at("d"));
    let (mut places, mut names) = (vec![stream.tell()], Vec::new());
    while let Some(name) = stream.next() {
        names.push(name);
        places.push(stream.tell());
        if names.len() % (count / 20) == 7 {
            // Each time one comes and one goes, before or behind this place.
            bucket.put_keys([format!("d/{:05}-new", random.below(count as u64))]);
            let gone = format!("{:05}", random.below(count as u64));
            bucket.delete(&format!("d/{gone}"));
            deleted.insert(gone);
            // Other streams learn of it.
            mount.names("d");
        }
    }
    let distinct: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(distinct.len(), names.len(), "doubles");
    let stayed = keys.iter().map(|key| &key[2..]).filter(|name| !deleted.contains(*name));
    let missing: Vec<_> = stayed.filter(|name| !distinct.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");

    for _ in 0..300 {
        let at = usize::try_from(random.below(names.len() as u64)).expect("fits");
        stream.seek(places[at]);
        assert_eq!(stream.next().as_ref(), Some(&names[at]), "at {at}");
        assert_eq!(stream.tell(), places[at + 1], "behind {at}");
    }
    stream.seek(places[names.len()]);
    assert_eq!(stream.next(), None, "the end");
    stream.seek(places[names.len() - 3]);
    assert_eq!(stream.rest(), names[names.len() - 3..]);

    let wanted: BTreeSet<String> = bucket.keys().iter().map(|key| key[2..].to_owned()).collect();
    crate::common::eventually("the new state after rewinddir", || {
        stream.rewind();
        let now = stream.rest();
        let distinct: BTreeSet<String> = now.iter().cloned().collect();
        assert_eq!(distinct.len(), now.len(), "doubles");
        (distinct == wanted).then_some(())
    });
}
