//! Tells from ssh's own words why it did not get there, with the command that mends it.

use super::Remote;
use crate::{
    error::{Error, Kind},
    host::{cmd::Ended, ssh::FOLDER},
};

/// ssh's word for a failure of its own; any other status is the command's over there.
const OWN: i32 = 255;
/// The most that is repeated of what a machine says.
const REPEATED: usize = 400;

/// Returns the error of an ssh that has ended so.
pub(super) fn of(remote: &Remote, ended: &Ended, public: impl FnOnce() -> String) -> Error {
    let (host, user) = (remote.host(), remote.user());
    if ended.status == Some(OWN) && ended.stderr.contains("Host key verification failed") {
        return host_key(remote, &ended.stderr);
    }
    if ended.status == Some(OWN) && ended.stderr.contains("Permission denied (") {
        let line = public();
        let file = "its ~/.ssh/authorized_keys there";
        return Error::new(
            Kind::Denied,
            format!(
                "'{host}' does not let this appliance's key in as {user}: add this line to {file}: {line}"
            ),
        );
    }
    if let Some(error) = of_sudo(remote, &ended.stderr) {
        return error;
    }
    let words = words(&ended.stderr);
    let why = if words.is_empty() { "it ended without a word".into() } else { words };
    Error::new(Kind::Failed, format!("read from '{host}' by SSH: {why}"))
}

/// Returns the error of somebody who is not root there and cannot become root.
fn of_sudo(remote: &Remote, said: &str) -> Option<Error> {
    let (host, user) = (remote.host(), remote.user());
    let says = |word: &str| said.contains(word);
    let way_out = "or let root in by this appliance's key";
    if says("sudo: not found") || says("sudo: command not found") {
        let text = format!("'{host}' has no sudo, and {user} is not root there: install sudo, {way_out}");
        return Some(Error::new(Kind::Missing, text));
    }
    says("sudo: a password is required").then(|| {
        let text =
            format!("{user} may not use sudo without a password on '{host}': allow it (NOPASSWD), {way_out}");
        Error::new(Kind::Denied, text)
    })
}

/// Returns the error of a host key that nobody has accepted, or that is another than was accepted.
fn host_key(remote: &Remote, said: &str) -> Error {
    let (host, port) = (remote.host(), remote.port());
    let found = said.lines().find_map(|line| line.strip_prefix("debug1: Server host key: "));
    let (kind, fingerprint) =
        found.and_then(|found| found.split_once(' ')).unwrap_or(("", "of no fingerprint"));
    let (kind, fingerprint) = (tame(kind), tame(fingerprint));
    let kind = kind.trim_start_matches("ssh-").split('-').next().unwrap_or_default().to_owned();
    let kinds = if kind.is_empty() { String::new() } else { format!(" -t {kind}") };
    let known = format!("{FOLDER}/known_hosts");
    let accept = format!("ssh-keyscan -p {port}{kinds} {host} >> {known}");
    if said.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let name = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
        return Error::new(
            Kind::Denied,
            format!(
                "the host key of '{host}' is another one than was accepted ({kind} {fingerprint}): somebody may stand \
                 between. If it was installed anew: ssh-keygen -R '{name}' -f {known}; {accept}"
            ),
        );
    }
    Error::new(
        Kind::Denied,
        format!(
            "the host key of '{host}' is not known ({kind} {fingerprint}): compare that with the host's own \
             (ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub there), then accept it: {accept}"
        ),
    )
}

/// Returns what ssh and the machine have said, without ssh's account of its doings.
fn words(said: &str) -> String {
    let noise = ["debug1:", "OpenSSH_", "Authenticat", "Transferred:", "Bytes per second:"];
    let counts = ["records in", "records out", " copied"];
    let lines = said.lines().map(str::trim).filter(|line| {
        !line.is_empty()
            && !noise.iter().any(|begin| line.starts_with(begin))
            && !counts.iter().any(|count| line.contains(count))
    });
    let lines: Vec<_> = lines.map(tame).collect();
    let first = lines.len().saturating_sub(3);
    lines[first..].join("; ")
}

/// Returns the text without anything in it that a terminal or a log would obey.
fn tame(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REPEATED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(remote: &str, status: i32, stderr: &str) -> (Kind, String) {
        let ended = Ended { status: Some(status), stderr: stderr.into() };
        let error = of(&remote.parse().unwrap(), &ended, || "ssh-ed25519 AAAA sheath@box".into());
        (error.kind(), error.to_string())
    }

    #[test]
    fn an_unknown_host_is_an_error_with_its_fingerprint_and_the_command_that_accepts_it() {
        // Recorded: OpenSSH 9.2 and 10.0 with LogLevel=DEBUG1.
        let said = "debug1: Server host key: ssh-ed25519 SHA256:abc+/def\r\n\
            debug1: load_hostkeys: fopen /run/x: No such file or directory\r\n\
            No ED25519 host key is known for [donor]:2222 and you have requested strict checking.\r\n\
            Host key verification failed.\r\n";
        let (kind, text) = told("ssh://donor:2222/dev/sda", 255, said);
        assert_eq!(kind, Kind::Denied);
        for part in [
            "is not known (ed25519 SHA256:abc+/def)",
            "ssh_host_ed25519_key.pub",
            "accept it: ssh-keyscan -p 2222 -t ed25519 donor >> /etc/sheath/ssh/known_hosts",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let said = said.replace("No ED25519", "@  WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!  @\nNo");
        let (_, text) = told("ssh://donor:2222/dev/sda", 255, &said);
        assert!(text.contains("ssh-keygen -R '[donor]:2222' -f /etc/sheath/ssh/known_hosts;"), "{text}");
    }

    #[test]
    fn a_refused_key_is_an_error_with_the_line_that_lets_it_in() {
        let said = "debug1: Next authentication method: publickey\nann@donor: Permission denied (publickey,password).\n";
        let (kind, text) = told("ssh://ann@donor/x", 255, said);
        assert_eq!(kind, Kind::Denied);
        assert!(text.contains("as ann") && text.ends_with(": ssh-ed25519 AAAA sheath@box"), "{text}");
        // The same words from a command over there are not ssh's.
        assert_eq!(told("ssh://ann@donor/x", 1, said).0, Kind::Failed);
    }

    #[test]
    fn who_cannot_become_root_there_is_told_what_is_missing() {
        // Recorded: dash's own words come in pieces, with ssh's between them.
        let said = "main\n: 2: exec: debug1: client_input_channel_req: channel 0 rtype exit-status reply 0\nsudo: not found\n";
        let (kind, text) = told("ssh://ann@donor/x", 127, said);
        assert_eq!(kind, Kind::Missing);
        assert!(text.starts_with("'donor' has no sudo, and ann is not root there"), "{text}");
        let (kind, text) = told("ssh://ann@donor/x", 1, "sudo: a password is required\n");
        assert!(kind == Kind::Denied && text.contains("NOPASSWD"), "{text}");
    }

    #[test]
    fn other_trouble_is_told_in_the_words_of_ssh_and_of_the_other_machine() {
        let said = "OpenSSH_9.2p1\ndebug1: connecting\n3+0 records in\ndd: error reading '/dev/sda': Input/output error\x1b[2J\n";
        assert_eq!(
            told("ssh://donor/x", 1, said).1,
            "read from 'donor' by SSH: dd: error reading '/dev/sda': Input/output error[2J"
        );
        assert!(told("ssh://donor/x", 0, "debug1: bye\n").1.ends_with("it ended without a word"));
    }
}
