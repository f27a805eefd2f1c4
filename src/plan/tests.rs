//! The planner's promises, on generated wishes and on the simulated machine.

mod crash;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    error::Kind,
    host::{
        Host,
        sim::{Machine, Sim},
    },
    model::{Bytes, DiskProfile, Growth, PoolUsage, Role, Stray, VolumeId},
    observed::{MapState, ObservedExport},
    policy::{self, BladeWish},
    roster::{Blade, Disk, Grant, GrantedBy},
    sample,
};

/// A blade's situation before an event.
#[derive(Debug, Clone)]
struct Situation {
    granted: bool,
    spare: bool,
    had_disk: bool,
    replace: bool,
}

fn situations() -> impl Strategy<Value = Situation> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(granted, spare, had_disk, replace)| Situation { granted, spare, had_disk, replace })
}

const OLD: VolumeId = VolumeId(0x0123 << 100);
const NEW: VolumeId = VolumeId(0x0456 << 100);

fn sim(machine: Machine) -> Sim {
    Sim::new("sheath".parse().unwrap(), machine)
}

fn run_all(host: &Sim, steps: &[Step]) {
    for step in steps {
        host.run(step).unwrap_or_else(|e| panic!("{step}: {e}"));
    }
}

fn steps_for(host: &Sim, wish: &BladeWish) -> Vec<Step> {
    let volume = wish.disk.as_ref().map_or(OLD, |disk| disk.export.backstore.volume);
    let export = host.export(&wish.target, volume).unwrap();
    blade(wish, &host.volumes().unwrap(), &export).unwrap().steps
}

/// Returns a machine with a foreign target, and the blade's old disk served where it had one.
fn prepared(situation: &Situation) -> (Sim, BladeWish) {
    let config = sample::config();
    let id = sample::blade_id(1);
    let host = sim(Machine { volumes: sample::volumes(), ..Machine::default() });
    host.meddle(|machine| {
        let foreign = "iqn.1999-01.com.foreign:disk".parse().unwrap();
        let target = crate::observed::ObservedTarget {
            enabled: true,
            profile: false,
            lun: Some(("their-disk".into(), 0)),
            acls: Default::default(),
            portals: Default::default(),
            strays: Default::default(),
        };
        machine.targets.insert(foreign, target);
    });
    let mut blade = Blade::new(sample::slot(1));
    if situation.had_disk {
        blade.grant = Some(grant(OLD));
        run_all(&host, &steps_for(&host, &policy::wish(&config, id, &blade).unwrap()));
        blade.grant = None;
        blade.disk = Some(Disk { volume: OLD, image: sample::image(), slot: sample::slot(1) });
    }
    if situation.spare {
        let make = policy::make(&config, &sample::image(), NEW);
        run_all(&host, &spare(NEW, &make, &host.volumes().unwrap()).unwrap());
    }
    if situation.granted && (situation.replace || !situation.had_disk) {
        blade.grant = Some(grant(NEW));
        blade.releases.extend(blade.disk.take().map(|disk| disk.volume));
    }
    (host, policy::wish(&config, id, &blade).unwrap())
}

fn grant(volume: VolumeId) -> Grant {
    Grant { image: sample::image(), volume, by: GrantedBy::Console, at: 1, from: None }
}

/// Returns the wish of the same blade once its volumes have been learnt.
fn settled(host: &Sim, wish: &BladeWish) -> BladeWish {
    let volumes = host.volumes().unwrap();
    let mut roster = crate::roster::Roster::default();
    roster.learn(&volumes);
    let blade = roster.blades.get(&wish.blade).cloned().unwrap_or_else(|| Blade::new(sample::slot(1)));
    policy::wish(&sample::config(), wish.blade, &blade).unwrap()
}

proptest! {
    #[test]
    fn applying_a_plan_leaves_an_empty_plan(situation in situations()) {
        let (host, wish) = prepared(&situation);
        run_all(&host, &steps_for(&host, &wish));
        prop_assert_eq!(steps_for(&host, &settled(&host, &wish)), vec![]);
    }

    #[test]
    fn any_prefix_of_a_plan_can_be_resumed(situation in situations(), cut in 0_usize..20) {
        let (host, wish) = prepared(&situation);
        let steps = steps_for(&host, &wish);
        run_all(&host, &steps[..cut.min(steps.len())]);
        run_all(&host, &steps_for(&host, &wish));
        let (whole, _) = prepared(&situation);
        run_all(&whole, &steps);
        prop_assert_eq!(host.machine(), whole.machine());
    }

    #[test]
    fn every_step_run_twice_is_run_once(situation in situations()) {
        let (host, wish) = prepared(&situation);
        for step in steps_for(&host, &wish) {
            host.run(&step).unwrap();
            prop_assert_eq!(host.run(&step).unwrap(), Changed::AlreadyTrue, "{}", step);
        }
    }

    #[test]
    fn foreign_objects_survive(situation in situations()) {
        let (host, wish) = prepared(&situation);
        let foreign = "iqn.1999-01.com.foreign:disk".parse().unwrap();
        let before = host.machine().targets[&foreign].clone();
        run_all(&host, &steps_for(&host, &wish));
        let (volumes, volume) = (host.volumes().unwrap(), NEW);
        run_all(&host, &undo(&wish, &volumes, &host.export(&wish.target, volume).unwrap()));
        prop_assert_eq!(&host.machine().targets[&foreign], &before);
    }

    #[test]
    fn a_failed_install_undone_leaves_nothing_half_made(cut in 0_usize..20) {
        let situation = Situation { granted: true, spare: false, had_disk: false, replace: false };
        let (host, wish) = prepared(&situation);
        let before = host.machine();
        let mut steps = steps_for(&host, &wish);
        steps.truncate(cut.min(steps.len() - 2));
        run_all(&host, &steps);
        run_all(&host, &undo(&wish, &host.volumes().unwrap(), &host.export(&wish.target, NEW).unwrap()));
        prop_assert_eq!(host.machine(), before);
    }
}

#[test]
fn a_fresh_install_writes_everything_before_the_portal_and_the_tags_last() {
    let (_, wish) = prepared(&Situation { granted: true, spare: false, had_disk: false, replace: false });
    let steps = blade(&wish, &sample::volumes(), &ObservedExport::default()).unwrap().steps;
    let words: Vec<String> =
        steps.iter().map(|step| serde_json::to_value(step).unwrap()["step"].to_string()).collect();
    insta::assert_snapshot!(words.join(" "), @r#""clone" "partition" "seed" "backstore" "target" "lun" "acl" "map-lun" "portal" "enable" "tag" "announce""#);
}

#[test]
fn a_spare_costs_one_lvm_command_and_that_after_the_target_is_enabled() {
    let (host, wish) = prepared(&Situation { granted: true, spare: true, had_disk: false, replace: false });
    let steps = steps_for(&host, &wish);
    let lvm = |step: &Step| matches!(step, Step::Clone { .. } | Step::Tag { .. } | Step::Activate { .. });
    let enabled = steps.iter().position(|step| matches!(step, Step::Enable { .. })).unwrap();
    assert!(!steps[..enabled].iter().any(lvm));
    assert_eq!(steps.iter().filter(|step| lvm(step)).count(), 1);
}

#[test]
fn a_volume_that_went_missing_is_reported_and_never_made_again() {
    let (host, wish) = prepared(&Situation { granted: false, spare: false, had_disk: true, replace: false });
    host.meddle(|machine| {
        machine.volumes.volumes.remove(&OLD.lv_name());
    });
    let export = host.export(&wish.target, OLD).unwrap();
    assert_eq!(blade(&wish, &host.volumes().unwrap(), &export).unwrap_err().kind(), Kind::Missing);
}

#[test]
fn a_full_pool_refuses_before_anything_is_touched() {
    let (host, wish) = prepared(&Situation { granted: true, spare: false, had_disk: false, replace: false });
    host.meddle(|machine| machine.volumes.pool.metadata_percent = 90.0);
    let error = blade(&wish, &host.volumes().unwrap(), &ObservedExport::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Full);
    host.meddle(|machine| {
        (machine.volumes.pool.metadata_percent, machine.volumes.pool.data_percent) = (89.9, 89.9)
    });
    assert!(blade(&wish, &host.volumes().unwrap(), &ObservedExport::default()).is_ok());
    insta::assert_snapshot!(error, @"the pool of 100.0 GiB has no room: data 0.0 %, metadata 90.0 % used, watermark 90 % reached by metadata: extend it (lvextend --poolmetadatasize)");
}

#[test]
fn a_pool_at_its_watermark_admits_nothing_and_says_what_to_do() {
    let usage =
        |data_percent, metadata_percent| PoolUsage { size: Bytes::gib(1), data_percent, metadata_percent };
    assert!(admit(&usage(89.9, 10.0), 90).is_ok());
    let data = admit(&usage(90.0, 10.0), 90).unwrap_err().to_string();
    assert!(data.contains("data 90.0 %") && data.contains("lvextend --size"), "{data}");
    let metadata = admit(&usage(10.0, 95.5), 90).unwrap_err().to_string();
    assert!(metadata.contains("--poolmetadatasize"), "{metadata}");
}

#[test]
fn a_zombie_mapping_is_mended_and_nothing_else_is_touched() {
    let (host, wish) = prepared(&Situation { granted: false, spare: false, had_disk: true, replace: false });
    host.meddle(|machine| {
        let target = machine.targets.get_mut(&wish.target).unwrap();
        target.acls.values_mut().for_each(|acl| acl.map = MapState::Broken);
    });
    let steps = steps_for(&host, &wish);
    assert!(matches!(steps.as_slice(), [Step::MapLun { .. }]), "{steps:?}");
}

#[test]
fn half_made_volumes_are_left_over_only_when_nothing_wants_them() {
    let host = sim(Machine { volumes: sample::volumes(), ..Machine::default() });
    let make = policy::make(&sample::config(), &sample::image(), NEW);
    let steps = spare(NEW, &make, &host.volumes().unwrap()).unwrap();
    run_all(&host, &steps[..1]);
    assert_eq!(leftovers(&host.volumes().unwrap(), &BTreeSet::new()), [NEW]);
    assert_eq!(leftovers(&host.volumes().unwrap(), &BTreeSet::from([NEW])), []);
    run_all(&host, &steps);
    let volumes = host.volumes().unwrap();
    let ready = |image: &str, profile: DiskProfile, taken: &[VolumeId]| {
        let (image, taken) = (image.parse().unwrap(), taken.iter().copied().collect());
        ready_spares((&image, profile), &volumes, &taken).collect::<Vec<_>>()
    };
    assert_eq!(ready("debian13", make.profile, &[]), [NEW]);
    assert_eq!(ready("debian13", make.profile, &[NEW]), []);
    assert_eq!(ready("debian13@2", make.profile, &[]), []);
    let larger = DiskProfile { size: Some(Bytes::gib(9)), ..make.profile };
    assert_eq!(ready("debian13", larger, &[]), [], "a spare is never made to fit");
    let wanted = |profile| BTreeMap::from([(sample::image(), (1, profile))]);
    assert_eq!(surplus_spares(&volumes, &wanted(make.profile), &BTreeSet::new()), []);
    assert_eq!(surplus_spares(&volumes, &wanted(larger), &BTreeSet::new()), [NEW]);
}

#[test]
fn a_disk_is_never_smaller_than_its_image_and_partitions() {
    let mut make = policy::make(&sample::config(), &sample::image(), NEW);
    make.profile.size = Some(Bytes::gib(1));
    assert_eq!(spare(NEW, &make, &sample::volumes()).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_disk_grows_below_the_watermark_and_never_shrinks() {
    let (host, wish) = prepared(&Situation { granted: true, spare: false, had_disk: false, replace: false });
    run_all(&host, &steps_for(&host, &wish));
    let mut volumes = host.volumes().unwrap();
    let has = volumes.volumes[&NEW.lv_name()].size;
    let mut grow = |growth: Growth, used: f32| {
        volumes.pool.data_percent = used;
        super::grow(&volumes.volumes[&NEW.lv_name()], growth, &volumes.pool, 90)
    };
    let size = Bytes(has.0 + Bytes::gib(1).0);
    let step = Step::Grow { volume: NEW, size };
    assert_eq!(grow(Growth::By(Bytes::gib(1)), 50.0).unwrap(), std::slice::from_ref(&step));
    assert_eq!(grow(Growth::To(size), 50.0).unwrap(), std::slice::from_ref(&step));
    assert_eq!(grow(Growth::To(has), 99.0).unwrap(), [], "so large already: the pool does not matter");
    assert_eq!(grow(Growth::To(Bytes::mib(1)), 50.0).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(grow(Growth::By(Bytes(u64::MAX)), 50.0).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(grow(Growth::By(Bytes::gib(1)), 90.0).unwrap_err().kind(), Kind::Full);
    let golden = &volumes.volumes[&sample::image().lv_name()];
    let image = super::grow(golden, Growth::By(Bytes::gib(1)), &volumes.pool, 99).unwrap_err();
    assert_eq!(image.kind(), Kind::Invalid);

    assert_eq!(host.run(&step).unwrap(), Changed::Changed);
    assert_eq!(host.run(&step).unwrap(), Changed::AlreadyTrue);
    let smaller = Step::Grow { volume: NEW, size: Bytes::mib(1) };
    assert_eq!(host.run(&smaller).unwrap(), Changed::AlreadyTrue, "at least so large");
    assert_eq!(host.volumes().unwrap().volumes[&NEW.lv_name()].size, size);
}

#[test]
fn an_adopted_spare_is_the_blades_by_its_tags() {
    let (host, wish) = prepared(&Situation { granted: true, spare: true, had_disk: false, replace: false });
    run_all(&host, &steps_for(&host, &wish));
    let volumes = host.volumes().unwrap();
    assert!(matches!(volumes.volumes[&NEW.lv_name()].role, Role::Disk { id: NEW, .. }));
}

/// Returns the machine with the blade's disk served, somebody logged in, and what `meddle` does to its target.
fn in_use(meddle: impl FnOnce(&mut crate::observed::ObservedTarget)) -> (Sim, BladeWish) {
    let (host, wish) = prepared(&Situation { granted: false, spare: false, had_disk: true, replace: false });
    host.meddle(|machine| {
        let target = machine.targets.get_mut(&wish.target).unwrap();
        for (name, acl) in &mut target.acls {
            let (initiator, kind) = (name.clone(), crate::observed::SessionKind::Os);
            acl.session = Some(crate::observed::Session { initiator, address: None, kind, id: 1 });
            acl.nopin_timeout = 15;
        }
        meddle(target);
    });
    (host, wish)
}

fn plan_for(host: &Sim, wish: &BladeWish) -> Plan {
    blade(wish, &host.volumes().unwrap(), &host.export(&wish.target, OLD).unwrap()).unwrap()
}

#[test]
fn what_would_end_a_session_waits_until_the_blade_is_off_or_the_operator_agrees() {
    let old: crate::model::Portal = "10.77.0.9:3260".parse().map(crate::model::Portal).unwrap();
    for (astray, first) in [(false, "remove-stray"), (true, "disable")] {
        let (host, wish) = in_use(|target| {
            target.portals.insert(old);
            if astray {
                target.lun = Some(("another".into(), 3));
            }
        });
        let plan = plan_for(&host, &wish);
        assert_eq!(plan.steps, [], "nothing else is wrong");
        assert_eq!(serde_json::to_value(&plan.held[0]).unwrap()["step"], first);
        let agreed = BladeWish { interrupt: true, ..wish.clone() };
        assert_eq!(plan_for(&host, &agreed), Plan { steps: plan.held.clone(), held: vec![] });
        // A session that is gone for a moment is not a blade that is off.
        host.meddle(|machine| {
            let target = machine.targets.get_mut(&wish.target).unwrap();
            target.acls.values_mut().for_each(|acl| (acl.session, acl.nopin_timeout) = (None, 0));
        });
        assert_eq!(plan_for(&host, &BladeWish { running: true, ..wish.clone() }).held.len(), plan.held.len());
        let off = plan_for(&host, &wish);
        assert_eq!((off.steps.len(), off.held.len()), (plan.held.len(), 0));
        run_all(&host, &off.steps);
        assert_eq!(plan_for(&host, &wish), Plan::default());
        assert!(!host.machine().targets[&wish.target].portals.contains(&old));
    }
}

#[test]
fn whom_a_hand_let_in_is_put_out_at_once_and_the_blade_notices_nothing() {
    let (host, wish) = in_use(|target| {
        let thief = target.acls.values().next().unwrap().clone();
        target.acls.insert("iqn.1993-08.org.debian:01:thief".into(), thief);
        target.strays = [Stray::Lun("lun_7".into()), Stray::Tpg("tpgt_2".into())].into();
    });
    let plan = plan_for(&host, &wish);
    assert_eq!((plan.steps.len(), plan.held.len()), (3, 0));
    assert!(matches!(&plan.steps[0], Step::RemoveAcl { initiator, .. } if initiator.ends_with("thief")));
    run_all(&host, &plan.steps);
    assert_eq!(plan_for(&host, &wish), Plan::default());
    assert!(host.machine().targets[&wish.target].is_in_use(), "the blade's own session stays");
}
