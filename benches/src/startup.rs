//! How long programs take to start, from the shell: compiled for the first time, with their code in the cache, and resumed.
//!
//! Programs are run with arguments with which they only start and end (`start` in the table). `wasmtime` is the command of
//! that name, with its code cache on, where it is installed; *bare* is `wsnap run --bare`, which compiles the same code as
//! plain wasmtime does.

use crate::error::BenchError;
use crate::guest::scratch_folder;
use crate::machine::Machine;
use crate::markdown::{number, ratio, table};
use crate::output::Output;
use crate::shell;
use crate::statistics::{Spread, ms};
use crate::table::{Row as Listed, select};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The programs, by their names in the table; those that have `start` there
    #[arg(default_values_t = ["fib", "json", "sqlite", "quickjs", "cpython", "ruby"].map(String::from))]
    programs: Vec<String>,
    /// Start each program so many times with its code in the cache
    #[arg(long, default_value_t = 21)]
    rounds: u32,
    /// And so many times with an empty cache
    #[arg(long, default_value_t = 3)]
    cold_rounds: u32,
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

/// How long one program takes to start, in milliseconds from making the process to its end; figures of one index are of one round.
#[derive(Debug, Default, Serialize)]
struct Row {
    name: String,
    module_bytes: u64,
    /// With an empty cache.
    cold_bare_ms: Vec<f64>,
    cold_wsnap_ms: Vec<f64>,
    /// A program stopped when it waits for input, resumed with an empty cache, beside running it from its start like
    /// that; none if it never waits.
    cold_resume_ms: Vec<f64>,
    cold_run_ms: Vec<f64>,
    /// With its code in the cache; none if wasmtime is not installed.
    warm_wasmtime_ms: Vec<f64>,
    warm_bare_ms: Vec<f64>,
    warm_wsnap_ms: Vec<f64>,
}

/// Measures and prints the figures.
pub fn measure_all(arguments: &Arguments) -> Result<(), BenchError> {
    let mut report = Report {
        machine: Machine::this(),
        programs: Vec::new(),
    };
    for listed in select(arguments.table.as_deref(), &arguments.programs)? {
        eprintln!("{} …", listed.name);
        report.programs.push(measure(&listed, arguments)?);
    }
    let text = format!("{}\n\n{}", report.machine, starts(&report.programs));
    arguments.output.publish("startup", &report, &text, &[])
}

fn measure(listed: &Listed, arguments: &Arguments) -> Result<Row, BenchError> {
    let subject = Subject::new(listed)?;
    let mut row = Row {
        name: listed.name.clone(),
        module_bytes: fs::metadata(&subject.module).map_or(0, |metadata| metadata.len()),
        ..Row::default()
    };
    for _ in 0..arguments.cold_rounds {
        let fresh = scratch_folder(None)?;
        row.cold_bare_ms.push(subject.start_bare(fresh.path())?);
        let fresh = scratch_folder(None)?;
        row.cold_wsnap_ms.push(subject.start(fresh.path())?);
        if let Some(ended) = subject.resume_cold()? {
            row.cold_resume_ms.push(ended);
            let fresh = scratch_folder(None)?;
            row.cold_run_ms.push(subject.run_on_no_input(fresh.path())?);
        }
    }
    let warm = subject.folder.path();
    subject.start_bare(warm)?;
    subject.start(warm)?;
    subject.start_wasmtime(warm)?;
    for _ in 0..arguments.rounds {
        row.warm_wasmtime_ms.extend(subject.start_wasmtime(warm)?);
        row.warm_bare_ms.push(subject.start_bare(warm)?);
        row.warm_wsnap_ms.push(subject.start(warm)?);
    }
    Ok(row)
}

/// A program that is started again and again.
struct Subject<'l> {
    listed: &'l Listed,
    module: PathBuf,
    start: &'l [String],
    folder: TempDir,
}

impl<'l> Subject<'l> {
    fn new(listed: &'l Listed) -> Result<Self, BenchError> {
        let start = listed.start.as_deref();
        Ok(Self {
            listed,
            module: listed.module_path()?,
            start: start.ok_or_else(|| BenchError::NoStart(listed.name.clone()))?,
            folder: scratch_folder(None)?,
        })
    }

    /// From making the process to its end, in milliseconds.
    fn timed(&self, command: &mut Command) -> Result<f64, BenchError> {
        let timed = shell::run_to(command, "", &[0])?;
        Ok(ms(timed.end))
    }

    fn start(&self, folder: &Path) -> Result<f64, BenchError> {
        let mut command = shell::wsnap(folder)?;
        self.timed(command.arg("run").arg(&self.module).args(self.start))
    }

    fn start_bare(&self, folder: &Path) -> Result<f64, BenchError> {
        let mut command = shell::wsnap(folder)?;
        command.args(["run", "--bare"]).arg(&self.module);
        self.timed(command.args(self.start))
    }

    fn start_wasmtime(&self, folder: &Path) -> Result<Option<f64>, BenchError> {
        let Some(mut command) = shell::wasmtime(folder)? else {
            return Ok(None);
        };
        command.arg(&self.module).args(self.start);
        self.timed(&mut command).map(Some)
    }

    /// Resumes the program where it waits for input, of which there is none, on a machine that has only the image.
    fn resume_cold(&self) -> Result<Option<f64>, BenchError> {
        let Some(waits) = &self.listed.waits else {
            return Ok(None);
        };
        let fresh = scratch_folder(None)?;
        let id_file = fresh.path().join("id");
        let mut command = shell::wsnap(fresh.path())?;
        command
            .args(["run", "--stop-at", "stdin", "--id-file"])
            .arg(&id_file)
            .arg(&self.module)
            .args(waits);
        stop_at_input(&mut command)?;
        let id = fs::read_to_string(&id_file).map_err(crate::error::at(&id_file))?;
        let cache = fresh.path().join("cache");
        fs::remove_dir_all(&cache).map_err(crate::error::at(&cache))?;
        let mut command = shell::wsnap(fresh.path())?;
        self.timed(command.args(["resume", id.trim()])).map(Some)
    }

    fn run_on_no_input(&self, folder: &Path) -> Result<f64, BenchError> {
        let waits = self.listed.waits.as_deref().unwrap_or_default();
        let mut command = shell::wsnap(folder)?;
        self.timed(command.arg("run").arg(&self.module).args(waits))
    }
}

/// Runs a command that is suspended when it waits for input, which nobody gives.
pub fn stop_at_input(command: &mut Command) -> Result<(), BenchError> {
    /// What a suspended program exits with.
    const SUSPENDED: i32 = 85;
    use std::process::Stdio;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let program = PathBuf::from(command.get_program());
    let mut child = command.spawn().map_err(crate::error::at(&program))?;
    // The pipe stays open until the program has been suspended.
    let pipe = child.stdin.take();
    let status = child.wait().map_err(crate::error::at(&program))?;
    drop(pipe);
    match status.code() {
        Some(SUSPENDED) => Ok(()),
        code => Err(BenchError::Unexpected(format!(
            "{command:?} ended with {code:?}, not suspended"
        ))),
    }
}

fn starts(rows: &[Row]) -> comfy_table::Table {
    let mut table = table(&[
        "program",
        "MiB",
        "cold bare ms",
        "cold wsnap ms",
        "ratio",
        "cold run to input ms",
        "cold resume ms",
        "warm wasmtime ms",
        "warm bare ms",
        "warm wsnap ms",
        "above wasmtime ms",
    ]);
    for row in rows {
        let median = |figures: &[f64]| Spread::of(figures.iter().copied()).median;
        let shown = |figures: &[f64]| match figures {
            [] => String::new(),
            figures => number(median(figures)),
        };
        let pairs = |one: &[f64], other: &[f64], what: fn(f64, f64) -> f64| {
            Spread::of(one.iter().zip(other).map(|(one, other)| what(*one, *other))).median
        };
        let above = match &row.warm_wasmtime_ms[..] {
            [] => String::new(),
            there => number(pairs(&row.warm_wsnap_ms, there, |one, other| one - other)),
        };
        table.add_row([
            row.name.clone(),
            number(row.module_bytes as f64 / f64::from(1 << 20)),
            shown(&row.cold_bare_ms),
            shown(&row.cold_wsnap_ms),
            ratio(pairs(&row.cold_wsnap_ms, &row.cold_bare_ms, |a, b| a / b)),
            shown(&row.cold_run_ms),
            shown(&row.cold_resume_ms),
            shown(&row.warm_wasmtime_ms),
            shown(&row.warm_bare_ms),
            shown(&row.warm_wsnap_ms),
            above,
        ]);
    }
    table
}
