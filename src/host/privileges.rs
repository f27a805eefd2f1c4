//! Privileges, given away for ever: all but some, or everything but what is open already.
//!
//! What each program keeps is its own to say; units of systemd take the same away, and this holds where one is started by
//! hand. Whoever reads what strangers have made, and needs more of the machine than open files, runs in a unit of its own
//! (`image::sandbox`).

use std::collections::HashSet;

use caps::{CapSet, Capability};
use nix::{
    libc,
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::Signal,
    },
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::error::{Error, Kind, Result};

/// Address space of a confined process: its threads' stacks and heaps are most of it.
const ADDRESS_SPACE: u64 = 1 << 30;

/// What a confined process may ask of the kernel: to read and write what is open, to be handed more open files, memory and
/// threads, and its end. Nothing here takes a path or a process id, or makes a socket.
const ALLOWED: [libc::c_long; 32] = [
    libc::SYS_recvmsg,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_close,
    // Memory
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads, and what the C library and Rust's own do for each
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_gettid,
    libc::SYS_rseq,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    // Time, where the clock is none that can be read without a call; chance, for tables
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    // Signals that come, and the end
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Gives all capabilities away but these, from every set. Must run before a second thread starts: each has its own.
///
/// # Errors
/// The kernel's refusal.
pub fn keep(kept: &[Capability]) -> Result<()> {
    let failed = |e| Error::new(Kind::Failed, "give capabilities away").because(e);
    let kept: HashSet<Capability> = kept.iter().copied().collect();
    // The bounding set is what a set-user-ID program could get back. Changing it needs CAP_SETPCAP; without that
    // there is nothing to get back that no-new-privileges of the unit does not refuse.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed)? {
        let bounding = caps::read(None, CapSet::Bounding).map_err(failed)?;
        for capability in bounding.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(failed)?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let left = permitted.intersection(&kept).copied().collect();
    // Effective first: it may never hold what permitted does not.
    caps::set(None, CapSet::Effective, &left).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &left).map_err(failed)
}

/// Gives everything away but what is open: no file can be opened any more, no program started, no process reached.
///
/// The process ends with the thread that started it. What it is refused fails with `EPERM`. Must run before a second thread
/// starts.
///
/// # Errors
/// The kernel's refusal.
pub fn confine() -> Result<()> {
    let limit = |resource, most| setrlimit(resource, most, most).map_err(std::io::Error::from);
    limit(Resource::RLIMIT_CORE, 0)
        .and_then(|()| limit(Resource::RLIMIT_AS, ADDRESS_SPACE))
        .and_then(|()| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?))
        .map_err(|e| Error::io("set the limits of a confined process", e))?;
    keep(&[])?;
    fence()
}

/// Refuses every system call of this thread, and of those that it will start, but the allowed ones (seccomp(2)).
fn fence() -> Result<()> {
    let applied =
        filter().map_err(seccompiler::Error::from).and_then(|program| seccompiler::apply_filter(&program));
    applied.map_err(|e| Error::new(Kind::Failed, "confine a process").because(e))
}

fn filter() -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    // Of all that fcntl(2) does, what it takes to read past the page cache.
    let flags = [libc::F_GETFL, libc::F_SETFL].map(|command| {
        let command = u64::from(command.unsigned_abs());
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, command)
            .and_then(|condition| SeccompRule::new(vec![condition]))
    });
    let flags = flags.into_iter().collect::<std::result::Result<_, _>>()?;
    let allowed = ALLOWED.into_iter().map(|call| (call, vec![])).chain([(libc::SYS_fcntl, flags)]);
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(allowed.collect(), refuse, SeccompAction::Allow, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, net::TcpListener, os::unix::fs::FileExt, os::unix::net::UnixStream, thread};

    use nix::{errno::Errno, sys::signal::kill, unistd::getpid};

    use super::*;

    /// Runs this on a thread that has given everything away but what is open.
    fn confined<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = thread::spawn(|| {
            keep(&[]).unwrap();
            fence().unwrap();
            work()
        });
        thread.join().unwrap()
    }

    #[test]
    fn what_is_open_can_be_read_and_written_by_threads_and_nothing_else_can_be_had() {
        let file = tempfile::tempfile().unwrap();
        let own = file.try_clone().unwrap();
        confined(move || {
            let write = |at: u64| own.write_all_at(b"words", at).unwrap();
            thread::scope(|scope| (0..4).for_each(|n| drop(scope.spawn(move || write(n * 5)))));
            let refused = |error: std::io::Error| assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            refused(File::open("/dev/null").unwrap_err());
            refused(std::fs::metadata("/").unwrap_err());
            refused(TcpListener::bind("127.0.0.1:0").unwrap_err());
            refused(UnixStream::pair().unwrap_err());
            assert_eq!(kill(getpid(), None), Err(Errno::EPERM));
        });
        let mut words = [0; 20];
        file.read_exact_at(&mut words, 0).unwrap();
        assert_eq!(&words, b"wordswordswordswords");
    }

    #[test]
    fn no_capability_is_left_and_none_can_come_back() {
        let sets = [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient];
        let kept = thread::spawn(move || {
            keep(&[]).unwrap();
            sets.map(|set| caps::read(None, set).unwrap())
        });
        assert!(kept.join().unwrap().iter().all(HashSet::is_empty));
        // Asking for one's own, or for others, takes calls that are refused, too.
        assert!(confined(|| caps::read(None, CapSet::Permitted).is_err()));
    }
}
