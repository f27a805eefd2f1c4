//! The host's programs that the lab runs (qemu, qemu-img, mke2fs, mmdebstrap), and how they are started.
//! The lab's only door for processes: a failed program's error has its command line and its last words,
//! and a guest dies with the process that started it, however that one ends.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use crate::error::{Attempt, Error, Result};

/// A command line under construction.
#[derive(Debug)]
pub(crate) struct Tool {
    command: Command,
}

impl Tool {
    /// Returns a command line that so far has its program only.
    #[allow(
        clippy::disallowed_methods,
        reason = "the lab's one door for processes; it does not link the agent's"
    )]
    pub(crate) fn new(program: &str) -> Self {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").stdin(Stdio::null());
        // Debian keeps mke2fs and debugfs in sbin, which an ordinary user's PATH lacks.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        Tool { command }
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Runs it to its end and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started or ends with another status than 0.
    pub(crate) fn run(mut self) -> Result<String> {
        let line = self.line();
        let output = self.command.output().attempt(|| format!("run '{line}'"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        Err(Error::new(format!("run '{line}'"), format!("{}: {}", output.status, last_lines(&words))))
    }

    /// Runs it to its end with all its output going to `log`.
    ///
    /// # Errors
    /// As [`Tool::run`]; the error names the log.
    pub(crate) fn run_logged(mut self, log: &Path) -> Result<()> {
        let line = self.line();
        self.log_to(log)?;
        let status = self.command.status().attempt(|| format!("run '{line}'"))?;
        if status.success() {
            return Ok(());
        }
        let words = std::fs::read_to_string(log).unwrap_or_default();
        Err(Error::new(
            format!("run '{line}'"),
            format!("{status}: {} ({})", last_lines(&words), log.display()),
        ))
    }

    /// Starts it as a process that is killed when this process ends, its output going to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn spawn_bound(self, log: &Path) -> Result<Child> {
        let line = self.line();
        let mut bound = Tool::new("setpriv").args(["--pdeathsig", "KILL", "--"]);
        bound.command.arg(self.command.get_program()).args(self.command.get_args());
        bound.log_to(log)?;
        starter_spawn(bound.command).attempt(|| format!("start '{line}'"))
    }

    fn log_to(&mut self, log: &Path) -> Result<()> {
        let file = File::create(log).attempt(|| format!("make log '{}'", log.display()))?;
        let again = file.try_clone().attempt(|| format!("share log '{}'", log.display()))?;
        self.command.stdout(file).stderr(again);
        Ok(())
    }

    fn line(&self) -> String {
        let program = self.command.get_program().to_string_lossy();
        let args: Vec<_> = self.command.get_args().map(OsStr::to_string_lossy).collect();
        format!("{program} {}", args.join(" "))
    }
}

/// Starts the command from a thread that never ends. The kernel sends the death signal when the *thread* that forked
/// ends, and a test's thread may end long before the guest that it started for others.
fn starter_spawn(command: Command) -> std::io::Result<Child> {
    type Job = (Command, Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<Sender<Job>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (jobs, inbox) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The asker waits for the reply below, so it is there to take it.
                let _ = reply.send(command.spawn());
            }
        });
        jobs
    });
    let (reply, answer) = channel();
    starter.send((command, reply)).expect("the starter's thread never ends");
    answer.recv().expect("the starter answers each job")
}

/// Returns the end of a program's output: enough to see the cause, not a screenful.
fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::Tool;

    #[test]
    fn a_failing_program_tells_its_last_words() {
        let error =
            Tool::new("sh").args(["-c", "echo no such blade >&2; exit 3"]).run().unwrap_err().to_string();
        assert!(error.contains("no such blade") && error.contains("3"), "{error}");
    }

    #[test]
    fn output_is_returned() {
        assert_eq!(Tool::new("echo").arg("hello").run().unwrap(), "hello\n");
    }
}
