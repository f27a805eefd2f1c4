//! Drift and plan agree, for every kind of hand edit and any number of them at once.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    host::{
        Host,
        sim::{Machine, Sim},
    },
    model::VolumeId,
    plan,
    policy::{self, BladeWish, DiskWish},
    roster::{Blade, Disk, Grant, GrantedBy},
    sample,
};

const VOLUME: VolumeId = VolumeId(7 << 100);

/// What somebody does to an export of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edit {
    Disable,
    Attribute,
    BackstoreAttribute,
    Password,
    Pings,
    UnmapLun,
    ProtectLun,
    UnlinkLun,
    OtherLun,
    Portal,
    Acl,
    Stranger,
    Target,
}

const EDITS: [Edit; 13] = [
    Edit::Disable,
    Edit::Attribute,
    Edit::BackstoreAttribute,
    Edit::Password,
    Edit::Pings,
    Edit::UnmapLun,
    Edit::ProtectLun,
    Edit::UnlinkLun,
    Edit::OtherLun,
    Edit::Portal,
    Edit::Acl,
    Edit::Stranger,
    Edit::Target,
];

/// Returns a machine with one blade that is served, and its wish.
fn served() -> (Sim, BladeWish) {
    let host =
        Sim::new("sheath".parse().unwrap(), Machine { volumes: sample::volumes(), ..Machine::default() });
    let mut blade = Blade::new(sample::slot(1));
    blade.grant =
        Some(Grant { image: sample::image(), volume: VOLUME, by: GrantedBy::Console, at: 1, from: None });
    let wish = policy::wish(&sample::config(), sample::blade_id(1), &blade).unwrap();
    run_all(&host, &steps(&host, &wish));
    blade.grant = None;
    blade.disk = Some(Disk { volume: VOLUME, image: sample::image(), slot: sample::slot(1) });
    (host, policy::wish(&sample::config(), sample::blade_id(1), &blade).unwrap())
}

fn run_all(host: &Sim, steps: &[Step]) {
    for step in steps {
        host.run(step).unwrap_or_else(|e| panic!("{step}: {e}"));
    }
}

fn steps(host: &Sim, wish: &BladeWish) -> Vec<Step> {
    plan::blade(wish, &host.volumes().unwrap(), &host.export(&wish.target, VOLUME).unwrap()).unwrap().steps
}

fn differences(host: &Sim, wish: &BladeWish) -> Vec<Difference> {
    let DiskWish { export, .. } = wish.disk.as_ref().unwrap();
    drift(export, &host.export(&wish.target, VOLUME).unwrap(), &[])
}

fn edit(host: &Sim, edit: Edit) {
    host.meddle(|machine| {
        if edit == Edit::BackstoreAttribute {
            machine.backstores.get_mut(&VOLUME).unwrap().profile = false;
        }
        if edit == Edit::Target {
            machine.targets.clear();
        }
        let Some(target) = machine.targets.values_mut().next() else { return };
        match edit {
            Edit::Disable => target.enabled = false,
            Edit::Attribute => target.profile = false,
            Edit::UnlinkLun => target.lun = None,
            Edit::OtherLun => target.lun = Some(("other".into(), 1)),
            Edit::Portal => target.portals.clear(),
            Edit::Acl => target.acls.clear(),
            Edit::Stranger => {
                let theirs = target.acls.values().next().cloned();
                target.acls.extend(theirs.map(|acl| ("iqn.1993-08.org.debian:01:x".to_owned(), acl)));
            }
            Edit::BackstoreAttribute | Edit::Target => {}
            Edit::Password | Edit::Pings | Edit::UnmapLun | Edit::ProtectLun => {
                target.acls.values_mut().for_each(|acl| match edit {
                    Edit::Password => acl.auth = AuthState::Foreign,
                    Edit::Pings => acl.nopin_timeout = 7,
                    Edit::UnmapLun => acl.map = MapState::Missing,
                    _ => acl.map = MapState::Broken,
                });
            }
        }
    });
}

#[test]
fn nothing_touched_is_no_drift_and_pings_of_a_session_are_none() {
    let (host, wish) = served();
    assert_eq!(differences(&host, &wish), []);
    host.meddle(|machine| {
        let acls = machine.targets.values_mut().flat_map(|target| target.acls.values_mut());
        acls.for_each(|acl| acl.nopin_timeout = NopIn::On.seconds());
    });
    assert_eq!(steps(&host, &wish).len(), 1);
    assert_eq!(differences(&host, &wish), []);
    assert_eq!(leaving(steps(&host, &wish), &[]).len(), 1, "our own wish is carried out");
}

#[test]
fn each_hand_edit_is_told_and_mended_and_only_told_where_it_is_to_stay() {
    for one in EDITS {
        let (host, wish) = served();
        let before = host.machine();
        edit(&host, one);
        let told = differences(&host, &wish);
        assert_eq!(told.len(), 1, "{one:?}: {told:?}");
        assert_eq!(leaving(steps(&host, &wish), &told), [], "{one:?}");
        run_all(&host, &steps(&host, &wish));
        assert_eq!((host.machine(), differences(&host, &wish)), (before, vec![]), "{one:?}");
    }
}

#[test]
fn a_name_takes_the_place_of_what_is_only_known_to_differ() {
    let (host, wish) = served();
    edit(&host, Edit::Attribute);
    edit(&host, Edit::Disable);
    let export = &wish.disk.as_ref().unwrap().export;
    let found = host.export(&wish.target, VOLUME).unwrap();
    let named = [Difference::changed(Part::Target, "tpgt_1/attrib/authentication", "1", "0")];
    let told: Vec<_> = drift(export, &found, &named).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["tpgt_1/attrib/authentication: from '1' to '0'", "tpgt_1/enable: from '1' to '0'"]);
}

proptest! {
    #[test]
    fn the_plan_wants_something_exactly_where_there_is_drift(which in proptest::collection::btree_set(0..EDITS.len(), 0..4)) {
        let (host, wish) = served();
        let edits: BTreeSet<Edit> = which.iter().map(|n| EDITS[*n]).collect();
        edits.iter().for_each(|one| edit(&host, *one));
        let (told, wanted) = (differences(&host, &wish), steps(&host, &wish));
        prop_assert_eq!(told.is_empty(), wanted.is_empty());
        prop_assert_eq!(leaving(wanted.clone(), &told), vec![]);
        run_all(&host, &wanted);
        prop_assert_eq!(differences(&host, &wish), vec![]);
    }
}
