//! How long a program has run.

use std::time::{Duration, Instant};

/// The time that a program has run in all, over all its attempts, without the time that it stood still for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunClock {
    before: Duration,
    running_since: Option<Instant>,
}

impl RunClock {
    /// A program of some age, which stands still.
    pub fn new(age: Duration) -> Self {
        Self {
            before: age,
            running_since: None,
        }
    }

    /// The program runs from now on.
    pub fn go(&mut self, now: Instant) {
        self.running_since.get_or_insert(now);
    }

    /// The program stands still from now on.
    pub fn pause(&mut self, now: Instant) {
        *self = Self::new(self.age(now));
    }

    /// How old the program is, or was, at a moment since it was last set going.
    pub fn age(&self, at: Instant) -> Duration {
        let running = self
            .running_since
            .map_or(Duration::ZERO, |since| at.saturating_duration_since(since));
        self.before + running
    }

    /// As [`RunClock::age`], in whole milliseconds.
    pub fn age_ms(&self, at: Instant) -> u64 {
        u64::try_from(self.age(at).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_a_program_stands_still_does_not_count() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut clock = RunClock::new(Duration::from_millis(7));
        assert_eq!(clock.age_ms(at(5)), 7);
        clock.go(at(10));
        clock.go(at(12));
        assert_eq!(clock.age_ms(at(15)), 12);
        clock.pause(at(20));
        assert_eq!(clock.age_ms(at(500)), 17);
        clock.go(at(1000));
        assert_eq!(clock.age_ms(at(1001)), 18);
    }
}
