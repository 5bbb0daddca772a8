//! `poll_oneoff`: sleeping, and waiting for streams.
//!
//! Time is the guest's own here: a sleep that is suspended remembers when it began on the guest's monotonic clock,
//! which stands still while the program is stored, and so sleeps only what was left when it is made again.

use crate::calls::{Failure, Outcome, Stop};
use crate::clocks::ClockId;
use crate::descriptors::Descriptor;
use crate::errno::Errno;
use crate::interrupt::Woken;
use crate::memory::Memory;
use crate::saved_state::PendingWait;
use crate::sockets::{self, Readiness, Socket};
use crate::streams::Standard;
use crate::wasi::Wasi;
use rustix::event::PollFlags;
use smallvec::SmallVec;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

const EVENT_BYTES: u32 = 32;

/// Where a version of the interface has what a subscription says.
#[derive(Clone, Copy)]
pub(crate) struct SubscriptionLayout {
    pub bytes: u32,
    /// Where the clock's number is; its timeout, precision and flags follow.
    pub clock_offset: usize,
}

const SUBSCRIPTION: SubscriptionLayout = SubscriptionLayout {
    bytes: 48,
    clock_offset: 16,
};

const TYPE_CLOCK: u8 = 0;
const TYPE_FD_READ: u8 = 1;
const TYPE_FD_WRITE: u8 = 2;

/// `event_fd_readwrite`: the other end is gone, or the file is at its end.
const HANGUP: u16 = 1;

/// What one subscription waits for.
#[derive(Clone, Copy)]
enum Wait {
    /// Until the guest's monotonic clock shows this.
    Until(u64),
    /// A stream.
    Stream(Standard),
    /// A file, which is always ready; the flags of its event.
    File(u16),
    /// A socket, by its descriptor's number, and whether to read from it.
    Socket(u32, bool),
}

#[derive(Clone, Copy)]
struct Subscription {
    userdata: [u8; 8],
    event_type: u8,
    wait: Wait,
}

type Subscriptions = SmallVec<[Subscription; 4]>;

/// A field of a subscription; all of them lie inside of it.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[offset..offset + N]);
    value
}

impl Wasi {
    fn subscription(
        &mut self,
        bytes: &[u8],
        layout: SubscriptionLayout,
        started_ns: u64,
    ) -> Result<Subscription, Errno> {
        let event_type = bytes[8];
        let fd = u32::from_le_bytes(field(bytes, 16));
        let wait = match event_type {
            TYPE_CLOCK => {
                let clock = &bytes[layout.clock_offset..];
                Wait::Until(self.deadline_ns(clock, started_ns)?)
            }
            TYPE_FD_READ | TYPE_FD_WRITE => self.source(fd, event_type)?,
            _ => return Err(Errno::Inval),
        };
        Ok(Subscription {
            userdata: field(bytes, 0),
            event_type,
            wait,
        })
    }

    /// When what a subscription says about a clock is due, on the guest's monotonic clock.
    fn deadline_ns(&self, bytes: &[u8], started_ns: u64) -> Result<u64, Errno> {
        let id = u32::from_le_bytes(field(bytes, 0));
        let clock = ClockId::from_raw(id).map_err(|_| Errno::Inval)?;
        let timeout_ns = u64::from_le_bytes(field(bytes, 8));
        let absolute = match u16::from_le_bytes(field(bytes, 24)) {
            0 => false,
            1 => true,
            _ => return Err(Errno::Inval),
        };
        Ok(match (clock, absolute) {
            (_, false) => started_ns.saturating_add(timeout_ns),
            (ClockId::Monotonic, true) => timeout_ns,
            (ClockId::Realtime, true) => {
                let left_ns = timeout_ns.saturating_sub(self.clocks.realtime_ns());
                self.clocks.monotonic_ns().saturating_add(left_ns)
            }
        })
    }

    fn source(&mut self, fd: u32, event_type: u8) -> Result<Wait, Errno> {
        let reading = event_type == TYPE_FD_READ;
        match self.descriptors.get(fd)? {
            Descriptor::Stream(standard) if reading == (*standard == Standard::Input) => {
                self.streams.get(*standard)?;
                Ok(Wait::Stream(*standard))
            }
            Descriptor::File(file) if reading => {
                let at_end = file.handle.metadata()?.len() <= file.offset;
                Ok(Wait::File(if at_end { HANGUP } else { 0 }))
            }
            Descriptor::VolumeFile(file) if reading => {
                let at_end = self.volume(file.volume)?.size(file.inode)? <= file.offset;
                Ok(Wait::File(if at_end { HANGUP } else { 0 }))
            }
            Descriptor::File(_) | Descriptor::VolumeFile(_) => Ok(Wait::File(0)),
            Descriptor::VolumeDirectory(_) => Err(Errno::Badf),
            // Nobody can write to a listener.
            Descriptor::Socket(Socket::Listener(_)) if !reading => Err(Errno::Badf),
            Descriptor::Socket(_) => Ok(Wait::Socket(fd, reading)),
            Descriptor::Stream(_) | Descriptor::Directory(_) => Err(Errno::Badf),
            Descriptor::Lost(_) => Err(Errno::Stale),
        }
    }

    /// Whether a stream would not block. A deterministic program is told so always: when data arrives is no function
    /// of what the guest does, but that it arrives is.
    fn stream_is_ready(&self, standard: Standard) -> Result<bool, Failure> {
        let stream = self.streams.get(standard)?;
        if self.is_deterministic() || !stream.can_block() {
            return Ok(true);
        }
        let source = [(stream.as_fd(), interest(standard))];
        let woken =
            rustix::io::retry_on_intr(|| self.interrupter.wait(&source, Some(Duration::ZERO)))?;
        Ok(woken == Woken::Ready)
    }

    /// Which of the standard streams that are waited for are ready.
    fn ready_streams(&self, subscriptions: &Subscriptions) -> Result<[bool; 3], Failure> {
        let mut ready = [false; 3];
        for standard in awaited(subscriptions) {
            ready[standard as usize] = self.stream_is_ready(standard)?;
        }
        Ok(ready)
    }

    /// Waits for whatever comes first. Being woken without a reason does no harm: the caller looks again.
    fn await_first(&mut self, subscriptions: &Subscriptions) -> Result<(), Failure> {
        let deadlines = subscriptions.iter().filter_map(|entry| match entry.wait {
            Wait::Until(deadline_ns) => Some(deadline_ns),
            Wait::Stream(_) | Wait::File(_) | Wait::Socket(..) => None,
        });
        let first_ns = deadlines.min();
        if self.is_deterministic() {
            self.clocks.advance_to(first_ns.unwrap_or_default());
            return Ok(());
        }
        let waits_for_stdin = awaited(subscriptions).any(|standard| standard == Standard::Input);
        if self.stdin_probe && waits_for_stdin {
            self.stopped_at_stdin = true;
            return Err(Stop::Suspended.into());
        }
        let now_ns = self.clocks.monotonic_ns();
        let timeout = first_ns.map(|first| Duration::from_nanos(first.saturating_sub(now_ns)));
        let mut sources: SmallVec<[(BorrowedFd<'_>, PollFlags); 3]> = SmallVec::new();
        for standard in awaited(subscriptions) {
            sources.push((self.streams.get(standard)?.as_fd(), interest(standard)));
        }
        for entry in subscriptions {
            if let Wait::Socket(fd, reading) = entry.wait
                && let Descriptor::Socket(socket) = self.descriptors.get(fd)?
                && let Some(source) = socket.source()
            {
                sources.push((source, sockets::interest(reading)));
            }
        }
        match self.interrupter.wait(&sources, timeout) {
            Ok(Woken::Interrupted) => Err(Stop::Suspended.into()),
            Ok(Woken::Ready | Woken::TimedOut) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The flags of the event for `subscription`, if it is time for one.
    fn due(
        &self,
        subscription: &Subscription,
        ready: [bool; 3],
        now_ns: u64,
    ) -> Result<Option<u16>, Errno> {
        Ok(match subscription.wait {
            Wait::Until(deadline_ns) => (deadline_ns <= now_ns).then_some(0),
            Wait::Stream(standard) => ready[standard as usize].then_some(0),
            Wait::File(flags) => Some(flags),
            Wait::Socket(fd, reading) => self.socket_event(fd, reading)?,
        })
    }

    /// The flags of a socket's event, if it would not block. For a deterministic program it is as with streams, except
    /// that a connection that was lost is gone whatever the other side does.
    fn socket_event(&self, fd: u32, reading: bool) -> Result<Option<u16>, Errno> {
        let Descriptor::Socket(socket) = self.descriptors.get(fd)? else {
            return Err(Errno::Badf);
        };
        if self.is_deterministic() && socket.source().is_some() {
            return Ok(Some(0));
        }
        Ok(match socket.readiness(reading)? {
            Readiness::Ready => Some(0),
            Readiness::Hangup => Some(HANGUP),
            Readiness::Blocks => None,
        })
    }
}

fn interest(standard: Standard) -> PollFlags {
    match standard {
        Standard::Input => PollFlags::IN,
        Standard::Output | Standard::Error => PollFlags::OUT,
    }
}

/// The standard streams that are waited for, each once.
fn awaited(subscriptions: &Subscriptions) -> impl Iterator<Item = Standard> + '_ {
    Standard::ALL.into_iter().filter(|standard| {
        let is_it = |entry: &Subscription| matches!(entry.wait, Wait::Stream(s) if s == *standard);
        subscriptions.iter().any(is_it)
    })
}

fn event(subscription: &Subscription, flags: u16) -> [u8; EVENT_BYTES as usize] {
    let mut bytes = [0; EVENT_BYTES as usize];
    bytes[0..8].copy_from_slice(&subscription.userdata);
    bytes[10] = subscription.event_type;
    // How much can be read or written is not known without asking; wasmtime says 1 byte too.
    bytes[16] = u8::from(subscription.event_type != TYPE_CLOCK);
    bytes[24..26].copy_from_slice(&flags.to_le_bytes());
    bytes
}

pub(crate) fn poll_oneoff(
    wasi: &mut Wasi,
    memory: Memory<'_>,
    subscriptions: u32,
    events: u32,
    subscriptions_length: u32,
    nevents: u32,
) -> Outcome {
    poll(
        wasi,
        memory,
        SUBSCRIPTION,
        subscriptions,
        events,
        subscriptions_length,
        nevents,
    )
}

/// `poll_oneoff` in a version of the interface. A call that was suspended is not mistaken for one of another version:
/// their subscriptions differ in length, and so in their hash.
pub(crate) fn poll(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    layout: SubscriptionLayout,
    subscriptions: u32,
    events: u32,
    subscriptions_length: u32,
    nevents: u32,
) -> Outcome {
    if subscriptions_length == 0 {
        return Err(Errno::Inval.into());
    }
    let all = |size: u32| subscriptions_length.checked_mul(size).ok_or(Errno::Fault);
    memory.check(nevents, 4)?;
    memory.check(events, all(EVENT_BYTES)?)?;
    let records = memory.bytes(subscriptions, all(layout.bytes)?)?;
    wasi.stopped_at_stdin = false;
    let mut call = PendingWait {
        subscriptions,
        events,
        subscriptions_length,
        subscriptions_hash: *blake3::hash(records).as_bytes(),
        started_ns: wasi.clocks.monotonic_ns(),
    };
    match wasi.pending.take() {
        Some(pending) if pending.is_same_call(&call) => call.started_ns = pending.started_ns,
        _ => {}
    }
    let records = records.chunks_exact(layout.bytes as usize);
    let entries = records.map(|record| wasi.subscription(record, layout, call.started_ns));
    let entries = entries.collect::<Result<Subscriptions, Errno>>()?;
    let count = loop {
        let ready = wasi.ready_streams(&entries)?;
        let count = write_events(wasi, &mut memory, &entries, ready, events)?;
        if count > 0 {
            break count;
        }
        if let Err(failure) = wasi.await_first(&entries) {
            if matches!(failure, Failure::Stop(_)) {
                wasi.pending = Some(call);
            }
            return Err(failure);
        }
    };
    Ok(memory.write_u32(nevents, count)?)
}

/// Stores the events that are due, and says how many.
fn write_events(
    wasi: &Wasi,
    memory: &mut Memory<'_>,
    entries: &Subscriptions,
    ready: [bool; 3],
    events: u32,
) -> Result<u32, Errno> {
    let now_ns = wasi.clocks.monotonic_ns();
    let mut count = 0;
    for entry in entries {
        if let Some(flags) = wasi.due(entry, ready, now_ns)? {
            // The caller has checked the whole array, so neither sum can overflow.
            memory.write(events + count * EVENT_BYTES, &event(entry, flags))?;
            count += 1;
        }
    }
    Ok(count)
}
