//! What /etc/fstab can hold is understood or refused, never overlooked.

use super::*;

fn value(list: &OptionList, setting: Setting) -> Option<String> {
    list.layer.values.get(&setting).map(|value| value.expose().to_owned())
}

#[test]
fn fstab_options_are_understood() {
    let list = parse([
        "ro,allow_other,uid=1000,umask=027,noatime,noexec",
        "_netdev,nofail,x-systemd.automount,user=me",
    ])
    .expect("options");
    assert_eq!(value(&list, Setting::ReadOnly).as_deref(), Some("true"));
    assert_eq!(value(&list, Setting::AllowOther).as_deref(), Some("true"));
    assert_eq!(value(&list, Setting::Uid).as_deref(), Some("1000"));
    assert_eq!(value(&list, Setting::FileMode).as_deref(), Some("640"));
    assert_eq!(value(&list, Setting::DirMode).as_deref(), Some("750"));
    assert_eq!(list.kernel, ["noatime", "noexec"]);
}

#[test]
fn long_options_are_understood() {
    let list = parse(["metadata_ttl=10s,profile=work,project-ref=abc,rw,fmask=133"]).expect("options");
    assert_eq!(value(&list, Setting::MetadataTtl).as_deref(), Some("10s"));
    assert_eq!(value(&list, Setting::ProjectRef).as_deref(), Some("abc"));
    assert_eq!(value(&list, Setting::FileMode).as_deref(), Some("644"));
    assert_eq!(value(&list, Setting::ReadOnly).as_deref(), Some("false"));
    assert_eq!(list.files.profile.as_deref(), Some("work"));
}

#[test]
fn all_buckets_can_be_in_fstab() {
    let list = parse(["all,bucket=a,bucket=b"]).expect("options");
    assert!(list.all);
    assert_eq!(list.buckets, ["a", "b"]);
}

#[test]
fn unknown_options_are_refused_with_the_nearest() {
    let why = parse(["metadta_ttl=5s"]).expect_err("refused").to_string();
    assert!(why.contains("`metadata_ttl`"), "{why}");
    assert_eq!(parse(["frobnicate"]).expect_err("refused").code(), 2);
    assert!(parse(["suid"]).expect_err("refused").to_string().contains("nosuid"));
}

#[test]
fn secrets_are_no_options() {
    let why = parse(["secret_access_key=hunter2"]).expect_err("refused").to_string();
    assert!(why.contains("SUPABASE_S3_SECRET_ACCESS_KEY") && !why.contains("hunter2"), "{why}");
}
