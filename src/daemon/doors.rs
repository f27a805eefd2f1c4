//! The sockets' way to the line: each question is an event with a place for its answer.

use std::sync::mpsc;

use tokio::sync::{broadcast, oneshot};

use super::core::{Event, Subscription};
use crate::{
    boot::{
        agent::BootBackend,
        wire::{Answer, BootRequest},
    },
    control::api::{Backend, Reply, Request},
    error::{Error, Kind, Result},
    status::EventView,
};

/// What stands behind both sockets.
#[derive(Clone)]
pub(super) struct Door {
    events: mpsc::Sender<Event>,
    journal: Subscription,
}

impl Door {
    /// Returns the way to the line.
    pub(super) fn new(events: mpsc::Sender<Event>, journal: Subscription) -> Self {
        Self { events, journal }
    }
}

impl Backend for Door {
    async fn ask(&self, request: Request) -> Result<Reply> {
        let ending = || Error::new(Kind::Busy, "ask the agent: it is ending");
        let (reply, answer) = oneshot::channel();
        self.events.send(Event::Operator(request, reply)).map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }

    fn events(&self) -> (Vec<EventView>, broadcast::Receiver<EventView>) {
        self.journal.subscribe()
    }
}

impl BootBackend for Door {
    async fn answer(&self, request: BootRequest) -> Answer {
        let (reply, answer) = oneshot::channel();
        let sent = self.events.send(Event::Boot(request, reply)).is_ok();
        let ending = Answer::Wait { message: "the appliance's agent is restarting".into(), seconds: 2 };
        if sent { answer.await.unwrap_or(ending) } else { ending }
    }
}
