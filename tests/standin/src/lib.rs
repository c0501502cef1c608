//! A faithful local stand-in for Supabase Storage's S3 endpoint, to be embedded in tests or run as a
//! program. It repeats what was observed of the real server, quirks included: lost keys in delimiter
//! listings, ignored conditions on writes, misrouted sub-resources, Row Level Security that hides rather
//! than refuses. It knows nothing about integrity: hashes and checksums are accepted unread.
//!
//! For tests: `Standin::start`, seed with `put`, `put_synthetic`, `set_policies`, `set_bucket_limits`; break
//! with `fault` (see `Fault`; `src/fault/mod.rs` has the table of what happens when); look with `log`,
//! `count`, `peak_of`, `keys`, `stat`, `uploads`. `Config` has what is fixed for a stand-in's life, such as
//! the backend it imitates.
//!
//! Layers, importing downward only:
//!
//! ```text
//! demo  control           sample data | orders to a running stand-in
//! standin                 the embedding API: start, seed, observe, break
//! server                  HTTP, routing, one file per family of operations; REST and Auth beside S3
//! store  log  fault       buckets, objects, uploads | what was asked | what goes wrong
//! sessions                users of Supabase Auth and their refresh tokens
//! auth  rls  xml  key     signatures, tokens | policies | documents | names
//! config  error  clock
//! ```

mod auth;
mod clock;
mod config;
pub mod control;
pub mod demo;
mod error;
mod fault;
mod key;
mod log;
mod rls;
mod server;
mod sessions;
mod standin;
mod store;
mod xml;

pub use auth::jwt::mint_jwt;
pub use config::{ALICE, AuthConfig, BOB, Backend, Config, Credentials, User};
pub use fault::{Action, Fault, FaultId, KeyMatch, Times, WRITES};
pub use log::{LogEntry, Totals};
pub use rls::{Command, Policy, Predicate};
pub use sessions::Granted;
pub use standin::{BucketLimits, ObjectInfo, PutOptions, Standin, UploadInfo, mint_user};
pub use store::synthetic::{fill_synthetic, synthetic_bytes};
