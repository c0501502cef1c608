//! A faithful local stand-in for Supabase Storage's S3 endpoint, to be embedded in tests or run as a
//! program. It repeats what was observed of the real server, quirks included: lost keys in delimiter
//! listings, ignored conditions on writes, misrouted sub-resources, Row Level Security that hides rather
//! than refuses. It knows nothing about integrity: hashes and checksums are accepted unread.
//!
//! Layers, importing downward only:
//!
//! ```text
//! demo                    sample data
//! standin                 the embedding API: start, seed, observe, break
//! server                  HTTP, routing, one file per family of operations
//! store  log  fault       buckets and objects | what was asked | what goes wrong
//! auth  rls  xml  key     signatures, tokens | policies | documents | names
//! config  error  clock
//! ```

mod auth;
mod clock;
mod config;
pub mod demo;
mod error;
mod fault;
mod key;
mod log;
mod rls;
mod server;
mod standin;
mod store;
mod xml;

pub use auth::jwt::mint_jwt;
pub use config::{ALICE, BOB, Config, Credentials};
pub use fault::{Action, Fault, FaultId, KeyMatch, Times};
pub use log::LogEntry;
pub use rls::{Command, Policy, Predicate};
pub use standin::{ObjectInfo, PutOptions, Standin, mint_user};
pub use store::synthetic::{fill_synthetic, synthetic_bytes};
