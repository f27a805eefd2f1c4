//! Runs `ssh` in the sandbox: looks at a file or a disk of another machine, and reads it.
//!
//! ```text
//! our program ─ stdin: a script ─► ssh ─► sshd ─► login shell ─► sh -s
//!      ▲                                                           │
//!      └─ "sheath-there …", the bytes, "sheath-end …" ◄────────────┘
//! ```
//!
//! The other machine needs sshd and a POSIX shell. The script goes to that shell as its input, so that a login shell of any
//! kind sees two harmless words, and the path is in quotation marks in it. What a login prints before is passed over. What
//! the file was like stands before its bytes and behind them: one that has changed meanwhile is an error.
//!
//! Only our key is offered, only a host key that the operator has accepted is taken; no configuration file, no agent and no
//! terminal has a say.

use std::{fmt, fs::File, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    limits::STREAM,
    remote::{Remote, quoted},
};
use crate::{
    error::{Error, Kind, Result},
    host::{
        cmd::{Cmd, Ended, Tool},
        file, ssh,
    },
};

mod order;
mod script;
mod stream;
mod trouble;

pub(super) use order::{Order, Task, carry_out};
use stream::Stream;
pub(super) use stream::{Frozen, frozen};

/// The names of what systemd hands to the sandbox.
pub(super) const KEY: &str = "key";
pub(super) const KNOWN_HOSTS: &str = "known_hosts";
/// The hosts that this machine knows for everybody.
pub(super) const SYSTEM_KNOWN_HOSTS: &str = "/etc/ssh/ssh_known_hosts";
/// Where the sandbox finds who it is: ssh does not run for a user without a name.
const PASSWD: &str = "/etc/passwd";
/// Longest time for a look.
const LOOK: Duration = Duration::from_secs(60);
/// Longest time that a machine is asked to stand still, with the login before it.
pub(super) const FREEZE: Duration = Duration::from_secs(75);
/// What is told of ssh: its options, as `-o` takes them.
const OPTIONS: [&str; 25] = [
    "BatchMode=yes",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "PreferredAuthentications=publickey",
    "PasswordAuthentication=no",
    "KbdInteractiveAuthentication=no",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "VerifyHostKeyDNS=no",
    "CheckHostIP=no",
    "CanonicalizeHostname=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "ProxyCommand=none",
    "ControlMaster=no",
    "ControlPath=none",
    "RequestTTY=no",
    "EscapeChar=none",
    "Compression=no",
    // Three of them are less than a source may be silent.
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=2",
    // What is wrong with a host key or a login stands in these words only.
    "LogLevel=DEBUG1",
];

/// What is at the other end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct There {
    /// What it is.
    pub(super) what: What,
    /// Whether somebody there has it mounted; `None` where that cannot be told.
    pub(super) used: Option<bool>,
    /// Whether its first and last bytes are those of a raw disk.
    pub(super) raw: bool,
}

/// A file or disk as it is at one moment: any change of it makes this another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct What {
    /// Whether it is a block device.
    pub(super) device: bool,
    /// How large it is.
    pub(super) size: u64,
    /// A file's times and number, where the machine there can tell them.
    pub(super) version: Option<String>,
}

impl There {
    /// Returns what is to be told of a disk that somebody else may have written to meanwhile.
    pub(super) fn caution(&self) -> Option<String> {
        let how = match self.used {
            _ if !self.what.device => return None,
            Some(false) => return None,
            Some(true) => "it was mounted where it is while it was read",
            None => "it may have been mounted where it is while it was read",
        };
        Some(format!(
            "{how}: parts of it are of different moments, which file systems may not take even as a power cut; \
             shut that machine down and capture its disk, or prove the image"
        ))
    }
}

/// One machine, by our key.
pub(super) struct Link {
    remote: Remote,
    /// The folder that systemd has put our key into.
    credentials: PathBuf,
}

impl Link {
    /// Returns the way to the machine for this process, which runs in a sandbox.
    ///
    /// # Errors
    /// Where this is no sandbox that has been given our key.
    pub(super) fn of_sandbox(remote: Remote) -> Result<Self> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let credentials =
            credentials.ok_or_else(|| Error::invalid("this command is for the agent itself"))?;
        let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
        let line = format!("sheath:x:{user}:{group}::/:/usr/sbin/nologin\n");
        file::save(PASSWD.as_ref(), line.as_bytes(), 0o644)?;
        Ok(Self { remote, credentials })
    }

    /// Looks what is there.
    ///
    /// # Errors
    /// [`Kind::Missing`] and [`Kind::Denied`], with what to do about it; [`Kind::Failed`] for a line that breaks.
    pub(super) fn look(&self) -> Result<There> {
        let mut said = vec![];
        let script = script::look(self.remote.path());
        let ended = self.run(&script, LOOK, |piece| {
            said.extend_from_slice(piece);
            match said.len() {
                0..=stream::LONGEST_LOOK => Ok(()),
                _ => Err(Error::invalid("the machine there says more than it was asked")),
            }
        })?;
        stream::there(&said).map_err(|no| no.map_or_else(|| self.trouble(&ended), |no| self.refused(no)))
    }

    /// Reads what is there from this byte on, and makes sure that it has stayed as it was.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is another one by now, the taker's own, [`Kind::Failed`] for a line that breaks.
    pub(super) fn read(
        &self,
        what: &What,
        from: u64,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let script = script::read(self.remote.path(), from);
        let mut stream = Stream::new(what, from);
        let ended = self.run(&script, STREAM, |piece| stream.take(piece, &mut take))?;
        if stream.is_whole() { Ok(()) } else { Err(self.trouble(&ended)) }
    }

    /// Freezes the machine's file systems until `hold` ends, and hands on what it says of that.
    ///
    /// # Errors
    /// [`Kind::Failed`] with what the machine says where they cannot be frozen; else as [`Link::look`]'s.
    pub(super) fn freeze(&self, hold: File, mut hand_on: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (mut said, cmd) = (vec![], self.cmd(script::FREEZE, FREEZE).stdin_from(Arc::new(hold)));
        let ended = cmd.run_to_end(|piece| {
            said.extend_from_slice(&piece[..piece.len().min(stream::LONGEST_LOOK - said.len())]);
            hand_on(piece)
        })?;
        match stream::frozen(&said) {
            Some(stream::Frozen::No(why)) => {
                let text = format!("freeze the file systems of '{}': {why}", self.remote.host());
                Err(Error::new(Kind::Failed, text))
            }
            Some(stream::Frozen::Thawed { .. }) => Ok(()),
            _ => Err(self.trouble(&ended)),
        }
    }

    fn run(&self, script: &str, limit: Duration, take: impl FnMut(&[u8]) -> Result<()>) -> Result<Ended> {
        self.cmd("exec sh -s", limit).stdin(script.as_bytes().to_vec()).run_to_end(take)
    }

    fn cmd(&self, command: &str, limit: Duration) -> Cmd {
        let (key, hosts) = (self.credentials.join(KEY), self.credentials.join(KNOWN_HOSTS));
        let files = [
            format!("IdentityFile={}", key.display()),
            format!("UserKnownHostsFile={}", hosts.display()),
            format!("GlobalKnownHostsFile={SYSTEM_KNOWN_HOSTS}"),
        ];
        let options = OPTIONS.iter().map(ToString::to_string).chain(files);
        Cmd::new(Tool::Ssh, limit)
            .args(["-F", "none", "-T"])
            .args(options.flat_map(|option| ["-o".to_owned(), option]))
            .args(["-p", &self.remote.port().to_string(), "-l", self.remote.user()])
            .args(["--", self.remote.host(), command])
    }

    /// Returns the error of a machine that has answered, and refused.
    fn refused(&self, no: stream::No) -> Error {
        let (path, user, host) = (self.remote.path(), self.remote.user(), self.remote.host());
        match no {
            stream::No::Missing => Error::new(
                Kind::Missing,
                format!("there is no '{path}' on '{host}', or {user} may not see it"),
            ),
            stream::No::Kind => {
                Error::invalid(format!("'{path}' on '{host}' is neither a file nor a block device"))
            }
            stream::No::Unreadable => Error::new(
                Kind::Denied,
                format!(
                    "{user} may not read '{path}' on '{host}': name another user (ssh://root@{host}{path})"
                ),
            ),
            stream::No::Size => Error::new(
                Kind::Failed,
                format!("nobody on '{host}' tells how large '{path}' is: it has no blockdev (util-linux)"),
            ),
        }
    }

    /// Returns why ssh ended without what it was to bring.
    fn trouble(&self, ended: &Ended) -> Error {
        let public = || ssh::public_of(&self.credentials.join(KEY)).unwrap_or_else(|e| e.to_string());
        trouble::of(&self.remote, ended, public)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.remote)
    }
}
