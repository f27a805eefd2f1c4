//! One blade as LIO sees it: its disk, the steps that make its export, and what an observation should then give.

use std::path::Path;

use sheath::{
    error::Result,
    host::{
        AuthState, MapState, ObservedAcl, ObservedBackstore, ObservedExport, ObservedTarget,
        keys::MasterKey,
        lio::{Acl, Lio},
    },
    model::{Backstore, Chap, Credentials, Iqn, NopIn, Portal, VolumeId},
    plan::Changed,
};

use crate::{
    guest::Disk,
    initiator::{Initiator, Login},
};

pub(crate) const ROOT: &str = "/sys/kernel/config/target";
pub(crate) const PREFIX: &str = "iqn.2026-11.org.example";
pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn lio() -> Lio {
    let lio = Lio::new(ROOT.into(), PREFIX.parse().unwrap(), MasterKey::from_bytes([7; 32]));
    lio.check().unwrap();
    lio
}

/// A blade, its disk, and what LIO should hold for it.
pub(crate) struct Blade {
    pub(crate) lio: Lio,
    pub(crate) disk: Option<Disk>,
    pub(crate) backstore: Backstore,
    pub(crate) target: Iqn,
    pub(crate) initiator: Iqn,
    pub(crate) portal: Portal,
    pub(crate) chap: Chap,
    pub(crate) nopin: NopIn,
}

impl Blade {
    /// Returns blade `number`, with names, volume and portal of its own.
    pub(crate) fn new(number: u16) -> Self {
        let disk = Disk::new(&format!("blade-{number}"), 64 * MIB);
        let device = disk.path().to_owned();
        Self { disk: Some(disk), ..Self::on(number, &device) }
    }

    pub(crate) fn on(number: u16, device: &Path) -> Self {
        let prefix: Iqn = PREFIX.parse().unwrap();
        // The top bits are the HBA's number, the first 25 digits the disk's name for an initiator.
        let volume = VolumeId(u128::from(number) << 104 | 0xabc_def0_1234);
        Self {
            lio: lio(),
            disk: None,
            backstore: Backstore { volume, device: device.to_owned() },
            target: prefix.join(&format!("b-{number}")).unwrap(),
            initiator: prefix.join(&format!("i-{number}")).unwrap(),
            portal: Portal(format!("127.0.0.1:{}", 3300 + number).parse().unwrap()),
            chap: Chap::OneWay,
            nopin: NopIn::On,
        }
    }

    pub(crate) fn acl(&self) -> Acl<'_> {
        Acl { initiator: &self.initiator, volume: self.backstore.volume, chap: self.chap, nopin: self.nopin }
    }

    /// Runs step `number` of those that make the export, or returns `None` after the last.
    pub(crate) fn step(&self, number: usize) -> Option<Result<Changed>> {
        Some(match number {
            0 => self.lio.backstore(&self.backstore),
            1 => self.lio.target(&self.target),
            2 => self.lio.lun(&self.target, &self.backstore),
            3 => self.lio.acl(&self.target, &self.acl()),
            4 => self.lio.map_lun(&self.target, &self.initiator),
            5 => self.lio.portal(&self.target, self.portal),
            6 => self.lio.enable(&self.target),
            _ => return None,
        })
    }

    /// Runs all steps and returns whether each had something to do.
    pub(crate) fn make(&self) -> Vec<Changed> {
        (0..).map_while(|number| self.step(number)).map(said).collect()
    }

    /// Runs the steps that take it all away.
    pub(crate) fn remove(&self) -> Vec<Changed> {
        let lio = &self.lio;
        [
            lio.disable(&self.target),
            lio.remove_acl(&self.target, self.initiator.as_str()),
            lio.remove_target(&self.target),
            lio.remove_backstore(self.backstore.volume),
        ]
        .into_iter()
        .map(said)
        .collect()
    }

    pub(crate) fn export(&self) -> ObservedExport {
        said(self.lio.export(&self.target, self.backstore.volume))
    }

    pub(crate) fn seen_acl(&self) -> ObservedAcl {
        self.export().target.unwrap().acls[self.initiator.as_str()].clone()
    }

    /// What an observation gives once all steps are done and nobody is logged in.
    pub(crate) fn desired(&self) -> ObservedExport {
        let acl = ObservedAcl {
            auth: match self.chap {
                Chap::OneWay => AuthState::OneWay,
                Chap::Mutual => AuthState::Mutual,
            },
            map: MapState::Mapped,
            nopin_timeout: self.nopin.seconds(),
            session: None,
        };
        ObservedExport {
            properties: Default::default(),
            backstore: Some(ObservedBackstore {
                enabled: true,
                device: self.backstore.device.clone(),
                serial: self.backstore.serial(),
                profile: true,
            }),
            target: Some(ObservedTarget {
                enabled: true,
                profile: true,
                lun: Some((self.backstore.name(), self.backstore.hba())),
                acls: [(self.initiator.to_string(), acl)].into(),
                portals: [self.portal].into(),
                strays: Default::default(),
            }),
        }
    }

    pub(crate) fn credentials(&self) -> Credentials {
        MasterKey::from_bytes([7; 32]).credentials(self.backstore.volume, self.chap)
    }

    /// Logs in as this blade's operating system would.
    pub(crate) fn login(&self) -> Login {
        let initiator = Initiator::new(&self.portal.0.port().to_string(), self.initiator.as_str());
        initiator.login(&self.target, self.portal, &self.credentials()).unwrap()
    }

    pub(crate) fn session_id(&self) -> Option<u32> {
        said(self.lio.session(&self.target, &self.initiator)).map(|session| session.id)
    }

    /// Returns a path below the target's TPG.
    pub(crate) fn tpg(&self, below: &str) -> String {
        format!("{ROOT}/iscsi/{}/tpgt_1/{below}", self.target)
    }
}

/// Returns the value, or fails with the error's whole chain.
pub(crate) fn said<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|e| panic!("{}", e.chain()))
}

pub(crate) fn all_already_true(changes: &[Changed]) -> bool {
    changes.iter().all(|changed| *changed == Changed::AlreadyTrue)
}
