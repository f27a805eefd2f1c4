//! sheath-bootd: the process that faces the blades, without any privilege.
//!
//! Wires the HTTP server of `boot` to addresses and to sheathd's socket, gives all capabilities away before anything
//! else happens, and tells systemd how it is. A blade that breaks into it has an HTTP server's nothing: it can only ask
//! sheathd what any blade may ask.

mod listen;

use std::{net::SocketAddrV4, path::PathBuf, time::Duration};

use clap::Parser;
use sd_notify::NotifyState;
use tokio::{
    net::TcpListener,
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    boot::{
        agent, download,
        server::{self, Limits},
    },
    error::{Context, Error, Kind, Result},
    host::privileges,
};

/// Answers the blades' iPXE over HTTP, asking sheathd what each may do.
#[derive(Debug, Parser)]
#[command(version, name = "sheath-bootd")]
pub struct Args {
    /// Where blades reach it; may be given more than once. The address need not exist yet.
    #[arg(long, value_name = "IP:PORT", required = true, env = "SHEATH_BOOTD_LISTEN", value_delimiter = ',')]
    pub listen: Vec<SocketAddrV4>,
    /// sheathd's socket for boot questions.
    #[arg(long, value_name = "PATH", default_value = agent::SOCKET)]
    pub agent: PathBuf,
    /// Where sheathd puts the small Linux that a donor's disk is captured with.
    #[arg(long, value_name = "FOLDER", default_value = download::FOLDER)]
    pub donor: PathBuf,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// An address that cannot be listened on, or capabilities that cannot be given away.
pub fn run(args: &Args) -> Result<()> {
    // Capabilities are per thread: they go while there is only this one.
    privileges::keep(&[])?;
    listen::raise_file_limit();
    let runtime =
        Builder::new_current_thread().enable_all().build().attempt(|| "start the event loop".to_owned())?;
    runtime.block_on(serve(args))
}

async fn serve(args: &Args) -> Result<()> {
    let listeners = args.listen.iter().map(|at| listen::bind(*at)).collect::<Result<Vec<TcpListener>>>()?;
    let mut terminate = signal(SignalKind::terminate()).attempt(|| "wait for SIGTERM".to_owned())?;
    let mut interrupt = signal(SignalKind::interrupt()).attempt(|| "wait for SIGINT".to_owned())?;
    let (stop, stopped) = watch::channel(false);
    let mut servers = JoinSet::new();
    for listener in listeners {
        let at = listener.local_addr().attempt(|| "look where we listen".to_owned())?;
        let mut stopped = stopped.clone();
        let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
        servers.spawn(server::serve(
            listener,
            (args.agent.clone(), args.donor.clone()),
            Limits::default(),
            stop,
        ));
        log::info!("blades are answered at http://{at}");
    }
    tell(&[NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = keep_watchdog() => {}
        Some(ended) = servers.join_next() => {
            let why = ended.err().map_or_else(|| "unasked".to_owned(), |e| e.to_string());
            return Err(Error::new(Kind::Failed, "serve blades: a server ended").because(why));
        }
    }
    tell(&[NotifyState::Stopping]);
    stop.send_replace(true);
    while servers.join_next().await.is_some() {}
    log::info!("stopped");
    Ok(())
}

/// Tells systemd's watchdog that the event loop turns, for ever; waits for ever where there is no watchdog.
async fn keep_watchdog() {
    let Some(within) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut beat = tokio::time::interval((within / 2).max(Duration::from_millis(100)));
    loop {
        beat.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        log::warn!("systemd is not told how we are: {e}");
    }
}
