//! A blade: a diskless machine at the other end of a slot's cable, that starts from the network by its own firmware.
//! It lives through restarts of what runs in it; only [`Blade::power_off`] (or dropping it) ends it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::appliance::cable;
use crate::console::Console;
use crate::error::{Attempt, Result};
use crate::machine::{Guest, Machine, Size, overlay};
use crate::qmp::Qmp;
use crate::run::Lab;

const SIZE: Size = Size { cpus: 1, mib: 1024 };

/// What a blade starts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Firmware {
    /// SeaBIOS, with iPXE's ROM on an e1000: it introduces itself as iPXE at once.
    Bios,
    /// OVMF with its own virtio driver and its own PXE client: it loads what TFTP has for client architecture 7.
    Uefi,
}

/// A blade's place and nature.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The slot whose cable it is on.
    pub slot: u8,
    /// Its firmware.
    pub firmware: Firmware,
    /// Its NIC's MAC; [`blade_mac`] gives the usual one, another slot's makes it an impostor.
    pub mac: String,
    /// The image that is on a disk of its own, which makes it a donor; what it writes there is lost with it.
    pub disk: Option<PathBuf>,
}

impl Spec {
    /// Returns the usual blade of a slot.
    pub fn new(slot: u8, firmware: Firmware) -> Self {
        Spec { slot, firmware, mac: blade_mac(slot), disk: None }
    }

    /// Returns the same blade with another MAC.
    #[must_use]
    pub fn with_mac(mut self, mac: &str) -> Self {
        mac.clone_into(&mut self.mac);
        self
    }

    /// Returns the same blade with a disk of its own, on which this image is.
    #[must_use]
    pub fn with_disk(mut self, image: &Path) -> Self {
        self.disk = Some(image.to_owned());
        self
    }

    /// Returns the serial number of its own disk.
    pub fn disk_serial(&self) -> String {
        format!("DISK{}", self.slot)
    }

    /// Returns the SMBIOS UUID that goes with the MAC, so that an impostor lies consistently.
    pub fn uuid(&self) -> String {
        format!("5ea7b1ad-0000-4000-8000-{}", self.mac.replace(':', ""))
    }

    /// Returns the SMBIOS serial number that goes with the MAC.
    pub fn serial(&self) -> String {
        format!("LAB{}", self.mac.replace(':', "").to_uppercase())
    }
}

/// A running blade.
#[derive(Debug)]
pub struct Blade {
    guest: Guest,
    spec: Spec,
}

impl Blade {
    /// Powers a blade on; its appliance must run, and one slot takes one blade.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn power_on(lab: &Lab, spec: Spec) -> Result<Self> {
        let name = format!("blade{}", spec.slot);
        let mut machine = Machine::new(lab, &name, SIZE);
        let cable = cable(lab.dir(), spec.slot);
        let netdev = format!("stream,id=cable,server=off,addr.type=unix,addr.path={}", cable.display());
        let smbios =
            format!("type=1,manufacturer=Lab,product=Blade,uuid={},serial={}", spec.uuid(), spec.serial());
        machine.args(["-smbios", &smbios, "-netdev", &netdev, "-device", &nic(&spec)]);
        if let Some(image) = &spec.disk {
            let disk = lab.path(&format!("{name}-disk.qcow2"));
            overlay(image, &disk)?;
            let drive = format!("if=none,id=own,format=qcow2,discard=unmap,file={}", disk.display());
            let device = format!("nvme,drive=own,serial={}", spec.disk_serial());
            machine.args(["-drive", &drive, "-device", &device]);
        }
        if spec.firmware == Firmware::Uefi {
            machine.args(pflash(&lab.path(&format!("{name}-vars.fd")))?);
        }
        Ok(Blade { guest: machine.start()?, spec })
    }

    /// Returns what the blade was made as.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Returns its serial console: firmware, boot loaders, kernel and login prompt.
    pub fn console(&mut self) -> &mut Console {
        &mut self.guest.console
    }

    /// Presses the reset button; the console then expects only what comes after.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn reset(&mut self) -> Result<()> {
        self.guest.console.skip();
        self.guest.qmp.execute("system_reset", json!({})).map(|_| ())
    }

    /// Pulls its cable out on its own side, or puts it in.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn link(&mut self, up: bool) -> Result<()> {
        self.guest.qmp.set_link("nic", up)
    }

    /// Returns QEMU's control socket.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.guest.qmp
    }

    /// Returns whether it has power.
    pub fn is_on(&mut self) -> bool {
        self.guest.runs()
    }

    /// Pulls the power.
    pub fn power_off(mut self) {
        self.guest.power_off();
    }

    /// Waits for its login prompt, logs in as root and waits for the shell. Returns when the prompt came.
    ///
    /// # Errors
    /// When one of them does not come in time.
    pub fn log_in(&mut self, bound: Duration) -> Result<Duration> {
        let console = &mut self.guest.console;
        let prompt = console.expect("login:", bound)?;
        console.send("root\r")?;
        console.expect("Password:", bound)?;
        console.send("root\r")?;
        console.expect("# ", bound)?;
        Ok(prompt)
    }

    /// Runs a command in the shell that [`Blade::log_in`] left on the console, and returns what it printed.
    ///
    /// # Errors
    /// When it does not end in time. Its exit status is not looked at.
    pub fn shell(&mut self, command: &str, bound: Duration) -> Result<String> {
        let console = &mut self.guest.console;
        let before = console.text().len();
        // Split by quotes, so that the echo of the typed line is not taken for the answer.
        console.send(&format!("echo LAB-'BEGIN'; {command}; echo LAB-'END'\r"))?;
        console.expect("LAB-END", bound)?;
        let text = console.text();
        let answer = text[before..].split("LAB-BEGIN").nth(1).unwrap_or_default();
        Ok(answer.split("LAB-END").next().unwrap_or_default().trim().to_owned())
    }
}

/// Returns the MAC that the blade of a slot usually has.
pub fn blade_mac(slot: u8) -> String {
    format!("52:54:00:b1:ad:{slot:02x}")
}

fn nic(spec: &Spec) -> String {
    let driver = match spec.firmware {
        Firmware::Bios => "e1000",
        // Without QEMU's ROM, which would put iPXE in the place of the firmware's own PXE client.
        Firmware::Uefi => "virtio-net-pci,romfile=",
    };
    format!("{driver},id=nic,netdev=cable,mac={},bootindex=0", spec.mac)
}

/// Returns OVMF's arguments; `vars` becomes this blade's own variable store.
fn pflash(vars: &Path) -> Result<[String; 4]> {
    let firmware = PathBuf::from("/usr/share/OVMF");
    let template = firmware.join("OVMF_VARS_4M.fd");
    std::fs::copy(&template, vars).attempt(|| format!("copy '{}' (package ovmf)", template.display()))?;
    let code = firmware.join("OVMF_CODE_4M.fd");
    Ok([
        "-drive".to_owned(),
        format!("if=pflash,unit=0,format=raw,readonly=on,file={}", code.display()),
        "-drive".to_owned(),
        format!("if=pflash,unit=1,format=raw,file={}", vars.display()),
    ])
}

#[cfg(test)]
mod tests {
    use super::{Firmware, Spec, blade_mac};

    #[test]
    fn an_impostor_lies_consistently() {
        let impostor = Spec::new(2, Firmware::Bios).with_mac(&blade_mac(1));
        assert_eq!(impostor.uuid(), Spec::new(1, Firmware::Bios).uuid());
        assert_eq!(impostor.slot, 2);
    }
}
