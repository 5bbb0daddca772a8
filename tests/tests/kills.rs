//! Programs, clients and housekeeping that `kill -9` ends at any moment: what was reported is never lost.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::Signal;
use wsnap_tests::chain::seed;
use wsnap_tests::guests::{Run, run};
use wsnap_tests::wsnap::{Finished, Running, SUSPENDED, Sandbox};

/// So many programs are killed. `WSNAP_TEST_KILLS` changes it.
const KILLS: u64 = 25;
const CLIENTS: u64 = 2;
/// A program lives so long at most, in microseconds.
const LIFE_MAX_US: u64 = 400_000;
const PAUSE_MAX_US: u64 = 15_000;
const NAME: &str = "digits";

fn kills() -> u64 {
    let given = std::env::var("WSNAP_TEST_KILLS");
    given.map_or(KILLS, |text| text.parse().expect("a number"))
}

/// A second of printing digits.
fn digits() -> Run {
    run("pi").with_args(&["12000"])
}

fn pause(rng: &mut Rng, longest_us: u64) {
    thread::sleep(Duration::from_micros(rng.u64(..longest_us)));
}

/// The ids that somebody has printed, each on a whole line.
fn ids(finished: &Finished) -> Vec<String> {
    let text = finished.text();
    let whole = text
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'));
    whole.map(str::to_owned).collect()
}

/// It was killed, succeeded, or failed with one message.
fn check_end(finished: Finished) -> Finished {
    match finished.code() {
        None => (),
        Some(0 | SUSPENDED) => assert!(
            !finished.stderr.contains("panicked"),
            "{}",
            finished.describe()
        ),
        Some(_) => finished.clone().expect_one_error(1, &[]),
    }
    finished
}

/// Waits for the end of a process, or kills it before.
fn end(mut process: Running, rng: &mut Rng) -> Finished {
    if rng.u8(..4) == 0 {
        pause(rng, PAUSE_MAX_US);
        process.signal(Signal::KILL);
    }
    check_end(process.wait())
}

/// A program's life: its start, snapshots from several clients and housekeeping at once, and its sudden end. Returns what
/// was reported.
fn live_and_die(sandbox: &Sandbox, latest: Option<&String>, rng: &mut Rng) -> BTreeSet<String> {
    let reported = Mutex::new(BTreeSet::new());
    let is_over = AtomicBool::new(false);
    let command = match latest {
        Some(id) => sandbox.wsnap().args(["resume", "--name", NAME, id]),
        None => {
            let command = sandbox.wsnap().args(["run", "--name", NAME]);
            command.program(&digits())
        }
    };
    let mut program = command.start();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let mut rng = rng.fork();
            let (reported, is_over) = (&reported, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let finished = end(sandbox.wsnap().args(["snap", NAME]).start(), &mut rng);
                    reported.lock().unwrap().extend(ids(&finished));
                    pause(&mut rng, PAUSE_MAX_US);
                }
            });
        }
        let mut housekeeper = rng.fork();
        let is_over = &is_over;
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                pause(&mut housekeeper, 3 * PAUSE_MAX_US);
                let _ = end(sandbox.wsnap().arg("gc").start(), &mut housekeeper);
            }
        });
        pause(rng, LIFE_MAX_US);
        program.signal(Signal::KILL);
        let _ = check_end(program.wait());
        is_over.store(true, Ordering::Relaxed);
    });
    reported.into_inner().unwrap()
}

#[test]
fn what_was_reported_before_a_kill_resumes_and_the_store_stays_valid() {
    let seed = seed();
    println!("WSNAP_TEST_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let sandbox = Sandbox::new();
    let command = sandbox.wsnap().args(["run", "--bare"]).program(&digits());
    let whole = command.run().expect(0).text();

    let mut reported = BTreeSet::new();
    let mut latest = None;
    for _ in 0..kills() {
        let new = live_and_die(&sandbox, latest.as_ref(), &mut rng);
        // Some go on from what was reported, some from the start.
        latest = new.iter().next().cloned().filter(|_| rng.bool());
        reported.extend(new);
        let listed = sandbox.wsnap().args(["ps", "--json"]).run().expect(0);
        assert_eq!(listed.text().trim(), "[]", "{}", listed.describe());
    }
    println!("{} snapshots were reported", reported.len());
    assert!(reported.len() as u64 > kills() / 4, "{}", reported.len());
    let _ = sandbox.wsnap().arg("verify").run().expect(0);
    let _ = sandbox.wsnap().arg("gc").run().expect(0);
    let _ = sandbox.wsnap().arg("verify").run().expect(0);
    for id in &reported {
        let rest = sandbox.wsnap().args(["resume", id]).run().expect(0).text();
        assert!(
            !rest.is_empty() && whole.ends_with(&rest),
            "{id} goes on with {rest}"
        );
    }
    // Without a grace period only the program's latest snapshot and its ancestors stay.
    let _ = sandbox
        .wsnap()
        .args(["gc", "--grace", "0s"])
        .run()
        .expect(0);
    let _ = sandbox.wsnap().arg("verify").run().expect(0);
    let rest = sandbox
        .wsnap()
        .args(["resume", NAME])
        .run()
        .expect(0)
        .text();
    assert!(whole.ends_with(&rest));
    for folder in ["running", "tmp"] {
        let left: Vec<_> = std::fs::read_dir(sandbox.store().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != "lock")
            .collect();
        assert!(left.is_empty(), "{folder}: {left:?}");
    }
}
