//! The benchmark measures what it says it does; what comes out is no matter of tests.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wsnap-bench"))
        .args(arguments)
        .output()
        .expect("the benchmark starts")
}

fn few() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/few.toml");
    path.to_str().expect("the path is text").to_owned()
}

fn figures(output: &Output) -> serde_json::Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("figures are JSON")
}

/// All figures of a list, which is not empty, are more than nothing.
fn assert_positive(figures: &serde_json::Value) {
    let figures = figures.as_array().expect("a list");
    assert!(!figures.is_empty());
    for figure in figures {
        assert!(figure.as_f64() > Some(0.0), "{figure}");
    }
}

#[test]
fn a_comparison_has_every_round_of_every_way_and_is_written_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("the path is text");
    let output = bench(&[
        "compare",
        "--table",
        &few(),
        "--rounds",
        "2",
        "--stops",
        "3",
        "--out",
        out,
        "--json",
        "pi",
    ]);
    let report = figures(&output);
    let program = &report["programs"][0];
    assert_eq!(program["name"], "pi");
    let ways = program["run"].as_array().expect("a list of ways");
    assert_eq!(ways.len(), 6);
    for way in ways {
        let (name, ms) = (way["way"].as_str(), &way["ms"]);
        match name.expect("a way has a name") {
            // Binaryen need not be installed, and then there is a word of it.
            "asyncify" if way["skipped"].is_string() => {
                let why = way["skipped"].to_string();
                assert!(why.contains("not installed"), "{why}");
            }
            // The interpreter is slow and runs once.
            "wasmi" => assert!(ms[0].as_f64() > Some(0.0) && ms[1].is_null(), "{ms}"),
            // A program that took a breath too long was not met in its first tenth.
            "resumed" => (),
            _ => assert_positive(ms),
        }
    }
    assert_positive(&program["stop"]["stop_ms"]);
    assert_positive(&program["stop"]["resume_again_ms"]);
    assert!(program["build"]["compile_ratio"]["median"].as_f64() > Some(0.0));

    let written = |name: &str| fs::read_to_string(folder.path().join(name)).expect("it is written");
    let again: serde_json::Value =
        serde_json::from_str(&written("compare.json")).expect("the raw figures are JSON");
    assert_eq!(again, report);
    assert!(written("compare.md").contains("| wsnap / bare"));
    for plot in ["programs.svg", "ways.svg"] {
        assert!(written(plot).starts_with("<svg"));
    }
}

#[test]
fn a_program_with_another_output_is_an_error_and_the_others_are_measured() {
    let output = bench(&[
        "compare",
        "--table",
        &few(),
        "--rounds",
        "1",
        "--stops",
        "0",
        "--ways",
        "wsnap",
        "wrong",
        "pi",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("wrong: its output has the hash"),
        "{errors}"
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("| pi "));
}

#[test]
fn a_program_that_is_not_in_the_table_is_an_error_that_names_those_that_are() {
    let output = bench(&["compare", "--table", &few(), "nothing"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("pi, wrong"), "{errors}");
}

#[test]
fn resuming_and_clones_are_measured() {
    let report = figures(&bench(&[
        "resume",
        "--sizes",
        "1",
        "--rounds",
        "3",
        "--cold-rounds",
        "1",
        "--forks",
        "3",
        "--programs",
        "",
        "--json",
    ]));
    let resumes = report["resumes"].as_array().expect("a list");
    assert!(resumes.len() >= 8);
    for row in resumes {
        assert_eq!(row["memory_mib"], 1);
        assert!(row["first_instruction_us"]["median"].as_f64() > Some(0.0));
    }
    assert_eq!(report["forks"][0]["instances"], 3);
}

#[test]
fn snapshots_of_a_program_that_goes_on_are_measured() {
    let report = figures(&bench(&[
        "snapshot", "--size", "4", "--rounds", "1", "--json",
    ]));
    for row in report["rows"].as_array().expect("a list") {
        assert!(row["pause_ms"]["median"].as_f64() > Some(0.0));
        assert!(row["durable_ms"]["median"].as_f64() > Some(0.0));
    }
}

#[test]
fn images_at_intervals_are_weighed() {
    let report = figures(&bench(&[
        "autosave",
        "--size",
        "4",
        "--rates",
        "1,100",
        "--orders",
        "scattered",
        "--intervals",
        "0.2",
        "--scale",
        "0.1",
        "--json",
    ]));
    let rows = report["rows"].as_array().expect("a list");
    assert_eq!(rows.len(), 2);
    for row in rows {
        let pair = &row["runs"][0];
        for run in ["without", "with"] {
            for figure in ["work_per_s", "written_mib_per_s", "longest_gap_ms"] {
                assert!(pair[run][figure].as_f64() > Some(0.0), "{run} {figure}");
            }
        }
        assert!(pair["interval_s"]["min"].as_f64() > Some(0.1));
        assert!(pair["added_mib"]["median"].as_f64() > Some(0.0));
    }
    // Each image has what was written since the one before.
    let added = |row: usize| rows[row]["runs"][0]["added_mib"]["median"].as_f64();
    assert!(added(1) > added(0));
}

#[test]
fn urgent_programs_are_timed_with_free_and_taken_slots() {
    let report = figures(&bench(&[
        "slots", "--sizes", "1", "--rounds", "2", "--json",
    ]));
    let row = &report["rows"][0];
    assert_positive(&row["free_ms"]);
    assert_positive(&row["taken_ms"]);
}

#[test]
fn starts_are_measured_cold_and_warm() {
    let report = figures(&bench(&[
        "startup",
        "--table",
        &few(),
        "--rounds",
        "2",
        "--cold-rounds",
        "1",
        "--json",
        "pi",
    ]));
    let row = &report["programs"][0];
    for figures in [
        "cold_bare_ms",
        "cold_wsnap_ms",
        "warm_bare_ms",
        "warm_wsnap_ms",
    ] {
        assert_positive(&row[figures]);
    }
}

#[test]
fn the_first_line_of_a_script_is_timed_in_a_resumed_interpreter_and_in_a_started_one() {
    let report = figures(&bench(&["prewarmed", "--rounds", "1", "--json", "quickjs"]));
    let row = &report["programs"][0];
    for figures in ["resumed_ms", "started_ms", "bare_ms"] {
        assert_positive(&row[figures]);
    }
}

#[test]
fn clones_answer_and_are_weighed() {
    let report = figures(&bench(&[
        "clones", "--clones", "3", "--rounds", "1", "--json", "quickjs",
    ]));
    let row = &report["programs"][0];
    for figures in ["up_ms", "answered_ms", "answered_bytes"] {
        assert_positive(&row[figures]);
    }
}

#[test]
fn growth_is_measured_along_every_axis_and_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("the path is text");
    let report = figures(&bench(&[
        "growth", "--scale", "0.01", "--rounds", "1", "--out", out, "--json",
    ]));
    let axes = report["axes"].as_array().expect("a list");
    assert_eq!(axes.len(), 5);
    for curve in axes
        .iter()
        .flat_map(|axis| axis["curves"].as_array().expect("a list"))
    {
        assert!(!curve["points"].as_array().expect("a list").is_empty());
    }
    let drawn = fs::read_to_string(folder.path().join("growth.svg")).expect("it is drawn");
    assert!(drawn.starts_with("<svg") && drawn.contains("memory, MiB"));
}
