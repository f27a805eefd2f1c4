//! The one place where processes are started.
//!
//! Every tool is named in one table (`tool`), by absolute path; each run has a deadline, `LC_ALL=C`, an argument list (never a
//! shell) and a process group of its own, so that a tool that hangs goes with all its children. What the output means is
//! for the callers.

mod tool;

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

pub use tool::Tool;

use crate::error::{Context, Error, Kind, Result};

/// One run of a tool.
#[derive(Debug, Clone)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(&'static str, OsString)>,
    stdin: Input,
    timeout: Duration,
    tick: Option<Duration>,
    accepted: Vec<i32>,
}

/// What a tool reads from its standard input.
#[derive(Debug, Clone)]
enum Input {
    Bytes(Vec<u8>),
    File(Arc<File>),
}

/// What a tool said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
}

/// How a tool ended, where the caller judges that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status; `None` where a signal ended it.
    pub status: Option<i32>,
    /// Standard error, as text.
    pub stderr: String,
}

/// What the threads that look after a child have to say.
enum Told {
    Chunk(Vec<u8>),
    Errors(String),
    Exit(std::io::Result<ExitStatus>),
}

/// How many pieces of output may wait for the caller: a tool that writes faster than we take it in has to wait, and does
/// not fill our memory.
const PIECES_WAITING: usize = 16;
/// Largest piece of output: what a pipe holds.
const PIECE: usize = 64 << 10;

/// How long a tool that was killed may take to be gone.
const DYING: Duration = Duration::from_secs(5);

/// Longest part of standard error that an error message carries.
const STDERR_SHOWN: usize = 2000;

impl Cmd {
    /// Returns a run of the tool; it must end within `timeout`.
    pub fn new(tool: Tool, timeout: Duration) -> Self {
        Self {
            program: tool.path().into(),
            args: vec![],
            envs: vec![],
            stdin: Input::Bytes(vec![]),
            timeout,
            tick: None,
            accepted: vec![],
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable. All others but `PATH` and `LC_ALL` are gone.
    #[must_use]
    pub fn env(mut self, key: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((key, value.as_ref().to_owned()));
        self
    }

    /// Sets what the tool reads from its standard input: for what must not stand in its arguments.
    #[must_use]
    pub fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = Input::Bytes(bytes);
        self
    }

    /// Makes the tool read this file as its standard input. How far it is shows in the file's own position.
    #[must_use]
    pub fn stdin_from(mut self, file: Arc<File>) -> Self {
        self.stdin = Input::File(file);
        self
    }

    /// Has an empty piece of output handed over at least so often: for who waits for something else, too.
    #[must_use]
    pub fn tick(mut self, every: Duration) -> Self {
        self.tick = Some(every);
        self
    }

    /// Takes this exit status for a success, too.
    #[must_use]
    pub fn accept(mut self, status: i32) -> Self {
        self.accepted.push(status);
        self
    }

    /// Runs the tool and returns its output.
    ///
    /// # Errors
    /// [`Kind::Missing`] where the tool is not installed, [`Kind::Timeout`] where it had to be killed with its whole
    /// process group, [`Kind::Failed`] where it ended with another status than 0; the text carries command, status and
    /// standard error.
    pub fn run(self) -> Result<Output> {
        let mut stdout = vec![];
        let stderr = self.run_streaming(|chunk| stdout.extend_from_slice(chunk))?;
        Ok(Output { stdout, stderr })
    }

    /// Runs the tool, hands over its standard output as it comes, and returns its standard error.
    ///
    /// # Errors
    /// As [`Cmd::run`].
    pub fn run_streaming(self, mut on_output: impl FnMut(&[u8])) -> Result<String> {
        self.run_while(|piece| {
            on_output(piece);
            Ok(())
        })
    }

    /// Runs the tool, hands over its standard output as it comes, for as long as who takes it wants more.
    ///
    /// # Errors
    /// As [`Cmd::run`]; the taker's own error, by which the tool is killed with its whole process group, and gone.
    pub fn run_while(self, on_output: impl FnMut(&[u8]) -> Result<()>) -> Result<String> {
        let (status, stderr) = self.follow(on_output)?;
        self.judge(status, stderr)
    }

    /// Runs the tool as [`Cmd::run_while`] does, and returns how it ended, whatever its status: for a tool that says why in
    /// more words than an error has room for.
    ///
    /// # Errors
    /// As [`Cmd::run_while`], but for a status.
    pub fn run_to_end(self, on_output: impl FnMut(&[u8]) -> Result<()>) -> Result<Ended> {
        let (status, stderr) = self.follow(on_output)?;
        Ok(Ended { status: status.code(), stderr })
    }

    /// Runs the tool to its end, and returns its status and its standard error.
    fn follow(&self, on_output: impl FnMut(&[u8]) -> Result<()>) -> Result<(ExitStatus, String)> {
        let mut child = self.spawn()?;
        let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id fits"));
        let (tell, told) = mpsc::sync_channel(PIECES_WAITING);
        let input = match &self.stdin {
            Input::Bytes(bytes) => bytes.clone(),
            Input::File(_) => vec![],
        };
        let helpers = attend(&mut child, input, &tell);
        let waiter = thread::spawn(move || tell.send(Told::Exit(child.wait())).unwrap_or(()));
        let heard = self.hear(&told, on_output).inspect_err(|_| {
            killpg(group, Signal::SIGKILL).unwrap_or(());
            wait_for_the_killed(&told);
        });
        let (status, stderr) = heard?;
        helpers.into_iter().chain([waiter]).for_each(|helper| helper.join().unwrap_or(()));
        Ok((status.attempt(|| format!("wait for {self}"))?, stderr))
    }

    /// Hears the tool until it has ended and all its pipes are closed.
    fn hear(
        &self,
        told: &mpsc::Receiver<Told>,
        mut on_output: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<(std::io::Result<ExitStatus>, String)> {
        let deadline = Instant::now() + self.timeout;
        let (mut status, mut stderr) = (None, String::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match told.recv_timeout(self.tick.map_or(left, |tick| tick.min(left))) {
                Ok(Told::Chunk(bytes)) => on_output(&bytes)?,
                Ok(Told::Errors(text)) => stderr = text,
                Ok(Told::Exit(result)) => status = Some(result),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Ok((status.expect("the channel closes after the exit"), stderr));
                }
                Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < deadline => on_output(&[])?,
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(self.overdue()),
            }
        }
    }

    fn overdue(&self) -> Error {
        let seconds = self.timeout.as_secs_f32();
        Error::new(Kind::Timeout, format!("run {self}: no end after {seconds} s, killed"))
    }

    /// Becomes the tool: for a process whose only task was to prepare it. Returns where that is not possible.
    ///
    /// Deadline and standard input are those of whoever started this process.
    pub fn replace_process(self) -> Error {
        let failure = self.command().exec();
        Error::io(format!("become {self}"), failure)
    }

    /// Returns the command with its arguments and its clean environment.
    fn command(&self) -> Command {
        #[allow(clippy::disallowed_methods, reason = "this is the one place")]
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .envs(self.envs.iter().map(|(key, value)| (key, value)));
        command
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = self.command();
        let stdin = match &self.stdin {
            Input::Bytes(bytes) if bytes.is_empty() => Stdio::null(),
            Input::Bytes(_) => Stdio::piped(),
            Input::File(file) => file.try_clone().attempt(|| format!("hand a file to {self}"))?.into(),
        };
        command.process_group(0).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().attempt(|| {
            let program = self.program.to_string_lossy();
            let package = tool::package_of(&self.program);
            format!("start '{program}' (Debian package {package})")
        })
    }

    fn judge(&self, status: ExitStatus, stderr: String) -> Result<String> {
        if status.success() || status.code().is_some_and(|code| self.accepted.contains(&code)) {
            return Ok(stderr);
        }
        let from = stderr.len().saturating_sub(STDERR_SHOWN);
        let tail = stderr.get(from..).unwrap_or(&stderr).trim().replace('\n', "; ");
        Err(Error::new(Kind::Failed, format!("run {self}: {status}: {tail}")))
    }
}

/// Waits until a tool that was killed is gone, and with it whatever it had open. Not for long: one in D state stays, and its
/// threads end when it does.
fn wait_for_the_killed(told: &mpsc::Receiver<Told>) {
    let deadline = Instant::now() + DYING;
    loop {
        match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Told::Exit(_)) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Starts the threads that feed the child and listen to it.
fn attend(child: &mut Child, input: Vec<u8>, tell: &mpsc::SyncSender<Told>) -> Vec<JoinHandle<()>> {
    let mut helpers = vec![];
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends without reading it all is judged by its status.
        helpers.push(thread::spawn(move || stdin.write_all(&input).unwrap_or(())));
    }
    if let Some(mut stdout) = child.stdout.take() {
        let tell = tell.clone();
        helpers.push(thread::spawn(move || {
            let mut buffer = [0; PIECE];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                if tell.send(Told::Chunk(buffer[..n].to_vec())).is_err() {
                    return;
                }
            }
        }));
    }
    if let Some(mut stderr) = child.stderr.take() {
        let tell = tell.clone();
        helpers.push(thread::spawn(move || {
            let mut bytes = vec![];
            let _ = stderr.read_to_end(&mut bytes);
            let _ = tell.send(Told::Errors(String::from_utf8_lossy(&bytes).into_owned()));
        }));
    }
    helpers
}

impl std::fmt::Display for Cmd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "'{}", self.program.to_string_lossy())?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", arg.to_string_lossy().escape_debug()))?;
        f.write_str("'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Cmd {
        let mut cmd = Cmd::new(Tool::Lvm, timeout).arg("-c").arg(script);
        cmd.program = "/bin/sh".into();
        cmd
    }

    #[test]
    fn output_comes_back_and_the_environment_is_clean() {
        let out =
            sh("cat; echo $LC_ALL $HOME >&2", Duration::from_secs(5)).stdin(b"in".to_vec()).run().unwrap();
        assert_eq!((out.stdout.as_slice(), out.stderr.as_str()), (b"in".as_slice(), "C\n"));
    }

    #[test]
    fn a_failure_carries_command_status_and_stderr() {
        let error = sh("echo no room >&2; exit 5", Duration::from_secs(5)).run().unwrap_err();
        assert_eq!(error.kind(), Kind::Failed);
        assert!(error.to_string().contains("exit status: 5: no room"), "{error}");
    }

    #[test]
    fn who_takes_the_output_can_end_the_tool_and_hears_of_silence() {
        let begin = Instant::now();
        let cmd = sh("echo one; sleep 60", Duration::from_secs(30)).tick(Duration::from_millis(20));
        let (mut said, mut silent) = (vec![], 0);
        let ended = cmd.run_while(|piece| {
            said.extend_from_slice(piece);
            silent += usize::from(piece.is_empty());
            if silent > 2 { Err(Error::new(Kind::Denied, "enough")) } else { Ok(()) }
        });
        assert_eq!(
            (ended.unwrap_err().to_string().as_str(), said.as_slice()),
            ("enough", b"one\n".as_slice())
        );
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_file_can_be_the_input_and_shows_how_far_the_tool_is() {
        use std::io::Seek;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[b'x'; 1000]).unwrap();
        file.rewind().unwrap();
        let file = Arc::new(file);
        let out = sh("cat | wc -c", Duration::from_secs(5)).stdin_from(Arc::clone(&file)).run().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "1000");
        assert_eq!((&*file).stream_position().unwrap(), 1000);
    }

    #[test]
    fn a_status_can_be_taken_for_a_success() {
        assert!(sh("exit 3", Duration::from_secs(5)).accept(3).run().is_ok());
        assert!(sh("exit 2", Duration::from_secs(5)).accept(3).run().is_err());
    }

    #[test]
    fn a_tool_that_hangs_is_killed_with_its_children() {
        let begin = std::time::Instant::now();
        let error = sh("sleep 60 & sleep 60", Duration::from_millis(200)).run().unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout);
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_tool_that_was_killed_is_gone_with_what_it_had_open() {
        let mut said = String::new();
        let ended = sh("echo $$; exec sleep 60", Duration::from_secs(30)).run_while(|piece| {
            said.push_str(&String::from_utf8_lossy(piece));
            Err(Error::new(Kind::Denied, "enough"))
        });
        assert_eq!(ended.unwrap_err().to_string(), "enough");
        let process = std::path::Path::new("/proc").join(said.trim());
        assert!(!process.exists(), "{} is still there", process.display());
    }
}
