//! A blade's wishes on the real machine, as the agent has them: for tests of whole plans.

use sheath::{
    apply::{Job, Report, Subject, Work, blade_plan, carry_out},
    config::{self, Config, DiskKeys, Given, ImageProfile},
    host::{Host, keys::MasterKey, live::Live},
    model::{BladeId, Bytes, ForeignExport, ImageId, Portal, VolumeId},
    plan::Step,
    policy::{self, BladeWish},
    roster::{Blade, Disk, Grant, GrantedBy},
};

use crate::blade::{PREFIX, said};

/// The machine, and one blade of it.
pub(crate) struct Subjects {
    pub(crate) host: Live,
    config: Config,
    id: BladeId,
    image: ImageId,
    pub(crate) volume: VolumeId,
}

impl Subjects {
    /// Returns the blade with this number, whose disk is in this volume group and made of this image.
    pub(crate) fn new(vg: &str, image: &ImageId, number: u8) -> Self {
        let text = format!(
            "[chassis]\naddress = \"10.77.0.1/24\"\nslots = {{ 1 = \"slot1\" }}\n\
             [pool]\nvg = \"{vg}\"\nthinpool = \"pool\"\n[target]\niqn_prefix = \"{PREFIX}\"\n"
        );
        let mut config = config::parse("sheath.toml", &text).unwrap();
        // No slot has a cable here: the blades are this kernel's own initiator.
        config.target.portal = Portal(format!("127.0.0.1:{}", 3400 + u16::from(number)).parse().unwrap());
        let disk = DiskKeys { disk_size: Some(Given::Size(Bytes::mib(200))), ..DiskKeys::default() };
        let profile = ImageProfile { disk, ..ImageProfile::default() };
        config.images.insert(image.name.clone(), profile);
        Self {
            host: Live::new(&config, MasterKey::from_bytes([7; 32])),
            config,
            id: BladeId(format!("52:54:00:77:00:{number:02x}").parse().unwrap()),
            image: image.clone(),
            volume: VolumeId(u128::from(number) << 104 | 0x77),
        }
    }

    /// What is wished when the image was chosen at the blade's console.
    pub(crate) fn granted(&self) -> BladeWish {
        let (image, volume) = (self.image.clone(), self.volume);
        let grant = Grant { image, volume, by: GrantedBy::Console, at: 1, from: None };
        self.wish(Blade { grant: Some(grant), ..Blade::new("1".parse().unwrap()) })
    }

    /// What is wished when the operator has given us a foreign target.
    pub(crate) fn adopting(&self, from: ForeignExport) -> BladeWish {
        let (image, volume) = (self.image.clone(), self.volume);
        let grant = Grant { image, volume, by: GrantedBy::Operator, at: 1, from: Some(from) };
        self.wish(Blade { grant: Some(grant), ..Blade::new("1".parse().unwrap()) })
    }

    /// What is wished from then on.
    pub(crate) fn served(&self) -> BladeWish {
        let slot = "1".parse().unwrap();
        let disk = Disk { volume: self.volume, image: self.image.clone(), slot };
        self.wish(Blade { disk: Some(disk), ..Blade::new(slot) })
    }

    /// What is wished when the operator has released the disk.
    pub(crate) fn released(&self) -> BladeWish {
        self.wish(Blade { releases: vec![self.volume], ..Blade::new("1".parse().unwrap()) })
    }

    fn wish(&self, blade: Blade) -> BladeWish {
        policy::wish(&self.config, self.id, &blade).unwrap()
    }

    /// Returns what is not true yet of a wish.
    pub(crate) fn steps(&self, wish: &BladeWish) -> Vec<Step> {
        let plan = said(blade_plan(&self.host, wish, &said(self.host.volumes())));
        assert_eq!(plan.held, [], "nothing waits: no operating system runs");
        plan.steps
    }

    /// Carries the wish out as the agent does that has just started.
    pub(crate) fn carry_out(&self, wish: BladeWish, on_step: impl FnMut(&Step)) -> Report {
        let volumes = said(self.host.volumes());
        let work = Work::Blade { wish: Box::new(wish), volumes };
        carry_out(&self.host, Job { subject: Subject::Blade(self.id), cause: "test".into(), work }, on_step)
    }
}

/// Returns a step's word in JSON, such as `map-lun`: each is once in the plans of these tests.
pub(crate) fn word(step: &Step) -> String {
    serde_json::to_value(step).unwrap()["step"].as_str().unwrap().to_owned()
}
