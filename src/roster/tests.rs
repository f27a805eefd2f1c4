//! The roster's promises.

use super::*;
use crate::model::Bytes;

fn id(n: u8) -> BladeId {
    BladeId(format!("52:54:00:00:00:{n:02x}").parse().unwrap())
}

fn slot(n: u16) -> Slot {
    n.to_string().parse().unwrap()
}

fn volumes(state: VolumeState, blade: BladeId, volume: VolumeId, at: Slot) -> Volumes {
    let image = "debian13".parse().unwrap();
    let volume = Volume {
        lv: volume.lv_name(),
        role: Role::Disk { id: volume, image, blade, slot: at },
        state,
        size: Bytes::gib(1),
        device: "/dev/x".into(),
        active: true,
        writable: true,
        used_percent: None,
    };
    Volumes { volumes: BTreeMap::from([(volume.lv.clone(), volume)]), pool: Default::default() }
}

fn granted(roster: &mut Roster, blade: BladeId, volume: VolumeId) {
    let image = "debian13".parse().unwrap();
    let grant = Grant { image, volume, by: GrantedBy::Console, at: 5, from: None };
    roster.blades.get_or_new(blade, slot(1)).grant = Some(grant);
}

#[test]
fn a_grant_is_consumed_once_by_its_own_volume_being_ready() {
    let (blade, volume) = (id(1), VolumeId(7));
    let mut roster = Roster::default();
    granted(&mut roster, blade, volume);
    assert!(roster.learn(&volumes(VolumeState::Making, blade, volume, slot(1))).is_empty());
    assert!(roster.blades[&blade].grant.is_some());
    assert_eq!(roster.learn(&volumes(VolumeState::Ready, blade, volume, slot(1))), [blade]);
    assert_eq!(roster.blades[&blade].disk.as_ref().map(|d| d.volume), Some(volume));
    assert!(roster.blades[&blade].grant.is_none());
    assert!(roster.learn(&volumes(VolumeState::Ready, blade, volume, slot(1))).is_empty());
}

#[test]
fn a_lost_state_file_leaves_every_blade_its_disk_and_no_grant() {
    let mut roster = Roster::default();
    roster.learn(&volumes(VolumeState::Ready, id(1), VolumeId(7), slot(3)));
    let blade = &roster.blades[&id(1)];
    assert_eq!((blade.slot, blade.grant.as_ref()), (slot(3), None));
    assert!(blade.disk.is_some());
}

#[test]
fn a_blade_with_a_disk_in_another_slot_is_refused_and_one_without_is_not() {
    let mut roster = Roster::default();
    roster.learn(&volumes(VolumeState::Ready, id(1), VolumeId(7), slot(1)));
    assert_eq!(roster.seen(id(1), slot(2), 9), Sighting::Moved { from: slot(1) });
    assert_eq!(roster.blades[&id(1)].phase(), BladePhase::Refused);
    assert_eq!(roster.seen(id(2), slot(2), 9), Sighting::New);
    assert_eq!(roster.seen(id(2), slot(1), 9), Sighting::Moved { from: slot(2) });
    assert_eq!(roster.blades[&id(2)].phase(), BladePhase::Seen);
}

#[test]
fn a_pulled_cable_is_the_end_of_a_presence_and_the_next_frame_a_new_boot() {
    let mut roster = Roster::default();
    roster.seen(id(1), slot(1), 10);
    assert_eq!(roster.seen(id(1), slot(1), 11), Sighting::Same);
    assert_eq!(roster.unplugged(slot(1)), [id(1)]);
    assert!(roster.unplugged(slot(1)).is_empty());
    assert_eq!(roster.blades[&id(1)].phase(), BladePhase::Absent);
    assert_eq!(roster.seen(id(1), slot(1), 12), Sighting::Back);
    assert_eq!(roster.blades[&id(1)].times[&Moment::Seen], 12);
}

#[test]
fn what_is_saved_reads_back_and_nothing_shorter_does() {
    let mut roster = Roster::default();
    roster.learn(&volumes(VolumeState::Ready, id(1), VolumeId(7), slot(1)));
    granted(&mut roster, id(2), VolumeId(8));
    let bytes = Saved::of(&roster, 3).to_bytes();
    assert_eq!(Saved::parse(&bytes).unwrap().into_roster(), roster);
    for end in 0..bytes.len() {
        assert!(Saved::parse(&bytes[..end]).is_err(), "cut at {end}");
    }
    assert!(Saved::parse(br#"{"version":2,"generation":1,"blades":{}}"#).is_err());
}

#[test]
fn the_blade_in_the_slot_is_the_present_one() {
    let mut roster = Roster::default();
    roster.learn(&volumes(VolumeState::Ready, id(1), VolumeId(7), slot(1)));
    assert_eq!(roster.in_slot(slot(1)).unwrap().0, id(1));
    roster.seen(id(2), slot(1), 1);
    assert_eq!(roster.in_slot(slot(1)).unwrap().0, id(2));
    assert!(roster.in_slot(slot(9)).is_none());
}

#[test]
fn a_roster_from_before_images_had_versions_is_read_as_it_was() {
    // Recorded: one blade with a disk, one with a grant.
    let recorded = br#"{"version":1,"generation":9,"blades":{
      "b-525400000001":{"slot":"1","disk":{"volume":"00000000000000000000000000000007","image":"debian13","slot":"1"},
        "restart_due":false,"hardware":{}},
      "b-525400000002":{"slot":"2","grant":{"image":"debian13","volume":"00000000000000000000000000000008",
        "by":"console","at":5},"restart_due":true,"hardware":{}}}}"#;
    let roster = Saved::parse(recorded).unwrap().into_roster();
    let disk = roster.blades[&id(1)].disk.as_ref().unwrap();
    assert_eq!(disk.image.to_string(), "debian13@1");
    assert_eq!(roster.blades[&id(2)].grant.as_ref().unwrap().image, disk.image);
    assert_eq!(disk.image.lv_name().as_str(), "sheath-img-debian13");
}
