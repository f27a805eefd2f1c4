//! sheathd: start, privileges, wiring of the rooms, shutdown.
//!
//! Tasks and channels:
//!
//! | who | runs on | does |
//! |---|---|---|
//! | the line ([`core`]) | one plain thread | takes events one by one; the only writer of state |
//! | lanes (`apply`) | four plain threads | carry jobs out; each report is an event |
//! | overseer (`apply`) | one plain thread | reports jobs that are over their deadlines, replaces lanes that are stuck |
//! | watches, doors, clock | one tokio thread | turn the world into events, events' answers into bytes |
//!
//! Capabilities are per thread: they are dropped before any of these starts. Stopping leaves every kernel object alone;
//! a running blade notices nothing.
//!
//! What a hung device can hold up is a lane, or a thread that reads sessions: both are left behind. The line touches no
//! device, so it goes on and systemd's watchdog hears of it.

pub mod core;
mod counted;
mod doors;
mod imports;
pub mod journal;
mod line;
mod load;
mod privileges;
mod services;

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use clap::Parser;
use nix::unistd::{Group, chown};
use sd_notify::NotifyState;
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::{mpsc as tokio_mpsc, watch as flag},
};

use self::{core::Event, doors::Door, line::Line};
use crate::{
    boot::agent,
    config::Config,
    control::{api, server, unix},
    error::{Context, Error, Result},
    host::{live, privileges::keep},
    watch::{self, WatchEvent, configfs::Orders, sessions},
};

/// The agent of a blade appliance.
#[derive(Debug, Clone, Parser)]
#[command(version, name = "sheathd")]
pub struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/sheath/sheath.toml")]
    pub config: PathBuf,
    /// The master key that the blades' CHAP secrets are derived from.
    #[arg(long, value_name = "FILE", default_value = "/etc/sheath/master.key")]
    pub key: PathBuf,
    /// The folder for learnt facts.
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/sheath")]
    pub state: PathBuf,
    /// What can be made again, and what sheath-bootd hands out of it.
    #[arg(long, value_name = "FOLDER", default_value = "/var/cache/sheath")]
    pub cache: PathBuf,
    /// The folder for sockets and for what services read.
    #[arg(long, value_name = "FOLDER", default_value = "/run/sheath")]
    pub run: PathBuf,
    /// Run on a simulated machine: nothing of this one is touched.
    #[arg(long)]
    pub sim: bool,
}

/// How a start can end before it begins.
#[derive(Debug)]
pub enum Refusal {
    /// The configuration is faulty: every fault, a line each. Starting again cannot mend it.
    Configuration(Vec<String>),
    /// Anything else.
    Failure(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failure(error)
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// A faulty configuration, or a start that failed. Faults of the machine (no LIO, no pool) do not keep the agent from
/// starting: it says so, and goes on when they are mended.
pub fn run(args: &Args) -> std::result::Result<(), Refusal> {
    keep(&privileges::KEPT)?;
    let config = load::config(&args.config).map_err(Refusal::Configuration)?;
    let runtime =
        Builder::new_current_thread().enable_all().build().attempt(|| "start the event loop".to_owned())?;
    runtime.block_on(serve(args, config))?;
    // We wait no longer for a job that hangs in the kernel. The kernel does: a process is gone when its last thread is, so
    // systemd waits out TimeoutStopSec= for it, before and after SIGKILL, and lets it be.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

/// Everything that runs beside the line.
async fn serve(args: &Args, config: Config) -> Result<()> {
    let (events, queue) = mpsc::channel();
    let Line { core, host, log, left, running } = line::build(args, &config, &events)?;
    let (served, journal, orders) = (core.served(), core.subscription(), core.orders());
    let (ended, line_ended) = tokio::sync::oneshot::channel();
    thread::Builder::new()
        .name("line".into())
        .spawn(move || {
            line::run(core, left, &queue);
            let _ = ended.send(());
        })
        .attempt(|| "start the line".to_owned())?;
    let (stop, stopped) = flag::channel(false);
    open_doors(args, &Door::new(events.clone(), journal, Arc::clone(&host)), &stopped)?;
    if !args.sim {
        let tell = watch_the_world(args, &config, &events, orders);
        if let Some(log) = log {
            tokio::spawn(watch::kmsg::run(log, Arc::clone(&host), Arc::clone(&served), tell));
        }
        let told = events.clone();
        let tell = move |blade, session| told.send(Event::Session(blade, session)).is_ok();
        tokio::spawn(sessions::run(Arc::clone(&host), served, tell));
    }
    wait_for_the_end(&events, line_ended).await?;
    running.leave();
    notify(&[NotifyState::Stopping]);
    stop.send_replace(true);
    log::info!("stopping; targets, volumes and the bridge stay as they are");
    Ok(())
}

/// Opens the operator's and sheath-bootd's sockets.
fn open_doors(args: &Args, door: &Door, stopped: &flag::Receiver<bool>) -> Result<()> {
    let control = listener(args, api::SOCKET, "sheath")?;
    let boot = listener(args, agent::SOCKET, "sheath-boot")?;
    tokio::spawn(server::serve(control, door.clone(), until(stopped.clone())));
    tokio::spawn(agent::serve(boot, door.clone(), until(stopped.clone())));
    Ok(())
}

async fn until(mut stopped: flag::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Opens a socket of the usual name in our folder, for members of `group` where the system has it.
fn listener(args: &Args, usual: &str, group: &str) -> Result<tokio::net::UnixListener> {
    let name = std::path::Path::new(usual).file_name().unwrap_or_default();
    let path = args.run.join(name);
    let listener = unix::bind(&path, 0o660)?;
    if let Ok(Some(group)) = Group::from_name(group) {
        chown(&path, None, Some(group.gid)).attempt(|| format!("give '{}' to its group", path.display()))?;
    }
    Ok(listener)
}

/// Starts the watches: the kernel's tables, devices, the configuration, leases, hand edits. Returns where others tell what
/// they see.
fn watch_the_world(
    args: &Args,
    config: &Config,
    events: &mpsc::Sender<Event>,
    orders: Orders,
) -> watch::Events {
    let (tell, mut told) = tokio_mpsc::unbounded_channel();
    tokio::spawn(watch::netlink::run(config.chassis.bridge.clone(), tell.clone()));
    tokio::spawn(watch::udev::run(tell.clone()));
    let folder = args.config.parent().unwrap_or(&args.config).to_owned();
    tokio::spawn(watch::files::config(folder, tell.clone()));
    tokio::spawn(watch::files::leases(services::LEASES.into(), tell.clone()));
    tokio::spawn(watch::configfs::run(live::LIO.into(), orders, tell.clone()));
    let events = events.clone();
    tokio::spawn(async move {
        while let Some(event) = told.recv().await {
            if events.send(Event::Watch(event)).is_err() {
                return;
            }
        }
    });
    tell
}

/// Keeps the clock and the signals until it is time to end.
async fn wait_for_the_end(
    events: &mpsc::Sender<Event>,
    mut line_ended: tokio::sync::oneshot::Receiver<()>,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).attempt(|| "wait for SIGTERM".to_owned())?;
    let mut interrupt = signal(SignalKind::interrupt()).attempt(|| "wait for SIGINT".to_owned())?;
    let mut reload = signal(SignalKind::hangup()).attempt(|| "wait for SIGHUP".to_owned())?;
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    loop {
        let event = tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = &mut line_ended => {
                return Err(Error::new(crate::error::Kind::Failed, "run the agent: its line ended unasked"));
            }
            _ = reload.recv() => Event::Watch(WatchEvent::ConfigChanged),
            _ = clock.tick() => Event::Tick,
        };
        let _ = events.send(event);
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        log::warn!("systemd is not told how we are: {e}");
    }
}
