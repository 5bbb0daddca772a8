//! Which snapshots of a program are worth their space.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::id::ImageId;
use crate::record::Record;

/// How many snapshots of each program stay: the newest ones, and of the older ones the last of each period.
///
/// It manages the programs that have a name in the store. An image is dropped when all its records are of such programs
/// and none of them keeps it; an image that is tagged, in use or the latest of a program stays whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest images of each program stay.
    pub last: u64,
    /// The newest image of each period of this length stays. Periods are counted from the start of 1970 (UTC), so that
    /// an hour is one from full hour to full hour.
    pub one_per: Option<Duration>,
}

/// What a retention says of the images in a store.
#[derive(Debug, Default)]
pub(super) struct Decision {
    pub kept: HashSet<ImageId>,
    pub dropped: HashSet<ImageId>,
}

impl Retention {
    /// Tells for each snapshot of one program whether it stays. `taken_at_ms` holds their times in milliseconds since the
    /// start of 1970, newest first.
    pub fn keeps(&self, taken_at_ms: &[u64]) -> Vec<bool> {
        let period_ms = self
            .one_per
            .map(|period| u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1));
        let mut last_period = None;
        let each = taken_at_ms.iter().enumerate().map(|(index, time)| {
            let period = period_ms.map(|length| time / length);
            let is_newest_of_period = period.is_some() && period != last_period;
            last_period = period;
            (index as u64) < self.last || is_newest_of_period
        });
        each.collect()
    }

    /// Decides on all images. `records` are sorted by time.
    pub(super) fn decide(&self, records: &[Record], names: &BTreeMap<String, ImageId>) -> Decision {
        let mut programs: HashMap<&str, Vec<&Record>> = HashMap::new();
        let mut unmanaged = HashSet::new();
        for record in records.iter().rev() {
            match record.name.as_deref() {
                Some(name) if names.contains_key(name) => {
                    programs.entry(name).or_default().push(record);
                }
                _ => {
                    unmanaged.insert(record.image);
                }
            }
        }
        let mut decision = Decision::default();
        for snapshots in programs.values_mut() {
            // A state that was reached several times is kept once, as of the last time.
            let mut seen = HashSet::new();
            snapshots.retain(|record| seen.insert(record.image));
            let times: Vec<u64> = snapshots.iter().map(|record| record.taken_at_ms).collect();
            for (record, stays) in snapshots.iter().zip(self.keeps(&times)) {
                let images = match stays {
                    true => &mut decision.kept,
                    false => &mut decision.dropped,
                };
                images.insert(record.image);
            }
        }
        let Decision { kept, dropped } = &mut decision;
        dropped.retain(|image| !kept.contains(image) && !unmanaged.contains(image));
        decision
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    /// Says the same in another way: a snapshot stays if few are newer, or if none in its period is.
    fn naive(retention: Retention, times: &[u64]) -> Vec<bool> {
        let stays = |index: usize| {
            let newer = &times[..index];
            let period = |time: u64| {
                retention
                    .one_per
                    .map(|length| u128::from(time) / length.as_millis())
            };
            let alone = newer
                .iter()
                .all(|time| period(*time) != period(times[index]));
            (newer.len() as u64) < retention.last || (retention.one_per.is_some() && alone)
        };
        (0..times.len()).map(stays).collect()
    }

    #[test]
    fn the_newest_ones_and_the_last_of_each_hour_stay() {
        const MINUTE: u64 = 60_000;
        let retention = Retention {
            last: 2,
            one_per: Some(Duration::from_secs(3600)),
        };
        let times = [190, 185, 181, 180, 179, 120, 119, 61, 3].map(|minutes| minutes * MINUTE);
        let expected = [true, true, false, false, true, false, true, false, true];
        assert_eq!(retention.keeps(&times), expected);
        let only_last = Retention {
            one_per: None,
            ..retention
        };
        assert_eq!(
            only_last
                .keeps(&times)
                .iter()
                .filter(|stays| **stays)
                .count(),
            2
        );
    }

    #[test]
    fn retention_does_as_a_naive_model_of_it() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..5000 {
            let range = [10, 1000, u64::MAX][rng.usize(0..3)];
            let mut times: Vec<u64> = (0..rng.usize(0..20)).map(|_| rng.u64(0..range)).collect();
            times.sort_unstable_by(|left, right| right.cmp(left));
            let period_ms = [1, 7, 100, u64::MAX][rng.usize(0..4)];
            let retention = Retention {
                last: rng.u64(0..6),
                one_per: rng.bool().then(|| Duration::from_millis(period_ms)),
            };
            assert_eq!(
                retention.keeps(&times),
                naive(retention, &times),
                "{retention:?} {times:?}"
            );
        }
    }

    #[test]
    fn periods_of_no_length_and_of_ages_are_periods_too() {
        let times = [u64::MAX, 5, 5, 0];
        let of = |one_per| Retention {
            last: 0,
            one_per: Some(one_per),
        };
        assert_eq!(of(Duration::ZERO).keeps(&times), [true, true, false, true]);
        assert_eq!(of(Duration::MAX).keeps(&times), [true, true, false, false]);
    }
}
