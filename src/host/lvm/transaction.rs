//! What a killed LVM command leaves behind in the pool, and how it is put right before anything else is changed.
//!
//! LVM and the kernel each number the pool's transactions, and LVM makes no new volume where the two differ.
//!
//! ```text
//! lvcreate -s:  LVM is at N+1, with a message for the pool ──► origin suspended ──► told ──► "N+1" ──► resumed ──► message forgotten
//! killed at:                                    (nothing)  │      (suspended)       │ (half told) │ (suspended)
//! ```
//!
//! A message that is waiting does no harm: the next command delivers it. But a volume that was left suspended makes its blade
//! wait, and the next snapshot of it takes it for one whose messages were delivered: LVM counts on without the kernel, and the
//! pool takes no new volume from then on. So what is suspended is resumed first. A pool that was told what to make and not
//! that this was a transaction refuses to be told twice: it is told the rest. Seen with LVM 2.03.16.

use serde::Deserialize;

use super::{Lvm, Turn, report};
use crate::{
    error::{Error, Kind, Result},
    host::cmd::{Cmd, Tool},
    model::LvName,
};

/// How the names of volumes that are ours begin.
const OURS: &str = "sheath-";

impl Turn<'_> {
    /// Has volumes of ours go on, and the pool, that a killed command has left suspended.
    ///
    /// By LVM, which waits for whoever is at work on the group: what is suspended may be so for a reason.
    pub(super) fn settle(&self) -> Result<()> {
        let mut failed = Ok(vec![]);
        for lv in self.lvm.suspended()? {
            failed = failed.and(self.command("lvchange", &["--refresh", &self.lvm.path(&lv)]));
        }
        // LVM complains of having resumed what it has not suspended. What counts is that it goes on.
        match failed {
            Err(error) if !self.lvm.suspended()?.is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    /// Tells the pool that what it has made was the transaction that LVM takes it for. The kernel refuses where it is not the
    /// next one.
    pub(super) fn end_transaction(&self) -> Result<()> {
        let vg = self.lvm.vg.as_str();
        let args = report::args("lv_name,transaction_id").into_iter().chain([vg]);
        let rows: Vec<Counted> = report::rows(&self.command("lvs", &args.collect::<Vec<_>>())?)?;
        let pool = rows.into_iter().find(|row| row.lv_name == self.lvm.thinpool.as_str());
        let id: Option<u64> = pool.and_then(|row| row.transaction_id.parse().ok());
        let Some(before) = id.and_then(|id| id.checked_sub(1)) else {
            let text = format!("read the transaction number of '{}'", self.lvm.path(&self.lvm.thinpool));
            return Err(Error::new(Kind::Failed, text));
        };
        self.lvm.message(&format!("set_transaction_id {before} {}", before + 1))
    }
}

#[derive(Deserialize)]
struct Counted {
    lv_name: String,
    transaction_id: String,
}

/// Returns whether a command was killed: what it leaves is nobody's guess.
pub(super) fn was_killed(error: &Error) -> bool {
    error.kind() == Kind::Timeout || error.to_string().contains(": signal: ")
}

/// Returns whether a command failed because the pool has made already what it was told to make, in a transaction that it was
/// not told the end of.
pub(super) fn is_half_told(error: &Error) -> bool {
    let said = error.to_string();
    said.contains("Failed to process message \"create_") && said.contains("File exists")
}

impl Lvm {
    /// Returns the pool and the volumes of ours that are suspended.
    fn suspended(&self) -> Result<Vec<LvName>> {
        let args = ["info", "-c", "--noheadings", "-o", "name,suspended"];
        let listed = Cmd::new(Tool::Dmsetup, super::REPORT).args(args).run()?.stdout;
        Ok(self.suspended_in(&String::from_utf8_lossy(&listed)))
    }

    /// Reads the suspended ones out of device-mapper's list of devices.
    fn suspended_in(&self, listed: &str) -> Vec<LvName> {
        let suspended = listed.lines().filter_map(|line| line.trim().strip_suffix(":Suspended"));
        let ours = suspended.filter_map(|device| {
            if device == self.pool_part("-tpool") {
                return Some(self.thinpool.clone());
            }
            let lv = device.strip_prefix(&self.device_prefix())?.replace("--", "-");
            if lv.starts_with(OURS) { lv.parse().ok() } else { None }
        });
        ours.collect()
    }

    /// Returns the error of a failed command with the cause and the fix where it failed because of the pool's number: LVM
    /// tells of a lack of space then.
    pub(super) fn explain_transaction(&self, error: Error) -> Error {
        let Some(ids) = ids(&error.to_string()) else { return error };
        let (vg, pool) = (&self.vg, &self.thinpool);
        let (kernel, lvm) = ids;
        let text = format!(
            "no new volume in thin pool '{vg}/{pool}': the kernel is at transaction {kernel} of it, LVM at another ({lvm}), as an \
             LVM command leaves it that was killed half-way; the volumes that are there go on (fix: vgcfgbackup -f \
             /root/{vg}.lvm {vg}; set transaction_id of '{pool}' in /root/{vg}.lvm to {kernel}; vgcfgrestore --yes --force -f \
             /root/{vg}.lvm {vg})"
        );
        Error::new(Kind::Failed, text).because(error)
    }
}

/// Returns the kernel's number and the one that LVM expects, where LVM complains of them.
fn ids(said: &str) -> Option<(u64, u64)> {
    let complaints =
        [("unexpected transaction id ", "expecting "), ("transaction_id is ", "while expected ")];
    complaints.iter().find_map(|(kernel, lvm)| {
        let (_, rest) = said.split_once(kernel)?;
        let (_, expected) = rest.split_once(lvm)?;
        Some((number(rest)?, number(expected)?))
    })
}

fn number(text: &str) -> Option<u64> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: &str = "blade--vg-thin--pool:Active\nblade--vg-thin--pool-tpool:Suspended\nblade--vg-root:Suspended\n\
         blade--vg-sheath--img--web+2:Suspended\nblade--vg-sheath--vol--1:Active\nother-sheath--vol--1:Suspended\n\
         blade--vg-sheath--vol--02:Suspended\n";

    #[test]
    fn only_the_pool_and_volumes_of_ours_are_resumed() {
        let lvm = Lvm::new("blade-vg".parse().unwrap(), "thin-pool".parse().unwrap());
        let found: Vec<_> = lvm.suspended_in(DEVICES).iter().map(LvName::to_string).collect();
        assert_eq!(found, ["thin-pool", "sheath-img-web+2", "sheath-vol-02"]);
        assert!(lvm.suspended_in("No devices found\n").is_empty());
    }

    #[test]
    fn a_command_that_was_killed_is_told_from_one_that_failed() {
        let failed = |text: &str| Error::new(Kind::Failed, text);
        assert!(was_killed(&failed("run '/usr/sbin/lvm lvcreate': signal: 9 (SIGKILL): ")));
        assert!(was_killed(&Error::new(Kind::Timeout, "no end after 300 s, killed")));
        assert!(!was_killed(&failed("run '/usr/sbin/lvm lvcreate': exit status: 5: no signal")));
    }

    #[test]
    fn a_pool_that_was_told_half_is_told_from_one_that_refuses() {
        let failed = |text: &str| Error::new(Kind::Failed, text);
        assert!(is_half_told(&failed(HALF_TOLD)));
        assert!(!is_half_told(&failed("mkdir: File exists")));
    }

    const HALF_TOLD: &str = "exit status: 5: device-mapper: message ioctl on  (253:2) failed: File exists;   Failed to process \
         message \"create_snap 3 2\".;   Thin pool t-pool-tpool (253:2) already contain thin device with device_id 3.";

    const SAID: [&str; 2] = [
        "exit status: 5: WARNING: Thin pool sheath/pool has unexpected transaction id 126, expecting 128 or lower by 1.;   \
         Cannot create new thin volume, free space in thin pool sheath/pool reached threshold.",
        "exit status: 5: Thin pool sheath-pool-tpool (254:3) transaction_id is 126, while expected 128.",
    ];

    #[test]
    fn a_pool_that_lvm_is_ahead_of_is_told_with_its_fix() {
        let lvm = Lvm::new("sheath".parse().unwrap(), "pool".parse().unwrap());
        for said in SAID {
            let told = lvm.explain_transaction(Error::new(Kind::Failed, said));
            let text = told.to_string();
            assert!(text.starts_with("no new volume in thin pool 'sheath/pool'"), "{text}");
            assert!(
                text.contains("transaction 126") && text.contains("in /root/sheath.lvm to 126"),
                "{text}"
            );
            assert!(told.chain().contains(said), "{}", told.chain());
        }
    }

    #[test]
    fn another_failure_keeps_its_words() {
        let lvm = Lvm::new("sheath".parse().unwrap(), "pool".parse().unwrap());
        for said in ["exit status: 5: no such volume", "transaction_id is wrong, while expected better"] {
            assert_eq!(lvm.explain_transaction(Error::new(Kind::Failed, said)).to_string(), said);
        }
    }
}
