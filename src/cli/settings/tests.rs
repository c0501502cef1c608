//! Flag, `-o`, environment, env file, profile: the first that has a value wins.

use std::time::Duration;

use super::*;
use crate::cli::units;

fn layer(source: Source, values: &[(Setting, &str)]) -> Layer {
    let mut layer = Layer::new(source);
    for (setting, value) in values {
        layer.set(*setting, Some(*value));
    }
    layer
}

fn sources() -> [Source; 5] {
    [
        Source::Flag,
        Source::OptionList,
        Source::Environment,
        Source::EnvFile(PathBuf::from("/e")),
        Source::Profile { name: "p".to_owned(), file: PathBuf::from("/c") },
    ]
}

#[test]
fn the_first_layer_with_a_value_wins() {
    for first in 0..sources().len() {
        let layers = sources()
            .into_iter()
            .enumerate()
            .skip(first)
            .map(|(rank, source)| layer(source, &[(Setting::Region, &format!("r{rank}"))]))
            .collect();
        let found = Settings::new(layers).get(Setting::Region).expect("a value");
        assert_eq!(found.value.expose(), format!("r{first}"));
    }
}

#[test]
fn a_message_names_the_place_of_a_value() {
    let origins: Vec<String> = sources()
        .into_iter()
        .map(|source| layer(source, &[(Setting::MetadataTtl, "soon")]))
        .map(|layer| Settings::new(vec![layer]))
        .map(|settings| settings.parsed(Setting::MetadataTtl, Duration::ZERO, units::duration))
        .map(|result| result.expect_err("no time").to_string())
        .collect();
    let places = [
        "--metadata-ttl",
        "-o metadata_ttl",
        "SUPAFS_METADATA_TTL in the environment",
        "SUPAFS_METADATA_TTL in /e",
        "metadata_ttl in [profile.p] of /c",
    ];
    for (origin, place) in origins.iter().zip(places) {
        assert!(origin.starts_with(place) && origin.contains("soon"), "{origin}");
    }
}

#[test]
fn of_settings_that_mean_the_same_the_first_layer_decides() {
    let both = [Setting::SessionToken, Setting::SessionTokenFile];
    let settings = Settings::new(vec![
        layer(Source::Flag, &[(Setting::SessionTokenFile, "f")]),
        layer(Source::Environment, &[(Setting::SessionToken, "t")]),
    ]);
    let found = settings.one_of(&both).expect("no clash").expect("a value");
    assert_eq!(found.setting, Setting::SessionTokenFile);
    let clash = layer(Source::Environment, &[(Setting::SessionToken, "t"), (Setting::SessionTokenFile, "f")]);
    let why = Settings::new(vec![clash]).one_of(&both).expect_err("a clash").to_string();
    assert!(why.contains("SUPABASE_SESSION_TOKEN ") && why.contains("SUPABASE_SESSION_TOKEN_FILE"), "{why}");
}

#[test]
fn an_empty_variable_is_unset() {
    let layer = Layer::of_variables(Source::Environment, |_| Some(" ".to_owned()));
    assert!(layer.values.is_empty());
}

#[test]
fn no_value_is_in_debug() {
    let layer = layer(Source::Environment, &[(Setting::SecretAccessKey, "hunter2")]);
    let settings = Settings::new(vec![layer]);
    let shown = format!("{settings:?} {:?}", settings.get(Setting::SecretAccessKey));
    assert!(!shown.contains("hunter2"), "{shown}");
}
