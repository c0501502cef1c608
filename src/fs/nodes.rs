//! Named pipes and sockets: nodes of this mount alone. The kernel carries what goes through them; here are their names.
//!
//! No object stands for a node, and no request is made for one. Its entry lies over the listing until the node is
//! removed, so that it hides an object of the same name that another client makes meanwhile. What was removed here
//! before the node took its name stays gone beneath it. Its inode lives as long as it has a name. A node may have several
//! names: ssh makes its control socket under one and links it to another.

use super::inode::{Inode, InodeTable};
use super::rename::End;
use super::{Attributes, Changes, Creation, ErrorKind, Fs, FsError};
use crate::attrs::Attrs;
use crate::meta::{Entry, Kind, NodeKind};
use crate::writeback::nanos_now;

impl Fs {
    /// Makes a pipe or a socket; the kernel then holds its inode.
    ///
    /// # Errors
    /// `Exists`, `ReadOnly`, `NotPermitted` beside the buckets of `mount --all`.
    pub async fn make_node(
        &self,
        parent: u64,
        name: &[u8],
        kind: NodeKind,
        creation: Creation,
    ) -> Result<Attributes, FsError> {
        let component = self.new_component(name)?;
        let ([prefix], _change) = self.at_rest([parent]).await?;
        self.may_create(&prefix)?;
        if self.meta.lookup(&prefix, name).await?.entry.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        let attrs = self.attrs_of_new(parent, creation, false);
        let entry = node_entry(name, &component, kind);
        let mut inodes = self.inodes.lock();
        self.meta.changed(&prefix, name, Some(entry.clone()), true);
        let ino = inodes.upsert(parent, &entry);
        inodes.remember(ino);
        if let Some(inode) = inodes.get_mut(ino) {
            let extra = inode.extra_mut();
            (extra.attrs, extra.ctime, extra.atime) = (attrs, attrs.mtime, attrs.mtime);
        }
        self.changed_directory(&mut inodes, parent);
        let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
        Ok(self.attributes(ino, inode))
    }

    /// Gives a pipe or a socket another name.
    ///
    /// # Errors
    /// `NotPermitted` for a file: an object has one key.
    pub async fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Attributes, FsError> {
        let kind = self.inodes.lock().get(ino).ok_or(ErrorKind::Stale)?.node_kind();
        let kind = kind.ok_or(ErrorKind::NotPermitted)?;
        let component = self.new_component(name)?;
        let ([prefix], _change) = self.at_rest([parent]).await?;
        self.may_create(&prefix)?;
        if self.meta.lookup(&prefix, name).await?.entry.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        let mut inodes = self.inodes.lock();
        if inodes.get(ino).is_none_or(Inode::is_removed) {
            return Err(ErrorKind::NotFound.into());
        }
        self.meta.changed(&prefix, name, Some(node_entry(name, &component, kind)), true);
        inodes.link(ino, parent, name);
        inodes.remember(ino);
        if let Some(inode) = inodes.get_mut(ino) {
            inode.extra_mut().ctime = Some(nanos_now());
        }
        self.changed_directory(&mut inodes, parent);
        let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
        Ok(self.attributes(ino, inode))
    }

    /// Takes a name off a pipe or a socket.
    pub(super) fn remove_node(&self, parent: u64, prefix: &str, name: &[u8]) {
        let mut inodes = self.inodes.lock();
        self.meta.node_gone(prefix, name);
        if let Some(ino) = inodes.named(parent, name) {
            take_name(&mut inodes, ino, parent, name);
        }
        self.changed_directory(&mut inodes, parent);
    }

    /// Renames a pipe or a socket, over what has the new name.
    pub(super) async fn rename_node(
        &self,
        from: &End<'_>,
        to: &End<'_>,
        kind: NodeKind,
        component: &str,
        replaced: Option<&Entry>,
    ) -> Result<(), FsError> {
        let ino = self.inodes.lock().named(from.parent, from.name).ok_or(ErrorKind::NotFound)?;
        match replaced.map(|replaced| (replaced, &replaced.kind)) {
            None => {}
            Some((_, Kind::Node(_))) => {
                let mut inodes = self.inodes.lock();
                if let Some(old) = inodes.named(to.parent, to.name) {
                    // Two names of one node stay as they are, says POSIX.
                    if old == ino {
                        return Ok(());
                    }
                    take_name(&mut inodes, old, to.parent, to.name);
                }
            }
            Some((file, _)) => self.remove_file(to.parent, &to.prefix, to.name, file).await?,
        }
        let mut inodes = self.inodes.lock();
        self.meta.node_gone(&from.prefix, from.name);
        let moved = node_entry(to.name, component, kind);
        self.meta.changed(&to.prefix, to.name, Some(moved.clone()), true);
        inodes.rename_one(ino, (from.parent, from.name), (to.parent, to.name, moved.component));
        if let Some(inode) = inodes.get_mut(ino) {
            inode.extra_mut().ctime = Some(nanos_now());
        }
        self.changed_directory(&mut inodes, from.parent);
        self.changed_directory(&mut inodes, to.parent);
        Ok(())
    }

    /// Changes mode, owner or times of a pipe or a socket.
    pub(super) fn set_node(&self, ino: u64, changes: Changes) -> Result<Attributes, FsError> {
        if changes.size.is_some() {
            return Err(ErrorKind::Invalid.into());
        }
        let mut inodes = self.inodes.lock();
        let inode = inodes.get_mut(ino).ok_or(ErrorKind::Stale)?;
        let extra = inode.extra_mut();
        let attrs: Attrs = changes.attrs.over(&extra.attrs);
        (extra.attrs, extra.ctime) = (attrs, Some(nanos_now()));
        extra.atime = changes.atime.or(extra.atime);
        Ok(self.attributes(ino, inode))
    }
}

/// Takes one name off an inode; its other names show that by the time of change.
fn take_name(inodes: &mut InodeTable, ino: u64, parent: u64, name: &[u8]) {
    if let Some(inode) = inodes.get_mut(ino) {
        inode.extra_mut().ctime = Some(nanos_now());
    }
    inodes.unname(ino, parent, name);
}

fn node_entry(name: &[u8], component: &str, kind: NodeKind) -> Entry {
    let component = (component.as_bytes() != name).then(|| component.into());
    Entry { name: name.into(), component, kind: Kind::Node(kind) }
}
