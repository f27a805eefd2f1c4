//! An open file, handed over to a process that runs already.
//!
//! What copies takes as long to start as LVM takes to make a volume. So it starts first, and is given the volume when both are
//! ready: by its standard input, a socket that carries the open file (unix(7), `SCM_RIGHTS`). It needs no right to open
//! anything then.

use std::{
    fs::File,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixStream,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::error::{Context, Result};

/// Something has to be sent that the open file travels with.
const BYTE: [u8; 1] = *b"d";

/// Returns the giving end, and the one that becomes a child's standard input.
pub(super) fn pair() -> Result<(UnixStream, File)> {
    let (giving, taking) = UnixStream::pair().attempt(|| "make a socket for a child".into())?;
    Ok((giving, File::from(OwnedFd::from(taking))))
}

/// Hands the file over; whoever takes it has it open then.
pub(super) fn give(giving: &UnixStream, file: &File) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    let fits = control.push(SendAncillaryMessage::ScmRights(&files));
    debug_assert!(fits, "the space is made for one");
    sendmsg(giving, &[IoSlice::new(&BYTE)], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(std::io::Error::from)
        .attempt(|| "hand an open file over to a child".into())
}

/// Waits for the file; `None` where the giver has thought better of it.
pub(super) fn take(taking: impl AsFd) -> Result<Option<File>> {
    let (mut space, mut byte) = ([MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))], BYTE);
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(taking, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(std::io::Error::from)
        .attempt(|| "wait for an open file".into())?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(files.flatten().next().map(File::from))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn a_file_that_is_handed_over_is_the_same_file_and_none_comes_from_who_goes_away() {
        let (giving, taking) = pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"words").unwrap();
        give(&giving, &file).unwrap();
        let mut taken = take(&taking).unwrap().unwrap();
        taken.rewind().unwrap();
        let mut read = String::new();
        taken.read_to_string(&mut read).unwrap();
        assert_eq!(read, "words");
        drop(giving);
        assert!(take(&taking).unwrap().is_none());
    }

    #[test]
    fn who_gives_to_nobody_is_told_and_not_killed() {
        let (giving, taking) = pair().unwrap();
        drop(taking);
        give(&giving, &tempfile::tempfile().unwrap()).unwrap_err();
    }
}
