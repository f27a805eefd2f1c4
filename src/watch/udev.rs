//! Devices, as udev tells of them: slots' interfaces and disks that come and go, and volumes of ours.
//!
//! The source is udevd, not the kernel: by then names are final, and device-mapper's rules have said whether a volume is
//! ready. libudev's objects are turned into [`DeviceEvent`] at the door, so that the meaning is tested without udev.
//! What is on a device, and whose it is, is for others.

use std::{os::fd::AsFd, time::Duration};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};
use tokio::io::unix::AsyncFd;
use udev::{Event, MonitorBuilder, MonitorSocket};

use super::{Events, Source, WatchEvent, reactor, trouble};
use crate::error::{Context, Error, Result};

/// Before a broken monitor is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// The monitor's buffer: hundreds of volumes may change at once, each event being a few kilobytes.
const BUFFER: usize = 8 << 20;

/// Block devices that are made of others, or of memory: nobody has plugged them in.
const MADE: [&str; 7] = ["dm-", "loop", "zram", "ram", "md", "nbd", "drbd"];

/// Tells what happens to devices, for as long as somebody listens.
///
/// After lost events, and after each new start but the first, [`WatchEvent::DevicesLost`] asks to look at all of them.
pub async fn run(events: Events) {
    loop {
        let ended = tokio::select! {
            () = events.closed() => return,
            ended = watch(&events) => ended,
        };
        if let Err(error) = ended {
            trouble(&events, Source::Udev, &error);
        }
        tokio::select! {
            () = events.closed() => return,
            () = tokio::time::sleep(REOPEN) => {}
        }
        // Whatever happened since the monitor broke is not known.
        let _ = events.send(WatchEvent::DevicesLost);
    }
}

async fn watch(events: &Events) -> Result<()> {
    let mut monitor = open().attempt(|| "listen to udev".to_owned())?;
    loop {
        let mut ready = monitor.readable_mut().await.attempt(|| "wait for udev".to_owned())?;
        let drained = drain(ready.get_inner(), events)?;
        ready.clear_ready();
        if drained == Drained::Lost {
            let _ = events.send(WatchEvent::DevicesLost);
        }
    }
}

fn open() -> std::io::Result<AsyncFd<MonitorSocket>> {
    let monitor = MonitorBuilder::new()?.match_subsystem("net")?.match_subsystem("block")?.listen()?;
    // libudev asks for more by itself where it may; this is for where it may not. Smaller is not wrong.
    let _ = setsockopt(&monitor.as_fd(), sockopt::RcvBuf, &BUFFER);
    reactor::watch(monitor)
}

/// How reading ended.
#[derive(Debug, PartialEq, Eq)]
enum Drained {
    /// All was read.
    Whole,
    /// All that was there was read, and some events are missing.
    Lost,
}

/// Reads until nothing is left: the reactor tells only of what comes after that.
///
/// libudev answers "no device" for an empty socket, for an overflow and for a message that it does not like, and only
/// errno tells them apart.
fn drain(monitor: &MonitorSocket, events: &Events) -> Result<Drained> {
    let mut drained = Drained::Whole;
    let mut devices = monitor.iter();
    loop {
        Errno::clear();
        if let Some(event) = devices.next() {
            for told in DeviceEvent::read(&event).meaning() {
                let _ = events.send(told);
            }
            continue;
        }
        match Errno::last() {
            Errno::ENOBUFS => drained = Drained::Lost,
            Errno::EINTR => {}
            Errno::EAGAIN | Errno::UnknownErrno if readable(monitor) => {}
            Errno::EAGAIN | Errno::UnknownErrno => return Ok(drained),
            other => return Err(Error::io("read from udev", other.into())),
        }
    }
}

fn readable(monitor: &MonitorSocket) -> bool {
    let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// What udev says of a device, as far as it concerns us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct DeviceEvent {
    action: String,
    subsystem: String,
    /// The kernel's name of the device: an interface's name.
    name: String,
    /// Where the device was in sysfs before it was renamed.
    path_before: Option<String>,
    /// The logical volume, for a device-mapper device of LVM's.
    lv: Option<String>,
    /// LVM's word for a device that is only a part of the volume.
    layer: Option<String>,
    /// Whether device-mapper's rules ask others to leave it alone: suspended, or not set up yet.
    unready: bool,
    /// What udev found on it, such as `LVM2_member`.
    content: Option<String>,
    /// Whether it is a whole disk, and no part of one.
    whole: bool,
    /// Whether something was put into a drive, or taken out.
    medium: bool,
}

impl DeviceEvent {
    fn read(event: &Event) -> Self {
        let property = |name: &str| {
            let value = event.property_value(name)?.to_str()?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        Self {
            action: property("ACTION").unwrap_or_default(),
            subsystem: property("SUBSYSTEM").unwrap_or_default(),
            name: event.sysname().to_string_lossy().into_owned(),
            path_before: property("DEVPATH_OLD"),
            lv: property("DM_LV_NAME"),
            layer: property("DM_LV_LAYER"),
            unready: property("DM_UDEV_DISABLE_OTHER_RULES_FLAG").as_deref() == Some("1"),
            content: property("ID_FS_TYPE"),
            whole: property("DEVTYPE").as_deref() == Some("disk"),
            medium: property("DISK_MEDIA_CHANGE").as_deref() == Some("1"),
        }
    }

    /// Returns what it means to us, mostly nothing.
    fn meaning(&self) -> Vec<WatchEvent> {
        match self.subsystem.as_str() {
            "net" => self.interface(),
            "block" => {
                let of_lvm = self.volume().or_else(|| self.physical_volume());
                of_lvm.into_iter().chain(self.disk()).collect()
            }
            _ => vec![],
        }
    }

    fn interface(&self) -> Vec<WatchEvent> {
        let came = self.name.parse().ok().map(|name| WatchEvent::PortAdded { name });
        match self.action.as_str() {
            "add" => came.into_iter().collect(),
            "move" => self.name_before().into_iter().chain(came).collect(),
            "remove" => {
                self.name.parse().ok().map(|name| WatchEvent::PortRemoved { name }).into_iter().collect()
            }
            _ => vec![],
        }
    }

    fn name_before(&self) -> Option<WatchEvent> {
        let (_, name) = self.path_before.as_deref()?.rsplit_once('/')?;
        name.parse().ok().map(|name| WatchEvent::PortRemoved { name })
    }

    /// A disk of LVM's came, or has changed: the volume group may be whole now.
    fn physical_volume(&self) -> Option<WatchEvent> {
        let is_one = self.content.as_deref() == Some("LVM2_member") && self.action != "remove";
        is_one.then_some(WatchEvent::PhysicalVolume)
    }

    /// A disk came or went. A disk that was there may be told as new, by a coldplug.
    fn disk(&self) -> Option<WatchEvent> {
        let made = MADE.iter().any(|kind| {
            self.name
                .strip_prefix(kind)
                .is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
        });
        let happened = matches!(self.action.as_str(), "add" | "remove") || self.medium;
        let present = self.action != "remove";
        (self.whole && !made && happened).then(|| WatchEvent::Disk { name: self.name.clone(), present })
    }

    fn volume(&self) -> Option<WatchEvent> {
        let lv = self.lv.as_deref().filter(|lv| lv.starts_with("sheath-"))?.parse().ok()?;
        let present = self.action != "remove";
        let whole = self.layer.is_none() && !(present && self.unready);
        whole.then_some(WatchEvent::Volume { lv, present })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(action: &str, name: &str) -> DeviceEvent {
        let text = str::to_owned;
        DeviceEvent { action: text(action), subsystem: text("net"), name: text(name), ..Default::default() }
    }

    fn volume(action: &str, lv: &str) -> DeviceEvent {
        let text = str::to_owned;
        let lv = Some(text(lv));
        DeviceEvent {
            action: text(action),
            subsystem: text("block"),
            name: text("dm-3"),
            lv,
            ..Default::default()
        }
    }

    #[test]
    fn interfaces_come_and_go() {
        let name = "enp3s0".parse().unwrap();
        assert_eq!(net("add", "enp3s0").meaning(), [WatchEvent::PortAdded { name }]);
        let name = "enp3s0".parse().unwrap();
        assert_eq!(net("remove", "enp3s0").meaning(), [WatchEvent::PortRemoved { name }]);
        assert_eq!(net("change", "enp3s0").meaning(), []);
    }

    #[test]
    fn a_renamed_interface_goes_and_comes() {
        let mut event = net("move", "enp3s0");
        event.path_before = Some("/devices/pci0000:00/0000:00:03.0/net/eth0".to_owned());
        let (old, new) = ("eth0".parse().unwrap(), "enp3s0".parse().unwrap());
        assert_eq!(
            event.meaning(),
            [WatchEvent::PortRemoved { name: old }, WatchEvent::PortAdded { name: new }]
        );
    }

    #[test]
    fn a_volume_is_told_when_it_is_ready_and_when_it_goes() {
        let lv = "sheath-vol-01".parse().unwrap();
        assert_eq!(volume("change", "sheath-vol-01").meaning(), [WatchEvent::Volume { lv, present: true }]);
        let unready = DeviceEvent { unready: true, ..volume("change", "sheath-vol-01") };
        assert_eq!(unready.meaning(), []);
        let lv = "sheath-vol-01".parse().unwrap();
        let gone = DeviceEvent { unready: true, ..volume("remove", "sheath-vol-01") };
        assert_eq!(gone.meaning(), [WatchEvent::Volume { lv, present: false }]);
    }

    #[test]
    fn a_disk_of_lvms_that_comes_late_is_told() {
        let disk = |action: &str, content: &str| DeviceEvent {
            action: action.to_owned(),
            subsystem: "block".to_owned(),
            name: "sdb".to_owned(),
            content: Some(content.to_owned()),
            ..Default::default()
        };
        assert_eq!(disk("add", "LVM2_member").meaning(), [WatchEvent::PhysicalVolume]);
        assert_eq!(disk("remove", "LVM2_member").meaning(), []);
        assert_eq!(disk("add", "ext4").meaning(), []);
    }

    #[test]
    fn a_disk_is_told_when_it_comes_and_goes_and_what_is_made_of_others_never() {
        let disk = |action: &str, name: &str| DeviceEvent {
            action: action.to_owned(),
            subsystem: "block".to_owned(),
            name: name.to_owned(),
            whole: true,
            ..Default::default()
        };
        let told = |name: &str, present| vec![WatchEvent::Disk { name: name.to_owned(), present }];
        assert_eq!(disk("add", "sdc").meaning(), told("sdc", true));
        assert_eq!(disk("add", "nvme1n1").meaning(), told("nvme1n1", true));
        assert_eq!(disk("remove", "sdc").meaning(), told("sdc", false));
        // Closing a disk that was open for writing is a change, and happens all the time.
        assert_eq!(disk("change", "sdc").meaning(), []);
        let medium = DeviceEvent { medium: true, ..disk("change", "sdc") };
        assert_eq!(medium.meaning(), told("sdc", true));
        assert_eq!(DeviceEvent { whole: false, ..disk("add", "sdc1") }.meaning(), []);
        for name in ["dm-3", "loop0", "zram0", "ram1", "md127", "nbd0"] {
            assert_eq!(disk("add", name).meaning(), [], "{name}");
        }
        let pool = DeviceEvent { content: Some("LVM2_member".to_owned()), ..disk("add", "sdb") };
        assert_eq!(pool.meaning().first(), Some(&WatchEvent::PhysicalVolume));
    }

    #[test]
    fn volumes_of_others_and_parts_of_ours_are_not_told() {
        assert_eq!(volume("change", "root").meaning(), []);
        let part = DeviceEvent { layer: Some("real".to_owned()), ..volume("change", "sheath-vol-01") };
        assert_eq!(part.meaning(), []);
    }
}
