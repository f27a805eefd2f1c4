//! Listening on an address that may not be there yet.
//!
//! sheathd makes the bridge, so the chassis address may come after us. With `IP_FREEBIND` the kernel takes the address
//! on trust (ip(7)), which needs no capability; there is nothing to retry and no order of units to get right.

use std::net::SocketAddrV4;

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{setsockopt, sockopt::IpFreebind},
};
use tokio::net::{TcpListener, TcpSocket};

use crate::error::{Context, Result};

/// Connections that the kernel holds until they are accepted: a chassis that restarts at once.
const BACKLOG: u32 = 1024;

/// Listens on `at`, whether the machine has that address or not.
///
/// # Errors
/// [`Kind::Failed`](crate::error::Kind::Failed) where another process listens there; the cause says so.
pub(super) fn bind(at: SocketAddrV4) -> Result<TcpListener> {
    let what = || format!("listen on {at}");
    let socket = TcpSocket::new_v4().attempt(what)?;
    socket.set_reuseaddr(true).attempt(what)?;
    setsockopt(&socket, IpFreebind, &true).attempt(what)?;
    socket.bind(at.into()).attempt(what)?;
    socket.listen(BACKLOG).attempt(what)
}

/// Raises the limit of open files to what the system allows: each waiting blade holds two.
pub(super) fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(e) = raised {
        log::warn!("the limit of open files stays as it is: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_there_yet_can_be_listened_on() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // TEST-NET-3 (RFC 5737): no machine has it.
            let listener = bind("203.0.113.77:0".parse().unwrap()).unwrap();
            let taken = listener.local_addr().unwrap().to_string().parse().unwrap();
            assert!(bind(taken).unwrap_err().to_string().starts_with("listen on 203.0.113.77:"));
        });
    }
}
