//! The command line through the binary: mounting in the background, unmounting, dead mount points, and `--all`.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use crate::common::{Backend, Login, Mount, MountOptions, Place, eventually, is_mounted, run};
use nix::sys::signal::{Signal, kill};
use supafs_standin::{Action, Fault};

/// The variables of a login, to pass on.
fn variables(backend: &Backend, login: &Login) -> Vec<(String, String)> {
    login.variables(&backend.facts(), |sub| backend.token(sub, 3600))
}

fn borrowed(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[test]
fn mount_returns_when_the_mount_answers_and_unmount_when_all_is_over() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["dir/file"]);
    let place = Place::new();
    let (target, env) = (place.mountpoint(), variables(&backend, &Login::Keys));
    let mounted = place.supafs(["mount", &bucket.name, "mnt"], &borrowed(&env)).ok();
    assert_eq!(mounted.stdout, "");
    // At once, without waiting: that is what returning means.
    assert_eq!(fs::read_to_string(target.join("dir/file")).expect("it answers"), "dir/file");
    let daemons = place.daemons();
    assert_eq!(daemons.len(), 1);
    let log: Vec<_> = fs::read_dir(place.home().join("state/supafs/log")).expect("a log").collect();
    assert_eq!(log.len(), 1);
    place.supafs(["unmount", "mnt"], &[]).ok();
    assert!(!is_mounted(&target));
    assert_eq!(fs::read_dir(&target).expect("the directory beneath").count(), 0);
    // Its last instructions may still be running, and its parent may not have heard yet.
    for pid in daemons {
        let state =
            || fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_else(|_| "State:\tZ".to_owned());
        eventually("the daemon to end", || state().contains("State:\tZ").then_some(()));
    }
    // And again, by the other name of the command, with an absolute path.
    place.supafs(["mount", &bucket.name, target.to_str().expect("text")], &borrowed(&env)).ok();
    assert!(target.join("dir").is_dir());
    place.supafs(["umount", target.to_str().expect("text")], &[]).ok();
    assert!(!is_mounted(&target) && place.daemons().is_empty());
}

/// Arguments, environment, and what standard error must say.
type Case<'a> = (&'a [&'a str], &'a [(String, String)], &'a str);

#[test]
fn what_keeps_a_mount_from_answering_is_printed_and_nothing_is_mounted() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let place = Place::new();
    let env = variables(&backend, &Login::Keys);
    fs::create_dir_all(place.path().join("full/inside")).expect("a directory");
    place.file("file", "text", 0o644);
    let bad_endpoint =
        [env.clone(), vec![("SUPABASE_S3_ENDPOINT".into(), "http://127.0.0.1:9".into())]].concat();
    let bad_key = [env.clone(), vec![("SUPABASE_S3_SECRET_ACCESS_KEY".into(), "wrong".into())]].concat();
    let name = bucket.name.as_str();
    let cases: [Case<'_>; 9] = [
        (&["mount", "no-such-bucket", "mnt"], &env, "there is no bucket"),
        (&["mount", name, "mnt"], &bad_key, "refuses the credential"),
        (&["mount", "--op-timeout", "1s", name, "mnt"], &bad_endpoint, "cannot reach"),
        (&["mount", name, "nowhere"], &env, "does not exist; create it: mkdir -p"),
        (&["mount", name, "full"], &env, "is not empty"),
        (&["mount", name, "file"], &env, "is not a directory"),
        (&["mount", name, "mnt"], &[], "credentials"),
        (&["mount", "--metadata-ttl", "soon", name, "mnt"], &env, "--metadata-ttl"),
        (&["mount", "-o", "nosuchoption", name, "mnt"], &env, "unknown option"),
    ];
    for (args, env, message) in cases {
        let stderr = place.supafs(args, &borrowed(env)).refused();
        assert!(stderr.contains(message), "{args:?}: {stderr}");
        assert!(!is_mounted(place.mountpoint()), "{args:?}");
        assert!(place.daemons().is_empty(), "{args:?} left a daemon");
        let foreground: Vec<_> =
            [args[0], "--foreground"].into_iter().chain(args[1..].iter().copied()).collect();
        let stderr = place.supafs(foreground, &borrowed(env)).refused();
        assert!(stderr.contains(message), "{args:?} in the foreground: {stderr}");
    }
}

#[test]
fn mounting_twice_on_one_directory_is_refused() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let place = Place::new();
    let env = variables(&backend, &Login::Keys);
    place.supafs(["mount", &bucket.name, "mnt"], &borrowed(&env)).ok();
    let stderr = place.supafs(["mount", &bucket.name, "mnt"], &borrowed(&env)).refused();
    assert!(stderr.contains("already mounted"), "{stderr}");
    assert!(place.mountpoint().join("file").exists(), "the first mount lives on");
    place.supafs(["unmount", "mnt"], &[]).ok();
}

#[test]
fn unmount_refuses_what_is_in_use_and_says_by_whom() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let place = Place::new();
    let env = variables(&backend, &Login::Keys);
    place.supafs(["mount", &bucket.name, "mnt"], &borrowed(&env)).ok();
    let file = File::open(place.mountpoint().join("file")).expect("open");
    let stderr = place.supafs(["unmount", "mnt"], &[]).refused();
    assert!(stderr.contains("in use") && stderr.contains(&std::process::id().to_string()), "{stderr}");
    assert!(place.mountpoint().join("file").exists());
    place.supafs(["unmount", "--lazy", "mnt"], &[]).ok();
    assert!(!is_mounted(place.mountpoint()));
    drop(file);
    eventually("the daemon to end", || place.daemons().is_empty().then_some(()));
}

#[test]
fn unmount_of_what_is_no_mount_of_ours_is_refused() {
    let place = Place::new();
    let stderr = place.supafs(["unmount", "mnt"], &[]).refused();
    assert!(stderr.contains("nothing is mounted"), "{stderr}");
    let stderr = place.supafs(["unmount", "/proc"], &[]).refused();
    assert!(stderr.contains("no mount of supafs"), "{stderr}");
    let stderr = place.supafs(["unmount", "nowhere/at/all"], &[]).refused();
    assert!(!stderr.is_empty());
}

#[test]
fn signals_unmount_cleanly() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut mount = Mount::new(&backend, &bucket);
        mount.read("file");
        mount.signal(signal);
        let status = mount.wait();
        assert!(status.success(), "{signal}: {status}");
        assert!(!is_mounted(&mount.path), "{signal}");
        // In the background as well.
        let place = Place::new();
        let env = variables(&backend, &Login::Keys);
        place.supafs(["mount", &bucket.name, "mnt"], &borrowed(&env)).ok();
        for pid in place.daemons() {
            kill(pid, signal).expect("it lives");
        }
        eventually("the daemon to end", || place.daemons().is_empty().then_some(()));
        assert!(!is_mounted(place.mountpoint()), "{signal}");
    }
}

#[test]
fn a_signal_ends_a_mount_with_open_files() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let mut mount = Mount::new(&backend, &bucket);
    let file = File::open(mount.at("file")).expect("open");
    mount.signal(Signal::SIGTERM);
    assert!(mount.wait().success());
    assert!(!is_mounted(&mount.path));
    drop(file);
}

#[test]
fn an_unmount_by_other_means_ends_the_daemon() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    for tool in ["umount", "fusermount3 -u"] {
        let mut mount = Mount::new(&backend, &bucket);
        run(mount.place().path(), &format!("{tool} mnt"));
        assert!(mount.wait().success(), "{tool}");
    }
}

#[test]
fn a_dead_mount_point_is_cleared_by_mount_and_by_unmount() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let place = Place::new();
    let env = variables(&backend, &Login::Keys);
    let die = || {
        place.supafs(["mount", &bucket.name, "mnt"], &borrowed(&env)).ok();
        for pid in place.daemons() {
            kill(pid, Signal::SIGKILL).expect("it lives");
        }
        eventually("the end of the daemon", || place.daemons().is_empty().then_some(()));
        assert!(is_mounted(place.mountpoint()), "the kernel keeps the mount of a killed daemon");
        assert!(fs::metadata(place.mountpoint()).is_err(), "dead");
    };
    die();
    place.supafs(["mount", &bucket.name, "mnt"], &borrowed(&env)).ok();
    assert_eq!(fs::read(place.mountpoint().join("file")).expect("it answers"), b"file");
    place.supafs(["unmount", "mnt"], &[]).ok();
    die();
    place.supafs(["unmount", "mnt"], &[]).ok();
    assert!(!is_mounted(place.mountpoint()));
    assert!(fs::metadata(place.mountpoint()).is_ok());
}

#[test]
fn a_killed_daemon_leaves_no_process_stuck() {
    let backend = standin_only!("it hangs on demand");
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let mut mount = Mount::with(&backend, &bucket, "--op-timeout 300s");
    mount.names("");
    backend.fault(Fault::new(Action::Hang).on("GetObject"));
    let mut reader = Command::new("cat").arg(mount.at("file")).stderr(Stdio::null()).spawn().expect("cat");
    eventually("its request", || (backend.standin().in_flight() > 0).then_some(()));
    mount.signal(Signal::SIGKILL);
    assert_eq!(mount.wait().signal(), Some(Signal::SIGKILL as i32));
    let status = eventually("the reader to end", || reader.try_wait().expect("a child"));
    assert!(!status.success());
    mount.place().supafs(["unmount", "mnt"], &[]).ok();
    assert!(!is_mounted(&mount.path));
}

#[test]
fn buckets_are_listed() {
    let backend = Backend::start();
    let (one, two) = (backend.bucket(), backend.bucket());
    let place = Place::new();
    let env = variables(&backend, &Login::Keys);
    let text = place.supafs(["buckets"], &borrowed(&env)).ok().stdout;
    for bucket in [&one, &two] {
        assert!(text.lines().any(|line| line.starts_with(&bucket.name)), "{text}");
    }
    let json = place.supafs(["buckets", "--json"], &borrowed(&env)).ok().stdout;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
    assert!(rows.iter().any(|row| row["name"] == one.name.as_str()), "{json}");
}

#[test]
fn a_user_without_policies_on_buckets_is_told_why_there_are_none() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    bucket.put(&format!("{}/file", users.alice), "mine");
    let place = Place::new();
    let env = variables(&backend, &Login::User(users.alice.clone()));
    let outcome = place.supafs(["buckets"], &borrowed(&env)).ok();
    assert!(outcome.stderr.contains("storage.buckets"), "{outcome:?}");
    let stderr = place.supafs(["mount", "--all", "mnt"], &borrowed(&env)).refused();
    assert!(stderr.contains("--bucket NAME"), "{stderr}");
    assert!(!is_mounted(place.mountpoint()));
    // By name it works.
    let mount = MountOptions::new(&backend, "")
        .args(&format!("--all --bucket {}", bucket.name))
        .login(Login::User(users.alice.clone()))
        .start();
    assert_eq!(mount.names(""), [bucket.name.as_str()]);
    assert_eq!(mount.read(&format!("{}/{}/file", bucket.name, users.alice)), b"mine");
}

#[test]
fn all_buckets_are_directories_at_the_top() {
    let backend = Backend::start();
    let (one, two) = (backend.bucket(), backend.bucket());
    one.put_keys(["a/file", "top"]);
    two.put_keys(["b/file"]);
    let mount = MountOptions::new(&backend, "").args("--all").start();
    let names = mount.names("");
    assert!([&one, &two].iter().all(|bucket| names.contains(&bucket.name)), "{names:?}");
    assert_eq!(mount.names(&one.name), ["a", "top"]);
    assert_eq!(mount.read(&format!("{}/a/file", one.name)), b"a/file");
    assert_eq!(mount.read(&format!("{}/b/file", two.name)), b"b/file");
    assert!(!mount.at("no-such-bucket").exists());
    drop(mount);
    let mount = MountOptions::new(&backend, "")
        .args(&format!("--all --bucket {} --bucket {}", two.name, one.name))
        .start();
    let mut both = [one.name.clone(), two.name.clone()];
    both.sort();
    assert_eq!(mount.names(""), both);
    assert_eq!(mount.read(&format!("{}/top", one.name)), b"top");
}

#[test]
fn fstab_options_and_the_mount_helper_are_understood() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let mount = Mount::with(
        &backend,
        &bucket,
        "-o ro,noatime,uid=77,file_mode=400,metadata_ttl=1h,_netdev,x-systemd.automount",
    );
    assert_eq!(mount.sh("stat -c '%u %a' file"), "77 400\n");
    // mount(8) calls a link of this name with the source, the directory, and its own flags.
    let place = Place::new();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_supafs"), place.path().join("mount.supafs"))
        .expect("a link");
    let mut command = Command::new(place.path().join("mount.supafs"));
    command
        .args([bucket.name.as_str(), "mnt", "-n", "-o", "rw,uid=78"])
        .current_dir(place.path())
        .env_clear();
    command.envs(variables(&backend, &Login::Keys)).env("HOME", place.home());
    command.env("XDG_STATE_HOME", place.home().join("state"));
    let outcome = crate::common::outcome(command);
    assert!(outcome.status.success(), "{outcome:?}");
    assert_eq!(run(&place.mountpoint(), "stat -c %u file"), "78\n");
    place.supafs(["unmount", "mnt"], &[]).ok();
}

#[test]
fn allow_other_with_access_keys_warns() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let place = Place::new();
    let env = variables(&backend, &Login::Keys);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let outcome = place.supafs(["mount", "--allow-other", &bucket.name, "mnt"], &borrowed(&env)).ok();
    assert!(outcome.stderr.contains("full rights"), "{outcome:?}");
    place.supafs(["unmount", "mnt"], &[]).ok();
}

#[test]
fn help_names_every_command_and_wrong_usage_is_code_2() {
    let place = Place::new();
    let help = place.supafs(["--help"], &[]).ok().stdout;
    for command in ["mount", "unmount", "buckets", "doctor"] {
        assert!(help.contains(command), "{help}");
        place.supafs([command, "--help"], &[]).ok();
    }
    for args in
        [&["mount"][..], &["mount", "a", "b", "c"], &["nonsense"], &["mount", "--no-such-flag", "a", "mnt"]]
    {
        assert_eq!(place.supafs(args, &[]).status.code(), Some(2), "{args:?}");
    }
    place.supafs(["--version"], &[]).ok();
}

#[test]
fn unmount_shows_what_is_left_to_upload_and_the_next_mount_goes_on() {
    let Some(backend) = Backend::standin_only("it makes uploads hang") else { return };
    let bucket = backend.bucket();
    let place = Place::new();
    let env = variables(&backend, &Login::Keys);
    let hang = backend.fault(Fault::new(Action::Hang).on("PutObject"));
    let mount = ["mount", "--write-back", "--drain-timeout", "1s", &bucket.name, "mnt"];
    place.supafs(mount, &borrowed(&env)).ok();
    fs::write(place.mountpoint().join("file"), "late").expect("close does not wait");
    // Root waits for the daemon of whoever it is: another home is another state directory.
    let elsewhere = place.path().join("elsewhere").display().to_string();
    let env_elsewhere: &[(&str, &str)] = &[("HOME", &elsewhere), ("XDG_STATE_HOME", &elsewhere)];
    let as_root = nix::unistd::geteuid().is_root();
    let left = place.supafs(["unmount", "mnt"], if as_root { env_elsewhere } else { &[] });
    assert_eq!(left.status.code(), Some(75), "{}", left.stderr);
    assert!(left.stderr.contains("1 upload left"), "{}", left.stderr);
    assert!(left.stderr.contains("1 upload not sent in time") && left.stderr.contains("supafs spool list"));
    assert!(place.daemons().is_empty());
    backend.standin().clear_fault(hang);
    place.supafs(mount, &borrowed(&env)).ok();
    assert_eq!(fs::read(place.mountpoint().join("file")).expect("it is shown"), b"late");
    place.supafs(["unmount", "mnt"], &[]).ok();
    assert_eq!(bucket.bytes("file").as_deref(), Some(&b"late"[..]));
}
