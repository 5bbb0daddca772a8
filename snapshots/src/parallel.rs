//! Work split over the machine's cores.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Calls `work` for consecutive ranges of up to `grain` items that together cover `0..count`, on all cores, and
/// returns the results in the order of the ranges.
///
/// # Panics
///
/// When `grain` is 0, or when `work` panics.
pub(crate) fn map_ranges<T: Send>(
    count: usize,
    grain: usize,
    work: impl Fn(Range<usize>) -> T + Sync,
) -> Vec<T> {
    let ranges = count.div_ceil(grain);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let run = || {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= ranges {
                return results;
            }
            let start = index * grain;
            results.push((index, work(start..count.min(start + grain))));
        }
    };

    let mut results = thread::scope(|scope| {
        // The calling thread works too, so little work starts no thread at all.
        let helpers: Vec<_> = (1..cores.min(ranges)).map(|_| scope.spawn(run)).collect();
        let mut results = run();
        for helper in helpers {
            match helper.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_everything_once_in_order() {
        for (count, grain) in [(0, 1), (1, 1), (10, 3), (10, 10), (10, 100), (1000, 1)] {
            let covered: Vec<usize> =
                map_ranges(count, grain, |range| range.collect::<Vec<_>>()).concat();
            assert_eq!(
                covered,
                (0..count).collect::<Vec<_>>(),
                "{count} by {grain}"
            );
        }
    }
}
