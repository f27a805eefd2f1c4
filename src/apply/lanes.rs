//! Lanes: a few threads that take jobs from one queue, and an overseer who leaves a stuck one behind.
//!
//! ```text
//!   waits ──► takes a job ──► does this, does that, … ──► report ──► waits
//!                                  │ over its deadline
//!                                  ▼
//!                            left behind: an overdue report, and another lane takes its place
//!                                  │ the kernel answers after all
//!                                  ▼
//!                            a late report; begins nothing more of that job ──► ends
//! ```
//!
//! A thread in a system call that hangs cannot be stopped, only left: it costs a stack and is no lane any more. What its
//! job would have done next is not done, because the world has moved on; the next plan does it. What a report means is
//! the line's business.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use super::{Deadlines, Doing, Ending, Failure, Job, Report, Subject, carry, deadline};
use crate::{
    error::{Error, Kind, Result},
    host::Host,
    plan::Step,
};

/// How many jobs run at a time: four lanes overlap LIO's grace periods best on two processors (400 targets: 13.9 s in one
/// lane, 5.5 s in four, 8.2 s in sixteen).
const LANES: usize = 4;

/// How many stuck threads may be left behind before no more are replaced: each is one of the unit's tasks (`TasksMax=`),
/// and LVM's tools need some. So many hung devices are one broken disk shelf; a few more threads would not help.
pub const LEFT_BEHIND: usize = 64;

/// Threads that carry jobs out. Dropping it lets them finish what they have and end.
pub struct Lanes(Arc<Shared>);

type Done = Box<dyn Fn(Report) + Send + Sync>;

/// What lanes and overseer share.
struct Shared {
    host: Arc<dyn Host>,
    deadlines: Deadlines,
    done: Done,
    state: Mutex<State>,
    /// Told when there is a job.
    jobs: Condvar,
    /// Told when there is a deadline before the one that the overseer waits for.
    overseer: Condvar,
    /// The deadline that the overseer waits for, in milliseconds since `epoch`; [`NONE`] where it waits for none, or has not
    /// looked yet.
    awaited: AtomicU64,
    epoch: Instant,
}

/// No deadline: every other one is sooner.
const NONE: u64 = u64::MAX;

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// The jobs under way, those left behind among them, in the order in which they began.
    running: BTreeMap<u64, Arc<Running>>,
    /// How many jobs ever began.
    begun: u64,
    /// How many threads work or wait for work.
    lanes: usize,
    closed: bool,
}

/// A job under way. What it does is behind a lock of its own, so that lanes do not wait for each other at each step.
struct Running {
    subject: Subject,
    cause: String,
    begun: Instant,
    now: Mutex<Now>,
}

/// What a job does.
struct Now {
    doing: Doing,
    since: Instant,
    until: Instant,
    left_behind: bool,
}

impl Lanes {
    /// Starts the lanes. `done` hears each report; it may neither wait nor submit, because the lanes' lock may be held.
    pub fn start(host: Arc<dyn Host>, done: impl Fn(Report) + Send + Sync + 'static) -> Self {
        Self::with_deadlines(host, deadline, done)
    }

    /// Starts the lanes with deadlines of the caller's.
    pub fn with_deadlines(
        host: Arc<dyn Host>,
        deadlines: Deadlines,
        done: impl Fn(Report) + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            host,
            deadlines,
            done: Box::new(done),
            state: Mutex::default(),
            jobs: Condvar::new(),
            overseer: Condvar::new(),
            awaited: AtomicU64::new(NONE),
            epoch: Instant::now(),
        });
        let mut state = shared.lock();
        (0..LANES).for_each(|_| shared.add_lane(&mut state));
        drop(state);
        let overseer = Arc::clone(&shared);
        thread::spawn(move || overseer.oversee());
        Self(shared)
    }

    /// Puts a job in the queue.
    pub fn submit(&self, job: Job) {
        self.0.lock().queue.push_back(job);
        self.0.jobs.notify_one();
    }

    /// Returns what is done about the subject right now, as a blade's console says it. Whoever wants to know asks: telling
    /// of each step would wake the line eight times for each target.
    pub fn word(&self, subject: &Subject) -> Option<&'static str> {
        let state = self.0.lock();
        let running = state.running.values().find(|running| running.subject == *subject)?;
        match &running.now().doing {
            Doing::Step(step) => Some(step.console_word()),
            Doing::Look | Doing::Report => None,
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.jobs.notify_all();
        self.0.overseer.notify_all();
    }
}

/// What a lane does.
impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }

    fn add_lane(self: &Arc<Self>, state: &mut State) {
        let shared = Arc::clone(self);
        match thread::Builder::new().name("lane".into()).spawn(move || shared.work()) {
            Ok(_) => state.lanes += 1,
            Err(e) => log::error!("a lane cannot be started, {} are left: {e}", state.lanes),
        }
    }

    fn work(&self) {
        while let Some((number, running, job)) = self.take() {
            let carried = catch_unwind(AssertUnwindSafe(|| {
                carry::carry(self.host.as_ref(), job, &mut |doing| self.begin(&running, doing))
            }));
            if !self.end(number, carried.ok()) {
                return;
            }
        }
    }

    /// Waits for a job; there is none any more when everything ends.
    fn take(&self) -> Option<(u64, Arc<Running>, Job)> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                let number = state.begun;
                state.begun += 1;
                let running = Arc::new(Running::new(&job, self.deadlines));
                state.running.insert(number, Arc::clone(&running));
                if self.is_sooner(running.now().until) {
                    self.overseer.notify_one();
                }
                return Some((number, running, job));
            }
            if state.closed {
                state.lanes -= 1;
                return None;
            }
            state = self.jobs.wait(state).expect("nobody panics with the lock");
        }
    }

    /// Notes what the job does next; its deadline begins anew.
    ///
    /// # Errors
    /// [`Kind::Timeout`] where it was left behind.
    fn begin(&self, running: &Running, doing: Doing) -> Result<()> {
        let mut now = running.now();
        if now.left_behind {
            return Err(Error::new(Kind::Timeout, format!("{doing}: too late, it is planned anew")));
        }
        now.enter(doing, self.deadlines);
        let until = now.until;
        drop(now);
        if self.is_sooner(until) {
            // With the lock, so that it does not fall between the overseer's look and its sleep.
            drop(self.lock());
            self.overseer.notify_one();
        }
        Ok(())
    }

    /// Reports a job, and returns whether its thread is still a lane. No report came of one that panicked.
    fn end(&self, number: u64, report: Option<Report>) -> bool {
        let mut state = self.lock();
        let running = state.running.remove(&number).expect("it runs until its lane ends it");
        let mut report = report.unwrap_or_else(|| {
            let error =
                Error::new(Kind::Failed, format!("{}: this is a bug, it panicked", running.now().doing));
            running.report(&running.now().doing, error)
        });
        let mut is_lane = true;
        if running.now().left_behind {
            report.ending = Ending::Late;
            // Where it could not be replaced, it is a lane again.
            is_lane = state.lanes < LANES && !state.closed;
            state.lanes += usize::from(is_lane);
        }
        drop(state);
        (self.done)(report);
        is_lane
    }

    /// Returns whether the overseer would sleep past this deadline.
    fn is_sooner(&self, until: Instant) -> bool {
        self.millis(until) < self.awaited.load(Ordering::SeqCst)
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(NONE)
    }
}

/// What the overseer does.
impl Shared {
    /// Sleeps until the earliest deadline; a job that has gone on meanwhile has a later one.
    fn oversee(self: &Arc<Self>) {
        let mut state = self.lock();
        while !state.closed {
            // Whoever begins something while we look rings: it waits for our lock, which sleeping gives away.
            self.awaited.store(NONE, Ordering::SeqCst);
            self.leave_behind(&mut state);
            let awaited = state.running.values().filter_map(|running| running.deadline()).min();
            self.awaited.store(awaited.map_or(NONE, |until| self.millis(until)), Ordering::SeqCst);
            state = match awaited {
                None => self.overseer.wait(state).expect("nobody panics with the lock"),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    self.overseer.wait_timeout(state, left).expect("nobody panics with the lock").0
                }
            };
        }
    }

    /// Leaves the lanes behind that are over their deadlines.
    fn leave_behind(self: &Arc<Self>, state: &mut State) {
        let now = Instant::now();
        let overdue: Vec<_> = state.running.values().filter_map(|running| running.overdue(now)).collect();
        for report in overdue {
            state.lanes -= 1;
            // With the lock held, so that it is told of before it can come back.
            (self.done)(report);
        }
        let left_behind = state.running.values().filter(|running| running.now().left_behind).count();
        while state.lanes < LANES && left_behind <= LEFT_BEHIND {
            let before = state.lanes;
            self.add_lane(state);
            if state.lanes == before {
                return;
            }
        }
    }
}

impl Running {
    fn new(job: &Job, deadlines: Deadlines) -> Self {
        let (begun, doing) = (Instant::now(), Doing::Look);
        let now = Now { since: begun, until: begun + deadlines(&doing), doing, left_behind: false };
        Self { subject: job.subject.clone(), cause: job.cause.clone(), begun, now: Mutex::new(now) }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().expect("nobody panics with the lock")
    }

    /// Returns until when it may take; one that was left behind has all the time.
    fn deadline(&self) -> Option<Instant> {
        let now = self.now();
        (!now.left_behind).then_some(now.until)
    }

    /// Leaves the job behind if it is over its deadline, and returns what is told of it.
    fn overdue(&self, at: Instant) -> Option<Report> {
        let mut now = self.now();
        if now.left_behind || now.until > at {
            return None;
        }
        now.left_behind = true;
        let seconds = now.since.elapsed().as_secs_f32();
        let error = Error::new(Kind::Timeout, format!("{}: no end after {seconds:.0} s", now.doing));
        Some(Report { ending: Ending::Overdue, ..self.report(&now.doing, error) })
    }

    /// Returns a report of what the job itself cannot tell.
    fn report(&self, doing: &Doing, error: Error) -> Report {
        let step = match doing {
            Doing::Step(step) => Some(Box::new(Step::clone(step))),
            Doing::Look | Doing::Report => None,
        };
        Report {
            failure: Some(Failure { step, error }),
            elapsed: self.begun.elapsed(),
            ..Report::blank(self.subject.clone(), self.cause.clone())
        }
    }
}

impl Now {
    fn enter(&mut self, doing: Doing, deadlines: Deadlines) {
        self.since = Instant::now();
        self.until = self.since + deadlines(&doing);
        self.doing = doing;
    }
}

#[cfg(test)]
mod tests;
