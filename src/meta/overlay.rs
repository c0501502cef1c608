//! Local changes, laid over what the server listed before it knew of them: a writer reads its own writes.
//!
//! A change holds until a listing that began after it, or for the time to live; a pinned one, of a file that is not
//! in the bucket yet, until it is replaced. Over an answer that was asked for before the change, it holds however late
//! the answer comes.
//!
//! Nodes of this mount alone lie above the changes. What a node hides goes on as if it were not there: a removal stays
//! pinned until it has ended, and a listing catches up. When the node goes, that is what is shown.
//!
//! Lock rank: leaf.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::time::Instant;

use super::{Entry, Kind};

/// As many changes as are kept without a look for those that have aged.
const SWEEP: usize = 1024;

/// An answer of the server's that takes longer than this may miss a change.
const SLOWEST: Duration = Duration::from_secs(30);

struct Change {
    entry: Option<Entry>,
    at: Instant,
    pinned: bool,
}

#[derive(Default)]
struct Changes {
    names: HashMap<Box<[u8]>, Change>,
    /// Pipes and sockets. They are kept until they are removed here, and no news of the bucket takes them away.
    nodes: HashMap<Box<[u8]>, Entry>,
}

/// Changes by directory, and when those of them that have aged were cleared away.
struct Directories {
    by_prefix: BTreeMap<Box<str>, Changes>,
    /// Changes that the last sweep left.
    kept: usize,
    /// Changes that were noted since then.
    noted: usize,
    swept: Instant,
}

/// See the module.
pub(super) struct Overlay {
    directories: Mutex<Directories>,
    ttl: Duration,
}

impl Overlay {
    pub fn new(ttl: Duration) -> Self {
        let directories =
            Directories { by_prefix: BTreeMap::new(), kept: 0, noted: 0, swept: Instant::now() };
        Self { directories: Mutex::new(directories), ttl }
    }

    fn by_prefix(&self) -> MappedMutexGuard<'_, BTreeMap<Box<str>, Changes>> {
        MutexGuard::map(self.directories.lock(), |directories| &mut directories.by_prefix)
    }

    /// Notes what a name stands for now; `None`: nothing in the bucket.
    pub fn set(&self, prefix: &str, name: &[u8], entry: Option<Entry>, pinned: bool) {
        let mut directories = self.directories.lock();
        directories.sweep_now_and_then(self.ttl);
        let changes = directories.by_prefix.entry(prefix.into()).or_default();
        match entry {
            Some(node) if is_node(&node) => drop(changes.nodes.insert(name.into(), node)),
            entry => {
                // What takes a node's name is shown in its place. That nothing has the name any more is no word about
                // a node that came meanwhile.
                if entry.is_some() {
                    changes.nodes.remove(name);
                }
                changes.names.insert(name.into(), Change { entry, at: Instant::now(), pinned });
            }
        }
    }

    /// What a name stands for by a local change, and how long that may be believed.
    pub fn get(&self, prefix: &str, name: &[u8]) -> Option<(Option<Entry>, Duration)> {
        let directories = self.by_prefix();
        let changes = directories.get(prefix)?;
        if let Some(node) = changes.nodes.get(name) {
            return Some((Some(node.clone()), self.ttl));
        }
        let change = changes.names.get(name)?;
        change.holds(self.ttl).then(|| {
            let valid = if change.pinned { self.ttl } else { self.ttl.saturating_sub(change.at.elapsed()) };
            (change.entry.clone(), valid)
        })
    }

    /// What a name came to stand for by its last local change that is still noted, and when.
    pub fn last(&self, prefix: &str, name: &[u8]) -> Option<(Option<Entry>, Instant)> {
        let directories = self.by_prefix();
        let change = directories.get(prefix)?.names.get(name)?;
        Some((change.entry.clone(), change.at))
    }

    /// What a name stands for by a local change that an answer asked for at this time may miss.
    #[expect(clippy::option_option, reason = "the change may be that it is gone")]
    pub fn since(&self, prefix: &str, name: &[u8], asked: Instant) -> Option<Option<Entry>> {
        let directories = self.by_prefix();
        let changes = directories.get(prefix)?;
        if let Some(node) = changes.nodes.get(name) {
            return Some(Some(node.clone()));
        }
        let change = changes.names.get(name)?;
        change.counts(self.ttl, asked).then(|| change.entry.clone())
    }

    /// Whether a name is gone from the bucket by a local change, whatever node has it.
    pub fn is_gone(&self, prefix: &str, name: &[u8]) -> bool {
        let directories = self.by_prefix();
        let change = directories.get(prefix).and_then(|changes| changes.names.get(name));
        change.is_some_and(|change| change.entry.is_none() && change.holds(self.ttl))
    }

    /// All changes of a directory, by name, that an answer asked for at this time may miss, with its nodes.
    pub fn all_since(&self, prefix: &str, asked: Instant) -> Vec<(Box<[u8]>, Option<Entry>)> {
        self.collect_since(prefix, asked, true)
    }

    /// The same as the bucket has it or will have it: what nodes hide, without them.
    pub fn all_of_bucket_since(&self, prefix: &str, asked: Instant) -> Vec<(Box<[u8]>, Option<Entry>)> {
        self.collect_since(prefix, asked, false)
    }

    fn collect_since(
        &self,
        prefix: &str,
        asked: Instant,
        with_nodes: bool,
    ) -> Vec<(Box<[u8]>, Option<Entry>)> {
        let directories = self.by_prefix();
        let Some(changes) = directories.get(prefix) else { return vec![] };
        let is_shown = |name: &[u8]| !with_nodes || !changes.nodes.contains_key(name);
        let counting = changes.names.iter().filter(|(_, change)| change.counts(self.ttl, asked));
        let shown = counting.filter(|(name, _)| is_shown(name));
        let mut all: Vec<_> = shown.map(|(name, change)| (name.clone(), change.entry.clone())).collect();
        if with_nodes {
            all.extend(changes.nodes.iter().map(|(name, node)| (name.clone(), Some(node.clone()))));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// The components of a directory's folders in which there is something that the bucket does not show yet: they
    /// stand by that, whatever others have removed from them.
    pub fn folders_with_pinned(&self, prefix: &str) -> Vec<Box<str>> {
        let directories = self.by_prefix();
        let mut found: Vec<Box<str>> = vec![];
        for (below, changes) in below(&directories, prefix) {
            let Some((component, _)) = below[prefix.len()..].split_once('/') else { continue };
            let is_found = found.last().is_some_and(|last| **last == *component);
            if !is_found && changes.has_pinned() {
                found.push(component.into());
            }
        }
        found
    }

    /// Whether below a prefix there is something that the bucket does not show yet.
    pub fn has_pinned_below(&self, prefix: &str) -> bool {
        below(&self.by_prefix(), prefix).any(|(_, changes)| changes.has_pinned())
    }

    /// Whether a name stands for something of the bucket that it does not show yet.
    pub fn is_pinned(&self, prefix: &str, name: &[u8]) -> bool {
        let directories = self.by_prefix();
        directories
            .get(prefix)
            .and_then(|changes| changes.names.get(name))
            .is_some_and(|change| change.pinned)
    }

    /// A removal has ended: its name is gone as others see it, too. `false`: something else of the bucket has the name
    /// by now.
    pub fn unpin_gone(&self, prefix: &str, name: &[u8]) -> bool {
        let mut directories = self.by_prefix();
        let change = directories.get_mut(prefix).and_then(|changes| changes.names.get_mut(name));
        let Some(change) = change.filter(|change| change.pinned && change.entry.is_none()) else {
            return false;
        };
        (change.pinned, change.at) = (false, Instant::now());
        true
    }

    /// What a name stands for is in the bucket. Listings from before still miss it.
    pub fn unpin(&self, prefix: &str, name: &[u8]) {
        let mut directories = self.by_prefix();
        let change = directories.get_mut(prefix).and_then(|changes| changes.names.get_mut(name));
        if let Some(change) = change.filter(|change| change.entry.is_some()) {
            (change.pinned, change.at) = (false, Instant::now());
        }
    }

    /// A name has no local change any more.
    pub fn forget(&self, prefix: &str, name: &[u8]) {
        self.take_out(prefix, |changes| drop(changes.names.remove(name)));
    }

    /// A node is gone: its name stands for what it hid.
    pub fn forget_node(&self, prefix: &str, name: &[u8]) {
        self.take_out(prefix, |changes| drop(changes.nodes.remove(name)));
    }

    fn take_out(&self, prefix: &str, take: impl FnOnce(&mut Changes)) {
        let mut directories = self.by_prefix();
        let Some(changes) = directories.get_mut(prefix) else { return };
        take(changes);
        if changes.is_empty() {
            directories.remove(prefix);
        }
    }

    /// Nodes below a prefix have moved with their folder.
    pub fn move_nodes(&self, source: &str, target: &str) {
        let mut directories = self.by_prefix();
        let mut moved = vec![];
        for (prefix, changes) in directories.iter_mut().filter(|(prefix, _)| prefix.starts_with(source)) {
            if !changes.nodes.is_empty() {
                let to = format!("{target}{}", &prefix[source.len()..]);
                moved.push((to, std::mem::take(&mut changes.nodes)));
            }
        }
        for (prefix, nodes) in moved {
            directories.entry(prefix.into()).or_default().nodes.extend(nodes);
        }
    }

    /// A listing that began at this time shows the directory: what was changed before is in it.
    pub fn listed(&self, prefix: &str, begun: Instant) {
        self.take_out(prefix, |changes| {
            changes.names.retain(|_, change| change.pinned || change.at >= begun);
        });
    }

    /// Forgets all changes below a prefix, which has moved or gone.
    pub fn forget_below(&self, prefix: &str) {
        self.by_prefix().retain(|other, changes| {
            if other.starts_with(prefix) {
                changes.names.clear();
            }
            !changes.is_empty()
        });
    }
}

fn is_node(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::Node(_))
}

fn below<'a>(
    directories: &'a BTreeMap<Box<str>, Changes>,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a str, &'a Changes)> {
    let from = (Bound::Included(prefix), Bound::Unbounded);
    let all = directories.range::<str, _>(from).map(|(other, changes)| (&**other, changes));
    all.take_while(move |(other, _)| other.starts_with(prefix))
}

impl Directories {
    /// Before a change is noted: clears away those that have aged, when half of all came since the last time, or none
    /// of those that came before it can count any more.
    fn sweep_now_and_then(&mut self, ttl: Duration) {
        self.noted += 1;
        let are_many = self.noted >= self.kept.max(SWEEP);
        let have_aged = self.kept + self.noted >= SWEEP && self.swept.elapsed() > ttl + SLOWEST;
        if !are_many && !have_aged {
            return;
        }
        self.by_prefix.retain(|_, changes| {
            changes.names.retain(|_, change| change.may_count(ttl));
            !changes.is_empty()
        });
        self.kept = self.len();
        (self.noted, self.swept) = (0, Instant::now());
    }

    fn len(&self) -> usize {
        self.by_prefix.values().map(|changes| changes.names.len()).sum()
    }
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.nodes.is_empty()
    }

    fn has_pinned(&self) -> bool {
        !self.nodes.is_empty() || self.names.values().any(|change| change.pinned && change.entry.is_some())
    }
}

impl Change {
    /// Whether it counts over an answer that was asked for at this time.
    fn counts(&self, ttl: Duration, asked: Instant) -> bool {
        self.at >= asked || self.holds(ttl)
    }

    fn may_count(&self, ttl: Duration) -> bool {
        // Over a listing that was under way when it came, as long as that is believed.
        self.holds(ttl + SLOWEST)
    }

    fn holds(&self, ttl: Duration) -> bool {
        self.pinned || self.at.elapsed() < ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::NodeKind;

    #[tokio::test(start_paused = true)]
    async fn changes_that_have_aged_take_no_room_however_many_directories_they_are_of() {
        let ttl = Duration::from_secs(1);
        let overlay = Overlay::new(ttl);
        let len = || overlay.directories.lock().len();
        overlay.set("", b"pinned", None, true);
        for round in 0..20 {
            for directory in 0..100 {
                for name in 0..100_u32 {
                    overlay.set(&format!("{round}/{directory}/"), &name.to_be_bytes(), None, false);
                }
            }
            assert!(len() >= 10_000, "what is new counts");
            assert!(len() <= 10_000 + 2 * SWEEP, "{} in round {round}", len());
            tokio::time::advance(ttl + SLOWEST + ttl).await;
        }
        overlay.set("", b"another", None, false);
        assert_eq!(len(), 2, "the pinned one, and the last");
    }

    #[test]
    fn a_change_holds_over_an_answer_that_was_asked_for_before_it() {
        let overlay = Overlay::new(Duration::ZERO);
        let before = Instant::now();
        let entry = Entry { name: (*b"a").into(), component: None, kind: Kind::Directory };
        overlay.set("", b"a", Some(entry.clone()), false);
        assert_eq!(overlay.get("", b"a"), None, "it has aged");
        assert_eq!(overlay.since("", b"a", before), Some(Some(entry)));
        assert_eq!(overlay.since("", b"a", Instant::now() + Duration::from_millis(1)), None);
        overlay.listed("", Instant::now() + Duration::from_millis(1));
        assert_eq!(overlay.since("", b"a", before), None, "a later listing shows it");
    }

    #[test]
    fn what_a_node_hides_goes_on_beneath_it() {
        let overlay = Overlay::new(Duration::from_hours(1));
        let before = Instant::now();
        let entry = |kind| Entry { name: (*b"a").into(), component: None, kind };
        let pipe = || Some(entry(Kind::Node(NodeKind::Pipe)));
        let shown = || overlay.since("d/", b"a", before);
        // A removal that is under way, and ends while a node has the name.
        overlay.set("d/", b"a", None, true);
        overlay.set("d/", b"a", pipe(), true);
        assert_eq!((shown(), overlay.all_since("d/", before).len()), (Some(pipe()), 1));
        assert_eq!(overlay.all_of_bucket_since("d/", before), [((*b"a").into(), None)]);
        assert!(overlay.is_gone("d/", b"a"));
        assert!(overlay.unpin_gone("d/", b"a"));
        overlay.forget("d/", b"b");
        assert_eq!(shown(), Some(pipe()));
        // It goes with its folder; what it hid does not.
        overlay.move_nodes("d/", "e/");
        assert_eq!((shown(), overlay.since("e/", b"a", before)), (Some(None), Some(pipe())));
        overlay.forget_node("e/", b"a");
        assert_eq!(overlay.since("e/", b"a", before), None);
        // What takes its name is shown, and is gone when it is removed.
        overlay.set("d/", b"a", pipe(), true);
        overlay.set("d/", b"a", Some(entry(Kind::Directory)), false);
        assert_eq!(shown(), Some(Some(entry(Kind::Directory))));
        overlay.set("d/", b"a", None, false);
        assert_eq!(shown(), Some(None));
    }
}
