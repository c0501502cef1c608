use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Text over few symbols, so that escapes, nested ones and near misses come up often.
fn tricky() -> impl Strategy<Value = Vec<u8>> {
    parts(true)
}

fn parts(with_refused: bool) -> impl Strategy<Value = Vec<u8>> {
    let mut symbols: Vec<&[u8]> = vec![
        b"!", b"21", b"2", b"1", b"C3", b"7E", b"00", b"2E", b"2F", b"41", b"c3", b".", b"a", b"~", b"\xC3",
    ];
    symbols.retain(|symbol| with_refused || allowed(symbol));
    prop::collection::vec(prop::sample::select(symbols), 1..9).prop_map(|parts| parts.concat())
}

fn allowed(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| is_allowed(b))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn every_name_comes_back_from_its_component(name in tricky()) {
        if let Some(component) = to_component(&name) {
            prop_assert!(allowed(component.as_bytes()), "{component}");
            let shown = from_component(&component);
            prop_assert_eq!(&*shown, &name[..]);
        }
    }

    #[test]
    fn every_component_comes_back_from_its_name(raw in parts(false)) {
        let component = String::from_utf8(raw).unwrap();
        let name = from_component(&component);
        prop_assert_eq!(to_component(&name), Some(component.clone()));
    }

    #[test]
    fn any_bytes_can_be_a_name(mut name in prop::collection::vec(1u8.., 1..40)) {
        name.retain(|&byte| byte != b'/');
        if let Some(component) = to_component(&name) {
            prop_assert!(allowed(component.as_bytes()));
            let shown = from_component(&component);
            prop_assert_eq!(&*shown, &name[..]);
        }
    }
}

#[test]
fn no_two_components_share_a_name() {
    let symbols = ["!", "21", "C3", "7E", "00", "2E", ".", "a"];
    let mut seen: HashMap<Vec<u8>, String> = HashMap::new();
    for i in 0..symbols.len().pow(5) {
        let component: String = (0..5).map(|p| symbols[i / symbols.len().pow(p) % symbols.len()]).collect();
        let name = alias(&component).unwrap_or_else(|| from_component(&component).into_owned());
        if let Some(other) = seen.insert(name, component.clone()) {
            assert_eq!(other, component);
        }
    }
}

#[test]
fn ordinary_names_are_their_own_component() {
    for name in ["a.txt", "year=2024", "month=10", "Wow! 100 (1).jpg", "it's '80s", ".emptyFolderPlaceholder"]
    {
        assert_eq!(to_component(name.as_bytes()).as_deref(), Some(name));
        assert_eq!(from_component(name).as_ref(), name.as_bytes());
        assert!(!needs_listing(name.as_bytes()));
    }
}

#[test]
fn refused_characters_are_escaped_and_shown_decoded() {
    for (name, component) in [
        ("café.pdf", "caf!C3!A9.pdf"),
        ("[id].tsx", "!5Bid!5D.tsx"),
        ("file~", "file!7E"),
        ("#file#", "!23file!23"),
        ("100%", "100!25"),
        ("x!7E", "x!217E"),
        ("x!217E", "x!21217E"),
    ] {
        assert_eq!(to_component(name.as_bytes()).as_deref(), Some(component));
        assert_eq!(from_component(component).as_ref(), name.as_bytes());
        assert!(needs_listing(name.as_bytes()));
    }
}

#[test]
fn impossible_components_have_aliases_that_no_key_can_claim() {
    let long = "x".repeat(300);
    for component in ["", ".", "..", &long] {
        let shown = alias(component).unwrap();
        assert!(shown.len() <= MAX_LEN && !shown.is_empty());
        assert_eq!(to_component(&shown), None, "{shown:?}");
    }
    assert_eq!(to_component(&beside(b"report")), None);
    assert_eq!(alias("plain"), None);
    assert_ne!(alias(&"x".repeat(300)), alias(&"x".repeat(301)));
}
