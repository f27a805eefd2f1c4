//! The configuration and the roster as they are on disk.

use std::{fs, io::ErrorKind, path::Path};

use super::core::Loaded;
use crate::{
    config::{self, Config},
    roster::{Roster, Saved},
};

/// Longest file that is read: a mistake, not a configuration.
const LONGEST: u64 = 4 << 20;

/// Reads the configuration; every fault is a line.
pub(super) fn config(path: &Path) -> Loaded {
    let name = path.display().to_string();
    let readable = fs::metadata(path).and_then(|found| match found.len() {
        0..=LONGEST => fs::read_to_string(path),
        _ => Err(std::io::Error::other("it is larger than 4 MiB")),
    });
    let text = readable.map_err(|e| vec![format!("{name}: {e}")])?;
    config::parse(&name, &text).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

/// Reads the configuration again. What cannot change while the agent runs is a fault.
pub(super) fn reconfig(path: &Path, running: &Config) -> Loaded {
    let config = config(path)?;
    let mut faults = vec![];
    if config.pool.vg != running.pool.vg || config.pool.thinpool != running.pool.thinpool {
        faults.push("pool: another volume group or pool needs 'systemctl restart sheathd'".to_owned());
    }
    if config.target.iqn_prefix != running.target.iqn_prefix {
        faults.push("target.iqn_prefix: another prefix needs 'systemctl restart sheathd'".to_owned());
    }
    if config.chassis.bridge != running.chassis.bridge {
        faults.push("chassis.bridge: another bridge needs 'systemctl restart sheathd'".to_owned());
    }
    if faults.is_empty() { Ok(config) } else { Err(faults) }
}

/// Reads the saved roster. One that is lost or damaged is an empty one: the volumes' tags say whose disk is whose. A
/// damaged one, or a newer version's, is put aside: the next save would take its place.
pub(super) fn roster(path: &Path) -> Roster {
    match fs::read(path) {
        Ok(bytes) => Saved::parse(&bytes).map(Saved::into_roster).unwrap_or_else(|error| {
            log::warn!("'{}' is not used: {}; pending grants are lost", path.display(), error.chain());
            put_aside(path);
            Roster::default()
        }),
        Err(e) if e.kind() == ErrorKind::NotFound => Roster::default(),
        Err(e) => {
            log::warn!("'{}' is not used: {e}; pending grants are lost", path.display());
            Roster::default()
        }
    }
}

/// Renames a file that cannot be used, for whoever wants to know what was in it.
fn put_aside(path: &Path) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let aside = Path::new(&aside);
    match fs::rename(path, aside) {
        Ok(()) => log::warn!("it is kept as '{}'", aside.display()),
        Err(e) => log::warn!("it cannot be kept as '{}': {e}", aside.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::file, roster::Blade, sample};

    /// Returns a roster that was saved, and its bytes.
    fn saved() -> (Roster, Vec<u8>) {
        let mut blade = Blade::new(sample::slot(1));
        blade.releases.push(crate::model::VolumeId(7));
        blade.hardware.product = Some("Blade \"X\"\n100 %".into());
        let roster = Roster { blades: [(sample::blade_id(1), blade)].into_iter().collect() };
        let bytes = Saved::of(&roster, 3).to_bytes();
        (roster, bytes)
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a damaged file, which nobody saves")]
    fn a_roster_cut_anywhere_is_an_empty_one_and_what_is_left_of_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, (_, bytes)) = (dir.path().join("roster.json"), saved());
        for end in 0..bytes.len() {
            fs::write(&path, &bytes[..end]).unwrap();
            assert_eq!(roster(&path), Roster::default(), "cut at {end}");
            assert_eq!(fs::read(dir.path().join("roster.json.damaged")).unwrap(), &bytes[..end]);
            assert!(!path.exists());
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "what a crash in the middle of a save leaves")]
    fn a_save_cut_off_anywhere_leaves_the_roster_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, (before, bytes)) = (dir.path().join("roster.json"), saved());
        file::save(&path, &bytes, 0o600).unwrap();
        let newer = Saved::of(&Roster::default(), 4).to_bytes();
        for end in 0..=newer.len() {
            fs::write(dir.path().join(".roster.json.tmp"), &newer[..end]).unwrap();
            assert_eq!(roster(&path), before, "cut at {end}");
        }
        file::save(&path, &newer, 0o600).unwrap();
        assert_eq!(roster(&path), Roster::default());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the left-over went with the next save");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a file that somebody is writing by hand")]
    fn a_configuration_cut_anywhere_is_read_or_its_faults_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sheath.toml");
        let mut refused = 0;
        for end in 0..config::SAMPLE.len() {
            fs::write(&path, &config::SAMPLE.as_bytes()[..end]).unwrap();
            if let Err(faults) = config(&path) {
                assert!(!faults.is_empty() && faults.iter().all(|fault| fault.contains("sheath.toml")));
                refused += 1;
            }
        }
        assert!(refused > 100, "only {refused} cuts were refused");
    }
}
