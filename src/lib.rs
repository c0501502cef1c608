//! supafs maps a Supabase Storage bucket to a directory: file operations become S3 calls, made with access keys
//! or as one user under Row Level Security.
//!
//! # Layers
//! Imports go downward only, and siblings do not see each other (`tests/integration/layers.rs` checks it).
//!
//! | | modules | |
//! |---|---|---|
//! | L5 | [`cli`] | commands |
//! | L4 | [`daemon`] | the composition root: builds, wires, runs a mount |
//! | L4 | [`lab`] | what identities may do, found out by trying |
//! | L3 | [`fuse`] | the kernel's protocol: the only importer of fuser |
//! | L3 | [`fs`] | POSIX meaning: inodes, handles, operations (below `fuse`) |
//! | L2 | [`meta`], [`data`], [`writeback`] | directory and attribute cache; block cache, fetches, read-ahead; drafts, spool, uploads |
//! | L1 | [`store`], [`auth`] | the S3 client; credentials (the store is given a provider) |
//! | L0 | the rest | names, entity tags, configuration, the budget of memory, identity, counters, files, processes, HTTP, commands, logging |
//!
//! News travels upward through channels only.
//!
//! # Locks
//! All are short `parking_lot` mutexes, never held across an await. Ranks, first taken first: `fs::handle` <
//! `fs::inode` < {`meta::dir_cache` < `meta::walk`, `meta::known`, `data::lookahead`, `data::reader` < `data::fetch` <
//! `data::cache`}.
//!
//! # Words
//! *Key*: the name of an object in its bucket; here relative to the root of the mount. *Component*: what stands
//! between two slashes of a key; *name*: the same as a file name ([`name`] maps the two). *Prefix*: what the keys
//! of a directory begin with. *Version*: the bytes an `ETag` stands for. *Block*: the unit of the cache. *Flight*:
//! one GET under way. *Probe*: asking for one name instead of a listing; in [`lab`], trying a right. *Verdict*: what a
//! probe of a right came to. *Walk*: one flat listing that is folded into many directories ahead of a reader.

pub mod attrs;
pub mod auth;
pub mod budget;
pub mod cli;
pub mod command;
pub mod config;
pub mod content_type;
pub mod daemon;
pub mod data;
pub mod etag;
pub mod fs;
pub mod fuse;
pub mod http;
pub mod identity;
pub mod lab;
pub mod logging;
pub mod machine;
pub mod meta;
pub mod name;
pub mod obstacle;
pub mod private_file;
pub mod process;
pub mod proxy;
pub mod secret;
pub mod similar;
pub mod single_flight;
pub mod size;
pub mod state_dir;
pub mod stats;
pub mod store;
pub mod sys;
pub mod writeback;
