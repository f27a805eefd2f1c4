//! A blade asks: who is it, what is it told.

use tokio::sync::oneshot;

use super::{Core, EventKind, Parked};
use crate::{
    apply::Subject,
    boot::wire::{Answer, Ask, BootDisk, BootRequest, Choice, Menu},
    config::MenuDefault,
    model::{BladeId, ImageId, ImageRef, PortName, Slot, VolumeId},
    plan,
    policy::{self, boot::Verdict},
    roster::{Blade, Grant, GrantedBy, Idle, Prompt, Stranger},
    status::{Millis, Moment},
};

/// A blade that waits asks again after so many seconds.
const ASK_AGAIN: u32 = 5;
/// A request whose answer depends on a job is held back this long, in milliseconds: then its console gets a line.
const HOLD: Millis = 3_000;

impl Core {
    pub(super) fn on_boot(&mut self, request: BootRequest, reply: oneshot::Sender<Answer>) {
        match self.who(&request) {
            Ok(id) => {
                self.note_request(id, &request);
                match self.answer(id, request.ask) {
                    Some(answer) => drop(reply.send(answer)),
                    None => self.parked.push(Parked { until: self.now() + HOLD, blade: id, reply }),
                }
            }
            Err(answer) => drop(reply.send(*answer)),
        }
    }

    /// Finds the blade at the other end of the cable. Whatever does not fit is refused and changes nothing.
    fn who(&mut self, request: &BootRequest) -> Result<BladeId, Box<Answer>> {
        match self.presence.identify(request.peer, request.mac) {
            Ok((id, port)) => {
                let port = port.clone();
                self.place(id, &port)
            }
            // The first request may overtake the kernel's own news of the blade: it asks again.
            Err(Stranger::UnknownAddress | Stranger::UnknownPort(_)) => {
                Err(Box::new(Answer::Wait { message: "this blade is not known yet".into(), seconds: 1 }))
            }
            Err(Stranger::WrongClaim { claimed, real, port }) => {
                let slot = self.config.slot_of(&port);
                let text = format!("refused: it says that it is {claimed}");
                match slot {
                    Some(slot) => {
                        self.journal.tell_blade(EventKind::Security, (slot, BladeId(real)), None, &text);
                    }
                    None => self.journal.tell(EventKind::Security, &format!("{real} at '{port}': {text}")),
                }
                let message = "this request does not match the port it came by".into();
                Err(Box::new(Answer::Refused { message }))
            }
        }
    }

    fn place(&mut self, id: BladeId, port: &PortName) -> Result<BladeId, Box<Answer>> {
        let known = self.roster.blades.get(&id).is_some_and(|blade| blade.present);
        match (self.config.slot_of(port), known) {
            (Some(_), true) => Ok(id),
            _ => Err(Box::new(Answer::Wait {
                message: "this port is not a slot of the chassis".into(),
                seconds: ASK_AGAIN,
            })),
        }
    }

    fn note_request(&mut self, id: BladeId, request: &BootRequest) {
        let now = self.now();
        let Some(blade) = self.roster.blades.get_mut(&id) else { return };
        // Its operating system has run since: this is another boot.
        if request.ask == Ask::Start && blade.times.contains_key(&Moment::OsLogin) {
            blade.begin_boot(now);
            if !blade.held.is_empty() {
                self.converge(id, "restarts");
            }
        }
        let Some(blade) = self.roster.blades.get_mut(&id) else { return };
        blade.ip = Some(request.peer);
        blade.note(Moment::Script, now);
        if request.ask == Ask::Start {
            blade.hardware = request.hardware.clone();
        }
    }

    /// Returns the answer, or `None` where it depends on a job that runs.
    fn answer(&mut self, id: BladeId, ask: Ask) -> Option<Answer> {
        match ask {
            Ask::Start => self.on_start(id),
            Ask::Menu => Some(self.menu(id)),
            Ask::Choose { token, choice } => self.on_choice(id, &token, choice),
            Ask::Report(word) => Some(self.on_donor(id, word)),
            Ask::BootFailed { errno } => {
                self.tell(EventKind::Failed, id, &format!("boot from its disk failed: iPXE error {errno}"));
                self.converge(id, "boot failed");
                let message = format!("boot from the disk failed (iPXE error {errno}), trying again");
                Some(Answer::Failed { message, seconds: ASK_AGAIN })
            }
        }
    }

    fn on_start(&mut self, id: BladeId) -> Option<Answer> {
        if let Some(answer) = self.capture_answer(id) {
            return Some(answer);
        }
        let blade = self.roster.blades.get(&id)?;
        let answer = match policy::boot::verdict(&self.config, id, blade) {
            Verdict::Misplaced => self.refuse(id),
            Verdict::Serve => self.serve(id),
            Verdict::Restart => self.restart(id),
            Verdict::Busy => {
                if let Some(message) = self.blocked() {
                    return Some(Answer::Failed { message, seconds: ASK_AGAIN });
                }
                self.converge(id, "asked for by its blade");
                return None;
            }
            Verdict::Failed(message) => {
                self.converge(id, "asked for by its blade");
                Answer::Failed { message, seconds: ASK_AGAIN }
            }
            Verdict::Prompt => self.menu(id),
            Verdict::Install(image) => return self.install(id, &image, GrantedBy::Policy),
            Verdict::Wait => wait(),
            Verdict::Firmware => leave(),
        };
        Some(answer)
    }

    /// Returns what keeps every blade's plan from being made: LVM has not told of the volumes, and why.
    fn blocked(&self) -> Option<String> {
        let unknown = self.volumes.is_none();
        self.problems.get("volumes").filter(|_| unknown).map(|problem| problem.text.clone())
    }

    fn refuse(&mut self, id: BladeId) -> Answer {
        let belongs = self.roster.blades.get(&id).and_then(|blade| blade.disk.as_ref()).map(|disk| disk.slot);
        let belongs = belongs.map_or_else(String::new, |slot| format!(" to slot {slot}"));
        self.tell(EventKind::Security, id, &format!("refused a boot script: its disk belongs{belongs}"));
        Answer::Refused { message: "this blade is not in the slot that its disk belongs to".into() }
    }

    fn serve(&mut self, id: BladeId) -> Answer {
        let (Some(wish), Some(blade)) = (self.wish(id), self.roster.blades.get(&id)) else { return wait() };
        let (Some(disk), Some(export)) = (&blade.disk, wish.disk.map(|disk| disk.export)) else {
            return wait();
        };
        let answer = Answer::Boot(BootDisk {
            slot: blade.slot,
            image: disk.image.clone(),
            initiator: export.initiator,
            target: export.target,
            portals: export.portals,
            credentials: self.outside.host.credentials(disk.volume, export.chap),
            firmware: blade.hardware.firmware,
            key_seconds: self.config.policy_of(id.0, blade.slot).key_timeout,
        });
        self.tell(EventKind::Boot, id, "told to boot its disk");
        answer
    }

    fn restart(&mut self, id: BladeId) -> Answer {
        if let Some(blade) = self.roster.blades.get_mut(&id) {
            blade.restart_due = false;
        }
        self.tell(EventKind::Boot, id, "told to restart");
        Answer::Restart { message: "installed; restarting from its own disk".into() }
    }

    fn menu(&mut self, id: BladeId) -> Answer {
        let token = format!("{:032x}", (self.outside.fresh)());
        let images = self.offered();
        let offered: Vec<ImageId> = images.iter().map(|(image, _)| image.clone()).collect();
        let Some(blade) = self.roster.blades.get_mut(&id) else { return wait() };
        if blade.is_misplaced() {
            return self.refuse(id);
        }
        (blade.prompt, blade.idle) = (Some(Prompt { token: token.clone() }), None);
        let has_disk = blade.disk.is_some();
        let default = match policy::boot::menu_default(&self.config, id, blade, &offered) {
            _ if has_disk => Choice::Disk,
            MenuDefault::Wait => Choice::Wait,
            MenuDefault::Firmware => Choice::Firmware,
            MenuDefault::Install(image) => Choice::Install(image),
        };
        let slot = blade.slot;
        let policy = self.config.policy_of(id.0, slot);
        let (timeout, capture) = (policy.menu_timeout, policy.menu_capture.clone().filter(|_| !has_disk));
        self.tell(EventKind::Boot, id, "prompted");
        Answer::Menu(Menu { slot, token, images, has_disk, capture, default, timeout })
    }

    fn on_choice(&mut self, id: BladeId, token: &str, choice: Choice) -> Option<Answer> {
        let blade = self.roster.blades.get_mut(&id)?;
        // One-time: a second use, or a token of another blade's menu, finds nothing.
        if blade.prompt.take_if(|prompt| prompt.token == token).is_none() {
            return Some(Answer::Wait { message: "that menu is no longer valid".into(), seconds: 1 });
        }
        match choice {
            Choice::Wait => blade.idle = Some(Idle::Waiting),
            Choice::Firmware => blade.idle = Some(Idle::Ignored),
            Choice::Capture => return Some(self.capture_by_console(id)),
            Choice::Disk => return self.on_start(id),
            Choice::Install(image) => return self.install(id, &image, GrantedBy::Console),
        }
        Some(if choice == Choice::Wait { wait() } else { leave() })
    }

    /// Grants an image at the console's or a policy's wish, and starts the installation.
    fn install(&mut self, id: BladeId, image: &ImageRef, by: GrantedBy) -> Option<Answer> {
        match self.may_install(id).and_then(|()| self.choosable(image)) {
            Ok(image) => self.grant(id, &image, by),
            Err(message) => return Some(Answer::Failed { message, seconds: ASK_AGAIN }),
        }
        None
    }

    /// Returns the image that a blade may choose by this name.
    fn choosable(&self, image: &ImageRef) -> Result<ImageId, String> {
        let volumes = self.volumes.as_ref();
        let found = volumes.and_then(|volumes| {
            let id = policy::images::resolve(volumes, image).ok()?;
            policy::images::may_be_chosen(volumes, &id).then_some(id)
        });
        found.ok_or_else(|| format!("image '{image}' is not published on this appliance"))
    }

    fn may_install(&self, id: BladeId) -> Result<(), String> {
        let blade = self.roster.blades.get(&id).ok_or("this blade is not known")?;
        match () {
            () if blade.is_misplaced() => {
                Err("this blade is not in the slot that its disk belongs to".into())
            }
            () if blade.disk.is_some() => {
                Err("this blade has a disk: only the administrator can replace it (sheath blade install)"
                    .into())
            }
            () if blade.grant.is_some()
                && (blade.problem.is_none() || self.busy.contains_key(&Subject::Blade(id))) =>
            {
                Err("an installation is under way".into())
            }
            () => Ok(()),
        }
    }

    /// Gives the one-shot right to install: of a spare where one is ready, of a fresh clone otherwise.
    pub(super) fn grant(&mut self, id: BladeId, image: &ImageId, by: GrantedBy) {
        let mut taken = self.wanted();
        // A spare that is being taken away is nobody's any more.
        taken.extend(self.busy.keys().filter_map(|subject| match subject {
            Subject::Leftover(volume) => Some(*volume),
            _ => None,
        }));
        let Some(slot) = self.roster.blades.get(&id).map(|blade| blade.slot) else { return };
        let like = (image, self.config.disk_of(id.0, slot, &image.name));
        let spare = self.volumes.as_ref().and_then(|all| plan::ready_spares(like, all, &taken).next());
        let volume = spare.unwrap_or_else(|| VolumeId((self.outside.fresh)()));
        let how = if spare.is_some() { "a spare" } else { "a fresh clone" };
        let text = format!("granted '{image}' by {}, as {how}", by_word(by));
        self.give(id, Grant { image: image.clone(), volume, by, at: self.now(), from: None }, &text);
    }

    /// Gives the blade this grant, says so, and acts upon it.
    pub(super) fn give(&mut self, id: BladeId, grant: Grant, text: &str) {
        let now = grant.at;
        let is_new = grant.from.is_none();
        let Some(blade) = self.roster.blades.get_mut(&id) else { return };
        blade.grant = Some(grant);
        (blade.prompt, blade.idle, blade.problem, blade.ready) = (None, None, None, false);
        // What boots from an old disk of its own starts like every day.
        blade.restart_due = is_new && policy::boot::restarts(&self.config, id, blade);
        blade.times.remove(&Moment::TargetReady);
        blade.times.insert(Moment::Choice, now);
        self.tell(EventKind::Granted, id, text);
        self.converge(id, "granted");
    }

    /// Answers the held-back requests that `which` names, by what is true now.
    pub(super) fn answer_parked(&mut self, which: impl Fn(&Parked) -> bool) {
        let (due, keep) = std::mem::take(&mut self.parked).into_iter().partition(which);
        self.parked = keep;
        for Parked { blade, reply, .. } in Vec::<Parked>::from_iter(due) {
            let answer = self.late_answer(blade);
            let _ = reply.send(answer);
        }
    }

    fn late_answer(&mut self, id: BladeId) -> Answer {
        let verdict = self.roster.blades.get(&id).map(|blade| policy::boot::verdict(&self.config, id, blade));
        match verdict {
            Some(Verdict::Serve) => self.serve(id),
            Some(Verdict::Restart) => self.restart(id),
            Some(Verdict::Failed(message)) => Answer::Failed { message, seconds: ASK_AGAIN },
            Some(Verdict::Misplaced) => self.refuse(id),
            _ => Answer::Progress { message: self.progress(id) },
        }
    }

    fn progress(&self, id: BladeId) -> String {
        let word = (self.outside.word)(&Subject::Blade(id));
        format!("... {}", word.unwrap_or("preparing disk"))
    }

    /// Returns the blade in this slot.
    pub(super) fn blade_in(&self, slot: Slot) -> Option<(BladeId, &Blade)> {
        self.roster.in_slot(slot)
    }
}

fn by_word(by: GrantedBy) -> &'static str {
    match by {
        GrantedBy::Console => "its console",
        GrantedBy::Policy => "its policy",
        GrantedBy::Operator => "the operator",
    }
}

fn wait() -> Answer {
    Answer::Wait { message: "waiting for the administrator".into(), seconds: ASK_AGAIN }
}

fn leave() -> Answer {
    Answer::Firmware { message: "going on with the firmware's boot order".into() }
}
