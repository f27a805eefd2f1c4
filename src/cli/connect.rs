//! How the command line reaches the agent: [`Ask`] on the control socket.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};

use super::Ask;
use crate::{
    control::{
        api::{Reply, Request},
        client::Client,
    },
    error::{Error, Kind, Result},
    status::EventView,
};

/// The recent events come in one burst, right after the connection: a silence as long as this is its end.
const QUIET: Duration = Duration::from_millis(500);

/// Returns the agent behind this socket. Nothing is connected before something is asked.
pub(super) fn client(socket: &Path) -> Box<dyn Ask> {
    Box::new(Socket(socket.to_owned()))
}

struct Socket(PathBuf);

impl Ask for Socket {
    fn ask(&self, request: Request) -> Result<Reply> {
        Client::new(&self.0)?.ask(&request)
    }

    fn events(&self, follow: bool, each: &mut dyn FnMut(EventView) -> ControlFlow<()>) -> Result<()> {
        if follow { for_ever(&self.0, each) } else { recent(self.0.clone(), each) }
    }
}

/// Hands over events until `each` breaks off; only the agent's end can end it otherwise.
fn for_ever(socket: &Path, each: &mut dyn FnMut(EventView) -> ControlFlow<()>) -> Result<()> {
    let mut enough = false;
    Client::new(socket)?.events(|event| {
        let flow = each(event);
        enough = flow.is_break();
        flow
    })?;
    if enough { Ok(()) } else { Err(Error::new(Kind::Missing, "follow sheathd's events: it has ended")) }
}

/// Hands over the events of the first burst.
///
/// The stream has no mark where the past ends and the present begins, and its reader blocks; so it is read on a thread
/// that ends with the process.
fn recent(socket: PathBuf, each: &mut dyn FnMut(EventView) -> ControlFlow<()>) -> Result<()> {
    let (send, events) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        Client::new(&socket)?.events(|event| match send.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })
    });
    loop {
        match events.recv_timeout(QUIET) {
            Ok(event) => {
                if each(event).is_break() {
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            // The agent has ended the stream, or could not be asked.
            Err(RecvTimeoutError::Disconnected) => {
                return reader.join().expect("the reader only reads and sends");
            }
        }
    }
}
