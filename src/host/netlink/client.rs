//! Questions to the kernel over rtnetlink, and the rules for believing an answer.
//!
//! The netlink library drops the message that ends a dump, and the kernel puts a dump's failure in just that message: a
//! refused dump would look like an empty one, and an empty one like a chassis without blades. So every dump goes
//! through [`Client::dump`], which wants to see the end, its code, and no interruption; and every change wants its
//! acknowledgement, because a connection that dies ends the stream as quietly as success does.

use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::Handle;
use tokio::task::JoinHandle;

use crate::error::{Context, Error, Kind, Result};

/// A message of the kernel's routing family.
type Message = NetlinkMessage<RouteNetlinkMessage>;

/// How long one question may take: the kernel answers in milliseconds, 10,000 entries in 20 ms.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How often a dump is begun again when the table changed below it; each try takes milliseconds.
const DUMP_TRIES: usize = 10;

/// One netlink socket for questions. Lives inside a tokio runtime; its connection ends with it.
pub(crate) struct Client {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Client {
    /// Returns a client on a socket of its own.
    ///
    /// # Errors
    /// The failing system call.
    pub(crate) fn open() -> Result<Self> {
        // Strict: a question that the kernel does not understand is refused, not answered with everything.
        let (mut connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().attempt(|| "open a netlink socket".to_owned())?;
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Returns all that the kernel has of what `request` asks for.
    ///
    /// # Errors
    /// The kernel's refusal with its errno, [`Kind::Timeout`] where no answer came, [`Kind::Busy`] where the table
    /// changed during each of several tries, [`Kind::Failed`] where the answer has no end.
    pub(crate) async fn dump(
        &mut self,
        what: &str,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_TRIES {
            let answer = self.ask(what, request.clone(), NLM_F_REQUEST | NLM_F_DUMP).await?;
            if let Some(whole) = whole_dump(what, answer)? {
                return Ok(whole);
            }
        }
        Err(Error::new(Kind::Busy, format!("{what}: the table changed during {DUMP_TRIES} dumps")))
    }

    /// Changes something that exists.
    ///
    /// # Errors
    /// The kernel's refusal with its errno, [`Kind::Timeout`] where no answer came.
    pub(crate) async fn change(&mut self, what: &str, request: RouteNetlinkMessage) -> Result<()> {
        let answer = self.ask(what, request, NLM_F_REQUEST | NLM_F_ACK).await?;
        acknowledged(what, &answer)
    }

    /// Makes something that does not exist.
    ///
    /// # Errors
    /// As [`Client::change`]; [`Kind::Exists`] where somebody was faster.
    pub(crate) async fn create(&mut self, what: &str, request: RouteNetlinkMessage) -> Result<()> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let answer = self.ask(what, request, flags).await?;
        acknowledged(what, &answer)
    }

    /// Returns once the connection has ended: no answer will come any more.
    pub(crate) async fn closed(&mut self) {
        let _ = (&mut self.connection).await;
    }

    async fn ask(&mut self, what: &str, request: RouteNetlinkMessage, flags: u16) -> Result<Vec<Message>> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = flags;
        let answer =
            self.handle.request(message).map_err(|e| Error::new(Kind::Failed, what.to_owned()).because(e))?;
        tokio::time::timeout(ANSWER_TIME, answer.collect())
            .await
            .map_err(|_| Error::new(Kind::Timeout, format!("{what}: no answer from the kernel")))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Returns the dump's content, or `None` where the table changed below it and the whole may be neither old nor new.
fn whole_dump(what: &str, answer: Vec<Message>) -> Result<Option<Vec<RouteNetlinkMessage>>> {
    let mut content = vec![];
    let (mut interrupted, mut ended) = (false, false);
    for message in answer {
        interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => content.push(inner),
            NetlinkPayload::Done(done) if done.code == 0 => ended = true,
            NetlinkPayload::Done(done) => return Err(refused(what, done.code)),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(refused(what, error.raw_code()));
            }
            NetlinkPayload::Overrun(_) => interrupted = true,
            _ => {}
        }
    }
    match (interrupted, ended) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(content)),
        (false, false) => Err(Error::new(Kind::Failed, format!("{what}: the answer has no end"))),
    }
}

fn acknowledged(what: &str, answer: &[Message]) -> Result<()> {
    for message in answer {
        match &message.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(refused(what, error.raw_code()));
            }
            NetlinkPayload::Error(_) => return Ok(()),
            _ => {}
        }
    }
    Err(Error::new(Kind::Failed, format!("{what}: the kernel did not acknowledge it")))
}

/// Returns the error for a negative errno in a netlink answer.
fn refused(what: &str, code: i32) -> Error {
    Error::io(what, std::io::Error::from_raw_os_error(code.saturating_abs()))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroI32;

    use netlink_packet_core::{DoneMessage, ErrorMessage};
    use netlink_packet_route::neighbour::NeighbourMessage;

    use super::*;

    fn message(payload: NetlinkPayload<RouteNetlinkMessage>, flags: u16) -> Message {
        let mut message = NetlinkMessage::new(Default::default(), payload);
        message.header.flags = flags;
        message
    }

    fn done(code: i32) -> Message {
        let mut done = DoneMessage::default();
        done.code = code;
        message(NetlinkPayload::Done(done), 0)
    }

    fn entry(flags: u16) -> Message {
        let inner = RouteNetlinkMessage::NewNeighbour(NeighbourMessage::default());
        message(NetlinkPayload::InnerMessage(inner), flags)
    }

    fn error(code: i32) -> Message {
        let mut error = ErrorMessage::default();
        error.code = NonZeroI32::new(code);
        message(NetlinkPayload::Error(error), 0)
    }

    #[test]
    fn a_refused_dump_is_an_error_not_an_empty_set() {
        assert_eq!(whole_dump("list", vec![done(-22)]).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(whole_dump("list", vec![error(-1)]).unwrap_err().kind(), Kind::Denied);
    }

    #[test]
    fn a_dump_without_an_end_is_an_error() {
        assert_eq!(whole_dump("list", vec![]).unwrap_err().kind(), Kind::Failed);
        assert_eq!(whole_dump("list", vec![entry(0)]).unwrap_err().kind(), Kind::Failed);
    }

    #[test]
    fn an_interrupted_dump_is_asked_for_again() {
        let answer = vec![entry(0), entry(NLM_F_DUMP_INTR), done(0)];
        assert!(whole_dump("list", answer).unwrap().is_none());
    }

    #[test]
    fn a_whole_dump_may_be_empty() {
        assert_eq!(whole_dump("list", vec![done(0)]).unwrap(), Some(vec![]));
        assert_eq!(whole_dump("list", vec![entry(0), done(0)]).unwrap().unwrap().len(), 1);
    }

    #[test]
    fn a_change_without_acknowledgement_did_not_happen() {
        assert!(acknowledged("set", &[error(0)]).is_ok());
        assert_eq!(acknowledged("set", &[]).unwrap_err().kind(), Kind::Failed);
        assert_eq!(acknowledged("set", &[error(-16)]).unwrap_err().kind(), Kind::Busy);
    }
}
