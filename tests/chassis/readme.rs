//! The README's commands, run as they are written there: each is looked up first.

use std::time::{Duration, Instant};

use sheath_lab::{
    Output,
    phase::{done, say},
    secs, until,
};

use super::{Story, has_time};

/// A guest in the guest takes a minute or so, emulated twice. One that hangs is given up after three, and started once more.
const WORK_BOUND: Duration = secs(900);

/// A whole Debian is sealed and started in a guest of a guest: ten minutes where other guests share the cores, and twice as long on a
/// slow machine.
const PROOF_BOUND: Duration = secs(1200);

const README: &str = include_str!("../../README.md");

impl Story {
    /// Runs a command as the README has it: what the README tells in commands is told as it was run.
    pub(super) fn as_written(&mut self, command: &str) -> Output {
        is_in_the_readme(command);
        let begin = Instant::now();
        let output = self.stage.appliance.run_within(command, WORK_BOUND).unwrap();
        // One that is refused is for whoever asked: he may ask until it is not.
        if output.code == 0 {
            done(&format!("   {command}"), begin.elapsed());
        }
        output
    }

    /// The same, while others go on: `name` is the word by which [`Story::ended`] knows it.
    pub(super) fn as_written_beside(&mut self, name: &str, command: &str) {
        is_in_the_readme(command);
        let keep = format!("{command} > /run/{name}.told 2>&1; echo $? > /run/{name}.status");
        self.run(&format!("rm -f /run/{name}.*; systemd-run --quiet --collect --unit={name} sh -c '{keep}'"));
    }

    /// Waits in the guest for some seconds, and returns whether such a command has ended by then.
    fn has_ended(&mut self, name: &str) -> bool {
        let wait = format!("timeout 20 sh -c 'until [ -s /run/{name}.status ]; do sleep 1; done'");
        let output = self.stage.appliance.run(&wait);
        // Nobody waits for what a lost appliance was at.
        if let Some(lost) = self.stage.appliance.lost() {
            panic!("{lost}");
        }
        output.is_ok_and(|output| output.code == 0)
    }

    /// Waits until such a command has ended, and returns whether it has ended well, and what it has told.
    pub(super) fn ended(&mut self, name: &str, bound: Duration) -> (bool, String) {
        let ended = until(&format!("'{name}' to end"), bound, || self.has_ended(name).then_some(()));
        let told = self.run(&format!("cat /run/{name}.told"));
        ended.unwrap_or_else(|error| panic!("{error}: {told}"));
        (self.run(&format!("cat /run/{name}.status")).trim() == "0", told)
    }

    /// The same of a command that proves an image. Where the appliance's processor is emulated, so is the virtualisation that
    /// the proof's guest runs on, and that guest hangs or is lost now and then: it is given up and tried again, as an operator
    /// would. `None` where it was, and there is no time left.
    pub(super) fn proved(&mut self, name: &str, command: &str, image: &str) -> Option<String> {
        for last in [false, false, true] {
            let ends = until("a proof to end", PROOF_BOUND, || self.has_ended(name).then_some(()));
            if ends.is_err() {
                self.run(&format!("sheath image cancel {image}"));
            }
            let (well, told) = self.ended(name, secs(120));
            say(&format!("   {}", told.trim_end().replace('\n', "\n   ")));
            if well {
                return Some(told);
            }
            let is_lost = ["no login prompt", "cancelled"].iter().any(|words| told.contains(words));
            assert!(!last && is_lost, "{told}");
            if !has_time() {
                say(
                    "-- LEFT OUT for lack of time: another try of the proof, which the emulated machine has lost",
                );
                return None;
            }
            self.as_written_beside(name, command);
        }
        unreachable!("the last try ends it")
    }
}

fn is_in_the_readme(command: &str) {
    let blocks = README.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut lines = blocks.flat_map(str::lines).filter_map(|line| line.split('#').next());
    assert!(lines.any(|line| line.trim() == command), "'{command}' is not in the README");
}
