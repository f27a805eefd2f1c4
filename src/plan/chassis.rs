//! From the chassis' wish and what exists to steps: the bridge, its ports, the services' files.

use crate::{observed::ObservedChassis, plan::Step, policy::chassis::ChassisWish};

/// Returns the steps that are not true yet. A port that does not exist (yet) is left out: udev tells when it comes.
pub fn chassis(wish: &ChassisWish, found: &ObservedChassis) -> Vec<Step> {
    let mut steps = vec![];
    if let Some(address) = wish.address {
        if !found.bridge_up || !found.addresses.contains(&address) {
            steps.push(Step::Bridge { bridge: wish.bridge.clone(), address });
        }
        steps.extend(ports(wish, found));
    }
    let told = |path, content| found.files.get(path).is_some_and(|text| text == content);
    let untold = wish.files.iter().filter(|file| !told(&file.path, &file.content));
    steps.extend(untold.map(|file| Step::ServiceFile {
        unit: file.unit.clone(),
        path: file.path.clone(),
        content: file.content.clone(),
    }));
    steps
}

fn ports(wish: &ChassisWish, found: &ObservedChassis) -> impl Iterator<Item = Step> {
    let ours = |name: &str| name == wish.bridge.as_str();
    wish.ports.iter().filter_map(move |port| {
        let seen = found.ports.get(port)?;
        let member = seen.master.as_ref().is_some_and(|master| ours(master.as_str()));
        let right = seen.up && member && seen.isolated == wish.isolated;
        let step = Step::Port { port: port.clone(), bridge: wish.bridge.clone(), isolated: wish.isolated };
        (!right).then_some(step)
    })
}
