//! Killed again and again, a plan ends where it was going: making a disk, replacing one, taking one away.

use super::*;

/// What the blade's disk was to become when the agent was killed.
fn journeys() -> impl Strategy<Value = (Situation, bool)> {
    (situations(), any::<bool>())
}

/// Returns the machine and the wish; `release` takes the disk away that the blade has.
fn on_the_way(situation: &Situation, release: bool) -> (Sim, BladeWish) {
    if !release {
        return prepared(situation);
    }
    let had_disk = Situation { had_disk: true, granted: false, ..situation.clone() };
    let (host, mut wish) = prepared(&had_disk);
    (wish.disk, wish.releases) = (None, vec![OLD]);
    (host, wish)
}

proptest! {
    #[test]
    fn however_often_it_is_killed_a_plan_ends_where_it_was_going(
        (situation, release) in journeys(),
        kills in proptest::collection::vec(0_usize..14, 0..6),
    ) {
        let (host, wish) = on_the_way(&situation, release);
        for kill in kills {
            let steps = steps_for(&host, &wish);
            run_all(&host, &steps[..kill.min(steps.len())]);
        }
        run_all(&host, &steps_for(&host, &wish));
        let (undisturbed, _) = on_the_way(&situation, release);
        run_all(&undisturbed, &steps_for(&undisturbed, &wish));
        prop_assert_eq!(host.machine(), undisturbed.machine());
    }

    #[test]
    fn a_removal_killed_anywhere_leaves_nothing_of_the_disk(situation in situations(), kill in 0_usize..8) {
        let (host, wish) = on_the_way(&situation, true);
        let steps = steps_for(&host, &wish);
        run_all(&host, &steps[..kill.min(steps.len())]);
        run_all(&host, &steps_for(&host, &wish));
        let left = host.machine();
        prop_assert!(!left.volumes.volumes.contains_key(&OLD.lv_name()));
        prop_assert!(!left.targets.contains_key(&wish.target));
        prop_assert!(!left.backstores.contains_key(&OLD) && !left.properties.contains_key(&OLD));
        let again = steps_for(&host, &wish);
        prop_assert!(again.iter().all(|step| host.run(step).unwrap() == Changed::AlreadyTrue), "{again:?}");
    }
}

#[test]
fn a_clone_that_was_killed_before_it_grew_is_grown() {
    let (host, wish) = prepared(&Situation { granted: true, spare: false, had_disk: false, replace: false });
    let steps = steps_for(&host, &wish);
    run_all(&host, &steps[..1]);
    let whole = host.machine().volumes.volumes[&NEW.lv_name()].size;
    // As lvcreate leaves it, and lvextend was never run.
    host.meddle(|machine| {
        machine.volumes.volumes.get_mut(&NEW.lv_name()).unwrap().size = Bytes::gib(2);
    });
    let resumed = steps_for(&host, &wish);
    assert!(matches!(&resumed[0], Step::Clone { size, .. } if *size == whole), "{resumed:?}");
    host.meddle(|machine| {
        machine.volumes.volumes.get_mut(&NEW.lv_name()).unwrap().size = Bytes(whole.0 + 4096);
    });
    assert!(
        !steps_for(&host, &wish).iter().any(|step| matches!(step, Step::Clone { .. })),
        "rounded up is whole"
    );
}

#[test]
fn a_target_whose_removal_was_killed_goes_with_the_disk() {
    let (host, wish) =
        on_the_way(&Situation { granted: false, spare: false, had_disk: true, replace: false }, true);
    host.meddle(|machine| {
        let target = machine.targets.get_mut(&wish.target).unwrap();
        (target.enabled, target.lun) = (false, None);
        target.acls.clear();
    });
    run_all(&host, &steps_for(&host, &wish));
    assert!(!host.machine().targets.contains_key(&wish.target));
}

#[test]
fn a_target_that_serves_another_disk_is_not_removed_with_this_one() {
    let (host, wish) =
        on_the_way(&Situation { granted: false, spare: false, had_disk: true, replace: false }, true);
    host.meddle(|machine| {
        let target = machine.targets.get_mut(&wish.target).unwrap();
        target.lun = Some(("somebody-elses".into(), 0));
    });
    run_all(&host, &steps_for(&host, &wish));
    assert!(host.machine().targets[&wish.target].enabled);
}
