//! Programs that are kept running: what they print in the end is what they print undisturbed under plain wasmtime.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use wsnap_tests::guests::run as run_of;
use wsnap_tests::jobs::Job;
use wsnap_tests::wsnap::{Finished, Running, SUSPENDED, Sandbox, TRAPPED, Wsnap};

/// Lines at about a hundred a second.
const JOB: Job = Job::new(200, 10_000_000);

/// A sandbox with the job, and what it prints under plain wasmtime.
fn sandbox(job: &Job) -> (Sandbox, Vec<u8>) {
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", job.wat());
    sandbox.write("undisturbed.wat", job.undisturbed().wat());
    let bare = sandbox.wsnap().args(["run", "--bare", "undisturbed.wat"]);
    let expected = bare.run().expect(0).stdout;
    assert_eq!(expected.len(), job.rounds as usize * 9);
    (sandbox, expected)
}

/// `wsnap run --name job --output out …`.
fn run(sandbox: &Sandbox, flags: &[&str]) -> Wsnap {
    let command = sandbox
        .wsnap()
        .args(["run", "--name", "job", "--output", "out"]);
    command.args(flags).arg("job.wat")
}

fn output(sandbox: &Sandbox) -> Vec<u8> {
    fs::read(sandbox.path("out")).expect("the output file")
}

fn json(finished: Finished) -> Value {
    serde_json::from_slice(&finished.expect(0).stdout).expect("JSON")
}

fn log(sandbox: &Sandbox) -> Vec<Value> {
    let log = json(sandbox.wsnap().args(["log", "--json"]).run());
    log.as_array().expect("a list").clone()
}

fn saved(sandbox: &Sandbox) -> usize {
    log(sandbox).len()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("never {what}");
}

fn kill(mut running: Running) {
    running.signal(Signal::KILL);
    let finished = running.wait();
    assert_eq!(finished.code(), None, "{}", finished.describe());
}

#[test]
fn a_program_that_is_killed_again_and_again_ends_with_the_right_output() {
    let (sandbox, expected) = sandbox(&JOB);
    let mut kills = 0;
    let finished = loop {
        let mut running = run(
            &sandbox,
            &["--continue", "--every", "100ms", "--keep-saved", "5"],
        )
        .start();
        thread::sleep(Duration::from_millis(fastrand::u64(200..900)));
        if running.has_ended() || kills == 12 {
            break running.wait();
        }
        kill(running);
        kills += 1;
    };
    let _ = finished.expect(0);
    assert!(kills > 0);
    assert!(
        output(&sandbox) == expected,
        "the output differs after {kills} kills"
    );
    let stays = log(&sandbox).len();
    assert!(
        stays <= 6,
        "{stays} snapshots are kept instead of 5 and one that is new"
    );
    let _ = sandbox.wsnap().arg("verify").run().expect(0);
}

#[test]
fn a_program_that_crashes_at_random_ends_with_the_right_output() {
    let job = Job {
        traps_with: u32::MAX / 40,
        ..JOB
    };
    let (sandbox, expected) = sandbox(&job);
    let flags = [
        "--restart",
        "on-crash",
        "--every",
        "60ms",
        "--crash-window",
        "40ms",
    ];
    let finished = run(&sandbox, &flags).run();
    let finished = finished.expect(0);
    assert!(output(&sandbox) == expected, "{}", finished.describe());
    // It would have to be very lucky not to crash at all.
    assert!(finished.trap().is_some(), "{}", finished.describe());
}

#[test]
fn a_program_that_traps_at_once_walks_back_starts_over_and_is_given_up_across_restarts_of_its_supervisor()
 {
    let job = Job {
        traps_at: Some(60),
        ..JOB
    };
    let (sandbox, _) = sandbox(&job);
    let flags = ["--continue", "--every", "80ms", "--crash-window", "10s"];
    // A supervisor that lives for one attempt: whoever runs the same line again does what this one would have done.
    let mut rejected = Vec::new();
    let mut gone_on_from = Vec::new();
    let mut attempts = 0;
    loop {
        let finished = run(&sandbox, &flags).run();
        let code = finished.code();
        assert_eq!(code, Some(TRAPPED), "{}", finished.describe());
        attempts += 1;
        let line = finished
            .stderr
            .lines()
            .find(|line| line.starts_with("going on from image"));
        gone_on_from
            .push(line.map(|line| line.split([' ', ',']).nth(4).expect("an id").to_owned()));
        rejected.push(finished.stderr.matches("is rejected").count());
        if finished.stderr.contains("given up") {
            break;
        }
        assert!(attempts < 100, "{}", finished.describe());
    }
    // Its first crash tells against nothing; from then on each attempt goes on from an older image than the one before.
    assert_eq!(rejected[0], 0);
    assert!(rejected[1..].iter().all(|count| *count > 0), "{rejected:?}");
    assert!(
        gone_on_from[0].is_none() && gone_on_from[attempts - 1].is_none(),
        "{gone_on_from:?}"
    );
    let resumed: Vec<_> = gone_on_from[1..].iter().flatten().collect();
    let order: Vec<String> = log(&sandbox)
        .iter()
        .map(|entry| entry["image"].as_str().expect("an id")[..12].to_owned())
        .collect();
    let places: Vec<_> = resumed
        .iter()
        .map(|id| {
            order
                .iter()
                .position(|other| other == *id)
                .expect("in the log")
        })
        .collect();
    assert!(
        places.len() >= 2 && places.is_sorted_by(|left, right| left > right),
        "{places:?}"
    );
    assert!(
        log(&sandbox)
            .iter()
            .all(|entry| entry["rejected"]["reason"].is_string())
    );
    // What has been given up is not tried again, and says so.
    run(&sandbox, &flags)
        .run()
        .expect_one_error(1, &["given up", "crashed"]);
    let table = sandbox.wsnap().arg("log").run().expect(0).text();
    assert!(
        table.contains('×') && table.contains("unreachable"),
        "{table}"
    );
    let inspected = json(
        sandbox
            .wsnap()
            .args(["inspect", "--json", resumed[0]])
            .run(),
    );
    assert!(
        inspected["rejected"][0]["reason"]
            .as_str()
            .expect("a text")
            .contains("unreachable")
    );
    // A start by hand is a new run.
    let finished = run(&sandbox, &["--stop-at", "after=100ms"])
        .run()
        .expect(SUSPENDED);
    drop(finished);
    let finished = run(&sandbox, &flags).run();
    assert!(
        finished.stderr.contains("going on from image"),
        "{}",
        finished.describe()
    );
}

#[test]
fn a_supervisor_that_is_killed_in_between_does_not_try_rejected_images_again() {
    let job = Job {
        traps_at: Some(60),
        ..JOB
    };
    let (sandbox, _) = sandbox(&job);
    let flags = ["--continue", "--restart", "on-crash", "--every", "60ms"];
    let mut tried: Vec<String> = Vec::new();
    let mut attempts = 0;
    loop {
        let mut running = run(&sandbox, &flags).start();
        let killed_at = fastrand::usize(1..3);
        wait_until("rejects anything", || {
            running.stderr().matches("is rejected").count() >= killed_at || running.has_ended()
        });
        let is_over = running.has_ended();
        let stderr = running.stderr();
        let went_on = stderr
            .lines()
            .filter_map(|line| line.strip_prefix("going on from image "));
        tried.extend(went_on.map(|line| line[..12].to_owned()));
        if is_over {
            let finished = running.wait();
            assert!(
                finished.stderr.contains("given up"),
                "{}",
                finished.describe()
            );
            break;
        }
        kill(running);
        attempts += 1;
        assert!(attempts < 60, "{tried:?}");
    }
    let rejected: Vec<_> = log(&sandbox);
    assert!(
        rejected.iter().all(|entry| !entry["rejected"].is_null()),
        "{rejected:?}"
    );
}

#[test]
fn of_two_processes_that_continue_one_name_one_wins_and_the_other_names_it() {
    let (sandbox, expected) = sandbox(&JOB);
    for _ in 0..3 {
        let mut both: Vec<Running> = (0..2)
            .map(|_| run(&sandbox, &["--continue", "--stop-at", "after=600ms"]).start())
            .collect();
        let pids = both.iter_mut().map(Running::pid).collect::<Vec<_>>();
        let finished: Vec<Finished> = both.into_iter().map(Running::wait).collect();
        let winner = finished
            .iter()
            .position(|one| one.code() == Some(SUSPENDED) || one.code() == Some(0));
        let winner = winner.unwrap_or_else(|| panic!("{finished:?}"));
        let loser = finished[1 - winner].clone();
        let holder = format!("process {}", pids[winner]);
        loser.expect_one_error(1, &["already running", &holder]);
    }
    let _ = run(&sandbox, &["--continue"]).run().expect(0);
    assert_eq!(output(&sandbox), expected);
}

#[test]
fn a_program_that_only_waits_is_saved_once() {
    let job = Job {
        rounds: 1,
        steps: 1,
        sleep_ms: 100_000_000,
        ..JOB
    };
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", job.wat());
    let mut running = run(&sandbox, &["--every", "20ms", "--max-saving", "100"]).start();
    wait_until("saved", || saved(&sandbox) >= 1);
    // Its state at the first snapshot may have been one before it slept.
    thread::sleep(Duration::from_millis(500));
    assert!(saved(&sandbox) <= 2);
    running.signal(Signal::TERM);
    let _ = running.wait().expect(SUSPENDED);
}

#[test]
fn what_a_program_exits_with_is_a_failure_only_if_asked() {
    let job = Job {
        rounds: 2,
        steps: 1000,
        exit_code: 3,
        ..JOB
    };
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", job.wat());
    let finished = run(&sandbox, &["--restart", "on-crash"]).run().expect(3);
    assert!(
        !finished.stderr.contains("trying again"),
        "{}",
        finished.describe()
    );
    let finished = run(&sandbox, &["--restart", "on-failure"]).run().expect(3);
    assert_eq!(
        finished.stderr.matches("trying again").count(),
        6,
        "{}",
        finished.describe()
    );
    assert!(
        finished.stderr.contains("given up"),
        "{}",
        finished.describe()
    );
}

#[test]
fn a_damaged_image_is_rejected_and_the_one_before_is_tried() {
    let (sandbox, expected) = sandbox(&JOB);
    for _ in 0..2 {
        let finished = run(&sandbox, &["--continue", "--stop-at", "after=300ms"]).run();
        let _ = finished.expect(SUSPENDED);
    }
    let log = log(&sandbox);
    let newest = log[1]["image"].as_str().expect("an id");
    let path = sandbox.store().join("images").join(newest);
    let mut bytes = fs::read(&path).expect("the manifest");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::remove_file(&path).expect("removed");
    fs::write(&path, bytes).expect("written");
    let finished = run(&sandbox, &["--continue"]).run().expect(0);
    let message = format!("image {} is rejected", &newest[..12]);
    assert!(
        finished.stderr.contains(&message),
        "{}",
        finished.describe()
    );
    assert_eq!(output(&sandbox), expected);
}

#[test]
fn a_finished_program_is_started_from_the_beginning_by_the_same_command_line() {
    let (sandbox, expected) = sandbox(&JOB);
    for _ in 0..2 {
        let stopped = run(&sandbox, &["--continue", "--stop-at", "after=300ms"]).run();
        let _ = stopped.expect(SUSPENDED);
        let finished = run(&sandbox, &["--continue"]).run().expect(0);
        assert!(
            finished.stderr.contains("going on from image"),
            "{}",
            finished.describe()
        );
        assert_eq!(output(&sandbox), expected);
    }
    let finished = run(&sandbox, &["--continue"]).run().expect(0);
    assert!(
        !finished.stderr.contains("going on"),
        "{}",
        finished.describe()
    );
    assert_eq!(output(&sandbox), expected);
}

#[test]
fn a_program_that_goes_on_from_an_older_image_prints_nothing_twice() {
    let (sandbox, expected) = sandbox(&JOB);
    let mut running = run(&sandbox, &["--every", "50ms"]).start();
    wait_until("saved twice", || saved(&sandbox) >= 2);
    running.signal(Signal::TERM);
    let _ = running.wait().expect(SUSPENDED);
    let oldest = log(&sandbox)[0]["image"]
        .as_str()
        .expect("an id")
        .to_owned();
    let resumed = sandbox.wsnap().args(["resume", "--output", "out", &oldest]);
    let _ = resumed.run().expect(0);
    assert_eq!(output(&sandbox), expected);
}

#[test]
fn output_that_is_lost_is_not_papered_over() {
    let (sandbox, _) = sandbox(&JOB);
    let _ = run(&sandbox, &["--stop-at", "after=500ms"])
        .run()
        .expect(SUSPENDED);
    fs::write(sandbox.path("out"), "short").expect("written");
    let finished = run(&sandbox, &["--continue"]).run();
    finished.expect_one_error(1, &["out", "5 bytes"]);
}

#[test]
fn a_signal_with_little_grace_ends_the_program_and_the_image_before_counts() {
    let (sandbox, expected) = sandbox(&JOB);
    let mut running = run(
        &sandbox,
        &["--continue", "--every", "50ms", "--grace", "0s"],
    )
    .start();
    wait_until("saved", || saved(&sandbox) >= 1);
    running.signal(Signal::TERM);
    let _ = running.wait().expect(SUSPENDED);
    let _ = run(&sandbox, &["--continue"]).run().expect(0);
    assert_eq!(output(&sandbox), expected);
}

#[test]
fn a_program_can_ask_how_often_it_was_resumed_also_when_it_came_to_nothing() {
    // Prints a dot for each resume it knows of, and traps as long as there are fewer than three.
    let sandbox = Sandbox::new();
    sandbox.write(
        "job.wat",
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wsnap" "resume_count" (func $resumes (result i64)))
  (import "wsnap" "snapshot" (func $snapshot (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "\10\00\00\00")
  (data (i32.const 16) "....................")
  (func (export "_start")
    (drop (call $snapshot))
    (if (i64.lt_u (call $resumes) (i64.const 3)) (then (unreachable)))
    (i32.store (i32.const 12) (i32.wrap_i64 (call $resumes)))
    (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 40)))))"#,
    );
    let flags = ["--restart", "on-crash", "--crash-window", "0s"];
    let _ = run(&sandbox, &flags).run().expect(0);
    assert_eq!(output(&sandbox), b"...");
}

#[test]
fn a_signal_ends_a_program_at_once_that_is_still_compiled() {
    let sandbox = Sandbox::new();
    let quickjs = run_of("quickjs").module_path().expect("a module");
    let command = sandbox
        .wsnap()
        .args(["run", "--name", "job", "--continue", "--cache", "cache"]);
    let mut running = command.arg(quickjs).args(["-e", "1"]).start();
    // It is in the register before it is compiled.
    wait_until("runs", || {
        let ps = json(sandbox.wsnap().args(["ps", "--json"]).run());
        ps.as_array().is_some_and(|programs| !programs.is_empty())
    });
    running.signal(Signal::TERM);
    let finished = running.wait().expect(SUSPENDED);
    assert!(
        finished.stderr.contains("before the program ran"),
        "{}",
        finished.describe()
    );
    let cached = fs::read_dir(sandbox.path("cache")).map_or(0, Iterator::count);
    assert_eq!(cached, 0, "it was compiled to the end");
}
