//! The capture of a donor's disk over the network: a machine in a slot copies it to a target of its own, we wait.
//!
//! ```text
//! create_image ─► target for a stand-in ─► the donor starts: iPXE ─► small Linux (workshop) ─► target: copy, verify
//!                                              reports ◄───────────────────────┘ (inside::capture)
//! target taken away ◄─ the last report ─► cut to the disk's size ─► GPT check ─► complete_image
//! ```
//!
//! The donor writes what it likes, as whoever hands us a file does: what it says moves a bar and ends the wait, and the
//! pool's fill is looked at by ourselves. An agent that was killed meanwhile finds volume and target again and waits on:
//! the donor has not noticed.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use super::{
    header::LARGEST,
    import::{Done, Whole, finish, room_for},
    limits::{Guard, look, written},
    watch::{Cancel, Watch, permyriad},
    workshop::{Flavour, Workshop},
};
use crate::{
    error::{Context, Error, Kind, Result},
    host::{
        Host,
        cmd::Tool,
        lvm::{Lvm, Restless},
    },
    model::{Bytes, DonorWord, ImageId, Imported, NetDonor, PoolUsage, VolumeState},
    plan::Step,
    status::ImportProgress,
};

/// How often it is looked whether the capture was cancelled.
const LOOK: Duration = Duration::from_millis(250);
/// Longest silence of a donor that has been told to start: kernel and initramfs are fetched and unpacked in it, by emulated
/// processors too; later it reports every two seconds.
const SILENCE: Duration = Duration::from_secs(900);

/// What the donor is lent, decided by policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lend {
    /// What serves the image's volume to it.
    pub serve: Vec<Step>,
    /// What ends that again, whatever of it is there.
    pub undo: Vec<Step>,
}

/// A capture that is to be made.
#[derive(Debug)]
pub struct Capture {
    /// The image.
    pub image: ImageId,
    /// Who it is.
    pub donor: NetDonor,
    /// What it is lent.
    pub lend: Lend,
    /// Whether the image may be chosen as soon as it is whole.
    pub publish: bool,
    /// No capture above this fill of the pool, in percent.
    pub watermark: u8,
    /// Where the donor's small Linux is made: blades fetch it from there.
    pub workshop: PathBuf,
    /// Whether an earlier agent has begun it.
    pub resumed: bool,
    /// What the donor says.
    pub words: Mutex<mpsc::Receiver<DonorWord>>,
}

impl Capture {
    /// Runs the capture, to the moment in which the image is whole, or nothing is left of it. Its volume is put to rest when the
    /// second of what is returned goes.
    ///
    /// # Errors
    /// [`Kind::Full`] where the pool is, [`Kind::Missing`] where the workshop cannot be made, [`Kind::Timeout`] for a donor
    /// that falls silent, [`Kind::Invalid`] for a disk that is no image, [`Kind::Denied`] when it was cancelled; else what
    /// failed.
    pub fn run<'a>(
        &self,
        host: &dyn Host,
        lvm: &'a Lvm,
        cancel: &Cancel,
        progress: &mut dyn FnMut(ImportProgress),
    ) -> Result<(Whole, Restless<'a>)> {
        let mut watch = Watch::new(cancel, progress);
        let ended = self.capture(host, lvm, &mut watch);
        let (size, (tags, restless)) = ended
            .map_err(|e| e.while_doing(format!("capture image '{}' from {}", self.image, self.donor)))?;
        let (source, format) = (self.donor.to_string(), Some("raw".to_owned()));
        let found = Imported { source, format, size: Some(size), sha256: None, caution: None };
        Ok((Whole { found, tags }, restless))
    }

    fn capture<'a>(&self, host: &dyn Host, lvm: &'a Lvm, watch: &mut Watch<'_>) -> Result<(Bytes, Done<'a>)> {
        let pool = look(lvm, self.watermark)?;
        [Tool::Iscsistart, Tool::Partclone].iter().try_for_each(|tool| tool.check())?;
        Workshop::make_while(&self.workshop, Flavour::Donor, |long| watch.wait(long))?;
        let device = self.volume(host, lvm)?;
        // From here on the volume is ours to take away: before, it may be somebody's finished image.
        self.fill(host, lvm, (&device, pool), watch).inspect_err(|error| {
            if !watch.leaves(error) {
                self.undo(host);
                // Should this fail too, the tag says that it is half-made, and the agent takes it away.
                let _ = lvm.remove_image(&self.image);
            }
        })
    }

    /// Lets the donor fill the volume and finishes it; returns the size of the donor's disk.
    fn fill<'a>(
        &self,
        host: &dyn Host,
        lvm: &'a Lvm,
        (device, pool): (&Path, PoolUsage),
        watch: &mut Watch<'_>,
    ) -> Result<(Bytes, Done<'a>)> {
        self.lend.serve.iter().try_for_each(|step| host.run(step).map(drop))?;
        watch.awaiting(self.donor.slot)?;
        let size = self.listen(lvm, device, pool, watch)?;
        self.undo(host);
        lvm.cut_image(&self.image, room_for(size))?;
        finish(lvm, watch, device, (&self.image, self.publish)).map(|done| (size, done))
    }

    /// Returns the image's device: what an earlier agent has begun, or a new one. How large it has to be shows at the end; a
    /// thin volume takes only what is written to it.
    fn volume(&self, host: &dyn Host, lvm: &Lvm) -> Result<PathBuf> {
        let lv = self.image.lv_name();
        let device = lvm.device(&lv);
        if self.resumed && device.exists() {
            let volumes = lvm.volumes()?;
            if volumes.volumes.get(&lv).is_some_and(|volume| volume.state == VolumeState::Making) {
                return Ok(device);
            }
        }
        self.undo(host);
        lvm.create_image(&self.image, room_for(LARGEST))
    }

    /// Hears the donor to its end, and returns its disk's size.
    fn listen(&self, lvm: &Lvm, device: &Path, pool: PoolUsage, watch: &mut Watch<'_>) -> Result<Bytes> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let node = device.canonicalize().attempt(|| format!("find device '{}'", device.display()))?;
        let (mut guard, mut heard) = (Guard::new(pool, self.watermark), None);
        loop {
            match words.recv_timeout(LOOK) {
                Ok(DonorWord::Done { size }) => return sane(size),
                Ok(DonorWord::Failed { error }) => {
                    return Err(Error::new(Kind::Failed, format!("the donor says: {error}")));
                }
                Ok(word) => {
                    heard = Some(Instant::now());
                    show(&word, watch)?;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(Error::new(Kind::Failed, "nobody can hear the donor any more"));
                }
            }
            watch.check()?;
            not_silent(heard)?;
            guard.admit(lvm, written(&node)?)?;
        }
    }

    /// Ends the serving, each step whatever becomes of the others.
    fn undo(&self, host: &dyn Host) {
        for step in &self.lend.undo {
            let _ = host.run(step);
        }
    }
}

/// Shows what the donor says as an import's progress.
fn show(word: &DonorWord, watch: &mut Watch<'_>) -> Result<()> {
    match word {
        DonorWord::Copying { done, total } => watch.writing(permyriad(*done, *total), *done),
        DonorWord::Verifying { done, total } => watch.checking(done.0, *total),
        DonorWord::Told | DonorWord::Done { .. } | DonorWord::Failed { .. } => Ok(()),
    }
}

fn not_silent(heard: Option<Instant>) -> Result<()> {
    if heard.is_none_or(|at| at.elapsed() < SILENCE) {
        return Ok(());
    }
    let seconds = SILENCE.as_secs();
    Err(Error::new(Kind::Timeout, format!("the donor has said nothing for {seconds} s: look at its console")))
}

fn sane(size: Bytes) -> Result<Bytes> {
    if size.0 == 0 || size > LARGEST {
        return Err(Error::invalid(format!("the donor's disk is said to have {}", size.human())));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_donor_says_is_a_bar_and_never_more_than_all() {
        let (cancel, mut heard) = (Cancel::default(), vec![]);
        let mut keep = |progress| heard.push(progress);
        let mut watch = Watch::new(&cancel, &mut keep);
        show(&DonorWord::Told, &mut watch).unwrap();
        show(&DonorWord::Copying { done: Bytes(u64::MAX), total: Bytes(0) }, &mut watch).unwrap();
        show(&DonorWord::Verifying { done: Bytes(1), total: Bytes(2) }, &mut watch).unwrap();
        assert!(matches!(heard[0], ImportProgress::Writing { permyriad: 10_000, .. }), "{heard:?}");
        assert!(matches!(heard[1], ImportProgress::Checking { permyriad: 5_000, .. }), "{heard:?}");
    }

    #[test]
    fn a_donor_that_was_never_told_may_be_silent_for_ever_and_another_not() {
        not_silent(None).unwrap();
        not_silent(Some(Instant::now())).unwrap();
        let long_ago = Instant::now().checked_sub(SILENCE).unwrap();
        assert_eq!(not_silent(Some(long_ago)).unwrap_err().kind(), Kind::Timeout);
    }

    #[test]
    fn a_size_that_no_disk_has_is_refused() {
        assert!(sane(Bytes(0)).is_err() && sane(Bytes(LARGEST.0 + 1)).is_err());
        assert_eq!(sane(Bytes::gib(2)).unwrap(), Bytes::gib(2));
    }
}
