//! Stopping all programs and going on with all of them.

use std::fs::{self, File};

use rustix::process::Signal;
use serde_json::Value;

use crate::sandbox::{Running, Sandbox, until};

const SUSPENDED: i32 = 85;

/// Says so when it begins, and when the file `f` of the first granted directory is there; then it ends.
const WAITS_FOR_A_FILE: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_filestat_get"
    (func $stat (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "f")
  (data (i32.const 8) "\10\00\00\00\06\00\00\00")
  (data (i32.const 16) "begun\nended\n")
  (func $say (param $text i32)
    (i32.store (i32.const 8) (local.get $text))
    (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 40))))
  (func (export "_start")
    (call $say (i32.const 16))
    (loop $again
      (br_if $again (call $stat (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 64))))
    (call $say (i32.const 22))))"#;

fn start(sandbox: &Sandbox, arguments: &[&str], output: &str) -> Running {
    let mut command = sandbox.command(arguments);
    let file = File::create(sandbox.path(output)).expect("a file for output");
    command.stdout(file);
    Running(command.spawn().expect("the binary starts"))
}

fn listed(sandbox: &Sandbox) -> Vec<Value> {
    let (stdout, _) = sandbox.expect(0, &["ps", "--json"]);
    serde_json::from_str(&stdout).expect("a list in JSON")
}

fn read(sandbox: &Sandbox, name: &str) -> String {
    fs::read_to_string(sandbox.path(name)).unwrap_or_default()
}

#[test]
fn all_programs_are_stopped_and_go_on_as_they_were_run() {
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", WAITS_FOR_A_FILE);
    fs::create_dir(sandbox.path("data")).expect("a folder");
    let flags = ["--dir", "data::/data", "--max-memory-size", "1MiB"];
    let named = [&["run", "--name", "named"][..], &flags, &["job.wat"]].concat();
    let unnamed = [&["run"][..], &flags, &["job.wat"]].concat();
    let kept = [
        &[
            "run",
            "--name",
            "kept",
            "--continue",
            "--output",
            "kept.out",
        ][..],
        &flags,
        &["job.wat"],
    ]
    .concat();
    let mut running = [
        start(&sandbox, &named, "named.out"),
        start(&sandbox, &unnamed, "unnamed.out"),
        start(&sandbox, &kept, "ignored.out"),
    ];
    until("all have begun", || {
        ["named.out", "unnamed.out", "kept.out"]
            .iter()
            .all(|name| read(&sandbox, name) == "begun\n")
            && listed(&sandbox).len() == 3
    });
    // One that goes on is none of those that are to be resumed.
    let (table, _) = sandbox.expect(0, &["snap", "--all"]);
    assert!(table.contains("named") && table.contains("kept"), "{table}");
    let (_, stderr) = sandbox.expect(0, &["resume", "--all"]);
    assert!(stderr.contains("no program"), "{stderr}");

    let (stdout, _) = sandbox.expect(0, &["snap", "--all", "--stop", "--json"]);
    let stopped: Vec<Value> = serde_json::from_str(&stdout).expect("a list in JSON");
    assert_eq!(stopped.len(), 3);
    for program in &mut running {
        assert_eq!(program.wait(), Some(SUSPENDED));
    }
    assert!(listed(&sandbox).is_empty());

    sandbox.expect(0, &["resume", "--all"]);
    let mut names: Vec<Value> = listed(&sandbox)
        .iter()
        .map(|entry| entry["name"].clone())
        .collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(
        names,
        [Value::from("kept"), Value::from("named"), Value::Null]
    );
    // None goes on twice.
    let (_, stderr) = sandbox.expect(0, &["resume", "--all"]);
    assert!(stderr.contains("no program"), "{stderr}");
    sandbox.write("data/f", "");
    until("all have ended", || listed(&sandbox).is_empty());
    let unnamed = stopped
        .iter()
        .find(|one| one["name"].is_null())
        .expect("one");
    let unnamed = format!("wsnap-{}.log", unnamed["id"].as_str().expect("an id"));
    until("all have said so", || {
        read(&sandbox, "kept.out") == "begun\nended\n"
            && read(&sandbox, "wsnap-named.log").contains("ended\n")
            && read(&sandbox, &unnamed).contains("ended\n")
    });
}

#[test]
fn a_program_that_cannot_go_on_is_named_and_tried_again_the_next_time() {
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", WAITS_FOR_A_FILE);
    fs::create_dir(sandbox.path("data")).expect("a folder");
    let arguments = ["run", "--name", "job", "--dir", "data::/data", "job.wat"];
    let mut running = start(&sandbox, &arguments, "out");
    until("it has begun", || {
        read(&sandbox, "out") == "begun\n" && listed(&sandbox).len() == 1
    });
    sandbox.expect(0, &["snap", "--all", "--stop"]);
    assert_eq!(running.wait(), Some(SUSPENDED));
    fs::rename(sandbox.path("data"), sandbox.path("elsewhere")).expect("moved");
    let (_, stderr) = sandbox.expect(1, &["resume", "--all"]);
    assert!(stderr.contains("cannot go on with job"), "{stderr}");
    assert!(stderr.contains("wsnap-job.log"), "{stderr}");
    fs::rename(sandbox.path("elsewhere"), sandbox.path("data")).expect("moved back");
    let (stdout, _) = sandbox.expect(0, &["resume", "--all"]);
    let pid = stdout.trim().rsplit(' ').next().expect("a number");
    let pid: i32 = pid.parse().expect("a number");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    until("it has ended", || listed(&sandbox).is_empty());
}

#[test]
fn programs_that_were_stopped_by_a_process_that_was_killed_meanwhile_can_be_gone_on_with() {
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", WAITS_FOR_A_FILE);
    fs::create_dir(sandbox.path("data")).expect("a folder");
    let arguments = ["run", "--name", "job", "--dir", "data::/data", "job.wat"];
    let mut running = start(&sandbox, &arguments, "out");
    until("it has begun", || {
        read(&sandbox, "out") == "begun\n" && listed(&sandbox).len() == 1
    });
    // It does not answer, so whoever asks waits until it is killed.
    running.signal(Signal::STOP);
    let mut asking = start(&sandbox, &["snap", "--all", "--stop"], "answer");
    let list = sandbox.path("store/running/rollout.stopped");
    until("it is written down", || list.exists());
    asking.signal(Signal::KILL);
    assert_eq!(asking.wait(), None);
    running.signal(Signal::CONT);
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), Some(SUSPENDED));
    sandbox.expect(0, &["resume", "--all"]);
    sandbox.write("data/f", "");
    until("it has ended", || {
        read(&sandbox, "wsnap-job.log").contains("ended\n")
    });
}

/// The names of the programs that `resume --all` would go on with.
fn planned(sandbox: &Sandbox) -> Vec<String> {
    let list = read(sandbox, "store/running/rollout.stopped");
    if list.is_empty() {
        return Vec::new();
    }
    let list: Vec<Value> = serde_json::from_str(&list).expect("a list in JSON");
    list.iter()
        .map(|entry| entry["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Starts programs by these names, each of which waits for `data/f`, and stops them all.
fn stop_all(sandbox: &Sandbox, names: &[&str]) {
    sandbox.write("job.wat", WAITS_FOR_A_FILE);
    fs::create_dir(sandbox.path("data")).expect("a folder");
    let mut running: Vec<_> = names
        .iter()
        .map(|name| {
            let arguments = ["run", "--name", name, "--dir", "data::/data", "job.wat"];
            start(sandbox, &arguments, name)
        })
        .collect();
    until("all have begun", || {
        let begun = names.iter().all(|name| read(sandbox, name) == "begun\n");
        begun && listed(sandbox).len() == names.len()
    });
    sandbox.expect(0, &["snap", "--all", "--stop"]);
    for program in &mut running {
        assert_eq!(program.wait(), Some(SUSPENDED));
    }
    assert_eq!(planned(sandbox).len(), names.len());
}

#[test]
fn a_program_that_somebody_else_has_gone_on_with_is_not_gone_on_with_again() {
    let sandbox = Sandbox::new();
    stop_all(&sandbox, &["resumed", "started", "left"]);
    sandbox.write("data/f", "");
    // One ends meanwhile, one is started anew and suspended.
    sandbox.expect(0, &["resume", "--dir", "data::/data", "resumed"]);
    fs::remove_file(sandbox.path("data/f")).expect("removed");
    let anew = [
        "run",
        "--name",
        "started",
        "--stop-at",
        "after=100ms",
        "--dir",
        "data::/data",
        "job.wat",
    ];
    sandbox.expect(SUSPENDED, &anew);
    assert_eq!(planned(&sandbox), ["left"]);
    let (stdout, _) = sandbox.expect(0, &["resume", "--all"]);
    assert!(
        stdout.contains("left") && stdout.lines().count() == 1,
        "{stdout}"
    );
    assert!(planned(&sandbox).is_empty());
    sandbox.write("data/f", "");
    until("it has ended", || listed(&sandbox).is_empty());
}

#[test]
fn a_program_whose_name_is_a_tag_too_goes_on_from_its_own_image() {
    let sandbox = Sandbox::new();
    stop_all(&sandbox, &["job"]);
    sandbox.write(
        "other.wat",
        "(module (func (export \"_start\") (loop $l (br $l))))",
    );
    let (id, _) = sandbox.expect(
        SUSPENDED,
        &[
            "run",
            "--stop-at",
            "after=50ms",
            "--id-file",
            "id",
            "other.wat",
        ],
    );
    assert!(id.is_empty());
    sandbox.expect(0, &["tag", read(&sandbox, "id").trim(), "job"]);
    sandbox.write("data/f", "");
    sandbox.expect(0, &["resume", "--all"]);
    until("it has ended", || {
        read(&sandbox, "wsnap-job.log").contains("ended\n")
    });
}

#[test]
fn a_program_that_is_kept_running_is_kept_running_by_whoever_goes_on_with_it() {
    let sandbox = Sandbox::new();
    sandbox.write("job.wat", WAITS_FOR_A_FILE);
    fs::create_dir(sandbox.path("data")).expect("a folder");
    // A name that the word for the command could be taken for.
    let arguments = [
        "--cache",
        "run",
        "run",
        "--restart",
        "on-crash",
        "--name",
        "run",
        "--grace",
        "7s",
        "--dir",
        "data::/data",
        "job.wat",
    ];
    let mut running = start(&sandbox, &arguments, "out");
    until("it has begun", || {
        read(&sandbox, "out") == "begun\n" && listed(&sandbox).len() == 1
    });
    sandbox.expect(0, &["snap", "--all", "--stop"]);
    assert_eq!(running.wait(), Some(SUSPENDED));
    let list: Vec<Value> =
        serde_json::from_str(&read(&sandbox, "store/running/rollout.stopped")).expect("a list");
    let mut expected: Vec<&str> = arguments.to_vec();
    expected.insert(3, "--continue");
    assert_eq!(list[0]["words"], Value::from(expected));
    sandbox.write("data/f", "");
    sandbox.expect(0, &["resume", "--all"]);
    until("it has ended", || {
        read(&sandbox, "wsnap-run.log").contains("ended\n")
    });
}

#[test]
fn a_list_that_an_older_version_has_written_is_gone_on_with() {
    let sandbox = Sandbox::new();
    stop_all(&sandbox, &["job"]);
    let path = "store/running/rollout.stopped";
    let mut list: Vec<Value> = serde_json::from_str(&read(&sandbox, path)).expect("a list");
    for name in ["module", "process", "words_to_start"] {
        list[0].as_object_mut().expect("an object").remove(name);
    }
    sandbox.write(path, &Value::from(list).to_string());
    sandbox.write("data/f", "");
    sandbox.expect(0, &["resume", "--all"]);
    until("it has ended", || {
        read(&sandbox, "wsnap-job.log").contains("ended\n")
    });
    assert!(planned(&sandbox).is_empty());
}

#[test]
fn a_list_that_cannot_be_read_ends_no_program() {
    let sandbox = Sandbox::new();
    stop_all(&sandbox, &["job"]);
    sandbox.write("store/running/rollout.stopped", "?");
    sandbox.write("data/f", "");
    let (_, stderr) = sandbox.expect(0, &["resume", "--dir", "data::/data", "job"]);
    assert!(stderr.contains("rollout.stopped"), "{stderr}");
    sandbox.expect(1, &["resume", "--all"]);
}
