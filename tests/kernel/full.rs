//! A thin pool that fills up, for real: a small one, a blade that writes, and what the next blade is told.

use std::{
    fs::OpenOptions,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use sheath::{
    apply::blade_plan,
    error::Kind,
    host::{Host, keys::MasterKey, lvm::Lvm},
    model::{Bytes, Chap, PoolUsage},
    policy::BladeWish,
};

use crate::{
    blade::{MIB, said},
    guest::{Disk, alone, run},
    initiator::{Initiator, Login},
    lvm::image_in,
    plans::Subjects,
};

const VG: &str = "sheathfull";
/// The default: what the configuration of these tests does not say.
const WATERMARK: f32 = 90.0;
/// What the blade writes at a time: 1/32 of the pool.
const PART: u64 = 2 * MIB;

/// Makes a pool of 64 MiB in a group that has room to extend it.
fn small_pool(disk: &Disk) -> Lvm {
    let device = disk.path().to_str().unwrap();
    let pool = ["--type", "thin-pool", "-n", "pool", "-L", "64m", "--poolmetadatasize", "4m", "-c", "64k"];
    run("vgcreate", &[VG, device]).unwrap();
    run("lvcreate", &[&pool[..], &["-y", "-Zy", VG]].concat()).unwrap();
    Lvm::new(VG.parse().unwrap(), "pool".parse().unwrap())
}

/// Makes the blade's disk, serves it, and logs in as the blade would.
fn login(subjects: &Subjects, number: u8) -> Login {
    let wish = subjects.granted();
    let export = wish.disk.as_ref().unwrap().export.clone();
    let report = subjects.carry_out(wish, |_| ());
    assert!(report.failure.is_none(), "{}", report.failure.unwrap());
    let initiator = Initiator::new(&format!("full-{number}"), export.initiator.as_str());
    let credentials = MasterKey::from_bytes([7; 32]).credentials(subjects.volume, Chap::OneWay);
    initiator.login(&export.target, export.portals[0], &credentials).unwrap()
}

/// Writes the nth part of the disk, past the caches.
fn write_part(disk: &Path, nth: u64) {
    let mut file = OpenOptions::new().write(true).open(disk).unwrap();
    file.seek(SeekFrom::Start(16 * MIB + nth * PART)).unwrap();
    file.write_all(&vec![0xa5; PART as usize]).unwrap();
    file.sync_all().unwrap();
}

fn usage(lvm: &Lvm) -> PoolUsage {
    said(lvm.volumes()).pool
}

#[test]
#[ignore = "needs root, LIO and LVM in a guest: the lab runs it there"]
fn vm_a_filling_pool_refuses_new_disks_keeps_the_old_ones_writing_and_growth_ends_that() {
    let _alone = alone();
    let group = Disk::new("full", 240 * MIB);
    let lvm = small_pool(&group);
    let image = image_in(&lvm, "small", Bytes::mib(8), 1);
    let (first, second) = (Subjects::new(VG, &image, 2), Subjects::new(VG, &image, 3));
    let session = login(&first, 2);
    let disk = PathBuf::from("/dev").join(session.disk());
    refuses_once_full(&lvm, &disk, &second);

    // Long before the kernel stops anybody: the blade that has a disk goes on.
    let full = usage(&lvm);
    write_part(&disk, 40);
    assert!(usage(&lvm).data_percent > full.data_percent && usage(&lvm).data_percent < 100.0);

    run("lvextend", &["-L", "128m", &format!("{VG}/pool")]).unwrap();
    let grown = usage(&lvm);
    assert!(grown.data_percent < WATERMARK && grown.size > full.size, "{grown:?}");
    let report = second.carry_out(second.granted(), |_| ());
    assert!(report.failure.is_none(), "{}", report.failure.unwrap());

    drop(session);
    for subjects in [first, second] {
        let report = subjects.carry_out(subjects.released(), |_| ());
        assert!(report.failure.is_none(), "{}", report.failure.unwrap());
    }
    said(lvm.remove_image(&image));
    run("vgremove", &["-f", "-y", VG]).unwrap();
}

/// Lets the first blade write until the second is refused: not before the watermark, and at it.
fn refuses_once_full(lvm: &Lvm, disk: &Path, second: &Subjects) {
    let wish: BladeWish = second.granted();
    for part in 0.. {
        let volumes = said(second.host.volumes());
        let planned = blade_plan(&second.host, &wish, &volumes);
        if volumes.pool.data_percent < WATERMARK {
            assert!(planned.is_ok(), "refused at {:?}", volumes.pool);
            write_part(disk, part);
            continue;
        }
        let error = planned.unwrap_err();
        assert_eq!(error.kind(), Kind::Full, "{}", error.chain());
        let shown = format!("data {:.1} %", volumes.pool.data_percent);
        assert!(error.to_string().contains(&shown) && error.to_string().contains("lvextend"), "{error}");
        break;
    }
    let before = said(lvm.volumes());
    let report = second.carry_out(wish, |step| panic!("{step} must not run"));
    assert_eq!(report.failure.unwrap().error.kind(), Kind::Full);
    assert_eq!(said(lvm.volumes()).volumes.keys().len(), before.volumes.keys().len(), "nothing was made");
}
