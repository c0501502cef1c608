//! A mount, its bucket and the model beside them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use tempfile::TempDir;

use super::tree::{File, Node, Tree};
use super::{Bytes, Op, SLOTS};
use crate::common::{Backend, Bucket, Mount, MountOptions, body, eventually};

const PLACEHOLDER: &str = ".emptyFolderPlaceholder";

/// See the module. The server outlives the case: one for each thread.
pub struct World {
    // Before the bucket, which it uses.
    mount: Option<Mount>,
    bucket: Bucket<'static>,
    /// Spool and memory, which outlive a mount.
    state: TempDir,
    write_back: bool,
    tree: Tree,
    open: [Option<(fs::File, File)>; SLOTS],
}

fn backend() -> &'static Backend {
    thread_local!(static BACKEND: &'static Backend = Box::leak(Box::new(Backend::start())));
    BACKEND.with(|backend| *backend)
}

fn errno<T>(result: io::Result<T>) -> Result<T, Errno> {
    result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

/// The key of a path, as another client sees it.
fn key(path: &str) -> String {
    path.replace('~', "!7E")
}

impl World {
    pub fn new(write_back: bool) -> Self {
        let state = tempfile::tempdir().expect("a directory");
        let bucket = backend().bucket();
        let mut world =
            Self { mount: None, bucket, state, write_back, tree: Tree::default(), open: Default::default() };
        world.start();
        world
    }

    fn start(&mut self) {
        let how = if self.write_back { "--write-back --write-back-delay 100ms" } else { "" };
        // Nothing is believed, so that what another client did shows at the next step.
        let mount = MountOptions::new(backend(), &self.bucket.name)
            .args("--metadata-ttl 0s --negative-ttl 0s")
            .args(how)
            .env("XDG_STATE_HOME", self.state.path().to_str().expect("a path"))
            .watchdog(Duration::from_mins(10))
            .start();
        self.mount = Some(mount);
    }

    pub fn end(mut self) {
        self.remount();
        self.compare("the end");
    }

    fn at(&self, path: &str) -> PathBuf {
        self.mount.as_ref().expect("it is mounted").at(path)
    }

    /// Does the same here and there, and compares what became of it.
    pub fn step(&mut self, op: &Op) {
        let (wanted, got) = match op {
            Op::Remount => {
                self.remount();
                (Ok(()), Ok(()))
            }
            Op::Crash => {
                self.crash();
                (Ok(()), Ok(()))
            }
            Op::Put(path, bytes) => {
                self.put(path, *bytes);
                (Ok(()), Ok(()))
            }
            Op::Delete(path) => {
                self.delete(path);
                (Ok(()), Ok(()))
            }
            Op::Open(..) | Op::Write(..) | Op::Cut(..) | Op::Fsync(..) | Op::Close(..) => self.on_open(op),
            _ => self.on_name(op),
        };
        assert_eq!(got, wanted, "{op:?}");
        self.compare(&format!("{op:?}"));
    }

    fn on_name(&mut self, op: &Op) -> (Result<(), Errno>, Result<(), Errno>) {
        let to = |path: &str| self.at(path);
        let got = match op {
            Op::Create(path, bytes) => fs::write(to(path), content(*bytes)),
            Op::WriteAt(path, offset, bytes) => OpenOptions::new()
                .write(true)
                .open(to(path))
                .and_then(|file| file.write_all_at(&content(*bytes), *offset as u64)),
            Op::Append(path, bytes) => OpenOptions::new()
                .append(true)
                .open(to(path))
                .and_then(|mut file| file.write_all(&content(*bytes))),
            Op::Truncate(path, size) => {
                nix::unistd::truncate(&to(path), i64::try_from(*size).expect("a size")).map_err(Into::into)
            }
            Op::Unlink(path) => fs::remove_file(to(path)),
            Op::Mkdir(path) => fs::create_dir(to(path)),
            Op::Rmdir(path) => fs::remove_dir(to(path)),
            Op::Rename(from, target) => fs::rename(to(from), to(target)),
            Op::Symlink(path) => std::os::unix::fs::symlink("nowhere/at all", to(path)),
            Op::Chmod(path, mode) => fs::set_permissions(to(path), fs::Permissions::from_mode(*mode)),
            Op::Utimens(path, seconds) => set_mtime(&to(path), *seconds),
            _ => unreachable!("{op:?}"),
        };
        (self.on_model(op), errno(got))
    }

    fn on_model(&mut self, op: &Op) -> Result<(), Errno> {
        let tree = &mut self.tree;
        match op {
            Op::Create(path, bytes) => tree.create(path).map(|file| {
                let mut file = file.borrow_mut();
                file.truncate(0);
                file.write(0, &content(*bytes));
                file.settle();
            }),
            Op::WriteAt(path, offset, bytes) => tree.file(path).map(|file| {
                file.borrow_mut().write(*offset, &content(*bytes));
                file.borrow_mut().settle();
            }),
            Op::Append(path, bytes) => tree.file(path).map(|file| {
                let mut file = file.borrow_mut();
                let end = file.data.len();
                file.write(end, &content(*bytes));
                file.settle();
            }),
            Op::Truncate(path, size) => tree.file(path).map(|file| {
                file.borrow_mut().truncate(*size);
                // Beside a writer, its close saves it.
                if Rc::strong_count(&file) == 2 {
                    file.borrow_mut().settle();
                }
            }),
            Op::Unlink(path) => tree.unlink(path),
            Op::Mkdir(path) => tree.mkdir(path),
            Op::Rmdir(path) => tree.rmdir(path),
            Op::Rename(from, to) => tree.rename(from, to),
            Op::Symlink(path) => tree.symlink(path, "nowhere/at all"),
            Op::Chmod(path, wanted) => tree.chmod(path, *wanted),
            Op::Utimens(path, seconds) => match tree.file(path) {
                Ok(file) => {
                    file.borrow_mut().mtime = Some(*seconds);
                    Ok(())
                }
                // A folder's time is not kept.
                Err(Errno::EISDIR) => {
                    tree.keep(path);
                    Ok(())
                }
                Err(errno) => Err(errno),
            },
            _ => unreachable!("{op:?}"),
        }
    }

    fn on_open(&mut self, op: &Op) -> (Result<(), Errno>, Result<(), Errno>) {
        if let Op::Open(slot, path) = op {
            if self.open[*slot].is_some() {
                return (Ok(()), Ok(()));
            }
            let wanted = self.tree.create(path);
            let got =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.at(path));
            let got = errno(got);
            return match (wanted, got) {
                (Ok(file), Ok(opened)) => {
                    self.open[*slot] = Some((opened, file));
                    (Ok(()), Ok(()))
                }
                (wanted, got) => (wanted.map(drop), got.map(drop)),
            };
        }
        let (Op::Write(slot, ..) | Op::Cut(slot, _) | Op::Fsync(slot) | Op::Close(slot)) = op else {
            unreachable!("{op:?}")
        };
        let Some((opened, file)) = &self.open[*slot] else { return (Ok(()), Ok(())) };
        let got = match op {
            Op::Write(_, offset, bytes) => {
                file.borrow_mut().write(*offset, &content(*bytes));
                opened.write_all_at(&content(*bytes), *offset as u64)
            }
            Op::Cut(_, size) => {
                file.borrow_mut().truncate(*size);
                opened.set_len(*size as u64)
            }
            Op::Fsync(_) => {
                file.borrow_mut().settle();
                opened.sync_all()
            }
            _ => {
                self.close(*slot);
                Ok(())
            }
        };
        (Ok(()), errno(got))
    }

    fn close(&mut self, slot: usize) {
        if let Some((opened, file)) = self.open[slot].take() {
            file.borrow_mut().settle();
            nix::unistd::close(opened).expect("what was written is in the bucket");
        }
    }

    fn close_all(&mut self) {
        (0..SLOTS).for_each(|slot| self.close(slot));
    }

    fn is_open(&self, file: &File) -> bool {
        self.open.iter().flatten().any(|(_, other)| Rc::ptr_eq(file, other))
    }

    /// Another client changes only what is not open, and what has reached the bucket.
    fn may_change(&mut self, path: &str) -> bool {
        if matches!(self.tree.get(path), Some(Node::File(file)) if self.is_open(file)) {
            return false;
        }
        self.settle();
        true
    }

    fn put(&mut self, path: &str, bytes: Bytes) {
        // The same bytes have the same ETag: before the first listing of ours, nothing tells theirs from it.
        if matches!(self.tree.get(path), Some(Node::File(file)) if file.borrow().data == content(bytes)) {
            return;
        }
        if self.may_change(path) && self.tree.put(path, &content(bytes)) {
            self.bucket.put(&key(path), content(bytes));
        }
    }

    fn delete(&mut self, path: &str) {
        if matches!(self.tree.get(path), Some(Node::File(_))) && self.may_change(path) {
            self.tree.delete(path);
            self.bucket.delete(&key(path));
        }
    }

    /// Waits until the bucket holds what was closed, with its attributes.
    fn settle(&self) {
        for (path, node) in &self.tree.0 {
            if let Node::File(file) = node
                && !self.is_open(file)
            {
                let opened = fs::File::open(self.at(path)).expect("it is there");
                opened.sync_all().expect("it is uploaded");
            }
        }
        eventually("the bucket to hold what the mount shows", || {
            (self.at_server() == self.wanted_at_server() && self.left_folders().is_empty()).then_some(())
        });
    }

    /// Placeholders of folders that were removed.
    fn left_folders(&self) -> Vec<String> {
        let is_folder = |node: &Node| matches!(node, Node::Directory { .. });
        let folders = self.tree.0.iter().filter(|(_, node)| is_folder(node));
        let wanted: Vec<String> = folders.map(|(path, _)| format!("{}/{PLACEHOLDER}", key(path))).collect();
        let keys = self.bucket.keys().into_iter();
        keys.filter(|key| key.ends_with(PLACEHOLDER) && !wanted.contains(key)).collect()
    }

    fn remount(&mut self) {
        self.close_all();
        self.mount.take().expect("it is mounted").stop();
        self.start();
    }

    fn crash(&mut self) {
        if self.write_back {
            self.close_all();
        }
        let mut mount = self.mount.take().expect("it is mounted");
        mount.signal(Signal::SIGKILL);
        mount.wait();
        let torn: Vec<File> = self.open.iter_mut().filter_map(Option::take).map(|(_, file)| file).collect();
        drop(mount);
        self.start();
        let paths: Vec<String> = self.tree.0.keys().cloned().collect();
        for path in paths {
            self.adopt(&path, &torn);
        }
    }

    /// After a crash: what was open is what it was at some moment since it was last safe.
    fn adopt(&mut self, path: &str, torn: &[File]) {
        let at = self.at(path);
        match self.tree.0.get_mut(path) {
            Some(Node::File(file)) if torn.iter().any(|other| Rc::ptr_eq(file, other)) => {
                let found = fs::read(&at).ok();
                let mut body = file.borrow_mut();
                let now = Some(body.data.clone());
                assert!(body.durable.contains(&found) || found == now, "{path}: not what it was at any time");
                let Some(found) = found else {
                    drop(body);
                    self.tree.delete(path);
                    return;
                };
                body.mode = fs::metadata(&at).expect("it is there").mode() & 0o7777;
                body.mtime = None;
                body.data = found;
                body.settle();
            }
            // A crash may lose the memory of a second; the object has it, but an empty file is not read.
            Some(Node::File(file)) if file.borrow().data.is_empty() => {
                let mut body = file.borrow_mut();
                body.mode = fs::metadata(&at).expect("it is there").mode() & 0o7777;
                body.mtime = None;
            }
            Some(Node::Directory { mode, .. }) => {
                *mode = fs::metadata(&at).expect("it is there").mode() & 0o7777;
            }
            _ => {}
        }
    }

    fn compare(&self, after: &str) {
        self.compare_folder("", after);
        for (opened, file) in self.open.iter().flatten() {
            let file = file.borrow();
            let len = opened.metadata().expect("fstat").len();
            assert_eq!(len, file.data.len() as u64, "size of an open file after {after}");
            let mut data = vec![0; file.data.len()];
            opened
                .read_exact_at(&mut data, 0)
                .unwrap_or_else(|error| panic!("open file: {error} after {after}"));
            assert!(data == file.data, "bytes of an open file after {after}");
        }
        if self.write_back {
            return;
        }
        let (found, wanted) = (self.at_server(), self.wanted_at_server());
        assert!(found == wanted, "at the server after {after}: {} but not {}", brief(&found), brief(&wanted));
    }

    fn compare_folder(&self, folder: &str, after: &str) {
        let mut names: Vec<String> = fs::read_dir(self.at(folder))
            .and_then(|entries| entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect())
            .unwrap_or_else(|error: io::Error| panic!("{folder}: {error} after {after}"));
        names.sort();
        let children = self.tree.children(folder);
        let wanted: Vec<&str> =
            children.iter().map(|path| path.rsplit('/').next().unwrap_or_default()).collect();
        assert_eq!(names, wanted, "names in {folder:?} after {after}");
        for path in children {
            let at = self.at(path);
            let mode = || fs::symlink_metadata(&at).expect("lstat").mode() & 0o7777;
            match &self.tree.0[path] {
                Node::Directory { mode: wanted, .. } => {
                    self.compare_folder(path, after);
                    assert_eq!(
                        format!("{:o}", mode()),
                        format!("{wanted:o}"),
                        "mode of {path} after {after}"
                    );
                }
                Node::Link(target) => {
                    assert_eq!(
                        fs::read_link(&at).expect("a link"),
                        Path::new(target),
                        "{path} after {after}"
                    );
                }
                Node::File(file) => {
                    let file = file.borrow();
                    let data = fs::read(&at).unwrap_or_else(|error| panic!("{path}: {error} after {after}"));
                    assert!(data == file.data, "bytes of {path} after {after}");
                    assert_eq!(
                        format!("{:o}", mode()),
                        format!("{:o}", file.mode),
                        "mode of {path} after {after}"
                    );
                    let mtime = fs::metadata(&at).expect("stat").mtime();
                    assert_eq!(mtime, file.mtime.unwrap_or(mtime), "time of {path} after {after}");
                }
            }
        }
    }

    /// Keys and bytes, without those of files that are open.
    fn at_server(&self) -> Vec<(String, Vec<u8>)> {
        let busy: Vec<String> = self.open_keys();
        let keys = self.bucket.keys().into_iter().filter(|key| !key.ends_with(PLACEHOLDER));
        keys.filter(|key| !busy.contains(key))
            .map(|key| {
                let bytes = self.bucket.bytes(&key).unwrap_or_default();
                (key, bytes)
            })
            .collect()
    }

    fn open_keys(&self) -> Vec<String> {
        let is_open = |node: &Node| matches!(node, Node::File(file) if self.is_open(file));
        self.tree.0.iter().filter(|(_, node)| is_open(node)).map(|(path, _)| key(path)).collect()
    }

    fn wanted_at_server(&self) -> Vec<(String, Vec<u8>)> {
        let object = |(path, node): (&String, &Node)| match node {
            Node::File(file) if !self.is_open(file) => Some((key(path), file.borrow().data.clone())),
            Node::Link(target) => Some((format!("{}.rclonelink", key(path)), target.clone().into_bytes())),
            _ => None,
        };
        let mut objects: Vec<_> = self.tree.0.iter().filter_map(object).collect();
        objects.sort();
        objects
    }
}

fn brief(objects: &[(String, Vec<u8>)]) -> String {
    let each: Vec<String> =
        objects.iter().map(|(key, bytes)| format!("{key} ({} bytes)", bytes.len())).collect();
    each.join(", ")
}

fn content(bytes: Bytes) -> Vec<u8> {
    body(bytes.0, bytes.1)
}

fn set_mtime(path: &Path, seconds: i64) -> io::Result<()> {
    let time = TimeSpec::new(seconds, 0);
    utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::FollowSymlink).map_err(Into::into)
}
