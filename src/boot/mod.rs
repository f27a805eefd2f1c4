//! What a blade is told when it asks: the wire to sheath-bootd, the iPXE scripts, the HTTP server.
//!
//! A blade asks `server` over HTTP (in sheath-bootd, without privileges); it asks `agent` (in sheathd) over a unix
//! socket in `wire`'s words; `script` turns the answer into iPXE's language. None of them decides what a blade gets.

pub mod agent;
mod connections;
pub mod download;
mod query;
pub mod script;
pub mod server;
pub mod wire;
