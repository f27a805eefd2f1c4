//! The sockets' way to the line: each question is an event with a place for its answer.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::{
    sync::{broadcast, oneshot},
    time::timeout,
};

use super::{
    core::{Event, Subscription},
    counted,
};
use crate::{
    boot::{
        agent::BootBackend,
        wire::{Answer, BootRequest},
    },
    control::{
        api::{Backend, Reply, Request},
        content::{self, PIECE},
    },
    error::{Error, Kind, Result},
    host::Host,
    image::export::Opened,
    model::{ImageId, ImageRef},
    status::EventView,
};

/// What stands behind both sockets.
#[derive(Clone)]
pub(super) struct Door {
    events: mpsc::Sender<Event>,
    journal: Subscription,
    /// For counters only: they are read when an answer shows them.
    host: Arc<dyn Host>,
}

/// How long the machine may take to answer a question: before the command line gives up, so that it is told why.
const PATIENCE: Duration = Duration::from_secs(45);

/// How many pieces of an image may wait for whoever reads it: a few megabytes.
const WAITING: usize = 4;

/// How long the pool's blocks may be counted.
const COUNTING: Duration = Duration::from_secs(25);

async fn answered<T>(answer: oneshot::Receiver<T>, patience: Duration) -> Result<T> {
    let hangs = "ask the machine: it does not answer, most likely a device hangs: see 'sheath status'";
    let answer = timeout(patience, answer).await.map_err(|_| Error::new(Kind::Timeout, hangs))?;
    answer.map_err(|_| {
        Error::new(
            Kind::Busy,
            "ask the machine: an earlier question hangs (see 'sheath status'), or the agent is ending",
        )
    })
}

impl Door {
    /// Returns the way to the line.
    pub(super) fn new(events: mpsc::Sender<Event>, journal: Subscription, host: Arc<dyn Host>) -> Self {
        Self { events, journal, host }
    }

    /// Returns the line's own answer.
    async fn ask_line(&self, request: Request) -> Result<Reply> {
        let (reply, answer) = oneshot::channel();
        let ending = |_| Error::new(Kind::Busy, "ask the agent: it is ending");
        self.events.send(Event::Operator(request, reply)).map_err(ending)?;
        // A place for an answer that is dropped: an earlier question hangs, or the agent is ending.
        answered(answer, PATIENCE).await?
    }

    /// Adds how much of the pool images take. What cannot be counted in time keeps nobody from seeing the rest.
    async fn with_space(&self, reply: Reply) -> Reply {
        let (host, (told, counted)) = (Arc::clone(&self.host), oneshot::channel());
        tokio::task::spawn_blocking(move || drop(told.send(host.space())));
        let space = answered(counted, COUNTING).await.unwrap_or_else(Err);
        counted::with_space(reply, space)
    }
}

impl Backend for Door {
    async fn ask(&self, request: Request) -> Result<Reply> {
        let reply = self.ask_line(request).await?;
        if matches!(reply, Reply::Images(_) | Reply::Image(_)) {
            return Ok(self.with_space(reply).await);
        }
        let shows_counters = matches!(reply, Reply::Blades(_) | Reply::Sessions(_));
        if !shows_counters {
            return Ok(reply);
        }
        let (host, (told, counted)) = (Arc::clone(&self.host), oneshot::channel());
        tokio::task::spawn_blocking(move || drop(told.send(counted::add(host.as_ref(), reply))));
        answered(counted, PATIENCE).await?
    }

    async fn content(&self, image: ImageRef) -> Result<tokio::sync::mpsc::Receiver<Vec<u8>>> {
        let Reply::Image(detail) = self.ask_line(Request::Image { image }).await? else {
            return Err(Error::new(Kind::Failed, "look at the image"));
        };
        let (host, (opened, ready)) = (Arc::clone(&self.host), oneshot::channel());
        let (send, pieces) = tokio::sync::mpsc::channel(WAITING);
        tokio::task::spawn_blocking(move || send_image(host.as_ref(), &detail.view.image, &send, opened));
        answered(ready, PATIENCE).await??;
        Ok(pieces)
    }

    fn events(&self) -> (Vec<EventView>, broadcast::Receiver<EventView>) {
        self.journal.subscribe()
    }
}

/// Reads an image to its end, or until nobody listens any more; tells `opened` once it can be read.
fn send_image(
    host: &dyn Host,
    image: &ImageId,
    send: &tokio::sync::mpsc::Sender<Vec<u8>>,
    opened: oneshot::Sender<Result<()>>,
) {
    let content = match Opened::new(host, image) {
        Ok(content) => content,
        Err(error) => return drop(opened.send(Err(error))),
    };
    let _ = opened.send(Ok(()));
    match content.read(PIECE, &mut |at, data| send.blocking_send(content::piece(at, data)).is_ok()) {
        Ok(size) => drop(send.blocking_send(content::end(size))),
        Err(error) if error.kind() == Kind::Denied => log::info!("{}", error.chain()),
        Err(error) => log::warn!("{}", error.chain()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_hangs_ends_with_an_error_that_says_why() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (reply, answer) = oneshot::channel::<()>();
            let late = answered(answer, Duration::from_millis(10)).await.unwrap_err();
            assert_eq!(late.kind(), Kind::Timeout);
            assert!(late.to_string().contains("a device hangs: see 'sheath status'"), "{late}");
            drop(reply);
            let (_, answer) = oneshot::channel::<()>();
            assert_eq!(answered(answer, PATIENCE).await.unwrap_err().kind(), Kind::Busy);
        });
    }
}
