//! How soon an urgent program runs that has to push another one aside.
//!
//! One slot is held by a guest with memory of some size, all of which is in its first image, and which writes 100 MiB a second
//! from then on. An urgent program that prints a line wants the slot; in turn with it, it wants one that is free.
//! Times are from making the process to its first line, so what pushing aside takes is their difference.

use crate::error::{BenchError, at};
use crate::guest::scratch_folder;
use crate::machine::Machine;
use crate::markdown::{number, table};
use crate::output::Output;
use crate::shell;
use crate::statistics::{Spread, ms};
use crate::worker::{Order, SIZES, worker};
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const RATE_MIB_PER_S: u64 = 100;
/// The guest that is pushed aside runs so long in between.
const RUN: Duration = Duration::from_millis(500);
/// It lives longer than any benchmark.
const SECONDS: f64 = 1e6;
const URGENT: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\08\00\00\00\02\00\00\00!\0a")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"#;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Sizes of the other program's memory in MiB, powers of two up to 2048
    #[arg(long, value_delimiter = ',', default_value = "1,64,1024", value_parser = SIZES)]
    sizes: Vec<u64>,
    /// Push it aside so often
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    output: Output,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    rows: Vec<Row>,
}

/// One size of memory.
#[derive(Debug, Serialize)]
struct Row {
    memory_mib: u64,
    /// With a slot that is free.
    free_ms: Vec<f64>,
    /// With one that the other program has.
    taken_ms: Vec<f64>,
}

/// Measures and prints the figures.
pub fn measure_all(arguments: &Arguments) -> Result<(), BenchError> {
    let mut rows = Vec::new();
    for size in &arguments.sizes {
        eprintln!("{size} MiB …");
        rows.push(measure(*size, arguments.rounds)?);
    }
    let report = Report {
        machine: Machine::this(),
        rows,
    };
    let text = format!("{}\n\n{}", report.machine, table_of(&report.rows));
    arguments.output.publish("slots", &report, &text, &[])
}

fn measure(memory_mib: u64, rounds: u32) -> Result<Row, BenchError> {
    let folder = scratch_folder(None)?;
    let folder = folder.path();
    for slots in ["free", "taken"] {
        let slots = folder.join(slots);
        let mut command = shell::wsnap(folder)?;
        shell::run_to(
            command.arg("slots").arg(slots).args(["--count", "1"]),
            "",
            &[0],
        )?;
    }
    let mut row = Row {
        memory_mib,
        free_ms: Vec::new(),
        taken_ms: Vec::new(),
    };
    // The first run compiles.
    urgent(folder, "free")?;
    let _other = Other::start(folder, memory_mib)?;
    for _ in 0..rounds {
        thread::sleep(RUN);
        row.free_ms.push(ms(urgent(folder, "free")?));
        row.taken_ms.push(ms(urgent(folder, "taken")?));
    }
    Ok(row)
}

/// From making the process to the first line.
fn urgent(folder: &Path, slots: &str) -> Result<Duration, BenchError> {
    let module = folder.join("urgent.wat");
    fs::write(&module, URGENT).map_err(at(&module))?;
    let mut command = shell::wsnap(folder)?;
    command.arg("run").arg("--slots").arg(folder.join(slots));
    command.args(["--priority", "1"]).arg(module);
    let timed = shell::run_to(&mut command, "", &[0])?;
    timed
        .first_line
        .ok_or_else(|| BenchError::Unexpected("it printed nothing".to_owned()))
}

/// The program that makes room, until it is dropped.
struct Other(Child);

impl Other {
    /// Starts it, and waits for its first image.
    fn start(folder: &Path, memory_mib: u64) -> Result<Self, BenchError> {
        const PATIENCE: Duration = Duration::from_secs(300);
        let module = folder.join("worker.wat");
        fs::write(
            &module,
            worker(memory_mib, RATE_MIB_PER_S, Order::Scattered, SECONDS),
        )
        .map_err(at(&module))?;
        let mut command = shell::wsnap(folder)?;
        command
            .args(["run", "--name", "worker", "--slots"])
            .arg(folder.join("taken"));
        command
            .arg(module)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut other = Self(command.spawn().map_err(at(folder))?);
        let since = Instant::now();
        let name = folder.join("store/names/worker");
        while !name.exists() {
            let ended = other.0.try_wait().map_err(at(folder))?;
            if ended.is_some() || since.elapsed() > PATIENCE {
                return Err(BenchError::Unexpected(format!("no image of it: {ended:?}")));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(other)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn table_of(rows: &[Row]) -> comfy_table::Table {
    let mut table = table(&[
        "memory of the other MiB",
        "free slot ms",
        "taken slot ms",
        "most",
        "pushing aside ms",
    ]);
    for row in rows {
        let free = Spread::of(row.free_ms.iter().copied());
        let taken = Spread::of(row.taken_ms.iter().copied());
        let pairs = row.taken_ms.iter().zip(&row.free_ms);
        let differences = Spread::of(pairs.map(|(taken, free)| taken - free));
        table.add_row([
            row.memory_mib.to_string(),
            number(free.median),
            number(taken.median),
            number(taken.max),
            number(differences.median),
        ]);
    }
    table
}
