//! What an input may cost: memory in proportion to its length, and no more time than a program is given.

use peak_alloc::PeakAlloc;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One input at a time, or the memory of one would count for another.
static TURN: Mutex<()> = Mutex::new(());

/// The turn of one input.
pub struct Turn {
    before: usize,
    _turn: MutexGuard<'static, ()>,
}

/// Waits for the turn of an input and begins to measure.
pub fn turn() -> Turn {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    MEMORY.reset_peak_usage();
    Turn {
        before: MEMORY.current_usage(),
        _turn: turn,
    }
}

impl Turn {
    /// Measures from here on.
    pub fn restart(&mut self) {
        MEMORY.reset_peak_usage();
        self.before = MEMORY.current_usage();
    }

    /// Asserts that not more than so many bytes were allocated at any moment since the turn began, beyond what was there.
    ///
    /// # Panics
    ///
    /// If it was more.
    pub fn took_at_most(&self, limit: usize) {
        let took = MEMORY.peak_usage().saturating_sub(self.before);
        assert!(
            took <= limit,
            "{took} bytes were allocated where {limit} are paid for"
        );
    }
}
