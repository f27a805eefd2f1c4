//! How the command line reaches the agent: [`Ask`] on the control socket.

use std::{ops::ControlFlow, path::Path};

use super::Ask;
use crate::{
    control::api::{Reply, Request},
    error::{Error, Kind, Result},
    status::EventView,
};

/// Returns the agent behind this socket. Nothing is connected before something is asked.
pub(super) fn client(socket: &Path) -> Box<dyn Ask> {
    Box::new(NoClient(socket.display().to_string()))
}

// HOOK(control::client): stands in until the control room's client is there.
struct NoClient(String);

impl Ask for NoClient {
    fn ask(&self, _: Request) -> Result<Reply> {
        Err(Error::new(Kind::Missing, format!("connect to sheathd at '{}'", self.0)))
    }

    fn events(&self, _: bool, _: &mut dyn FnMut(EventView) -> ControlFlow<()>) -> Result<()> {
        Err(Error::new(Kind::Missing, format!("connect to sheathd at '{}'", self.0)))
    }
}
