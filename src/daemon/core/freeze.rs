//! Running blades that stand still while their disk becomes an image.
//!
//! ```text
//! promote --freeze ─► order ─► Frozen ─► the promotion's steps ─► release ─► Ended(held?) ─► the operator's answer
//!                       └────► Ended(error): nothing was done ─────────────────────────────►┘
//! ```
//!
//! The blade thaws by itself after half a minute: whether it stood still until the snapshot was there is known when it
//! says so afterwards, and the manifest says nothing better before.

use std::{collections::BTreeMap, net::IpAddr, sync::mpsc};

use tokio::sync::oneshot;

use super::{
    Core,
    promote::{CRASH, Promotion},
};
use crate::{
    apply::Subject,
    control::api::{PromoteRequest, Reply},
    error::{Error, Kind, Result},
    model::{BladeId, Consistency, ImageId, Origin},
};

/// That a running blade is to stand still.
#[derive(Debug)]
pub struct FreezeOrder {
    /// The blade.
    pub blade: BladeId,
    /// The image that its disk becomes.
    pub image: ImageId,
    /// Who logs in.
    pub user: String,
    /// Where.
    pub address: IpAddr,
    /// It is released when the other end of this is gone.
    pub release: mpsc::Receiver<()>,
}

/// What becomes of an order.
#[derive(Debug)]
pub enum FreezeNews {
    /// It stands still.
    Frozen,
    /// It does no more: whether it did until it was released, or why it never did.
    Ended(Result<bool>),
}

/// The blades that stand still, or are to.
#[derive(Debug, Default)]
pub(super) struct Frozen(BTreeMap<BladeId, One>);

/// One of them.
#[derive(Debug)]
struct One {
    request: PromoteRequest,
    image: ImageId,
    reply: oneshot::Sender<Result<Reply>>,
    release: Option<mpsc::Sender<()>>,
    /// Where the answer of the promotion's steps comes, once they have begun; then the answer.
    steps: Option<oneshot::Receiver<Result<Reply>>>,
    answer: Option<Result<Reply>>,
    ended: Option<Result<bool>>,
}

impl Core {
    /// Has the slot's blade stand still, to promote it then.
    pub(super) fn freeze(
        &mut self,
        request: &PromoteRequest,
        promotion: &Promotion,
        reply: oneshot::Sender<Result<Reply>>,
    ) {
        let (slot, name, blade) = (request.slot, &request.name, promotion.parent.blade);
        let refuse = |kind, why: &str| Error::new(kind, format!("promote slot {slot} to '{name}': {why}"));
        if self.frozen.0.contains_key(&blade) {
            return drop(reply.send(Err(refuse(Kind::Busy, "its file systems are being frozen already"))));
        }
        let Some(address) = self.address_of(blade) else {
            let why = "its address is not known, so its file systems cannot be frozen";
            return drop(reply.send(Err(refuse(Kind::Missing, why))));
        };
        let (release, released) = mpsc::channel();
        let order = FreezeOrder {
            blade,
            image: promotion.image.clone(),
            user: request.freeze.clone().unwrap_or_default(),
            address,
            release: released,
        };
        let (request, image) = (request.clone(), promotion.image.clone());
        let one =
            One { request, image, reply, release: Some(release), steps: None, answer: None, ended: None };
        self.frozen.0.insert(blade, one);
        (self.outside.freeze)(order);
    }

    fn address_of(&self, id: BladeId) -> Option<IpAddr> {
        let blade = self.roster.blades.get(&id)?;
        let session = blade.session.as_ref().and_then(|session| session.address);
        session.or(blade.ip.map(IpAddr::V4))
    }

    /// Takes in that a blade stands still, or does no more.
    pub(super) fn on_freeze(&mut self, id: BladeId, news: FreezeNews) {
        let Some(one) = self.frozen.0.get_mut(&id) else { return };
        match news {
            FreezeNews::Ended(ended) => one.ended = Some(ended),
            FreezeNews::Frozen => {
                let (request, (tell, told)) = (one.request.clone(), oneshot::channel());
                one.steps = Some(told);
                // What was decided before may not be so any more.
                let promotion = self.promotion(&request).and_then(|promotion| {
                    self.refuse_busy(&Subject::Blade(promotion.parent.blade))?;
                    Ok(promotion)
                });
                match promotion {
                    Ok(mut promotion) => {
                        if promotion.parent.consistency == Consistency::Crash {
                            promotion.parent.consistency = Consistency::Frozen;
                        }
                        if let Some(one) = self.frozen.0.get_mut(&id) {
                            one.image = promotion.image.clone();
                        }
                        self.promote(promotion, request.publish, tell);
                    }
                    Err(error) => drop(tell.send(Err(error))),
                }
            }
        }
    }

    /// Releases the blades whose disks are taken, and answers for those that have told how it ended.
    pub(super) fn end_freezes(&mut self) {
        let mut over = vec![];
        for (id, one) in &mut self.frozen.0 {
            if let Some(Ok(answer)) = one.steps.as_mut().map(oneshot::Receiver::try_recv) {
                one.answer = Some(answer);
                one.release = None;
            }
            if one.ended.is_some() && (one.steps.is_none() || one.answer.is_some()) {
                over.push(*id);
            }
        }
        for id in over {
            if let Some(one) = self.frozen.0.remove(&id) {
                self.end_freeze(one);
            }
        }
    }

    fn end_freeze(&mut self, one: One) {
        let PromoteRequest { slot, name, .. } = &one.request;
        let attempt = format!("promote slot {slot} to '{name}': its file systems are not frozen");
        let answer = match (one.answer, one.ended) {
            (Some(Ok(Reply::Accepted { message })), Some(Ok(true))) => Ok(Reply::Accepted { message }),
            (Some(Ok(Reply::Accepted { message })), _) => {
                self.forget_frozen(&one.image);
                let why = "; its file systems did not stand still until that was done, so the image is";
                Ok(Reply::Accepted { message: format!("{message}{why} {CRASH}") })
            }
            (Some(answer), _) => answer,
            (None, Some(Err(error))) => Err(error.while_doing(attempt)),
            (None, _) => Err(Error::new(Kind::Failed, attempt)),
        };
        let _ = one.reply.send(answer);
    }

    /// Takes back that an image's file systems stood still.
    fn forget_frozen(&mut self, image: &ImageId) {
        let Some(mut manifest) = self.manifests.get(image).cloned() else { return };
        if let Origin::Blade(parent) = &mut manifest.origin
            && parent.consistency == Consistency::Frozen
        {
            parent.consistency = Consistency::Crash;
            self.keep_manifest(manifest);
        }
    }
}
