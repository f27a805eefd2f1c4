//! 64 initiators log in at once while one connection that says nothing sits on one portal. LIO takes the first words of a
//! login on a portal one connection at a time and waits 15 s for them: whoever comes by that portal waits with it.

use std::{
    net::TcpStream,
    process::Command,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use sheath::model::Chap;

use crate::{
    clear,
    fixture::{Fixture, keys},
    line::Line,
    row::{say, tell, tell_none},
};

/// Slower than this is delayed: an emulated login alone takes a second or two, the silent connection costs fifteen.
const DELAYED: Duration = Duration::from_secs(5);

/// `lio.storm.64`: spread over the ports as the product spreads them, and all on one port.
pub(crate) fn logins(initiators: usize) {
    if Command::new("iscsi-inq").arg("--help").output().is_err() {
        let why = "not measured: libiscsi-bin is not in the guest";
        return tell_none(&format!("lio.storm.{initiators}"), "share", why);
    }
    let spread = Fixture::new(initiators);
    let ports = spread.config.target.ports;
    let mut one = Fixture::new(initiators);
    one.config.target.ports = 1;
    let quiet = storm(&spread, false);
    let ours = storm(&spread, true);
    let alone = storm(&one, true);
    let note = format!("{ports} ports; {quiet:.2} of them without the silent connection");
    tell(&format!("lio.storm.{initiators}"), ours, "share", Some(alone), &note);
}

/// Returns the share of logins that were delayed.
fn storm(fixture: &Fixture, silent: bool) -> f64 {
    Line::new(fixture).start(fixture.blades);
    let disks = fixture.disks();
    let silent =
        silent.then(|| TcpStream::connect(disks[0].export.portals[0].0).expect("the portal answers"));
    // It is taken before the others come.
    thread::sleep(Duration::from_secs(1));
    let together = Barrier::new(disks.len());
    let took: Vec<Duration> = thread::scope(|scope| {
        let all: Vec<_> = disks.iter().map(|disk| scope.spawn(|| login(disk, &together))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    drop(silent);
    clear::all();
    let mut sorted = took.clone();
    sorted.sort();
    let delayed = took.iter().filter(|took| **took > DELAYED).count();
    say(&format!(
        "logins: {delayed} of {} delayed; median {:.1?}, slowest {:.1?}",
        took.len(),
        sorted[took.len() / 2],
        sorted[took.len() - 1]
    ));
    #[allow(clippy::cast_precision_loss, reason = "some dozens")]
    {
        delayed as f64 / took.len() as f64
    }
}

/// Logs in, asks the disk who it is, logs out; returns how long that took.
fn login(disk: &sheath::policy::DiskWish, together: &Barrier) -> Duration {
    let export = &disk.export;
    let credentials = keys().credentials(export.backstore.volume, Chap::OneWay);
    let (user, password) = (&credentials.user, credentials.password.expose());
    let url = format!("iscsi://{user}%{password}@{}/{}/0", export.portals[0], export.target);
    together.wait();
    let begin = Instant::now();
    let output = Command::new("iscsi-inq").args(["-i", export.initiator.as_str(), &url]).output().unwrap();
    let took = begin.elapsed();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    took
}
