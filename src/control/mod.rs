//! The operator's door: HTTP and JSON over a unix socket, for `sheath` and for scripts.
//!
//! `api` has the words; `route` says where each lives in HTTP; the server turns HTTP into [`api::Request`] and asks
//! whatever stands behind it; the client does the reverse. `unix` is how our sockets are made and knocked at. Nothing
//! here decides anything.

pub mod api;
pub mod client;
pub mod content;
mod route;
pub mod server;
pub mod unix;
