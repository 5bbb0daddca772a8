//! What other threads ask of the running program.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use wsnap::Handle;

use super::control::{Answer, Client};

/// Why a program is suspended for good.
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

    /// Why the program is not to go on.
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
pub(crate) struct Requests {
    queue: Arc<Mutex<Vec<Request>>>,
    handle: Handle,
}

impl Requests {
    /// An empty queue for the program that `handle` belongs to.
    pub fn new(handle: Handle) -> Self {
        Self {
            queue: Arc::default(),
            handle,
        }
    }

    /// Asks for something. Whoever takes the request is told after it is in the queue, so none is overlooked.
    pub fn push(&self, request: Request) {
        self.locked().push(request);
        self.handle.request_stop();
    }

    /// All requests that have come since the last time.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.locked())
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Request>> {
        // A list of requests is whole at every moment, even if a thread died while it held the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
