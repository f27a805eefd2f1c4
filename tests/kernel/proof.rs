//! A proof under a real systemd: QEMU's firmware and iPXE, the blade's own script, a target of LIO's with CHAP, and a disk
//! whose boot sector says what a getty says. A real system takes too long here: the guest's guest is emulated twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    io::Write,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use sheath::{
    boot::{
        script,
        wire::{Answer, BootDisk},
    },
    error::Kind,
    host::{Host, ObservedExport},
    image::{Cancel, Trial},
    model::{Bytes, Firmware, ImageId, Portal, Proof, VolumeId},
    plan::{self, Step},
};

use crate::{
    guest::{alone, run},
    lvm::{pool, sh},
    plans::Subjects,
    workshop::{cancel_when_up, ready},
};

/// An address of the appliance's that a guest's guest can reach.
const ADDRESS: &str = "10.99.0.1";
/// It takes 20 s on an idle machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// Where the agent has its folder.
const FOLDER: &str = "/var/lib/sheath";

/// Makes a disk with a GPT, and a boot sector that writes a prompt to the first serial port: in 16 bits, `lodsb`, a wait for
/// the port, `out`, until the text is over, and then `hlt`.
const MAKE: &str = include_str!("prompt_image.sh");

fn image() -> ImageId {
    let (image, made): (ImageId, String) = ("proof".parse().unwrap(), sh(MAKE));
    assert!(made.ends_with("made\n"), "{made}");
    let device = pool().create_image(&image, Bytes::mib(24)).unwrap();
    let written = sh(&format!(
        "dd if=/run/proof.raw of={} bs=1M conv=fsync status=none && rm /run/proof.raw && echo written",
        device.display()
    ));
    assert!(written.ends_with("written\n"), "{written}");
    pool().finish_image(&image, false).unwrap();
    image
}

/// Gives the appliance that address, if it has it not.
fn has_address() {
    run("ip", &["address", "replace", &format!("{ADDRESS}/32"), "dev", "lo"]).unwrap();
}

/// Returns the trial of the image, as the agent makes it, at an address that the guest can reach.
fn trial(subjects: &Subjects, image: &ImageId) -> Trial {
    let portal = Portal(format!("{ADDRESS}:3499").parse().unwrap());
    let mut wish = subjects.granted();
    let disk = wish.disk.as_mut().unwrap();
    disk.export.portals = vec![portal];
    let export = disk.export.clone();
    let steps = plan::blade(&wish, &pool().volumes().unwrap(), &ObservedExport::default()).unwrap().steps;
    let (target, volume) = (export.target.clone(), subjects.volume);
    let undo = vec![
        Step::Disable { target: target.clone() },
        Step::RemoveTarget { target },
        Step::RemoveBackstore { volume },
        Step::RemoveVolume { volume },
    ];
    let answer = Answer::Boot(BootDisk {
        slot: "1".parse().unwrap(),
        image: image.clone(),
        initiator: export.initiator,
        target: export.target,
        portals: export.portals,
        credentials: subjects.host.credentials(volume, export.chap),
        firmware: Some(Firmware::Bios),
        key_seconds: 0,
    });
    let script = script::render(&answer, "http://198.18.0.2:8078");
    Trial { image: image.clone(), firmware: Firmware::Bios, steps, undo, script, mac: wish.blade.0, portal }
}

#[test]
#[ignore = "needs root, LIO and LVM in a guest: the lab runs it there"]
fn vm_proof_goes_by_pxe_ipxe_and_iscsi_to_the_prompt() {
    let _alone = alone();
    if !ready() {
        return;
    }
    has_address();
    let image = image();
    let subjects = Subjects::new("sheathtest", &image, 99);
    let trial = trial(&subjects, &image);
    // As in the agent's unit: what the guest's passing user is to see is not to be hidden by that.
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let proof = proved(&trial, &subjects);
    nix::sys::stat::umask(umask);
    let console = String::from_utf8_lossy(&fs::read(&proof.log).unwrap()).into_owned();
    // SeaBIOS keeps what it is to print for a moment, and the boot sector writes to the port by itself: the device's number may
    // be cut short.
    for words in ["iPXE", "Booting from SAN device", "proof login:"] {
        assert!(console.contains(words), "{words}: {console}");
    }
    nothing_is_left(&subjects);
    pool().remove_image(&image).unwrap();
}

/// Has it proved. A guest of a guest is lost now and then where both are emulated, or hangs: it is given up and tried again, as an
/// operator would.
fn proved(trial: &Trial, subjects: &Subjects) -> Proof {
    for last in [false, false, true] {
        let (begin, mut phases) = (Instant::now(), vec![]);
        let mut phase = |phase: &str| phases.push(format!("{:.1} s {phase}", begin.elapsed().as_secs_f32()));
        let cancel = Cancel::default();
        let (ended, patience) = mpsc::channel::<()>();
        let giving_up = cancel.clone();
        thread::spawn(move || {
            if patience.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                giving_up.cancel();
            }
        });
        let proved = trial.run(&subjects.host, Path::new(FOLDER), &cancel, &mut phase);
        drop(ended);
        phase("over");
        let _ = writeln!(std::io::stdout(), "{}", phases.join(", "));
        match proved {
            Ok(proof) => return proof,
            Err(error) => {
                let lost =
                    ["no login prompt", "it was cancelled"].iter().any(|words| error.chain().contains(words));
                assert!(lost && !last, "{}", error.chain());
                let _ = writeln!(std::io::stdout(), "lost, once more: {}", error.chain());
            }
        }
    }
    unreachable!("the last try ends it")
}

fn nothing_is_left(subjects: &Subjects) {
    let left = sh(
        "lvs --noheadings -o lv_name sheathtest; ls -A /var/lib/sheath; ls /sys/kernel/config/target/iscsi; \
         systemctl list-units --all --plain --no-legend 'sheath-image-proof*'",
    );
    let gone = [VolumeId::lv_name(subjects.volume).to_string(), "guest-proof".into(), "52540077".into()];
    assert!(gone.iter().all(|word| !left.contains(word.as_str())), "{left}");
    assert!(!left.contains("sheath-image"), "{left}");
}

#[test]
#[ignore = "needs root, LIO and LVM in a guest: the lab runs it there"]
fn vm_proof_that_is_cancelled_takes_guest_disk_and_target_away() {
    let _alone = alone();
    if !ready() {
        return;
    }
    has_address();
    let image = image();
    let _ = fs::remove_file(Path::new(FOLDER).join("proofs/proof@1-bios.log"));
    let subjects = Subjects::new("sheathtest", &image, 99);
    let (trial, cancel) = (trial(&subjects, &image), Cancel::default());
    let canceller = cancel_when_up("sheath-image-proof*", &cancel);
    let cancelled = trial.run(&subjects.host, Path::new(FOLDER), &cancel, &mut |_| ());
    let since = canceller.join().unwrap();
    let error = cancelled.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{}", error.chain());
    assert!(error.chain().contains("prove image 'proof@1' (bios): it was cancelled"), "{}", error.chain());
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    nothing_is_left(&subjects);
    assert!(!Path::new(FOLDER).join("proofs/proof@1-bios.log").exists(), "half a log is none");
    pool().remove_image(&image).unwrap();
}
