//! Many processes in a row that each go on with one program for a little while.

use std::time::{Duration, Instant};

use wsnap_tests::chain::{Chain, Targets, compare, measure, random_stops, seed};
use wsnap_tests::guests::run;

/// `WSNAP_TEST_PROCESSES` changes it.
const PROCESSES: usize = 200;

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn hundreds_of_processes_that_each_run_a_little_end_as_one_that_was_never_stopped() {
    let given = std::env::var("WSNAP_TEST_PROCESSES");
    let processes = given.map_or(PROCESSES, |text| text.parse().expect("a number"));
    let seed = seed();
    println!("WSNAP_TEST_SEED={seed}");
    let run = run("queue").with_args(&["30"]);
    let (total, expected) = measure(&run, &[]).unwrap_or_else(|error| panic!("{error}"));
    let stops = random_stops(total, processes, seed);

    let mut chain = Chain::new(&run, Targets::Native, &["--name", "queue"])
        .unwrap_or_else(|error| panic!("{error}"));
    let mut times = Vec::new();
    let mut ended = None;
    for stop in stops.iter().copied().map(Some).chain([None]) {
        let begun = Instant::now();
        ended = chain.go_on(stop).unwrap_or_else(|error| panic!("{error}"));
        times.push(begun.elapsed());
        assert_eq!(ended.is_some(), stop.is_none());
    }
    let actual = ended.expect("the last process ran to the end");
    compare(&expected, &actual, &stops).unwrap_or_else(|error| panic!("{error}"));
    let tenth = times.len() / 10;
    let (first, last) = (
        median(&times[..tenth]),
        median(&times[times.len() - tenth..]),
    );
    println!("{} processes: first {first:?}, last {last:?}", times.len());
    let _ = chain.sandbox().wsnap().arg("verify").run().expect(0);
}
