use std::collections::BTreeSet;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::super::pages::tests::{Lists, block_on};
use super::*;

fn lists(keys: BTreeSet<String>) -> Arc<Lists> {
    Arc::new(Lists { keys, page: 999, fails: None, asked: Mutex::default() })
}

/// What a key stands for, and what it took to find out.
fn probed(keys: &BTreeSet<String>, key: &str) -> (Option<&'static str>, usize) {
    let lists = lists(keys.clone());
    let (kind, _) = block_on(probe(lists.clone(), key.to_owned())).expect("an answer");
    let requests = lists.asked.lock().len();
    let kind = kind.map(|kind| match kind {
        Kind::Directory => "folder",
        Kind::File(_) => "file",
        Kind::Link(_) => "link",
        Kind::Node(_) => unreachable!("the server has none"),
    });
    (kind, requests)
}

fn by_definition(keys: &BTreeSet<String>, key: &str) -> Option<&'static str> {
    let folder = format!("{key}/");
    if keys.iter().any(|other| other.starts_with(&folder)) {
        Some("folder")
    } else if keys.contains(key) {
        Some("file")
    } else {
        keys.contains(&format!("{key}{}", name::LINK_SUFFIX)).then_some("link")
    }
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(ToString::to_string).collect()
}

/// Neighbours that stand before the folder and the link, or behind both.
fn neighbours(count: usize, separator: char) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("d/a{separator}{number:03}"))
}

#[test]
fn one_request_tells_a_file_a_folder_a_link_and_nothing() {
    let link = format!("d/a{}", name::LINK_SUFFIX);
    for (keys, kind) in [
        (set(&["d/a", "d/ab"]), Some("file")),
        (set(&["d/a/x", "d/b"]), Some("folder")),
        (set(&["d/a", "d/a-1", "d/a/x"]), Some("folder")),
        (set(&["d/a/"]), Some("folder")),
        (set(&[&link, "d/a.txt"]), Some("link")),
        (set(&["d/a.txt", "d/ab/c", "d/b"]), None),
    ] {
        assert_eq!(probed(&keys, "d/a"), (kind, 1), "{keys:?}");
    }
}

#[test]
fn neighbours_behind_the_slash_cost_nothing_more_and_those_before_it_one_round_trip() {
    let mut keys: BTreeSet<String> = neighbours(500, '_').chain(set(&["d/a"])).collect();
    assert_eq!(probed(&keys, "d/a"), (Some("file"), 1));
    keys.extend(neighbours(500, '-'));
    assert_eq!(probed(&keys, "d/a"), (Some("file"), 3));
    keys.extend(set(&["d/a/x"]));
    assert_eq!(probed(&keys, "d/a"), (Some("folder"), 3));
}

#[test]
fn a_small_directory_is_known_whole_and_a_large_one_is_not() {
    let keys = neighbours(usize::from(GLANCE), '-');
    let lists = lists(keys.chain(set(&["e/x"])).collect());
    let (listing, unshowable) = block_on(glance(&*lists, "d/")).expect("a small one");
    assert_eq!((listing.len(), unshowable.len()), (usize::from(GLANCE), 0));
    assert!(listing.find(b"a-007").is_some() && listing.find(b"a").is_none());
    let lists = self::lists(neighbours(usize::from(GLANCE) + 1, '-').collect());
    assert!(block_on(glance(&*lists, "d/")).is_none());
}

proptest! {
    #[test]
    fn it_is_what_the_keys_say(
        names in prop::collection::btree_set("[ab](-[0-9]{1,2}|\\.x|/a|/|\\.rclonelink|_)?", 0..60),
        more in 0_usize..40,
    ) {
        let keys: BTreeSet<String> = names.iter().map(|name| format!("d/{name}")).chain(neighbours(more, '.')).collect();
        for key in ["d/a", "d/b", "d/a-1", "d"] {
            prop_assert_eq!(probed(&keys, key).0, by_definition(&keys, key), "{} of {:?}", key, keys);
        }
    }
}
