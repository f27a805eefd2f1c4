//! What set-up would do, as plain data: the wish compared with what the machine has. Pure.
//!
//! Every step says a result; steps that are true already stay in the plan, marked, so that whoever reads it sees the
//! whole appliance. What speaks against the wish is gathered completely before anything is changed.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, path::PathBuf};

use serde::Serialize;

use super::survey::{DiskFacts, PortFacts, Survey};
use crate::{
    config::{Config, Initial, parse, render_initial},
    error::{Error, Kind, Result},
    model::{Bytes, LvName, PortName, VgName},
};

/// Smallest pool that holds an image and a blade.
const SMALLEST: Bytes = Bytes::gib(1);

/// Where set-up keeps what it makes.
pub(super) const POOL_FILE: &str = "/var/lib/sheath-pool/pool.img";
/// Tells `sheath-loop.service` which file the pool is in.
pub(super) const POOL_ENV: &str = "/etc/sheath/pool.env";
/// Every blade's password is derived from it.
pub(super) const MASTER_KEY: &str = "/etc/sheath/master.key";
/// Brings the pool's file back at boot.
pub(super) const LOOP_UNIT: &str = "sheath-loop.service";
/// The units of an appliance.
pub(super) const UNITS: [&str; 3] = ["sheathd.service", "sheath-bootd.service", "sheath-dnsmasq.service"];

/// What the operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    /// Where the pool's space comes from.
    pub(super) backing: Backing,
    /// The volume group.
    pub(super) vg: VgName,
    /// The thin pool in it.
    pub(super) thinpool: LvName,
    /// The slots' ports, slot 1 first.
    pub(super) slots: Vec<PortName>,
    /// The appliance's address on the chassis network.
    pub(super) address: (Ipv4Addr, u8),
    /// The configuration file.
    pub(super) config: PathBuf,
}

/// Where the pool's space comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Backing {
    /// A disk.
    Disk {
        /// Its device.
        path: PathBuf,
    },
    /// A file in place of a disk.
    File {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: Bytes,
    },
}

/// One step of set-up: a result, idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub(super) enum SetupStep {
    /// The pool's file exists, its space reserved.
    PoolFile {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: Bytes,
    },
    /// The pool's file is a loop device, now and after each boot.
    PoolLoop {
        /// The file.
        path: PathBuf,
    },
    /// The disk is a physical volume, with room for the metadata of a thousand volumes.
    PhysicalVolume {
        /// The volume group that it is for.
        vg: VgName,
        /// The disk.
        on: Backing,
    },
    /// The volume group exists.
    VolumeGroup {
        /// Its name.
        vg: VgName,
        /// Its first disk.
        on: Backing,
    },
    /// The thin pool exists.
    ThinPool {
        /// The volume group.
        vg: VgName,
        /// Its name.
        thinpool: LvName,
    },
    /// The master key exists.
    MasterKey {
        /// The file.
        path: PathBuf,
    },
    /// The configuration exists and says what was asked for.
    Configuration {
        /// The file.
        path: PathBuf,
        /// Its text, where it is to be written.
        #[serde(skip)]
        text: String,
    },
    /// The services run, now and after each boot.
    Services {
        /// Their units.
        units: Vec<String>,
    },
    /// The agent answers.
    Answer,
}

/// Whether a step has anything left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// It is to be done.
    ToDo,
    /// It is so already.
    AlreadyTrue,
}

/// A step and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Planned {
    /// The step.
    #[serde(flatten)]
    pub(super) step: SetupStep,
    /// Its state.
    pub(super) state: State,
}

/// The whole set-up, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct SetupPlan {
    /// The steps.
    pub(super) steps: Vec<Planned>,
}

impl SetupPlan {
    /// Returns the steps that are to be done.
    pub(super) fn to_do(&self) -> impl Iterator<Item = &SetupStep> {
        self.steps.iter().filter(|planned| planned.state == State::ToDo).map(|planned| &planned.step)
    }
}

/// Something that speaks against the wish.
type Objection = (Kind, String);

/// Returns the steps that make the wish true on this machine.
///
/// # Errors
/// Everything that speaks against it, in one error; its kind is the first objection's.
pub(super) fn plan(wish: &Wish, survey: &Survey) -> Result<SetupPlan> {
    let text =
        render_initial(&Initial { address: wish.address, slots: wish.slots.clone(), vg: wish.vg.clone() });
    let mut objections = config_objections(wish, survey, &text);
    objections.extend(backing_objections(wish, survey));
    objections.extend(port_objections(wish, survey));
    objections.extend(network_objections(wish, survey));
    match objections.as_slice() {
        [] => Ok(SetupPlan { steps: steps(wish, survey, text) }),
        [(kind, only)] => Err(Error::new(*kind, format!("set up this machine: {only}"))),
        [(kind, _), ..] => {
            let list: String = objections.iter().map(|(_, text)| format!("\n  - {text}")).collect();
            let n = objections.len();
            Err(Error::new(*kind, format!("set up this machine: {n} things speak against it:{list}")))
        }
    }
}

fn steps(wish: &Wish, survey: &Survey, text: String) -> Vec<Planned> {
    let on = wish.backing.clone();
    let (is_pv, in_vg) = match &survey.disk {
        DiskFacts::Volume { vg } => (true, *vg == Some(wish.vg.to_string())),
        DiskFacts::Blank | DiskFacts::Holds(_) => (false, false),
    };
    let mut steps = vec![];
    if let Backing::File { path, size } = &on {
        let (path, size) = (path.clone(), *size);
        steps.push((SetupStep::PoolFile { path: path.clone(), size }, survey.pool_file.is_some()));
        steps.push((SetupStep::PoolLoop { path }, survey.pool_loop));
    }
    steps.extend([
        (SetupStep::PhysicalVolume { vg: wish.vg.clone(), on: on.clone() }, is_pv),
        (SetupStep::VolumeGroup { vg: wish.vg.clone(), on }, in_vg),
        (
            SetupStep::ThinPool { vg: wish.vg.clone(), thinpool: wish.thinpool.clone() },
            in_vg && survey.thinpool,
        ),
        (SetupStep::MasterKey { path: MASTER_KEY.into() }, survey.master_key),
        (SetupStep::Configuration { path: wish.config.clone(), text }, survey.config.is_some()),
        (SetupStep::Services { units: UNITS.map(str::to_owned).to_vec() }, survey.services),
        (SetupStep::Answer, survey.answers),
    ]);
    let state = |done| if done { State::AlreadyTrue } else { State::ToDo };
    steps.into_iter().map(|(step, done)| Planned { step, state: state(done) }).collect()
}

/// A configuration that is there is never overwritten: either it says what was asked for, or somebody has to decide.
fn config_objections(wish: &Wish, survey: &Survey, text: &str) -> Vec<Objection> {
    let name = wish.config.display().to_string();
    let asked = match parse("sheath.toml", text) {
        Ok(config) => config,
        Err(faults) => {
            let reason = |fault: &crate::config::Fault| {
                (Kind::Invalid, format!("{}: expected {}, found {}", fault.key, fault.expected, fault.found))
            };
            return faults.iter().map(reason).collect();
        }
    };
    let Some(found) = &survey.config else { return vec![] };
    match parse(&name, found) {
        Err(faults) => faults.iter().map(|fault| (Kind::Invalid, fault.to_string())).collect(),
        Ok(found) => differences(&asked, &found)
            .into_iter()
            .map(|difference| {
                (Kind::Exists, format!("'{name}' exists and says {difference}: edit it, or move it away"))
            })
            .collect(),
    }
}

fn differences(asked: &Config, found: &Config) -> Vec<String> {
    let address = |config: &Config| format!("{}/{}", config.chassis.address.0, config.chassis.address.1);
    let slots = |config: &Config| {
        let slots = config.chassis.slots.iter().map(|(slot, port)| format!("{slot} = {port}"));
        slots.collect::<Vec<_>>().join(", ")
    };
    let rows = [
        ("address", address(asked), address(found)),
        ("slots", slots(asked), slots(found)),
        ("volume group", asked.pool.vg.to_string(), found.pool.vg.to_string()),
        ("thin pool", asked.pool.thinpool.to_string(), found.pool.thinpool.to_string()),
    ];
    let differ = rows.into_iter().filter(|(_, asked, found)| asked != found);
    differ.map(|(what, asked, found)| format!("{what} '{found}', not '{asked}'")).collect()
}

fn backing_objections(wish: &Wish, survey: &Survey) -> Vec<Objection> {
    let mut objections = vec![];
    let shown = match &wish.backing {
        Backing::Disk { path } => format!("'{}'", path.display()),
        Backing::File { path, size } => {
            match survey.pool_file {
                None if *size < SMALLEST => {
                    let text = format!("a pool of {} is too small (at least {SMALLEST})", size.human());
                    objections.push((Kind::Invalid, text));
                }
                Some(found) if found != *size => {
                    let found = found.human();
                    let text = format!("'{}' exists and has {found}, not {}", path.display(), size.human());
                    objections.push((Kind::Exists, text));
                }
                _ => {}
            }
            format!("'{}'", path.display())
        }
    };
    match &survey.disk {
        DiskFacts::Holds(found) => {
            objections.extend(found.iter().map(|what| (Kind::Exists, format!("{shown} holds data: {what}"))));
        }
        DiskFacts::Volume { vg: Some(vg) } if *vg != wish.vg.to_string() => {
            objections.push((Kind::Exists, format!("{shown} belongs to volume group '{vg}'")));
        }
        DiskFacts::Volume { vg: Some(_) } => {}
        DiskFacts::Volume { vg: None } | DiskFacts::Blank => {
            if let Some(disks) = &survey.vg_disks {
                let disks: Vec<_> = disks.iter().map(|disk| format!("'{}'", disk.display())).collect();
                let text = format!(
                    "volume group '{}' exists on {}, not on {shown}: choose another with --vg",
                    wish.vg,
                    disks.join(", ")
                );
                objections.push((Kind::Exists, text));
            }
        }
    }
    objections
}

/// A port that somebody uses is left alone: the operator may be logged in through it.
fn port_objections(wish: &Wish, survey: &Survey) -> Vec<Objection> {
    let bridge = bridge(survey);
    let mut objections = vec![];
    for port in &wish.slots {
        let Some(facts) = survey.ports.get(port) else {
            objections.push((Kind::Missing, format!("slot port '{port}' does not exist{}", known(survey))));
            continue;
        };
        let PortFacts { addresses, default_route, uppers } = facts;
        if *default_route {
            let text =
                format!("slot port '{port}' has the default route: as a slot it would cut this machine off");
            objections.push((Kind::Busy, text));
        }
        if !addresses.is_empty() {
            let list = addresses.join(", ");
            let text = format!("slot port '{port}' has the address {list}: as a slot it would lose it");
            objections.push((Kind::Busy, text));
        }
        for upper in uppers.iter().filter(|upper| **upper != bridge) {
            objections.push((Kind::Busy, format!("slot port '{port}' is in use by '{upper}'")));
        }
    }
    objections
}

/// Returns the name of the bridge: the configuration's where there is one.
fn bridge(survey: &Survey) -> String {
    let found = survey.config.as_deref().and_then(|text| parse("", text).ok());
    let name = found.map(|config| config.chassis.bridge.to_string());
    name.unwrap_or_else(|| "sheath0".into())
}

fn known(survey: &Survey) -> String {
    let names: Vec<_> = survey.interfaces.iter().map(String::as_str).collect();
    if names.is_empty() { String::new() } else { format!(" (there are {})", names.join(", ")) }
}

/// Two interfaces in one network would leave it to chance which of them a packet takes.
fn network_objections(wish: &Wish, survey: &Survey) -> Vec<Objection> {
    let bridge = bridge(survey);
    let mask = |prefix: u8| u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    let overlap = |ip: Ipv4Addr, prefix: u8| {
        let common = mask(prefix.min(wish.address.1));
        ip.to_bits() & common == wish.address.0.to_bits() & common
    };
    let found = survey.networks.iter().filter(|(name, ip, prefix)| *name != bridge && overlap(*ip, *prefix));
    found
        .map(|(name, ip, prefix)| {
            let (own, length) = wish.address;
            (Kind::Busy, format!("{own}/{length} overlaps the network of '{name}' ({ip}/{prefix})"))
        })
        .collect()
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { path } => write!(f, "'{}'", path.display()),
            Self::File { path, .. } => write!(f, "the loop device of '{}'", path.display()),
        }
    }
}

impl fmt::Display for SetupStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoolFile { path, size } => {
                write!(f, "file '{}' of {} exists", path.display(), size.human())
            }
            Self::PoolLoop { path } => {
                write!(f, "'{}' is a loop device, now and after each boot ({LOOP_UNIT})", path.display())
            }
            Self::PhysicalVolume { on, .. } => write!(f, "{on} is an LVM physical volume"),
            Self::VolumeGroup { vg, on } => write!(f, "volume group '{vg}' is on {on}"),
            Self::ThinPool { vg, thinpool } => write!(f, "thin pool '{vg}/{thinpool}' exists"),
            Self::MasterKey { path } => write!(f, "master key '{}' exists", path.display()),
            Self::Configuration { path, .. } => write!(f, "configuration '{}' exists", path.display()),
            Self::Services { units } => write!(f, "{} run, now and after each boot", units.join(", ")),
            Self::Answer => write!(f, "sheathd answers"),
        }
    }
}

/// Returns the text of the file that names the pool's file to `sheath-loop.service`.
pub(super) fn pool_env(path: &std::path::Path) -> String {
    format!(
        "# Written by 'sheath setup': the file that the pool is in.\nSHEATH_POOL_FILE={}\n",
        path.display()
    )
}

/// The ports of a survey by name; shorthand for what tests and the survey build.
pub(super) type Ports = BTreeMap<PortName, PortFacts>;
