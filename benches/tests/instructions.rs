//! How many machine instructions rewritten programs execute, relative to the same programs under plain wasmtime: more than was
//! recorded does not pass unnoticed.
//!
//! Valgrind counts them, which is the same on every machine: it shows programs a processor of its own. What starting
//! costs cancels out, since each program runs twice, for fewer turns and for more. `instructions/recorded.toml` has the
//! ratios; `WSNAP_RECORD_INSTRUCTIONS=1 cargo test --release --workspace --test instructions` writes it anew.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// So much more than recorded is noticed.
const TOLERANCE: f64 = 0.03;

/// The programs, with numbers of turns.
const PROGRAMS: [(&str, u32, u32); 3] = [
    ("recursion", 20, 520),
    ("sieve", 1, 9),
    ("interpreter", 1_000, 21_000),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions")
}

/// The command `wsnap`, which the workspace's tests are built with.
fn wsnap() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_wsnap-bench")).with_file_name("wsnap")
}

/// How many instructions a run of so many turns takes in all, and what it prints.
fn count(program: &str, turns: u32, flags: &[&str], scratch: &Path) -> (u64, String) {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(wsnap())
        .arg("run")
        .args(flags)
        .args(["--invoke", "run"])
        .arg(folder().join(format!("{program}.wat")))
        .arg(turns.to_string())
        .env("WSNAP_STORE", scratch.join("store"))
        .env("WSNAP_CACHE", scratch.join("cache"))
        .stdin(Stdio::null());
    let output = command.output().expect("valgrind starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    let collected = collected.unwrap_or_else(|| panic!("{command:?} counted nothing: {said}"));
    (
        collected,
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// The instructions that the turns alone take.
fn count_turns(program: &str, [few, many]: [u32; 2], flags: &[&str]) -> (u64, String) {
    let scratch = tempfile::tempdir().expect("a folder");
    // The first run compiles, and leaves its code in the cache for the others.
    count(program, few, flags, scratch.path());
    let (least, _) = count(program, few, flags, scratch.path());
    let (all, printed) = count(program, many, flags, scratch.path());
    (all - least, printed)
}

#[test]
fn rewritten_programs_execute_no_more_instructions_than_were_recorded() {
    let has_valgrind = Command::new("valgrind").arg("--version").output().is_ok();
    if !has_valgrind || !wsnap().exists() {
        eprintln!("skipped: this needs valgrind, and the command wsnap beside the benchmark");
        assert!(env::var_os("WSNAP_REQUIRE_VALGRIND").is_none());
        return;
    }
    let path = folder().join("recorded.toml");
    let mut ratios = BTreeMap::new();
    for (program, few, many) in PROGRAMS {
        let (bare, expected) = count_turns(program, [few, many], &["--bare"]);
        let (rewritten, printed) = count_turns(program, [few, many], &[]);
        assert_eq!(printed, expected, "{program}");
        println!("{program}: {rewritten} instructions, {bare} bare");
        ratios.insert(program, rewritten as f64 / bare as f64);
    }
    if env::var_os("WSNAP_RECORD_INSTRUCTIONS").is_some() {
        let lines = ratios
            .iter()
            .map(|(program, ratio)| format!("{program} = {ratio:.3}\n"));
        let text = "# Instructions executed, relative to plain wasmtime; see ../instructions.rs.\n";
        fs::write(&path, text.to_owned() + &lines.collect::<String>()).expect("it can be written");
        return;
    }
    let text = fs::read_to_string(&path).expect("ratios are recorded");
    let recorded: BTreeMap<String, f64> = toml::from_str(&text).expect("the record is TOML");
    for (program, ratio) in &ratios {
        let before = recorded[*program];
        assert!(
            *ratio <= before * (1.0 + TOLERANCE),
            "{program} executes {ratio:.3} times the instructions of plain wasmtime; {before:.3} were recorded"
        );
    }
}
