//! What `supafs unmount` says of changes that were acknowledged and that the server has refused, or has not carried out.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use supafs_standin::{Action, Fault, FaultId};

use crate::common::{Backend, Bucket, Login, Outcome, Place, eventually};

const ACKNOWLEDGED: &str = "refused by the server after they had been acknowledged: ";

/// A mount with `--write-back` that is left by `supafs unmount`.
struct Stage<'a> {
    backend: &'a Backend,
    bucket: Bucket<'a>,
    place: Place,
}

impl<'a> Stage<'a> {
    fn on(backend: &'a Backend) -> Self {
        Self { bucket: backend.bucket(), backend, place: Place::new() }
    }

    fn mount(&self) {
        let env = Login::Keys.variables(&self.backend.facts(), |_| String::new());
        let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let args = "mount --write-back --drain-timeout 9s --log-file log";
        self.place.supafs(args.split(' ').chain([&*self.bucket.name, "mnt"]), &env).ok();
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.place.mountpoint().join(path)
    }

    fn unmount(&self) -> Outcome {
        let outcome = self.place.supafs(["unmount", "mnt"], &[]);
        assert!(self.place.daemons().is_empty());
        outcome
    }

    /// Unmounts: not all is as it was acknowledged to be.
    fn unmount_with_something_left(&self) -> String {
        let outcome = self.unmount();
        let log = fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
        assert_eq!(outcome.status.code(), Some(75), "{outcome:?}\n{log}");
        assert!(!outcome.stderr.contains("everything is uploaded"), "{}", outcome.stderr);
        outcome.stderr
    }

    /// The lines of `supafs spool list` that name a key.
    fn spool(&self, key: &str) -> Vec<String> {
        let list = self.place.supafs(["spool", "list"], &[]).ok().stdout;
        let key = format!("/{key}");
        list.lines().filter(|line| line.contains(&key)).map(str::to_owned).collect()
    }

    fn refuse(&self, operation: &str) -> FaultId {
        let fault = Fault::status(403, "AccessDenied").on(operation).bucket(&self.bucket.name);
        self.backend.fault(fault)
    }
}

#[test]
fn a_new_folder_that_is_refused_is_told_of_and_can_be_made_later() {
    let backend = standin_only!("the server refuses a placeholder");
    let stage = Stage::on(&backend);
    stage.mount();
    let refusal = stage.refuse("PutObject");
    fs::create_dir(stage.at("new")).expect("it is made a moment later");
    let told = stage.unmount_with_something_left();
    assert!(told.contains(&format!("{ACKNOWLEDGED}1 file or folder; not in the bucket")), "{told}");
    let listed = stage.spool("new/");
    assert!(listed.len() == 1 && listed[0].contains("parked"), "{listed:?}");
    assert!(!listed[0].contains(".emptyFolderPlaceholder"), "{}", listed[0]);
    assert!(listed[0].contains(": "), "the reason: {}", listed[0]);
    stage.backend.standin().clear_fault(refusal);
    stage.place.supafs(["spool", "retry", "--all"], &[]).ok();
    stage.mount();
    stage.unmount().ok();
    assert!(stage.bucket.bytes("new/.emptyFolderPlaceholder").is_some());
    assert!(stage.spool("new/").is_empty());
}

#[test]
fn a_mode_that_a_policy_forbids_is_told_of_and_not_kept() {
    let backend = standin_only!("the server refuses a copy");
    let stage = Stage::on(&backend);
    stage.bucket.put("file", "content");
    stage.mount();
    stage.refuse("CopyObject");
    fs::set_permissions(stage.at("file"), fs::Permissions::from_mode(0o640))
        .expect("it is set a moment later");
    let told = stage.unmount_with_something_left();
    assert!(told.contains(&format!("{ACKNOWLEDGED}1 change of a mode")), "{told}");
    assert!(!told.contains("not in the bucket"), "{told}");
    assert_eq!(stage.spool("file"), [] as [String; 0]);
}

#[test]
fn a_mode_that_is_refused_otherwise_waits_and_is_not_told_of_as_a_file_that_is_lost() {
    let backend = standin_only!("the server refuses a copy");
    let stage = Stage::on(&backend);
    stage.bucket.put("file", "content");
    stage.mount();
    let refusal = Fault::status(400, "InvalidRequest").on("CopyObject").bucket(&stage.bucket.name);
    let refusal = stage.backend.fault(refusal);
    fs::set_permissions(stage.at("file"), fs::Permissions::from_mode(0o640))
        .expect("it is set a moment later");
    let told = stage.unmount_with_something_left();
    assert!(told.contains(&format!("{ACKNOWLEDGED}1 change of a mode")), "{told}");
    assert!(!told.contains("not in the bucket"), "{told}");
    let listed = stage.spool("file");
    assert!(
        listed.len() == 1 && listed[0].contains("only its mode, owner, times or attributes"),
        "{listed:?}"
    );
    stage.backend.standin().clear_fault(refusal);
    stage.place.supafs(["spool", "retry", "--all"], &[]).ok();
    stage.mount();
    stage.unmount().ok();
    let headers = stage.bucket.headers("file").expect("it is there");
    assert_eq!(headers.metadata.get("mode").map(String::as_str), Some("33184"));
    assert_eq!(stage.bucket.bytes("file").as_deref(), Some(&b"content"[..]));
}

#[test]
fn a_mode_of_a_folder_that_is_refused_is_told_of_and_not_shown() {
    let backend = standin_only!("the server refuses a placeholder");
    let stage = Stage::on(&backend);
    stage.bucket.put_keys(["dir/.emptyFolderPlaceholder", "dir/file"]);
    stage.mount();
    let mode = || fs::metadata(stage.at("dir")).expect("its attributes").permissions().mode() & 0o777;
    assert_eq!(mode(), 0o755);
    stage.refuse("PutObject");
    fs::set_permissions(stage.at("dir"), fs::Permissions::from_mode(0o700))
        .expect("it is set a moment later");
    eventually("the mode that the bucket has", || (mode() == 0o755).then_some(()));
    let told = stage.unmount_with_something_left();
    assert!(told.contains(&format!("{ACKNOWLEDGED}1 change of a mode")), "{told}");
    assert!(!told.contains("not in the bucket"), "{told}");
}

#[test]
fn a_deletion_that_is_refused_or_late_is_told_of_as_one() {
    let backend = standin_only!("the server refuses a deletion");
    let stage = Stage::on(&backend);
    stage.bucket.put("refused", "content");
    stage.bucket.put("late", "content");
    stage.mount();
    let refusal = stage.refuse("DeleteObject");
    fs::remove_file(stage.at("refused")).expect("it is deleted a moment later");
    let told = stage.unmount_with_something_left();
    assert!(told.contains(&format!("{ACKNOWLEDGED}1 deletion; still in the bucket")), "{told}");
    assert_eq!(stage.bucket.bytes("refused").as_deref(), Some(&b"content"[..]));
    stage.backend.standin().clear_fault(refusal);

    stage.mount();
    let hang = stage.backend.fault(Fault::new(Action::Hang).on("DeleteObject").bucket(&stage.bucket.name));
    fs::remove_file(stage.at("late")).expect("it is deleted a moment later");
    let told = stage.unmount_with_something_left();
    assert!(told.contains("1 deletion left"), "{told}");
    assert!(told.contains("1 deletion not sent in time"), "{told}");
    assert!(!told.contains("upload left") && !told.contains(ACKNOWLEDGED), "{told}");
    stage.backend.standin().clear_fault(hang);
    stage.mount();
    stage.unmount().ok();
    assert_eq!(stage.bucket.bytes("late"), None);
}

#[test]
fn a_deletion_that_succeeds_after_all_is_not_told_of() {
    let backend = standin_only!("the server refuses a deletion");
    let stage = Stage::on(&backend);
    stage.bucket.put("file", "content");
    stage.mount();
    let refusal = stage.refuse("DeleteObject");
    fs::remove_file(stage.at("file")).expect("it is deleted a moment later");
    eventually("the file to be shown again", || stage.at("file").exists().then_some(()));
    stage.backend.standin().clear_fault(refusal);
    fs::remove_file(stage.at("file")).expect("it is deleted a moment later");
    stage.unmount().ok();
    assert_eq!(stage.bucket.bytes("file"), None);
}

#[test]
fn a_mount_that_follows_umount_waits_for_what_was_set_last() {
    let backend = standin_only!("it is slow on demand");
    let stage = Stage::on(&backend);
    stage.bucket.put("file", "content");
    for round in 0..3 {
        stage.mount();
        let slow = Fault::new(Action::Latency(Duration::from_secs(2))).on("CopyObject");
        let slow = stage.backend.fault(slow.bucket(&stage.bucket.name));
        let mode = 0o600 + round;
        fs::set_permissions(stage.at("file"), fs::Permissions::from_mode(mode))
            .expect("it is set a moment later");
        // Other than `supafs unmount`, this does not wait.
        nix::mount::umount2(&stage.place.mountpoint(), nix::mount::MntFlags::empty()).expect("unmounted");
        stage.mount();
        let shown = fs::metadata(stage.at("file")).expect("its attributes").permissions().mode() & 0o777;
        assert_eq!(shown, mode);
        stage.backend.standin().clear_fault(slow);
        stage.unmount().ok();
    }
}

#[test]
fn what_a_killed_daemon_told_does_not_count() {
    let backend = standin_only!("it goes silent on demand");
    let stage = Stage::on(&backend);
    stage.mount();
    let hang = stage.backend.fault(Fault::new(Action::Hang).on("PutObject").bucket(&stage.bucket.name));
    fs::write(stage.at("file"), "late").expect("close does not wait");
    let daemon = stage.place.daemons()[0];
    nix::sys::signal::kill(daemon, nix::sys::signal::SIGTERM).expect("it is told to end");
    let told = || {
        let reports = fs::read_dir(stage.place.home().join("state/supafs/mounts")).expect("a directory");
        let mut reports = reports.flatten().map(|entry| fs::read_to_string(entry.path()).unwrap_or_default());
        reports.any(|report| report.contains("\"uploads\":1")).then_some(())
    };
    eventually("it to tell what is left", told);
    nix::sys::signal::kill(daemon, nix::sys::signal::SIGKILL).expect("it is killed");
    eventually("its end", || stage.place.daemons().is_empty().then_some(()));
    stage.backend.standin().clear_fault(hang);
    drop(stage.place.supafs(["unmount", "mnt"], &[]));
    stage.mount();
    stage.unmount().ok();
    assert_eq!(stage.bucket.bytes("file").as_deref(), Some(&b"late"[..]));
}

#[test]
fn a_server_that_answers_with_errors_is_not_called_silent() {
    let backend = standin_only!("the server fails on demand");
    let stage = Stage::on(&backend);
    stage.mount();
    let fault = Fault::status(500, "InternalError").on("PutObject").bucket(&stage.bucket.name);
    let fault = stage.backend.fault(fault);
    fs::write(stage.at("file"), "late").expect("close does not wait");
    let begun = Instant::now();
    let told = stage.unmount_with_something_left();
    assert!(begun.elapsed() >= Duration::from_secs(5), "it is tried until the time is over");
    assert!(told.contains("the server answers with errors; trying again for up to"), "{told}");
    assert!(!told.contains("does not answer"), "{told}");
    stage.backend.standin().clear_fault(fault);
    stage.mount();
    stage.unmount().ok();
    assert_eq!(stage.bucket.bytes("file").as_deref(), Some(&b"late"[..]));
}
