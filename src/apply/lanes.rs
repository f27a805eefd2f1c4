//! Lanes: a few threads that take jobs from one queue.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
};

use super::{Job, Report, Subject, carry_out};
use crate::host::Host;

/// Threads that carry jobs out. Dropping it lets them finish what they have and end.
pub struct Lanes {
    queue: mpsc::Sender<Job>,
}

/// How many jobs run at a time: four lanes overlap LIO's grace periods best on two processors (400 targets: 13.9 s in one
/// lane, 5.5 s in four, 8.2 s in sixteen).
const LANES: usize = 4;

impl Lanes {
    /// Starts the lanes. `done` hears each report, `step` each step's word for the console before it runs.
    pub fn start(
        host: Arc<dyn Host>,
        done: impl Fn(Report) + Clone + Send + 'static,
        step: impl Fn(&Subject, &'static str) + Clone + Send + 'static,
    ) -> Self {
        let (queue, jobs) = mpsc::channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..LANES {
            let (host, jobs, done, step) = (host.clone(), jobs.clone(), done.clone(), step.clone());
            thread::spawn(move || {
                loop {
                    let next = jobs.lock().expect("no lane panics with the lock").recv();
                    let Ok(job) = next else { return };
                    let subject = job.subject.clone();
                    done(carry_out(host.as_ref(), job, |running| step(&subject, running.console_word())));
                }
            });
        }
        Self { queue }
    }

    /// Puts a job in the queue.
    pub fn submit(&self, job: Job) {
        // The lanes live as long as the queue: a send can only fail while everything ends.
        let _ = self.queue.send(job);
    }
}
