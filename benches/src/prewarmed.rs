//! Interpreters that are resumed where they wait for a script, beside starting them: from the shell to the first line that a
//! short script prints.

use crate::error::{BenchError, at};
use crate::guest::scratch_folder;
use crate::machine::Machine;
use crate::markdown::{number, table};
use crate::output::Output;
use crate::shell;
use crate::startup::stop_at_input;
use crate::statistics::{Spread, ms};
use crate::table::{Script, select};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The interpreters, by their names in the table; those that have `waits` and `script` there
    #[arg(default_values_t = ["quickjs", "cpython", "ruby"].map(String::from))]
    programs: Vec<String>,
    /// Run each script so many times each way
    #[arg(long, default_value_t = 21)]
    rounds: u32,
    #[command(flatten)]
    output: Output,
    /// Another table of programs than benches/programs.toml
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    programs: Vec<Row>,
}

/// From making the process to the script's first line, in milliseconds, of each round.
#[derive(Debug, Default, Serialize)]
struct Row {
    name: String,
    resumed_ms: Vec<f64>,
    /// Until the whole process has ended.
    resumed_end_ms: Vec<f64>,
    started_ms: Vec<f64>,
    bare_ms: Vec<f64>,
    /// The machine's own interpreter; none where there is none.
    native_ms: Vec<f64>,
}

/// Measures and prints the figures.
pub fn measure_all(arguments: &Arguments) -> Result<(), BenchError> {
    let mut report = Report {
        machine: Machine::this(),
        programs: Vec::new(),
    };
    let listed = select(arguments.table.as_deref(), &arguments.programs)?;
    report.programs.push(measure_echo(arguments.rounds)?);
    for listed in listed {
        eprintln!("{} …", listed.name);
        let (Some(waits), Some(script)) = (&listed.waits, &listed.script) else {
            return Err(BenchError::NoStart(listed.name));
        };
        let module = listed.module_path()?;
        let row = measure(&listed.name, &module, waits, script, arguments.rounds)?;
        report.programs.push(row);
    }
    let text = format!("{}\n\n{}", report.machine, figures(&report.programs));
    arguments.output.publish("prewarmed", &report, &text, &[])
}

/// A program that writes what it reads, so that nothing but resuming and starting takes time.
const ECHO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 64))
        (i32.store (i32.const 4) (i32.const 64))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
        (i32.store (i32.const 4) (i32.load (i32.const 16)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"#;

fn measure_echo(rounds: u32) -> Result<Row, BenchError> {
    let folder = scratch_folder(None)?;
    let module = folder.path().join("echo.wat");
    fs::write(&module, ECHO).map_err(at(&module))?;
    let script = Script {
        text: "42\n".into(),
        line: "42".into(),
        native: ["sh", "-c", "read line; echo $line"]
            .map(String::from)
            .into(),
    };
    measure("echo", &module, &[], &script, rounds)
}

fn measure(
    name: &str,
    module: &Path,
    waits: &[String],
    script: &Script,
    rounds: u32,
) -> Result<Row, BenchError> {
    let folder = scratch_folder(None)?;
    let id_file = folder.path().join("id");
    let mut prepare = shell::wsnap(folder.path())?;
    prepare
        .args(["run", "--stop-at", "stdin", "--id-file"])
        .arg(&id_file)
        .arg(module)
        .args(waits);
    stop_at_input(&mut prepare)?;
    let id = fs::read_to_string(&id_file).map_err(at(&id_file))?;
    let first_line = |command: &mut Command| -> Result<(Duration, Duration), BenchError> {
        let timed = shell::run_to(command, &script.text, &[0])?;
        let line = timed.printed.lines().next().unwrap_or_default();
        match timed.first_line {
            // Interpreters may print a prompt before it.
            Some(first) if line.ends_with(&script.line) => Ok((first, timed.end)),
            _ => Err(BenchError::Unexpected(format!(
                "{command:?} printed {:?}, not {:?}",
                timed.printed, script.line
            ))),
        }
    };
    let mut row = Row {
        name: name.to_owned(),
        ..Row::default()
    };
    // The first round fills the cache and is not counted.
    for round in 0..=rounds {
        let mut resume = shell::wsnap(folder.path())?;
        let (resumed, end) = first_line(resume.args(["resume", id.trim()]))?;
        let mut start = shell::wsnap(folder.path())?;
        let (started, _) = first_line(start.arg("run").arg(module).args(waits))?;
        let mut bare = shell::wsnap(folder.path())?;
        let (bare, _) = first_line(bare.args(["run", "--bare"]).arg(module).args(waits))?;
        let native = match &script.native[..] {
            [] => None,
            [program, ..] if !is_installed(program) => None,
            [program, arguments @ ..] => {
                let (native, _) = first_line(Command::new(program).args(arguments))?;
                Some(ms(native))
            }
        };
        if round == 0 {
            continue;
        }
        row.resumed_ms.push(ms(resumed));
        row.resumed_end_ms.push(ms(end));
        row.started_ms.push(ms(started));
        row.bare_ms.push(ms(bare));
        row.native_ms.extend(native);
    }
    Ok(row)
}

fn is_installed(program: &str) -> bool {
    let probe = Command::new(program).arg("--version").output();
    probe.is_ok()
}

fn figures(rows: &[Row]) -> comfy_table::Table {
    let mut table = table(&[
        "first line of a script ms",
        "resumed",
        "least",
        "most",
        "its end",
        "started by wsnap",
        "bare",
        "native",
    ]);
    for row in rows {
        let shown = |figures: &[f64]| match figures {
            [] => String::new(),
            figures => number(Spread::of(figures.iter().copied()).median),
        };
        let resumed = Spread::of(row.resumed_ms.iter().copied());
        table.add_row([
            row.name.clone(),
            number(resumed.median),
            number(resumed.min),
            number(resumed.max),
            shown(&row.resumed_end_ms),
            shown(&row.started_ms),
            shown(&row.bare_ms),
            shown(&row.native_ms),
        ]);
    }
    table
}
