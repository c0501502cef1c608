//! Directory streams: large ones, positions in them, and change while they are read.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::common::{Backend, Mount};

#[test]
fn a_directory_of_100_000_entries_streams_with_bounded_memory() {
    let backend = standin_only!("it has 100,000 objects at once");
    let bucket = backend.bucket();
    for i in 0..100_000 {
        backend.standin().put(&bucket.name, &format!("large/file-{i:06}.jpg"), "x");
    }
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 1h");
    let before = mount.resident();
    for line in ["ls -U large | wc -l", "find large -type f | wc -l", "ls -l large | tail -n +2 | wc -l"] {
        assert_eq!(mount.sh(line).trim(), "100000", "{line}");
    }
    let peak = mount.peak_resident();
    let allowed = (64 << 20) + 300 * 100_000;
    assert!(peak < before + allowed, "{} MiB at most, {} before", peak >> 20, before >> 20);
    let names: BTreeSet<String> = mount.names("large").into_iter().collect();
    assert_eq!(names.len(), 100_000);
}

#[test]
fn the_first_entries_come_before_the_last_page() {
    let backend = standin_only!("it holds requests back");
    let bucket = backend.bucket();
    for i in 0..5000 {
        backend.standin().put(&bucket.name, &format!("d/{i:05}"), "x");
    }
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(mount.names(""), ["d"]);
    backend.fault(
        supafs_standin::Fault::new(supafs_standin::Action::Hang).on("ListObjectsV2").key("d/").after(1),
    );
    let first = fs::read_dir(mount.at("d")).expect("opened").next().expect("an entry").expect("its name");
    assert_eq!(first.file_name(), "00000");
    backend.standin().clear_faults();
    assert_eq!(mount.names("d").len(), 5000);
}

/// A perl program that has the mount as its working directory; prints, and reads lines when it is to go on.
fn perl(mount: &Mount, program: &str) -> std::process::Child {
    Command::new("perl")
        .args(["-we", program])
        .current_dir(&mount.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("perl")
}

#[test]
fn positions_in_a_directory_hold_while_it_changes() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let keys: Vec<String> = (0..400).map(|i| format!("d/{i:04}")).collect();
    bucket.put_keys(&keys);
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 100ms");
    let mut child = perl(
        &mount,
        r#"
        $| = 1;
        opendir(D, "d") or die $!;
        my (@names, @at);
        while (1) { my $p = telldir(D); defined(my $n = readdir(D)) or last; push @at, $p; push @names, $n; }
        print scalar(@names), "\n"; <STDIN>;
        for my $i (reverse(0 .. $#names)) {
            # Not to the start: that is rewinddir, after which old positions mean nothing.
            $i > 0 && $i % 7 == 0 or next;
            seekdir(D, $at[$i]); my $n = readdir(D);
            defined $n && $n eq $names[$i] or die "at $i: ", $n // "the end", " instead of $names[$i]";
        }
        seekdir(D, $at[200]); my @rest = readdir(D);
        "@rest" eq "@names[200 .. $#names]" or die "the rest differs: @rest";
        rewinddir(D); my @again = grep { !/^\./ } readdir(D);
        print join(" ", sort @again), "\n";
        "#,
    );
    let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).expect("its first line");
    assert_eq!(line.trim(), "402");
    // Change in front, in the middle and behind, then let it go on.
    bucket.put_keys(["d/!first", "d/0100-new", "d/zlast"]);
    bucket.delete("d/0150");
    crate::common::eventually("the change to be seen by others", || {
        mount.at("d/zlast").exists().then_some(())
    });
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, b"go\n").expect("it waits");
    line.clear();
    std::io::BufRead::read_line(&mut out, &mut line).expect("its second line");
    let status = child.wait().expect("a child");
    assert!(status.success(), "{status}");
    let mut wanted: Vec<&str> = keys.iter().map(|key| &key[2..]).filter(|name| *name != "0150").collect();
    wanted.extend(["!first", "0100-new", "zlast"]);
    wanted.sort_unstable();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), wanted, "rewinddir shows the directory as it is");
}

#[test]
fn a_stream_that_began_before_a_change_is_complete_and_without_doubles() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let count = if backend.is_real() { 1200 } else { 3000 };
    let keys: Vec<String> = (0..count).map(|i| format!("d/{i:05}")).collect();
    bucket.put_keys(&keys);
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 0s");
    let mut names = Vec::new();
    for (i, entry) in fs::read_dir(mount.at("d")).expect("opened").enumerate() {
        names.push(entry.expect("an entry").file_name().into_string().expect("text"));
        if i % 300 == 150 {
            bucket.put_keys([format!("d/{:05}-new", i / 2)]);
        }
    }
    let distinct: BTreeSet<&String> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "doubles");
    let missing: Vec<_> = keys.iter().filter(|key| !distinct.contains(&key[2..].to_owned())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn many_streams_of_one_directory_go_on_side_by_side() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let keys: Vec<String> = (0..1500).map(|i| format!("d/{i:05}")).collect();
    bucket.put_keys(&keys);
    let mount = Mount::new(&backend, &bucket);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(mount.names("d").len(), 1500));
        }
    });
}
