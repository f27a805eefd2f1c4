//! Refused logins, from the kernel log.
//!
//! LIO tells the log, and nobody else, that a login was refused and why; who it was, it mostly leaves out. So a line wakes
//! this task, and the targets' own counters say whose login it was. A blade that is refused tries again every two
//! seconds: the first refusal is told at once, the next ones as a number, once a minute.
//!
//! ```text
//!   /dev/kmsg ──► Gathered (quiet for 200 ms) ──► Whose (counters of the served targets) ──► Repeats ──► WatchEvent
//! ```

mod gathered;
mod repeats;
mod whose;

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{io::unix::AsyncFd, time::MissedTickBehavior};

use self::{gathered::Gathered, repeats::Repeats, whose::Whose};
use super::{Events, Source, WatchEvent, reactor, sessions::Served, trouble};
use crate::{
    error::{Context, Error, Kind, Result},
    host::{Host, kmsg::Log, lio::Hint},
    model::Iqn,
};

/// The lines of one refused login come within this.
const QUIET: Duration = Duration::from_millis(200);

/// Lines that go on without a pause are told after this.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often repetitions are told.
const EVERY: Duration = Duration::from_secs(60);

/// How often targets that were not served before are looked at: what they had counted until then is nobody's login now.
const NEWCOMERS: Duration = Duration::from_secs(5);

/// Tells [`WatchEvent::LoginRefused`] for as long as somebody listens. A log that cannot be read is told of once.
pub async fn run(log: Arc<Log>, host: Arc<dyn Host>, served: Served, events: Events) {
    let opened =
        log.follow().and_then(|fd| reactor::watch(fd).attempt(|| "follow the kernel log".to_owned()));
    let follower =
        Follower { log, host, served, events: events.clone(), whose: Whose::default(), lost: None };
    let ended = match opened {
        Err(error) => Err(error),
        Ok(fd) => tokio::select! {
            () = events.closed() => return,
            ended = follower.follow(fd) => ended,
        },
    };
    if let Err(error) = ended {
        let _ = events.send(WatchEvent::Without { source: Source::KernelLog, text: error.chain() });
    }
}

struct Follower {
    log: Arc<Log>,
    host: Arc<dyn Host>,
    served: Served,
    events: Events,
    whose: Whose,
    /// When it was last told that records were lost.
    lost: Option<Instant>,
}

impl Follower {
    async fn follow(mut self, fd: AsyncFd<OwnedFd>) -> Result<()> {
        let mut cursor = None;
        let mut gathered = Gathered::default();
        let mut repeats = Repeats::default();
        let mut clock = tokio::time::interval(NEWCOMERS);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let settled = gathered.settled(QUIET, PATIENCE);
            tokio::select! {
                ready = fd.readable() => {
                    let mut ready = ready.attempt(|| "follow the kernel log".to_owned())?;
                    self.read(&mut cursor, &mut gathered)?;
                    ready.clear_ready();
                }
                () = tokio::time::sleep_until(settled.unwrap_or_else(Instant::now).into()), if settled.is_some() => {
                    let risen = self.look(|_, _| true).await?;
                    let told = whose::attribute(gathered.take(), risen).into_iter();
                    told.for_each(|(refusal, count)| self.tell(repeats.again(refusal, count, Instant::now())));
                }
                _ = clock.tick(), if settled.is_none() => {
                    self.look(|whose, target| !whose.knows(target)).await?;
                    repeats.due(Instant::now()).into_iter().for_each(|due| self.tell(Some(due)));
                }
            }
        }
    }

    /// Reads what is new.
    fn read(&mut self, cursor: &mut Option<u64>, gathered: &mut Gathered) -> Result<()> {
        let batch = self.log.take(cursor)?;
        if batch.lost && self.lost.is_none_or(|at| at.elapsed() > EVERY) {
            self.lost = Some(Instant::now());
            let error =
                Error::new(Kind::Failed, "records of the kernel log were overwritten: causes may be missing");
            trouble(&self.events, Source::KernelLog, &error);
        }
        let kernels = batch.records.iter().filter(|record| record.facility == 0);
        kernels.filter_map(|record| Hint::of(&record.text)).for_each(|hint| gathered.add(hint));
        Ok(())
    }

    /// Returns those of the served targets that have refused somebody since the last look at them.
    async fn look(&mut self, which: fn(&Whose, &Iqn) -> bool) -> Result<Vec<whose::Risen>> {
        let served = self.served.lock().expect("no holder panics").clone();
        self.whose.keep(&served.values().map(|(target, _)| target).collect());
        let targets = served.into_values().map(|(target, _)| target);
        let targets: Vec<Iqn> = targets.filter(|target| which(&self.whose, target)).collect();
        if targets.is_empty() {
            return Ok(vec![]);
        }
        let (host, mut whose) = (Arc::clone(&self.host), std::mem::take(&mut self.whose));
        // A stuck target would stop the event loop: files are read on another thread.
        let looked = tokio::task::spawn_blocking(move || {
            let risen = whose.look(host.as_ref(), &targets);
            (whose, risen)
        });
        let (whose, risen) =
            looked.await.map_err(|e| Error::new(Kind::Failed, "look who was refused").because(e))?;
        self.whose = whose;
        Ok(risen)
    }

    fn tell(&self, told: Option<(crate::observed::Refusal, u64)>) {
        if let Some((refusal, count)) = told {
            let _ = self.events.send(WatchEvent::LoginRefused { refusal, count });
        }
    }
}
