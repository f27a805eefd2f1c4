//! What an import needs before it can look at its image: the source itself, fetched or in sight, and the checksum that it should have.

use std::{fs::File, os::unix::fs::symlink, path::Path};

use super::{Import, Job, missing};
use crate::{
    error::{Context, Error, Result},
    host::disk::donor,
    image::{
        Source,
        checksum::{Algorithm, Check, Checksum},
        fetch::{self, Fetch},
        folder::Folder,
        internal,
        pull::Pull,
        remote::Remote,
        sandbox::{SOURCE, Seen},
        source::Url,
    },
    model::Bytes,
};

impl Job<'_, '_> {
    /// Returns the checksums that the file has to have.
    pub(super) fn expected(&mut self) -> Result<Vec<Checksum>> {
        let mut expected = vec![];
        for check in &self.import.checks {
            expected.push(match check {
                Check::Is(checksum) => checksum.clone(),
                Check::InList(list) => {
                    let attempt = || format!("find the checksum in '{list}'");
                    self.listed(list).map_err(|e| e.while_doing(attempt()))?
                }
            });
        }
        Ok(expected)
    }

    /// Looks the source's name up in a list.
    fn listed(&mut self, list: &Source) -> Result<Checksum> {
        let name = self.import.source.file_name();
        let name = name.ok_or_else(|| Error::invalid("the source has no name that a list could have"))?;
        match list {
            Source::Url(url) => curl(self.import, self.folder, url).list()?,
            Source::File(path) => link(path, &self.folder.list())?,
            Source::Device(_) | Source::Export(_) | Source::Donor(_) | Source::Remote(_) | Source::Lun(_) => {
                return Err(Error::invalid("a list is a file or a URL"));
            }
        }
        let args = [internal::PROBE, internal::LISTED, name, SOURCE];
        let said = self.ask(&args, &Seen::File(self.folder.list())).map_err(|e| missing(list, e))?;
        let _ = std::fs::remove_file(self.folder.list());
        said.trim().parse()
    }

    /// Makes the source something that a sandbox can see. A donor's disk is held: nobody mounts it meanwhile.
    pub(super) fn obtain(&mut self) -> Result<Option<File>> {
        match &self.import.source {
            Source::Url(url) => {
                let curl = curl(self.import, self.folder, url);
                fetch::fetch(&curl, self.folder, &mut self.watch).map(|()| None)
            }
            Source::File(path) => link(path, &self.folder.source()).map(|()| None),
            Source::Device(path) => {
                let (node, held) = donor::claim(path)?;
                self.seen = Seen::Device(node);
                Ok(Some(held))
            }
            Source::Export(export) => {
                self.seen = Seen::Export(export.clone());
                Ok(None)
            }
            Source::Donor(donor) => Err(Error::invalid(format!("'{donor}' is captured, not read"))),
            Source::Remote(remote) => self.obtain_remote(remote).map(|()| None),
            Source::Lun(lun) => {
                self.seen = Seen::Lun(lun.clone());
                Ok(None)
            }
        }
    }

    /// Looks what another machine has, and fetches it where it cannot go straight to its volume: what is to be compared
    /// with a checksum before, and what is no raw disk.
    fn obtain_remote(&mut self, remote: &Remote) -> Result<()> {
        let root = self.folder.root();
        let pull = pull(self.import, &root, remote);
        let there = pull.look(&self.watch)?;
        if there.raw && self.import.checks.is_empty() {
            self.seen = Seen::Remote(self.import.keys.clone(), remote.to_string());
        } else {
            fetch::fetch(&(&pull, &there), self.folder, &mut self.watch)?;
        }
        self.there = Some(there);
        Ok(())
    }

    /// Refuses a file that has another checksum than it should.
    pub(super) fn verify(&mut self, expected: &[Checksum]) -> Result<()> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut wanted = expected.iter().filter(|checksum| checksum.algorithm() == algorithm).peekable();
            if wanted.peek().is_none() {
                continue;
            }
            let found = self.sum(algorithm)?;
            if let Some(wrong) = wanted.find(|checksum| **checksum != found) {
                let text = format!("its {algorithm} checksum is {found}, and not {wrong} as it should be");
                return Err(Error::invalid(text));
            }
        }
        Ok(())
    }

    fn sum(&mut self, algorithm: Algorithm) -> Result<Checksum> {
        let (name, algorithm) = (self.seen.name(), algorithm.to_string());
        let sandbox = self.sandbox(&[internal::PROBE, internal::SUM, &algorithm, &name], &self.seen);
        let total = Bytes(self.folder.source().metadata().map_or(0, |file| file.len()));
        let (mut said, watch) = (String::new(), &mut self.watch);
        let ended = sandbox.run(vec![], |piece| {
            said.push_str(&String::from_utf8_lossy(piece));
            let lines = said.rfind('\n').map(|end| said[..end].to_owned());
            let done = lines.as_deref().and_then(|lines| lines.rsplit('\n').next()?.parse().ok());
            watch.checking(done.unwrap_or_default(), total)
        });
        ended.map_err(|e| missing(&self.import.source, e))?;
        said.lines().last().unwrap_or_default().parse()
    }
}

fn curl<'a>(import: &'a Import, folder: &'a Folder, url: &'a Url) -> Fetch<'a> {
    Fetch { image: &import.image.name, url, folder, stall: import.stall }
}

pub(super) fn pull<'a>(import: &'a Import, root: &'a Path, remote: &'a Remote) -> Pull<'a> {
    Pull { image: &import.image.name, remote, keys: &import.keys, root, stall: import.stall }
}

/// Makes `name` in our folder a link to a file.
///
/// Inside, and for systemd, the file has a name of ours, whatever its own has in it. It need not be visible from here: the
/// agent's own unit may hide home folders.
fn link(path: &Path, name: &Path) -> Result<()> {
    symlink(path, name).attempt(|| format!("link '{}'", path.display()))
}
