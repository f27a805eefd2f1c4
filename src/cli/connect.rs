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
    model::ImageRef,
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

    fn content(&self, image: &ImageRef, each: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<u64> {
        Client::new(&self.0)?.content(image, each)
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

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::{UnixListener, UnixStream},
    };

    use super::*;

    const EVENT: &str = "data: {\"seq\":1,\"at\":1,\"kind\":\"seen\",\"slot\":null,\"blade\":null,\"image\":null,\"text\":\"x\"}\n\n";

    /// Plays an agent that has two events to tell; returns the connection, which lives as long as somebody holds it.
    fn agent(socket: &Path) -> std::thread::JoinHandle<UnixStream> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            stream.write_all(format!("{head}{EVENT}{EVENT}").as_bytes()).unwrap();
            stream
        })
    }

    #[test]
    fn without_follow_the_first_silence_is_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let agent = agent(&socket);
        let mut seen = 0;
        client(&socket)
            .events(false, &mut |_| {
                seen += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, 2);
        drop(agent.join().unwrap());
    }

    #[test]
    fn a_followed_stream_that_ends_is_an_error_and_a_reader_that_had_enough_is_none() {
        for (enough, good) in [(false, false), (true, true)] {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("s");
            let agent = agent(&socket);
            let ender = std::thread::spawn(move || drop(agent.join().unwrap()));
            let flow = |_| if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            assert_eq!(client(&socket).events(true, &mut { flow }).is_ok(), good);
            ender.join().unwrap();
        }
    }

    #[test]
    fn an_agent_that_is_away_is_missing_with_and_without_follow() {
        for follow in [false, true] {
            let away = client(Path::new("/nowhere/s")).events(follow, &mut |_| ControlFlow::Continue(()));
            assert_eq!(away.unwrap_err().kind(), Kind::Missing);
        }
    }
}
