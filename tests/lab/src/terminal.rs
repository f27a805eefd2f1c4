//! A person at the terminal: raw mode while they type on a guest's console, and back to what it was afterwards.
//! Ctrl-] leaves, as in telnet; everything else, Ctrl-C included, goes to the guest.

use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::cache::Cache;
use crate::error::{Attempt, Error, Result};
use crate::phase::say;

/// Ctrl-].
const LEAVE: u8 = 0x1d;

/// The terminal in raw mode; dropping it brings back the old mode.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Puts the terminal into raw mode.
    ///
    /// # Errors
    /// When standard input is no terminal.
    pub fn enter() -> Result<Self> {
        if !stdin().is_terminal() {
            return Err(Error::new("use the terminal", "standard input is none"));
        }
        let before = tcgetattr(stdin()).attempt(|| "read the terminal's mode".to_owned())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).attempt(|| "set the terminal's mode".to_owned())?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone; there is then nothing to bring back.
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// Sends what the person types to `keyboard` until they press Ctrl-] or the guest is gone.
///
/// # Errors
/// When the terminal cannot be read.
pub fn type_on(mut keyboard: &UnixStream) -> Result<()> {
    let mut bytes = [0; 256];
    loop {
        let read = stdin().read(&mut bytes).attempt(|| "read the terminal".to_owned())?;
        let typed = &bytes[..read];
        let leave = typed.iter().position(|&byte| byte == LEAVE);
        let sent = keyboard.write_all(&typed[..leave.unwrap_or(read)]);
        if read == 0 || leave.is_some() || sent.is_err() {
            return Ok(());
        }
    }
}

/// Joins the terminal to the root shell of the appliance that was announced last, until Ctrl-].
///
/// # Errors
/// When no announced appliance runs.
pub fn shell() -> Result<()> {
    let announced = announcement(&Cache::open()?);
    let socket = std::fs::read_link(&announced).attempt(|| "find a running demo".to_owned())?;
    let stream =
        UnixStream::connect(&socket).attempt(|| format!("find a running demo at '{}'", socket.display()))?;
    say("the appliance's root shell; Ctrl-] leaves it");
    let mut screen = stream.try_clone().attempt(|| "share the shell".to_owned())?;
    let raw = Raw::enter()?;
    let printer = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = screen.read(&mut bytes) {
            let mut out = stdout().lock();
            if out.write_all(&bytes[..read]).and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    });
    // A fresh prompt, because the one that is there was printed before anyone looked.
    (&stream).write_all(b"\r").attempt(|| "type in the shell".to_owned())?;
    let typed = type_on(&stream);
    // Fails only when the guest has closed it.
    let _ = stream.shutdown(Shutdown::Both);
    let _ = printer.join();
    drop(raw);
    typed
}

/// Makes `shell` as the one that [`shell`] finds; the latest one counts.
///
/// # Errors
/// When the cache cannot be written.
pub fn announce(cache: &Cache, shell: &Path) -> Result<()> {
    let link = announcement(cache);
    // There may be none yet.
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(shell, &link).attempt(|| format!("make '{}'", link.display()))
}

fn announcement(cache: &Cache) -> PathBuf {
    cache.root().join("demo-shell")
}
