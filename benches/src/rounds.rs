//! How long a program runs each way, in rounds.

use crate::error::BenchError;
use crate::guest::Guest;
use crate::statistics::{Spread, ms};
use crate::ways::Way;
use serde::Serialize;

/// A program's run times.
#[derive(Debug, Serialize)]
pub struct RunTimes(Vec<Times>);

/// Run times in one way: instantiation and compilation are not part of them.
#[derive(Debug, Serialize)]
struct Times {
    way: Way,
    /// Processor time of each round, if there was a run.
    ms: Vec<Option<f64>>,
    /// Why there is none at all.
    skipped: Option<String>,
}

/// Runs the program once each way in each round. The order rotates, so that a machine that gets faster or slower
/// meanwhile favours none.
pub fn measure(
    guest: &Guest,
    ways: &[Way],
    rounds: u32,
    mut progress: impl FnMut(&str),
) -> Result<RunTimes, BenchError> {
    let mut runners = Vec::new();
    let mut times = Vec::new();
    for way in ways.iter().copied() {
        progress(&format!("{way}: compiling"));
        let (runner, skipped) = allowed(way, way.prepare(guest))?;
        runners.push(runner);
        times.push(Times {
            way,
            ms: vec![None; rounds as usize],
            skipped,
        });
    }
    for round in 0..rounds {
        for place in 0..ways.len() {
            let index = (place + round as usize) % ways.len();
            let way = ways[index];
            let Some(runner) = runners[index].as_ref().filter(|_| way.takes_part(round)) else {
                continue;
            };
            progress(&format!("round {} of {rounds}: {way}", round + 1));
            let (time, skipped) = allowed(way, runner.time(guest))?;
            times[index].ms[round as usize] = time.flatten().map(ms);
            if skipped.is_some() {
                times[index].skipped = skipped;
                runners[index] = None;
            }
        }
    }
    Ok(RunTimes(times))
}

/// What came of an attempt, or why this way does without the program.
fn allowed<T>(
    way: Way,
    result: Result<T, BenchError>,
) -> Result<(Option<T>, Option<String>), BenchError> {
    match result {
        Ok(value) => Ok((Some(value), None)),
        Err(error) if way.may_be_skipped() => Ok((None, Some(error.to_string()))),
        Err(error) => Err(error),
    }
}

impl RunTimes {
    /// The times of one way; none if there is none.
    pub fn ms(&self, way: Way) -> Option<Spread> {
        let times = self.of(way)?.ms.iter().flatten().copied();
        spread(times.collect())
    }

    /// The time of one way relative to that of another in the same round; none if there is no such pair.
    pub fn ratio(&self, way: Way, base: Way) -> Option<Spread> {
        let pairs = self.of(way)?.ms.iter().zip(&self.of(base)?.ms);
        spread(
            pairs
                .filter_map(|(ms, base)| Some((*ms)? / (*base)?))
                .collect(),
        )
    }

    /// Which ways do without the program, and why.
    pub fn skipped(&self) -> impl Iterator<Item = (Way, &str)> {
        self.0
            .iter()
            .filter_map(|times| Some((times.way, times.skipped.as_deref()?)))
    }

    fn of(&self, way: Way) -> Option<&Times> {
        self.0.iter().find(|times| times.way == way)
    }
}

fn spread(figures: Vec<f64>) -> Option<Spread> {
    (!figures.is_empty()).then(|| Spread::of(figures))
}

#[cfg(test)]
pub mod tests {
    use super::{RunTimes, Times};
    use crate::ways::Way;

    /// Run times as if they had been measured.
    pub fn run_times(times: &[(Way, &[Option<f64>])]) -> RunTimes {
        let times = times.iter().map(|(way, ms)| Times {
            way: *way,
            ms: ms.to_vec(),
            skipped: ms.is_empty().then(|| "for no reason".to_owned()),
        });
        RunTimes(times.collect())
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_only_where_both_ran() {
        let times = run_times(&[
            (Way::Bare, &[Some(10.0), Some(20.0), Some(40.0)]),
            (Way::Wsnap, &[Some(20.0), None, Some(40.0)]),
            (Way::Wasmi, &[]),
        ]);
        let ratio = times.ratio(Way::Wsnap, Way::Bare).expect("two pairs");
        assert_eq!([ratio.median, ratio.min, ratio.max], [1.5, 1.0, 2.0]);
        assert_eq!(times.ratio(Way::Wasmi, Way::Bare), None);
        assert_eq!(times.ratio(Way::Epochs, Way::Bare), None);
        assert_eq!(
            times.skipped().collect::<Vec<_>>(),
            [(Way::Wasmi, "for no reason")]
        );
    }
}
