//! Sets of bytes of a memory, as ranges.

use std::ops::Range;

/// A set of bytes: ranges that are ascending, disjoint, not adjacent, and not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Adds a range that starts at or behind the end of all others.
    pub fn push(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            last => {
                debug_assert!(last.is_none_or(|last| last.end < range.start));
                self.0.push(range);
            }
        }
    }

    /// The ranges.
    pub fn as_slice(&self) -> &[Range<u64>] {
        &self.0
    }

    /// How many bytes there are.
    pub fn byte_len(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// What is in either set.
    pub fn union(&self, other: &Self) -> Self {
        let mut all: Vec<Range<u64>> = self.0.iter().chain(&other.0).cloned().collect();
        all.sort_unstable_by_key(|range| range.start);
        let mut union: Vec<Range<u64>> = Vec::with_capacity(all.len());
        for range in all {
            match union.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => union.push(range),
            }
        }
        Self(union)
    }

    /// What is within `bounds`, by range.
    pub fn within(&self, bounds: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = self.0.partition_point(|range| range.end <= bounds.start);
        let ranges = self.0[first..].iter();
        ranges
            .take_while(move |range| range.start < bounds.end)
            .map(move |range| range.start.max(bounds.start)..range.end.min(bounds.end))
    }

    /// What is in both sets.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(one), Some(another)) = (ours.peek(), theirs.peek()) {
            let start = one.start.max(another.start);
            both.push(start..one.end.min(another.end).max(start));
            if one.end < another.end {
                ours.next();
            } else {
                theirs.next();
            }
        }
        both
    }

    /// What is below `end`.
    pub fn below(mut self, end: u64) -> Self {
        self.0.retain(|range| range.start < end);
        if let Some(last) = self.0.last_mut() {
            last.end = last.end.min(end);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[Range<u64>]) -> Ranges {
        let mut set = Ranges::default();
        ranges.iter().cloned().for_each(|range| set.push(range));
        set
    }

    #[test]
    fn what_is_within_bounds_is_cut_at_both_ends() {
        let ranges = set(&[0..5, 7..9, 20..30]);
        let within = |bounds| ranges.within(bounds).collect::<Vec<_>>();
        assert_eq!(within(3..25), [3..5, 7..9, 20..25]);
        assert_eq!(within(5..7), []);
        assert_eq!(within(4..8), [4..5, 7..8]);
        assert_eq!(within(30..40), []);
    }

    #[test]
    fn unions_and_intersections_are_what_sets_of_numbers_say() {
        let mut seed = 1u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345);
            u64::from(seed >> 16) % 9
        };
        for _ in 0..2000 {
            let mut make = || {
                let (mut at, mut made) = (0, Ranges::default());
                for _ in 0..random() {
                    let start = at + random();
                    at = start + random();
                    made.push(start..at);
                }
                made
            };
            let (a, b) = (make(), make());
            let numbers = |set: &Ranges| -> std::collections::BTreeSet<u64> {
                set.as_slice().iter().cloned().flatten().collect()
            };
            let union = a.union(&b);
            assert_eq!(numbers(&union), &numbers(&a) | &numbers(&b));
            assert_eq!(union.byte_len(), numbers(&union).len() as u64);
            let both = a.intersection(&b);
            assert_eq!(numbers(&both), &numbers(&a) & &numbers(&b));
            let pairs = union.as_slice().windows(2);
            assert!(pairs.into_iter().all(|pair| pair[0].end < pair[1].start));
        }
    }

    #[test]
    fn what_is_behind_an_end_is_cut_off() {
        assert_eq!(set(&[0..5, 7..9]).below(8), set(&[0..5, 7..8]));
        assert_eq!(set(&[0..5, 7..9, 11..12]).below(10), set(&[0..5, 7..9]));
    }
}
