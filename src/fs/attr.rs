//! What stat shows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Fs;
use super::inode::{Inode, InodeTable, Node, ROOT};
use crate::meta::NodeKind;

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Directory,
    File,
    Link,
    Pipe,
    Socket,
}

/// The attributes of an inode.
#[derive(Debug, Clone)]
pub struct Attributes {
    pub ino: u64,
    pub kind: FileKind,
    pub size: u64,
    pub atime: SystemTime,
    pub mtime: SystemTime,
    /// When it was last changed here, else by the server, which tools that compare before and after rely on.
    pub ctime: SystemTime,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// 0 once its name is gone.
    pub links: u32,
}

impl Fs {
    pub(super) fn attributes(&self, ino: u64, inode: &Inode) -> Attributes {
        let presentation = &self.presentation;
        let extra = inode.extra();
        let mut attrs = extra.map(|extra| extra.attrs).unwrap_or_default();
        let (kind, mut size, changed, default_mode) = match &inode.node {
            // Prefixes have no time of their own: a fixed one, so that tools see no change where there is none.
            Node::Directory => (FileKind::Directory, 0, self.started, presentation.dir_mode),
            Node::Special(NodeKind::Pipe) => (FileKind::Pipe, 0, self.started, presentation.file_mode),
            Node::Special(NodeKind::Socket) => (FileKind::Socket, 0, self.started, presentation.file_mode),
            Node::File(file) => {
                let changed = from_nanos(i128::from(file.version.modified.ms) * 1_000_000);
                let (kind, mode) = if file.is_link {
                    (FileKind::Link, 0o777)
                } else {
                    (FileKind::File, presentation.file_mode)
                };
                (kind, file.version.size, changed, mode)
            }
        };
        let mut written = None;
        if let Some(draft) = inode.draft() {
            let state = draft.state();
            size = state.size;
            attrs = state.attrs.over(&attrs);
            written = state.written();
        }
        let time =
            |nanos: Option<i64>, otherwise| nanos.map_or(otherwise, |nanos| from_nanos(i128::from(nanos)));
        let mtime = time(attrs.mtime, changed);
        Attributes {
            ino,
            kind,
            size,
            atime: time(extra.and_then(|extra| extra.atime), mtime),
            mtime,
            ctime: time(extra.and_then(|extra| extra.ctime).max(written), changed),
            mode: attrs.mode.unwrap_or(default_mode),
            uid: attrs.uid.unwrap_or(presentation.uid),
            gid: attrs.gid.unwrap_or(presentation.gid),
            links: u32::from(!inode.is_removed()) + extra.map_or(0, |extra| extra.other_names),
        }
    }

    /// Before the modification time moves: the access time, which is the same where it is not known, stays.
    pub(super) fn keep_atime(&self, inodes: &mut InodeTable, ino: u64) {
        let Some(shown) = inodes.get(ino).map(|inode| self.attributes(ino, inode).atime) else { return };
        if let Some(inode) = inodes.get_mut(ino) {
            inode.extra_mut().atime.get_or_insert(nanos(shown));
        }
    }

    /// Takes over times, mode and owner that became known since, unless the file is open: they must not change
    /// under a reader.
    pub(super) fn refresh_attrs(&self, inodes: &mut InodeTable, ino: u64) {
        if ino == ROOT || !self.known.has_attrs() {
            return;
        }
        let Some(key) = inodes.key(ino) else { return };
        let Some(inode) = inodes.get_mut(ino) else { return };
        // Also where nothing is taken over: what was written here is bound to its listed time by being asked for.
        let attrs = match &inode.node {
            Node::Special(_) => return,
            Node::Directory => self.known.directory(&key),
            Node::File(file) => self.known.attrs(&key, &file.version),
        };
        let has_own = inode.extra().is_some_and(|extra| extra.draft.is_some() || !extra.attrs.is_empty());
        if has_own || inode.opens() > 0 {
            return;
        }
        if let Some(attrs) = attrs {
            inode.extra_mut().attrs = attrs;
        }
    }
}

fn from_nanos(nanos: i128) -> SystemTime {
    let magnitude = u64::try_from(nanos.unsigned_abs()).unwrap_or(u64::MAX);
    let span = Duration::from_nanos(magnitude);
    if nanos < 0 { UNIX_EPOCH - span } else { UNIX_EPOCH + span }
}

/// Nanoseconds since the epoch.
pub(super) fn nanos(time: SystemTime) -> i64 {
    let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => nanos(after),
        Err(before) => -nanos(before.duration()),
    }
}

/// Milliseconds since the epoch.
pub(super) fn millis(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}
