//! The operator's door: HTTP and JSON over a unix socket, for `sheath` and for scripts.
//!
//! `api` has the words; the server turns HTTP into [`api::Request`] and asks whatever stands behind it; the client does
//! the reverse. Nothing here decides anything.

pub mod api;
pub mod unix;
