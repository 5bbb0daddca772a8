//! Programs while they run: `ps`, `snap`, names, signals.

use std::fs::{self, File};
use std::os::unix::net::UnixListener;

use crate::sandbox::{Running, Sandbox, until};
use rustix::process::Signal;
use serde_json::Value;

const SUSPENDED: i32 = 85;

/// Spins for ever.
const ENDLESS: &str = r#"(module (func (export "_start") (loop $again (br $again))))"#;

/// Opens the new file `f` in the first granted directory, says so, and spins for ever.
const HOLDS_A_FILE: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "f")
  (data (i32.const 8) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "ready\n")
  (func (export "_start")
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 1)
      (i64.const 0x42) (i64.const 0) (i32.const 0) (i32.const 32)))
    (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 40)))
    (loop $again (br $again))))"#;

fn start(sandbox: &Sandbox, arguments: &[&str]) -> Running {
    let create = |name| File::create(sandbox.path(name)).expect("a file for output");
    let mut command = sandbox.command(arguments);
    command.stdout(create("stdout")).stderr(create("stderr"));
    Running(command.spawn().expect("the binary starts"))
}

fn read(sandbox: &Sandbox, name: &str) -> String {
    fs::read_to_string(sandbox.path(name)).expect("a file of the sandbox")
}

fn listed(sandbox: &Sandbox) -> Vec<Value> {
    let (stdout, _) = sandbox.expect(0, &["ps", "--json"]);
    serde_json::from_str(&stdout).expect("a list in JSON")
}

fn start_listed(sandbox: &Sandbox, arguments: &[&str]) -> Running {
    let running = start(sandbox, arguments);
    until("the program is listed", || !listed(sandbox).is_empty());
    running
}

#[test]
fn a_running_program_is_listed_with_its_process_and_module() {
    let sandbox = Sandbox::new();
    sandbox.write("endless.wat", ENDLESS);
    let mut running = start_listed(&sandbox, &["run", "endless.wat"]);
    let entries = listed(&sandbox);
    assert_eq!(entries[0]["pid"], running.0.id());
    assert_eq!(entries[0]["module"], "endless.wat");
    let (table, _) = sandbox.expect(0, &["ps"]);
    assert!(table.contains("endless.wat"), "{table}");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), Some(SUSPENDED));
    assert!(listed(&sandbox).is_empty());
}

#[test]
fn snap_reports_id_and_times_as_json_and_the_program_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.write("endless.wat", ENDLESS);
    let _running = start_listed(&sandbox, &["run", "--name", "spin", "endless.wat"]);
    let (stdout, _) = sandbox.expect(0, &["snap", "--json", "--tag", "first", "spin"]);
    let report: Value = serde_json::from_str(&stdout).expect("a report in JSON");
    let (images, _) = sandbox.expect(0, &["ls", "--json"]);
    let images: Value = serde_json::from_str(&images).expect("a list in JSON");
    assert_eq!(images[0]["id"], report["id"]);
    assert_eq!(images[0]["tags"][0], "first");
    assert_eq!(images[0]["names"][0], "spin");
    assert!(report["taken_ms"].as_u64() <= report["durable_ms"].as_u64());
    let (id, _) = sandbox.expect(0, &["snap", "spin"]);
    assert_eq!(
        id.trim().len(),
        64,
        "the second snapshot is printed in full: {id}"
    );
    assert_eq!(listed(&sandbox).len(), 1);
}

#[test]
fn a_tag_that_is_not_allowed_is_refused_before_anything_is_stored() {
    let sandbox = Sandbox::new();
    sandbox.write("endless.wat", ENDLESS);
    let _running = start_listed(&sandbox, &["run", "--name", "spin", "endless.wat"]);
    let (_, stderr) = sandbox.expect(1, &["snap", "--tag", "../x", "spin"]);
    assert!(stderr.contains("../x"), "{stderr}");
    let (images, _) = sandbox.expect(0, &["ls", "--json"]);
    assert_eq!(images.trim(), "[]");
}

#[test]
fn a_second_program_with_the_name_of_a_running_one_is_refused_with_its_process() {
    let sandbox = Sandbox::new();
    sandbox.write("endless.wat", ENDLESS);
    let running = start_listed(&sandbox, &["run", "--name", "spin", "endless.wat"]);
    let (_, stderr) = sandbox.expect(1, &["run", "--name", "spin", "endless.wat"]);
    assert!(stderr.contains(&running.0.id().to_string()), "{stderr}");
    assert!(stderr.contains("hint:"), "{stderr}");
}

#[test]
fn a_program_that_is_resumed_by_its_name_keeps_it() {
    let sandbox = Sandbox::new();
    sandbox.write("endless.wat", ENDLESS);
    let run = [
        "run",
        "--name",
        "spin",
        "--stop-at",
        "safepoint=10",
        "endless.wat",
    ];
    sandbox.expect(SUSPENDED, &run);
    let mut running = start_listed(&sandbox, &["resume", "spin"]);
    assert_eq!(listed(&sandbox)[0]["name"], "spin");
    let before = sandbox.expect(0, &["ls", "--json"]).0;
    running.signal(Signal::INT);
    assert_eq!(running.wait(), Some(SUSPENDED));
    assert!(read(&sandbox, "stderr").contains("wsnap resume spin"));
    assert_ne!(
        sandbox.expect(0, &["ls", "--json"]).0,
        before,
        "the name has moved on"
    );
}

#[test]
fn entries_of_programs_that_were_killed_are_removed() {
    let sandbox = Sandbox::new();
    sandbox.write("endless.wat", ENDLESS);
    let mut running = start_listed(&sandbox, &["run", "--name", "spin", "endless.wat"]);
    running.signal(Signal::KILL);
    assert_eq!(running.wait(), None);
    assert!(listed(&sandbox).is_empty());
    let left = fs::read_dir(sandbox.path("store/running")).expect("the register");
    let names: Vec<_> = left
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["lock"]);
}

#[test]
fn a_program_that_ends_before_it_answers_is_told_as_such() {
    let sandbox = Sandbox::new();
    sandbox.expect(0, &["ls"]);
    let folder = sandbox.path("store/running");
    fs::create_dir_all(&folder).expect("a register");
    fs::write(sandbox.path("store/version"), "wsnap store 1\n").expect("a store");
    let socket = folder.join("1.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
    let entry = serde_json::json!({
        "pid": 1, "name": "gone", "module": "x", "started_ms": 0, "host": host.trim(), "socket": socket,
    });
    fs::write(folder.join("1.json"), entry.to_string()).expect("an entry");
    let hang_up = std::thread::spawn(move || {
        // Looking whether it is alive is one connection, asking it another.
        for _ in 0..2 {
            drop(listener.accept().expect("a client"));
        }
    });
    let (_, stderr) = sandbox.expect(1, &["snap", "gone"]);
    assert!(stderr.contains("ended before"), "{stderr}");
    hang_up.join().expect("two clients came");
}

#[test]
fn a_program_that_cannot_be_stored_goes_on_and_says_why_and_three_signals_kill_it() {
    let sandbox = Sandbox::new();
    sandbox.write("holds.wat", HOLDS_A_FILE);
    fs::create_dir(sandbox.path("granted")).expect("a directory to grant");
    let mut running = start_listed(
        &sandbox,
        &[
            "run",
            "--name",
            "holds",
            "--dir",
            "granted::/w",
            "holds.wat",
        ],
    );
    until("the file is open", || read(&sandbox, "stdout") == "ready\n");
    // Nobody who resumes could open it there.
    fs::rename(sandbox.path("granted/f"), sandbox.path("f")).expect("the file was made");

    let (_, stderr) = sandbox.expect(1, &["snap", "holds"]);
    assert!(stderr.contains("/w/f"), "{stderr}");
    running.signal(Signal::TERM);
    until("the refusal is told", || {
        read(&sandbox, "stderr").contains("goes on")
    });
    assert!(read(&sandbox, "stderr").contains("/w/f"));
    assert_eq!(listed(&sandbox).len(), 1, "it runs on");

    for count in 2..=20 {
        running.signal(Signal::TERM);
        std::thread::sleep(std::time::Duration::from_millis(20));
        if let Some(status) = running.0.try_wait().expect("it can be waited for") {
            assert!(count >= 3, "two signals killed it");
            assert_eq!(status.code(), Some(128 + 15));
            return;
        }
    }
    panic!("three signals within a second did not kill it");
}
