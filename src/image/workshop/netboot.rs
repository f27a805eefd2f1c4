//! A guest that starts as a blade does: firmware, PXE, iPXE with the blade's own script, a target of ours over iSCSI.
//!
//! What is the blade's: the script, the target with its ACL and CHAP, the disk as an installation makes it, everything from
//! the disk's boot loader on. What is not: the network is QEMU's own (its DHCP and TFTP, and TCP by way of this machine's
//! sockets), so that the guest needs no port of the chassis and no privilege; it reaches the portal's address and nothing
//! else.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    place::Place,
    qemu::{equip, has_kvm, machine},
};
use crate::{
    error::{Error, Kind, Result},
    host::file,
    image::{Cancel, logs::LONGEST, sandbox::Sandbox},
    model::{Firmware, ImageId, Mac, Portal},
};

/// Where the guest's parts are seen inside of the sandbox.
const BOOT: &str = "/boot-files";
const VARIABLES: &str = "/variables";
/// What the DHCP answer names.
const SCRIPT: &str = "boot.ipxe";
/// The network that QEMU plays: for tests of network equipment (RFC 2544), so that it is nobody's.
const NETWORK: &str = "198.18.0.0/24";
/// UEFI as Debian packages it.
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// A blade's memory, for a proof.
const MEMORY_MIB: u32 = 1024;
/// Longest time until the login prompt where the processor is emulated.
const LIMIT: Duration = Duration::from_secs(3600);
/// Longest silence of its console. From a boot loader to a prompt some systems say nothing, which takes two minutes where the
/// appliance is itself emulated; a guest that its machine has lost says nothing for ever.
const SILENCE: Duration = Duration::from_secs(600);
/// What a getty writes.
const PROMPT: &[u8] = b"login:";

/// One start of one firmware.
#[derive(Debug)]
pub(in crate::image) struct Netboot<'a> {
    /// The image that it is about: units are named after it.
    pub(in crate::image) image: &'a ImageId,
    /// What it starts by.
    pub(in crate::image) firmware: Firmware,
    /// The blade's script.
    pub(in crate::image) script: &'a str,
    /// The boot NIC's address.
    pub(in crate::image) mac: Mac,
    /// The only address that it reaches.
    pub(in crate::image) portal: Portal,
    /// A folder that only root can enter.
    pub(in crate::image) folder: &'a Path,
    /// How it is told to stop.
    pub(in crate::image) cancel: &'a Cancel,
}

/// What was seen of it.
#[derive(Debug)]
pub(in crate::image) struct Seen {
    /// How long it took until the login prompt; `None` where none came.
    pub(in crate::image) prompt: Option<Duration>,
    /// What stood on its console.
    pub(in crate::image) console: Vec<u8>,
    /// Why it ended, where no prompt came.
    pub(in crate::image) end: Option<Error>,
    /// Whether it was given up because it said nothing any more.
    pub(in crate::image) silent: bool,
}

impl Netboot<'_> {
    /// Starts it and waits for its login prompt or its end.
    ///
    /// # Errors
    /// What keeps it from being started, [`Kind::Denied`] when it was cancelled; a boot that fails is no error but a [`Seen`] without a prompt.
    pub(in crate::image) fn run(&self) -> Result<Seen> {
        let place = Place::make(self.folder, self.image)?;
        let boot = place.folder_beside("boot-files")?;
        // The script has the target's password in it: only the guest's passing user sees it, and only until it ends.
        file::save(&boot.join(SCRIPT), self.script.as_bytes(), 0o644)?;
        let variables = self.variables(&place)?;
        let sandbox = self.sandbox(&place, &boot, variables.as_deref());
        sandbox.stop();
        let (begin, mut console, mut prompt) = (Instant::now(), Console::begin(), None);
        let ended = sandbox.run(vec![], |piece| {
            self.cancel.check()?;
            if console.take(piece) {
                prompt = Some(begin.elapsed());
                // There is nothing more to be seen: an error is what ends the unit.
                return Err(Error::new(Kind::Exists, "the prompt is there"));
            }
            if console.is_silent() {
                let seconds = SILENCE.as_secs();
                return Err(Error::new(Kind::Timeout, format!("it has said nothing for {seconds} s")));
            }
            Ok(())
        });
        let end = ended.err().filter(|_| prompt.is_none());
        let _ = fs::remove_dir_all(&boot);
        variables.into_iter().for_each(|path| drop(fs::remove_file(path)));
        if prompt.is_none() {
            self.cancel.check()?;
        }
        let silent = prompt.is_none() && console.is_silent();
        Ok(Seen { prompt, console: console.log, end, silent })
    }

    /// Makes the firmware's own store of variables.
    fn variables(&self, place: &Place) -> Result<Option<PathBuf>> {
        if self.firmware == Firmware::Bios {
            return Ok(None);
        }
        let path = place.beside("variables");
        let bytes = fs::read(OVMF_VARIABLES).map_err(|_| {
            Error::new(Kind::Missing, format!("there is no '{OVMF_VARIABLES}': apt install ovmf"))
        })?;
        file::save(&path, &bytes, 0o666)?;
        Ok(Some(path))
    }

    fn sandbox(&self, place: &Place, boot: &Path, variables: Option<&Path>) -> Sandbox {
        let (kvm, what) = (has_kvm(), format!("prove-{}", self.firmware.word()));
        let allowed = format!("IPAddressAllow={}", self.portal.0.ip());
        let mut sandbox = Sandbox::machine(self.image, &what, &place.root(), &self.args(kvm), LIMIT)
            .with(&["RestrictAddressFamilies=AF_UNIX AF_INET", "IPAddressDeny=any", &allowed])
            .seeing(boot, BOOT);
        if let Some(path) = variables {
            sandbox = sandbox.writing(path, VARIABLES);
        }
        equip(sandbox, kvm, MEMORY_MIB)
    }

    /// Returns QEMU's arguments.
    fn args(&self, kvm: bool) -> Vec<String> {
        let mut args = machine(kvm, MEMORY_MIB);
        let mut pair = |key: &str, value: String| args.extend([key.to_owned(), value]);
        pair("-serial", "stdio".into());
        pair("-netdev", format!("user,id=net,ipv6=off,net={NETWORK},tftp={BOOT},bootfile={SCRIPT}"));
        // A BIOS that has found nothing to boot from would wait for somebody to come by; it restarts, and QEMU ends.
        pair("-boot", "reboot-timeout=1000".into());
        // With QEMU's option ROM: iPXE, for both firmwares.
        let nic = if self.firmware == Firmware::Bios { "e1000" } else { "virtio-net-pci" };
        pair("-device", format!("{nic},netdev=net,mac={},bootindex=0", self.mac));
        if self.firmware == Firmware::Uefi {
            pair("-drive", format!("if=pflash,unit=0,format=raw,readonly=on,file={OVMF_CODE}"));
            pair("-drive", format!("if=pflash,unit=1,format=raw,file={VARIABLES}"));
        }
        args
    }
}

/// What a console has said so far.
#[derive(Debug)]
struct Console {
    log: Vec<u8>,
    tail: Vec<u8>,
    /// When it last said something.
    heard: Instant,
}

impl Console {
    fn begin() -> Self {
        Self { log: vec![], tail: vec![], heard: Instant::now() }
    }

    /// Returns whether it says nothing any more.
    fn is_silent(&self) -> bool {
        self.heard.elapsed() > SILENCE
    }

    /// Takes in a piece; returns whether the prompt is there by now. A log that is full takes no more: the prompt is looked
    /// for all the same.
    fn take(&mut self, piece: &[u8]) -> bool {
        if !piece.is_empty() {
            self.heard = Instant::now();
        }
        let room = LONGEST.saturating_sub(self.log.len());
        self.log.extend_from_slice(&piece[..piece.len().min(room)]);
        self.tail.extend_from_slice(piece);
        let found = self.tail.windows(PROMPT.len()).any(|window| window == PROMPT);
        let kept = self.tail.len().min(PROMPT.len() - 1);
        self.tail.drain(..self.tail.len() - kept);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(firmware: Firmware) -> Vec<String> {
        let image = "debian13".parse().unwrap();
        let (mac, portal) = ("02:00:00:00:00:01".parse().unwrap(), Portal("10.77.0.1:3260".parse().unwrap()));
        let folder = Path::new("/f");
        let cancel = &Cancel::default();
        Netboot { image: &image, firmware, script: "#!ipxe\n", mac, portal, folder, cancel }.args(false)
    }

    #[test]
    fn the_guest_has_no_disk_but_what_it_finds_over_the_network() {
        let bios = args(Firmware::Bios);
        assert!(
            !bios.iter().any(|arg| arg.starts_with("-drive") || arg.starts_with("-blockdev")),
            "{bios:?}"
        );
        assert!(bios.contains(&"e1000,netdev=net,mac=02:00:00:00:00:01,bootindex=0".to_owned()));
        let uefi = args(Firmware::Uefi);
        assert_eq!(uefi.iter().filter(|arg| arg.contains("pflash")).count(), 2);
    }

    #[test]
    fn a_guest_that_says_nothing_any_more_is_told_from_one_that_is_slow() {
        let long_ago = || Instant::now().checked_sub(SILENCE + Duration::from_secs(1)).unwrap();
        let mut console = Console { heard: long_ago(), ..Console::begin() };
        console.take(b"");
        assert!(console.is_silent(), "nothing is no word");
        console.take(b".");
        assert!(!console.is_silent());
    }

    #[test]
    fn a_prompt_is_seen_wherever_the_console_is_cut() {
        for cut in 1..12 {
            let (text, mut console) = (b"\r\nblade login: ", Console::begin());
            let seen: Vec<bool> = text.chunks(cut).map(|piece| console.take(piece)).collect();
            assert!(seen.contains(&true), "{cut}");
            assert_eq!(console.log, text);
        }
        assert!(!Console::begin().take(b"log in: Login"));
    }

    #[test]
    fn a_console_that_never_ends_is_cut_off_and_still_looked_at() {
        let mut console = Console::begin();
        for _ in 0..300 {
            assert!(!console.take(&[b'x'; 8192]));
        }
        assert_eq!(console.log.len(), LONGEST);
        assert!(console.take(b"login:"));
    }
}
