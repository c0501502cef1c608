use super::*;

fn object(key: &str, size: u64) -> ListedObject {
    ListedObject { key: key.to_owned(), size, etag: ETag::new("x"), modified_ms: 1 }
}

fn page(objects: &[(&str, u64)], prefixes: &[&str], next: Option<&str>) -> ListPage {
    ListPage {
        objects: objects.iter().map(|(key, size)| object(key, *size)).collect(),
        prefixes: prefixes.iter().map(ToString::to_string).collect(),
        next: next.map(ToOwned::to_owned),
    }
}

fn names(listing: &Listing) -> Vec<(String, String, bool)> {
    let mut names: Vec<_> = (0..listing.len())
        .map(|i| {
            let entry = listing.get(i).unwrap();
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            (name, entry.component().to_owned(), entry.kind == Kind::Directory)
        })
        .collect();
    names.sort();
    names
}

fn listed(prefix: &str, pages: Vec<ListPage>) -> (Listing, PageFolder) {
    let listing = Listing::new();
    let mut folder = PageFolder::new(prefix);
    for page in pages {
        folder.add(&listing, page);
    }
    (listing, folder)
}

fn triple(name: &str, component: &str, directory: bool) -> (String, String, bool) {
    (name.to_owned(), component.to_owned(), directory)
}

#[test]
fn a_folder_keeps_the_name_that_an_object_has_too() {
    let (listing, _) = listed("d/", vec![page(&[("d/a", 3), ("d/a-1", 1)], &["d/a/"], None)]);
    assert_eq!(
        names(&listing),
        [triple("a", "a", true), triple("a!00", "a", false), triple("a-1", "a-1", false)]
    );
    assert_eq!(listing.find(b"a").unwrap().kind, Kind::Directory);
    assert!(matches!(listing.find(b"a!00").unwrap().kind, Kind::File(FileVersion { size: 3, .. })));
    assert_eq!(listing.find(b"b"), None);
}

#[test]
fn the_folder_may_come_pages_later() {
    let pages = vec![
        page(&[("a", 3), ("a-1", 1)], &[], Some("a-1\u{1}")),
        page(&[("a-2", 1)], &[], Some("a-2\u{1}")),
        page(&[("a.txt", 1)], &["a/"], Some("a/\u{10FFFF}")),
        page(&[("b", 1)], &[], None),
    ];
    let (listing, _) = listed("", pages);
    let names: Vec<_> = names(&listing).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["a", "a!00", "a-1", "a-2", "a.txt", "b"]);
}

#[test]
fn an_object_without_folder_is_shown_once_its_page_is_past() {
    let listing = Listing::new();
    let mut folder = PageFolder::new("");
    folder.add(&listing, page(&[("a", 3), ("b", 1)], &[], Some("b\u{1}")));
    // `b/` could still come, `a/` could not.
    assert_eq!(names(&listing), [triple("a", "a", false)]);
    folder.add(&listing, page(&[], &[], None));
    assert_eq!(names(&listing), [triple("a", "a", false), triple("b", "b", false)]);
}

#[test]
fn placeholders_and_markers_are_not_shown_but_an_object_with_bytes_is() {
    let (listing, _) =
        listed("d/", vec![page(&[("d/", 0), ("d/.emptyFolderPlaceholder", 0), ("d/x", 1)], &[], None)]);
    assert_eq!(names(&listing), [triple("x", "x", false)]);
    let (listing, _) = listed("d/", vec![page(&[("d/", 7)], &["d//"], None)]);
    assert_eq!(names(&listing), [triple("!2F", "", true), triple("!2F!00", "", false)]);
}

#[test]
fn odd_components_have_a_name_of_their_own() {
    let long = "y".repeat(300);
    let (listing, folder) = listed("", vec![page(&[("..", 1), ("caf!C3!A9", 1), (&long, 1)], &["./"], None)]);
    let names = names(&listing);
    assert_eq!(names.len(), 4);
    assert!(names.contains(&triple("!2E!2E", "..", false)));
    assert!(names.contains(&triple("!2E", ".", true)));
    assert!(names.contains(&triple("café", "caf!C3!A9", false)));
    assert!(names.iter().any(|(name, component, _)| name.len() == 255 && *component == long));
    assert!(folder.unshowable.is_empty());
}

#[test]
fn a_server_that_accepts_more_characters_shows_both_spellings() {
    let (listing, _) = listed("", vec![page(&[("caf!C3!A9", 1), ("café", 2)], &[], None)]);
    assert_eq!(names(&listing), [triple("café", "caf!C3!A9", false), triple("café!00", "café", false)]);
}

#[tokio::test]
async fn a_failure_reaches_those_who_wait() {
    let listing = Listing::new();
    PageFolder::new("").add(&listing, page(&[("a", 1), ("b", 1)], &[], Some("b\u{1}")));
    assert!(listing.reaches(0).await.unwrap());
    let error = StoreError {
        kind: crate::store::StoreErrorKind::Unavailable,
        operation: "ListObjectsV2",
        key: String::new(),
        status: 503,
        code: String::new(),
        message: String::new(),
    };
    listing.fail(error);
    assert!(listing.complete().await.is_err());
}
