//! Programs that are kept running: what they print in the end is what they print undisturbed under plain wasmtime.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

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
        traps_at: Some(100),
        ..JOB
    };
    let (sandbox, _) = sandbox(&job);
    // A few snapshots to walk back over, however fast the machine comes to the trap.
    let until_trap = |_| {
        let start = Instant::now();
        let bare = sandbox.wsnap().args(["run", "--bare", "job.wat"]).run();
        assert_eq!(bare.code(), Some(TRAPPED), "{}", bare.describe());
        start.elapsed().as_millis()
    };
    let shortest = (0..3).map(until_trap).min().expect("it was run");
    let every = format!("{}ms", shortest / 6);
    let flags = ["--continue", "--every", &every, "--crash-window", "10s"];
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
        .expect_one_error(TRAPPED, &["given up", "crashed"]);
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
    let (sandbox, expected) = sandbox(&Job { rounds: 800, ..JOB });
    for _ in 0..2 {
        // Longer than anybody waits for one that may just be ending.
        let mut both: Vec<Running> = (0..2)
            .map(|_| run(&sandbox, &["--continue", "--stop-at", "after=3s"]).start())
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
    starts_over_and_ends_right(&sandbox, &expected);
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

/// `wsnap run --continue …` went on from an image, and the output is right in the end.
fn goes_on_and_ends_right(sandbox: &Sandbox, expected: &[u8]) {
    let finished = run(sandbox, &["--continue"]).run().expect(0);
    assert!(
        finished.stderr.contains("going on from image"),
        "{}",
        finished.describe()
    );
    assert!(output(sandbox) == expected, "{}", finished.describe());
}

/// `wsnap run --continue …` started from the beginning, and the output is right in the end.
fn starts_over_and_ends_right(sandbox: &Sandbox, expected: &[u8]) {
    let finished = run(sandbox, &["--continue"]).run().expect(0);
    assert!(
        !finished.stderr.contains("going on"),
        "{}",
        finished.describe()
    );
    assert!(output(sandbox) == expected, "{}", finished.describe());
}

#[test]
fn a_time_limit_that_kills_loses_no_progress() {
    let (sandbox, expected) = sandbox(&JOB);
    let flags = ["--continue", "--every", "50ms", "--timeout", "700ms"];
    for restart in ["no", "on-crash"] {
        // The time is that of the process, which does not try again.
        let finished = run(&sandbox, &flags).args(["--restart", restart]).run();
        let finished = finished.expect(TRAPPED);
        assert!(
            finished.stderr.contains("time is up"),
            "{}",
            finished.describe()
        );
        assert!(
            !finished.stderr.contains("trying again"),
            "{}",
            finished.describe()
        );
    }
    goes_on_and_ends_right(&sandbox, &expected);
}

#[test]
fn an_image_that_cannot_be_written_where_a_flag_said_so_loses_no_progress() {
    let (sandbox, expected) = sandbox(&Job::new(60, 30_000_000));
    let command = sandbox
        .wsnap_with_limits()
        .args(["run", "--name", "job", "--output", "out"]);
    let flags = [
        "--continue",
        "--every",
        "100ms",
        "--stop-at",
        "after=1s",
        "job.wat",
    ];
    let mut running = command.args(flags).start();
    wait_until("saved", || saved(&sandbox) >= 1);
    running.limit_files(Some(1000));
    let _ = running.wait().expect(1);
    goes_on_and_ends_right(&sandbox, &expected);
}

#[test]
fn a_command_line_that_fails_destroys_neither_output_nor_progress() {
    let (sandbox, expected) = sandbox(&JOB);
    sandbox.write(
        "bad.wat",
        r#"(module (import "nowhere" "nothing" (func)) (func (export "_start")))"#,
    );
    let stop = ["--stop-at", "after=700ms"];
    let _ = run(&sandbox, &stop).run().expect(SUSPENDED);
    let printed = output(&sandbox);
    assert!(!printed.is_empty());
    let named = ["run", "--name", "job", "--output", "out"];
    for flags in [&[][..], &["--restart", "on-crash"], &["--continue"]] {
        let finished = sandbox.wsnap().args(named).args(flags).arg("bad.wat").run();
        let _ = finished.expect(1);
        assert_eq!(output(&sandbox), printed, "{flags:?}");
    }
    let resumed = sandbox.wsnap().args(["resume", "--output", "out"]);
    let resumed = resumed
        .args(["--tcplisten", "256.256.256.256:1", "job"])
        .run();
    assert_ne!(resumed.code(), Some(0));
    assert_eq!(output(&sandbox), printed);
    goes_on_and_ends_right(&sandbox, &expected);
}

#[test]
fn two_programs_that_come_to_one_state_go_on_by_their_own_records() {
    let (sandbox, expected) = sandbox(&JOB);
    let stop = ["--deterministic", "--stop-at", "safepoint=100000000"];
    let of = |name: &str, output: &str| {
        let command = sandbox
            .wsnap()
            .args(["run", "--name", name, "--output", output]);
        command.args(stop).arg("job.wat").run().expect(SUSPENDED)
    };
    let _ = of("job", "out");
    // The same state, but where it printed there is nothing of it.
    sandbox.write("other", "a line that is not the program's\n");
    let _ = of("other", "other");
    let other = sandbox
        .wsnap()
        .args(["run", "--name", "third", "--deterministic"]);
    let _ = other
        .args(&stop[1..])
        .arg("job.wat")
        .run()
        .expect(SUSPENDED);
    let images: Vec<Value> = log(&sandbox)
        .iter()
        .map(|entry| entry["image"].clone())
        .collect();
    assert!(
        images.len() == 3 && images.iter().all(|image| *image == images[0]),
        "{images:?}"
    );
    let finished = run(&sandbox, &["--continue", "--deterministic"])
        .run()
        .expect(0);
    assert!(
        finished.stderr.contains("going on from image"),
        "{}",
        finished.describe()
    );
    assert!(output(&sandbox) == expected, "{}", finished.describe());
}

#[test]
fn a_program_that_was_just_stopped_is_resumed_from_where_it_stopped() {
    let (sandbox, expected) = sandbox(&JOB);
    let mut running = run(&sandbox, &[]).start();
    for _ in 0..6 {
        wait_until("prints", || {
            sandbox.path("out").exists() && !output(&sandbox).is_empty()
        });
        wait_until("can be stopped", || {
            sandbox.wsnap().args(["snap", "--stop", "job"]).run().code() == Some(0)
        });
        // At once: the process may still be there.
        let next = sandbox
            .wsnap()
            .args(["resume", "--output", "out", "job"])
            .start();
        let _ = running.wait().expect(SUSPENDED);
        running = next;
    }
    let _ = running.wait().expect(0);
    assert_eq!(output(&sandbox), expected);
}

#[test]
fn a_program_that_finished_without_being_kept_running_is_not_gone_on_with() {
    for resumes in [false, true] {
        let (sandbox, expected) = sandbox(&JOB);
        if resumes {
            let _ = run(&sandbox, &["--stop-at", "after=500ms"])
                .run()
                .expect(SUSPENDED);
            let resume = ["resume", "--every", "100ms", "--output", "out", "job"];
            let _ = sandbox.wsnap().args(resume).run().expect(0);
        } else {
            let _ = run(&sandbox, &["--every", "100ms"]).run().expect(0);
        }
        assert!(saved(&sandbox) > 1);
        // Not even with an image before the latest one.
        let newest = log(&sandbox).pop().expect("one")["image"].clone();
        let newest = newest.as_str().expect("an id");
        let _ = sandbox
            .wsnap()
            .args(["rm", "--force", newest])
            .run()
            .expect(0);
        starts_over_and_ends_right(&sandbox, &expected);
    }
}

#[test]
fn a_signal_with_little_grace_ends_a_program_while_its_image_is_written() {
    let (sandbox, expected) = sandbox(&JOB);
    let flags = ["--continue", "--every", "50ms", "--grace", "300ms"];
    let mut running = run(&sandbox, &flags).start();
    wait_until("saved", || saved(&sandbox) >= 1);
    let lock = busy(&sandbox);
    running.signal(Signal::TERM);
    let finished = running.wait().expect(SUSPENDED);
    assert!(
        finished.stderr.contains("was not stored within"),
        "{}",
        finished.describe()
    );
    drop(lock);
    goes_on_and_ends_right(&sandbox, &expected);
}

#[test]
fn a_damaged_journal_is_only_in_the_way_of_who_goes_on_by_it() {
    let (sandbox, expected) = sandbox(&JOB);
    let journal = sandbox.store().join("jobs/job.journal");
    let stop = ["--continue", "--stop-at", "after=500ms"];
    let _ = run(&sandbox, &stop).run().expect(SUSPENDED);
    fs::write(&journal, "?").expect("written");
    run(&sandbox, &["--continue"])
        .run()
        .expect_one_error(1, &["job.journal", "without --continue"]);
    let resume = [
        "resume",
        "--output",
        "out",
        "--stop-at",
        "after=300ms",
        "job",
    ];
    let _ = sandbox.wsnap().args(resume).run().expect(SUSPENDED);
    goes_on_and_ends_right(&sandbox, &expected);
    fs::write(&journal, "?").expect("written");
    let _ = run(&sandbox, &[]).run().expect(0);
    assert_eq!(output(&sandbox), expected);
}

#[test]
fn a_damaged_record_costs_one_image_and_stops_nothing() {
    let (sandbox, expected) = sandbox(&JOB);
    let every = ["--every", "50ms", "--keep-saved", "3"];
    let flags = [&["--continue", "--stop-at", "after=500ms"][..], &every].concat();
    let _ = run(&sandbox, &flags).run().expect(SUSPENDED);
    let damage = |id: &str| {
        let path = sandbox.store().join(format!("records/{id}.json"));
        fs::write(path, "?").expect("written");
    };
    let newest = log(&sandbox).pop().expect("one");
    damage(newest["record"].as_str().expect("an id"));
    let flags = [&["--continue"][..], &every].concat();
    let finished = run(&sandbox, &flags).run().expect(0);
    assert!(
        finished.stderr.contains("going on from image"),
        "{}",
        finished.describe()
    );
    assert!(output(&sandbox) == expected, "{}", finished.describe());
    let records = fs::read_dir(sandbox.store().join("records"))
        .expect("records")
        .count();
    assert!(
        records <= 6,
        "{records} records: nothing has been thinned out"
    );
}

#[test]
fn an_image_that_lost_its_record_is_resumed_without_cutting_the_output() {
    let (sandbox, expected) = sandbox(&JOB);
    let _ = run(&sandbox, &["--stop-at", "after=500ms"])
        .run()
        .expect(SUSPENDED);
    for record in fs::read_dir(sandbox.store().join("records")).expect("records") {
        fs::remove_file(record.expect("a record").path()).expect("removed");
    }
    let _ = sandbox
        .wsnap()
        .args(["resume", "--output", "out", "job"])
        .run()
        .expect(0);
    assert_eq!(output(&sandbox), expected);
}

/// Nothing can be stored as long as this is there, as while garbage is collected.
fn busy(sandbox: &Sandbox) -> fs::File {
    let lock = fs::File::open(sandbox.store().join("lock")).expect("the store's lock");
    lock.lock().expect("locked");
    lock
}

#[test]
fn a_program_whose_last_image_is_still_written_goes_on_from_that() {
    let (sandbox, expected) = sandbox(&JOB);
    let running = run(&sandbox, &["--every", "50ms"]).start();
    wait_until("saved", || saved(&sandbox) >= 1);
    let before = output(&sandbox).len();
    wait_until("got further", || output(&sandbox).len() > before + 200);
    let lock = busy(&sandbox);
    let mut asking = sandbox.wsnap().args(["snap", "--all", "--stop"]).start();
    let list = sandbox.store().join("running/rollout.stopped");
    wait_until("it is written down", || list.exists());
    thread::sleep(Duration::from_millis(200));
    asking.signal(Signal::KILL);
    let resuming = sandbox.wsnap().args(["resume", "--all"]).start();
    thread::sleep(Duration::from_millis(500));
    drop(lock);
    let _ = running.wait().expect(SUSPENDED);
    let printed = output(&sandbox).len();
    let _ = resuming.wait().expect(0);
    wait_until("goes on", || output(&sandbox).len() != printed);
    assert!(output(&sandbox).len() > printed, "it has gone back");
    wait_until("ended", || output(&sandbox) == expected);
}

#[test]
fn an_image_that_is_written_while_its_program_crashes_belongs_to_the_attempt_before() {
    let job = Job {
        traps_at: Some(180),
        ..JOB
    };
    let (sandbox, _) = sandbox(&job);
    let running = run(&sandbox, &["--restart", "on-crash", "--continue"]).start();
    wait_until("prints", || {
        sandbox.path("out").exists() && output(&sandbox).len() > 90
    });
    let _ = sandbox.wsnap().args(["snap", "job"]).run().expect(0);
    let lock = busy(&sandbox);
    let snapping = sandbox.wsnap().args(["snap", "job"]).start();
    wait_until("has crashed", || running.stderr().contains("unreachable"));
    thread::sleep(Duration::from_millis(500));
    drop(lock);
    let _ = snapping.wait().expect(0);
    let finished = running.wait().expect(TRAPPED);
    assert!(
        finished.stderr.contains("given up"),
        "{}",
        finished.describe()
    );
    assert!(
        !finished.stderr.contains("had written"),
        "{}",
        finished.describe()
    );
}

#[test]
fn a_program_that_was_resumed_under_a_new_name_goes_back_to_the_image_that_it_came_from() {
    let (sandbox, expected) = sandbox(&JOB);
    let command = sandbox
        .wsnap()
        .args(["run", "--output", "out", "--id-file", "id"]);
    let _ = command
        .args(["--stop-at", "after=500ms", "job.wat"])
        .run()
        .expect(SUSPENDED);
    let image = fs::read_to_string(sandbox.path("id")).expect("an id");
    let resume = [
        "resume",
        "--name",
        "job",
        "--output",
        "out",
        "--stop-at",
        "after=300ms",
    ];
    let _ = sandbox
        .wsnap()
        .args(resume)
        .arg(image.trim())
        .run()
        .expect(SUSPENDED);
    let newest = log(&sandbox).pop().expect("one")["image"].clone();
    let newest = newest.as_str().expect("an id");
    assert_ne!(newest, image.trim());
    fs::remove_file(sandbox.store().join("images").join(newest)).expect("an image");
    goes_on_and_ends_right(&sandbox, &expected);
}

#[test]
fn a_program_that_has_come_to_its_end_is_not_on_the_list_of_those_to_go_on_with() {
    let (sandbox, expected) = sandbox(&Job::new(10, 1_000_000));
    for _ in 0..25 {
        let running = run(&sandbox, &["--continue"]).start();
        thread::sleep(Duration::from_micros(fastrand::u64(5_000..60_000)));
        let stopped = sandbox.wsnap().args(["snap", "--all", "--stop"]).run();
        let code = running.wait().code();
        let resumed = sandbox.wsnap().args(["resume", "--all"]).run();
        match code {
            Some(0) => assert!(
                resumed.stderr.contains("no program"),
                "{} {}",
                stopped.describe(),
                resumed.describe()
            ),
            _ => wait_until("ended", || output(&sandbox) == expected),
        }
        assert_eq!(output(&sandbox), expected);
        // Nor is it run by others meanwhile.
        wait_until("nothing runs", || {
            let ps = json(sandbox.wsnap().args(["ps", "--json"]).run());
            ps.as_array().is_some_and(Vec::is_empty)
        });
    }
}

#[test]
fn a_signal_after_the_programs_own_end_changes_nothing() {
    let (sandbox, expected) = sandbox(&JOB);
    let flags = ["--continue", "--every", "50ms", "--grace", "300ms"];
    let mut running = run(&sandbox, &flags).start();
    wait_until("saved", || saved(&sandbox) >= 1);
    let lock = busy(&sandbox);
    let snapping = sandbox.wsnap().args(["snap", "job"]).start();
    wait_until("has printed all", || output(&sandbox) == expected);
    thread::sleep(Duration::from_millis(200));
    running.signal(Signal::TERM);
    thread::sleep(Duration::from_secs(1));
    drop(lock);
    let _ = running.wait().expect(0);
    let _ = snapping.wait();
    let finished = run(&sandbox, &["--continue"]).run().expect(0);
    assert!(
        !finished.stderr.contains("going on"),
        "{}",
        finished.describe()
    );
}

#[test]
fn a_program_that_comes_to_its_end_is_not_started_again_by_who_waits_for_its_name() {
    let (sandbox, expected) = sandbox(&Job::new(60, 10_000_000));
    let first = run(&sandbox, &["--continue"]).start();
    wait_until("prints", || {
        sandbox.path("out").exists() && !output(&sandbox).is_empty()
    });
    let second = run(&sandbox, &["--continue"]).start();
    let _ = first.wait().expect(0);
    let finished = second.wait();
    assert_eq!(finished.code(), Some(1), "{}", finished.describe());
    assert_eq!(output(&sandbox), expected);
}
