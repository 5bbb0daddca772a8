//! How soon a resumed program executes its first instruction and has its first result.
//!
//! The clock starts when `resume` is called with the host state at hand and stops inside the guest: the first thing that it
//! does is to ask what time it is, and it asks again when it has read some pages of its memory. So mapping the memories,
//! instantiating, laying out frames and entering them are part of the first figure, and reading the pages is part of the
//! second. Both clocks are the same one.

mod forks;
pub mod subject;

pub use forks::private_bytes;

use crate::error::BenchError;
use crate::guest::{Guest, scratch_folder};
use crate::machine::Machine;
use crate::markdown::{number, table};
use crate::output::Output;
use crate::statistics::Percentiles;
use crate::stop::stop_after;
use crate::table::{Row as Listed, select};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use subject::{Resumed, Shape, Subject};
use wsnap::snapshots::Store;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Sizes of the memories in MiB, powers of two up to 4096
    #[arg(long, default_value = "1,1024,4096", value_delimiter = ',')]
    sizes: Vec<u64>,
    /// Resume each image so many times
    #[arg(long, default_value_t = 1000)]
    rounds: u32,
    /// Resume each image so many times with its pages not in the page cache
    #[arg(long, default_value_t = 15)]
    cold_rounds: u32,
    /// Make so many instances at once when they are weighed
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    forks: u64,
    /// Programs of benches/programs.toml whose clones are weighed as well; "" for none
    #[arg(long, default_value = "quickjs,cpython", value_delimiter = ',')]
    programs: Vec<String>,
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
    resumes: Vec<Row>,
    forks: Vec<forks::Row>,
}

/// One way to resume one image.
#[derive(Debug, Serialize)]
struct Row {
    memory_mib: u64,
    frames: u32,
    functions: u32,
    how: &'static str,
    first_instruction_us: Percentiles,
    /// None where the program returned behind its first instruction.
    first_result_us: Option<Percentiles>,
}

/// Measures and prints the figures.
pub fn measure_all(arguments: &Arguments) -> Result<(), BenchError> {
    let mut report = Report {
        machine: Machine::this(),
        resumes: Vec::new(),
        forks: Vec::new(),
    };
    for memory_mib in &arguments.sizes {
        for functions in [1, 10] {
            let shape = Shape {
                memory_mib: *memory_mib,
                depth: 98,
                functions,
            };
            eprintln!("{memory_mib} MiB, {functions} functions …");
            measure(arguments, shape, &mut report)?;
        }
    }
    for name in arguments.programs.iter().filter(|name| !name.is_empty()) {
        for listed in select(None, std::slice::from_ref(name))? {
            eprintln!("{} …", listed.name);
            report.forks.push(program_forks(listed, arguments.forks)?);
        }
    }
    let text = format!(
        "{}\n\n{}\n\n{}",
        report.machine,
        resumes(&report.resumes),
        idle(&report.forks)
    );
    arguments.output.publish("resume", &report, &text, &[])
}

fn measure(arguments: &Arguments, shape: Shape, report: &mut Report) -> Result<(), BenchError> {
    let folder = scratch_folder(arguments.folder.as_deref())?;
    let subject = Subject::new(shape, folder.path())?;
    let named = |how, first_instruction_us, first_result_us| Row {
        memory_mib: shape.memory_mib,
        frames: shape.depth + 2,
        functions: shape.functions,
        how,
        first_instruction_us,
        first_result_us,
    };
    let row = |how, rounds, resume: &dyn Fn() -> Result<Resumed, BenchError>| {
        let (mut instructions, mut results) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let resumed = resume()?;
            instructions.push(resumed.first_instruction);
            results.push(resumed.first_result);
        }
        let results = Some(Percentiles::of_us(&results));
        Ok::<_, BenchError>(named(how, Percentiles::of_us(&instructions), results))
    };
    let rounds = arguments.rounds;
    let stopped = (0..rounds).map(|_| subject.run_first_instruction());
    let stopped = Percentiles::of_us(&stopped.collect::<Result<Vec<_>, _>>()?);
    let set = subject.working_set()?;
    let cold = arguments.cold_rounds;
    report.resumes.extend([
        named("prepared, left at once", stopped, None),
        row("prepared", rounds, &|| subject.run_prepared())?,
        row("not prepared", rounds, &|| subject.run_unprepared())?,
        row("prepared, cold", cold, &|| subject.run_cold(None))?,
    ]);
    if set.is_some() {
        let prefetched = row("prepared, cold, prefetched", cold, &|| {
            subject.run_cold(set.as_ref())
        });
        report.resumes.push(prefetched?);
    }
    let name = format!("{} MiB, {} functions", shape.memory_mib, shape.functions);
    let forks = forks::measure(name, arguments.forks, || subject.resume())?;
    report.forks.push(forks);
    Ok(())
}

/// Weighs clones of a real program, stopped early in its run.
fn program_forks(listed: Listed, instances: u64) -> Result<forks::Row, BenchError> {
    /// Somewhere in the start of an interpreter.
    const MOMENT: Duration = Duration::from_millis(5);
    let guest = Guest::new(listed)?;
    let program = guest.compile(None)?;
    let mut instance = guest.start(&program)?;
    if stop_after(&mut instance, MOMENT)?.is_none() {
        return Err(BenchError::Unexpected("it ended at once".into()));
    }
    let store = Store::open(guest.folder().join("store"))?;
    let id = instance.snapshot()?.store(&store)?;
    drop(instance);
    let prepared = program.prepare(Arc::new(store.load(id)?))?;
    forks::measure(guest.name().to_owned(), instances, || {
        Ok(prepared.resume(guest.wasi(prepared.image())?)?)
    })
}

fn idle(rows: &[forks::Row]) -> comfy_table::Table {
    let mut table = table(&["idle clones of", "number", "KiB each", "suspended KiB each"]);
    for row in rows {
        table.add_row([
            row.guest.clone(),
            row.instances.to_string(),
            number(row.resumed_bytes as f64 / 1024.0),
            number(row.suspended_bytes as f64 / 1024.0),
        ]);
    }
    table
}

fn resumes(rows: &[Row]) -> comfy_table::Table {
    let mut table = table(&[
        "resumed",
        "MiB",
        "frames",
        "of functions",
        "first instruction µs",
        "p99",
        "first result µs",
        "p99",
    ]);
    for row in rows {
        let result = |figure: fn(&Percentiles) -> f64| {
            let figures = row.first_result_us.as_ref();
            figures.map_or_else(String::new, |figures| number(figure(figures)))
        };
        table.add_row([
            row.how.to_owned(),
            row.memory_mib.to_string(),
            row.frames.to_string(),
            row.functions.to_string(),
            number(row.first_instruction_us.median),
            number(row.first_instruction_us.p99),
            result(|figures| figures.median),
            result(|figures| figures.p99),
        ]);
    }
    table
}
