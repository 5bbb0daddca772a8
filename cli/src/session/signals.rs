//! SIGINT and SIGTERM.
//!
//! One asks for a suspension. Schedulers send several, so more of them change nothing, except that three within a
//! second kill: a program that cannot be suspended must not be immortal.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::grace::Grace;
use super::requests::{Request, Requests, StopCause};

const KILL_COUNT: usize = 3;
const KILL_WINDOW: Duration = Duration::from_secs(1);
/// By convention a process that a signal killed has this exit code, plus the signal's number.
const SIGNAL_EXIT_BASE: i32 = 128;

/// Turns the signals into requests from now on, on a thread of its own.
pub(crate) fn watch(requests: Requests, grace: Arc<Grace>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let watch = move || {
        let mut recent = Recent::default();
        for signal in signals.forever() {
            if recent.add(Instant::now()) {
                low_level::exit(SIGNAL_EXIT_BASE + signal);
            }
            grace.end_if_preparing();
            // Without a thread for it the image takes as long as it takes.
            let _ = grace.start();
            requests.push(Request::stop(match signal {
                SIGINT => StopCause::Interrupt,
                _ => StopCause::Terminate,
            }));
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)?;
    Ok(())
}

/// When the last signals came.
#[derive(Default)]
struct Recent(VecDeque<Instant>);

impl Recent {
    /// Whether this signal is one too many.
    fn add(&mut self, now: Instant) -> bool {
        self.0.push_back(now);
        while self
            .0
            .front()
            .is_some_and(|first| now - *first > KILL_WINDOW)
        {
            self.0.pop_front();
        }
        self.0.len() >= KILL_COUNT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kills(times_ms: &[u64]) -> bool {
        let start = Instant::now();
        let mut recent = Recent::default();
        let mut kills = false;
        for time in times_ms {
            kills = recent.add(start + Duration::from_millis(*time));
        }
        kills
    }

    #[test]
    fn three_signals_within_a_second_kill() {
        assert!(kills(&[0, 1, 2]));
        assert!(kills(&[0, 500, 1000]));
        assert!(kills(&[0, 5000, 5100, 5200]));
    }

    #[test]
    fn signals_that_are_fewer_or_further_apart_do_not_kill() {
        assert!(!kills(&[0]));
        assert!(!kills(&[0, 0]));
        assert!(!kills(&[0, 500, 1001]));
        assert!(!kills(&[0, 600, 1200, 1800]));
    }
}
