//! Objects on their way to other keys. While the server copies a file or a folder nothing is uploaded to the old place:
//! it would be deleted with what was copied, or stay behind.
//!
//! Lock rank: leaf, never held across an await.

use std::sync::Arc;

use tokio::sync::watch;

/// A key, or the prefix of a folder with its slash, for each rename under way.
#[derive(Clone, Default)]
pub struct Moves(Arc<watch::Sender<Vec<String>>>);

/// A rename under way.
pub struct Moving {
    moves: Moves,
    key: String,
}

impl Moves {
    /// From now on no upload to this key, or below this prefix, begins. Those under way hold the gates of their drafts.
    #[must_use]
    pub fn begin(&self, key: &str) -> Moving {
        self.0.send_modify(|moving| moving.push(key.to_owned()));
        Moving { moves: self.clone(), key: key.to_owned() }
    }

    /// Whether an object is on its way from this key.
    #[must_use]
    pub fn concern(&self, key: &str) -> bool {
        concern(&self.0.borrow(), key)
    }

    /// Waits until it has arrived, or stays.
    pub async fn settled(&self, key: &str) {
        // It fails when the sender is gone, which is here.
        drop(self.0.subscribe().wait_for(|moving| !concern(moving, key)).await);
    }
}

fn concern(moving: &[String], key: &str) -> bool {
    moving.iter().any(|from| if from.ends_with('/') { key.starts_with(from.as_str()) } else { key == from })
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.moves.0.send_modify(|moving| {
            if let Some(at) = moving.iter().position(|key| *key == self.key) {
                moving.swap_remove(at);
            }
        });
    }
}
