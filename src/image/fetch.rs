//! Fetches an image from a URL into a file of ours. curl runs in its sandbox and writes to a pipe; the file is ours.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    import::{Folder, Watch},
    sandbox::Sandbox,
    source::Url,
};
use crate::{
    error::{Context, Error, Result},
    model::{Bytes, ImageName},
    status::ImportProgress,
};

/// Longest time for a fetch: 100 GiB over a slow line.
const FETCH: Duration = Duration::from_secs(24 * 3600);
/// Longest time to ask how large it is.
const ASK: Duration = Duration::from_secs(60);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(250);

/// Fetches the URL into the folder's source, telling how far it is.
///
/// # Errors
/// curl's failure; [`Kind::Full`](crate::error::Kind::Full) where the folder's file system is; the caller's wish to stop.
pub(super) fn fetch(image: &ImageName, url: &Url, folder: &Folder, watch: &mut Watch<'_>) -> Result<()> {
    let (path, total) = (&folder.source(), length(image, url, folder));
    watch.tell(ImportProgress::Fetching { done: Bytes(0), total })?;
    let file = File::create_new(path).attempt(|| format!("make '{}'", path.display()))?;
    let mut sink = Sink { file, done: 0, total, told: Instant::now(), failure: None };
    let sandbox = Sandbox::curl(image, &folder.root(), FETCH);
    let ended = sandbox.run(config(url, ""), |piece| {
        if sink.failure.is_none() {
            sink.take(piece, path, watch);
            if sink.failure.is_some() {
                sandbox.stop();
            }
        }
    });
    match sink.failure {
        Some(failure) => Err(failure),
        None => ended,
    }
}

/// Where the pieces go.
struct Sink {
    file: File,
    done: u64,
    total: Option<Bytes>,
    told: Instant,
    failure: Option<Error>,
}

impl Sink {
    fn take(&mut self, piece: &[u8], path: &Path, watch: &mut Watch<'_>) {
        self.failure = self.write(piece, path).and_then(|()| self.tell(watch)).err();
    }

    fn write(&mut self, piece: &[u8], path: &Path) -> Result<()> {
        self.file.write_all(piece).attempt(|| format!("write '{}'", path.display()))?;
        self.done += piece.len() as u64;
        Ok(())
    }

    fn tell(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        if self.told.elapsed() < TELL {
            return Ok(());
        }
        self.told = Instant::now();
        watch.tell(ImportProgress::Fetching { done: Bytes(self.done), total: self.total })
    }
}

/// Asks how large it is. Servers may not say; then nobody knows until the end.
fn length(image: &ImageName, url: &Url, folder: &Folder) -> Option<Bytes> {
    let more = "head\noutput = \"/dev/null\"\nwrite-out = \"%header{content-length}\"\n";
    let mut said = vec![];
    let sandbox = Sandbox::curl(image, &folder.root(), ASK);
    sandbox.run(config(url, more), |piece| said.extend_from_slice(piece)).ok()?;
    String::from_utf8_lossy(&said).trim().parse().ok().map(Bytes)
}

/// Returns curl's configuration: only http and https, also after a redirect; gives up on a line that says nothing.
///
/// The URL stands here and not among the arguments, where every user of the machine could read its password.
fn config(url: &Url, more: &str) -> Vec<u8> {
    format!(
        "url = \"{}\"\nproto = \"=http,https\"\nproto-redir = \"=http,https\"\ngloboff\nfail\nlocation\nmax-redirs = 5\n\
         silent\nshow-error\nconnect-timeout = 30\nspeed-limit = 1000\nspeed-time = 60\n{more}",
        url.as_str()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Source;

    #[test]
    fn the_url_is_one_line_of_the_configuration() {
        let Source::Url(url) = "https://h/a?b=$c#d".parse().unwrap() else { panic!("a URL") };
        let text = String::from_utf8(config(&url, "head\n")).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("url")).count(), 1);
        assert!(text.starts_with("url = \"https://h/a?b=$c#d\"\n") && text.ends_with("head\n"));
        assert!(text.lines().all(|line| line == line.trim()), "{text}");
    }
}
