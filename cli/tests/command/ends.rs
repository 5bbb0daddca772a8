//! How processes end, and what they say.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::sandbox::{Sandbox, until};
use serde_json::Value;

const SUSPENDED: i32 = 85;
const ENDLESS: &str = r#"(module (func (export "_start") (loop $again (br $again))))"#;

/// Exits with the status 300, whose lowest byte is 44.
const EXITS: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const 300))))"#;

#[test]
fn the_exit_code_is_the_programs_own() {
    let sandbox = Sandbox::new();
    sandbox.write("exits.wat", EXITS);
    sandbox.expect(44, &["run", "exits.wat"]);
    sandbox.expect(44, &["run", "--bare", "exits.wat"]);
    sandbox.write("returns.wat", r#"(module (func (export "_start")))"#);
    sandbox.expect(0, &["run", "returns.wat"]);
}

#[test]
fn a_trap_ends_with_134_and_its_reason() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "traps.wat",
        r#"(module (func $deep unreachable) (func (export "_start") call $deep))"#,
    );
    for options in [&["run", "traps.wat"][..], &["run", "--bare", "traps.wat"]] {
        let (_, stderr) = sandbox.expect(134, options);
        assert!(stderr.starts_with("error: "), "{stderr}");
        assert!(
            stderr.contains("unreachable") && stderr.contains("deep"),
            "{stderr}"
        );
    }
}

#[test]
fn results_of_an_invoked_function_are_printed_one_per_line() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "values.wat",
        r#"(module (func (export "twice") (param i32 i64 f32 f64) (result i32 i64 f32 f64)
             (i32.add (local.get 0) (local.get 0)) (i64.add (local.get 1) (local.get 1))
             (f32.add (local.get 2) (local.get 2)) (f64.add (local.get 3) (local.get 3))))"#,
    );
    let run = [
        "run",
        "--invoke",
        "twice",
        "values.wat",
        "-3",
        "0x10",
        "1.25",
        "-0.5",
    ];
    assert_eq!(sandbox.expect(0, &run).0, "-6\n32\n2.5\n-1\n");
}

#[test]
fn what_an_invoked_function_returns_after_a_resume_is_printed_too() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "count.wat",
        r#"(module (func (export "count") (param $n i32) (result i32) (local $done i32)
             (loop $again
               (local.set $done (i32.add (local.get $done) (i32.const 1)))
               (br_if $again (i32.lt_u (local.get $done) (local.get $n))))
             (local.get $done)))"#,
    );
    let run = [
        "run",
        "--invoke",
        "count",
        "--name",
        "c",
        "--stop-at",
        "safepoint=500",
        "count.wat",
        "1000",
    ];
    assert_eq!(sandbox.expect(SUSPENDED, &run).0, "");
    assert_eq!(sandbox.expect(0, &["resume", "c"]).0, "1000\n");
}

#[test]
fn a_suspension_is_reported_as_json_with_the_words_that_resume() {
    let sandbox = Sandbox::new();
    sandbox.write("endless.wat", ENDLESS);
    let run = [
        "run",
        "--json",
        "--id-file",
        "id",
        "--dir",
        ".::/w",
        "--stop-at",
        "safepoint=7",
        "endless.wat",
    ];
    let (stdout, stderr) = sandbox.expect(SUSPENDED, &run);
    assert_eq!(stdout, "", "standard output is the program's");
    let report: Value = serde_json::from_str(&stderr).expect("one line of JSON");
    let id = fs::read_to_string(sandbox.path("id")).expect("the id file");
    assert_eq!(report["suspended"]["id"], id.trim());
    assert_eq!(report["suspended"]["cause"], "safepoint");
    let words: Vec<&str> = report["suspended"]["resume"]
        .as_array()
        .expect("words")
        .iter()
        .map(|word| word.as_str().expect("a word"))
        .collect();
    assert_eq!(words[..4], ["wsnap", "resume", "--dir", ".::/w"]);
    let mut again = words[1..].to_vec();
    again.extend(["--stop-at", "safepoint=1"]);
    sandbox.expect(SUSPENDED, &again);
}

#[test]
fn arguments_and_environment_reach_the_program_and_flags_behind_the_module_are_its_own() {
    let sandbox = Sandbox::new();
    // Exits with the number of arguments times 16 plus the number of variables.
    sandbox.write(
        "count.wat",
        r#"(module
             (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
             (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env (param i32 i32) (result i32)))
             (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
             (memory (export "memory") 1)
             (func (export "_start")
               (drop (call $args (i32.const 0) (i32.const 4)))
               (drop (call $env (i32.const 8) (i32.const 12)))
               (call $exit (i32.add (i32.mul (i32.load (i32.const 0)) (i32.const 16)) (i32.load (i32.const 8))))))"#,
    );
    sandbox.expect(16, &["run", "count.wat"]);
    sandbox.expect(4 * 16, &["run", "count.wat", "--dir", "-x", "--"]);
    sandbox.expect(
        16 + 2,
        &[
            "run",
            "--env",
            "A=1",
            "--env",
            "B=",
            "--env",
            "WSNAP_TEST_UNSET",
            "count.wat",
        ],
    );
}

#[test]
fn verify_names_the_damaged_image_and_exits_with_1() {
    let sandbox = Sandbox::new();
    sandbox.write("endless.wat", ENDLESS);
    for name in ["good", "bad"] {
        let at = format!("safepoint={}", name.len());
        sandbox.expect(
            SUSPENDED,
            &[
                "run",
                "--name",
                name,
                "--id-file",
                name,
                "--stop-at",
                &at,
                "endless.wat",
            ],
        );
    }
    sandbox.write(
        "other.wat",
        r#"(module (memory 1) (data (i32.const 0) "x") (func (export "_start") (loop br 0)))"#,
    );
    sandbox.expect(
        SUSPENDED,
        &[
            "run",
            "--name",
            "bad",
            "--id-file",
            "bad",
            "--stop-at",
            "safepoint=3",
            "other.wat",
        ],
    );
    sandbox.expect(0, &["verify"]);
    let layer = fs::read_dir(sandbox.path("store/layers"))
        .expect("the layers")
        .next()
        .expect("one layer")
        .expect("an entry")
        .path();
    let mut bytes = fs::read(&layer).expect("a layer");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::remove_file(&layer).expect("removed");
    fs::write(&layer, bytes).expect("damaged");

    let bad = fs::read_to_string(sandbox.path("bad")).expect("the id");
    let (stdout, stderr) = sandbox.expect(1, &["verify"]);
    let damaged: Vec<_> = stdout
        .lines()
        .filter(|line| line.contains("damaged"))
        .collect();
    assert_eq!(damaged.len(), 1, "{stdout}");
    assert!(damaged[0].starts_with(bad.trim()), "{stdout}");
    assert!(stderr.starts_with("error: 1 of "), "{stderr}");
    sandbox.expect(0, &["verify", "good"]);
    sandbox.expect(1, &["verify", "bad"]);
}

#[test]
fn a_tag_is_set_and_moved() {
    let sandbox = Sandbox::new();
    sandbox.write("endless.wat", ENDLESS);
    for name in ["one", "two"] {
        let run = [
            "run",
            "--name",
            name,
            "--stop-at",
            "safepoint=9",
            "endless.wat",
            name,
        ];
        sandbox.expect(SUSPENDED, &run);
        sandbox.expect(0, &["tag", name, "here"]);
        let (inspected, _) = sandbox.expect(0, &["inspect", "here"]);
        assert!(
            inspected.contains(&format!("endless.wat {name}")),
            "{inspected}"
        );
    }
    let (_, stderr) = sandbox.expect(1, &["tag", "one", "not/here"]);
    assert!(stderr.contains("not/here"), "{stderr}");
}

#[test]
fn a_reader_of_results_that_leaves_early_causes_no_message() {
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // The script is longer than a pipe holds, so it cannot have been written whole before this.
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn messages_have_no_colours_unless_they_go_to_a_terminal() {
    let sandbox = Sandbox::new();
    let (_, stderr) = sandbox.expect(1, &["run", "nowhere.wasm"]);
    assert!(
        stderr.starts_with("error: cannot read the module nowhere.wasm"),
        "{stderr:?}"
    );
}

/// Draws 16 random bytes twice, with a safepoint between, and prints each.
const DRAWS: &str = r#"(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\40\00\00\00\10\00\00\00")
  (func (export "_start") (local $left i32)
    (local.set $left (i32.const 2))
    (loop $again
      (drop (call $random (i32.const 64) (i32.const 16)))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"#;

#[test]
fn a_seed_decides_all_random_bytes_also_behind_a_stop() {
    let sandbox = Sandbox::new();
    sandbox.write("draws.wat", DRAWS);
    let run = |arguments: &[&str]| {
        let output =
            sandbox.run(&[&["run", "--deterministic"], arguments, &["draws.wat"]].concat());
        (output.status.code(), output.stdout)
    };
    let (code, zero) = run(&[]);
    assert_eq!((code, zero.len()), (Some(0), 32));
    assert_eq!(run(&["--seed", "0"]), (Some(0), zero.clone()));
    let (code, seven) = run(&["--seed", "7"]);
    assert_eq!(code, Some(0));
    assert_ne!(seven, zero);
    let (code, mut stopped) = run(&["--seed", "7", "--stop-at", "safepoint=2", "--id-file", "id"]);
    assert_eq!(code, Some(85));
    let id = fs::read_to_string(sandbox.path("id")).expect("an id");
    stopped.extend(sandbox.run(&["resume", id.trim()]).stdout);
    assert_eq!(stopped, seven);
    sandbox.expect(2, &["run", "--seed", "7", "draws.wat"]);
}

/// Opens the pipe `p` in its first granted directory and removes it, which no image can tell of; then copies a byte from
/// standard input to standard output.
const HOLDS_A_REMOVED_PIPE: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "p")
  (data (i32.const 8) "\10\00\00\00\01\00\00\00")
  (func (export "_start")
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)
          (i64.const 0x42) (i64.const 0) (i32.const 0) (i32.const 32))
      (then (unreachable)))
    (if (call $unlink (i32.const 3) (i32.const 0) (i32.const 1)) (then (unreachable)))
    (drop (call $read (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 40)))
    (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 40)))))"#;

#[test]
fn a_program_that_cannot_be_stored_where_it_waits_for_input_is_told_of_once_and_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.write("pipe.wat", HOLDS_A_REMOVED_PIPE);
    let directory = sandbox.path("d");
    fs::create_dir(&directory).expect("a directory");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, directory.join("p"), fifo, mode, 0).expect("a pipe");
    let grant = format!("{}::/d", directory.display());
    let mut command = sandbox.command(&["run", "--dir", &grant, "--stop-at", "stdin", "pipe.wat"]);
    let stderr = fs::File::create(sandbox.path("stderr")).expect("a file for output");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr);
    let mut running = command.spawn().expect("the binary starts");
    let read = || fs::read_to_string(sandbox.path("stderr")).expect("a file of the sandbox");
    until("it goes on", || read().contains("goes on"));
    let mut stdin = running.stdin.take().expect("a pipe");
    stdin.write_all(b"x").expect("it waits for it");
    let output = running.wait_with_output().expect("it ends");
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &b"x"[..])
    );
    let told = read();
    assert_eq!(told.matches("goes on").count(), 1, "{told}");
}
