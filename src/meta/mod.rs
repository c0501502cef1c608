//! What is known of the bucket's names: directory listings, single lookups, and user metadata seen on the way.
//!
//! Everything here is a cache with a time to live; the server's word is never changed, only remembered.

mod dir_cache;
mod directory;
mod fill;
mod known;
mod listing;
mod memory;
mod outage;
mod overlay;
mod pages;
mod probe;
mod spread;
mod walk;

pub use dir_cache::{DirCache, Lookup};
pub use known::Known;
pub use listing::{Entry, FileVersion, Kind, Listing, NodeKind};
