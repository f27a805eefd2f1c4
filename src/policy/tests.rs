//! The policies' promises.

use super::{boot::Verdict, *};
use crate::{
    config::{MenuDefault, Policy},
    roster::{Disk, GrantedBy, Idle},
    sample,
};

fn blade(n: u8) -> (BladeId, Blade) {
    (sample::blade_id(n), Blade::new(sample::slot(1)))
}

fn disk(slot: u16) -> Disk {
    Disk { volume: VolumeId(7), image: sample::image(), slot: sample::slot(slot) }
}

#[test]
fn a_blade_with_a_disk_always_boots_it_whatever_the_policy() {
    let (id, mut blade) = blade(1);
    (blade.disk, blade.ready) = (Some(disk(1)), true);
    let mut config = sample::config();
    for policy in [Policy::Prompt, Policy::Wait, Policy::Ignore, Policy::Auto(sample::image().into())] {
        config.policy.default.policy = policy;
        assert_eq!(boot::verdict(&config, id, &blade), Verdict::Serve);
    }
}

#[test]
fn a_blade_without_a_disk_gets_what_the_narrowest_policy_says() {
    let (id, blade) = blade(1);
    let mut config = sample::config();
    assert_eq!(boot::verdict(&config, id, &blade), Verdict::Prompt);
    let mut narrower = config.policy.default.clone();
    narrower.policy = Policy::Wait;
    config.policy.slots.insert(blade.slot, narrower.clone());
    assert_eq!(boot::verdict(&config, id, &blade), Verdict::Wait);
    narrower.policy = Policy::Auto(sample::image().into());
    config.policy.blades.insert(id.0, narrower);
    assert_eq!(boot::verdict(&config, id, &blade), Verdict::Install(sample::image().into()));
}

#[test]
fn a_disk_in_the_wrong_slot_is_refused_even_when_it_is_ready() {
    let (id, mut blade) = blade(1);
    (blade.disk, blade.ready) = (Some(disk(2)), true);
    assert_eq!(boot::verdict(&sample::config(), id, &blade), Verdict::Misplaced);
}

#[test]
fn a_choice_to_wait_lasts_until_the_next_boot() {
    let (id, mut blade) = blade(1);
    blade.idle = Some(Idle::Waiting);
    assert_eq!(boot::verdict(&sample::config(), id, &blade), Verdict::Wait);
    blade.begin_boot(1);
    assert_eq!(boot::verdict(&sample::config(), id, &blade), Verdict::Prompt);
}

#[test]
fn only_a_grant_makes_a_volume() {
    let (id, mut blade) = blade(1);
    let config = sample::config();
    assert_eq!(wish(&config, id, &blade).unwrap().disk, None);
    blade.disk = Some(disk(1));
    let known = wish(&config, id, &blade).unwrap().disk.unwrap();
    assert_eq!(known.make, None);
    blade.grant = Some(Grant {
        image: sample::image(),
        volume: VolumeId(9),
        by: GrantedBy::Operator,
        at: 1,
        from: None,
    });
    let granted = wish(&config, id, &blade).unwrap().disk.unwrap();
    assert_eq!(granted.export.backstore.volume, VolumeId(9));
    assert_eq!(granted.make.unwrap().owner.unwrap().0, id);
}

#[test]
fn a_seed_has_the_blades_own_name_in_it_and_a_faulty_template_makes_no_disk() {
    let (id, mut blade) = blade(2);
    let mut config = sample::config();
    let (image, volume) = (sample::image(), VolumeId(9));
    blade.grant = Some(Grant { image: image.clone(), volume, by: GrantedBy::Operator, at: 1, from: None });
    let mut seed = |text: &str| {
        let user_data = Some(crate::model::Template::new(text).unwrap());
        let profile = crate::config::ImageProfile { user_data, ..Default::default() };
        config.images.insert(image.name.clone(), profile);
        let disk = wish(&config, id, &blade)?.disk.unwrap();
        Ok::<_, crate::error::Error>(disk.make.unwrap().owner.unwrap().2.user_data.unwrap())
    };
    let text = seed("fqdn: {{ hostname }}.slot{{ slot }}.example\n").unwrap();
    assert_eq!(text, "fqdn: b-525400000002.slot1.example\n");
    let error = seed("{% if hostname != 'blade1' %}{{ nothing }}{% endif %}").unwrap_err();
    assert!(error.to_string().contains("user_data of image 'debian13'"), "{}", error.chain());
}

#[test]
fn a_menu_never_chooses_an_image_that_is_not_on_offer() {
    let (id, blade) = blade(1);
    let mut config = sample::config();
    config.policy.default.menu_default = MenuDefault::Install(sample::image().into());
    assert_eq!(boot::menu_default(&config, id, &blade, &[]), MenuDefault::Wait);
    let offered = [sample::image()];
    assert_eq!(
        boot::menu_default(&config, id, &blade, &offered),
        MenuDefault::Install(sample::image().into())
    );
}

#[test]
fn the_same_volume_is_the_same_disk() {
    assert_eq!(guid_of(VolumeId(5)), guid_of(VolumeId(5)));
    assert_ne!(guid_of(VolumeId(5)), guid_of(VolumeId(6)));
}

#[test]
fn slots_take_turns_over_the_ports() {
    let config = sample::config();
    let port = |slot| config.target.portal_of(sample::slot(slot)).0.port();
    assert_eq!([1, 2, 3, 4].map(port), [3260, 3261, 3260, 3261]);
    let (id, mut blade) = blade(2);
    blade.disk = Some(disk(2));
    let wish = super::wish(&config, id, &blade).unwrap();
    assert_eq!(wish.disk.unwrap().export.portals, [config.target.portal_of(sample::slot(2))]);
}
