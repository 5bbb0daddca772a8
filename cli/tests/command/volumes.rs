//! Volumes: files that are part of a program's images, and `wsnap volume`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::process::Stdio;

use serde_json::Value;

use crate::sandbox::Sandbox;

/// Appends a digit to `log` in its first granted directory, for each of nine rounds, then prints the file.
const KEEPS_A_LOG: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_pread" (func $pread (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "log")
  (data (i32.const 8) "\10\00\00\00\01\00\00\00")
  (data (i32.const 16) "0")
  (data (i32.const 24) "\00\01\00\00\40\00\00\00")
  (func $round
    (i32.store8 (i32.const 16) (i32.add (i32.load8_u (i32.const 16)) (i32.const 1)))
    (if (call $write (i32.load (i32.const 32)) (i32.const 8) (i32.const 1) (i32.const 40))
      (then (call $exit (i32.const 41)))))
  (func (export "_start") (local $left i32)
    (if (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 1)
          (i64.const 0x42) (i64.const 0) (i32.const 1) (i32.const 32))
      (then (call $exit (i32.const 40))))
    (local.set $left (i32.const 9))
    (loop $again
      (call $round)
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (if (call $pread (i32.load (i32.const 32)) (i32.const 24) (i32.const 1) (i64.const 0) (i32.const 28))
      (then (call $exit (i32.const 42))))
    (i32.store (i32.const 24) (i32.const 256))
    (drop (call $write (i32.const 1) (i32.const 24) (i32.const 1) (i32.const 40)))))"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("log.wat", KEEPS_A_LOG);
    sandbox
}

/// Starts the program and stops it at a safepoint; returns the image's id.
fn stopped(sandbox: &Sandbox, safepoint: u32) -> String {
    let at = format!("safepoint={safepoint}");
    let arguments = [
        "run",
        "--deterministic",
        "--volume",
        "files::/w",
        "--name",
        "log",
        "--stop-at",
        &at,
        "--id-file",
        "id",
        "log.wat",
    ];
    sandbox.expect(85, &arguments);
    let id = fs::read_to_string(sandbox.path("id")).expect("an id");
    id.trim().to_owned()
}

fn json(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let (stdout, _) = sandbox.expect(0, arguments);
    serde_json::from_str(&stdout).expect("JSON")
}

#[test]
fn a_volume_goes_with_the_program_and_branches_with_its_images() {
    let sandbox = sandbox();
    let (whole, _) = sandbox.expect(0, &["run", "--volume", "files::/w", "log.wat"]);
    assert_eq!(whole, "123456789");
    let (bare, _) = sandbox.expect(0, &["run", "--bare", "--volume", "files::/w", "log.wat"]);
    assert_eq!(bare, whole);
    let early = stopped(&sandbox, 4);
    let (log, _) = sandbox.expect(0, &["volume", "get", &early, "files:log"]);
    assert!(
        whole.starts_with(&log) && !log.is_empty() && log.len() < 9,
        "{log}"
    );
    // Both branches write to the file, each to its own.
    for _ in 0..2 {
        let (stdout, _) = sandbox.expect(0, &["resume", &early]);
        assert_eq!(stdout, whole);
    }
    // Somebody else's machine.
    let other = Sandbox::new();
    let file = other.path("export").display().to_string();
    sandbox.expect(0, &["export", &early, &file]);
    other.expect(0, &["import", &file]);
    let (stdout, _) = other.expect(0, &["resume", &early]);
    assert_eq!(stdout, whole);
    other.expect(0, &["verify"]);
}

#[test]
fn each_link_of_a_chain_stores_what_a_direct_run_stores() {
    let sandbox = sandbox();
    let direct = stopped(&sandbox, 9);
    let mut id = stopped(&sandbox, 3);
    for _ in 0..2 {
        sandbox.expect(
            85,
            &["resume", "--stop-at", "safepoint=3", "--id-file", "id", &id],
        );
        id = fs::read_to_string(sandbox.path("id"))
            .expect("an id")
            .trim()
            .to_owned();
    }
    assert_eq!(id, direct);
}

#[test]
fn inspect_and_diff_and_ls_tell_of_volumes() {
    let sandbox = sandbox();
    let (early, late) = (stopped(&sandbox, 3), stopped(&sandbox, 9));
    let report = json(&sandbox, &["inspect", "--json", &late]);
    assert_eq!(report["memories"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["volumes"][0]["name"], "files");
    assert_eq!(report["volumes"][0]["stored_bytes"], 4096);
    let descriptors = report["wasi"]["descriptors"].as_array().expect("a list");
    let of = |fd: u64| {
        descriptors
            .iter()
            .find(|one| one["fd"] == fd)
            .expect("it is open")
    };
    assert_eq!(of(3)["kind"], "volume");
    assert_eq!(of(4)["kind"], "file in a volume");
    assert_eq!(of(4)["path"], "/w/log");
    let (text, _) = sandbox.expect(0, &["inspect", &late]);
    assert!(text.contains("volume files at /w: "), "{text}");
    let changes = json(&sandbox, &["diff", "--json", &early, &late]);
    assert_eq!(changes["memories"][1]["volume"], "files");
    assert_eq!(changes["memories"][1]["changed_pages"], 1);
    let (text, _) = sandbox.expect(0, &["diff", &early, &late]);
    assert!(text.contains("\nvolume files: "), "{text}");

    let volumes = json(&sandbox, &["volume", "ls", "--json", "log"]);
    assert_eq!(volumes[0]["name"], "files");
    assert_eq!(volumes[0]["guest_path"], "/w");
    let entries = json(&sandbox, &["volume", "ls", "--json", "log", "files"]);
    assert_eq!(entries[0]["name"], "log");
    assert_eq!(entries[0]["type"], "regular file");
    let (text, _) = sandbox.expect(0, &["volume", "ls", "log", "files:/"]);
    assert!(text.contains("log"), "{text}");
}

#[test]
fn what_is_put_into_a_volume_is_there_when_the_program_goes_on() {
    let sandbox = sandbox();
    let old = stopped(&sandbox, 4);
    fs::create_dir_all(sandbox.path("tree/inner")).expect("a directory");
    sandbox.write("tree/a", "of the tree");
    fs::write(sandbox.path("tree/inner/b"), vec![7; 3_000_000]).expect("a file");
    sandbox.write("log", "replaced ");

    let (new, _) = sandbox.expect(
        0,
        &[
            "volume",
            "put",
            "--tag",
            "put",
            "log",
            "tree",
            "files:deep/tree",
        ],
    );
    assert_ne!(new.trim(), old);
    let (newer, _) = sandbox.expect(0, &["volume", "put", "log", "log", "files:log"]);
    let newer = newer.trim();
    // The name has gone along, the tag and the old image stay.
    let (log, _) = sandbox.expect(0, &["volume", "get", "log", "files:log"]);
    assert_eq!(log, "replaced ");
    let (stdout, _) = sandbox.expect(0, &["resume", &old]);
    assert_eq!(stdout, "123456789");
    sandbox.expect(0, &["volume", "get", "put", "files:deep", "copy"]);
    assert_eq!(
        fs::read(sandbox.path("copy/tree/a")).expect("a file"),
        b"of the tree"
    );
    assert_eq!(
        fs::read(sandbox.path("copy/tree/inner/b")).expect("a file"),
        [7; 3_000_000]
    );
    // Appending goes on behind what is there now.
    let (stdout, _) = sandbox.expect(0, &["resume", newer]);
    assert!(
        stdout.starts_with("replaced ") && stdout.ends_with('9'),
        "{stdout}"
    );
    let records = json(&sandbox, &["log", "--json", newer]);
    assert!(records.to_string().contains("\"volume put\""), "{records}");
    sandbox.expect(0, &["verify"]);

    let mut piped = sandbox.command(&["volume", "put", "log", "-", "files:piped"]);
    piped.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut piped = piped.spawn().expect("the binary starts");
    let mut stdin = piped.stdin.take().expect("a pipe");
    stdin.write_all(b"from a pipe").expect("it reads");
    drop(stdin);
    assert!(piped.wait().expect("it ends").success());
    let (stdout, _) = sandbox.expect(0, &["volume", "get", "log", "files:piped"]);
    assert_eq!(stdout, "from a pipe");
}

#[test]
fn what_cannot_be_done_in_volumes_is_refused_and_changes_nothing() {
    let sandbox = sandbox();
    let id = stopped(&sandbox, 4);
    sandbox.write("taken", "");
    fs::create_dir(sandbox.path("devices")).expect("a directory");
    std::os::unix::fs::symlink("/dev/zero", sandbox.path("devices/zero")).expect("a link");
    let cases: &[(&[&str], &str)] = &[
        (&["volume", "get", &id, "files:none"], "no such file"),
        (&["volume", "get", &id, "other:log"], "no volume other"),
        (
            &["volume", "get", &id, "files:../log"],
            "leads out of the volume",
        ),
        (&["volume", "get", &id, "files:log", "taken"], "taken"),
        (&["volume", "get", &id, "files"], "is a directory"),
        (
            &["volume", "put", &id, "taken", "files:log/below"],
            "not a directory",
        ),
        (&["volume", "put", &id, "nothing", "files:x"], "nothing"),
        (
            &["volume", "put", &id, "devices", "files:x"],
            "devices/zero is neither a file nor a directory",
        ),
        (
            &["volume", "put", &id, "taken", "other:x"],
            "no volume other",
        ),
        (
            &["run", "--volume", "a::/a", "--volume", "a::/b", "log.wat"],
            "two volumes are named a",
        ),
    ];
    for (arguments, expected) in cases {
        let (stdout, stderr) = sandbox.expect(1, arguments);
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        assert_eq!(stdout, "", "{arguments:?}");
    }
    sandbox.expect(2, &["run", "--volume", "files", "log.wat"]);
    assert_eq!(
        json(&sandbox, &["ls", "--json"]).as_array().map(Vec::len),
        Some(1)
    );
}

/// Makes a file of a terabyte with two bytes in it, in its first granted directory.
const MAKES_A_HOLE: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_pwrite" (func $pwrite (param i32 i32 i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_set_size" (func $set_size (param i32 i64) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "hole")
  (data (i32.const 8) "\04\00\00\00\01\00\00\00")
  (func (export "_start") (local $left i32)
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 1)
      (i64.const 0x42) (i64.const 0) (i32.const 0) (i32.const 32)))
    (i32.store8 (i32.const 4) (i32.const 65))
    (drop (call $pwrite (i32.load (i32.const 32)) (i32.const 8) (i32.const 1) (i64.const 5) (i32.const 40)))
    (drop (call $pwrite (i32.load (i32.const 32)) (i32.const 8) (i32.const 1) (i64.const 0x8000000000) (i32.const 40)))
    (drop (call $set_size (i32.load (i32.const 32)) (i64.const 0x10000000000)))
    (loop $again
      (br_if $again (i32.ne (i32.const 100) (local.tee $left (i32.add (local.get $left) (i32.const 1))))))))"#;

#[test]
fn what_is_a_hole_in_a_volume_is_one_in_a_copy_and_does_not_fill_the_disk() {
    let sandbox = Sandbox::new();
    sandbox.write("hole.wat", MAKES_A_HOLE);
    let run = ["run", "--volume", "v::/v", "--name", "hole"];
    sandbox.expect(
        85,
        &[&run[..], &["--stop-at", "safepoint=20", "hole.wat"]].concat(),
    );
    let target = sandbox.path("copy");
    let shown = target.display().to_string();
    sandbox.expect(0, &["volume", "get", "hole", "v:hole", &shown]);
    let copy = fs::File::open(&target).expect("a copy");
    let metadata = copy.metadata().expect("it is open");
    assert_eq!(metadata.len(), 1 << 40);
    assert!(metadata.blocks() < 1000, "{} blocks", metadata.blocks());
    for (offset, expected) in [
        (4, 0),
        (5, b'A'),
        (6, 0),
        (1 << 39, b'A'),
        ((1 << 40) - 1, 0),
    ] {
        let mut byte = [1];
        copy.read_exact_at(&mut byte, offset).expect("a byte");
        assert_eq!(byte, [expected], "at {offset}");
    }
}

#[test]
fn zeros_that_are_put_into_a_volume_take_no_room() {
    let sandbox = sandbox();
    let id = stopped(&sandbox, 4);
    let source = sandbox.path("zeros");
    let file = fs::File::create(&source).expect("a file");
    file.set_len(64 << 20).expect("a hole");
    file.write_all_at(b"A", 40 << 20).expect("a byte");
    let shown = source.display().to_string();
    let (new, _) = sandbox.expect(0, &["volume", "put", &id, &shown, "files:zeros"]);
    let volumes = json(&sandbox, &["volume", "ls", "--json", new.trim()]);
    let content = volumes[0]["content_bytes"].as_u64().expect("a number");
    assert!(content < 16 << 20, "{content} bytes");
    let target = sandbox.path("copy");
    let shown = target.display().to_string();
    sandbox.expect(0, &["volume", "get", new.trim(), "files:zeros", &shown]);
    let copy = fs::read(&target).expect("a copy");
    assert_eq!(copy, fs::read(&source).expect("the source"));
}

#[test]
fn a_directory_with_a_link_to_itself_is_refused_by_name() {
    let sandbox = sandbox();
    let id = stopped(&sandbox, 4);
    let directory = sandbox.path("tree");
    fs::create_dir_all(directory.join("inner")).expect("directories");
    for link in ["inner/one", "inner/other"] {
        std::os::unix::fs::symlink("..", directory.join(link)).expect("a link");
    }
    let shown = directory.display().to_string();
    let (_, stderr) = sandbox.expect(1, &["volume", "put", &id, &shown, "files:tree"]);
    assert!(
        stderr.contains("leads back to a directory that it is in"),
        "{stderr}"
    );
}

#[test]
fn a_file_is_copied_to_standard_output_where_its_name_would_be_a_dash() {
    let sandbox = sandbox();
    let id = stopped(&sandbox, 9);
    let (log, _) = sandbox.expect(0, &["volume", "get", &id, "files:log"]);
    let (dash, _) = sandbox.expect(0, &["volume", "get", &id, "files:log", "-"]);
    assert!(!log.is_empty());
    assert_eq!(dash, log);
    assert!(!sandbox.path("-").exists());
}
