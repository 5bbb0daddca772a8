//! Stopping and snapshooting running programs from outside.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use wsnap_tests::examples_dir;
use wsnap_tests::guests::{Run, run};
use wsnap_tests::wsnap::{Finished, Running, SUSPENDED, Sandbox};

/// Some seconds of printing digits.
fn pi() -> Run {
    run("pi").with_args(&["16000"])
}

fn start(sandbox: &Sandbox, run: &Run, options: &[&str]) -> Running {
    let id = sandbox.path("id");
    let mut running = sandbox
        .wsnap()
        .arg("run")
        .args(options)
        .arg("--id-file")
        .arg(id)
        .program(run)
        .start();
    running.wait_for("printed a line", |stdout| stdout.contains(&b'\n'));
    running
}

fn reference(sandbox: &Sandbox, run: &Run) -> Finished {
    sandbox
        .wsnap()
        .args(["run", "--bare"])
        .program(run)
        .run()
        .expect(0)
}

fn image(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.path("id"))
        .expect("the id file was written")
        .trim()
        .to_string()
}

fn stopped_by(signals: &[Signal]) {
    let sandbox = Sandbox::new();
    let run = pi();
    let mut running = start(&sandbox, &run, &[]);
    for (index, signal) in signals.iter().enumerate() {
        if index > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        running.signal(*signal);
    }
    let stopped = running.wait().expect(SUSPENDED);
    let id = image(&sandbox);
    assert!(
        stopped.stderr.contains("wsnap resume"),
        "it must say how to go on\n{}",
        stopped.describe()
    );
    let resumed = sandbox.wsnap().args(["resume", &id]).run().expect(0);
    assert!(!resumed.stdout.is_empty(), "the stop came after the end");
    let together = [stopped.stdout, resumed.stdout].concat();
    assert_eq!(
        String::from_utf8_lossy(&together),
        reference(&sandbox, &run).text()
    );
}

#[test]
fn sigterm_suspends_and_another_process_finishes() {
    stopped_by(&[Signal::TERM]);
}

#[test]
fn ctrl_c_suspends_and_another_process_finishes() {
    stopped_by(&[Signal::INT]);
}

#[test]
fn a_second_sigterm_while_suspending_changes_nothing() {
    stopped_by(&[Signal::TERM, Signal::TERM]);
}

#[test]
fn a_tight_loop_without_calls_is_stopped_by_sigterm() {
    let sandbox = Sandbox::new();
    let module = examples_dir().join("wat/endless.wat");
    let mut command = sandbox
        .wsnap()
        .args(["run", "--name", "endless", "--id-file"]);
    command = command.arg(sandbox.path("id")).arg(&module);
    let mut running = command.start();
    wait_until_listed(&sandbox, "endless");
    running.signal(Signal::TERM);
    let _ = running.wait().expect(SUSPENDED);
    let id = image(&sandbox);
    // What was resumed spins on just the same.
    let _ = sandbox
        .wsnap()
        .args(["resume", "--stop-at", "safepoint=1000", &id])
        .run()
        .expect(SUSPENDED);
}

#[test]
fn the_exit_code_of_a_suspension_can_be_chosen() {
    let sandbox = Sandbox::new();
    let module = examples_dir().join("wat/endless.wat");
    let command = sandbox.wsnap().args([
        "run",
        "--suspended-exit-code",
        "42",
        "--stop-at",
        "safepoint=100",
    ]);
    let _ = command.arg(module).run().expect(42);
}

fn wait_until_listed(sandbox: &Sandbox, name: &str) {
    for _ in 0..2000 {
        if sandbox
            .wsnap()
            .arg("ps")
            .run()
            .expect(0)
            .text()
            .contains(name)
        {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("`wsnap ps` never listed {name}");
}

/// The program goes on after the snapshot, and the image holds what remained at that moment.
fn snapshot_of_running(reference_of: impl Fn(&mut Running) -> String) {
    let sandbox = Sandbox::new();
    let run = run("pi").with_args(&["24000"]);
    let expected = reference(&sandbox, &run);
    let mut running = start(&sandbox, &run, &["--name", "digits"]);
    let name = reference_of(&mut running);
    let snap = sandbox.wsnap().args(["snap", &name]).run().expect(0);
    let id = snap.text().trim().to_string();
    assert!(
        id.len() >= 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{}",
        snap.describe()
    );
    let finished = running.wait().expect(0);
    assert_eq!(
        finished.text(),
        expected.text(),
        "the program itself isn't disturbed"
    );
    let resumed = sandbox.wsnap().args(["resume", &id]).run().expect(0);
    let (text, resumed) = (expected.text(), resumed.text());
    assert!(
        !resumed.is_empty() && resumed.len() < text.len() && text.ends_with(&resumed),
        "the image holds: {resumed}"
    );
}

#[test]
fn snap_by_name_leaves_the_program_running() {
    snapshot_of_running(|_| "digits".to_string());
}

#[test]
fn snap_by_process_id_leaves_the_program_running() {
    snapshot_of_running(|running| running.pid().to_string());
}

#[test]
fn snap_with_stop_suspends_the_program_and_its_tag_resumes_it() {
    let sandbox = Sandbox::new();
    let run = pi();
    let running = start(&sandbox, &run, &["--name", "digits"]);
    let _ = sandbox
        .wsnap()
        .args(["snap", "digits", "--stop", "--tag", "halfway"])
        .run()
        .expect(0);
    let stopped = running.wait().expect(SUSPENDED);
    let resumed = sandbox.wsnap().args(["resume", "halfway"]).run().expect(0);
    let together = [stopped.stdout, resumed.stdout].concat();
    assert_eq!(
        String::from_utf8_lossy(&together),
        reference(&sandbox, &run).text()
    );
}

#[test]
fn a_name_resumes_the_latest_snapshot_of_the_program() {
    let sandbox = Sandbox::new();
    let run = pi();
    let mut running = start(&sandbox, &run, &["--name", "digits"]);
    let _ = sandbox.wsnap().args(["snap", "digits"]).run().expect(0);
    running.signal(Signal::TERM);
    let stopped = running.wait().expect(SUSPENDED);
    let resumed = sandbox.wsnap().args(["resume", "digits"]).run().expect(0);
    let together = [stopped.stdout, resumed.stdout].concat();
    assert_eq!(
        String::from_utf8_lossy(&together),
        reference(&sandbox, &run).text()
    );
}

#[test]
fn ps_lists_running_programs_only() {
    let sandbox = Sandbox::new();
    let mut running = start(&sandbox, &pi(), &["--name", "digits"]);
    let listed = sandbox.wsnap().args(["ps", "--json"]).run().expect(0);
    let json: Value = serde_json::from_str(&listed.text())
        .unwrap_or_else(|error| panic!("{error}\n{}", listed.describe()));
    assert!(json.to_string().contains("digits"), "{}", listed.describe());
    assert!(
        json.to_string().contains(&running.pid().to_string()),
        "{}",
        listed.describe()
    );
    running.signal(Signal::TERM);
    let _ = running.wait().expect(SUSPENDED);
    let listed = sandbox.wsnap().args(["ps", "--json"]).run().expect(0);
    assert!(!listed.text().contains("digits"), "{}", listed.describe());
}

#[test]
fn snap_of_a_program_that_does_not_run_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox
        .wsnap()
        .args(["snap", "nobody"])
        .run()
        .expect_one_error(1, &["nobody"]);
}

#[test]
fn after_a_duration_the_program_is_suspended() {
    let sandbox = Sandbox::new();
    let module = examples_dir().join("wat/endless.wat");
    let command = sandbox
        .wsnap()
        .args(["run", "--stop-at", "after=50ms", "--id-file"])
        .arg(sandbox.path("id"));
    let _ = command.arg(module).run().expect(SUSPENDED);
    assert!(!image(&sandbox).is_empty());
}
