//! What the agent orders of our program in the sandbox, as JSON on its standard input: neither a path nor a host stands
//! in arguments, where systemd would look for variables.

use std::{fs::File, io::Read, os::fd::AsFd, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Link, There, What};
use crate::{
    error::{Context, Error, Kind, Result},
    image::{
        progress::Teller,
        unpack::{Start, Writer},
    },
    model::Bytes,
};

/// Tries in a row that bring nothing before it is given up.
const TRIES: u32 = 3;
/// The pause before the next try, and so much longer each time.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest order.
const LONGEST: u64 = 64 << 10;

/// One order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::image) struct Order {
    /// The file or disk, as its URL.
    pub(in crate::image) remote: String,
    /// What to do with it.
    pub(in crate::image) task: Task,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::image) enum Task {
    /// Look at it, and answer a [`There`].
    Look,
    /// Hand its bytes on from here.
    Read {
        /// What it is like.
        what: What,
        /// The first byte.
        from: u64,
    },
    /// Write its bytes to the device.
    Write {
        /// What it is like.
        what: What,
    },
    /// Have its machine's file systems stand still for as long as there is a standard input.
    Freeze,
}

/// Carries out the order on our standard input. `hand_on` takes what is answered.
///
/// # Errors
/// As [`Link`]'s; [`Kind::Invalid`] for what is no order.
pub(in crate::image) fn carry_out(device: &Path, mut hand_on: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut input =
        File::from(std::io::stdin().as_fd().try_clone_to_owned().attempt(|| "find the order".into())?);
    let json = line(&mut input)?;
    let order: Order = serde_json::from_slice(&json)
        .map_err(|e| Error::invalid("this command is for the agent itself").because(e))?;
    let link = Link::of_sandbox(order.remote.parse()?)?;
    match order.task {
        Task::Look => {
            let there: There = link.look()?;
            hand_on(&serde_json::to_vec(&there).expect("words and numbers are JSON"))
        }
        Task::Read { what, from } => link.read(&what, from, |piece| hand_on(piece)),
        Task::Write { what } => write(&link, &what, device),
        Task::Freeze => link.freeze(input, hand_on),
    }
}

/// Reads one line, or all there is: byte by byte, because what comes behind it is not ours.
fn line(input: &mut File) -> Result<Vec<u8>> {
    let (mut line, mut byte) = (vec![], [0]);
    while (line.len() as u64) < LONGEST
        && input.read(&mut byte).attempt(|| "read the order".into())? == 1
        && byte != *b"\n"
    {
        line.push(byte[0]);
    }
    Ok(line)
}

/// Writes all of it to the device. A line that breaks is taken up again where it was.
fn write(link: &Link, what: &What, device: &Path) -> Result<()> {
    let start = if what.device { Start::Any } else { Start::Raw };
    let mut writer = Writer::open(device, start)?;
    let (mut teller, mut vain) = (Teller::new(Bytes(what.size)), 0);
    loop {
        let (before, mut refused) = (writer.position(), false);
        let ended = link.read(what, before, |piece| {
            writer.take(piece).inspect_err(|_| refused = true)?;
            if piece.is_empty() { Ok(()) } else { teller.at(|| writer.position()) }
        });
        let Err(error) = ended else { break };
        vain = if writer.position() > before { 0 } else { vain + 1 };
        if refused || error.kind() != Kind::Failed {
            return Err(error);
        }
        if vain >= TRIES {
            return Err(error.while_doing(format!("given up after {TRIES} tries in a row")));
        }
        #[allow(clippy::disallowed_methods, reason = "a process of its own that has nothing else to do")]
        std::thread::sleep(PAUSE * vain.max(1));
    }
    writer.finish()?;
    teller.end()
}
