//! A hundred programs of mixed priority share two slots while they are killed at random.

use std::fs;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;
use serde_json::Value;
use wsnap_tests::jobs::Job;
use wsnap_tests::wsnap::{Running, Sandbox, TRAPPED};

const PROGRAMS: usize = 100;
const SLOTS: &str = "2";
/// The programs of this priority are urgent: nobody is more so.
const URGENT: i32 = 9;
/// So many programs are killed: a few that were killed all the time would come to no end.
const KILLS: usize = 90;
/// Whoever waits longer has been forgotten.
const TIME_MAX: Duration = Duration::from_secs(240);

/// Prints a line about every 10 ms.
const JOB: Job = Job::new(20, 10_000_000);

struct Program {
    number: usize,
    priority: i32,
    running: Running,
}

impl Program {
    fn start(sandbox: &Sandbox, number: usize, priority: i32) -> Self {
        let (name, output) = (format!("p{number}"), format!("out{number}"));
        let running = sandbox
            .wsnap()
            .args(["run", "--continue", "--name", &name, "--output", &output])
            .args(["--slots", "slots", "--priority", &priority.to_string()])
            .arg("job.wat")
            .start();
        Self {
            number,
            priority,
            running,
        }
    }
}

fn make_slots(sandbox: &Sandbox, count: &str) {
    let made = sandbox.wsnap().args(["slots", "slots", "--count", count]);
    let _ = made.run().expect(0);
}

fn states(sandbox: &Sandbox) -> Vec<(u64, String)> {
    let report = sandbox.wsnap().args(["slots", "slots", "--json"]).run();
    let report: Value = serde_json::from_slice(&report.expect(0).stdout).expect("JSON");
    let programs = report["programs"].as_array().expect("a list");
    programs
        .iter()
        .map(|program| {
            let state = program["state"].as_str().expect("a text");
            (program["pid"].as_u64().expect("a number"), state.to_owned())
        })
        .collect()
}

#[test]
fn a_hundred_programs_share_two_slots_and_end_right_whoever_is_killed() {
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", JOB.wat());
    let expected = sandbox.wsnap().args(["run", "--bare", "job.wat"]).run();
    let expected = expected.expect(0).stdout;
    let _ = sandbox.wsnap().args(["compile", "job.wat"]).run().expect(0);
    make_slots(&sandbox, SLOTS);
    let mut rng = Rng::new();
    let mut programs: Vec<Program> = (0..PROGRAMS)
        .map(|number| Program::start(&sandbox, number, rng.i32(0..5)))
        .collect();
    let start = Instant::now();
    let (mut kills, mut restarts, mut done) = (0, 0, 0);
    let mut preempted = 0;
    while !programs.is_empty() {
        assert!(
            start.elapsed() < TIME_MAX,
            "{} wait for ever",
            programs.len()
        );
        let running = states(&sandbox);
        let running = running
            .iter()
            .filter(|(_, state)| state != "waiting")
            .count();
        assert!(running <= 2, "{running} run at once");
        if kills < KILLS && rng.u32(0..3) == 0 {
            let victim = rng.usize(0..programs.len());
            if !programs[victim].running.has_ended() {
                programs[victim].running.signal(Signal::KILL);
                kills += 1;
            }
        }
        let mut index = 0;
        while index < programs.len() {
            if !programs[index].running.has_ended() {
                index += 1;
                continue;
            }
            let program = programs.swap_remove(index);
            let finished = program.running.wait();
            if finished.code().is_some() {
                let finished = finished.expect(0);
                let output = sandbox.path(&format!("out{}", program.number));
                let output = fs::read(output).expect("its output");
                assert!(
                    output == expected,
                    "{}: {}",
                    program.number,
                    finished.describe()
                );
                done += 1;
            } else {
                // Some come back more urgent, and make others wait.
                let priority = if rng.bool() { URGENT } else { program.priority };
                programs.push(Program::start(&sandbox, program.number, priority));
                restarts += 1;
            }
        }
    }
    assert_eq!(done, PROGRAMS);
    assert!(kills > 10 && restarts > 10, "{kills} kills");
    let log = sandbox.wsnap().args(["log", "--json"]).run().expect(0);
    let log: Vec<Value> = serde_json::from_slice(&log.stdout).expect("JSON");
    preempted += log
        .iter()
        .filter(|entry| entry["trigger"] == "preempted")
        .count();
    assert!(preempted > 0, "nobody had to make room");
    assert_eq!(states(&sandbox), []);
}

#[test]
fn an_urgent_program_runs_at_once_and_the_one_that_made_room_goes_on() {
    let long = Job { rounds: 100, ..JOB };
    let sandbox = Sandbox::new();
    sandbox.write("long.wat", long.wat());
    sandbox.write("job.wat", JOB.wat());
    let bare = |name: &str| {
        let finished = sandbox.wsnap().args(["run", "--bare", name]).run();
        finished.expect(0).stdout
    };
    let (long_output, output) = (bare("long.wat"), bare("job.wat"));
    let _ = sandbox.wsnap().args(["compile", "job.wat"]).run().expect(0);
    make_slots(&sandbox, "1");
    let flags = ["run", "--name", "long", "--slots", "slots", "long.wat"];
    let mut background = sandbox.wsnap().args(flags).start();
    background.wait_for("has printed a line", |output| !output.is_empty());
    let mut waits = Vec::new();
    for number in 0..3 {
        let since = Instant::now();
        let mut urgent = sandbox
            .wsnap()
            .args(["run", "--slots", "slots", "--priority", "1", "job.wat"])
            .start();
        urgent.wait_for("has printed a line", |output| !output.is_empty());
        waits.push(since.elapsed());
        assert!(!background.has_ended(), "{number}: it was to make room");
        let printed = background.stdout();
        assert_eq!(urgent.wait().expect(0).stdout, output);
        assert_eq!(printed.len() % 9, 0);
        background.wait_for("goes on", |output| output.len() > printed.len());
    }
    // How long from the command line to the first line, the one program's making room included; for people to see.
    println!("first lines of urgent programs after {waits:?}");
    assert_eq!(background.wait().expect(0).stdout, long_output);
}

#[test]
fn a_program_that_cannot_be_stored_makes_room_all_the_same_and_goes_on() {
    let long = Job { rounds: 100, ..JOB };
    let sandbox = Sandbox::new();
    sandbox.write("long.wat", long.wat());
    sandbox.write("job.wat", JOB.wat());
    let expected = sandbox.wsnap().args(["run", "--bare", "long.wat"]).run();
    let expected = expected.expect(0).stdout;
    make_slots(&sandbox, "1");
    let flags = ["run", "--name", "long", "--slots", "slots", "long.wat"];
    let mut background = sandbox.wsnap_with_limits().args(flags).start();
    background.wait_for("has printed a line", |output| !output.is_empty());
    // As on a full disk: what it prints fits, its module does not.
    background.limit_files(Some(1000));
    let urgent = ["run", "--slots", "slots", "--priority", "1", "job.wat"];
    let mut urgent = sandbox.wsnap().args(urgent).start();
    urgent.wait_for("has printed a line", |output| !output.is_empty());
    let printed = background.stdout();
    assert!(printed.len() < expected.len());
    background.wait_for_message("waits for its turn without an image");
    // Nor is an older image passed off as one of where it stands.
    let snap = sandbox.wsnap().args(["snap", "long"]).run();
    snap.expect_one_error(1, &["waits for its turn"]);
    let _ = urgent.wait().expect(0);
    let finished = background.wait().expect(0);
    assert_eq!(finished.stdout, expected);
}

#[test]
fn a_program_that_waits_for_its_turn_can_be_stopped_and_goes_on_elsewhere() {
    let long = Job { rounds: 100, ..JOB };
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", long.wat());
    let expected = sandbox.wsnap().args(["run", "--bare", "job.wat"]).run();
    let expected = expected.expect(0).stdout;
    make_slots(&sandbox, "1");
    let run = |name: &str, priority: &str| {
        sandbox
            .wsnap()
            .args(["run", "--name", name, "--output", name, "--slots", "slots"])
            .args(["--priority", priority, "job.wat"])
            .start()
    };
    let is_there = |name: &str| fs::read(sandbox.path(name)).is_ok_and(|output| !output.is_empty());
    let wait = |name: &str| {
        while !is_there(name) {
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    let mut low = run("low", "0");
    wait("low");
    let urgent = run("urgent", "1");
    wait("urgent");
    low.signal(Signal::TERM);
    let _ = low.wait().expect(85);
    let low = sandbox
        .wsnap()
        .args(["resume", "--output", "low", "low"])
        .run();
    let _ = low.expect(0);
    assert_eq!(fs::read(sandbox.path("low")).expect("output"), expected);
    let _ = urgent.wait().expect(0);
    assert_eq!(fs::read(sandbox.path("urgent")).expect("output"), expected);
}

#[test]
fn a_directory_without_slots_is_refused_with_the_command_that_makes_some() {
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", JOB.wat());
    let run = sandbox
        .wsnap()
        .args(["run", "--slots", "nowhere", "job.wat"])
        .run();
    run.expect_one_error(1, &["nowhere", "no slots"]);
}

#[test]
fn a_program_that_waits_after_a_crash_keeps_nobody_from_its_slot() {
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", JOB.wat());
    let traps_at = Some(0);
    sandbox.write("trap.wat", Job { traps_at, ..JOB }.wat());
    let expected = sandbox.wsnap().args(["run", "--bare", "job.wat"]).run();
    let expected = expected.expect(0).stdout;
    make_slots(&sandbox, "1");
    let flags = ["--name", "trap", "--restart", "on-crash"];
    let urgent = sandbox.wsnap().arg("run").args(flags);
    let urgent = urgent.args(["--slots", "slots", "--priority", "9", "trap.wat"]);
    let mut urgent = urgent.start();
    urgent.wait_for_message("trying again");
    let other = sandbox.wsnap().args(["run", "--slots", "slots", "job.wat"]);
    let other = other.run().expect(0);
    assert_eq!(other.stdout, expected);
    assert!(!urgent.has_ended(), "it has not been waited for");
    let _ = urgent.wait().expect(TRAPPED);
}

/// The causes of the snapshots of a program, oldest first.
fn triggers(sandbox: &Sandbox, name: &str) -> Vec<String> {
    let log = sandbox.wsnap().args(["log", "--json", name]).run();
    let log: Value = serde_json::from_slice(&log.expect(0).stdout).expect("JSON");
    let entries = log.as_array().expect("a list").iter();
    entries
        .map(|entry| entry["trigger"].as_str().expect("a text").to_owned())
        .collect()
}

#[test]
fn a_program_that_made_room_is_saved_again_once_it_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.write("long.wat", Job::new(300, 10_000_000).wat());
    sandbox.write("urgent.wat", Job::new(200, 10_000_000).wat());
    let _ = sandbox
        .wsnap()
        .args(["compile", "urgent.wat"])
        .run()
        .expect(0);
    make_slots(&sandbox, "1");
    let flags = [
        "--every",
        "100ms",
        "--keep-saved",
        "1000",
        "--slots",
        "slots",
    ];
    let long = sandbox.wsnap().args(["run", "--name", "long"]).args(flags);
    let mut long = long.arg("long.wat").start();
    long.wait_for("has printed a line", |output| !output.is_empty());
    let urgent = ["run", "--slots", "slots", "--priority", "1", "urgent.wat"];
    let _ = sandbox.wsnap().args(urgent).run().expect(0);
    let _ = long.wait().expect(0);
    let triggers = triggers(&sandbox, "long");
    let preempted = triggers.iter().position(|trigger| trigger == "preempted");
    let after = &triggers[preempted.expect("it made room")..];
    let saved = after.iter().filter(|trigger| *trigger == "every").count();
    // It still has two seconds to run, and has stood still for as long.
    assert!(saved >= 3, "{triggers:?}");
}

#[test]
fn a_program_that_waits_in_line_is_stopped_with_all_others_and_goes_on_with_them() {
    let sandbox = Sandbox::new();
    sandbox.write("long.wat", Job::new(250, 10_000_000).wat());
    sandbox.write("job.wat", JOB.wat());
    let bare = |module| {
        sandbox
            .wsnap()
            .args(["run", "--bare", module])
            .run()
            .expect(0)
            .stdout
    };
    let (long, job) = (bare("long.wat"), bare("job.wat"));
    make_slots(&sandbox, "1");
    let start = |name: &str, flags: &[&str], module| {
        let command = sandbox
            .wsnap()
            .args(["run", "--name", name, "--output", name]);
        let command = command.args(["--slots", "slots"]).args(flags);
        command.arg(module).start()
    };
    let has_printed =
        |name: &str| fs::read(sandbox.path(name)).is_ok_and(|output| !output.is_empty());
    let wait_until = |what: &str, condition: &dyn Fn() -> bool| {
        let since = Instant::now();
        while !condition() {
            assert!(since.elapsed() < TIME_MAX, "never {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    // One that runs, one that made room for it, and two that never had a slot.
    let low = start("low", &["--priority", "-1"], "long.wat");
    wait_until("printed", &|| has_printed("low"));
    let long_one = start("long", &["--every", "1s"], "long.wat");
    wait_until("printed", &|| has_printed("long"));
    let kept = start(
        "kept",
        &["--restart", "on-crash", "--priority", "-2"],
        "job.wat",
    );
    let plain = start("plain", &["--priority", "-2"], "job.wat");
    wait_until("all wait", &|| states(&sandbox).len() == 4);
    let stopped = sandbox
        .wsnap()
        .args(["snap", "--all", "--stop", "--json"])
        .run();
    let stopped: Value = serde_json::from_slice(&stopped.expect(0).stdout).expect("JSON");
    let programs = stopped.as_array().expect("a list");
    assert_eq!(programs.len(), 4, "{stopped}");
    for program in programs {
        let begun = ["low", "long"].contains(&program["name"].as_str().expect("a name"));
        assert_eq!(program["id"].is_string(), begun, "{program}");
    }
    for running in [low, long_one, kept, plain] {
        let _ = running.wait().expect(85);
    }
    let list = fs::read(sandbox.store().join("running/rollout.stopped")).expect("a list");
    let list: Value = serde_json::from_slice(&list).expect("JSON");
    let words = |name: &str| {
        let entries = list.as_array().expect("a list");
        let entry = entries.iter().find(|entry| entry["name"] == name);
        entry.expect("it is in the list")["words"].to_string()
    };
    assert!(
        words("long").contains("\"resume\"") && words("long").contains("--every"),
        "{list}"
    );
    assert!(
        words("kept").contains("\"run\"") && words("kept").contains("--restart"),
        "{list}"
    );
    let _ = sandbox.wsnap().args(["resume", "--all"]).run().expect(0);
    let ends = [
        ("low", &long),
        ("long", &long),
        ("kept", &job),
        ("plain", &job),
    ];
    for (name, expected) in ends {
        let is_whole = || fs::read(sandbox.path(name)).is_ok_and(|output| output == *expected);
        wait_until("ended right", &is_whole);
    }
    wait_until("all have ended", &|| states(&sandbox).is_empty());
}

#[test]
fn an_image_that_waits_for_its_turn_under_a_new_name_is_not_forgotten() {
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", Job::new(100, 10_000_000).wat());
    let expected = sandbox.wsnap().args(["run", "--bare", "job.wat"]).run();
    let expected = expected.expect(0).stdout;
    make_slots(&sandbox, "1");
    let stop = [
        "run",
        "--output",
        "out",
        "--id-file",
        "id",
        "--stop-at",
        "after=500ms",
        "job.wat",
    ];
    let _ = sandbox.wsnap().args(stop).run().expect(85);
    let image = fs::read_to_string(sandbox.path("id")).expect("an id");
    let mut holder = sandbox
        .wsnap()
        .args(["run", "--slots", "slots", "job.wat"])
        .start();
    holder.wait_for("has printed a line", |output| !output.is_empty());
    let resume = [
        "resume", "--name", "sim", "--slots", "slots", "--output", "out",
    ];
    let waits = sandbox.wsnap().args(resume).arg(image.trim()).start();
    while states(&sandbox).len() < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = sandbox
        .wsnap()
        .args(["snap", "--stop", "sim"])
        .run()
        .expect(0);
    let _ = waits.wait().expect(85);
    let resume = ["resume", "--output", "out", "sim"];
    let _ = sandbox.wsnap().args(resume).run().expect(0);
    assert_eq!(fs::read(sandbox.path("out")).expect("output"), expected);
}
