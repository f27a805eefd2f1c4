//! One JSON object per line over a unix socket: what QMP and the guest agent have in common.
//! Knows nothing of either's words; `qmp` and `agent` do.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Attempt, Error, Result};
use crate::wait::{secs, until};

/// QEMU makes its sockets before it runs the guest; on a loaded machine that has taken 5 s.
const SOCKET_BOUND: Duration = secs(30);

/// An open conversation.
#[derive(Debug)]
pub(crate) struct Wire {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

impl Wire {
    /// Connects to the socket, waiting for QEMU to make it.
    ///
    /// # Errors
    /// When no one listens within [`SOCKET_BOUND`].
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let stream = connect(path)?;
        Ok(Wire { path: path.to_owned(), reader: BufReader::new(stream) })
    }

    /// Sets how long [`Wire::receive`] waits.
    pub(crate) fn patience(&self, bound: Duration) -> Result<()> {
        self.reader.get_ref().set_read_timeout(Some(bound)).attempt(|| self.what("set time-out of"))
    }

    /// Sends one command, with bytes in front of it that are not JSON (the agent's resynchronization).
    pub(crate) fn send(&mut self, lead: &[u8], command: &str, arguments: &Value) -> Result<()> {
        let mut line = lead.to_vec();
        line.extend(json!({"execute": command, "arguments": arguments}).to_string().into_bytes());
        line.push(b'\n');
        let what = self.what("write to");
        self.reader.get_mut().write_all(&line).attempt(|| what)
    }

    /// Receives the next object; lines that are no JSON (left over from a lost conversation) are passed over.
    ///
    /// # Errors
    /// When the other side closes, or says nothing in time.
    pub(crate) fn receive(&mut self) -> Result<Value> {
        loop {
            let mut line = Vec::new();
            let what = self.what("read from");
            let read = self.reader.read_until(b'\n', &mut line).attempt(|| what)?;
            if read == 0 {
                return Err(Error::new(self.what("read from"), "closed"));
            }
            // 0xff is the agent's mark of a fresh start.
            let start = line.iter().rposition(|&b| b == 0xff).map_or(0, |at| at + 1);
            if let Ok(value) = serde_json::from_slice(&line[start..]) {
                return Ok(value);
            }
        }
    }

    fn what(&self, verb: &str) -> String {
        format!("{verb} '{}'", self.path.display())
    }
}

/// Connects to a unix socket that is about to exist.
pub(crate) fn connect(path: &Path) -> Result<UnixStream> {
    until(&format!("socket '{}'", path.display()), SOCKET_BOUND, || UnixStream::connect(path).ok())
}
