//! The kernel's network tables: who is plugged in where, told within milliseconds.
//!
//! One socket is subscribed to links and neighbours (ARP and the bridge's forwarding table both), another asks for
//! dumps. Subscribed first, dumped second: the events since are applied over the dump, so none is missed. Meaning is
//! `fold`'s; rules for believing a dump are `host::netlink`'s.
//!
//! ```text
//!   open ──► dump ──► Resync ──► message ──► events
//!    ▲        ▲                     │
//!    │        ├─ overrun, bridge made anew, 5 minutes ─┤
//!    └──── 1 s ──── a connection ended, a dump failed ─┘
//! ```

use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage, link::LinkMessage, neighbour::NeighbourMessage,
};
use netlink_sys::{AsyncSocket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use tokio::{
    task::JoinHandle,
    time::{Instant, Interval, MissedTickBehavior},
};

use super::{Events, Source, WatchEvent, fold::Fold, trouble};
use crate::{
    error::{Context, Error, Kind, Result},
    host::netlink::Client,
    model::PortName,
};

/// The event socket's buffer: the default holds 256 events, this one 10,000 (830 bytes each); the kernel doubles it.
const EVENT_BUFFER: usize = 4 << 20;

/// All tables are read again this often, because a message that a new kernel words differently is only skipped.
const SAFETY_NET: Duration = Duration::from_secs(300);

/// Before a dead connection is opened again: long enough not to spin, short against a blade's start.
const REOPEN: Duration = Duration::from_secs(1);

/// After an overrun: a flood that goes on is dumped ten times a second, not without end.
const FLOOD_PAUSE: Duration = Duration::from_millis(100);

/// After an overrun the kernel drops events, without a word, until its queue was read to the end once: one more dump,
/// when that has surely happened, finds what the first could not.
const AFTER_FLOOD: Duration = Duration::from_secs(1);

/// Messages from the kernel that nobody asked for.
type Stream = futures_util::stream::BoxStream<'static, (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Tells what happens on the network of this bridge, for as long as somebody listens.
pub async fn run(bridge: PortName, events: Events) {
    run_with(bridge, events, EVENT_BUFFER).await;
}

/// [`run`] with another buffer.
async fn run_with(bridge: PortName, events: Events, buffer: usize) {
    let mut fold = Fold::new(bridge);
    loop {
        let ended = tokio::select! {
            () = events.closed() => return,
            ended = watch(&mut fold, &events, buffer) => ended,
        };
        if let Err(error) = ended {
            trouble(&events, Source::Netlink, &error);
        }
        tokio::select! {
            () = events.closed() => return,
            () = tokio::time::sleep(REOPEN) => {}
        }
    }
}

/// Watches until a connection ends or a dump fails.
async fn watch(fold: &mut Fold, events: &Events, buffer: usize) -> Result<()> {
    let mut subscription = Subscription::open(events, buffer)?;
    let mut client = Client::open()?;
    let mut safety_net = safety_net();
    resync(fold, &mut client, events).await?;
    loop {
        let again = tokio::select! {
            message = subscription.messages.next() => match message {
                None => return Err(ended("events")),
                Some((message, from)) => match take(fold, events, message, &from) {
                    Taken::Whole => false,
                    Taken::Stale => true,
                    Taken::Lost => {
                        tokio::time::sleep(FLOOD_PAUSE).await;
                        subscription.drain();
                        safety_net.reset_after(AFTER_FLOOD);
                        true
                    }
                },
            },
            _ = safety_net.tick() => true,
            () = client.closed() => return Err(ended("questions")),
        };
        if again {
            resync(fold, &mut client, events).await?;
        }
    }
}

fn ended(what: &str) -> Error {
    Error::new(Kind::Failed, format!("watch the network: the kernel's connection for {what} ended"))
}

fn safety_net() -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + SAFETY_NET, SAFETY_NET);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// How a message was taken in.
enum Taken {
    /// Told.
    Whole,
    /// Told, but the tables must be read again.
    Stale,
    /// The socket's buffer was too small: some messages before are missing.
    Lost,
}

fn take(
    fold: &mut Fold,
    events: &Events,
    message: NetlinkMessage<RouteNetlinkMessage>,
    from: &SocketAddr,
) -> Taken {
    match message.payload {
        NetlinkPayload::Overrun(_) => Taken::Lost,
        // Anybody may send to a netlink socket; the kernel is port 0.
        NetlinkPayload::InnerMessage(inner) if from.port_number() == 0 => {
            let folded = fold.apply(&inner);
            for event in folded.events {
                let _ = events.send(event);
            }
            if folded.stale { Taken::Stale } else { Taken::Whole }
        }
        _ => Taken::Whole,
    }
}

/// Reads all tables and tells them as a whole.
async fn resync(fold: &mut Fold, client: &mut Client, events: &Events) -> Result<()> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let mut messages = client.dump("dump interfaces", request).await?;
    for (what, family) in
        [("dump forwarding table", AddressFamily::Bridge), ("dump neighbours", AddressFamily::Inet)]
    {
        let mut request = NeighbourMessage::default();
        request.header.family = family;
        messages.extend(client.dump(what, RouteNetlinkMessage::GetNeighbour(request)).await?);
    }
    let _ = events.send(WatchEvent::Resync(fold.replace(&messages)));
    Ok(())
}

/// The subscribed socket.
struct Subscription {
    messages: Stream,
    connection: JoinHandle<()>,
}

impl Subscription {
    fn open(events: &Events, buffer: usize) -> Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Neigh];
        let (mut connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .attempt(|| "subscribe to the kernel's network events".to_owned())?;
        let socket = connection.socket_mut().socket_ref();
        let grown = setsockopt(socket, sockopt::RcvBufForce, &buffer)
            .attempt(|| format!("grow the network events' buffer to {buffer} bytes"));
        if let Err(error) = grown {
            // Smaller is slower in a flood, not wrong: an overrun is noticed.
            trouble(events, Source::Netlink, &error);
        }
        Ok(Self { messages: messages.boxed(), connection: tokio::spawn(connection) })
    }

    /// Drops what has come so far: all of it is older than the dump that follows.
    fn drain(&mut self) {
        use futures_util::FutureExt;
        while let Some(Some(_)) = self.messages.next().now_or_never() {}
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

#[cfg(test)]
mod tests;
