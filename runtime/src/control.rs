//! The host's side of the control memory of one running program.

use crate::memory::Mapping;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wsnap_instrument::control;
use wsnap_wasi::Interrupter;

/// The control memory, and whether somebody wants the program to stop.
pub(crate) struct Control {
    memory: Arc<Mapping>,
    wanted: AtomicBool,
    interrupter: Interrupter,
}

impl Control {
    pub fn new(memory: Arc<Mapping>, interrupter: Interrupter) -> Self {
        Self {
            memory,
            wanted: AtomicBool::new(false),
            interrupter,
        }
    }

    pub fn memory(&self) -> &Mapping {
        &self.memory
    }

    /// Makes the program stop at its next safepoint or in the blocking call that it is in. From any thread.
    pub fn request_stop(&self) {
        self.wanted.store(true, Ordering::Release);
        self.memory
            .word(control::REQUEST_WORD)
            .fetch_or(control::REQUEST, Ordering::AcqRel);
        self.interrupter.interrupt();
    }

    /// Whether somebody wants the program to stop.
    pub fn is_stop_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// A safepoint asked and nobody wants a stop: makes safepoints quiet again. Returns whether somebody does after all.
    ///
    /// A request that was overtaken by a stop for another reason leaves its bit behind. One that comes just now has set
    /// `wanted` before the bit, so looking again finds it.
    pub fn settle(&self) -> bool {
        self.memory
            .word(control::REQUEST_WORD)
            .fetch_and(!control::REQUEST, Ordering::AcqRel);
        self.is_stop_wanted()
    }

    /// Takes back the request to stop.
    pub fn clear_request(&self) {
        self.interrupter.clear();
        self.memory
            .word(control::REQUEST_WORD)
            .fetch_and(!control::REQUEST, Ordering::AcqRel);
        self.wanted.store(false, Ordering::Release);
    }

    /// Makes the guest unwind its stack from here.
    pub fn begin_unwinding(&self) {
        self.memory
            .word(control::REQUEST_WORD)
            .fetch_or(control::UNWINDING, Ordering::AcqRel);
    }

    /// Whether the guest is unwinding, or has just done so.
    pub fn is_unwinding(&self) -> bool {
        self.get(control::REQUEST_WORD) & control::UNWINDING != 0
    }

    /// The guest's stack is unwound: safepoints are quiet again, except for counting and a request that came since.
    pub fn end_unwinding(&self) {
        self.memory
            .word(control::REQUEST_WORD)
            .fetch_and(!control::UNWINDING, Ordering::AcqRel);
    }

    /// Makes the guest ask at the `count`-th safepoint from now.
    pub fn count_safepoints(&self, count: u64) {
        self.set(control::COUNTER, count as u32);
        self.set(control::COUNTER + 4, (count >> 32) as u32);
        self.memory
            .word(control::REQUEST_WORD)
            .fetch_or(control::COUNTING, Ordering::AcqRel);
    }

    /// Whether safepoints were counted and the last one has been passed. Stops counting then.
    pub fn take_counted_out(&self) -> bool {
        let counting = self.get(control::REQUEST_WORD) & control::COUNTING != 0;
        let out =
            counting && self.get(control::COUNTER) == 0 && self.get(control::COUNTER + 4) == 0;
        if out {
            self.memory
                .word(control::REQUEST_WORD)
                .fetch_and(!control::COUNTING, Ordering::AcqRel);
        }
        out
    }

    pub fn get(&self, offset: u32) -> u32 {
        self.memory.word(offset).load(Ordering::Acquire)
    }

    pub fn set(&self, offset: u32, value: u32) {
        self.memory.word(offset).store(value, Ordering::Release);
    }
}

/// Asks a running program to stop, from any thread. It does so at the next loop or call, or in the blocking call that
/// it is in, before that has taken effect.
#[derive(Clone)]
pub struct Handle(pub(crate) Option<Arc<Control>>);

impl Handle {
    /// Asks the program to stop. Asking again changes nothing. A program that runs bare does not hear it.
    pub fn request_stop(&self) {
        if let Some(control) = &self.0 {
            control.request_stop();
        }
    }
}
