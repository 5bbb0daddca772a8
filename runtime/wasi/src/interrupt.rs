//! Waiting that another thread can cut short.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use smallvec::SmallVec;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// Cuts the waiting of a blocking call short, from any thread or signal handler.
///
/// The request stays until [`clear`](Interrupter::clear): every call that would block returns
/// [`Stop::Suspended`](crate::Stop::Suspended) instead, and calls that need not wait go on as always.
#[derive(Clone, Debug)]
pub struct Interrupter(Arc<OwnedFd>);

/// Why waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Ready,
    Interrupted,
    TimedOut,
}

impl Interrupter {
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub(crate) fn new() -> io::Result<Interrupter> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Interrupter(Arc::new(event)))
    }

    /// Makes the blocking call that is under way, and every later one, return at once.
    pub fn interrupt(&self) {
        // The only failure is a counter that is full, and then the request stands already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// Takes the request back, so that calls may block again.
    pub fn clear(&self) {
        // The only failure is an empty counter: there was no request.
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }

    /// Waits until one of `sources` is ready, this is interrupted, or `timeout` has passed; with none, for ever.
    ///
    /// What is ready wins over an interruption: whoever has data to work on reaches its next safepoint soon.
    pub(crate) fn wait(
        &self,
        sources: &[(BorrowedFd<'_>, PollFlags)],
        timeout: Option<Duration>,
    ) -> rustix::io::Result<Woken> {
        let mut polled: SmallVec<[PollFd<'_>; 4]> = SmallVec::new();
        polled.push(PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN));
        let sources = sources.iter();
        polled.extend(sources.map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)));
        let timeout = timeout.map(|duration| Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: duration.subsec_nanos().into(),
        });
        poll(&mut polled, timeout.as_ref())?;
        let has_event = |entry: &PollFd<'_>| !entry.revents().is_empty();
        Ok(if polled[1..].iter().any(has_event) {
            Woken::Ready
        } else if has_event(&polled[0]) {
            Woken::Interrupted
        } else {
            Woken::TimedOut
        })
    }
}
