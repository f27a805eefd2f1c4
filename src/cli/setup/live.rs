//! Set-up on the real machine: thin, because the work is `host`'s and the decisions are `plan`'s.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{
    SetupHost,
    plan::{Backing, LOOP_UNIT, MASTER_KEY, POOL_ENV, SetupStep, UNITS, Wish, pool_env},
    survey::{self, Address, DiskFacts, Survey},
};
use crate::{
    cli::{Ask, ask},
    error::{Context, Error, Kind, Result},
    host::{
        cmd::{Cmd, Tool},
        disk::{inspect, loopfile},
        file,
        keys::MasterKey,
        lvm::Lvm,
    },
    model::{Bytes, LvName, VgName},
    plan::Changed,
};

/// Longest time for an LVM report: it scans all disks, and a failing one retries for half a minute.
const REPORT: Duration = Duration::from_secs(120);
/// Longest time for the services to come up: sheathd makes everything true that is not, before it is ready.
const START: Duration = Duration::from_secs(300);
/// Longest time for the agent's first answer after systemd says that it is ready.
const ANSWER: Duration = Duration::from_secs(60);
/// Time between two questions to an agent that does not answer yet: there is no event to wait for.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// The machine that we run on.
pub(super) struct Live<'a> {
    ask: &'a dyn Ask,
}

impl<'a> Live<'a> {
    /// Returns the machine; `ask` is the agent that will run on it.
    pub(super) fn new(ask: &'a dyn Ask) -> Self {
        Self { ask }
    }
}

impl SetupHost for Live<'_> {
    fn survey(&self, wish: &Wish) -> Result<Survey> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::new(Kind::Denied, "set up this machine: only root can"));
        }
        let (sys, proc) = (Path::new("/sys"), Path::new("/proc"));
        let addresses = addresses()?;
        let volumes = Volumes::read()?;
        let (device, pool_file) = match &wish.backing {
            Backing::Disk { path } => (Some(path.clone()), None),
            Backing::File { path, .. } => (survey::loop_of(path, sys)?, size_of(path)?),
        };
        let networks = addresses.iter().filter_map(|(name, ip, prefix)| match ip {
            IpAddr::V4(ip) if !ip.is_loopback() => Some((name.clone(), *ip, *prefix)),
            _ => None,
        });
        Ok(Survey {
            disk: device.as_deref().map_or(Ok(DiskFacts::Blank), |device| volumes.facts(device))?,
            vg_disks: volumes.disks_of(&wish.vg),
            thinpool: volumes.has_thinpool(&wish.vg, &wish.thinpool),
            pool_loop: device.is_some() && pool_file.is_some() && units_run(&[LOOP_UNIT])?,
            pool_file,
            ports: survey::ports(&wish.slots, sys, proc, &addresses)?,
            interfaces: survey::interfaces(sys)?,
            networks: networks.collect(),
            config: survey::text_of(&wish.config)?,
            master_key: Path::new(MASTER_KEY).exists(),
            services: units_run(&UNITS)?,
            answers: ask::status(self.ask).is_ok(),
        })
    }

    fn run(&self, step: &SetupStep) -> Result<Changed> {
        match step {
            SetupStep::PoolFile { path, size } => make_pool_file(path, *size),
            SetupStep::PoolLoop { path } => {
                file::save(Path::new(POOL_ENV), pool_env(path).as_bytes(), 0o644)?;
                enable(&[LOOP_UNIT])
            }
            SetupStep::PhysicalVolume { vg, on } => group(vg).make_pv(&device_of(on)?),
            SetupStep::VolumeGroup { vg, on } => group(vg).make_vg(&device_of(on)?),
            SetupStep::ThinPool { vg, thinpool } => Lvm::new(vg.clone(), thinpool.clone()).make_thinpool(),
            SetupStep::MasterKey { path } => {
                let existed = path.exists();
                make_folder_of(path)?;
                MasterKey::create(path).map(|_| Changed::from_bool(!existed))
            }
            SetupStep::Configuration { path, text } => {
                make_folder_of(path)?;
                file::save(path, text.as_bytes(), 0o644).map(|()| Changed::Changed)
            }
            SetupStep::Services { units } => enable(units),
            SetupStep::Answer => await_answer(self.ask),
        }
    }
}

/// Returns LVM's door for what concerns the group alone: the pool's name is never looked at then.
fn group(vg: &VgName) -> Lvm {
    Lvm::new(vg.clone(), "pool".parse().expect("a fixed name is valid"))
}

/// Returns the block device; a file's is there because its step comes before.
fn device_of(backing: &Backing) -> Result<PathBuf> {
    match backing {
        Backing::Disk { path } => Ok(path.clone()),
        Backing::File { path, .. } => loopfile::attach(path),
    }
}

fn size_of(path: &Path) -> Result<Option<Bytes>> {
    match path.metadata() {
        Ok(found) => Ok(Some(Bytes(found.len()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).attempt(|| format!("look at '{}'", path.display())),
    }
}

fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).attempt(|| format!("make folder '{}'", folder.display()))
}

fn make_pool_file(path: &Path, size: Bytes) -> Result<Changed> {
    make_folder_of(path)?;
    loopfile::create(path, size)
}

/// Returns all addresses of the machine's interfaces.
fn addresses() -> Result<Vec<Address>> {
    let all = nix::ifaddrs::getifaddrs().attempt(|| "list the machine's addresses".into())?;
    let ip = |address: &nix::sys::socket::SockaddrStorage| -> Option<IpAddr> {
        let four = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        four.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    let length = |mask: IpAddr| match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    };
    let found = all.filter_map(|interface| {
        let own = ip(interface.address.as_ref()?)?;
        let prefix = interface.netmask.as_ref().and_then(ip).map_or(32, length);
        Some((interface.interface_name, own, u8::try_from(prefix).ok()?))
    });
    Ok(found.collect())
}

/// Enables and starts units, and waits until systemd says that they are up.
fn enable<U: AsRef<str>>(units: &[U]) -> Result<Changed> {
    let names = units.iter().map(AsRef::as_ref);
    Cmd::new(Tool::Systemctl, START).args(["enable", "--now", "--"]).args(names).run()?;
    Ok(Changed::Changed)
}

/// Returns whether all these units are enabled and active.
fn units_run(units: &[&str]) -> Result<bool> {
    let output = Cmd::new(Tool::Systemctl, REPORT)
        .args(["show", "--property=UnitFileState,ActiveState", "--"])
        .args(units)
        .run()?;
    Ok(all_run(&String::from_utf8_lossy(&output.stdout), units.len()))
}

fn all_run(shown: &str, units: usize) -> bool {
    let count = |wanted| shown.lines().filter(|line| *line == wanted).count();
    count("UnitFileState=enabled") == units && count("ActiveState=active") == units
}

fn await_answer(agent: &dyn Ask) -> Result<Changed> {
    let deadline = Instant::now() + ANSWER;
    loop {
        match ask::status(agent) {
            Ok(_) => return Ok(Changed::Changed),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.while_doing("wait for sheathd's answer (journalctl -u sheathd says more)"));
            }
            #[allow(
                clippy::disallowed_methods,
                reason = "there is no event to wait for; the wait is bounded"
            )]
            Err(_) => std::thread::sleep(ASK_AGAIN),
        }
    }
}

/// What LVM has: the physical volumes, and the logical ones of any group.
struct Volumes {
    pvs: Vec<Pv>,
    lvs: Vec<Lv>,
}

#[derive(Deserialize)]
struct Pv {
    pv_name: PathBuf,
    vg_name: String,
}

#[derive(Deserialize)]
struct Lv {
    vg_name: String,
    lv_name: String,
    segtype: String,
}

/// `lvm … --reportformat json`: one report of rows of one kind.
#[derive(Deserialize)]
struct Reports<R> {
    report: Vec<R>,
}

#[derive(Deserialize)]
struct PvRows {
    pv: Vec<Pv>,
}

#[derive(Deserialize)]
struct LvRows {
    lv: Vec<Lv>,
}

impl Volumes {
    fn read() -> Result<Self> {
        let pvs: Reports<PvRows> = report("pvs", "pv_name,vg_name")?;
        let lvs: Reports<LvRows> = report("lvs", "vg_name,lv_name,segtype")?;
        let pvs = pvs.report.into_iter().flat_map(|rows| rows.pv).collect();
        let lvs = lvs.report.into_iter().flat_map(|rows| rows.lv).collect();
        Ok(Self { pvs, lvs })
    }

    /// Returns what is on a disk. A physical volume is told from other content, because it may be ours.
    fn facts(&self, device: &Path) -> Result<DiskFacts> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some(pv) = self.pvs.iter().find(|pv| real(&pv.pv_name) == real(device)) {
            return Ok(DiskFacts::Volume { vg: Some(pv.vg_name.clone()).filter(|vg| !vg.is_empty()) });
        }
        let found = inspect::inspect_disk(device)?;
        Ok(if found.is_empty() { DiskFacts::Blank } else { DiskFacts::Holds(found) })
    }

    fn disks_of(&self, vg: &VgName) -> Option<Vec<PathBuf>> {
        let disks = self.pvs.iter().filter(|pv| pv.vg_name == vg.as_str());
        let disks: Vec<_> = disks.map(|pv| pv.pv_name.clone()).collect();
        if disks.is_empty() { None } else { Some(disks) }
    }

    fn has_thinpool(&self, vg: &VgName, name: &LvName) -> bool {
        let pool =
            |lv: &Lv| lv.vg_name == vg.as_str() && lv.lv_name == name.as_str() && lv.segtype == "thin-pool";
        self.lvs.iter().any(pool)
    }
}

fn report<R: for<'de> Deserialize<'de>>(verb: &str, fields: &str) -> Result<R> {
    let output = Cmd::new(Tool::Lvm, REPORT)
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .args([verb, "--reportformat", "json", "--options", fields])
        .run()?;
    serde_json::from_slice(&output.stdout)
        .map_err(|cause| Error::new(Kind::Failed, format!("read the report of 'lvm {verb}'")).because(cause))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn lvms_reports_say_whose_a_disk_is() {
        let pvs = r#"{"report": [{"pv": [{"pv_name":"/dev/sdb", "vg_name":"sheath"},
            {"pv_name":"/dev/sdc", "vg_name":""}]}], "log": []}"#;
        let lvs = r#"{"report": [{"lv": [{"vg_name":"sheath", "lv_name":"pool", "segtype":"thin-pool"}]}]}"#;
        let pvs: Reports<PvRows> = serde_json::from_str(pvs).unwrap();
        let lvs: Reports<LvRows> = serde_json::from_str(lvs).unwrap();
        let volumes = Volumes {
            pvs: pvs.report.into_iter().flat_map(|r| r.pv).collect(),
            lvs: lvs.report.into_iter().flat_map(|r| r.lv).collect(),
        };
        let of = |vg: Option<&str>| DiskFacts::Volume { vg: vg.map(str::to_owned) };
        assert_eq!(volumes.facts(Path::new("/dev/sdb")).unwrap(), of(Some("sheath")));
        assert_eq!(volumes.facts(Path::new("/dev/sdc")).unwrap(), of(None));
        assert_eq!(volumes.disks_of(&"sheath".parse().unwrap()), Some(vec!["/dev/sdb".into()]));
        assert_eq!(volumes.disks_of(&"other".parse().unwrap()), None);
        assert!(volumes.has_thinpool(&"sheath".parse().unwrap(), &"pool".parse().unwrap()));
        assert!(!volumes.has_thinpool(&"sheath".parse().unwrap(), &"other".parse().unwrap()));
    }

    #[test]
    fn units_run_when_all_are_enabled_and_active() {
        let up = "ActiveState=active\nUnitFileState=enabled\n";
        assert!(all_run(&format!("{up}\n{up}"), 2));
        assert!(!all_run(&format!("{up}\nActiveState=failed\nUnitFileState=enabled\n"), 2));
        assert!(!all_run("ActiveState=inactive\nUnitFileState=\n", 1));
    }

    #[test]
    fn the_machines_own_addresses_can_be_listed() {
        let all = addresses().unwrap();
        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        assert!(
            all.iter().any(|(name, ip, prefix)| name == "lo" && *ip == loopback && *prefix == 8),
            "{all:?}"
        );
    }
}
