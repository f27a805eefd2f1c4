//! The chassis tier: the package on a booted Debian 13, blades without disks on its slots, real firmware, a real Debian
//! in the blade. One appliance, many promises: each is a function that says what it proves, run in the order of the
//! patent's story.
//!
//! Run by `make test`, which builds the package and names it in `SHEATH_DEB`. `SHEATH_PROMISES=word,word` runs only the
//! promises that have one of these words, for whoever works on one.

#![allow(clippy::unwrap_used, reason = "a proof that fails ends the test where it stands")]

#[path = "chassis/captured.rs"]
mod captured;
#[path = "chassis/identity.rs"]
mod identity;
#[path = "chassis/promoted.rs"]
mod promoted;
#[path = "chassis/readme.rs"]
mod readme;

use std::time::{Duration, Instant};

use sheath_lab::{
    Blade, Firmware, Lab, Spec, Stage,
    again::{has_time, twice},
    blade_mac,
    phase::{done, say},
    secs,
    stage::{BOOT_BOUND, IMAGE, MENU_BOUND, choose_image},
    until,
};

/// A shutdown takes some seconds, and systemd gives a service that hangs a minute and a half: one with a root that hangs has
/// no end.
const SHUTDOWN_BOUND: Duration = secs(80);

/// The first story's proof.
const PROVE: &str = "sheath image prove debian13 --firmware bios";

/// A promise and its proof.
type Promise = (&'static str, fn(&mut Story));

/// The story so far.
struct Story {
    stage: Stage,
    bios: Option<Blade>,
    uefi: Option<Blade>,
    /// What made the BIOS blade itself.
    first: identity::Identity,
    /// The server whose disk is captured.
    donor: Option<Blade>,
    /// The blades that are made of the captured image, by slot as `captured` has them.
    twins: Vec<Blade>,
}

const PROMISES: &[Promise] = &[
    ("the package installs with apt, and nothing of it runs before it is set up", installs),
    ("set-up refuses a disk that holds something, naming it", setup_refuses_a_used_disk),
    ("set-up makes a working appliance, and finds nothing to do when run again", sets_up),
    ("an image is imported, and not published unproved unless that is said", imports),
    ("a capture is ordered, and waits for its donor while others work", captured::is_ordered),
    ("a blade is known, with slot and MAC, within a second of its first frame", sees_a_blade),
    ("a BIOS blade is prompted, installed, restarted, and boots its own disk", boots_bios),
    ("inside the blade: its name, a grown root, the initiator name we gave", looks_inside),
    ("the journal and udev know the blade by its slot", tells_journal_and_udev),
    ("a blade's reboot does not hang", reboots),
    ("sheathd killed while the blade writes: no I/O error, and it converges", survives_kill),
    (
        "a server that starts in a slot copies its own disk, whether the agent is there or not",
        captured::is_copied,
    ),
    ("the server's disk has become an image, and was only read", captured::is_verified),
    (
        "what is not proved is not published; one command seals, proves and publishes",
        captured::begins_to_be_offered,
    ),
    ("a blade is changed by hand, and shuts down without hanging", promoted::is_changed_by_hand),
    ("the disk of the blade that is off becomes an image", promoted::is_promoted),
    (
        "the captured image is sealed, has booted up to its prompt, and is offered to blades",
        captured::is_offered,
    ),
    (
        "sealed, the promoted image is no blade's own, and boots by BIOS and UEFI as far as it can be seen",
        promoted::is_sealed,
    ),
    (
        "two blades of it boot, by BIOS and UEFI, and are neither that server nor each other",
        captured::makes_two_blades,
    ),
    (
        "they reboot without hanging; with the state folder deleted meanwhile, from their own disks again",
        reboot_after_lost_state,
    ),
    ("a UEFI blade is prompted, installed from it, restarted, and boots its own disk", boots_uefi),
    ("it has what was changed by hand, and no identity of the other blade", differs),
    ("a blade with a spoofed MAC in another slot is refused and changes nothing", refuses_a_spoofed_mac),
    ("a pool whose disk appears late brings its blades' targets up then", brings_a_late_pool_up),
    ("a slot's port that is plugged in later becomes a port of the chassis", takes_a_hot_plugged_port),
    ("a faulty configuration is refused as a whole, and the old one stays", refuses_a_faulty_configuration),
    ("a released disk is gone, with its target and its volume", releases),
    ("an imported image boots in a guest of the appliance, and is published as proved", proves),
];

/// So many of them are proved on any machine: up to a blade that has booted its own disk. What of the others has not begun when time
/// is over is left out, and named.
const ALWAYS: usize = 7;

#[test]
fn chassis() {
    match chosen() {
        Some(_) => tell(),
        // From its beginning: each promise builds on those before it.
        None => twice("the chassis tier's story", tell),
    }
}

/// Returns the words of the promises that somebody works on.
fn chosen() -> Option<String> {
    std::env::var("SHEATH_PROMISES").ok()
}

/// Keeps the promises, one after the other.
fn tell() {
    let stage = Stage::bare(Lab::new("chassis").unwrap().with_guests()).unwrap();
    let mut story =
        Story { stage, bios: None, uefi: None, first: identity::Identity::new(), donor: None, twins: vec![] };
    let chosen = chosen();
    let is_chosen = |promise: &str| {
        chosen.as_ref().is_none_or(|words| words.split(',').any(|word| promise.contains(word)))
    };
    for (n, (promise, prove)) in PROMISES.iter().enumerate().filter(|(_, one)| is_chosen(one.0)) {
        if n >= ALWAYS && !has_time() {
            say(&format!("-- LEFT OUT for lack of time: {promise}"));
            continue;
        }
        say(&format!("-- {promise}"));
        let begin = Instant::now();
        let proof = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| prove(&mut story)));
        if let Err(panic) = proof {
            match story.stage.appliance.lost() {
                Some(lost) => say(&format!("   the appliance is lost: {lost}")),
                None => story.tell_what_is_known(),
            }
            std::panic::resume_unwind(panic);
        }
        done(&format!("   {promise}: proved"), begin.elapsed());
    }
}

impl Story {
    fn run(&mut self, command: &str) -> String {
        self.stage.appliance.ok(command).unwrap()
    }

    /// Returns what `sheath images` has of a version.
    fn image(&mut self, image: &str) -> Option<serde_json::Value> {
        let images = self.stage.sheath("images").ok()?;
        images.as_array()?.iter().find(|listed| listed["image"] == image).cloned()
    }

    fn lines(&mut self, command: &str) -> usize {
        self.run(command).lines().count()
    }

    fn bios(&mut self) -> &mut Blade {
        self.bios.as_mut().expect("the BIOS blade is on")
    }

    /// Prints what a person would look at first.
    fn tell_what_is_known(&mut self) {
        for command in
            ["sheath status", "sheath blades", "sheath events", "journalctl -b -u 'sheath*' -n 60 --no-pager"]
        {
            match self.stage.appliance.run(command) {
                Ok(output) => say(&format!("$ {command}\n{}{}", output.stdout, output.stderr)),
                Err(error) => say(&error.to_string()),
            }
        }
        let known = [&mut self.bios, &mut self.uefi, &mut self.donor].into_iter().flatten();
        for blade in known.chain(&mut self.twins) {
            let text = blade.console().text();
            say(&format!("the blade's console ends with:\n{}", &text[text.len().saturating_sub(3000)..]));
        }
    }
}

fn installs(story: &mut Story) {
    story.stage.install().unwrap();
    let state = story.stage.appliance.run("systemctl is-active sheathd sheath-bootd sheath-dnsmasq").unwrap();
    assert!(!state.stdout.contains("\nactive") && !state.stdout.starts_with("active"), "{}", state.stdout);
    assert_eq!(story.run("stat -c %a /etc/sheath/master.key").trim(), "600");
    assert_eq!(story.run("stat -c %s /etc/sheath/master.key").trim(), "32");
}

fn setup_refuses_a_used_disk(story: &mut Story) {
    story.run("mkfs.ext4 -q -L precious /dev/vdb 4M");
    let refusal = story.stage.set_up("").unwrap_err().to_string();
    assert!(refusal.contains("ext4"), "{refusal}");
    story.run("blkid /dev/vdb | grep precious && wipefs -q -a /dev/vdb");
}

fn sets_up(story: &mut Story) {
    story.stage.set_up("").unwrap();
    let again = Instant::now();
    story.stage.set_up("").unwrap();
    done("   set up again", again.elapsed());
    story.run("systemctl is-active sheathd sheath-bootd sheath-dnsmasq");
    let plan = story.stage.sheath("plan").unwrap();
    assert_eq!(plan.as_array().map(Vec::len), Some(0), "{plan}");
    assert!(story.run("bridge -d link show dev slot1").contains("isolated on"));
}

/// The README's first story: a file.
fn imports(story: &mut Story) {
    story.run("ln -s /payload/golden.qcow2 /srv/debian13.qcow2");
    story.as_written("sheath image import debian13 /srv/debian13.qcow2").ok().unwrap();
    let refused = story.stage.appliance.run("sheath image publish debian13").unwrap();
    assert!(refused.code == 7 && refused.stderr.contains("--unproved"), "{refused:?}");
    // A whole proof takes minutes in a guest of a guest: it comes at the story's end, when nobody else is on.
    story.run("sheath image publish debian13 --unproved");
    until("the image to be published", secs(30), || {
        story.image("debian13@1").filter(|image| image["published"] == true)
    })
    .unwrap();
    let refused = story.stage.appliance.run("sheath image import broken /etc/hostname").unwrap();
    assert_ne!(refused.code, 0, "a text file was taken for an image");
    assert_eq!(story.run("lvs --noheadings -o lv_name sheath | grep -c broken || true").trim(), "0");
}

fn sees_a_blade(story: &mut Story) {
    // Another witness of the first frame, with the same clock as the agent.
    let witness = "stdbuf -oL bridge monitor fdb | while read -r line; do echo $EPOCHREALTIME $line; done";
    story.run(&format!("(timeout 120 bash -c '{witness}' > /run/fdb.log 2>&1 &)"));
    story.stage.appliance.plug(1).unwrap();
    story.bios = Some(Blade::power_on(&story.stage.lab, Spec::new(1, Firmware::Bios)).unwrap());
    let blade = until("the blade in slot 1", secs(60), || story.stage.blade(1).ok()).unwrap();
    assert_eq!(blade["mac"], blade_mac(1));
    let seen = blade["times"]["seen"].as_u64().expect("the moment it was seen");
    let mac = blade_mac(1);
    let first = until("the frame's trace", secs(10), || {
        let found = story.stage.appliance.run(&format!("grep -m1 '{mac} dev slot1' /run/fdb.log")).ok()?;
        (found.code == 0).then_some(found.stdout)
    });
    let first = first.unwrap_or_else(|error| panic!("{error}: {}", story.run("cat /run/fdb.log")));
    let seconds: f64 = first.split(' ').next().and_then(|word| word.parse().ok()).expect("seconds");
    let late = Duration::from_millis(seen).saturating_sub(Duration::from_secs_f64(seconds));
    done("   from the first frame to the agent's knowing", late);
    assert!(late < secs(1), "{late:?}");
    assert!(story.run("journalctl -u sheathd -o cat SHEATH_SLOT=1").contains("seen for the first time"));
}

fn boots_bios(story: &mut Story) {
    install(story, 1);
    let blade = story.stage.blade(1).unwrap();
    for moment in ["seen", "dhcp", "script", "choice", "target-ready", "ipxe-login", "os-login"] {
        assert!(blade["times"][moment].is_u64(), "no time for '{moment}': {blade}");
    }
    assert_eq!(blade["image"], format!("{IMAGE}@1"));
}

/// Goes through prompt, installation, restart and boot of the slot's blade.
fn install(story: &mut Story, slot: u8) {
    let begin = Instant::now();
    let blade = if slot == 1 { &mut story.bios } else { &mut story.uefi };
    let blade = blade.as_mut().expect("the blade is on");
    choose_image(blade).unwrap();
    done("   prompted and answered", begin.elapsed());
    blade.console().expect("restarting from its own disk", MENU_BOUND).unwrap();
    done("   installed", begin.elapsed());
    // Straight to the disk: had a menu come up, nobody would have answered it.
    blade.log_in(BOOT_BOUND).unwrap();
    done("   login prompt", begin.elapsed());
    let after = blade.console().text();
    let restarted = after.rfind("restarting from its own disk").expect("it restarted");
    assert!(!after[restarted..].contains("Wait for the administrator"), "a menu after the restart");
    story.stage.await_phase(slot, "running", secs(60)).unwrap();
}

fn looks_inside(story: &mut Story) {
    let blade = story.bios();
    let name = format!("b-{}", blade_mac(1).replace(':', ""));
    // cloud-init sets the name and grows the root some time after the prompt under emulation.
    let inside = blade
        .shell("cloud-init status --wait >/dev/null 2>&1; hostname; findmnt -bno SIZE /", secs(300))
        .unwrap();
    assert!(inside.contains(&name), "{inside}");
    let root: u64 =
        inside.split_whitespace().last().and_then(|size| size.parse().ok()).expect("the root's size");
    let own = story.image("debian13@1").unwrap()["size"].as_u64().expect("the image's size");
    let disk = story.stage.blade(1).unwrap()["size"].as_u64().expect("the disk's size");
    say(&format!("   image {own}, disk {disk}, root {root}"));
    assert!(root > disk * 8 / 10, "the root was not grown: {root} of {disk}");
    let initiator = story.bios().shell("cat /etc/iscsi/initiatorname.iscsi", secs(60)).unwrap();
    assert!(initiator.contains(&format!("initiator:{name}")), "{initiator}");
}

fn tells_journal_and_udev(story: &mut Story) {
    let lines = story.run("journalctl -u sheathd SHEATH_SLOT=1 -o json --no-pager");
    for field in ["SHEATH_BLADE", "SHEATH_IMAGE", "MESSAGE_ID"] {
        assert!(lines.contains(field), "no {field} in the journal");
    }
    assert!(story.run("journalctl -u sheathd -o cat --no-pager").contains("plan for blade"));
    let device = story.run("udevadm info /dev/sheath/slot-1");
    for property in ["SHEATH_BLADE=", "SHEATH_SLOT=1", "SHEATH_IMAGE=debian13"] {
        assert!(device.contains(property), "no {property}: {device}");
    }
    assert!(!device.contains("ID_PART_TABLE_TYPE"), "blkid has looked into the blade's disk: {device}");
}

fn survives_kill(story: &mut Story) {
    let write =
        "dd if=/dev/urandom of=/root/load bs=256k count=4 conv=fsync 2>/dev/null || echo LOAD-'FAILED'";
    let load = format!("(while [ ! -e /root/stop ]; do {write}; done; echo LOAD-'DONE') &\r");
    // Its session may have been lost and found before: two emulated machines and what they are at share the cores.
    story.bios().shell("echo the-agent-is-'killed' > /dev/kmsg", secs(60)).unwrap();
    story.bios().console().send(&load).unwrap();
    for _ in 0..3 {
        story.run("systemctl kill -s KILL sheathd; sleep 2");
    }
    story.bios().console().send("touch /root/stop\r").unwrap();
    story.bios().console().expect("LOAD-DONE", secs(300)).unwrap();
    assert!(!story.bios().console().text().contains("LOAD-FAILED"));
    let since = "dmesg | sed '1,/the-agent-is-killed/d' | grep -iE 'i/o error|detected conn error' || echo NO-'ERROR'";
    let errors = story.bios().shell(since, secs(60)).unwrap();
    assert!(errors.contains("NO-ERROR"), "{errors}");
    until("the agent after its kills", secs(60), || story.stage.sheath("status").ok()).unwrap();
    story.stage.await_phase(1, "running", secs(60)).unwrap();
    assert_eq!(story.stage.sheath("plan").unwrap().as_array().map(Vec::len), Some(0));
}

/// It is the server that was captured, its disk taken out.
fn boots_uefi(story: &mut Story) {
    story.stage.appliance.plug(4).unwrap();
    story.uefi = Some(Blade::power_on(&story.stage.lab, Spec::new(4, Firmware::Uefi)).unwrap());
    install(story, 4);
    let root = story
        .uefi
        .as_mut()
        .expect("the UEFI blade is on")
        .shell("test -d /sys/firmware/efi && echo IS-'UEFI'", secs(60));
    assert!(root.unwrap().contains("IS-UEFI"));
}

fn differs(story: &mut Story) {
    let mut blade = story.uefi.take().expect("the UEFI blade is on");
    promoted::makes_another_blade(story, &mut blade);
    blade.power_off();
    story.stage.appliance.unplug(4).unwrap();
}

fn refuses_a_spoofed_mac(story: &mut Story) {
    let tree = "find /sys/kernel/config/target/iscsi -name 'iqn*' | sort; lvs --noheadings -o lv_name,lv_tags sheath | sort";
    let before = story.run(tree);
    story.stage.appliance.plug(3).unwrap();
    let spec = Spec::new(3, Firmware::Bios).with_mac(&blade_mac(1));
    let mut impostor = Blade::power_on(&story.stage.lab, spec).unwrap();
    impostor.console().expect("not in the slot that its disk belongs to", MENU_BOUND).unwrap();
    assert!(!impostor.console().text().contains("password"), "a secret was told");
    impostor.power_off();
    story.stage.appliance.unplug(3).unwrap();
    assert_eq!(story.run(tree), before);
    let events = story.run("journalctl -u sheathd -o cat --no-pager | grep -c 'refused' || true");
    assert_ne!(events.trim(), "0");
    assert!(story.lines("journalctl -u sheathd -p warning SHEATH_SLOT=3 -o cat --no-pager") > 0);
}

fn reboots(story: &mut Story) {
    reboot([story.bios()]);
    story.stage.await_phase(1, "running", secs(60)).unwrap();
}

/// Restarts blades from inside, all at once, and waits for their login prompts. A root disk whose network goes before it does is
/// the classic hang of an iSCSI root.
fn reboot<'b>(blades: impl IntoIterator<Item = &'b mut Blade>) {
    let begin = Instant::now();
    let going_down = blades.into_iter().map(|blade| {
        blade.console().skip();
        let from = blade.console().text().len();
        blade.console().send("systemctl reboot\r").unwrap();
        (blade, from)
    });
    for (blade, from) in going_down.collect::<Vec<_>>() {
        blade.console().expect("reboot: Restarting system", SHUTDOWN_BOUND).unwrap();
        done("   from 'systemctl reboot' to the machine's restart, at most", begin.elapsed());
        let boots = ["Booting from SAN", "Booting from 0x80", "Loading Linux"];
        blade.console().expect_any(&boots, MENU_BOUND).unwrap();
        blade.log_in(BOOT_BOUND).unwrap();
        done("   from 'systemctl reboot' to the login prompt, at most", begin.elapsed());
        let text = blade.console().text().split_off(from);
        for bad in ["Wait for the administrator", "I/O error", "detected conn error"] {
            assert!(!text.contains(bad), "'{bad}' on the console");
        }
    }
}

/// What the agent knew is gone; what it had made is not.
fn reboot_after_lost_state(story: &mut Story) {
    let volumes = "lvs --noheadings -o lv_name,lv_uuid sheath | sort";
    let before = story.run(volumes);
    story.run("systemctl stop sheathd && rm -rf /var/lib/sheath/* && systemctl start sheathd");
    reboot(&mut story.twins);
    for twin in &story.twins {
        story.stage.await_phase(twin.spec().slot, "running", secs(60)).unwrap();
    }
    assert_eq!(story.run(volumes), before);
    for twin in story.twins.drain(..) {
        story.stage.appliance.unplug(twin.spec().slot).unwrap();
        twin.power_off();
    }
}

/// As after a boot of the appliance on which the pool's disk takes its time.
fn brings_a_late_pool_up(story: &mut Story) {
    let targets = "grep -l 1 /sys/kernel/config/target/iscsi/iqn*/tpgt_1/enable | wc -l";
    let before = story.run(targets);
    assert_ne!(before.trim(), "0");
    story.run("systemctl stop sheathd && targetctl clear && vgchange -q -an sheath");
    story.run(
        "basename $(readlink -f /sys/block/vdb/device) > /run/late \
         && cat /run/late > /sys/bus/virtio/drivers/virtio_blk/unbind && systemctl start sheathd",
    );
    let problem = until("the missing pool to be told", secs(60), || {
        let status = story.stage.sheath("status").ok()?;
        Some(status["problems"].to_string()).filter(|problems| problems.contains("volumes"))
    });
    assert!(problem.unwrap().contains("sheath"), "the problem does not name the volume group");
    assert_eq!(story.run(targets).trim(), "0");
    let came = Instant::now();
    story.run("cat /run/late > /sys/bus/virtio/drivers/virtio_blk/bind");
    until("the targets of the late pool", secs(60), || (story.run(targets) == before).then_some(())).unwrap();
    done("   from the disk to all targets", came.elapsed());
    let status = story.stage.sheath("status").unwrap();
    assert!(!status["problems"].to_string().contains("volumes"), "{status}");
}

fn takes_a_hot_plugged_port(story: &mut Story) {
    story.run(
        "sed -i 's/^4 = \"slot4\"/4 = \"slot4\"\\n5 = \"slot5\"/' /etc/sheath/sheath.toml && sheath reload",
    );
    let status = story.stage.sheath("status").unwrap();
    assert!(status["slots"].to_string().contains("slot5"), "{status}");
    story.stage.appliance.add_nic(5).unwrap();
    until("slot 5 to be a port of the bridge", secs(30), || {
        let shown = story.stage.appliance.run("bridge -d link show dev slot5").ok()?;
        shown.stdout.contains("isolated on").then_some(())
    })
    .unwrap();
}

fn refuses_a_faulty_configuration(story: &mut Story) {
    story.run("cp /etc/sheath/sheath.toml /run/good.toml");
    story.run("printf '\\n[nonsense]\\nkey = 1\\n[pool]\\nwatermark = 900\\n' >> /etc/sheath/sheath.toml");
    let faults = until("the refusal", secs(30), || {
        let status = story.stage.sheath("status").ok()?;
        status["config_faults"].as_array().filter(|faults| !faults.is_empty()).cloned()
    });
    let faults = faults.unwrap();
    assert!(faults.iter().any(|fault| fault.to_string().contains("nonsense")), "{faults:?}");
    let check = story.stage.appliance.run("sheath config check /etc/sheath/sheath.toml").unwrap();
    assert_eq!(check.code, 3, "{check:?}");
    story.run("cp /run/good.toml /etc/sheath/sheath.toml");
    until("the mended configuration", secs(30), || {
        let status = story.stage.sheath("status").ok()?;
        status["config_faults"].as_array()?.is_empty().then_some(())
    })
    .unwrap();
}

fn releases(story: &mut Story) {
    let volumes = story.lines("lvs --noheadings -o lv_name sheath | grep sheath-vol");
    story.run("sheath blade release 2 --yes");
    until("the released disk's end", secs(60), || {
        (story.lines("lvs --noheadings -o lv_name sheath | grep sheath-vol || true") == volumes - 1)
            .then_some(())
    })
    .unwrap();
    let targets = story.run("ls /sys/kernel/config/target/iscsi");
    assert!(!targets.contains(&blade_mac(2).replace(':', "")), "{targets}");
}

/// The end of the README's first story: a file.
fn proves(story: &mut Story) {
    (story.bios, story.uefi, story.twins) = (None, None, vec![]);
    story.run("sheath image unpublish debian13");
    story.as_written_beside("proof", PROVE);
    let Some(told) = story.proved("proof", PROVE, IMAGE) else { return };
    assert!(told.contains("boots by BIOS"), "{told}");
    let published = story.as_written("sheath image publish debian13").ok().unwrap();
    assert_eq!(published.trim(), "image 'debian13@1' is published", "and not as unproved");
}
