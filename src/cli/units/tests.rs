//! Sizes, times and modes as people write them.

use super::*;

#[test]
fn sizes() {
    for (text, bytes) in
        [("256MiB", 256 << 20), ("1G", 1 << 30), ("16777216", 1 << 24), ("1 MB", 1_000_000), ("0", 0)]
    {
        assert_eq!(size(text), Ok(bytes), "{text}");
    }
    for bad in ["", "MiB", "1.5G", "1X", "-1", "99999999999G"] {
        assert!(size(bad).is_err(), "{bad}");
    }
}

#[test]
fn durations() {
    for (text, ms) in [("5s", 5000), ("500ms", 500), ("2m", 120_000), ("7", 7000), ("0", 0)] {
        assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
    }
    assert!(duration("soon").is_err());
}

#[test]
fn modes() {
    for text in ["644", "0644", "0o644"] {
        assert_eq!(mode(text), Ok(0o644));
    }
    for bad in ["1777", "9", "", "rw"] {
        assert!(mode(bad).is_err(), "{bad}");
    }
}

#[test]
fn users_may_be_named() {
    assert_eq!(uid("root"), Ok(0));
    assert_eq!(gid("12"), Ok(12));
    assert!(uid("nobody-of-that-name").is_err());
}

#[test]
fn sizes_are_shown_for_people() {
    for (bytes, text) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_048_575, "1.0 MiB"),
        (1_572_864, "1.5 MiB"),
        (5 << 40, "5.0 TiB"),
    ] {
        assert_eq!(shown(bytes), text);
    }
}
