//! How much of the pool each volume takes, and how much of that it shares with none: what is freed when it goes.
//!
//! LVM knows neither for a volume that is not active, and never what is shared. The pool's own metadata say it: they are
//! held still for a moment (a metadata snapshot, which the kernel keeps beside the live ones) and counted by `thin_ls`.
//! Nothing waits meanwhile, and nobody else's snapshot of them is ever let go.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{Lvm, SECTOR, report};
use crate::{
    error::{Error, Kind, Result},
    host::cmd::{Cmd, Tool},
    model::{Bytes, LvName},
    observed::Space,
};

/// Longest time for the count: whoever waits for it gets his answer without it then. A pool of some million blocks takes
/// a second.
const COUNT: Duration = Duration::from_secs(20);
/// Longest time for a message to the pool.
const MESSAGE: Duration = Duration::from_secs(10);

/// What is asked of each volume.
const COLUMNS: &str = "lv_name,thin_id,pool_lv";

#[derive(Deserialize)]
struct Row {
    lv_name: String,
    thin_id: String,
    pool_lv: String,
}

impl Lvm {
    /// Returns how much of the pool each thin volume takes, ours or not; nothing while none of its volumes is active: the
    /// kernel does not have the pool then.
    ///
    /// # Errors
    /// [`Kind::Busy`] where they are being counted already, or somebody else holds a snapshot of the pool's metadata; else
    /// a command's failure.
    pub fn space(&self) -> Result<BTreeMap<LvName, Space>> {
        let busy = "count the pool's blocks: they are being counted already";
        let Ok(_counting) = self.counting.try_lock() else { return Err(Error::new(Kind::Busy, busy)) };
        if !self.is_in_the_kernel() {
            return Ok(BTreeMap::new());
        }
        let args = report::args(COLUMNS).into_iter().chain([self.vg.as_str()]);
        let json = self.turn().run("lvs", args)?;
        let held = Held::of(self)?;
        let counted = held.count();
        drop(held);
        named(&json, self.thinpool.as_str(), &counts(&counted?)?)
    }

    /// Returns device-mapper's name of a part of the pool.
    pub(super) fn pool_part(&self, part: &str) -> String {
        format!("{}{}{part}", self.device_prefix(), self.thinpool.as_str().replace('-', "--"))
    }

    /// Returns what device-mapper's names of the group's volumes begin with.
    pub(super) fn device_prefix(&self) -> String {
        format!("{}-", self.vg.as_str().replace('-', "--"))
    }

    /// Sends the pool a message, past LVM.
    pub(super) fn message(&self, text: &str) -> Result<()> {
        message(&self.pool_part("-tpool"), text)
    }
}

/// The pool's metadata, held still.
struct Held {
    pool: String,
    metadata: PathBuf,
}

impl Held {
    fn of(lvm: &Lvm) -> Result<Self> {
        let pool = lvm.pool_part("-tpool");
        let metadata = PathBuf::from("/dev/mapper").join(lvm.pool_part("_tmeta"));
        match message(&pool, "reserve_metadata_snap") {
            Ok(()) => Ok(Self { pool, metadata }),
            Err(error) if error.to_string().contains("busy") => {
                let fix =
                    format!("dmsetup message {pool} 0 release_metadata_snap, unless another program counts");
                let text = format!("count the pool's blocks: its metadata are held already ({fix})");
                Err(Error::new(Kind::Busy, text).because(error))
            }
            Err(error) => Err(error),
        }
    }

    fn count(&self) -> Result<Vec<u8>> {
        let fields = "DEV,MAPPED_SECTORS,EXCLUSIVE_SECTORS";
        let args = ["--metadata-snap", "--no-headers", "--format", fields];
        Ok(Cmd::new(Tool::ThinLs, COUNT).args(args).arg(&self.metadata).run()?.stdout)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Nobody to tell: what is still held is refused, with the fix, at the next count.
        let _ = message(&self.pool, "release_metadata_snap");
    }
}

fn message(pool: &str, text: &str) -> Result<()> {
    Cmd::new(Tool::Dmsetup, MESSAGE).args(["message", pool, "0", text]).run().map(drop)
}

/// Reads what `thin_ls` has written: the thin id, then both figures.
fn counts(text: &[u8]) -> Result<BTreeMap<u64, Space>> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let read = |line: &str| {
        let figures: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match figures[..] {
            [id, mapped, own] => Ok((id, Space { mapped: Bytes(mapped * SECTOR), own: Bytes(own * SECTOR) })),
            _ => Err(Error::new(Kind::Failed, format!("read the pool's blocks: '{}'", line.escape_debug()))),
        }
    };
    lines.map(read).collect()
}

/// Gives the figures to the volumes whose thin ids they are of.
fn named(json: &[u8], pool: &str, counts: &BTreeMap<u64, Space>) -> Result<BTreeMap<LvName, Space>> {
    let rows: Vec<Row> = report::rows(json)?;
    let thin = rows.into_iter().filter(|row| row.pool_lv == pool);
    Ok(thin
        .filter_map(|row| {
            let space = counts.get(&row.thin_id.parse::<u64>().ok()?)?;
            Some((row.lv_name.parse().ok()?, *space))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LVS: &[u8] = br#"{"report":[{"lv":[
        {"lv_name":"pool","thin_id":"","pool_lv":""},
        {"lv_name":"root","thin_id":"3","pool_lv":"other"},
        {"lv_name":"sheath-img-web","thin_id":"1","pool_lv":"pool"},
        {"lv_name":"sheath-img-web+2","thin_id":"12","pool_lv":"pool"}]}]}"#;

    #[test]
    fn figures_are_given_to_the_volumes_by_their_thin_ids() {
        let counted =
            counts(b"           1       819200           2048\n          12  4096  0\n\n 3 8 8\n").unwrap();
        let found = named(LVS, "pool", &counted).unwrap();
        let figures: Vec<_> =
            found.iter().map(|(lv, space)| (lv.as_str(), space.mapped, space.own)).collect();
        let expected = [
            ("sheath-img-web", Bytes::mib(400), Bytes::mib(1)),
            ("sheath-img-web+2", Bytes::mib(2), Bytes(0)),
        ];
        assert_eq!(figures, expected);
    }

    #[test]
    fn a_count_that_cannot_be_read_is_an_error_and_never_nothing() {
        for broken in ["1 2", "1 2 3 4", "1 x 3", "DEV MAPPED EXCLUSIVE"] {
            assert_eq!(counts(broken.as_bytes()).unwrap_err().kind(), Kind::Failed, "{broken}");
        }
        assert!(named(b"{", "pool", &BTreeMap::new()).is_err());
    }

    #[test]
    fn the_pools_parts_are_called_as_device_mapper_calls_them() {
        let lvm = Lvm::new("blade-vg".parse().unwrap(), "thin-pool".parse().unwrap());
        assert_eq!(lvm.pool_part("-tpool"), "blade--vg-thin--pool-tpool");
        assert_eq!(lvm.pool_part("_tmeta"), "blade--vg-thin--pool_tmeta");
    }
}
