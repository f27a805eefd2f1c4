//! Imports on threads of their own: started, cancelled, and gone on with after a restart.
//!
//! What was asked for is noted in the import's folder before anything is done, for root alone: a URL may have a password
//! in it. It goes when the line has told the import's end, or when the import is cancelled; a note that is still there is of
//! an import that was cut off with its agent, or was over and not told: it begins again with what is fetched already, and ends
//! at once where its image is whole.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use serde::{Deserialize, Serialize};

use super::core::{Event, ImportOrder};
use crate::{
    control::api::ImportRequest,
    error::{Error, Kind, Result},
    host::{file, live::Live, ssh::Keys},
    image::{Cancel, Capture, Check, Folder, Import, Lend, STALL},
    model::{DonorWord, ImageId, ImageName, NetDonor},
    status::ImportProgress,
};

/// How often an import may be cut off before it is given up: it may be what ends the agent.
const MOST_STARTS: u32 = 3;

/// What is noted of an import.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// How often it has begun.
    starts: u32,
    /// The version that it makes.
    image: ImageId,
    request: ImportRequest,
}

/// Carries imports out.
pub(super) struct Imports {
    pub(super) live: Arc<Live>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) folder: PathBuf,
    /// Where the small Linux for donors is made.
    pub(super) cache: PathBuf,
    pub(super) watermark: u8,
    pub(super) running: Running,
}

/// The imports that run, and how each is told to stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Running(Arc<Mutex<BTreeMap<ImageName, One>>>);

/// One of them.
#[derive(Debug)]
struct One {
    cancel: Cancel,
    /// Where its donor's words go.
    words: Option<mpsc::Sender<DonorWord>>,
}

impl Running {
    /// Tells all of them that the agent is ending.
    pub(super) fn leave(&self) {
        self.lock().values().for_each(|one| one.cancel.leave());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ImageName, One>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Imports {
    /// Begins an import, or tells one to stop.
    pub(super) fn order(&self, order: ImportOrder) {
        match order {
            ImportOrder::Start(image, request) => self.start(image, request, None),
            ImportOrder::Capture(image, request, donor, lend) => {
                self.start(image, request, Some((donor, lend)))
            }
            ImportOrder::Word(name, word) => {
                if let Some(words) = self.running.lock().get(&name).and_then(|one| one.words.as_ref()) {
                    // One that has just ended hears no more.
                    let _ = words.send(word);
                }
            }
            ImportOrder::Cancel(name) => {
                // First of all, so that no agent goes on with it, whatever becomes of this one.
                Folder::forsake(&self.folder, &name);
                if let Some(one) = self.running.lock().get(&name) {
                    one.cancel.cancel();
                }
            }
            ImportOrder::Forget(name) => Folder::forget(&self.folder, &name),
        }
    }

    /// Starts an import on a thread of its own: it lasts minutes.
    fn start(&self, image: ImageId, request: ImportRequest, lend: Option<(NetDonor, Lend)>) {
        let (live, events, running) = (self.live.clone(), self.events.clone(), self.running.clone());
        let (folder, watermark, cancel) = (self.folder.clone(), self.watermark, Cancel::default());
        let (words, heard) = mpsc::channel();
        let one = One { cancel: cancel.clone(), words: lend.is_some().then_some(words) };
        running.lock().insert(request.name.clone(), one);
        let cache = self.cache.clone();
        std::thread::spawn(move || {
            let publish = request.publish;
            let tell = |progress| drop(events.send(Event::Import(image.clone(), publish, progress)));
            let noted = note(&folder, &image, &request);
            let outcome = noted.and_then(|starts| {
                let ended = match lend {
                    Some((donor, lend)) => {
                        let (image, publish) = (image.clone(), request.publish);
                        let (resumed, words) = (starts > 1, Mutex::new(heard));
                        Capture { image, donor, lend, publish, watermark, workshop: cache, resumed, words }
                            .run(&*live, live.lvm(), &cancel, &mut |progress| tell(progress))
                            .map(Some)
                    }
                    None => import(&image, &request, (&folder, watermark)).and_then(|import| {
                        import.run(live.lvm(), &cancel, &mut |progress| tell(progress)).map(Some)
                    }),
                };
                unless_finished_before(ended, starts)
            });
            running.lock().remove(&image.name);
            if cancel.is_leaving() {
                return;
            }
            match outcome {
                Ok(Some((whole, restless))) => {
                    if let Some(caution) = &whole.found.caution {
                        log::warn!("image '{image}': {caution}");
                    }
                    let _ = events.send(Event::Imported(image.clone(), whole));
                    tell(ImportProgress::Done);
                    // Nobody waits for its rest but who comes next with a command for LVM.
                    drop(restless);
                }
                Ok(None) => tell(ImportProgress::Done),
                Err(error) => tell(ImportProgress::Failed { error: error.chain(), kind: error.kind() }),
            }
        });
    }
}

/// An agent may be killed between the last step of an import and its note's end.
fn unless_finished_before<T>(ended: Result<Option<T>>, starts: u32) -> Result<Option<T>> {
    match ended {
        Err(error) if error.kind() == Kind::Exists && starts > 1 => Ok(None),
        ended => ended,
    }
}

fn import(image: &ImageId, request: &ImportRequest, (folder, watermark): (&Path, u8)) -> Result<Import> {
    let ImportRequest { name: _, source, publish, sha256, checksum, unproved: _ } = request;
    let attempt = |e: Error| e.while_doing(format!("import image '{image}'"));
    let is = sha256.iter().map(|hex| hex.parse().map(Check::Is));
    let in_list = checksum.iter().map(|list| list.parse().map(Check::InList));
    Ok(Import {
        image: image.clone(),
        source: source.parse().map_err(attempt)?,
        checks: is.chain(in_list).collect::<Result<_>>().map_err(attempt)?,
        publish: *publish,
        folder: folder.to_owned(),
        watermark,
        stall: STALL,
        keys: Keys::default(),
    })
}

/// Notes what was asked for, and returns how often it has begun now.
fn note(folder: &Path, image: &ImageId, request: &ImportRequest) -> Result<u32> {
    let path = Folder::note(folder, &request.name)?;
    let before = read(&path).filter(|note| note.request == *request).map_or(0, |note| note.starts);
    // What a donor copies does not pass through the agent, and waits for days where nobody starts the donor.
    let may_be_the_cause = !request.source.starts_with(NetDonor::SCHEME);
    if may_be_the_cause && before >= MOST_STARTS {
        let text = format!("import image '{image}': cut off {before} times with the agent, given up");
        return Err(Error::new(Kind::Failed, text));
    }
    let note = Note { starts: before + 1, image: image.clone(), request: request.clone() };
    let json = serde_json::to_vec(&note).expect("a request is plain data");
    file::save(&path, &json, 0o600).map(|()| note.starts)
}

fn read(path: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Returns what was being imported when the agent ended. What cannot be read is taken away.
pub(super) fn left(folder: &Path) -> Vec<(ImageId, ImportRequest)> {
    let notes = Folder::left(folder).into_iter();
    let requests = notes.filter_map(|path| {
        let note = read(&path);
        if note.is_none() {
            log::warn!("'{}' cannot be read: that import is not gone on with", path.display());
            Folder::discard(&path);
        }
        note
    });
    requests.map(|note| (note.image, note.request)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(source: &str) -> ImportRequest {
        let name = "a".parse().unwrap();
        ImportRequest {
            name,
            source: source.into(),
            publish: true,
            sha256: None,
            checksum: None,
            unproved: true,
        }
    }

    fn image() -> ImageId {
        "a@2".parse().unwrap()
    }

    #[test]
    fn what_was_asked_for_outlives_the_agent_and_is_given_up_after_some_starts() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        for start in 1..=MOST_STARTS {
            assert_eq!(note(folder.path(), &image(), &request("https://u:p@h/x")).unwrap(), start);
            assert_eq!(left(folder.path()), [(image(), request("https://u:p@h/x"))]);
        }
        let mode = folder.path().join("import-a/request.json").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            note(folder.path(), &image(), &request("https://u:p@h/x")).unwrap_err().kind(),
            Kind::Failed
        );
        // Another wish is a new beginning.
        assert_eq!(note(folder.path(), &image(), &request("/x")).unwrap(), 1);
        Folder::forget(folder.path(), &"a".parse().unwrap());
        assert!(left(folder.path()).is_empty());
    }

    #[test]
    fn a_capture_waits_for_its_donor_however_often_the_agent_restarts() {
        let folder = tempfile::tempdir().unwrap();
        for start in 1..=3 * MOST_STARTS {
            assert_eq!(note(folder.path(), &image(), &request("slot:4")).unwrap(), start);
        }
    }

    #[test]
    fn a_note_that_cannot_be_read_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = Folder::note(folder.path(), &"a".parse().unwrap()).unwrap();
        file::save(&path, b"{", 0o600).unwrap();
        assert!(left(folder.path()).is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_request_becomes_an_import_or_an_error() {
        let whole = |sha256: &str, checksum: &str| ImportRequest {
            sha256: Some(sha256.into()),
            checksum: Some(checksum.into()),
            ..request("/srv/x.raw")
        };
        let import = |request| super::import(&image(), &request, (Path::new("/var/lib/sheath"), 90));
        assert_eq!(import(whole(&"ab".repeat(32), "https://h/SHA256SUMS")).unwrap().checks.len(), 2);
        for bad in [whole("ab", "/x"), whole(&"ab".repeat(32), "ftp://h/x"), request("x.raw")] {
            assert_eq!(import(bad).unwrap_err().kind(), Kind::Invalid);
        }
    }

    #[test]
    fn an_image_that_is_there_after_a_restart_was_finished_by_the_one_before() {
        let exists = || Err::<Option<()>, _>(Error::new(Kind::Exists, "image 'a' exists"));
        assert!(unless_finished_before(exists(), 2).is_ok());
        assert!(unless_finished_before(exists(), 1).is_err());
        assert!(unless_finished_before::<()>(Err(Error::invalid("x")), 2).is_err());
    }
}
