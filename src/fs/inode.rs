//! The inode table: which numbers the kernel holds, and what each of them stands for.
//!
//! Invariants: a number is never reused; a name leads to at most one number; a file that is open keeps the
//! version it was opened with, so a new version of an open file gets a new number (the kernel's page cache is
//! per inode); an inode lives as long as the kernel, a handle or a child holds it; a pipe or a socket, which may have
//! several names, as long as it has one.
//!
//! Lock rank: `InodeTable` is one short mutex, before the directory cache, never held across an await.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::{HashMap, HashTable};

use tokio::time::Instant;

use crate::attrs::Attrs;
use crate::meta::{Entry, FileVersion, Kind, NodeKind};
use crate::store::ObjectHeaders;
use crate::writeback::Draft;

/// The number of the mount's root.
pub const ROOT: u64 = 1;

/// A file's content as its inode shows it.
#[derive(Debug, Clone)]
pub struct FileNode {
    pub version: FileVersion,
    /// A symbolic link: the object holds its target.
    pub is_link: bool,
    /// Bytes of `version` were handed to a reader, and may be in the kernel's pages.
    pub handed_out: bool,
    /// A write failed: the kernel may have pages with bytes that are nowhere else.
    pub has_lost_bytes: bool,
}

/// What few inodes have.
#[derive(Default)]
pub struct Extra {
    /// From user metadata, or set here.
    pub attrs: Attrs,
    /// Nanoseconds since the epoch: times that the bucket does not keep.
    pub atime: Option<i64>,
    pub ctime: Option<i64>,
    /// The content, while it is being changed here.
    pub draft: Option<Arc<Draft>>,
    /// The headers of the version that was uploaded here, and when that was.
    pub headers: Option<(Arc<ObjectHeaders>, Instant)>,
    /// Names of a pipe or a socket beside the first.
    pub other_names: u32,
}

#[derive(Debug, Clone)]
pub enum Node {
    Directory,
    File(FileNode),
    /// A pipe or a socket, of this mount alone.
    Special(NodeKind),
}

pub struct Inode {
    parent: u64,
    name: Box<[u8]>,
    component: Option<Box<str>>,
    pub node: Node,
    extra: Option<Box<Extra>>,
    lookups: u64,
    opens: u32,
    children: u32,
    /// No longer reached by its name.
    detached: bool,
    /// Its name was removed here.
    removed: bool,
    /// Its name is to be asked for again before it is opened.
    pub stale: bool,
}

/// The number of a directory, and a name there.
type Name = (u64, Box<[u8]>);

/// See the module.
pub struct InodeTable {
    inodes: HashMap<u64, Box<Inode>>,
    by_name: HashTable<u64>,
    /// Names of pipes and sockets beside the first, as parent and name. There are few.
    other_names: HashMap<u64, Vec<Name>>,
    hasher: RandomState,
    next: u64,
}

impl InodeTable {
    #[must_use]
    pub fn new() -> Self {
        let root = Inode {
            parent: ROOT,
            name: Box::default(),
            component: None,
            node: Node::Directory,
            extra: None,
            lookups: 1,
            opens: 0,
            children: 0,
            detached: false,
            removed: false,
            stale: false,
        };
        let mut inodes = HashMap::new();
        inodes.insert(ROOT, Box::new(root));
        Self {
            inodes,
            by_name: HashTable::new(),
            other_names: HashMap::new(),
            hasher: RandomState::new(),
            next: ROOT + 1,
        }
    }

    #[must_use]
    pub fn get(&self, ino: u64) -> Option<&Inode> {
        self.inodes.get(&ino).map(|inode| &**inode)
    }

    pub fn get_mut(&mut self, ino: u64) -> Option<&mut Inode> {
        self.inodes.get_mut(&ino).map(|inode| &mut **inode)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Inode)> {
        self.inodes.iter().map(|(&ino, inode)| (ino, &**inode))
    }

    /// Inodes held.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inodes.len()
    }

    /// The key of an inode, relative to the root; a directory's ends in `/`, the root's is empty.
    #[must_use]
    pub fn key(&self, ino: u64) -> Option<String> {
        let mut components = Vec::new();
        let mut at = ino;
        while at != ROOT {
            let inode = self.inodes.get(&at)?;
            components.push(inode.component());
            at = inode.parent;
        }
        components.reverse();
        let mut key = components.join("/");
        if ino != ROOT && matches!(self.inodes.get(&ino)?.node, Node::Directory) {
            key.push('/');
        }
        Some(key)
    }

    /// The number under which an entry is known from now on, made if need be.
    pub fn upsert(&mut self, parent: u64, entry: &Entry) -> u64 {
        if let Some(ino) = self.named(parent, &entry.name) {
            if self.inodes.get_mut(&ino).is_some_and(|inode| inode.update(entry)) {
                return ino;
            }
            self.unname(ino, parent, &entry.name);
        }
        let ino = self.next;
        self.next += 1;
        let inode = Inode {
            parent,
            name: entry.name.clone(),
            component: entry.component.clone(),
            node: match &entry.kind {
                Kind::Directory => Node::Directory,
                Kind::File(version) => Node::File(FileNode::listed(version.clone(), false)),
                Kind::Link(version) => Node::File(FileNode::listed(version.clone(), true)),
                Kind::Node(kind) => Node::Special(*kind),
            },
            extra: None,
            lookups: 0,
            opens: 0,
            children: 0,
            detached: false,
            removed: false,
            stale: false,
        };
        self.inodes.insert(ino, Box::new(inode));
        let hash = self.hash(parent, &entry.name);
        let (inodes, hasher) = (&self.inodes, &self.hasher);
        self.by_name.insert_unique(hash, ino, |other| {
            inodes.get(other).map_or(0, |inode| hasher.hash_one((inode.parent, &inode.name[..])))
        });
        if let Some(parent) = self.inodes.get_mut(&parent) {
            parent.children += 1;
        }
        ino
    }

    /// The number of a name, if there is one.
    #[must_use]
    pub fn named(&self, parent: u64, name: &[u8]) -> Option<u64> {
        let is_it = |ino: &u64| {
            self.inodes.get(ino).is_some_and(|inode| inode.parent == parent && *inode.name == *name)
        };
        let first = self.by_name.find(self.hash(parent, name), is_it).copied();
        if first.is_some() || self.other_names.is_empty() {
            return first;
        }
        let has = |names: &[Name]| names.iter().any(|(at, other)| *at == parent && **other == *name);
        self.other_names.iter().find(|(_, names)| has(names)).map(|(ino, _)| *ino)
    }

    /// Gives a pipe or a socket one more name.
    pub fn link(&mut self, ino: u64, parent: u64, name: &[u8]) {
        self.other_names.entry(ino).or_default().push((parent, name.into()));
        self.count_names(ino);
        if let Some(above) = self.inodes.get_mut(&parent) {
            above.children += 1;
        }
    }

    /// One name of an inode stands for something else, or nothing. A pipe or a socket may have another one.
    pub fn unname(&mut self, ino: u64, parent: u64, name: &[u8]) {
        let Some(inode) = self.inodes.get(&ino) else { return };
        if inode.node_kind().is_none() {
            return self.detach(ino);
        }
        let is_first = inode.parent == parent && *inode.name == *name;
        let Some(names) = self.other_names.get_mut(&ino) else { return self.remove(ino) };
        let at = names.iter().position(|(at, other)| is_first || (*at == parent && **other == *name));
        let Some(at) = at else { return };
        let (other_parent, other) = names.swap_remove(at);
        if names.is_empty() {
            self.other_names.remove(&ino);
        }
        self.count_names(ino);
        if is_first {
            let component =
                crate::name::to_component(&other).filter(|component| component.as_bytes() != &*other);
            self.rename(ino, other_parent, &other, component.map(Into::into));
        }
        if let Some(above) = self.inodes.get_mut(&other_parent) {
            above.children -= 1;
        }
        self.collect(other_parent);
    }

    /// Gives one name of a pipe or a socket up for another.
    pub fn rename_one(
        &mut self,
        ino: u64,
        (parent, name): (u64, &[u8]),
        (new_parent, new_name, component): (u64, &[u8], Option<Box<str>>),
    ) {
        let is_first = |inode: &Inode| inode.parent == parent && *inode.name == *name;
        if self.inodes.get(&ino).is_some_and(|inode| is_first(inode)) {
            return self.rename(ino, new_parent, new_name, component);
        }
        self.link(ino, new_parent, new_name);
        self.unname(ino, parent, name);
    }

    fn count_names(&mut self, ino: u64) {
        let count = self.other_names.get(&ino).map_or(0, Vec::len);
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.extra_mut().other_names = u32::try_from(count).unwrap_or(u32::MAX);
        }
    }

    /// The directory that a prefix stands for, if its number is known.
    #[must_use]
    pub fn find(&self, prefix: &str) -> Option<u64> {
        prefix
            .split_terminator('/')
            .try_fold(ROOT, |parent, component| self.named(parent, &crate::name::from_component(component)))
    }

    /// Takes the draft off an inode: its content is in the bucket, or given up.
    pub fn end_draft(&mut self, ino: u64, draft: &Arc<Draft>) {
        if let Some(inode) = self.inodes.get_mut(&ino)
            && inode.draft().is_some_and(|held| Arc::ptr_eq(held, draft))
        {
            inode.extra_mut().draft = None;
            self.collect(ino);
        }
    }

    /// Takes the name off an inode: the name is gone or stands for something else.
    pub fn detach(&mut self, ino: u64) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        let is_kept = inode.node_kind().is_some() && !inode.removed;
        if inode.detached || is_kept || ino == ROOT {
            return;
        }
        inode.detached = true;
        let hash = self.hasher.hash_one((inode.parent, &inode.name[..]));
        if let Ok(slot) = self.by_name.find_entry(hash, |other| *other == ino) {
            slot.remove();
        }
        self.collect(ino);
    }

    /// The name of an inode was removed here.
    pub fn remove(&mut self, ino: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.removed = true;
        }
        self.detach(ino);
    }

    /// Gives an inode another name. What had the name before must have lost it.
    pub fn rename(&mut self, ino: u64, parent: u64, name: &[u8], component: Option<Box<str>>) {
        let Some(inode) = self.inodes.get(&ino) else { return };
        let (old_parent, was_detached) = (inode.parent, inode.detached);
        if !was_detached {
            let hash = self.hash(old_parent, &inode.name);
            if let Ok(slot) = self.by_name.find_entry(hash, |other| *other == ino) {
                slot.remove();
            }
        }
        // First the new one: the old parent may be held by this child alone.
        if let Some(above) = self.inodes.get_mut(&parent) {
            above.children += 1;
        }
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.parent = parent;
            inode.name = name.into();
            inode.component = component;
            inode.detached = false;
        }
        let hash = self.hash(parent, name);
        let (inodes, hasher) = (&self.inodes, &self.hasher);
        self.by_name.insert_unique(hash, ino, |other| {
            inodes.get(other).map_or(0, |inode| hasher.hash_one((inode.parent, &inode.name[..])))
        });
        if let Some(above) = self.inodes.get_mut(&old_parent) {
            above.children -= 1;
        }
        self.collect(old_parent);
    }

    /// Whether an inode lies below another one, or is that one.
    #[must_use]
    pub fn is_below(&self, ino: u64, above: u64) -> bool {
        let mut at = ino;
        loop {
            if at == above {
                return true;
            }
            match self.inodes.get(&at) {
                Some(inode) if at != ROOT => at = inode.parent,
                _ => return false,
            }
        }
    }

    /// The kernel holds the inode once more.
    pub fn remember(&mut self, ino: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lookups += 1;
        }
    }

    pub fn forget(&mut self, ino: u64, lookups: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.lookups = inode.lookups.saturating_sub(lookups);
            self.collect(ino);
        }
    }

    pub fn opened(&mut self, ino: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.opens += 1;
        }
    }

    pub fn closed(&mut self, ino: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.opens = inode.opens.saturating_sub(1);
            self.collect(ino);
        }
    }

    /// Drops inodes that nothing holds, upwards from this one.
    fn collect(&mut self, mut ino: u64) {
        while let Some(inode) = self.inodes.get(&ino) {
            let is_held = inode.lookups > 0 || inode.opens > 0 || inode.children > 0;
            // What is not in the bucket yet has no other place.
            let is_here_alone = inode.draft().is_some() || (inode.node_kind().is_some() && !inode.detached);
            if ino == ROOT || is_held || is_here_alone {
                return;
            }
            let parent = inode.parent;
            if !inode.detached {
                let hash = self.hash(parent, &inode.name);
                if let Ok(slot) = self.by_name.find_entry(hash, |other| *other == ino) {
                    slot.remove();
                }
            }
            self.inodes.remove(&ino);
            if let Some(above) = self.inodes.get_mut(&parent) {
                above.children -= 1;
            }
            ino = parent;
        }
    }

    fn hash(&self, parent: u64, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent, name))
    }
}

impl Default for InodeTable {
    fn default() -> Self {
        Self::new()
    }
}

impl Inode {
    #[must_use]
    pub fn parent(&self) -> u64 {
        self.parent
    }

    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    #[must_use]
    pub fn opens(&self) -> u32 {
        self.opens
    }

    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.detached
    }

    #[must_use]
    pub fn file(&self) -> Option<&FileNode> {
        match &self.node {
            Node::File(file) => Some(file),
            Node::Directory | Node::Special(_) => None,
        }
    }

    /// Which kind of node of this mount alone it is.
    #[must_use]
    pub fn node_kind(&self) -> Option<NodeKind> {
        match &self.node {
            Node::Special(kind) => Some(*kind),
            _ => None,
        }
    }

    pub fn file_mut(&mut self) -> Option<&mut FileNode> {
        match &mut self.node {
            Node::File(file) => Some(file),
            Node::Directory | Node::Special(_) => None,
        }
    }

    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    #[must_use]
    pub fn extra(&self) -> Option<&Extra> {
        self.extra.as_deref()
    }

    pub fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    #[must_use]
    pub fn draft(&self) -> Option<&Arc<Draft>> {
        self.extra.as_ref()?.draft.as_ref()
    }

    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.node, Node::Directory)
    }

    pub fn component(&self) -> &str {
        match &self.component {
            Some(component) => component,
            None => std::str::from_utf8(&self.name).unwrap_or_default(),
        }
    }

    /// Takes over what an entry says now. `false`: this inode must stay what it is, the entry needs another.
    fn update(&mut self, entry: &Entry) -> bool {
        if let Node::Special(kind) = &self.node {
            // One of its names.
            return entry.kind == Kind::Node(*kind);
        }
        if self.component != entry.component {
            return false;
        }
        match (&mut self.node, &entry.kind) {
            (Node::Directory, Kind::Directory) => {}
            (Node::File(file), Kind::File(version) | Kind::Link(version))
                if file.is_link == matches!(entry.kind, Kind::Link(_)) =>
            {
                if self.extra.as_ref().is_some_and(|extra| extra.draft.is_some()) {
                    // What is being changed here is compared with the server's when it is uploaded.
                } else if file.is_same(version) {
                    // What the listing says is not unlearned.
                    if version.modified.is_listed || !file.version.modified.is_listed {
                        file.version = version.clone();
                    }
                } else if self.opens > 0 || (self.lookups > 0 && file.version.size != version.size) {
                    // Whoever opens the number now reads up to the size that the kernel knows of it, until the
                    // answer with the new one is there.
                    return false;
                } else {
                    *file = FileNode::listed(version.clone(), file.is_link);
                    self.extra = None;
                }
            }
            _ => return false,
        }
        self.stale = false;
        true
    }
}

impl FileNode {
    fn listed(version: FileVersion, is_link: bool) -> Self {
        Self { version, is_link, handed_out: false, has_lost_bytes: false }
    }

    fn is_same(&self, listed: &FileVersion) -> bool {
        if self.version.modified.is_listed && listed.modified.is_listed {
            self.version == *listed
        } else {
            self.version.etag == listed.etag && self.version.size == listed.size
        }
    }
}

#[cfg(test)]
mod tests;
