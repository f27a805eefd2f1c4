//! Taking a target over that somebody made without us: whether it can be, and the steps.
//!
//! What can be taken over is what we would have made ourselves: one LUN on a thin volume of our pool. Everything else is
//! refused with what to do instead; nothing is copied here. The foreign target goes before its volume is ours, so that no
//! disk ever has two doors.

use crate::{
    error::{Error, Kind, Result},
    model::{ForeignExport, ImageId, VolumeId},
    observed::{ForeignLun, ForeignVolume, ObservedForeign},
    plan::Step,
    policy::AdoptWish,
};

/// Returns what is to be taken over, where it can be.
///
/// # Errors
/// [`Kind::Busy`] while somebody is logged in, or where another LUN leads to the disk too; [`Kind::Exists`] where the volume
/// is ours already; [`Kind::Invalid`] for what no blade's disk can be: the text says why and what to do.
pub fn adopt(found: &ObservedForeign) -> Result<ForeignExport> {
    check(found).map_err(|e| e.while_doing(format!("take target '{}' over", found.target)))
}

fn check(found: &ObservedForeign) -> Result<ForeignExport> {
    if let Some(initiator) = found.logged_in.first() {
        return Err(Error::new(
            Kind::Busy,
            format!("'{initiator}' is logged in: shut that machine down first"),
        ));
    }
    let ([_], [lun]) = (found.tpgs.as_slice(), found.luns.as_slice()) else {
        let (tpgs, luns) = (found.tpgs.len(), found.luns.len());
        let text =
            format!("it has {tpgs} TPGs and {luns} LUNs; a blade's has one of each: remove the others first");
        return Err(Error::invalid(text));
    };
    let hba = lun.hba.strip_prefix("iblock_").and_then(|number| number.parse().ok());
    let hba = hba
        .ok_or_else(|| copy_it(format!("its LUN is '{}/{}', no iblock backstore", lun.hba, lun.backstore)))?;
    if let [_, other, ..] = lun.exports.as_slice() {
        return Err(Error::new(
            Kind::Busy,
            format!("its disk is exported as '{other}' too: remove that first"),
        ));
    }
    let ForeignVolume { lv, size, .. } = volume(lun)?;
    Ok(ForeignExport {
        target: found.target.clone(),
        hba,
        backstore: lun.backstore.clone(),
        device: lun.device.clone(),
        lv: lv.clone(),
        size: *size,
    })
}

fn volume(lun: &ForeignLun) -> Result<&ForeignVolume> {
    let device = lun.device.display();
    let volume = lun.volume.as_ref().filter(|volume| volume.in_pool);
    let volume =
        volume.ok_or_else(|| copy_it(format!("its device '{device}' is no thin volume of the pool")))?;
    let name = volume.lv.as_str();
    if VolumeId::from_lv_name(name).is_some() || ImageId::from_lv_name(name).is_some() {
        return Err(Error::new(
            Kind::Exists,
            format!("its volume '{name}' is ours: remove the target by hand"),
        ));
    }
    Ok(volume)
}

fn copy_it(why: String) -> Error {
    Error::invalid(format!("{why}: make an image of its disk instead ('sheath image import')"))
}

/// Returns the steps until the volume is the blade's.
pub(super) fn take_over(volume: VolumeId, AdoptWish { from, tags }: &AdoptWish) -> [Step; 2] {
    let (lv, size) = (from.lv.clone(), from.size);
    [Step::RemoveForeign { from: from.clone() }, Step::TakeOver { volume, lv, size, tags: tags.clone() }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bytes;

    fn found() -> ObservedForeign {
        ObservedForeign {
            target: "iqn.2003-01.org.linux-iscsi:disk7".parse().unwrap(),
            tpgs: vec!["tpgt_1".into()],
            luns: vec![ForeignLun {
                hba: "iblock_3".into(),
                backstore: "disk7".into(),
                device: "/dev/sheath/disk7".into(),
                number: Some((254, 7)),
                exports: vec!["iSCSI/iqn.2003-01.org.linux-iscsi:disk7/tpgt_1/lun_0".into()],
                volume: Some(ForeignVolume {
                    lv: "disk7".parse().unwrap(),
                    size: Bytes::gib(20),
                    in_pool: true,
                }),
            }],
            logged_in: vec![],
        }
    }

    fn refusal(change: impl FnOnce(&mut ObservedForeign)) -> (Kind, String) {
        let mut found = found();
        change(&mut found);
        let error = adopt(&found).unwrap_err();
        (error.kind(), error.chain())
    }

    #[test]
    fn one_lun_on_a_thin_volume_of_the_pool_can_be_taken_over() {
        let from = adopt(&found()).unwrap();
        assert_eq!((from.hba, from.backstore.as_str(), from.lv.as_str()), (3, "disk7", "disk7"));
        assert_eq!(from.size, Bytes::gib(20));
    }

    #[test]
    fn who_is_logged_in_is_never_cut_off() {
        let (kind, text) = refusal(|found| found.logged_in.push("iqn.1993-08.org.debian:01:abc".into()));
        assert_eq!(kind, Kind::Busy);
        assert!(text.contains("org.debian:01:abc' is logged in: shut that machine down"), "{text}");
    }

    #[test]
    fn more_than_one_door_or_disk_is_refused() {
        let more = |found: &mut ObservedForeign| found.luns.push(found.luns[0].clone());
        assert_eq!(refusal(more).0, Kind::Invalid);
        assert_eq!(refusal(|found| found.luns.clear()).0, Kind::Invalid);
        assert_eq!(refusal(|found| found.tpgs.push("tpgt_2".into())).0, Kind::Invalid);
        let (kind, text) = refusal(|found| found.luns[0].exports.push("iSCSI/iqn.x:y/tpgt_1/lun_3".into()));
        assert_eq!(kind, Kind::Busy);
        assert!(text.contains("iqn.x:y"), "{text}");
    }

    #[test]
    fn what_is_no_thin_volume_of_the_pool_is_to_be_copied() {
        let file = refusal(|found| found.luns[0].hba = "fileio_0".into());
        let disk = refusal(|found| found.luns[0].volume = None);
        let linear = refusal(|found| found.luns[0].volume.as_mut().unwrap().in_pool = false);
        for (kind, text) in [file, disk, linear] {
            assert_eq!(kind, Kind::Invalid);
            assert!(text.contains("sheath image import"), "{text}");
        }
    }

    #[test]
    fn a_volume_of_ours_is_not_taken_twice() {
        for name in [VolumeId(7).lv_name(), "sheath-img-debian13".parse().unwrap()] {
            let (kind, _) = refusal(|found| found.luns[0].volume.as_mut().unwrap().lv = name);
            assert_eq!(kind, Kind::Exists);
        }
    }
}
