//! The stand-in's own tests, in one program: linking takes longer than running them.

mod auth;
mod basics;
mod beside;
mod common;
mod faults;
mod listing;
mod multipart;
mod parts;
mod program;
mod rls;
mod speed;
mod writefaults;
mod writes;
