//! The command line's shape, and its fit with the table of settings.

use clap::CommandFactory;

use super::setting::{SPELLINGS, Setting};
use super::*;

fn helper(args: &[&str]) -> Option<Vec<String>> {
    let args = args.iter().map(OsString::from).collect();
    as_mount_helper(args).map(|args| args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect())
}

#[test]
fn clap_finds_no_fault() {
    Cli::command().debug_assert();
}

#[test]
fn mount_8_may_call_it() {
    let called = helper(&["/sbin/mount.supafs", "b", "/m", "-n", "-o", "rw,_netdev", "-t", "fuse.supafs"]);
    assert_eq!(called.expect("a mount"), ["supafs", "mount", "b", "/m", "-o", "rw,_netdev"]);
    assert_eq!(helper(&["mount.fuse.supafs", "b", "/m", "-f"]), None);
    assert_eq!(helper(&["supafs", "unmount", "/m"]).expect("as it is"), ["supafs", "unmount", "/m"]);
}

#[test]
fn every_setting_is_in_the_table_once() {
    for spelling in SPELLINGS {
        assert_eq!(spelling.setting.spelling().key, spelling.key);
        assert_eq!(Setting::by_key(spelling.key).map(|found| found.setting), Some(spelling.setting));
    }
    // The last one declared tells how many there are.
    assert_eq!(SPELLINGS.len(), Setting::StatusFile as usize + 1);
}

#[test]
fn a_setting_has_a_flag_exactly_where_the_table_says() {
    let cli = Cli::command();
    let mount = cli.find_subcommand("mount").expect("mount");
    for spelling in SPELLINGS {
        let name = spelling.key.replace('_', "-");
        let has = mount.get_arguments().any(|arg| arg.get_long() == Some(name.as_str()));
        assert_eq!(has, spelling.flag, "{name}");
    }
}

#[test]
fn no_secret_is_a_flag() {
    assert!(SPELLINGS.iter().all(|spelling| !(spelling.secret && spelling.flag)));
}

#[test]
fn every_mount_flag_reaches_its_setting() {
    let flags: Vec<_> = SPELLINGS.iter().filter(|spelling| spelling.flag).collect();
    let mut line = vec!["supafs".to_owned(), "mount".to_owned(), "b".to_owned(), "/m".to_owned()];
    for spelling in &flags {
        line.push(format!("--{}", spelling.key.replace('_', "-")));
        if !matches!(spelling.setting, Setting::ReadOnly | Setting::AllowOther) {
            line.push("7".to_owned());
        }
    }
    let Command::Mount(args) = Cli::try_parse_from(line).expect("a command line").command else {
        panic!("a mount")
    };
    let layer = args.layer();
    for spelling in flags {
        assert!(layer.values.contains_key(&spelling.setting), "{}", spelling.key);
    }
}
