//! What `wsnap run --every` costs a program that goes on.
//!
//! The guest fills its memory and takes a first image of it by itself. From then on it writes so many pages a second, each
//! another one and each full of what is nowhere else, side by side or far apart, and works for the rest of the time. What it gets done in a second with
//! images at intervals, relative to what it gets done without, is what they cost it; the first run of each pair is without.
//! It looks at its clock every 20 microseconds, so the longest time between two looks is the longest pause, by images or by
//! other programs.

use crate::error::{BenchError, at};
use crate::guest::scratch_folder;
use crate::machine::Machine;
use crate::markdown::{number, table};
use crate::output::Output;
use crate::shell;
use crate::statistics::Spread;
use crate::worker::{Order, PAGES_PER_MIB, SIZES, worker};
use rustix::param::clock_ticks_per_second;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// A run lasts at least so many intervals, and so many seconds: large images lie far apart.
const INTERVALS_MIN: f64 = 2.1;
const SECONDS_MIN: f64 = 40.0;
/// A run without images lasts no longer.
const SECONDS_WITHOUT_MAX: f64 = 20.0;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Size of the guest's memory in MiB, a power of two up to 2048
    #[arg(long, default_value_t = 1024, value_parser = SIZES)]
    size: u64,
    /// How many MiB the guest writes in a second
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    rates: Vec<u64>,
    /// How many seconds lie between images
    #[arg(long, value_delimiter = ',', default_value = "1,15,60")]
    intervals: Vec<f64>,
    /// Whether the pages that it writes lie side by side
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "runs,scattered"
    )]
    orders: Vec<Order>,
    /// Run each so often
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Let a run last so much longer or shorter than it would
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Where the images are stored, for so long [default: the folder for temporary files]
    #[arg(long)]
    folder: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    memory_mib: u64,
    rows: Vec<Row>,
}

/// One rate of writing, one interval.
#[derive(Debug, Serialize)]
struct Row {
    order: Order,
    rate_mib_per_s: u64,
    interval_s: f64,
    runs: Vec<Pair>,
}

/// A run without images, and the one with them that came next.
#[derive(Debug, Serialize)]
struct Pair {
    without: Run,
    with: Run,
    /// What lies between images in truth: longer than was asked for where they would cost more than a tenth of the time.
    interval_s: Spread,
    /// What each image added to the store.
    added_mib: Spread,
}

impl Pair {
    /// Which part of the work was not done, in percent.
    fn cost_percent(&self) -> f64 {
        (1.0 - self.with.work_per_s / self.without.work_per_s) * 100.0
    }

    /// The processor time that was used beside the guest's, per second, in milliseconds.
    fn extra_cpu_ms(&self) -> f64 {
        (self.with.cpu_per_s - self.without.cpu_per_s) * 1e3
    }
}

/// What a run of the guest came to.
#[derive(Debug, Serialize)]
struct Run {
    work_per_s: f64,
    written_mib_per_s: f64,
    longest_gap_ms: f64,
    /// Processor time of the whole process, filling the memory included, per second of the measured time.
    cpu_per_s: f64,
}

/// Measures and prints the figures.
pub fn measure_all(arguments: &Arguments) -> Result<(), BenchError> {
    let mut rows = Vec::new();
    for order in &arguments.orders {
        for rate in &arguments.rates {
            rows.extend(arguments.intervals.iter().map(|interval| Row {
                order: *order,
                rate_mib_per_s: *rate,
                interval_s: *interval,
                runs: Vec::new(),
            }));
        }
    }
    for round in 0..arguments.rounds {
        for row in &mut rows {
            eprintln!(
                "round {}: {:?}, {} MiB/s, every {} s …",
                round + 1,
                row.order,
                row.rate_mib_per_s,
                row.interval_s
            );
            let pair = measure(arguments, row)?;
            row.runs.push(pair);
        }
    }
    let report = Report {
        machine: Machine::this(),
        memory_mib: arguments.size,
        rows,
    };
    let text = format!(
        "{}\n\nA memory of {} MiB, all of it in the first image.\n\n{}",
        report.machine,
        report.memory_mib,
        rows_of(&report.rows)
    );
    arguments.output.publish("autosave", &report, &text, &[])
}

fn measure(arguments: &Arguments, row: &Row) -> Result<Pair, BenchError> {
    let (rate, interval) = (row.rate_mib_per_s, row.interval_s);
    let guest = |seconds| worker(arguments.size, rate, row.order, seconds);
    let seconds = (interval * INTERVALS_MIN).max(SECONDS_MIN) * arguments.scale;
    let folder = scratch_folder(arguments.folder.as_deref())?;
    let folder = folder.path();
    let without = seconds.min(SECONDS_WITHOUT_MAX);
    let without = run(folder, &guest(without), None)?;
    let store = folder.join("store");
    fs::remove_dir_all(&store).map_err(at(&store))?;
    let with = run(folder, &guest(seconds), Some(interval))?;
    let records = records(folder)?;
    let times = records.iter().map(|record| record.taken_at_ms);
    let saved = || records.iter().filter(|record| record.trigger == "every");
    Ok(Pair {
        without,
        with,
        interval_s: Spread::of(
            times
                .clone()
                .zip(times.skip(1))
                .map(|(before, after)| after.saturating_sub(before) as f64 / 1e3),
        ),
        added_mib: Spread::of(saved().map(|record| record.added_bytes as f64 / 1048576.0)),
    })
}

fn run(folder: &Path, worker: &str, interval: Option<f64>) -> Result<Run, BenchError> {
    let module = folder.join("worker.wat");
    fs::write(&module, worker).map_err(at(&module))?;
    let mut command = shell::wsnap(folder)?;
    command.args(["run", "--name", "worker"]);
    if let Some(interval) = interval {
        command.args([
            "--every",
            &format!("{}ms", (interval * 1e3).max(1.0) as u64),
        ]);
    }
    command.arg(&module);
    let before = children_seconds()?;
    let timed = shell::run_to(&mut command, "", &[0])?;
    let cpu = children_seconds()? - before;
    let numbers: Vec<f64> = timed
        .printed
        .lines()
        .filter_map(|line| u64::from_str_radix(line, 16).ok())
        .map(|number| number as f64)
        .collect();
    let [turns, pages, gap_ns, elapsed_ns, _] = numbers[..] else {
        return Err(BenchError::Unexpected(timed.printed));
    };
    let seconds = elapsed_ns / 1e9;
    Ok(Run {
        work_per_s: turns / seconds,
        written_mib_per_s: pages / PAGES_PER_MIB as f64 / seconds,
        longest_gap_ms: gap_ns / 1e6,
        cpu_per_s: cpu / seconds,
    })
}

/// The processor time of all children that have ended, in seconds.
fn children_seconds() -> Result<f64, BenchError> {
    let path = Path::new("/proc/self/stat");
    let text = fs::read_to_string(path).map_err(at(path))?;
    // The name, in parentheses, can have blanks. Behind it, user and system time of children are the 14th and 15th.
    let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
    let fields = behind.split_whitespace().skip(13).take(2);
    let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / clock_ticks_per_second() as f64)
}

/// A line of `wsnap log --json`, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Record {
    taken_at_ms: u64,
    added_bytes: u64,
    trigger: String,
}

/// The records that there are, by time.
fn records(folder: &Path) -> Result<Vec<Record>, BenchError> {
    let printed = shell::run_to(shell::wsnap(folder)?.args(["log", "--json"]), "", &[0])?.printed;
    serde_json::from_str(&printed).map_err(|error| BenchError::Unexpected(error.to_string()))
}

fn rows_of(rows: &[Row]) -> comfy_table::Table {
    let mut table = table(&[
        "pages",
        "written MiB/s",
        "every s",
        "in truth s",
        "cost %",
        "least",
        "most",
        "MiB an image",
        "longest pause ms",
        "without ms",
        "other processor ms/s",
    ]);
    for row in rows {
        let all = |figure: fn(&Pair) -> f64| Spread::of(row.runs.iter().map(figure));
        let cost = all(Pair::cost_percent);
        table.add_row([
            format!("{:?}", row.order).to_lowercase(),
            number(all(|pair| pair.with.written_mib_per_s).median),
            number(row.interval_s),
            number(all(|pair| pair.interval_s.median).median),
            format!("{:.1}", cost.median),
            format!("{:.1}", cost.min),
            format!("{:.1}", cost.max),
            number(all(|pair| pair.added_mib.median).median),
            number(all(|pair| pair.with.longest_gap_ms).median),
            number(all(|pair| pair.without.longest_gap_ms).median),
            number(all(Pair::extra_cpu_ms).median.max(0.0)),
        ]);
    }
    table
}
