//! What programs can ask about themselves, and the snapshots that they take.

use std::fs;
use std::path::Path;

use crate::sandbox::Sandbox;
use serde_json::Value;

/// Asks for its generation, takes a snapshot, and writes what it is told: [`Told`]. `$value` is on the stack meanwhile.
fn asking(value: &str, drop: &str) -> String {
    format!(
        r#"(module
  (import "wsnap" "snapshot" (func $snapshot (result i32)))
  (import "wsnap" "generation" (func $generation (param i32) (result i32)))
  (import "wsnap" "resume_count" (func $resume_count (result i64)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\30\00\00\00")
  (func $here)
  (elem declare func $here)
  (func $ask (param $depth i32) (result i32)
    (if (result i32) (local.get $depth)
      (then (i32.add (call $ask (i32.sub (local.get $depth) (i32.const 1))) (i32.const 0)))
      (else {value} (call $snapshot) {drop})))
  (func (export "_start")
    (i32.store (i32.const 28) (call $generation (i32.const 32)))
    (i32.store (i32.const 16) (call $ask (i32.const 3)))
    (i64.store (i32.const 20) (call $resume_count))
    (i32.store (i32.const 28) (i32.add (i32.load (i32.const 28)) (call $generation (i32.const 48))))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    )
}

fn plain() -> String {
    asking("", "")
}

/// What the program was told.
#[derive(Debug, PartialEq)]
struct Told {
    snapshot: i32,
    resumes: u32,
    errors: u32,
    generation_before: [u8; 16],
    generation_after: [u8; 16],
}

impl Told {
    #[track_caller]
    fn by(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        let output = sandbox.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
        let bytes = &output.stdout;
        assert_eq!(bytes.len(), 48, "{arguments:?}: {stderr}");
        let word = |at: usize| {
            let word = bytes[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(word)
        };
        Self {
            snapshot: word(0).cast_signed(),
            resumes: word(4),
            errors: word(12),
            generation_before: bytes[16..32].try_into().expect("sixteen bytes"),
            generation_after: bytes[32..48].try_into().expect("sixteen bytes"),
        }
    }
}

fn triggers(sandbox: &Sandbox, reference: &str) -> Vec<String> {
    let (stdout, _) = sandbox.expect(0, &["log", "--json", reference]);
    let log: Value = serde_json::from_str(&stdout).expect("JSON");
    let entries = log.as_array().expect("a list");
    let trigger = |entry: &Value| entry["trigger"].as_str().expect("a text").to_owned();
    entries.iter().map(trigger).collect()
}

fn id_in(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("an id file");
    text.trim().to_owned()
}

/// Runs the program and resumes what it stores; each run is told what is true of it.
#[track_caller]
fn check_asking(program: &str) {
    let sandbox = Sandbox::new();
    sandbox.write("asking.wat", program);
    let first = Told::by(
        &sandbox,
        &["run", "--name", "asking", "--id-file", "id", "asking.wat"],
    );
    assert_eq!((first.snapshot, first.resumes, first.errors), (0, 0, 0));
    assert_eq!(first.generation_before, first.generation_after);
    assert_eq!(triggers(&sandbox, "asking"), ["guest"]);
    let id = id_in(&sandbox.path("id"));
    let mut seen = vec![first.generation_before];
    for _ in 0..3 {
        let told = Told::by(&sandbox, &["resume", &id]);
        assert_eq!((told.snapshot, told.resumes, told.errors), (1, 1, 0));
        assert_eq!(told.generation_before, first.generation_before);
        assert!(!seen.contains(&told.generation_after), "{told:?}");
        seen.push(told.generation_after);
    }
}

#[test]
fn a_program_that_takes_a_snapshot_goes_on_and_each_resumed_run_knows_what_it_is() {
    check_asking(&plain());
}

#[test]
fn a_program_takes_a_snapshot_while_its_stack_holds_a_reference() {
    check_asking(
        &asking(
            "(ref.func $here) (local.set $f)",
            "(drop (ref.is_null (local.get $f)))",
        )
        .replace(
            "(param $depth i32) (result i32)\n",
            "(param $depth i32) (result i32) (local $f funcref)\n",
        ),
    );
}

/// Takes three snapshots and returns what it was told, one decimal digit each, behind how often it was resumed.
const THRICE: &str = r#"(module
  (import "wsnap" "snapshot" (func $snapshot (result i32)))
  (import "wsnap" "resume_count" (func $resume_count (result i64)))
  (memory (export "memory") 1)
  (func (export "thrice") (result i64 i32)
    (local $told i32) (local $n i32)
    (loop $again
      (local.set $told
        (i32.add (i32.mul (local.get $told) (i32.const 10)) (i32.add (call $snapshot) (i32.const 1))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $n) (i32.const 3))))
    (call $resume_count) (local.get $told)))"#;

#[test]
fn a_resumed_program_is_told_so_once_and_takes_further_snapshots() {
    let sandbox = Sandbox::new();
    sandbox.write("thrice.wat", THRICE);
    let run = ["run", "--name", "t", "--invoke", "thrice", "thrice.wat"];
    assert_eq!(sandbox.expect(0, &run).0, "0\n111\n");
    let (stdout, _) = sandbox.expect(0, &["log", "--json", "t"]);
    let log: Value = serde_json::from_str(&stdout).expect("JSON");
    let ids = log.as_array().expect("a list").iter();
    let ids: Vec<_> = ids
        .map(|entry| entry["image"].as_str().expect("an id"))
        .collect();
    assert_eq!(ids.len(), 3);
    for (id, told) in ids.iter().zip(["1\n211\n", "1\n121\n", "1\n112\n"]) {
        assert_eq!(sandbox.expect(0, &["resume", id]).0, told);
    }
    sandbox.expect(0, &["resume", "--name", "again", ids[0]]);
    assert_eq!(sandbox.expect(0, &["resume", "again"]).0, "2\n212\n");
    let (report, _) = sandbox.expect(0, &["inspect", "again"]);
    assert!(report.contains("resumed 1 times before"), "{report}");
    assert!(report.contains("taken by the program itself"), "{report}");
}

#[test]
fn a_program_that_runs_bare_is_told_that_there_are_no_snapshots() {
    let sandbox = Sandbox::new();
    sandbox.write("asking.wat", &plain());
    let told = Told::by(&sandbox, &["run", "--bare", "asking.wat"]);
    assert_eq!((told.snapshot, told.resumes, told.errors), (-1, 0, 0));
    assert_eq!(told.generation_before, told.generation_after);
    assert_ne!(told.generation_before, [0; 16]);
}

#[test]
fn a_program_is_told_when_its_snapshot_cannot_be_kept() {
    let sandbox = Sandbox::new();
    sandbox.write("asking.wat", &plain());
    sandbox.write("store", "not a directory");
    let output = sandbox.run(&["run", "asking.wat"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout[..4], (-2_i32).to_le_bytes());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("is told that there is no snapshot"),
        "{stderr}"
    );
}

#[test]
fn a_deterministic_program_stores_the_same_images_in_every_run_and_is_told_nothing_else() {
    let ids = [0, 1].map(|_| {
        let sandbox = Sandbox::new();
        sandbox.write("asking.wat", &plain());
        let flags = ["run", "--deterministic", "--name", "d", "--id-file", "id"];
        let first = Told::by(&sandbox, &[&flags[..], &["asking.wat"]].concat());
        assert_eq!((first.snapshot, first.resumes, first.errors), (0, 0, 0));
        let told = Told::by(&sandbox, &["resume", "d"]);
        assert_eq!(
            told,
            Told {
                snapshot: 1,
                ..first
            }
        );
        id_in(&sandbox.path("id"))
    });
    assert_eq!(ids[0], ids[1]);
}

fn prebuilt(name: &str) -> String {
    format!(
        "{}/../guest-examples/prebuilt/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// The lines that hold a text.
fn lines<'t>(text: &'t str, part: &str) -> Vec<&'t str> {
    text.lines().filter(|line| line.contains(part)).collect()
}

#[test]
fn a_program_in_c_takes_a_snapshot_after_each_phase_and_goes_on_from_any() {
    let sandbox = Sandbox::new();
    let (whole, _) = sandbox.expect(0, &["run", "--name", "c", &prebuilt("phases.wasm"), "3"]);
    assert_eq!(lines(&whole, "snapshot taken").len(), 3, "{whole}");
    assert_eq!(triggers(&sandbox, "c"), ["guest"; 3]);
    let (stdout, _) = sandbox.expect(0, &["log", "--json", "c"]);
    let log: Value = serde_json::from_str(&stdout).expect("JSON");
    let mut generations = lines(&whole, "generation ")
        .iter()
        .map(|line| (*line).to_owned())
        .collect::<Vec<_>>();
    for (entry, phase) in log.as_array().expect("a list").iter().zip([1, 2, 3]) {
        let id = entry["image"].as_str().expect("an id");
        let (rest, _) = sandbox.expect(0, &["resume", "--name", "fork", id]);
        assert!(
            rest.starts_with(&format!("resumed after phase {phase}\n")),
            "{rest}"
        );
        assert_eq!(
            lines(&rest, "phase ")[1..],
            lines(&whole, "phase ")[phase..],
            "{rest}"
        );
        let generation = lines(&rest, "generation ")[0].to_owned();
        assert!(generation.ends_with("resumed 1 times"), "{rest}");
        assert!(!generations.contains(&generation), "{rest}");
        generations.push(generation);
    }
    let (bare, _) = sandbox.expect(0, &["run", "--bare", &prebuilt("phases.wasm"), "3"]);
    assert_eq!(lines(&bare, "no snapshots here").len(), 3, "{bare}");
    assert_eq!(lines(&bare, "phase "), lines(&whole, "phase "));
}

#[test]
fn a_program_in_rust_starts_once_and_answers_differently_in_each_resumed_run() {
    let sandbox = Sandbox::new();
    let run = ["run", "--name", "rust", &prebuilt("warm.wasm")];
    let (first, _) = sandbox.expect(0, &run);
    assert!(
        first.starts_with("ready: 148933 primes\nsnapshot taken\n"),
        "{first}"
    );
    let mut answers = vec![lines(&first, "a random prime").join(" ")];
    for _ in 0..2 {
        let (resumed, _) = sandbox.expect(0, &["resume", "rust"]);
        assert!(resumed.starts_with("resumed 1 times\n"), "{resumed}");
        let answer = lines(&resumed, "a random prime").join(" ");
        assert!(!answers.contains(&answer), "{resumed}");
        answers.push(answer);
    }
}
