//! Objects on their way to other keys. While the server copies a file or a folder nothing is uploaded to the old place:
//! it would be deleted with what was copied, or stay behind. The same holds for changes of names: those below a folder
//! end before it begins to move, and those that come later wait for it.
//!
//! A change of names may wait for an upload, an upload never for one: so a folder is closed to changes before it is
//! closed to uploads.
//!
//! Lock rank: leaf, never held across an await.

use std::sync::Arc;

use tokio::sync::watch;

#[derive(Default)]
struct State {
    /// A key, or the prefix of a folder with its slash, for each rename under way.
    moving: Vec<String>,
    /// Prefixes of folders that are to move, or move.
    closed: Vec<String>,
    /// Prefixes of the directories in which names are being changed.
    changing: Vec<String>,
}

/// See the module.
#[derive(Clone, Default)]
pub struct Moves(Arc<watch::Sender<State>>);

/// A rename under way.
pub struct Moving {
    moves: Moves,
    key: String,
}

/// A folder that is to move: no name below it is being changed.
pub struct Closed {
    moves: Moves,
    prefix: String,
}

/// Names that are being changed: their directories stay where they are.
pub struct Change {
    moves: Moves,
    prefixes: Vec<String>,
}

impl Moves {
    /// From now on no upload to this key, or below this prefix, begins. Those under way hold the gates of their drafts.
    #[must_use]
    pub fn begin(&self, key: &str) -> Moving {
        self.0.send_modify(|state| state.moving.push(key.to_owned()));
        Moving { moves: self.clone(), key: key.to_owned() }
    }

    /// Whether an object is on its way from this key.
    #[must_use]
    pub fn concern(&self, key: &str) -> bool {
        concern(&self.0.borrow().moving, key)
    }

    /// Waits until it has arrived, or stays.
    pub async fn settled(&self, key: &str) {
        // It fails when the sender is gone, which is here.
        drop(self.0.subscribe().wait_for(|state| !concern(&state.moving, key)).await);
    }

    /// From now on no change of a name below this prefix begins; waits for those under way.
    pub async fn close(&self, prefix: &str) -> Closed {
        self.0.send_modify(|state| state.closed.push(prefix.to_owned()));
        let closed = Closed { moves: self.clone(), prefix: prefix.to_owned() };
        let is_at_rest = |state: &State| !state.changing.iter().any(|other| other.starts_with(prefix));
        drop(self.0.subscribe().wait_for(is_at_rest).await);
        closed
    }

    /// Names in these directories are to be changed. `None`: one of them is on its way, or about to be.
    #[must_use]
    pub fn change(&self, prefixes: &[String]) -> Option<Change> {
        let begins = self.0.send_if_modified(|state| {
            let begins = !state.holds_up(prefixes);
            if begins {
                state.changing.extend_from_slice(prefixes);
            }
            begins
        });
        begins.then(|| Change { moves: self.clone(), prefixes: prefixes.to_vec() })
    }

    /// Waits until none of these directories is on its way.
    pub async fn at_rest(&self, prefixes: &[String]) {
        drop(self.0.subscribe().wait_for(|state| !state.holds_up(prefixes)).await);
    }
}

impl State {
    fn holds_up(&self, prefixes: &[String]) -> bool {
        prefixes.iter().any(|prefix| concern(&self.moving, prefix) || concern(&self.closed, prefix))
    }
}

fn concern(moving: &[String], key: &str) -> bool {
    moving.iter().any(|from| if from.ends_with('/') { key.starts_with(from.as_str()) } else { key == from })
}

fn remove(from: &mut Vec<String>, one: &str) {
    if let Some(at) = from.iter().position(|other| other == one) {
        from.swap_remove(at);
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.moves.0.send_modify(|state| remove(&mut state.moving, &self.key));
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.moves.0.send_modify(|state| remove(&mut state.closed, &self.prefix));
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.moves.0.send_modify(|state| {
            for prefix in &self.prefixes {
                remove(&mut state.changing, prefix);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn change(moves: &Moves, prefix: &str) -> Option<Change> {
        moves.change(&[prefix.to_owned()])
    }

    #[test]
    fn a_folder_moves_when_the_changes_below_it_have_ended() {
        let moves = Moves::default();
        let (below, beside) = (change(&moves, "d/sub/"), change(&moves, "data/"));
        let mut closing = Box::pin(moves.close("d/"));
        assert!(closing.as_mut().now_or_never().is_none());
        drop(below);
        let closed = closing.now_or_never().expect("no change is left");
        drop((closed, beside));
    }

    #[test]
    fn what_begins_later_waits_and_uploads_do_not() {
        let moves = Moves::default();
        let first = change(&moves, "d/").expect("at rest");
        let mut closing = Box::pin(moves.close("d/"));
        assert!(closing.as_mut().now_or_never().is_none());
        assert!(change(&moves, "d/").is_none() && change(&moves, "d/sub/").is_none());
        assert!(change(&moves, "").is_some() && change(&moves, "data/").is_some());
        assert!(!moves.concern("d/file"), "a change may wait for an upload");
        drop(first);
        let closed = closing.now_or_never().expect("no change is left");
        let below = ["d/".to_owned()];
        let mut resting = Box::pin(moves.at_rest(&below));
        assert!(resting.as_mut().now_or_never().is_none());
        drop(closed);
        assert!(resting.now_or_never().is_some() && change(&moves, "d/").is_some());
    }

    #[test]
    fn a_folder_that_is_given_up_is_open_again() {
        let moves = Moves::default();
        let below = change(&moves, "d/");
        assert!(moves.close("d/").now_or_never().is_none());
        drop(below);
        assert!(change(&moves, "d/").is_some());
    }

    #[test]
    fn nothing_is_uploaded_to_what_moves() {
        let moves = Moves::default();
        let moving = [moves.begin("d/"), moves.begin("d/"), moves.begin("file")];
        assert!(moves.concern("d/x") && moves.concern("file") && !moves.concern("file2"));
        let [first, second, _file] = moving;
        drop(first);
        assert!(moves.settled("d/x").now_or_never().is_none());
        drop(second);
        assert!(moves.settled("d/x").now_or_never().is_some());
    }
}
