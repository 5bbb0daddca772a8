//! A second process with this one's memory as it is now.
//!
//! The kernel copies pages for whichever of the two writes first, so a twin keeps the content of memories at one moment
//! while the program goes on, and nothing is copied that does not change meanwhile. A twin can also let the thread that
//! made it go on: that is how a call stack is unwound without ending the activations that are on it.
//!
//! ```text
//!  original  ──┬────────────── goes on ───────── reads the twin's memory ──── drops it
//!              │ clone                              ▲                           │ kill
//!  twin        └─ unwinds, or nothing ─► still ─────┘ … waits until the original has ended
//! ```
//!
//! The twin is not a copy that a host application would notice: no handlers that `fork` calls run, no signal tells of its
//! end, no `wait` but our own finds it. It has a single thread, which calls nothing but guest code and system calls,
//! because locks may be held in it for ever. Memories that it must not see are marked (see
//! [`Mapping::keep_from_twins`](crate::memory::Mapping::keep_from_twins)).

#![expect(unsafe_code, reason = "makes processes and reads their memory")]

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set in a twin, never in the original.
static IS_TWIN: AtomicBool = AtomicBool::new(false);
/// The descriptors that the twin's thread needs when it stands still: one tells of the original's end, one tells the
/// original. Written by the thread itself, after the processes have parted.
static DESCRIPTORS: [std::sync::atomic::AtomicI32; 2] = [
    std::sync::atomic::AtomicI32::new(-1),
    std::sync::atomic::AtomicI32::new(-1),
];

/// A process that has the memory of this one as it was. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Twin {
    pid: libc::pid_t,
    /// Readable once the twin stands still.
    still: OwnedFd,
    /// Tells the twin of the original's end.
    _original: OwnedFd,
}

/// On which side of the division a thread finds itself.
#[derive(Debug)]
pub(crate) enum Side {
    Original(Twin),
    Twin,
}

impl Twin {
    /// Divides this process: the calling thread goes on in both. In the twin it must do nothing but run guest code and
    /// then call [`stand_still`].
    ///
    /// # Errors
    ///
    /// When the system has no room for another process, or does not let this one read its memory.
    pub fn divide() -> io::Result<Side> {
        let original = pidfd_open(getpid(), PidfdFlags::empty())?;
        let still = eventfd(0, EventfdFlags::CLOEXEC)?;
        let signals = block_signals()?;
        // SAFETY: without CLONE_VM the child has copies of all memory, this stack included. The file table is shared, so
        // that closing a file here releases its locks at once. No exit signal, so nobody else hears of its end.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_FILES, 0, 0, 0, 0) };
        if pid == 0 {
            IS_TWIN.store(true, Ordering::Relaxed);
            DESCRIPTORS[0].store(original.as_raw_fd(), Ordering::Relaxed);
            DESCRIPTORS[1].store(still.as_raw_fd(), Ordering::Relaxed);
            // They stay open as long as the original has them; closing them here would close them there.
            std::mem::forget((original, still));
            return Ok(Side::Twin);
        }
        let failure = io::Error::last_os_error();
        restore_signals(&signals);
        if pid < 0 {
            return Err(failure);
        }
        let twin = Self {
            pid: pid as libc::pid_t,
            still,
            _original: original,
        };
        // Some systems let no process read another one, not even its own child.
        let probe = 0x5a_u8;
        let mut seen = [0];
        twin.read(&raw const probe as usize, &mut seen)?;
        Ok(Side::Original(twin))
    }

    /// Divides this process and lets the twin do nothing.
    ///
    /// # Errors
    ///
    /// As [`Twin::divide`].
    pub fn standing() -> io::Result<Self> {
        match Self::divide()? {
            Side::Original(twin) => Ok(twin),
            Side::Twin => stand_still(true),
        }
    }

    /// Waits until the twin's thread stands still. Returns false when it does not within `timeout`, says that it has
    /// failed, or has been killed.
    pub fn wait(&self, timeout: Duration) -> bool {
        let ended = Pid::from_raw(self.pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let Some(Ok(ended)) = ended else { return false };
        let deadline = Instant::now() + timeout;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let rest = Timespec {
                tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: rest.subsec_nanos().into(),
            };
            let mut polled = [&self.still, &ended].map(|fd| PollFd::new(fd, PollFlags::IN));
            match poll(&mut polled, Some(&rest)) {
                // The handler of a signal ran meanwhile.
                Err(rustix::io::Errno::INTR) => (),
                Ok(1..) if !polled[0].revents().is_empty() => break,
                _ => return false,
            }
        }
        let mut value = [0; 8];
        rustix::io::read(&self.still, &mut value).is_ok() && u64::from_ne_bytes(value) == SUCCEEDED
    }

    /// Fills `buffer` with what the twin has at `address`.
    ///
    /// # Errors
    ///
    /// When the twin has no memory there, or is gone.
    pub fn read(&self, address: usize, buffer: &mut [u8]) -> io::Result<()> {
        read_process(self.pid, address, buffer)
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        // SAFETY: system calls on a child that nobody else waits for, so its id has not been given to another process.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            while libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL) < 0
                && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
            {}
        }
    }
}

/// Fills `buffer` with what this process has at `address`, which the guest may write to at the same time: each byte is
/// then one that was there at some moment.
///
/// # Errors
///
/// When there is no memory, or the system does not allow it.
pub(crate) fn read_own(address: usize, buffer: &mut [u8]) -> io::Result<()> {
    read_process(getpid().as_raw_nonzero().get(), address, buffer)
}

fn read_process(pid: libc::pid_t, address: usize, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        let local = libc::iovec {
            iov_base: rest.as_mut_ptr().cast(),
            iov_len: rest.len(),
        };
        let remote = libc::iovec {
            iov_base: (address + done) as *mut libc::c_void,
            iov_len: rest.len(),
        };
        // SAFETY: the kernel writes to the local range only, which is borrowed exclusively, and checks the other.
        let count = unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) };
        match usize::try_from(count) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Whether this is a twin.
pub(crate) fn is_twin() -> bool {
    IS_TWIN.load(Ordering::Relaxed)
}

/// What a twin says when it stands still.
const SUCCEEDED: u64 = 1;
const FAILED: u64 = 2;

/// Ends the activity of a twin, which has done what it was made for or not: from now on it only keeps its memory, until
/// the original drops it or ends.
pub(crate) fn stand_still(has_succeeded: bool) -> ! {
    debug_assert!(is_twin());
    let [original, still] =
        [&DESCRIPTORS[0], &DESCRIPTORS[1]].map(|descriptor| descriptor.load(Ordering::Relaxed));
    // SAFETY: system calls on descriptors that the original keeps open, and on local memory.
    unsafe {
        let value = if has_succeeded { SUCCEEDED } else { FAILED };
        libc::write(still, (&raw const value).cast(), 8);
        let mut polled = libc::pollfd {
            fd: original,
            events: libc::POLLIN,
            revents: 0,
        };
        // All signals are blocked, so only the original's end comes back from here.
        while libc::poll(&raw mut polled, 1, -1) < 0 {}
        libc::_exit(0)
    }
}

/// Keeps signals from the calling thread, and with it from a twin that it makes: one that is meant for the group of
/// processes would be handled twice.
fn block_signals() -> io::Result<libc::sigset_t> {
    // SAFETY: the sets are local; an all-zero set is a valid value to be overwritten.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        let mut before = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before) {
            0 => Ok(before),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: the set was filled by the system.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_twin_keeps_what_was_there_when_it_was_made() {
        let mut bytes = vec![7_u8; 1 << 20];
        let twin = Twin::standing().expect("a twin");
        assert!(twin.wait(Duration::from_secs(10)));
        bytes.fill(8);
        let mut seen = vec![0; bytes.len()];
        twin.read(bytes.as_ptr() as usize, &mut seen)
            .expect("its memory");
        assert!(seen.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn what_a_twin_does_is_not_seen_in_the_original() {
        static VALUE: AtomicU32 = AtomicU32::new(1);
        match Twin::divide().expect("a twin") {
            Side::Twin => {
                VALUE.store(2, Ordering::Relaxed);
                stand_still(true)
            }
            Side::Original(twin) => {
                assert!(twin.wait(Duration::from_secs(10)));
                let mut seen = [0; 4];
                twin.read(VALUE.as_ptr() as usize, &mut seen)
                    .expect("its memory");
                let here = VALUE.load(Ordering::Relaxed);
                assert_eq!((u32::from_ne_bytes(seen), here), (2, 1));
            }
        }
    }

    #[test]
    fn a_dropped_twin_is_gone() {
        let twin = Twin::standing().expect("a twin");
        let pid = Pid::from_raw(twin.pid).expect("an id");
        drop(twin);
        let gone = rustix::process::test_kill_process(pid);
        assert_eq!(gone, Err(rustix::io::Errno::SRCH));
    }

    #[test]
    fn nobody_waits_for_a_twin_that_has_been_killed() {
        match Twin::divide().expect("a twin") {
            Side::Twin => loop {
                // SAFETY: waits for a signal, of which only the one that nobody can block comes.
                unsafe { libc::pause() };
            },
            Side::Original(twin) => {
                let since = Instant::now();
                assert!(!twin.wait(Duration::from_millis(1)));
                // SAFETY: a child that nobody has waited for.
                unsafe { libc::kill(twin.pid, libc::SIGKILL) };
                assert!(!twin.wait(Duration::from_secs(60)));
                assert!(since.elapsed() < Duration::from_secs(30));
            }
        }
    }
}
