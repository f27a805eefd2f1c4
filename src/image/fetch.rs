//! Fetches an image from a URL or another machine into a file of ours. What fetches (curl, or `pull`'s) runs in its sandbox
//! and writes to a pipe; the file is ours.
//!
//! A transfer that breaks off goes on where it was, as long as the server says that the file is still the same (`ETag` or
//! `Last-Modified`); so does one that a killed agent has left. A source that says nothing is given up after some tries.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    folder::Folder,
    pull::Pull,
    sandbox::{Sandbox, exit_status},
    source::Url,
    ssh::There,
    watch::Watch,
};
use crate::{
    error::{Context, Error, Kind, Result},
    host::file,
    model::{Bytes, ImageName},
};

/// Longest time for a fetch: 100 GiB over a slow line.
const FETCH: Duration = Duration::from_secs(24 * 3600);
/// Longest time to ask how large it is.
const ASK: Duration = Duration::from_secs(60);
/// Tries in a row that bring nothing, or that have to begin anew, before it is given up.
const TRIES: u32 = 3;
/// The pause before the next try, and so much longer each time.
const PAUSE: Duration = Duration::from_secs(2);
/// A source that brings less than so many bytes a second is as good as silent.
const LEAST_RATE: u32 = 1000;
/// Longest list of checksums.
const LONGEST_LIST: usize = 4 << 20;
/// curl's word for a server that cannot go on where it was.
const NO_RANGES: u8 = 33;
/// curl's word for a source that is silent.
const TOO_SLOW: u8 = 28;
/// curl's words for what may be gone at the next try: no name, no connection, a broken one.
const PASSING: [u8; 11] = [5, 6, 7, 16, 18, TOO_SLOW, 35, 52, 55, 56, 92];

/// Where a file comes from, by its own means.
pub(super) trait Origin {
    /// Says what it is, as far as anybody knows.
    fn about(&self) -> About;

    /// Fetches what is missing.
    ///
    /// # Errors
    /// What broke off; the caller's wish to stop.
    fn go_on(&self, part: &mut Part, watch: &mut Watch<'_>) -> Result<()>;

    /// Returns whether the next try may do better.
    fn passes(&self, error: &Error) -> bool;

    /// Returns whether it was silent for too long.
    fn stalled(&self, error: &Error) -> bool;

    /// Returns how long it may be silent.
    fn stall(&self) -> Duration;
}

/// Fetches a file into the folder's source, telling how far it is.
///
/// # Errors
/// The failure of what fetches it; [`Kind::Timeout`] for a source that is silent, [`Kind::Full`] where the folder's file
/// system is; the caller's wish to stop.
pub(super) fn fetch(origin: &impl Origin, folder: &Folder, watch: &mut Watch<'_>) -> Result<()> {
    let mut part = Part::open(folder, origin.about())?;
    part.tell(watch)?;
    let (mut vain, mut again) = (0, 0);
    while !part.is_whole() {
        let before = part.done;
        let Err(error) = origin.go_on(&mut part, watch) else { break };
        watch.check()?;
        vain = if part.done > before { 0 } else { vain + 1 };
        if exit_status(&error) == Some(NO_RANGES) || !part.may_go_on() {
            again += 1;
            part = Part::anew(folder, origin.about())?;
        } else if !origin.passes(&error) {
            return Err(error);
        }
        if vain.max(again) >= TRIES {
            return Err(given_up(origin, error));
        }
        watch.wait(PAUSE * vain.max(again))?;
    }
    part.finish(folder)
}

fn given_up(origin: &impl Origin, error: Error) -> Error {
    if origin.stalled(&error) {
        let silent = origin.stall().as_secs();
        let text = format!("the source has stalled: silent for {silent} s, {TRIES} times in a row");
        return Error::new(Kind::Timeout, text).because(error);
    }
    Error::new(Kind::Failed, format!("given up after {TRIES} tries in a row")).because(error)
}

/// A file or disk of another machine that has been looked at.
impl Origin for (&Pull<'_>, &There) {
    fn about(&self) -> About {
        self.0.about(self.1)
    }

    fn go_on(&self, part: &mut Part, watch: &mut Watch<'_>) -> Result<()> {
        self.0.go_on(self.1, part, watch)
    }

    fn passes(&self, error: &Error) -> bool {
        matches!(error.kind(), Kind::Failed | Kind::Timeout)
    }

    fn stalled(&self, error: &Error) -> bool {
        error.kind() == Kind::Timeout
    }

    fn stall(&self) -> Duration {
        self.0.stall
    }
}

/// A fetch by curl: whose, from where, to where, and how long the source may be silent.
pub(super) struct Fetch<'a> {
    pub(super) image: &'a ImageName,
    pub(super) url: &'a Url,
    pub(super) folder: &'a Folder,
    pub(super) stall: Duration,
}

impl Origin for Fetch<'_> {
    fn go_on(&self, part: &mut Part, watch: &mut Watch<'_>) -> Result<()> {
        let sandbox = Sandbox::curl(self.image, &self.folder.root(), FETCH);
        sandbox.run(self.config(&part.range()), |piece| {
            part.take(piece)?;
            part.tell(watch)
        })
    }

    /// Asks. Servers may not say; then nobody knows until the end.
    fn about(&self) -> About {
        let more = "head\noutput = \"/dev/null\"\n\
            write-out = \"%header{content-length}\\n%header{etag}\\n%header{last-modified}\\n\"\n";
        let mut said = vec![];
        let sandbox = Sandbox::curl(self.image, &self.folder.root(), ASK);
        let asked = sandbox.run(self.config(more), |piece| {
            said.extend_from_slice(piece);
            Ok(())
        });
        let said = if asked.is_ok() { String::from_utf8_lossy(&said).into_owned() } else { String::new() };
        About::read(hash(self.url.as_str()), &said)
    }

    fn passes(&self, error: &Error) -> bool {
        passes(error)
    }

    fn stalled(&self, error: &Error) -> bool {
        exit_status(error) == Some(TOO_SLOW)
    }

    fn stall(&self) -> Duration {
        self.stall
    }
}

impl Fetch<'_> {
    /// Fetches a list of checksums.
    ///
    /// # Errors
    /// curl's failure; [`Kind::Invalid`] for what is longer than any list.
    pub(super) fn list(&self) -> Result<()> {
        let (path, mut list) = (self.folder.list(), vec![]);
        let sandbox = Sandbox::curl(self.image, &self.folder.root(), ASK);
        sandbox.run(self.config(""), |piece| {
            list.extend_from_slice(piece);
            if list.len() > LONGEST_LIST {
                return Err(Error::invalid("the list of checksums is longer than any list"));
            }
            Ok(())
        })?;
        file::save(&path, &list, 0o600)
    }

    /// Returns curl's configuration: only http and https, also after a redirect; gives up on a line that says nothing.
    ///
    /// The URL stands here and not among the arguments, where every user of the machine could read its password.
    fn config(&self, more: &str) -> Vec<u8> {
        format!(
            "url = \"{}\"\nproto = \"=http,https\"\nproto-redir = \"=http,https\"\ngloboff\nfail\nlocation\n\
             max-redirs = 5\nsilent\nshow-error\nconnect-timeout = 30\nspeed-limit = {LEAST_RATE}\nspeed-time = {}\n{more}",
            self.url.as_str(),
            self.stall.as_secs().max(1),
        )
        .into_bytes()
    }
}

/// Returns what stands for a URL on the disk: there may be a password in it.
fn hash(url: &str) -> String {
    format!("{:x?}", Sha256::digest(url))
}

/// Returns whether curl's next try may do better.
fn passes(error: &Error) -> bool {
    let text = error.to_string();
    let busy = ["error: 5", "error: 429"].iter().any(|words| text.contains(words));
    exit_status(error).is_some_and(|status| PASSING.contains(&status) || (status == 22 && busy))
}

/// What a server says of a file. Kept beside the part that is here, for whoever goes on with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// The URL's hash: it may have a password in it.
    url: String,
    /// How large the file is.
    total: Option<Bytes>,
    /// What is another when the file is.
    version: Option<String>,
}

impl About {
    /// Returns what another machine has said of a file.
    pub(super) fn of(url: &str, total: Option<Bytes>, version: Option<String>) -> Self {
        Self { url: hash(url), total, version }
    }

    /// Reads curl's three lines.
    fn read(url: String, said: &str) -> Self {
        let mut lines = said.lines().map(str::trim);
        let total = lines.next().and_then(|length| length.parse().ok()).map(Bytes);
        let plain = |text: &&str| !text.is_empty() && text.len() <= 200 && text.chars().all(harmless);
        let etag = lines.next().filter(plain).filter(|etag| etag.starts_with('"'));
        let version = etag.or(lines.next().filter(plain)).map(str::to_owned);
        Self { url, total, version }
    }
}

/// Returns whether the character ends nothing in curl's configuration, once quotation marks are escaped.
fn harmless(c: char) -> bool {
    c.is_ascii_graphic() && c != '\\' || c == ' '
}

/// The part of the source that is here.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    done: u64,
    about: About,
}

impl Part {
    /// Goes on with what is there of the same file, or begins.
    fn open(folder: &Folder, about: About) -> Result<Self> {
        let (path, beside) = (folder.part(), folder.part_about());
        let known: Option<About> = fs::read(&beside).ok().and_then(|json| serde_json::from_slice(&json).ok());
        let here = path.metadata().map_or(0, |found| found.len());
        let fits = about.total.is_none_or(|total| here <= total.0);
        if known.as_ref() != Some(&about) || about.version.is_none() || !fits {
            return Self::anew(folder, about);
        }
        let attempt = || format!("go on with '{}'", path.display());
        let mut file = File::options().write(true).open(&path).attempt(attempt)?;
        let done = file.seek(SeekFrom::End(0)).attempt(attempt)?;
        room(&path, &about, done)?;
        Ok(Self { path, file, done, about })
    }

    fn anew(folder: &Folder, about: About) -> Result<Self> {
        let path = folder.part();
        let file = File::create(&path).attempt(|| format!("make '{}'", path.display()))?;
        room(&path, &about, 0)?;
        let json = serde_json::to_vec(&about).expect("text and numbers are JSON");
        file::save(&folder.part_about(), &json, 0o600)?;
        Ok(Self { path, file, done: 0, about })
    }

    /// Returns how much is here.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Tells how far it is.
    pub(super) fn tell(&self, watch: &mut Watch<'_>) -> Result<()> {
        watch.fetching(self.done, self.about.total)
    }

    /// Keeps a piece.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<()> {
        self.file.write_all(piece).attempt(|| format!("write '{}'", self.path.display()))?;
        self.done += piece.len() as u64;
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.about.total.is_some_and(|total| total.0 == self.done)
    }

    fn may_go_on(&self) -> bool {
        self.done == 0 || self.about.version.is_some()
    }

    /// Returns what makes curl fetch the rest, of this very file only.
    fn range(&self) -> String {
        match &self.about.version {
            Some(version) if self.done > 0 => {
                let version = version.replace('"', "\\\"");
                format!("continue-at = {}\nheader = \"If-Range: {version}\"\n", self.done)
            }
            _ => String::new(),
        }
    }

    fn finish(self, folder: &Folder) -> Result<()> {
        if self.about.total.is_some_and(|total| total.0 != self.done) {
            return Err(Error::new(Kind::Failed, format!("the source ended after {} bytes", self.done)));
        }
        fs::rename(&self.path, folder.source()).attempt(|| format!("keep '{}'", self.path.display()))
    }
}

/// Refuses a file that its folder has no room for, before it fills the file system that the agent's own state is on.
fn room(path: &Path, about: &About, done: u64) -> Result<()> {
    let Some(total) = about.total else { return Ok(()) };
    let folder = path.parent().unwrap_or(path);
    let found = statvfs(folder).attempt(|| format!("look at '{}'", folder.display()))?;
    let free = found.blocks_available().saturating_mul(found.fragment_size());
    if total.0.saturating_sub(done) > free {
        return Err(Error::new(
            Kind::Full,
            format!(
                "the file of {} does not fit into '{}', where {} are free",
                total.human(),
                folder.display(),
                Bytes(free).human()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
