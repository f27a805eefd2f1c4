//! What happened, told three ways at once: the journal, `sheath events`, and whoever follows.
//!
//! Lines about a blade carry the fields SHEATH_SLOT, SHEATH_BLADE, SHEATH_IMAGE and a MESSAGE_ID of their kind, so that
//! `journalctl -u sheathd SHEATH_SLOT=3` works. Kinds are stable words for scripts.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::broadcast;

use crate::{
    model::{BladeId, ImageName, Slot},
    status::{EventView, Millis},
};

/// What sort of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A blade's first frame, or its first after it was gone.
    Seen,
    /// A cable was pulled.
    Gone,
    /// A blade is in another slot.
    Moved,
    /// Refused: somebody is not who, or not where, they should be.
    Security,
    /// A blade asked and was told.
    Boot,
    /// An image was chosen: a grant.
    Granted,
    /// A plan was carried out.
    Plan,
    /// A plan failed.
    Failed,
    /// A disk is whole and its blade's.
    Installed,
    /// A disk was taken away.
    Released,
    /// Somebody logged in to a target, or out.
    Session,
    /// A moment of a boot.
    Moment,
    /// An image came, changed or went.
    Image,
    /// The configuration.
    Config,
    /// Something is not as it should be.
    Problem,
    /// It is again.
    Solved,
    /// A change waits until its blade is off.
    Held,
    /// Somebody else changed a target of ours.
    Drift,
    /// Another machine's disk was plugged in or taken out.
    Donor,
}

/// Kind, its word, its MESSAGE_ID (made once with `systemd-id128 new`), its log level.
const KINDS: [(Kind, &str, &str, log::Level); 19] = [
    (Kind::Seen, "seen", "6a0f7be2c1f54d0c9d2b1e8f50a3c701", log::Level::Info),
    (Kind::Gone, "gone", "6a0f7be2c1f54d0c9d2b1e8f50a3c702", log::Level::Info),
    (Kind::Moved, "moved", "6a0f7be2c1f54d0c9d2b1e8f50a3c703", log::Level::Info),
    (Kind::Security, "security", "6a0f7be2c1f54d0c9d2b1e8f50a3c704", log::Level::Warn),
    (Kind::Boot, "boot", "6a0f7be2c1f54d0c9d2b1e8f50a3c705", log::Level::Info),
    (Kind::Granted, "granted", "6a0f7be2c1f54d0c9d2b1e8f50a3c706", log::Level::Info),
    (Kind::Plan, "plan", "6a0f7be2c1f54d0c9d2b1e8f50a3c707", log::Level::Info),
    (Kind::Failed, "failed", "6a0f7be2c1f54d0c9d2b1e8f50a3c708", log::Level::Warn),
    (Kind::Installed, "installed", "6a0f7be2c1f54d0c9d2b1e8f50a3c709", log::Level::Info),
    (Kind::Released, "released", "6a0f7be2c1f54d0c9d2b1e8f50a3c70a", log::Level::Info),
    (Kind::Session, "session", "6a0f7be2c1f54d0c9d2b1e8f50a3c70b", log::Level::Info),
    (Kind::Moment, "moment", "6a0f7be2c1f54d0c9d2b1e8f50a3c70c", log::Level::Debug),
    (Kind::Image, "image", "6a0f7be2c1f54d0c9d2b1e8f50a3c70d", log::Level::Info),
    (Kind::Config, "config", "6a0f7be2c1f54d0c9d2b1e8f50a3c70e", log::Level::Info),
    (Kind::Problem, "problem", "6a0f7be2c1f54d0c9d2b1e8f50a3c70f", log::Level::Warn),
    (Kind::Solved, "solved", "6a0f7be2c1f54d0c9d2b1e8f50a3c710", log::Level::Info),
    (Kind::Held, "held", "6a0f7be2c1f54d0c9d2b1e8f50a3c711", log::Level::Warn),
    (Kind::Drift, "drift", "6a0f7be2c1f54d0c9d2b1e8f50a3c712", log::Level::Warn),
    (Kind::Donor, "donor", "6a0f7be2c1f54d0c9d2b1e8f50a3c713", log::Level::Info),
];

/// How many past events are kept for `sheath events`.
const KEPT: usize = 512;

/// The recent events and the channel for the ones to come: shared with the control server.
#[derive(Clone)]
pub struct Subscription {
    recent: Arc<Mutex<VecDeque<EventView>>>,
    live: broadcast::Sender<EventView>,
}

impl Subscription {
    /// Returns the recent events and a receiver for the ones to come, with none lost between them.
    pub fn subscribe(&self) -> (Vec<EventView>, broadcast::Receiver<EventView>) {
        let recent = self.recent.lock().expect("no holder panics");
        (recent.iter().cloned().collect(), self.live.subscribe())
    }
}

/// Tells what happens.
pub struct Journal {
    out: Subscription,
    seq: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self { out: Subscription { recent: Arc::default(), live: broadcast::channel(KEPT).0 }, seq: 0 }
    }
}

impl Journal {
    /// Returns the readers' end.
    pub fn subscription(&self) -> Subscription {
        self.out.clone()
    }

    /// Tells something about the appliance.
    pub fn tell(&mut self, kind: Kind, text: &str) {
        let (_, _, message_id, level) = kind.row();
        log::log!(level, MESSAGE_ID = message_id; "{text}");
        self.publish(kind, None, None, text);
    }

    /// Tells something about an image.
    pub fn tell_image(&mut self, kind: Kind, image: &ImageName, text: &str) {
        let (_, _, message_id, level) = kind.row();
        log::log!(level, MESSAGE_ID = message_id, SHEATH_IMAGE = image.as_str(); "{text}");
        self.publish(kind, None, Some(image.clone()), text);
    }

    /// Tells something about a blade in its slot.
    pub fn tell_blade(&mut self, kind: Kind, at: (Slot, BladeId), image: Option<ImageName>, text: &str) {
        let (_, _, message_id, level) = kind.row();
        let (slot, blade) = (at.0.to_string(), at.1.to_string());
        let line = format!("slot {slot}, blade {blade}: {text}");
        match &image {
            Some(image) => log::log!(
                level, MESSAGE_ID = message_id, SHEATH_SLOT = slot.as_str(), SHEATH_BLADE = blade.as_str(),
                SHEATH_IMAGE = image.as_str(); "{line}"
            ),
            None => log::log!(
                level, MESSAGE_ID = message_id, SHEATH_SLOT = slot.as_str(), SHEATH_BLADE = blade.as_str(); "{line}"
            ),
        }
        self.publish(kind, Some(at), image, text);
    }

    fn publish(&mut self, kind: Kind, at: Option<(Slot, BladeId)>, image: Option<ImageName>, text: &str) {
        self.seq += 1;
        let view = EventView {
            seq: self.seq,
            at: now(),
            kind: kind.row().1.to_owned(),
            slot: at.map(|at| at.0),
            blade: at.map(|at| at.1),
            image,
            text: text.to_owned(),
        };
        let mut recent = self.out.recent.lock().expect("no holder panics");
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(view.clone());
        // Nobody following is no failure.
        let _ = self.out.live.send(view);
    }
}

impl Kind {
    fn row(self) -> (Self, &'static str, &'static str, log::Level) {
        *KINDS.iter().find(|row| row.0 == self).expect("a test walks the table")
    }
}

/// Returns the time of day in milliseconds since the Unix epoch.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_its_own_word_and_message_id() {
        let kinds: BTreeSet<_> = KINDS.iter().map(|row| row.0).collect();
        let words: BTreeSet<_> = KINDS.iter().map(|row| row.1).collect();
        let ids: BTreeSet<_> = KINDS.iter().map(|row| row.2).collect();
        assert_eq!((kinds.len(), words.len(), ids.len()), (KINDS.len(), KINDS.len(), KINDS.len()));
        assert!(ids.iter().all(|id| id.len() == 32));
    }

    #[test]
    fn the_past_is_bounded_and_the_present_is_followed() {
        let mut journal = Journal::default();
        for n in 0..KEPT + 3 {
            journal.tell(Kind::Config, &n.to_string());
        }
        let (recent, mut live) = journal.subscription().subscribe();
        assert_eq!((recent.len(), recent[0].text.as_str()), (KEPT, "3"));
        journal.tell(Kind::Config, "new");
        assert_eq!(live.try_recv().unwrap().text, "new");
    }
}
