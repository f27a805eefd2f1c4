//! A device that hangs with a blade's I/O in flight: what it holds up, what it does not, and that it heals.
//!
//! The daemon's own parts do the work: policy's wishes, plans, the real machine, lanes. Only the deadlines are shorter,
//! and the volume is a linear device-mapper device that is named like LVM's.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use sheath::{
    apply::{Doing, Ending, Job, Lanes, Report, Subject, Work, blade_plan},
    config::{self, Config},
    host::{Host, keys::MasterKey, live::Live},
    model::{BladeId, Bytes, Role, Slot, Volume, VolumeId, VolumeState},
    observed::{ObservedExport, Volumes},
    plan::Step,
    policy::{self, BladeWish, DiskWish},
    roster,
};

use crate::{
    blade::MIB,
    guest::{Disk, alone, run, wait_for},
    initiator::{Initiator, Login},
};

/// The appliance's address on the guest's loopback.
const ADDRESS: &str = "10.79.0.1";
/// A step of a machine that does not hang takes a second at most, emulated and with busy neighbours.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for a report: of a job whose every step takes long.
const PATIENCE: Duration = Duration::from_secs(90);
/// The volume group that the devices seem to be of.
const VG: &str = "hangtest";

fn configuration() -> Config {
    let text = format!(
        "[chassis]\naddress = \"{ADDRESS}/24\"\n[chassis.slots]\n1 = \"eth7\"\n2 = \"eth8\"\n[target]\nports = 1\n[pool]\nvg = \"{VG}\"\n"
    );
    config::parse("hang.toml", &text).unwrap()
}

/// A blade whose disk is there and served at its portal.
struct Blade {
    id: BladeId,
    wish: BladeWish,
    volumes: Volumes,
    device: Mapped,
}

impl Blade {
    fn new(config: &Config, number: u16) -> Self {
        let id: BladeId = format!("52540000990{number}").parse().unwrap();
        let volume = VolumeId(u128::from(number) << 104 | 0x9a9_1234);
        let slot: Slot = number.to_string().parse().unwrap();
        let image: sheath::model::ImageId = "golden".parse().unwrap();
        let mut owner = roster::Blade::new(slot);
        owner.disk = Some(roster::Disk { volume, image: image.clone(), slot });
        let device = Mapped::new(volume);
        let found = Volume {
            lv: volume.lv_name(),
            role: Role::Disk { id: volume, image, blade: id, slot },
            state: VolumeState::Ready,
            size: Bytes(64 * MIB),
            device: device.link.clone(),
            active: true,
            writable: true,
            used_percent: None,
        };
        let volumes = Volumes { volumes: [(found.lv.clone(), found)].into(), ..Volumes::default() };
        Self { id, wish: policy::wish(config, id, &owner).unwrap(), volumes, device }
    }

    fn subject(&self) -> Subject {
        Subject::Blade(self.id)
    }

    fn serving(&self) -> Job {
        self.job("serve", self.wish.clone())
    }

    /// Returns the job that takes the target away. LVM is not asked: it has no such volume.
    fn removal(&self) -> Job {
        let releases = vec![self.disk().export.backstore.volume];
        self.job("release", BladeWish { disk: None, releases, ..self.wish.clone() })
    }

    fn job(&self, cause: &str, wish: BladeWish) -> Job {
        let volumes = if wish.disk.is_some() { self.volumes.clone() } else { Volumes::default() };
        let work = Work::Blade { wish: Box::new(wish), volumes };
        Job { subject: self.subject(), cause: cause.into(), work }
    }

    fn disk(&self) -> &DiskWish {
        self.wish.disk.as_ref().unwrap()
    }

    fn login(&self, host: &Live) -> Login {
        let export = &self.disk().export;
        let with = host.credentials(export.backstore.volume, export.chap);
        let initiator = Initiator::new(&self.id.to_string(), export.initiator.as_str());
        initiator.login(&export.target, export.portals[0], &with).unwrap()
    }

    fn export(&self, host: &Live) -> ObservedExport {
        host.export(&self.wish.target, self.disk().export.backstore.volume).unwrap()
    }

    fn is_logged_in(&self, host: &Live) -> bool {
        host.session(&self.wish.target, &self.disk().export.initiator).unwrap().is_some()
    }
}

/// A linear device over a disk of its own, where LVM would have the volume.
struct Mapped {
    name: String,
    link: PathBuf,
    _disk: Disk,
}

impl Mapped {
    fn new(volume: VolumeId) -> Self {
        let lv = volume.lv_name().to_string();
        let disk = Disk::new(&lv, 64 * MIB);
        let name = format!("{VG}-{}", lv.replace('-', "--"));
        let table = format!("0 {} linear {} 0", 64 * MIB / 512, disk.path().display());
        run("dmsetup", &["create", &name, "--table", &table]).unwrap();
        let link = Path::new("/dev").join(VG).join(lv);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&link);
        symlink(Path::new("/dev/mapper").join(&name), &link).unwrap();
        Self { name, link, _disk: disk }
    }

    /// Suspends the device until the guard is dropped, which it is when the test fails too: else nothing in this guest
    /// that touches the disk would ever end.
    fn suspend(&self) -> Suspended<'_> {
        // Not flushed: what is in flight stays in flight.
        run("dmsetup", &["suspend", "--noflush", "--nolockfs", &self.name]).unwrap();
        Suspended(self)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = run("dmsetup", &["remove", "--retry", &self.name]);
        let _ = fs::remove_file(&self.link);
    }
}

struct Suspended<'a>(&'a Mapped);

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        run("dmsetup", &["resume", &self.0.name]).unwrap();
    }
}

/// A blade's operating system that writes without pause; ended when dropped.
struct Writer(Child);

impl Writer {
    fn on(disk: &str) -> Self {
        let to = format!("of=/dev/{disk}");
        let writer = Command::new("sh")
            .args([
                "-c",
                "while dd if=/dev/zero \"$0\" bs=4k count=1024 oflag=direct conv=notrunc; do :; done",
                &to,
            ])
            .stderr(Stdio::null())
            .spawn();
        Self(writer.unwrap())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lanes and what they tell.
struct Bench {
    host: Arc<Live>,
    lanes: Lanes,
    told: mpsc::Receiver<Report>,
}

impl Bench {
    fn new(config: &Config) -> Self {
        let host = Arc::new(Live::new(config, MasterKey::from_bytes([7; 32])));
        let (tell, told) = mpsc::channel();
        let deadlines = |_: &Doing| DEADLINE;
        let done = move |report| drop(tell.send(report));
        let lanes = Lanes::with_deadlines(host.clone(), deadlines, done);
        Self { host, lanes, told }
    }

    fn next(&self) -> Report {
        self.told.recv_timeout(PATIENCE).expect("a report in time")
    }

    /// Carries a job out that does not hang.
    fn carry_out(&self, job: Job) -> Report {
        let subject = job.subject.clone();
        self.lanes.submit(job);
        let report = self.next();
        assert_eq!((&report.subject, report.ending), (&subject, Ending::InTime));
        if let Some(failure) = report.failure {
            panic!("{subject}: {failure}");
        }
        report
    }
}

/// Returns how many of the initiator's requests have not been answered.
fn in_flight(disk: &str) -> u32 {
    let text = fs::read_to_string(Path::new("/sys/block").join(disk).join("inflight")).unwrap_or_default();
    text.split_whitespace().filter_map(|count| count.parse::<u32>().ok()).sum()
}

#[test]
#[ignore = "needs root, LIO and device-mapper in a guest: the lab runs it there"]
fn vm_a_blade_whose_device_hangs_is_quarantined_others_are_served_and_it_heals() {
    let _alone = alone();
    let _ = run("ip", &["addr", "add", &format!("{ADDRESS}/24"), "dev", "lo"]);
    let config = configuration();
    let bench = Bench::new(&config);
    let [hung, other] = [1, 2].map(|number| Blade::new(&config, number));
    bench.carry_out(hung.serving());
    let login = hung.login(&bench.host);
    let disk = login.disk();
    let writer = Writer::on(&disk);
    let suspended = hung.device.suspend();
    wait_for("a request in flight", || (in_flight(&disk) > 0).then_some(()));

    let begin = Instant::now();
    bench.lanes.submit(hung.removal());
    let overdue = bench.next();
    let named = overdue.failure.expect("it says what it waits for");
    eprintln!("after {:.1} s: {named}", begin.elapsed().as_secs_f32());
    assert_eq!((overdue.subject, overdue.ending), (hung.subject(), Ending::Overdue));
    assert_eq!(named.step.as_deref(), Some(&Step::Disable { target: hung.wish.target.clone() }));
    assert!(begin.elapsed() < DEADLINE * 2, "{:?}", begin.elapsed());

    // Another blade comes: its target is made, it logs in at the same portal, and writes.
    assert_eq!(hung.disk().export.portals, other.disk().export.portals);
    let made = bench.carry_out(other.serving());
    eprintln!("meanwhile another target was made in {:.1} s", made.elapsed.as_secs_f32());
    let others_login = other.login(&bench.host);
    let to = format!("of=/dev/{}", others_login.disk());
    run("dd", &["if=/dev/zero", &to, "bs=4k", "count=16", "oflag=direct"]).unwrap();
    // What is asked of the hung one's target is answered too: questions and session watch do not hang.
    assert!(bench.host.targets().unwrap().iter().any(|found| found.target == hung.wish.target.to_string()));
    let _ = hung.is_logged_in(&bench.host);
    drop(others_login);

    drop(suspended);
    let late = bench.next();
    assert_eq!((late.subject, late.ending, late.steps.len()), (hung.subject(), Ending::Late, 1));
    let failure = late.failure.expect("the rest was not begun");
    assert!(failure.to_string().contains("too late, it is planned anew"), "{failure}");
    // The next plan goes on from what is there. Had the wish changed meanwhile, it would serve the blade again.
    bench.carry_out(hung.serving());
    wait_for("its operating system to come back", || hung.is_logged_in(&bench.host).then_some(()));
    bench.carry_out(hung.serving());
    let left = blade_plan(bench.host.as_ref(), &hung.wish, &hung.volumes).unwrap();
    assert!(left.steps.is_empty(), "{left:?}");

    drop((writer, login));
    for blade in [&hung, &other] {
        bench.carry_out(blade.removal());
        assert_eq!(blade.export(&bench.host), ObservedExport::default());
    }
    let _ = run("ip", &["addr", "del", &format!("{ADDRESS}/24"), "dev", "lo"]);
}
