//! QEMU's machine protocol: commands to one running QEMU, answered in order.
//! Events are passed over; the lab sees what a guest does on its console and through its agent.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::wait::{secs, until};
use crate::wire::Wire;

/// QEMU answers in milliseconds; taking a disk's image lock or a busy host may stretch that.
const ANSWER_BOUND: Duration = secs(60);
/// Writing or reading a guest's memory is bound by the disk.
const MIGRATION_BOUND: Duration = secs(180);

/// A QMP conversation, past its greeting.
#[derive(Debug)]
pub struct Qmp {
    wire: Wire,
}

impl Qmp {
    /// Connects and takes up command mode.
    ///
    /// # Errors
    /// When QEMU is not there or refuses.
    pub fn connect(socket: &Path) -> Result<Self> {
        let wire = Wire::connect(socket)?;
        wire.patience(ANSWER_BOUND)?;
        let mut qmp = Qmp { wire };
        qmp.wire.receive()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns its result.
    ///
    /// # Errors
    /// When QEMU refuses; the error has its words.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.wire.send(b"", command, &arguments)?;
        loop {
            let answer = self.wire.receive()?;
            if let Some(error) = answer.get("error") {
                let words = error["desc"].as_str().unwrap_or("no description");
                return Err(Error::new(format!("qmp {command} {arguments}"), words));
            }
            if let Some(result) = answer.get("return") {
                return Ok(result.clone());
            }
        }
    }

    /// Pulls or pushes in a NIC's cable, as the guest sees it.
    ///
    /// # Errors
    /// When there is no such NIC.
    pub fn set_link(&mut self, nic: &str, up: bool) -> Result<()> {
        self.execute("set_link", json!({"name": nic, "up": up})).map(|_| ())
    }

    /// Hot-plugs a disk image that the guest sees under `/dev/disk/by-id/virtio-<id>`.
    ///
    /// # Errors
    /// When the image cannot be opened or the id is taken.
    pub fn add_disk(&mut self, id: &str, image: &Path, format: &str, read_only: bool) -> Result<()> {
        let node = format!("{id}-node");
        let mut disk = json!({
            "driver": format, "node-name": node, "read-only": read_only, "discard": "unmap",
            "file": {"driver": "file", "filename": image, "read-only": read_only},
        });
        if !read_only {
            disk["detect-zeroes"] = json!("unmap");
        }
        self.execute("blockdev-add", disk)?;
        let device = json!({"driver": "virtio-blk-pci", "id": id, "drive": node, "serial": id});
        self.execute("device_add", device).map(|_| ())
    }

    /// Writes the guest's state into `file` and leaves the guest stopped.
    ///
    /// # Errors
    /// When QEMU cannot write it.
    pub fn save(&mut self, file: &Path) -> Result<()> {
        self.execute("stop", json!({}))?;
        self.unthrottled()?;
        self.execute("migrate", json!({"uri": format!("exec:cat > '{}'", file.display())}))?;
        self.migrated()
    }

    /// Reads the guest's state from `file`, in a QEMU started with `-incoming defer`, and lets the guest run on.
    ///
    /// # Errors
    /// When the state is another machine's.
    pub fn restore(&mut self, file: &Path) -> Result<()> {
        self.unthrottled()?;
        self.execute("migrate-incoming", json!({"uri": format!("exec:cat '{}'", file.display())}))?;
        self.migrated()?;
        self.execute("cont", json!({})).map(|_| ())
    }

    /// Lifts the rate limit that is meant for networks.
    fn unthrottled(&mut self) -> Result<()> {
        self.execute("migrate-set-parameters", json!({"max-bandwidth": 1u64 << 40})).map(|_| ())
    }

    fn migrated(&mut self) -> Result<()> {
        let status = until("the end of a migration", MIGRATION_BOUND, || {
            let info = self.execute("query-migrate", json!({})).ok()?;
            let status = info["status"].as_str().unwrap_or("none").to_owned();
            matches!(status.as_str(), "completed" | "failed" | "cancelled").then_some(status)
        })?;
        match status.as_str() {
            "completed" => Ok(()),
            other => Err(Error::new("move a guest's state", other)),
        }
    }
}
