//! How long to wait before a program is tried again.

use std::time::Duration;

/// Pauses that double from one failure to the next, each cut by chance by up to a half, so that programs that died of
/// one cause do not all come back at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest pause after the first failure.
    pub first: Duration,
    /// The longest pause of all.
    pub longest: Duration,
}

impl Default for Backoff {
    /// From 100 ms to a minute.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(60),
        }
    }
}

impl Backoff {
    /// The pause after so many failures in a row; none after none.
    pub fn pause(&self, failures: u32) -> Duration {
        let longest = self.longest_pause(failures);
        longest - longest.mul_f64(fastrand::f64() / 2.0)
    }

    /// The longest that [`Backoff::pause`] can be.
    pub fn longest_pause(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_chance_takes_at_most_half() {
        let backoff = Backoff::default();
        let longest: Vec<u128> = (0..12)
            .map(|failures| backoff.longest_pause(failures).as_millis())
            .collect();
        assert_eq!(
            longest,
            [
                0, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000
            ]
        );
        assert_eq!(backoff.longest_pause(u32::MAX), Duration::from_secs(60));
        for failures in (0..12).cycle().take(1000) {
            let (pause, longest) = (backoff.pause(failures), backoff.longest_pause(failures));
            assert!(
                pause <= longest && pause >= longest / 2,
                "{pause:?} of {longest:?}"
            );
        }
    }
}
