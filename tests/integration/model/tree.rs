//! The model: what POSIX says that a tree of files is after each step.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use nix::errno::Errno;

/// A file's content, shared by its name and by what holds it open.
#[derive(Debug, Default)]
pub struct Body {
    pub data: Vec<u8>,
    pub mode: u32,
    /// Seconds, while the last change of the time was an explicit one.
    pub mtime: Option<i64>,
    /// What a crash may leave of it; `None`: nothing. One entry after a close or fsync.
    pub durable: Vec<Option<Vec<u8>>>,
}

pub type File = Rc<RefCell<Body>>;

#[derive(Clone, Debug)]
pub enum Node {
    Directory {
        mode: u32,
        /// By a placeholder: it stays when its last file goes.
        kept: bool,
    },
    File(File),
    Link(String),
}

/// See the module. Paths are relative, without slashes at their ends.
#[derive(Debug, Default)]
pub struct Tree(pub BTreeMap<String, Node>);

pub fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

impl Body {
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if !data.is_empty() && self.data.len() < end {
            self.data.resize(end, 0);
        }
        if !data.is_empty() {
            self.data[offset..end].copy_from_slice(data);
            self.mtime = None;
        }
    }

    pub fn truncate(&mut self, size: usize) {
        self.data.resize(size, 0);
        self.mtime = None;
    }

    /// It was closed or synchronized.
    pub fn settle(&mut self) {
        self.durable = vec![Some(self.data.clone())];
    }
}

impl Tree {
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    pub fn children(&self, path: &str) -> Vec<&str> {
        let is_child = |other: &&String| parent(other).unwrap_or_default() == path;
        self.0.keys().filter(is_child).map(String::as_str).collect()
    }

    fn below(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}/");
        self.0.keys().filter(|other| other.starts_with(&prefix)).cloned().collect()
    }

    /// Whether a name can be looked up here at all.
    fn reach(&self, path: &str) -> Result<(), Errno> {
        let Some(above) = parent(path) else { return Ok(()) };
        self.reach(above)?;
        match self.get(above) {
            Some(Node::Directory { .. }) => Ok(()),
            Some(Node::File(_)) => Err(Errno::ENOTDIR),
            // All links lead nowhere.
            Some(Node::Link(_)) | None => Err(Errno::ENOENT),
        }
    }

    /// A file, by a path that follows links.
    pub fn file(&self, path: &str) -> Result<File, Errno> {
        self.reach(path)?;
        match self.get(path) {
            Some(Node::File(file)) => Ok(Rc::clone(file)),
            Some(Node::Directory { .. }) => Err(Errno::EISDIR),
            Some(Node::Link(_)) | None => Err(Errno::ENOENT),
        }
    }

    pub fn create(&mut self, path: &str) -> Result<File, Errno> {
        self.reach(path)?;
        match self.get(path) {
            None => {
                let body = Body { mode: 0o644, durable: vec![None], ..Body::default() };
                let file = Rc::new(RefCell::new(body));
                self.0.insert(path.to_owned(), Node::File(Rc::clone(&file)));
                Ok(file)
            }
            Some(_) => self.file(path),
        }
    }

    fn make(&mut self, path: &str, node: Node) -> Result<(), Errno> {
        self.reach(path)?;
        if self.get(path).is_some() {
            return Err(Errno::EEXIST);
        }
        self.0.insert(path.to_owned(), node);
        Ok(())
    }

    pub fn mkdir(&mut self, path: &str) -> Result<(), Errno> {
        self.make(path, Node::Directory { mode: 0o755, kept: true })
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), Errno> {
        self.make(path, Node::Link(target.to_owned()))
    }

    /// Attributes of a folder are stored with its placeholder.
    pub fn keep(&mut self, path: &str) {
        if let Some(Node::Directory { kept, .. }) = self.0.get_mut(path) {
            *kept = true;
        }
    }

    pub fn chmod(&mut self, path: &str, wanted: u32) -> Result<(), Errno> {
        match self.file(path) {
            Ok(file) => file.borrow_mut().mode = wanted,
            Err(Errno::EISDIR) => {
                self.keep(path);
                if let Some(Node::Directory { mode, .. }) = self.0.get_mut(path) {
                    *mode = wanted;
                }
            }
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    pub fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        self.reach(path)?;
        match self.get(path) {
            None => Err(Errno::ENOENT),
            Some(Node::Directory { .. }) => Err(Errno::EISDIR),
            Some(_) => {
                self.take(path);
                Ok(())
            }
        }
    }

    pub fn rmdir(&mut self, path: &str) -> Result<(), Errno> {
        self.reach(path)?;
        match self.get(path) {
            None => return Err(Errno::ENOENT),
            Some(Node::Directory { .. }) => {}
            Some(_) => return Err(Errno::ENOTDIR),
        }
        if !self.children(path).is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.take(path);
        Ok(())
    }

    /// Takes a name away; its folder stays.
    fn take(&mut self, path: &str) -> Option<Node> {
        let node = self.0.remove(path);
        if let Some(above) = parent(path)
            && self.children(above).is_empty()
            && let Some(Node::Directory { kept, .. }) = self.0.get_mut(above)
        {
            *kept = true;
        }
        node
    }

    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        self.reach(from)?;
        self.reach(to)?;
        let is_directory = |node: &Node| matches!(node, Node::Directory { .. });
        let moves_directory = is_directory(self.get(from).ok_or(Errno::ENOENT)?);
        if to.starts_with(&format!("{from}/")) {
            return Err(Errno::EINVAL);
        }
        if from.starts_with(&format!("{to}/")) {
            return Err(Errno::ENOTEMPTY);
        }
        if from == to {
            return Ok(());
        }
        match self.get(to).map(is_directory) {
            Some(false) if moves_directory => return Err(Errno::ENOTDIR),
            Some(true) if !moves_directory => return Err(Errno::EISDIR),
            Some(true) if !self.children(to).is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        // The placeholder of a folder that is replaced serves the one that comes.
        let was_kept = matches!(self.get(to), Some(Node::Directory { kept: true, .. }));
        let mut moved = vec![(to.to_owned(), from.to_owned())];
        moved.extend(self.below(from).into_iter().map(|path| (format!("{to}{}", &path[from.len()..]), path)));
        for (to, from) in moved {
            let Some(node) = self.take(&from) else { continue };
            if let Node::File(file) = &node {
                // What is in the bucket is uploaded under the new name.
                let mut body = file.borrow_mut();
                let now = Some(body.data.clone());
                body.durable.push(now);
            }
            self.0.insert(to, node);
        }
        if let Some(Node::Directory { kept, .. }) = self.0.get_mut(to) {
            *kept |= was_kept;
        }
        Ok(())
    }

    /// Another client's object comes; folders follow from it. `false`: not there.
    pub fn put(&mut self, path: &str, data: &[u8]) -> bool {
        let mut above = parent(path);
        let mut made = vec![];
        while let Some(folder) = above {
            match self.get(folder) {
                Some(Node::Directory { .. }) => {}
                Some(_) => return false,
                None => made.push(folder.to_owned()),
            }
            above = parent(folder);
        }
        if !matches!(self.get(path), None | Some(Node::File(_))) {
            return false;
        }
        for folder in made {
            self.0.insert(folder, Node::Directory { mode: 0o755, kept: false });
        }
        let mut body = Body { data: data.to_owned(), mode: 0o644, ..Body::default() };
        body.settle();
        self.0.insert(path.to_owned(), Node::File(Rc::new(RefCell::new(body))));
        true
    }

    /// Another client's delete: a folder that nothing keeps goes with its last file.
    pub fn delete(&mut self, path: &str) {
        self.0.remove(path);
        let mut above = parent(path);
        while let Some(folder) = above {
            if !matches!(self.get(folder), Some(Node::Directory { kept: false, .. }))
                || !self.children(folder).is_empty()
            {
                break;
            }
            self.0.remove(folder);
            above = parent(folder);
        }
    }
}
