//! How full the pool is, asked of the kernel alone: LVM reads the whole group for its report, and waits for whoever is at work
//! on it.

use std::path::Path;

use super::{Lvm, REPORT, SECTOR};
use crate::{
    error::{Error, Kind, Result},
    host::cmd::{Cmd, Tool},
    model::{Bytes, PoolUsage},
};

impl Lvm {
    /// Returns the pool's fill, at the same price whatever is in the pool.
    ///
    /// # Errors
    /// As [`Lvm::volumes`]; [`Kind::Failed`] where the kernel has given the pool up.
    pub fn usage(&self) -> Result<PoolUsage> {
        if !self.is_in_the_kernel() {
            return self.volumes().map(|volumes| volumes.pool);
        }
        let pool = self.pool_part("-tpool");
        let said = Cmd::new(Tool::Dmsetup, REPORT).args(["status", &pool]).run()?.stdout;
        let said = String::from_utf8_lossy(&said);
        usage(&said).ok_or_else(|| {
            Error::new(Kind::Failed, format!("read how full '{pool}' is: '{}'", said.trim().escape_debug()))
        })
    }

    /// Returns whether the pool is active. A new one has this name from its first volume on.
    pub(super) fn is_in_the_kernel(&self) -> bool {
        Path::new("/dev/mapper").join(self.pool_part("-tpool")).exists()
    }
}

/// Reads the status of a thin pool: start, length in sectors, `thin-pool`, transaction, used and total blocks of metadata, of
/// data (kernel: `Documentation/admin-guide/device-mapper/thin-provisioning.rst`).
fn usage(status: &str) -> Option<PoolUsage> {
    let mut words = status.split_whitespace();
    let sectors: u64 = words.nth(1)?.parse().ok()?;
    if words.next()? != "thin-pool" {
        return None;
    }
    let (metadata_percent, data_percent) = (percent(words.nth(1)?)?, percent(words.next()?)?);
    Some(PoolUsage { size: Bytes(sectors.checked_mul(SECTOR)?), data_percent, metadata_percent })
}

/// Returns `1/4` as 25.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a percentage")]
fn percent(share: &str) -> Option<f32> {
    let (used, total) = share.split_once('/')?;
    let (used, total): (u64, u64) = (used.parse().ok()?, total.parse().ok()?);
    (total > 0 && used <= total).then(|| (used as f64 / total as f64 * 100.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_status_is_its_fill() {
        let status = "0 41205760 thin-pool 7 1052/10240 80480/321920 - rw discard_passdown queue_if_no_space - 1024 \n";
        let found = usage(status).unwrap();
        assert_eq!(found.size, Bytes(41_205_760 * 512));
        assert!(
            (found.data_percent - 25.0).abs() < 1e-4 && (found.metadata_percent - 10.273_44).abs() < 1e-4
        );
    }

    #[test]
    fn what_is_no_pool_in_order_has_none() {
        for status in [
            "",
            "0 41205760 thin-pool Fail\n",
            "0 8 linear \n",
            "0 8 thin-pool 1 5/4 0/1 -",
            "0 8 thin-pool 1 0/0 0/1 -",
        ] {
            assert_eq!(usage(status), None, "{status}");
        }
    }
}
