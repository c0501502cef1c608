//! What a mount is told.

use super::*;
use crate::cli::settings::{Layer, Source};

fn settings(setting: Setting, value: &str) -> Settings {
    let mut layer = Layer::new(Source::Flag);
    layer.set(setting, Some(value));
    Settings::new(vec![layer])
}

#[test]
fn a_bucket_may_have_a_prefix() {
    let parts = |text| bucket_and_prefix(text).expect("a bucket");
    assert_eq!(parts("photos"), ("photos".to_owned(), String::new()));
    assert_eq!(parts("photos/"), ("photos".to_owned(), String::new()));
    assert_eq!(parts("photos/2024/may/"), ("photos".to_owned(), "2024/may/".to_owned()));
    for bad in ["", "/photos", "..", "./x"] {
        assert_eq!(bucket_and_prefix(bad).expect_err("no bucket").code(), 2, "{bad}");
    }
}

fn parse(targets: &[&str], all: bool, bucket: &[&str], options: &str) -> Result<(Root, PathBuf), CliError> {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    let args = MountArgs { targets: owned(targets), all, bucket: owned(bucket), ..MountArgs::default() };
    targets_of(&args, options)
}

fn targets_of(args: &MountArgs, options: &str) -> Result<(Root, PathBuf), CliError> {
    super::targets(args, &option_list::parse([options]).expect("options"))
}

#[test]
fn one_bucket_or_all() {
    let (root, at) = parse(&["b/p", "/m"], false, &[], "").expect("targets");
    assert_eq!(root, Root::Bucket { bucket: "b".to_owned(), prefix: "p/".to_owned() });
    assert_eq!(at, Path::new("/m"));
    let named = |names: &[&str]| Root::Buckets { named: names.iter().map(ToString::to_string).collect() };
    assert_eq!(parse(&["/m"], true, &["a", "b"], "").expect("targets").0, named(&["a", "b"]));
    assert_eq!(parse(&["supafs", "/m"], false, &[], "all,bucket=a").expect("targets").0, named(&["a"]));
    for (targets, all, bucket) in
        [(&["/m"][..], false, &[][..]), (&["b", "/m"], true, &[]), (&["b", "/m"], false, &["a"])]
    {
        assert_eq!(parse(targets, all, bucket, "").expect_err("usage").code(), 2);
    }
}

#[test]
fn the_cache_has_a_minimum() {
    let cache = |text| tuning(&settings(Setting::CacheMemory, text)).map(|tuning| tuning.cache_memory);
    assert_eq!(cache("16MiB").expect("a size"), 16 << 20);
    assert!(cache("1MiB").expect_err("too small").to_string().contains("--cache-memory"));
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let tuning = tuning(&Settings::new(Vec::new())).expect("defaults");
    assert_eq!(tuning.metadata_ttl, Duration::from_secs(5));
    assert_eq!(tuning.negative_ttl, Duration::from_secs(5));
    // On a machine of at least 2 GiB.
    assert_eq!(tuning.cache_memory, crate::machine::default_cache());
    assert_eq!(tuning.metadata_entries as u64, (tuning.cache_memory / 512).min(200_000));
    assert_eq!(tuning.max_requests, 64);
    assert_eq!(tuning.op_timeout, Duration::from_mins(1));
}

#[test]
fn a_file_of_the_daemon_must_lie_outside_the_mount() {
    let dir = tempfile::tempdir().expect("a directory");
    let mountpoint = dir.path().canonicalize().expect("a path");
    let inside = mountpoint.join("log");
    let settings = settings(Setting::LogFile, &inside.to_string_lossy());
    assert!(outside(&settings, Setting::LogFile, &mountpoint).is_err());
    assert!(outside(&settings, Setting::LogFile, Path::new("/elsewhere")).is_ok());
}
