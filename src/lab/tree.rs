//! A folder with what is in it, as far as any of the identities sees it.

use std::collections::BTreeSet;

use super::place::{Place, View};
use super::{Lab, Trouble};

/// How much of a folder is looked at.
#[derive(Debug, Clone, Copy)]
pub struct TreeLimits {
    /// Levels below the folder itself.
    pub depth: usize,
    /// Names of each folder.
    pub names: usize,
}

/// A place in the tree.
#[derive(Debug, Clone)]
pub struct Node {
    /// Levels below the root.
    pub depth: usize,
    /// What is shown of its path below its parent.
    pub name: String,
    /// Whether it is the last one of its parent.
    pub is_last: bool,
    /// Whether its folder has more names than are shown; at least so.
    pub cut: bool,
    pub view: View,
}

impl Lab {
    /// The places below a view, each before what is in it.
    ///
    /// # Errors
    /// When an identity cannot list.
    pub async fn tree(&self, root: View, limits: TreeLimits) -> Result<Vec<Node>, Trouble> {
        let name = root.path();
        let mut open = vec![Node { depth: 0, name, is_last: true, cut: false, view: root }];
        let mut nodes = Vec::new();
        while let Some(mut node) = open.pop() {
            if node.depth < limits.depth
                && let Place::Folder(prefix) = &node.view.place
            {
                let (names, cut) = names(&node.view, limits.names);
                let mut inside = Vec::new();
                for key in names {
                    let name = key.strip_prefix(prefix.as_str()).unwrap_or(&key).to_owned();
                    let place = if key.ends_with('/') { Place::Folder(key) } else { Place::Object(key) };
                    let view = self.look_at(&node.view.bucket, place).await?;
                    inside.push(Node { depth: node.depth + 1, name, is_last: false, cut: false, view });
                }
                if let Some(last) = inside.last_mut() {
                    last.is_last = true;
                }
                node.cut = cut;
                open.extend(inside.into_iter().rev());
            }
            nodes.push(node);
        }
        Ok(nodes)
    }
}

/// What anybody sees in a folder, in byte order, and whether there is more.
fn names(view: &View, limit: usize) -> (Vec<String>, bool) {
    let all = view.seen.iter().flat_map(|seen| seen.folders.iter().chain(&seen.objects));
    let all: BTreeSet<&String> = all.collect();
    let cut = all.len() > limit || view.seen.iter().any(|seen| seen.more);
    (all.into_iter().take(limit).cloned().collect(), cut)
}
