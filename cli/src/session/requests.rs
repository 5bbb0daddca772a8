//! What other threads ask of the running program.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use wsnap::Handle;

use super::control::{Answer, Client};

/// Why a program is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// `--stop-at after=…`.
    Time,
    /// `--stop-at safepoint=…`.
    Safepoint,
    /// `--stop-at stdin`.
    Stdin,
    /// `wsnap snap --stop`.
    Snap,
    /// `--timeout`: its time is up.
    Timeout,
    /// `--cpu-timeout`: its processor time is up.
    CpuTimeout,
    /// `--slots`: a more urgent program needs the slot. It goes on when there is room.
    Preempted,
}

impl StopCause {
    /// Whether it was a flag that said where to stop.
    pub fn is_flag(self) -> bool {
        matches!(self, Self::Time | Self::Safepoint | Self::Stdin)
    }

    /// The limit whose end this is, and its flag.
    pub fn deadline(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Timeout => Some(("time", "--timeout")),
            Self::CpuTimeout => Some(("processor time", "--cpu-timeout")),
            _ => None,
        }
    }

    /// The cause for people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Time => "after",
            Self::Safepoint => "safepoint",
            Self::Stdin => "stdin",
            Self::Snap => "snap --stop",
            Self::Timeout => "timeout",
            Self::CpuTimeout => "cpu-timeout",
            Self::Preempted => "preempted",
        }
    }
}

/// One thing asked for: that the program is suspended, and perhaps who is to be told.
pub(crate) struct Request {
    since: Instant,
    stop: StopCause,
    client: Option<Client>,
    labels: BTreeMap<String, String>,
}

impl Request {
    /// That the program is suspended.
    pub fn stop(cause: StopCause) -> Self {
        Self {
            since: Instant::now(),
            stop: cause,
            client: None,
            labels: BTreeMap::new(),
        }
    }

    /// That the program is suspended, and a client told about its image.
    pub fn stop_for(client: Client, labels: BTreeMap<String, String>) -> Self {
        Self {
            since: Instant::now(),
            stop: StopCause::Snap,
            client: Some(client),
            labels,
        }
    }

    /// What is to be kept with the record.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// When it was made.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Why the program is to be suspended.
    pub fn stop_cause(&self) -> StopCause {
        self.stop
    }

    /// Tells whoever asked what came of it.
    pub fn answer(self, answer: Answer) {
        if let Some(client) = self.client {
            client.answer(&answer);
        }
    }
}

/// The queue of requests; putting one in makes the program suspend soon. Clones are the same queue.
#[derive(Clone)]
pub(crate) struct Requests(Arc<Shared>);

struct Shared {
    queue: Mutex<Vec<Request>>,
    program: Mutex<Aim>,
    /// Told when the program changes.
    aimed: Condvar,
    /// Readable while there are requests that nobody has taken.
    arrived: OwnedFd,
}

/// What came of waiting for a program.
pub(crate) enum Awaited {
    /// It runs.
    Program,
    /// It waits itself.
    Waiting,
    /// So it does, without an image of where it stands.
    Unstored,
    /// No program will run any more.
    Over,
}

/// Whom requests are for.
enum Aim {
    /// No program runs yet, or at the moment.
    Nobody,
    /// Nor will it for some time: it waits for its turn, or after a crash, and goes on from its image or begins then.
    Waiting,
    /// It stands still and waits for its turn, and there is no image of where it stands.
    Unstored,
    Program(Handle),
    /// No program will run any more.
    Over,
}

impl Requests {
    /// An empty queue, for no program yet.
    ///
    /// # Errors
    ///
    /// When the system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            queue: Mutex::default(),
            program: Mutex::new(Aim::Nobody),
            aimed: Condvar::new(),
            arrived: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })))
    }

    /// From now on requests are for this program, also those that are in the queue; for none while none runs.
    pub fn aim(&self, program: Option<Handle>) {
        self.set_aim(program.map_or(Aim::Nobody, Aim::Program));
        // One that came before has found no program, or the old one.
        if !locked(&self.0.queue).is_empty() {
            self.wake();
        }
    }

    /// No program will run any more.
    pub fn close(&self) {
        self.set_aim(Aim::Over);
    }

    fn set_aim(&self, aim: Aim) {
        *locked(&self.0.program) = aim;
        self.0.aimed.notify_all();
    }

    /// The program that runs, if one does.
    pub fn program(&self) -> Option<Handle> {
        match &*locked(&self.0.program) {
            Aim::Program(handle) => Some(handle.clone()),
            Aim::Nobody | Aim::Waiting | Aim::Unstored | Aim::Over => None,
        }
    }

    /// The program waits for something, without running.
    pub fn set_waiting(&self, is_stored: bool) {
        self.set_aim(match is_stored {
            true => Aim::Waiting,
            false => Aim::Unstored,
        });
    }

    /// Waits until a program runs, or does not for some time.
    pub fn await_program(&self) -> Awaited {
        let mut aim = locked(&self.0.program);
        loop {
            match &*aim {
                Aim::Program(_) => return Awaited::Program,
                Aim::Waiting => return Awaited::Waiting,
                Aim::Unstored => return Awaited::Unstored,
                Aim::Over => return Awaited::Over,
                Aim::Nobody => {
                    let waited = self.0.aimed.wait(aim);
                    aim = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Asks for something. Whoever takes the request is told after it is in the queue, so none is overlooked.
    pub fn push(&self, request: Request) {
        locked(&self.0.queue).push(request);
        self.wake();
    }

    fn wake(&self) {
        // It fails only when it is readable already.
        let _ = rustix::io::write(&self.0.arrived, &1u64.to_ne_bytes());
        if let Some(program) = self.program() {
            program.request_stop();
        }
    }

    /// All requests that have come since the last time.
    pub fn take(&self) -> Vec<Request> {
        let mut queue = locked(&self.0.queue);
        // It fails only when nothing has come.
        let _ = rustix::io::read(&self.0.arrived, &mut [0; 8]);
        std::mem::take(&mut *queue)
    }

    /// Forgets that others want room, for a program that takes none at the moment, and says whether it is to stop for another
    /// reason.
    pub fn is_stop_wanted(&self) -> bool {
        let mut queue = locked(&self.0.queue);
        queue.retain(|request| request.stop != StopCause::Preempted);
        if queue.is_empty() {
            // It fails only when nothing has come.
            let _ = rustix::io::read(&self.0.arrived, &mut [0; 8]);
        }
        !queue.is_empty()
    }

    /// Waits so long at most, and says whether there are requests.
    pub fn wait(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&self.0.arrived, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return false,
                Err(Errno::INTR) => (),
                Ok(_) | Err(_) => return !locked(&self.0.queue).is_empty(),
            }
        }
    }
}

/// Readable while there are requests.
impl AsFd for Requests {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.arrived.as_fd()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A list of requests is whole at every moment, even if a thread died while it held the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_for_room_is_forgotten_without_a_request_to_stop_that_comes_with_it() {
        let requests = Requests::new().expect("a queue");
        requests.push(Request::stop(StopCause::Preempted));
        assert!(!requests.is_stop_wanted());
        assert!(!requests.wait(Duration::ZERO));
        requests.push(Request::stop(StopCause::Preempted));
        requests.push(Request::stop(StopCause::Terminate));
        assert!(requests.is_stop_wanted());
        assert!(requests.wait(Duration::ZERO));
        let causes: Vec<_> = requests.take().iter().map(Request::stop_cause).collect();
        assert_eq!(causes, [StopCause::Terminate]);
        assert!(!requests.wait(Duration::ZERO));
    }
}
