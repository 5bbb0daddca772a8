//! Snapshots at intervals.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use wsnap::{Handle, Moment, Snapshot};

/// How often a program is saved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// From the beginning of one snapshot to that of the next.
    pub interval: Duration,
    /// Saving may take so much of the time, between 0 and 1; where it would take more, the interval gets longer.
    pub max_share: f64,
}

impl Default for Pace {
    /// Every 15 s, and no more than a tenth of the time.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15),
            max_share: 0.1,
        }
    }
}

impl Pace {
    /// How long to wait after a snapshot that took `cost`, until it was safe on the disk.
    pub fn pause_after(&self, cost: Duration) -> Duration {
        let share = self.max_share.clamp(0.0001, 1.0);
        let rest = cost.as_secs_f64() * (1.0 - share) / share;
        let stretched = Duration::try_from_secs_f64(rest).unwrap_or(Duration::MAX);
        self.interval.saturating_sub(cost).max(stretched)
    }
}

/// A snapshot that has been saved.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    /// Where the program stood.
    pub moment: Moment,
    /// How long it was kept from its work, and the disk busy.
    pub cost: Duration,
}

impl Saved {
    /// This snapshot has just become safe. How long it took until the program came by a point where its state could be captured
    /// is no cost: it may have stood still all the time, for a more urgent one.
    pub fn now(snapshot: &Snapshot<'_>) -> Self {
        Self {
            moment: snapshot.moment(),
            cost: snapshot.pause() + snapshot.captured().elapsed(),
        }
    }
}

/// Saves a program at intervals, from a thread of its own, until this is dropped.
pub struct Autosave {
    /// Nothing is ever sent: that it is dropped says that it is over.
    stop: Sender<std::convert::Infallible>,
    thread: JoinHandle<()>,
}

impl Autosave {
    /// Begins. `save` takes a snapshot, keeps it and says so; it reports by itself when it cannot, and returns
    /// none. It is not called as long as the program stands where it stood at the last snapshot.
    ///
    /// # Errors
    ///
    /// When there can be no thread for it.
    pub fn start(
        pace: Pace,
        handle: Handle,
        mut save: impl FnMut() -> Option<Saved> + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, is_stopped) = mpsc::channel();
        let run = move || {
            let mut last: Option<Saved> = None;
            let mut pause = pace.interval;
            while is_stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                if last.is_some_and(|last| handle.stands_since(last.moment)) {
                    pause = pace.interval;
                    continue;
                }
                let since = Instant::now();
                last = save();
                let cost = last.map_or_else(|| since.elapsed(), |saved| saved.cost);
                pause = pace.pause_after(cost);
            }
        };
        let thread = thread::Builder::new()
            .name("autosave".to_owned())
            .spawn(run)?;
        Ok(Self { stop, thread })
    }

    /// Ends it, and waits until a snapshot that is being kept is safe. The program must have ended, or its instance been
    /// dropped: one that is only suspended would be waited for.
    pub fn finish(self) {
        drop(self.stop);
        // A thread that died has shown its own message.
        let _ = self.thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saving_takes_no_more_than_its_share_and_the_interval_no_less_than_was_asked_for() {
        let pace = Pace {
            interval: Duration::from_secs(10),
            max_share: 0.1,
        };
        let ms = Duration::from_millis;
        assert_eq!(pace.pause_after(ms(0)), ms(10_000));
        assert_eq!(pace.pause_after(ms(500)), ms(9_500));
        assert_eq!(pace.pause_after(ms(2_000)).as_millis(), 18_000);
        let always = Pace {
            max_share: 1.0,
            ..pace
        };
        assert_eq!(always.pause_after(ms(30_000)), ms(0));
        let hardly = Pace {
            max_share: 0.0,
            ..pace
        };
        assert!(hardly.pause_after(ms(1)) >= ms(9_990));
        assert!(hardly.pause_after(Duration::MAX) > Duration::from_secs(1 << 40));
    }
}
