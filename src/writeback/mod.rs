//! What was written and is not in the bucket yet: drafts in a spool, and how they are uploaded.
//!
//! The write path: [`Draft`] takes the bytes, [`Uploader`] decides what has to move ([`plan`](self::plan())) and moves
//! it, [`Queue`] does so behind the writer's back, [`Removals`] deletes behind it, [`Spool`] keeps data and [`Record`]s
//! through a crash.

mod begun;
mod delay;
mod draft;
mod fingerprint;
mod holes;
mod meter;
mod moves;
mod plan;
mod queue;
mod ranges;
mod record;
mod removals;
mod spool;
mod state;
mod stream;
mod upload;
mod uploaded;

pub use begun::{abort as abort_upload, begin as begin_upload, end as end_upload};
pub use delay::Delay;
pub use draft::{Draft, Piece};
pub use moves::{Change, Moves, Moving};
pub use plan::{MIN_PART, Plan, plan};
pub use queue::{Job, Outcome, Queue};
pub use ranges::Ranges;
pub use record::{Base, Owner, Record, RecordState, Successor};
pub use removals::{Removal, Removals, Watcher};
pub use spool::{Holder, Note, Recovered, Spool, SpoolFile, SpoolOptions, Staged, inventory};
pub use state::{Expected, HeaderChanges, State, nanos_now};
pub use upload::{Contents, Ends, Limits, Uploader};
pub use uploaded::{UploadError, Uploaded, is_final};
