//! Limits: what a program is told, or what its user is told of its end.

use std::fs;

use crate::sandbox::Sandbox;

/// Grows its memory or its table by as much as it is told, and exits with 10 if that fails.
const GROWS: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 2)
  (table 5 funcref)
  (func (export "memory_by") (param i32)
    (if (i32.eq (memory.grow (local.get 0)) (i32.const -1)) (then (call $exit (i32.const 10)))))
  (func (export "table_by") (param i32)
    (if (i32.eq (table.grow (ref.null func) (local.get 0)) (i32.const -1)) (then (call $exit (i32.const 10))))))"#;

/// Opens `f` in its first granted directory again and again; exits with the error number.
const OPENS: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "f")
  (func (export "_start") (local $error i32)
    (loop $again
      (br_if $again (i32.eqz (local.tee $error
        (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 1)
          (i64.const 0x42) (i64.const 0) (i32.const 0) (i32.const 32))))))
    (call $exit (local.get $error))))"#;

/// Writes 64 KiB to `f` in its first granted directory; exits with the error number of the last write, or 99 after a short
/// one.
const FILLS: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "f")
  (data (i32.const 8) "\00\10\00\00\00\10\00\00")
  (func (export "_start") (local $left i32) (local $error i32)
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 1)
      (i64.const 0x42) (i64.const 0) (i32.const 0) (i32.const 32)))
    (local.set $left (i32.const 16))
    (loop $again
      (if (local.tee $error (call $write (i32.load (i32.const 32)) (i32.const 8) (i32.const 1) (i32.const 40)))
        (then (call $exit (local.get $error))))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"#;

const RECURSES: &str = r#"(module
  (memory (export "memory") 1)
  (func $down (param i32) (result i32)
    (if (result i32) (local.get 0)
      (then (i32.add (i32.const 1) (call $down (i32.sub (local.get 0) (i32.const 1)))))
      (else (i32.const 0))))
  (func (export "depth") (param i32) (result i32) (call $down (local.get 0))))"#;

const SPINS: &str =
    r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#;

/// Sleeps for an hour.
const SLEEPS: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 3600000000000))
    (drop (call $poll (i32.const 0) (i32.const 256) (i32.const 1) (i32.const 512)))))"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for (name, text) in [
        ("grows.wat", GROWS),
        ("opens.wat", OPENS),
        ("fills.wat", FILLS),
        ("recurses.wat", RECURSES),
        ("spins.wat", SPINS),
        ("sleeps.wat", SLEEPS),
    ] {
        sandbox.write(name, text);
    }
    sandbox
}

#[test]
fn a_memory_or_table_grows_up_to_its_limit_and_not_beyond() {
    let sandbox = sandbox();
    for bare in [false, true] {
        let grow = |code: i32, limit: &[&str], function: &str, by: &str| {
            let mut arguments = vec!["run"];
            arguments.extend(bare.then_some("--bare"));
            arguments.extend(limit);
            arguments.extend(["--invoke", function, "grows.wat", by]);
            sandbox.expect(code, &arguments).1
        };
        grow(0, &["--max-memory-size", "256KiB"], "memory_by", "2");
        grow(10, &["--max-memory-size", "256KiB"], "memory_by", "3");
        grow(0, &["--max-table-elements", "8"], "table_by", "3");
        grow(10, &["--max-table-elements", "8"], "table_by", "4");
        let stderr = grow(
            134,
            &["--max-memory-size", "262144", "--trap-on-grow-failure"],
            "memory_by",
            "3",
        );
        assert!(
            stderr.contains("the limit for each memory is 262144 bytes"),
            "{stderr}"
        );
        let stderr = grow(
            134,
            &["--max-table-elements", "8", "--trap-on-grow-failure"],
            "table_by",
            "4",
        );
        assert!(
            stderr.contains("the limit for each table is 8 elements"),
            "{stderr}"
        );
        let stderr = grow(1, &["--max-memory-size", "64KiB"], "memory_by", "0");
        assert!(
            stderr.contains("the limit for each memory is 65536 bytes"),
            "{stderr}"
        );
    }
    let stderr = sandbox
        .expect(
            1,
            &[
                "run",
                "--max-table-elements",
                "4",
                "--invoke",
                "table_by",
                "grows.wat",
                "0",
            ],
        )
        .1;
    assert!(
        stderr.contains("the limit for each table is 4 elements"),
        "{stderr}"
    );
}

#[test]
fn a_program_opens_as_many_files_as_it_may_and_no_more() {
    let sandbox = sandbox();
    // Three streams, a directory, and six files are ten; the next one is EMFILE.
    sandbox.expect(
        33,
        &[
            "run",
            "--max-descriptors",
            "10",
            "--dir",
            ".::/w",
            "opens.wat",
        ],
    );
    sandbox.expect(
        85,
        &[
            "run",
            "--max-descriptors",
            "10",
            "--dir",
            ".::/w",
            "--stop-at",
            "safepoint=5",
            "--id-file",
            "id",
            "opens.wat",
        ],
    );
    let id = fs::read_to_string(sandbox.path("id")).expect("an id");
    sandbox.expect(
        33,
        &[
            "resume",
            "--max-descriptors",
            "20",
            "--dir",
            ".::/w",
            id.trim(),
        ],
    );
}

#[test]
fn a_program_fills_a_volume_up_to_its_limit() {
    let sandbox = sandbox();
    sandbox.expect(
        0,
        &[
            "run",
            "--volume",
            "v::/v",
            "--max-volume-size",
            "64KiB",
            "fills.wat",
        ],
    );
    sandbox.expect(
        51,
        &[
            "run",
            "--volume",
            "v::/v",
            "--max-volume-size",
            "60KiB",
            "fills.wat",
        ],
    );
}

#[test]
fn a_program_with_too_little_stack_traps() {
    let sandbox = sandbox();
    let arguments = [
        "run",
        "--max-wasm-stack",
        "64KiB",
        "--invoke",
        "depth",
        "recurses.wat",
        "100000",
    ];
    let (_, stderr) = sandbox.expect(134, &arguments);
    assert!(stderr.contains("call stack exhausted"), "{stderr}");
    let arguments = [
        "run",
        "--max-wasm-stack",
        "16MiB",
        "--invoke",
        "depth",
        "recurses.wat",
        "100000",
    ];
    let (stdout, _) = sandbox.expect(0, &arguments);
    assert_eq!(stdout, "100000\n");
}

#[test]
fn a_program_whose_time_is_up_ends_and_its_limit_is_named() {
    let sandbox = sandbox();
    for program in ["spins.wat", "sleeps.wat"] {
        let (stdout, stderr) = sandbox.expect(134, &["run", "--timeout", "100ms", program]);
        assert!(
            stderr.contains("the program's time is up (--timeout)"),
            "{stderr}"
        );
        assert_eq!(stdout, "");
    }
    let (_, stderr) = sandbox.expect(134, &["run", "--cpu-timeout", "50ms", "spins.wat"]);
    assert!(
        stderr.contains("the program's processor time is up (--cpu-timeout)"),
        "{stderr}"
    );
    // One that sleeps uses no processor time, so the other limit comes first.
    let (_, stderr) = sandbox.expect(
        134,
        &[
            "run",
            "--timeout",
            "500ms",
            "--cpu-timeout",
            "400ms",
            "sleeps.wat",
        ],
    );
    assert!(stderr.contains("(--timeout)"), "{stderr}");
    sandbox.expect(2, &["run", "--bare", "--timeout", "1s", "spins.wat"]);
    sandbox.expect(2, &["run", "--timeout", "0s", "spins.wat"]);
    let (stdout, _) = sandbox.expect(0, &["ls", "--json"]);
    assert_eq!(stdout.trim(), "[]", "nothing was stored");
}

#[test]
fn a_program_whose_time_is_up_is_suspended_if_asked_for_and_goes_on() {
    let sandbox = sandbox();
    for (flag, cause) in [("--timeout", "timeout"), ("--cpu-timeout", "cpu-timeout")] {
        let (_, stderr) = sandbox.expect(
            85,
            &[
                "run",
                flag,
                "50ms",
                "--on-timeout",
                "suspend",
                "--id-file",
                "id",
                "spins.wat",
            ],
        );
        assert!(stderr.contains(&format!("suspended ({cause})")), "{stderr}");
        let id = fs::read_to_string(sandbox.path("id")).expect("an id");
        let id = id.trim();
        let (log, _) = sandbox.expect(0, &["log", "--json", id]);
        assert!(log.contains(&format!("\"{cause}\"")), "{log}");
        // Limits are no part of an image: this one goes on until its own time is up.
        sandbox.expect(85, &["resume", "--stop-at", "after=50ms", id]);
        sandbox.expect(134, &["resume", flag, "50ms", id]);
    }
}
