//! The host's side of the control memory of one running program.

use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::memory::Mapping;
use crate::snapshot::{self, Snapshot};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use wsnap_instrument::control;
use wsnap_wasi::Interrupter;

/// The control memory, and whether somebody wants the program to stop.
pub(crate) struct Control {
    memory: Arc<Mapping>,
    wanted: AtomicBool,
    /// The program stops at its next safepoint because it was told so before it ran.
    stops_next: AtomicBool,
    snapshot_wanted: AtomicBool,
    /// The snapshot that is asked for has turned out to be impossible in passing.
    unwinds_for_snapshots: AtomicBool,
    /// Counts the beginnings and the ends of calls of the host, so it is odd during one. Only the guest's thread writes it.
    calls: AtomicU64,
    interrupter: Interrupter,
}

/// A point in the run of a program, as far as the host can tell such points apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// How many calls of the host had begun and ended until then, both counted.
    calls: u64,
}

impl Moment {
    /// Whether the program was waiting in a call of the host, which had not taken effect.
    fn is_in_call(self) -> bool {
        self.calls % 2 == 1
    }
}

impl Control {
    pub fn new(memory: Arc<Mapping>, interrupter: Interrupter) -> Self {
        Self {
            memory,
            wanted: AtomicBool::new(false),
            stops_next: AtomicBool::new(false),
            snapshot_wanted: AtomicBool::new(false),
            unwinds_for_snapshots: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            interrupter,
        }
    }

    pub fn memory(&self) -> &Mapping {
        &self.memory
    }

    /// Makes the program stop at its next safepoint or in the blocking call that it is in. From any thread.
    pub fn request_stop(&self) {
        self.wanted.store(true, Ordering::Release);
        self.request(control::UNWINDING);
    }

    /// Makes the program ask what to do at its next safepoint that can ask, or in the blocking call that it is in, so that it
    /// hands over a snapshot and goes on. From any thread.
    pub fn request_snapshot(&self) {
        self.snapshot_wanted.store(true, Ordering::Release);
        self.request(control::REQUEST);
    }

    /// The program has not come to a safepoint that can ask: if it still has not, it unwinds at its next one of any kind.
    pub fn insist_on_snapshot(&self) {
        if self.snapshot_wanted.load(Ordering::Acquire) {
            self.request(control::UNWINDING);
        }
    }

    fn request(&self, bit: u32) {
        self.set_bits(bit);
        self.interrupter.interrupt();
    }

    fn set_bits(&self, bits: u32) {
        self.memory
            .word(control::REQUEST_WORD)
            .fetch_or(bits, Ordering::AcqRel);
    }

    fn clear_bits(&self, bits: u32) {
        self.memory
            .word(control::REQUEST_WORD)
            .fetch_and(!bits, Ordering::AcqRel);
    }

    /// Whether a snapshot was asked for. Asking again says no.
    pub fn take_snapshot_request(&self) -> bool {
        self.snapshot_wanted.swap(false, Ordering::AcqRel)
    }

    /// Whether the program has to unwind its own call stack for a snapshot.
    pub fn unwinds_for_snapshots(&self) -> bool {
        self.unwinds_for_snapshots.load(Ordering::Acquire)
    }

    /// Says whether the program unwinds its own call stack for the snapshot that is asked for.
    pub fn set_unwinds_for_snapshots(&self, unwinds: bool) {
        self.unwinds_for_snapshots.store(unwinds, Ordering::Release);
    }

    /// Whether somebody wants the program to stop.
    pub fn is_stop_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// What was wanted has been done: makes safepoints and blocking calls quiet again. Returns whether somebody wants
    /// something after all.
    ///
    /// A request that was overtaken by a stop for another reason leaves its bit behind. One that comes just now has said
    /// what it wants before it sets the bit, so looking again finds it.
    pub fn settle(&self) -> bool {
        self.interrupter.clear();
        self.clear_bits(control::REQUEST | control::UNWINDING);
        let is_snapshot_wanted = self.snapshot_wanted.load(Ordering::Acquire);
        if is_snapshot_wanted {
            self.request(control::REQUEST);
        }
        let is_stop_wanted = self.is_stop_wanted() || self.stops_next.load(Ordering::Acquire);
        if is_stop_wanted {
            self.request(control::UNWINDING);
        }
        is_snapshot_wanted || is_stop_wanted
    }

    /// The program has stopped: takes back the request to stop.
    pub fn clear_request(&self) {
        self.wanted.store(false, Ordering::Release);
        self.settle();
    }

    /// Makes the guest unwind its stack from the call of the host that it is in, which has not taken effect, or from the
    /// safepoint that asks.
    pub fn begin_unwinding(&self) {
        self.set_bits(control::UNWINDING | control::CALL_CUT_SHORT);
    }

    /// Whether a table of saved references is being made larger.
    pub fn is_saving_references(&self) -> bool {
        self.get(control::GROWING) != 0
    }

    /// The guest's stack is unwound: safepoints are quiet again, except for counting and a request that came since.
    pub fn end_unwinding(&self) {
        self.clear_bits(control::UNWINDING | control::CALL_CUT_SHORT);
    }

    /// Makes the guest ask at the `count`-th safepoint from now, if its safepoints can be counted.
    pub fn count_safepoints(&self, count: u64) {
        self.set(control::COUNTER, count as u32);
        self.set(control::COUNTER + 4, (count >> 32) as u32);
        self.set_bits(control::COUNTING);
    }

    /// Makes the guest stop at its next safepoint, before it runs.
    pub fn stop_at_next_safepoint(&self) {
        self.stops_next.store(true, Ordering::Release);
        self.set_bits(control::UNWINDING);
    }

    /// Whether it was to stop at its next safepoint, where it is now.
    pub fn take_stop_at_next(&self) -> bool {
        self.stops_next.swap(false, Ordering::AcqRel)
    }

    /// Whether safepoints were counted and the last one has been passed. Stops counting then.
    pub fn take_counted_out(&self) -> bool {
        let counting = self.get(control::REQUEST_WORD) & control::COUNTING != 0;
        let out =
            counting && self.get(control::COUNTER) == 0 && self.get(control::COUNTER + 4) == 0;
        if out {
            self.clear_bits(control::COUNTING);
        }
        out
    }

    /// A call of the host begins, or ends.
    pub fn count_call(&self) {
        let calls = self.calls.load(Ordering::Relaxed);
        self.calls.store(calls.wrapping_add(1), Ordering::Release);
    }

    /// The point that the program has come to.
    pub fn moment(&self) -> Moment {
        Moment {
            calls: self.calls.load(Ordering::Acquire),
        }
    }

    pub fn get(&self, offset: u32) -> u32 {
        self.memory.word(offset).load(Ordering::Acquire)
    }

    pub fn set(&self, offset: u32, value: u32) {
        self.memory.word(offset).store(value, Ordering::Release);
    }
}

/// Asks a running program to stop, or for a snapshot, from any thread. It answers at the next loop or call, or in the
/// blocking call that it is in, before that has taken effect.
#[derive(Clone)]
pub struct Handle {
    /// None for a program that runs bare.
    pub(crate) control: Option<Arc<Control>>,
    pub(crate) guest: Weak<Guest>,
}

impl Handle {
    /// Asks the program to stop. Asking again changes nothing. A program that runs bare does not hear it.
    pub fn request_stop(&self) {
        if let Some(control) = &self.control {
            control.request_stop();
        }
    }

    /// Whether the program still waits in the call of the host in which it had come to a moment, and so has neither run nor
    /// changed since: another snapshot would say the same. Nobody knows of a program that was between two calls.
    pub fn stands_since(&self, moment: Moment) -> bool {
        let now = self.control.as_ref().map(|control| control.moment());
        moment.is_in_call() && now == Some(moment)
    }

    /// Takes a snapshot of the program, which goes on: it stands still only while its state is captured
    /// ([`Snapshot::pause`]), not while the snapshot is stored. Waits until the program has come to a safepoint, and for as
    /// long as nobody runs it.
    ///
    /// A second process is made for it, of which nothing else hears. So that making it is cheap, memories of programs are
    /// kept from all processes that this one makes by forking: a host's own child must not run them.
    ///
    /// # Errors
    ///
    /// [`Error::Bare`]; [`Error::Ended`] when the program ends before; [`Error::NotStorable`] and [`Error::Wasi`] when
    /// it holds something that cannot be part of an image; [`Error::Freeze`].
    pub fn snapshot(&self) -> Result<Snapshot<'static>> {
        let control = self.control.as_ref().ok_or(Error::Bare)?;
        snapshot::of_running(control, &self.guest)
    }
}
