//! Cables, frames, addresses and leases: who is where.

use super::{Core, EventKind};
use crate::{
    model::{BladeId, Mac, PortName, Slot},
    observed::{Session, SessionKind},
    roster::Sighting,
    status::{Millis, Moment},
    watch::{Network, WatchEvent},
};

impl Core {
    pub(super) fn on_watch(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Resync(network) => self.on_resync(network),
            WatchEvent::Link { name, link } => self.on_link(name, Some(link.carrier)),
            WatchEvent::LinkGone { name } => self.on_link(name, None),
            WatchEvent::Fdb { mac, port, present: true } => self.on_frame(mac, port),
            WatchEvent::Fdb { mac, port, present: false } => {
                if self.presence.fdb.get(&mac) == Some(&port) {
                    self.presence.fdb.remove(&mac);
                }
            }
            WatchEvent::Neigh { ip, mac } => {
                self.presence.neighbours.insert(ip, mac);
                self.on_address(mac, ip);
            }
            WatchEvent::NeighGone { ip } => drop(self.presence.neighbours.remove(&ip)),
            WatchEvent::PortAdded { name } | WatchEvent::PortRemoved { name } => {
                if self.config.slot_of(&name).is_some() {
                    self.make_chassis(&format!("port '{name}' came or went"));
                }
            }
            WatchEvent::Volume { .. } | WatchEvent::PhysicalVolume => self.ask_volumes_soon(),
            WatchEvent::Disk { name, present } => self.on_disk(&name, present),
            WatchEvent::DevicesLost => {
                self.ask_volumes_soon();
                self.on_disks_lost();
            }
            WatchEvent::ConfigChanged => self.reload(),
            WatchEvent::Leases(leases) => {
                for (mac, ip) in leases {
                    self.on_lease(mac, ip);
                }
            }
            WatchEvent::Touched { blade, paths } => self.on_touched(blade, &paths),
            WatchEvent::EditsLost => self.on_edits_lost(),
            WatchEvent::Trouble { source, text } => {
                self.journal.tell(EventKind::Problem, &format!("watch {source:?}: {text}; beginning anew"));
            }
            WatchEvent::LoginRefused { refusal, count } => self.on_refusal(refusal, count),
            WatchEvent::Without { source, text } => {
                self.journal
                    .tell(EventKind::Problem, &format!("watch {source:?}: {text}; going on without it"));
            }
        }
    }

    /// Replaces what is known of the network by a whole dump.
    fn on_resync(&mut self, network: Network) {
        let ports: Vec<PortName> = self.config.chassis.slots.values().cloned().collect();
        for port in ports {
            let carrier = network.links.get(&port).map(|link| link.carrier);
            self.on_link(port, carrier);
        }
        self.presence.fdb.clear();
        for (mac, port) in network.fdb {
            self.on_frame(mac, port);
        }
        self.presence.neighbours = network.neigh;
        for (ip, mac) in self.presence.neighbours.clone() {
            self.on_address(mac, ip);
        }
    }

    fn on_link(&mut self, port: PortName, carrier: Option<bool>) {
        let Some(slot) = self.config.slot_of(&port) else { return };
        let before = match carrier {
            Some(carrier) => self.presence.carrier.insert(port.clone(), carrier),
            None => self.presence.carrier.remove(&port),
        };
        if carrier.is_some() && before.is_none() {
            self.make_chassis(&format!("port '{port}' came"));
        }
        if carrier != Some(true) && before == Some(true) {
            self.presence.fdb.retain(|_, learnt| *learnt != port);
            for blade in self.roster.unplugged(slot) {
                self.tell(EventKind::Gone, blade, "gone: no carrier");
                if self.roster.blades.get(&blade).is_some_and(|blade| !blade.held.is_empty()) {
                    self.converge(blade, "gone");
                }
            }
        }
    }

    /// A frame of this address came in by this port: the earliest sign of a blade.
    fn on_frame(&mut self, mac: Mac, port: PortName) {
        let Some(slot) = self.config.slot_of(&port) else { return };
        self.presence.fdb.insert(mac, port);
        let (id, now) = (BladeId(mac), self.now());
        let sighting = self.roster.seen(id, slot, now);
        match sighting {
            Sighting::New => self.tell(EventKind::Seen, id, "seen for the first time"),
            Sighting::Back => self.tell(EventKind::Seen, id, "seen again"),
            Sighting::Moved { from } => self.on_move(id, from),
            Sighting::Same => {}
        }
    }

    fn on_move(&mut self, id: BladeId, from: Slot) {
        let Some(blade) = self.roster.blades.get(&id) else { return };
        if blade.is_misplaced() {
            let belongs = blade.disk.as_ref().map_or(from, |disk| disk.slot);
            let text = format!(
                "refused: its disk belongs to slot {belongs}; if the blade was moved by hand: sheath blade move {id} {}",
                blade.slot
            );
            self.tell(EventKind::Security, id, &text);
        } else {
            self.tell(EventKind::Moved, id, &format!("moved from slot {from}"));
        }
    }

    fn on_address(&mut self, mac: Mac, ip: std::net::Ipv4Addr) {
        if let Some(blade) = self.roster.blades.get_mut(&BladeId(mac)) {
            blade.ip = Some(ip);
        }
    }

    fn on_lease(&mut self, mac: Mac, ip: std::net::Ipv4Addr) {
        let now = self.now();
        // A lease of an earlier boot is not this boot's moment.
        if let Some(blade) = self.roster.blades.get_mut(&BladeId(mac)).filter(|blade| blade.present) {
            blade.ip = Some(ip);
            blade.note(Moment::Dhcp, now);
        }
    }

    pub(super) fn on_session(&mut self, id: BladeId, session: Option<Session>) {
        let now = self.now();
        self.logins.note(id, session.as_ref(), now);
        let Some(blade) = self.roster.blades.get_mut(&id) else { return };
        if blade.session == session {
            return;
        }
        let kind = |session: &Option<Session>| session.as_ref().map(|session| session.kind);
        let (before, after) = (kind(&blade.session), kind(&session));
        blade.session = session;
        match after {
            Some(SessionKind::Ipxe) => blade.note(Moment::IpxeLogin, now),
            Some(SessionKind::Os) => blade.note(Moment::OsLogin, now),
            None => {}
        }
        if before == after {
            return;
        }
        let text = match after {
            Some(SessionKind::Ipxe) => "iPXE logged in",
            Some(SessionKind::Os) => "the operating system logged in",
            None => "logged out",
        };
        self.tell(EventKind::Session, id, text);
        // Whether LIO pings the initiator depends on who it is.
        self.converge(id, text);
    }

    pub(super) fn on_tick(&mut self) {
        let now = self.now();
        self.answer_parked(|parked| parked.until <= now);
        self.answer_waiting();
        if now.saturating_sub(self.reported) > REPORT_AGE || self.is_report_due() {
            self.ask_volumes("periodic look");
        }
        if now / RETRY_EVERY != now.saturating_sub(1000) / RETRY_EVERY {
            self.retry_failed();
        }
        self.audit();
        self.look_for_donors();
    }

    fn retry_failed(&mut self) {
        let failed = self.roster.blades.iter().filter(|(_, blade)| blade.problem.is_some());
        let failed: Vec<BladeId> = failed.map(|(id, _)| *id).collect();
        failed.into_iter().for_each(|id| self.converge(id, "retry"));
    }
}

/// The pool's fill is looked at this often, in milliseconds: facts ask for every 10 to 30 s.
const REPORT_AGE: Millis = 30_000;
/// A failed plan is tried again this often although nothing happens, in milliseconds.
const RETRY_EVERY: Millis = 30_000;
