//! Images' versions: which is the default one, what is known of one, who depends on it, how many spares it has.

use std::{collections::BTreeMap, path::Path};

use super::{Core, EventKind, operator::accepted};
use crate::{
    apply::{Subject, Work},
    control::api::Reply,
    error::{Error, Kind, Result},
    image::Logs,
    model::{ImageId, ImageRef, Manifest, Origin, Role, Tag, Volume, VolumeState},
    observed::Volumes,
    plan::{self, Step},
    policy::images::{self, Publication},
    status::{CloneView, ImageDetail},
};

impl Core {
    /// Pins the version as its family's default one, or, where none is named, goes back to the newest published one.
    pub(super) fn operator_default(&mut self, image: &ImageRef) -> Result<Reply> {
        let id = self.whole_image(image)?;
        let volumes = self.known_volumes()?;
        let pinned = image.version.is_some();
        if pinned && !images::may_be_chosen(volumes, &id) {
            let text =
                format!("make '{id}' the default version: it is not published (sheath image publish {id})");
            return Err(Error::invalid(text));
        }
        let steps = pin_steps(volumes, &id, pinned);
        let text = match pinned {
            true => format!("'{}' stands for '{id}' until another version is made the default one", id.name),
            false => format!("'{}' stands for its newest published version", id.name),
        };
        if !steps.is_empty() {
            self.run_steps(Subject::Image(id.clone()), "the operator's wish", steps)?;
            self.journal.tell_image(EventKind::Image, &id.name, &text);
        }
        Ok(Reply::Accepted { message: text })
    }

    /// Publishes an image that is proved to boot, or that the operator wants published without a proof.
    pub(super) fn operator_publish(&mut self, image: &ImageRef, unproved: bool) -> Result<Reply> {
        let image = match image.version {
            None => self.newest(&image.name)?,
            Some(_) => self.whole_image(image)?,
        };
        if images::may_be_chosen(self.known_volumes()?, &image) {
            return Ok(accepted(format!("image '{image}' is published already")));
        }
        let publication = images::usable(self.known_volumes()?, &image)
            .and_then(|()| images::publication(&image, self.manifests.get(&image), unproved))
            .map_err(|e| e.while_doing(format!("publish image '{image}'")))?;
        let steps = vec![Step::FinishImage { image: image.clone(), published: true }];
        self.run_steps(Subject::Image(image.clone()), "the operator's wish", steps)?;
        let text = match publication {
            Publication::Proved => format!("image '{image}' is published"),
            Publication::Unproved => format!("image '{image}' is published unproved by the operator"),
        };
        self.journal.tell_image(EventKind::Image, &image.name, &text);
        self.note_publication(&image, Some(publication));
        Ok(accepted(text))
    }

    /// Has images put to rest that an earlier agent has made whole, and was killed before it could do that.
    pub(super) fn rest_images(&mut self) {
        let all = self.volumes.iter().flat_map(|all| all.volumes.values());
        let whole = all.filter(|volume| volume.writable && volume.state == VolumeState::Ready);
        let restless = whole.filter_map(|volume| match &volume.role {
            Role::Image { image, published, .. } => Some((image.clone(), *published)),
            Role::Spare { .. } | Role::Disk { .. } => None,
        });
        for (image, published) in restless.collect::<Vec<_>>() {
            let steps = vec![Step::FinishImage { image: image.clone(), published }];
            self.submit(Subject::Image(image), "start", Work::Steps(steps));
        }
    }

    /// Takes an image back: nobody can choose it any more.
    pub(super) fn operator_unpublish(&mut self, image: &ImageRef) -> Result<Reply> {
        let image = match image.version {
            None => self.only_version(image, "unpublish")?,
            Some(_) => self.whole_image(image)?,
        };
        let text = format!("image '{image}' is not published");
        let mut steps = vec![Step::FinishImage { image: image.clone(), published: false }];
        steps.extend(self.unpin_steps(&image));
        self.run_steps(Subject::Image(image.clone()), "the operator's wish", steps)?;
        self.note_publication(&image, None);
        Ok(accepted(text))
    }

    /// Writes down how an image was published, or that it was taken back.
    fn note_publication(&mut self, image: &ImageId, publication: Option<Publication>) {
        let unproved = (publication == Some(Publication::Unproved)).then(|| self.now());
        let mut manifest = self.manifest_of(image);
        if manifest.unproved != unproved {
            manifest.unproved = unproved;
            self.keep_manifest(manifest);
        }
    }

    /// Returns the image's manifest, or the beginning of one where it was lost.
    pub(super) fn manifest_of(&self, image: &ImageId) -> Manifest {
        let lost = || Manifest::new(image.clone(), 0, Origin::Unknown);
        self.manifests.get(image).cloned().unwrap_or_else(lost)
    }

    /// Returns the steps that take an image back: a pin on what nobody may choose would only wait for a surprise.
    pub(super) fn unpin_steps(&self, image: &ImageId) -> Vec<Step> {
        let found = self.volumes.as_ref().and_then(|all| all.volumes.get(&image.lv_name()));
        let pinned = found.is_some_and(|volume| matches!(volume.role, Role::Image { pinned: true, .. }));
        if pinned { vec![tag(image, vec![], vec![Tag::Default])] } else { vec![] }
    }

    /// Returns everything that is known of one image; how much of the pool it takes is counted where nobody waits.
    pub(super) fn image_detail(&self, image: &ImageRef) -> Result<ImageDetail> {
        let id = images::resolve(self.known_volumes()?, image)?;
        let view = self.images().into_iter().find(|view| view.image == id);
        let view = view.ok_or_else(|| Error::new(Kind::Missing, format!("find image '{id}': it is gone")))?;
        let clones = self.clones_of(&id);
        Ok(ImageDetail { view, manifest: self.manifests.get(&id).cloned(), clones, space_unknown: None })
    }

    /// Returns whose disks came from the image.
    pub(super) fn clones_of(&self, image: &ImageId) -> Vec<CloneView> {
        let volumes = self.volumes.iter().flat_map(|all| all.volumes.values());
        let disks = volumes.filter_map(|volume| match &volume.role {
            Role::Disk { id, image: of, blade, slot } if of == image => {
                Some(CloneView { blade: *blade, slot: *slot, volume: *id })
            }
            _ => None,
        });
        let mut disks: Vec<_> = disks.collect();
        disks.sort_by_key(|disk| (disk.slot, disk.blade));
        disks
    }

    /// Keeps a manifest. A folder that cannot be written to is told, and keeps nobody from anything.
    pub(super) fn keep_manifest(&mut self, manifest: Manifest) {
        let about = format!("manifest of '{}'", manifest.image);
        match self.manifests.put(manifest) {
            Ok(()) => self.solve(&about),
            Err(error) => self.complain(&about, error.chain()),
        }
    }

    /// Forgets the manifests, and the proofs' logs, of images that are gone. What is being made has its volume later than its words.
    pub(super) fn forget_manifests(&mut self) {
        let Some(volumes) = &self.volumes else { return };
        let imports = &self.imports;
        let idle = self.awaited.is_empty();
        let works = &self.works;
        let made = |image: &ImageId| {
            imports.get(&image.name).is_some_and(|import| import.image == *image)
                || works.values().any(|work| work.is_about(image))
        };
        if idle {
            let is_there = |image: &ImageId| volumes.volumes.contains_key(&image.lv_name()) || made(image);
            let gone = self.manifests.keep(is_there);
            gone.iter().for_each(|image| self.proof_logs().forget(image));
        }
    }

    /// Returns what the consoles of proofs said.
    pub(super) fn proof_logs(&self) -> Logs {
        Logs::below(self.outside.state.parent().unwrap_or(Path::new("/")))
    }

    /// Takes away spares that nobody asked for: of versions that are not the default any more, and above the number.
    pub(super) fn drop_spares(&mut self) {
        let Some(volumes) = &self.volumes else { return };
        let wanted = images::offered(volumes).into_iter().map(|(image, _)| {
            let number = usize::from(self.config.profile_of(&image.name).spares);
            let profile = self.config.disk_from(&image.name);
            (image, (number, profile))
        });
        let wanted: BTreeMap<ImageId, _> = wanted.collect();
        let surplus = plan::surplus_spares(volumes, &wanted, &self.wanted());
        for volume in surplus {
            let subject = Subject::Leftover(volume);
            if !self.stuck.contains(&subject) && !self.busy.contains_key(&subject) {
                let steps = vec![Step::RemoveVolume { volume }];
                self.submit(subject, "a spare too many", Work::Steps(steps));
            }
        }
    }
}

/// Returns the steps that pin this version, or none, and take all other pins of the family away.
///
/// The new pin comes first: a kill between the two leaves two, of which one counts, and never none.
fn pin_steps(volumes: &Volumes, id: &ImageId, pin: bool) -> Vec<Step> {
    let is_pinned = |volume: &Volume| matches!(volume.role, Role::Image { pinned: true, .. });
    let all: Vec<_> = images::versions(volumes, &id.name).collect();
    let here = all.iter().any(|(image, volume)| *image == id && is_pinned(volume));
    let mut steps = vec![];
    if pin && !here {
        steps.push(tag(id, vec![Tag::Default], vec![]));
    }
    let others = all.iter().filter(|(image, volume)| is_pinned(volume) && !(pin && *image == id));
    steps.extend(others.map(|(image, _)| tag(image, vec![], vec![Tag::Default])));
    steps
}

fn tag(image: &ImageId, add: Vec<Tag>, remove: Vec<Tag>) -> Step {
    Step::TagImage { image: image.clone(), add, remove }
}
