//! What the CLI prints becomes settings, under its present names and under older ones.

use super::*;

fn layer_of(text: &str) -> Option<Layer> {
    of_variables(&env_file::parse(Path::new("-"), &Secret::new(text)).expect("variables"))
}

fn value(layer: &Layer, setting: Setting) -> Option<&str> {
    layer.values.get(&setting).map(Secret::expose)
}

#[test]
fn the_present_names_are_understood() {
    let layer = layer_of(
        "ANON_KEY=\"anon\"\nAPI_URL=\"http://127.0.0.1:54321\"\nDB_URL=\"postgresql://x\"\nJWT_SECRET=\"jwt\"\n\
         PUBLISHABLE_KEY=\"sb_publishable_x\"\nS3_PROTOCOL_ACCESS_KEY_ID=\"id\"\n\
         S3_PROTOCOL_ACCESS_KEY_SECRET=\"secret\"\nS3_PROTOCOL_REGION=\"local\"\n\
         STORAGE_S3_URL=\"http://127.0.0.1:54321/storage/v1/s3\"\n",
    )
    .expect("a stack");
    let expected = [
        (Setting::Url, "http://127.0.0.1:54321"),
        (Setting::Endpoint, "http://127.0.0.1:54321/storage/v1/s3"),
        (Setting::AccessKeyId, "id"),
        (Setting::SecretAccessKey, "secret"),
        (Setting::Region, "local"),
        (Setting::AnonKey, "anon"),
        (Setting::JwtSecret, "jwt"),
        (Setting::ProjectRef, "stub"),
    ];
    for (setting, text) in expected {
        assert_eq!(value(&layer, setting), Some(text), "{setting:?}");
    }
}

#[test]
fn older_and_fewer_names_are_understood() {
    let old = layer_of("API_URL=http://127.0.0.1:1\nS3_ACCESS_KEY=id\nS3_SECRET_KEY=s\nANON_KEY=a\n")
        .expect("a stack");
    assert_eq!(value(&old, Setting::AccessKeyId), Some("id"));
    assert_eq!(value(&old, Setting::SecretAccessKey), Some("s"));
    assert_eq!(value(&old, Setting::Endpoint), None, "the API URL leads there");
    let without = layer_of("API_URL=http://127.0.0.1:1\nPUBLISHABLE_KEY=p\n").expect("a stack");
    assert_eq!(value(&without, Setting::AnonKey), Some("p"));
    assert!(layer_of("SUPABASE_S3_ACCESS_KEY_ID=id\n").is_none(), "another kind of file");
}

#[test]
fn a_folder_is_linked_from_the_top_of_its_project() {
    let dir = tempfile::tempdir().expect("a directory");
    let (temp, deep) = (dir.path().join("supabase/.temp"), dir.path().join("app/src"));
    std::fs::create_dir_all(&temp).expect("made");
    std::fs::create_dir_all(&deep).expect("made");
    assert_eq!(linked_project(&deep), None);
    std::fs::write(temp.join("project-ref"), "abcdefghijklmnopqrst\n").expect("written");
    let (project_ref, file) = linked_project(&deep).expect("linked");
    assert_eq!(project_ref, "abcdefghijklmnopqrst");
    assert!(file.ends_with("supabase/.temp/project-ref"));
    std::fs::write(temp.join("project-ref"), "no ref/at all").expect("written");
    assert_eq!(linked_project(&deep), None);
}
