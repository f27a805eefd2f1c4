//! Has a blade's file systems stand still for a moment, through its own sshd and by the appliance's own key: what is on its
//! disk then is what its programs have written, and whole.
//!
//! The blade thaws them when it is told, when the line to it ends, and after half a minute in any case.

use std::{
    fs::File,
    io::Write,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::mpsc,
};

use super::{
    folder::Folder,
    internal,
    remote::Remote,
    sandbox::{Sandbox, Seen},
    ssh::{self, Frozen, Order, Task},
};
use crate::{
    error::{Context, Error, Kind, Result},
    host::ssh::Keys,
    model::ImageName,
};

/// The most that is listened to.
const LONGEST: usize = 64 << 10;

/// A blade that is to stand still while its disk becomes an image.
#[derive(Debug, Clone)]
pub struct Freeze {
    /// The image's name.
    pub image: ImageName,
    /// Who logs in: root, or somebody who may use sudo without a password.
    pub user: String,
    /// The blade's address.
    pub address: IpAddr,
    /// The blade's sshd, where it is not at the usual port.
    pub port: u16,
    /// A folder that only root can enter, as an import's.
    pub folder: PathBuf,
    /// Our key, and the hosts that are known.
    pub keys: Keys,
}

impl Freeze {
    /// Freezes, calls `frozen`, and thaws when the other end of `release` is gone. Returns whether all stood still until
    /// then.
    ///
    /// # Errors
    /// Why nothing was frozen, with its fix where there is one; [`Kind::Failed`] where nobody knows how it ended.
    pub fn run(&self, frozen: &mut dyn FnMut(), release: &mpsc::Receiver<()>) -> Result<bool> {
        self.keys.check()?;
        let remote = self.remote()?;
        // Apart from those of imports, which are gone on with.
        let folder = Folder::make(&self.folder.join("freeze"), &self.image)?;
        let attempt = || "begin to talk to the blade".to_owned();
        let (input, mut hold) = std::io::pipe().attempt(attempt)?;
        let order = Order { remote: remote.to_string(), task: Task::Freeze };
        let mut line = serde_json::to_vec(&order).expect("words are JSON");
        line.push(b'\n');
        hold.write_all(&line).attempt(attempt)?;
        let (mut hold, mut said, mut told) = (Some(hold), vec![], false);
        let seen = Seen::Remote(self.keys.clone(), remote.to_string());
        let words = [internal::PROBE, internal::REMOTE];
        let sandbox = Sandbox::own(&self.image, &folder.root(), &words, &seen).within(ssh::FREEZE);
        sandbox.run_on(File::from(OwnedFd::from(input)), |piece| {
            said.extend_from_slice(piece);
            if said.len() > LONGEST {
                return Err(Error::invalid("the blade says more than it was asked"));
            }
            if !told && ssh::frozen(&said) == Some(Frozen::Yes) {
                told = true;
                frozen();
            }
            if release.try_recv() != Err(mpsc::TryRecvError::Empty) {
                // The end of its standard input is the blade's sign to thaw.
                hold = None;
            }
            Ok(())
        })?;
        match ssh::frozen(&said) {
            Some(Frozen::Thawed { held }) => Ok(held && told),
            _ => Err(Error::new(Kind::Failed, "the blade did not say how it ended")),
        }
    }

    fn remote(&self) -> Result<Remote> {
        // What is read there is the list of its mounts.
        let there = SocketAddr::new(self.address, self.port);
        let url = format!("ssh://{}@{there}/proc/self/mounts", self.user);
        url.parse()
            .map_err(|e: Error| e.while_doing(format!("reach the blade as '{}'", self.user.escape_debug())))
    }
}
