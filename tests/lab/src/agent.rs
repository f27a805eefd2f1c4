//! The guest agent: commands run inside a guest as root, files written there, without a network or a login.
//! Speaks qemu-guest-agent's protocol over its virtio-serial port. The agent does one thing at a time, and so does this.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::error::{Attempt, Error, Result};
use crate::wait::{pause, secs, until};
use crate::wire::Wire;

/// The agent answers its own commands within milliseconds; in an emulated guest that writes to its disks, on a machine
/// that has five things to do per core, it has once taken over 30 s.
const ANSWER_BOUND: Duration = secs(180);
/// One try at a conversation: short, because an agent that is still starting drops what it gets.
const HELLO_BOUND: Duration = secs(2);
/// The pauses between looks at a running command: most end within the first few.
const LOOKS_MS: [u64; 6] = [10, 20, 40, 80, 150, 250];

/// What a command did.
#[derive(Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; a signal's number plus 128 when one ended it.
    pub code: i64,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Returns the standard output of a command that ended with status 0.
    ///
    /// # Errors
    /// With the command's own words, for any other status.
    pub fn ok(self) -> Result<String> {
        if self.code == 0 {
            return Ok(self.stdout);
        }
        Err(Error::new("run a command in the guest", format!("{self:?}")))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// A conversation with one guest's agent.
#[derive(Debug)]
pub(crate) struct Agent {
    wire: Wire,
    hellos: i64,
}

impl Agent {
    /// Connects, and waits until the agent in the guest answers.
    ///
    /// # Errors
    /// When it does not within `bound`.
    pub(crate) fn connect(socket: &Path, bound: Duration) -> Result<Self> {
        let mut agent = Agent { wire: Wire::connect(socket)?, hellos: 0 };
        until("the guest agent", bound, || agent.hello().ok())?;
        agent.wire.patience(ANSWER_BOUND)?;
        Ok(agent)
    }

    /// Runs a shell command as root, for at most `bound` and for as long as `goes_on` finds no reason to give it up.
    ///
    /// # Errors
    /// When the agent is gone, the command outlives its bound, or that reason. A command that fails is an [`Output`], not an error.
    pub(crate) fn run(
        &mut self,
        command: &str,
        bound: Duration,
        mut goes_on: impl FnMut() -> Result<()>,
    ) -> Result<Output> {
        let start = json!({
            "path": "/bin/sh", "arg": ["-c", command], "capture-output": true,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"],
        });
        let pid = self.call("guest-exec", &start)?["pid"].clone();
        let end = Instant::now() + bound;
        for look in 0.. {
            let state = self.call("guest-exec-status", &json!({"pid": pid}))?;
            if state["exited"] == json!(true) {
                return Ok(output(&state));
            }
            if Instant::now() >= end {
                let cause = format!("still running after {} s", bound.as_secs());
                return Err(Error::new(format!("run '{command}' in the guest"), cause));
            }
            goes_on()?;
            pause(Duration::from_millis(LOOKS_MS[look.min(LOOKS_MS.len() - 1)]));
        }
        unreachable!("the loop above has no end but its returns")
    }

    /// Writes a small file in the guest; big ones travel on a payload disk.
    ///
    /// # Errors
    /// When the guest cannot write there.
    pub(crate) fn push(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let handle = self.call("guest-file-open", &json!({"path": path, "mode": "w"}))?;
        for piece in content.chunks(48 * 1024) {
            self.call("guest-file-write", &json!({"handle": handle, "buf-b64": BASE64.encode(piece)}))?;
        }
        self.call("guest-file-close", &json!({"handle": handle})).map(|_| ())
    }

    /// Finds the start of a fresh conversation, whatever was left unread or half said in an older one.
    fn hello(&mut self) -> Result<()> {
        self.hellos += 1;
        let id = i64::from(std::process::id()) * 10_000 + self.hellos;
        self.wire.patience(HELLO_BOUND)?;
        self.wire.send(&[0xff], "guest-sync-delimited", &json!({"id": id}))?;
        while self.wire.receive()?["return"] != json!(id) {}
        Ok(())
    }

    fn call(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        self.wire.send(b"", command, arguments)?;
        let answer = self.wire.receive().attempt(|| format!("ask the guest agent for {command}"))?;
        match answer.get("return") {
            Some(result) => Ok(result.clone()),
            None => Err(Error::new(format!("ask the guest agent for {command}"), &answer["error"])),
        }
    }
}

fn output(state: &Value) -> Output {
    let text = |key: &str| {
        let bytes = BASE64.decode(state[key].as_str().unwrap_or_default()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let signal = state["signal"].as_i64().map(|signal| 128 + signal);
    Output {
        code: state["exitcode"].as_i64().or(signal).unwrap_or(-1),
        stdout: text("out-data"),
        stderr: text("err-data"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Output, output};
    use serde_json::json;

    #[test]
    fn what_a_command_wrote_is_decoded() {
        let state = json!({"exited": true, "exitcode": 3, "out-data": "aGkK"});
        assert_eq!(output(&state), Output { code: 3, stdout: "hi\n".into(), stderr: String::new() });
    }

    #[test]
    fn a_command_ended_by_a_signal_has_the_shells_status_for_it() {
        assert_eq!(output(&json!({"exited": true, "signal": 9})).code, 137);
    }

    #[test]
    fn the_output_of_a_failed_command_is_no_result() {
        let failed = Output { code: 5, stdout: String::new(), stderr: "no space".into() };
        assert!(failed.ok().unwrap_err().to_string().contains("no space"));
    }
}
