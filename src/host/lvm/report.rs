//! LVM's report, decoded: which volumes there are, which of them are ours, how full the pool is.
//!
//! Pure. LVM writes every value as text, an empty one where it does not apply. A value that cannot be read is an error:
//! a report is believed as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    error::{Error, Kind, Result},
    host::{ForeignVolume, Volumes},
    model::{Bytes, LvName, PoolUsage, Tag, VgName, Volume},
};

/// What is asked of each volume.
pub(super) const VOLUME: &str =
    "lv_name,lv_tags,lv_size,lv_active,lv_permissions,data_percent,metadata_percent,pool_lv";

/// What is asked of each volume to find the one that a block device is.
pub(super) const DEVICE: &str = "lv_name,pool_lv,lv_size,lv_kernel_major,lv_kernel_minor";

/// One logical volume, as a block device.
#[derive(Debug, Deserialize)]
pub(super) struct DeviceRow {
    lv_name: String,
    pool_lv: String,
    lv_size: String,
    lv_kernel_major: String,
    lv_kernel_minor: String,
}

impl DeviceRow {
    /// Returns whether the volume is the block device of this number.
    pub(super) fn is(&self, (major, minor): (u32, u32)) -> bool {
        self.lv_kernel_major == major.to_string() && self.lv_kernel_minor == minor.to_string()
    }

    /// Returns the volume as one that somebody else may have made.
    pub(super) fn foreign(&self, thinpool: &LvName) -> Result<ForeignVolume> {
        let size = self.lv_size.parse().map(Bytes).map_err(|e| {
            let text = self.lv_size.escape_debug();
            Error::new(Kind::Failed, format!("read size of volume '{}': '{text}'", self.lv_name)).because(e)
        })?;
        Ok(ForeignVolume { lv: self.lv_name.parse()?, size, in_pool: self.pool_lv == thinpool.as_str() })
    }
}

/// Returns the arguments of a report with these columns: plain numbers of bytes, as JSON.
pub(super) fn args(columns: &str) -> [&str; 7] {
    ["--reportformat", "json", "--units", "b", "--nosuffix", "--options", columns]
}

/// LVM's JSON: a list of sections, each with one list under the name of what was asked for.
#[derive(Deserialize)]
struct Report<T> {
    report: Vec<BTreeMap<String, Vec<T>>>,
}

/// Returns the rows of a report.
pub(super) fn rows<T: DeserializeOwned>(json: &[u8]) -> Result<Vec<T>> {
    let report: Report<T> =
        serde_json::from_slice(json).map_err(|e| Error::new(Kind::Failed, "read LVM's report").because(e))?;
    Ok(report.report.into_iter().flat_map(BTreeMap::into_values).flatten().collect())
}

/// One logical volume.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Row {
    /// Its name.
    pub(super) lv_name: String,
    lv_tags: String,
    lv_size: String,
    lv_active: String,
    lv_permissions: String,
    data_percent: String,
    metadata_percent: String,
    pool_lv: String,
}

/// All logical volumes of the group, foreign ones too.
#[derive(Debug)]
pub(super) struct Rows(Vec<Row>);

impl Rows {
    /// Decodes what `lvs` has written.
    pub(super) fn parse(json: &[u8]) -> Result<Self> {
        rows(json).map(Self)
    }

    /// Returns the volume of this name.
    pub(super) fn find(&self, lv: &LvName) -> Option<&Row> {
        self.0.iter().find(|row| row.lv_name == lv.as_str())
    }

    /// Returns our volumes and the pool's fill.
    ///
    /// # Errors
    /// [`Kind::Missing`] where the pool is not there, [`Kind::Failed`] for a value that cannot be read.
    pub(super) fn volumes(&self, vg: &VgName, thinpool: &LvName) -> Result<Volumes> {
        let pool = self.find(thinpool).ok_or_else(|| {
            Error::new(Kind::Missing, format!("there is no thin pool '{thinpool}' in volume group '{vg}'"))
        })?;
        let mut volumes = Volumes { pool: pool.usage()?, ..Volumes::default() };
        for row in self.0.iter().filter(|row| row.pool_lv == thinpool.as_str()) {
            if let Some(volume) = row.volume(vg)? {
                volumes.volumes.insert(volume.lv.clone(), volume);
            }
        }
        Ok(volumes)
    }
}

impl Row {
    /// Returns the volume's size.
    pub(super) fn size(&self) -> Result<Bytes> {
        self.lv_size.parse().map(Bytes).map_err(|e| self.unreadable("size", &self.lv_size).because(e))
    }

    /// Returns whether device-mapper has it.
    pub(super) fn active(&self) -> bool {
        !self.lv_active.is_empty()
    }

    /// Returns whether it may be written to.
    pub(super) fn writable(&self) -> bool {
        self.lv_permissions == "writeable"
    }

    /// Returns the tags that are ours.
    pub(super) fn tags(&self) -> BTreeSet<Tag> {
        self.lv_tags.split(',').filter_map(|tag| tag.parse().ok()).collect()
    }

    /// Returns the volume, or `None` where it is not one of ours.
    fn volume(&self, vg: &VgName) -> Result<Option<Volume>> {
        let Some((role, state)) = Volume::identify(&self.lv_name, &self.tags()) else { return Ok(None) };
        let lv: LvName = self.lv_name.parse()?;
        let device = format!("/dev/{vg}/{lv}").into();
        let used_percent = self.percent("data_percent", &self.data_percent)?;
        Ok(Some(Volume {
            lv,
            role,
            state,
            size: self.size()?,
            device,
            active: self.active(),
            writable: self.writable(),
            used_percent,
        }))
    }

    /// Returns the fill of the row's pool.
    fn usage(&self) -> Result<PoolUsage> {
        // An inactive pool has no figures; nothing can grow in it meanwhile.
        let data_percent = self.percent("data_percent", &self.data_percent)?.unwrap_or_default();
        let metadata_percent = self.percent("metadata_percent", &self.metadata_percent)?.unwrap_or_default();
        Ok(PoolUsage { size: self.size()?, data_percent, metadata_percent })
    }

    fn percent(&self, what: &str, text: &str) -> Result<Option<f32>> {
        if text.is_empty() {
            return Ok(None);
        }
        let value: f32 = text.parse().map_err(|e| self.unreadable(what, text).because(e))?;
        // LVM says -1 where the kernel did not answer: a pool in trouble.
        if (0.0..=100.0).contains(&value) { Ok(Some(value)) } else { Err(self.unreadable(what, text)) }
    }

    fn unreadable(&self, what: &str, text: &str) -> Error {
        Error::new(
            Kind::Failed,
            format!("read {what} of volume '{}': '{}'", self.lv_name, text.escape_debug()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Role, VolumeState};

    /// Recorded: LVM 2.03.16, one image, one blade's disk, one half-made clone, one foreign volume.
    const RECORDED: &[u8] = include_bytes!("lvs.json");

    fn names() -> (VgName, LvName) {
        ("blades".parse().unwrap(), "pool".parse().unwrap())
    }

    #[test]
    fn a_recorded_report_is_read_and_foreign_volumes_are_left_out() {
        let (vg, pool) = names();
        let all = Rows::parse(RECORDED).unwrap().volumes(&vg, &pool).unwrap();
        let shown: Vec<_> =
            all.volumes.values().map(|v| (v.lv.as_str(), v.state, v.active, v.size.0)).collect();
        assert_eq!(
            shown,
            [
                ("sheath-img-debian13", VolumeState::Ready, false, 104_857_600),
                ("sheath-vol-00000000000000000000000000000001", VolumeState::Ready, true, 209_715_200),
                ("sheath-vol-00000000000000000000000000000002", VolumeState::Making, true, 104_857_600),
            ]
        );
        assert_eq!(all.pool.size, Bytes::gib(1));
        assert!((all.pool.metadata_percent - 10.07).abs() < 0.001);
        let disk = &all.volumes[&"sheath-vol-00000000000000000000000000000001".parse().unwrap()];
        assert!(matches!(&disk.role, Role::Disk { image, .. } if image.to_string() == "debian13@1"));
        assert_eq!(disk.device.to_str(), Some("/dev/blades/sheath-vol-00000000000000000000000000000001"));
        assert_eq!(disk.used_percent, Some(1.5));
    }

    #[test]
    fn a_report_that_cannot_be_read_is_an_error_and_never_empty() {
        let (vg, pool) = names();
        for broken in ["", "{}", "{\"report\": [{\"lv\": [{}]}]}", "{\"report\": [", "[]"] {
            assert_eq!(Rows::parse(broken.as_bytes()).unwrap_err().kind(), Kind::Failed, "{broken}");
        }
        let empty = br#"{"report": [{"lv": []}]}"#;
        assert_eq!(Rows::parse(empty).unwrap().volumes(&vg, &pool).unwrap_err().kind(), Kind::Missing);
        let text = String::from_utf8(RECORDED.to_vec()).unwrap().replace("\"10.07\"", "\"-1\"");
        let failed = Rows::parse(text.as_bytes()).unwrap().volumes(&vg, &pool).unwrap_err();
        assert_eq!(failed.kind(), Kind::Failed);
    }
}
