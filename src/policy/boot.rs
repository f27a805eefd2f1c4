//! What a blade that asks is told. Pure: the menu's token, the credentials and the clock are others' business.
//!
//! The default for a blade that has a disk is always "boot it". Installing needs a grant, and only a menu, a policy or
//! the operator gives one.

use crate::{
    config::{Config, MenuDefault, Policy, Restart},
    model::{BladeId, ImageId, ImageRef},
    roster::{Blade, Idle},
};

/// What to tell a blade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is not where its disk belongs.
    Misplaced,
    /// Boot the disk.
    Serve,
    /// Restart; the disk is ready.
    Restart,
    /// Its disk is being made, or its target.
    Busy,
    /// A step failed: the text says which and why.
    Failed(String),
    /// Show the menu.
    Prompt,
    /// Give it this image, unasked.
    Install(ImageRef),
    /// Wait for the administrator.
    Wait,
    /// Go on with the firmware's boot order.
    Firmware,
}

/// Returns what a blade is told that asks what to do.
pub fn verdict(config: &Config, id: BladeId, blade: &Blade) -> Verdict {
    let policy = config.policy_of(id.0, blade.slot);
    match (&blade.disk, &blade.grant) {
        _ if blade.is_misplaced() => Verdict::Misplaced,
        (_, Some(_)) | (Some(_), _) if blade.problem.is_some() => {
            Verdict::Failed(blade.problem.as_ref().map_or_else(String::new, |fault| fault.text.clone()))
        }
        (_, Some(_)) => Verdict::Busy,
        (Some(_), None) if !blade.ready => Verdict::Busy,
        (Some(_), None) if blade.restart_due => Verdict::Restart,
        (Some(_), None) => Verdict::Serve,
        (None, None) => match (blade.idle, &policy.policy) {
            (Some(Idle::Waiting), _) | (None, Policy::Wait) => Verdict::Wait,
            (Some(Idle::Ignored), _) | (None, Policy::Ignore) => Verdict::Firmware,
            (None, Policy::Auto(image)) => Verdict::Install(image.clone()),
            (None, Policy::Prompt) => Verdict::Prompt,
        },
    }
}

/// Returns whether the machine restarts when its disk is ready.
pub fn restarts(config: &Config, id: BladeId, blade: &Blade) -> bool {
    config.policy_of(id.0, blade.slot).restart == Restart::Reboot
}

/// Returns what a menu chooses by itself: the configured default as the menu calls it, or waiting where that image is not
/// on offer.
pub fn menu_default(config: &Config, id: BladeId, blade: &Blade, offered: &[ImageId]) -> MenuDefault {
    let meant = |wanted: &ImageRef| {
        let is_it = |image: &&ImageId| {
            image.name == wanted.name && wanted.version.is_none_or(|version| version == image.version)
        };
        offered.iter().find(is_it).cloned().map(ImageRef::from)
    };
    match &config.policy_of(id.0, blade.slot).menu_default {
        MenuDefault::Install(image) => meant(image).map_or(MenuDefault::Wait, MenuDefault::Install),
        other => other.clone(),
    }
}
