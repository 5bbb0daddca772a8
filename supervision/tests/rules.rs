//! The rules of `JOURNAL.md`, on a model program whose snapshots are numbers.

use std::time::Duration;

use wsnap_supervision::snapshots::RecordId;
use wsnap_supervision::{ATTEMPTS_MIN, Ancestor, DEATHS_MAX, Death, Journal, Kind, Verdict};

const WINDOW_MS: u64 = 10_000;

/// A program that is saved at an interval and crashes when `crashes` says so.
struct Model {
    journal: Journal,
    /// The good ones, newest first, each with a number.
    snapshots: Vec<Ancestor>,
    next_record: u64,
    interval_ms: u64,
    /// Where each attempt began, in milliseconds of age; 0 for the beginning.
    begins: Vec<u64>,
}

impl Model {
    fn new(interval_ms: u64) -> Self {
        Self {
            journal: Journal::default(),
            snapshots: Vec::new(),
            next_record: 0,
            interval_ms,
            begins: Vec::new(),
        }
    }

    /// Runs from the newest snapshot until the age `death_ms`, taking snapshots on the way. Returns whether it is given up.
    fn attempt(&mut self, kind: Kind, death_ms: u64) -> bool {
        let from = self.snapshots.first().copied();
        self.journal.begin(from, 0);
        let from_ms = from.map_or(0, |from| from.age_ms);
        self.begins.push(from_ms);
        let mut age_ms = from_ms + self.interval_ms;
        while age_ms < death_ms {
            self.next_record += 1;
            let record = RecordId(u128::from(self.next_record).to_be_bytes());
            self.snapshots.insert(0, Ancestor { record, age_ms });
            age_ms += self.interval_ms;
        }
        let death = Death::new(kind, "it died", 0, death_ms - from_ms);
        let window = Duration::from_millis(WINDOW_MS);
        let verdict = self.journal.died(death, &self.snapshots, window);
        let (Verdict::GoOn { rejected } | Verdict::GiveUp { rejected, .. }) = &verdict;
        self.snapshots
            .retain(|snapshot| !rejected.contains(&snapshot.record));
        let is_given_up = matches!(verdict, Verdict::GiveUp { .. });
        assert_eq!(self.journal.given_up().is_some(), is_given_up);
        is_given_up
    }
}

#[test]
fn a_program_that_always_crashes_at_one_place_walks_back_starts_over_and_is_given_up() {
    let mut model = Model::new(15_000);
    for _ in 0..6 {
        assert!(!model.attempt(Kind::Crash, 50_000));
    }
    assert!(model.attempt(Kind::Crash, 50_000));
    // It left snapshots at 15, 30 and 45 s.
    assert_eq!(model.begins, [0, 45_000, 30_000, 15_000, 0, 0, 0]);
    assert!(model.snapshots.is_empty());
}

#[test]
fn a_program_without_snapshots_is_tried_seven_times() {
    let mut model = Model::new(u64::MAX / 4);
    for attempt in 1..ATTEMPTS_MIN {
        assert!(!model.attempt(Kind::Crash, 3), "{attempt}");
    }
    assert!(model.attempt(Kind::Crash, 3));
}

#[test]
fn a_snapshot_that_is_retaken_on_the_way_back_does_not_make_a_circle() {
    // Saved every second, so that each attempt leaves new snapshots within the window before it crashes.
    let mut model = Model::new(1_000);
    let mut attempts = 0;
    while !model.attempt(Kind::Crash, 40_500) {
        attempts += 1;
        assert!(attempts <= 42, "{:?}", model.begins);
    }
    assert!(model.begins.windows(2).skip(1).all(|two| two[1] <= two[0]));
}

#[test]
fn a_program_that_gets_past_its_trouble_has_a_clean_sheet() {
    let mut model = Model::new(15_000);
    assert!(!model.attempt(Kind::Crash, 50_000));
    assert!(!model.attempt(Kind::Crash, 50_500));
    assert_eq!(model.snapshots[0].age_ms, 30_000);
    // Far beyond: a first crash again.
    assert!(!model.attempt(Kind::Crash, 200_000));
    assert_eq!(model.snapshots[0].age_ms, 195_000);
    assert_eq!(model.journal.failures(), 1);
}

#[test]
fn a_program_that_crashes_at_random_once_a_minute_comes_to_its_end() {
    let mut given_up = 0;
    for seed in 0..500 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut model = Model::new(15_000);
        let end_ms = 20 * 60_000;
        for attempt in 0.. {
            let from_ms = model.snapshots.first().map_or(0, |newest| newest.age_ms);
            let lives_ms = (-60_000.0 * rng.f64().ln()) as u64;
            if from_ms + lives_ms >= end_ms {
                break;
            }
            // As `--keep-saved` does by default.
            model.snapshots.truncate(10);
            if model.attempt(Kind::Crash, from_ms + lives_ms.max(1)) {
                given_up += 1;
                break;
            }
            assert!(attempt < 5_000, "seed {seed}: it comes to no end");
        }
    }
    assert!(given_up <= 5, "{given_up} of 500 were given up");
}

#[test]
fn three_attempts_in_a_row_that_end_with_their_process_tell_against_the_snapshot() {
    let mut model = Model::new(15_000);
    assert!(!model.attempt(Kind::Unknown, 50_000));
    for _ in 0..2 {
        assert!(!model.attempt(Kind::Unknown, 46_000));
        assert_eq!(model.snapshots[0].age_ms, 45_000);
    }
    assert!(!model.attempt(Kind::Unknown, 46_000));
    assert_eq!(model.snapshots[0].age_ms, 30_000);
    // One that leaves a newer snapshot is no loop.
    for death_ms in [46_000, 62_000, 77_000, 92_000, 107_000] {
        assert!(!model.attempt(Kind::Unknown, death_ms));
    }
    assert_eq!(model.snapshots[0].age_ms, 105_000);
}

#[test]
fn a_machine_that_goes_down_again_and_again_does_not_drive_a_program_back_to_its_beginning() {
    let mut model = Model::new(15_000);
    assert!(!model.attempt(Kind::Unknown, 160_000));
    let snapshots = model.snapshots.len();
    for _ in 0..100 {
        let newest = model.snapshots[0].age_ms;
        assert!(!model.attempt(Kind::Unknown, newest + 1000));
    }
    // After 3, 9, 21, 45 and 93 deaths.
    assert_eq!(model.snapshots.len(), snapshots - 5);
    // It has a good day.
    let newest = model.snapshots[0].age_ms;
    assert!(!model.attempt(Kind::Unknown, newest + 20_000));
    for _ in 0..2 {
        let newest = model.snapshots[0].age_ms;
        assert!(!model.attempt(Kind::Unknown, newest + 1000));
    }
    assert_eq!(model.snapshots.len(), snapshots - 4);
}

#[test]
fn a_start_from_the_beginning_is_never_held_against_a_program_that_is_killed() {
    let mut model = Model::new(u64::MAX / 4);
    for _ in 0..200 {
        assert!(!model.attempt(Kind::Unknown, 3));
    }
}

#[test]
fn a_program_that_crashes_here_and_there_without_getting_further_is_given_up_in_the_end() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut model = Model::new(100_000);
    let mut crashes = 1;
    // Always before its first snapshot, and never within the window of the crash before.
    let places = [15_000, 45_000, 75_000];
    let mut place = 0;
    while !model.attempt(Kind::Crash, places[place] + rng.u64(0..1000)) {
        place = (place + 1 + rng.usize(0..2)) % 3;
        crashes += 1;
        assert!(crashes <= DEATHS_MAX * 2);
    }
    assert!(crashes >= DEATHS_MAX);
}

#[test]
fn a_program_with_more_snapshots_than_attempts_is_tried_from_its_beginning_before_it_is_given_up() {
    let mut model = Model::new(1_000);
    let mut crashes = 1;
    while !model.attempt(Kind::Crash, 100_500) {
        crashes += 1;
        assert!(crashes <= DEATHS_MAX * 2, "{:?}", model.begins);
    }
    assert_eq!(crashes, DEATHS_MAX + 1);
    let resumed = &model.begins[1..model.begins.len() - 1];
    assert!(resumed.iter().all(|begin| *begin > 0), "{resumed:?}");
    assert_eq!(model.begins.last(), Some(&0));
}

#[test]
fn a_limit_of_time_tells_against_nothing() {
    let mut model = Model::new(1_000);
    // Shorter than the window in which crashes count as the same.
    for attempt in 1..50 {
        assert!(!model.attempt(Kind::OutOfTime, attempt * 5_000));
        assert_eq!(model.snapshots[0].age_ms, attempt * 5_000 - 1_000);
    }
    // Nor soon after a crash, or without any progress.
    let newest = model.snapshots[0].age_ms;
    assert!(!model.attempt(Kind::Crash, newest + 500));
    for _ in 0..100 {
        assert!(!model.attempt(Kind::OutOfTime, newest + 700));
    }
    assert_eq!(model.snapshots[0].age_ms, newest);
}
