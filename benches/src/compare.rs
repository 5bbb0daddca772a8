//! Programs of the table, each way, side by side.

use crate::error::BenchError;
use crate::guest::Guest;
use crate::machine::{Machine, Tools};
use crate::output::Output;
use crate::report::{Program, Report};
use crate::table::{Row, select};
use crate::ways::Way;
use crate::{build, plots, rounds, stop};
use std::io::{IsTerminal, Write, stderr};
use std::path::PathBuf;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run each program so many times each way
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Stop each program so many times, at random moments
    #[arg(long, default_value_t = 10)]
    stops: u32,
    /// Run it these ways; `bare` is always one of them [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    ways: Vec<Way>,
    #[command(flatten)]
    output: Output,
    /// Another table of programs than benches/programs.toml
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// The programs, by their names in the table [default: all]
    #[arg(value_name = "PROGRAM")]
    programs: Vec<String>,
}

/// Measures the programs and prints the figures.
pub fn measure_all(arguments: &Arguments) -> Result<(), BenchError> {
    let rows = select(arguments.table.as_deref(), &arguments.programs)?;
    let mut report = Report {
        machine: Machine::this(),
        tools: Tools::these(),
        rounds: arguments.rounds,
        programs: Vec::new(),
    };
    let (count, mut failures) = (rows.len(), 0);
    for (index, row) in rows.into_iter().enumerate() {
        let name = row.name.clone();
        let progress = Progress::new(format!("{}/{count} {name}", index + 1));
        // The others take long enough that they are not to be measured in vain.
        match measure(row, arguments, &progress) {
            Ok(program) => report.programs.push(program),
            Err(error) => {
                progress.clear();
                eprintln!("error: {name}: {error}");
                failures += 1;
            }
        }
    }
    let plots = [
        ("programs.svg", plots::by_program(&report.programs)),
        ("ways.svg", plots::by_way(&report.programs)),
    ];
    let text = report.to_string();
    arguments
        .output
        .publish("compare", &report, &text, &plots)?;
    if failures > 0 {
        return Err(BenchError::Failures(failures));
    }
    Ok(())
}

fn measure(row: Row, arguments: &Arguments, progress: &Progress) -> Result<Program, BenchError> {
    let guest = Guest::new(row)?;
    let mut ways = Way::ALL.to_vec();
    if !arguments.ways.is_empty() {
        ways.retain(|way| *way == Way::Bare || arguments.ways.contains(way));
    }
    let run = rounds::measure(&guest, &ways, arguments.rounds, |what| progress.show(what))?;
    progress.show("rewriting and compiling");
    let build = build::measure(&guest)?;
    progress.show("stopping and resuming");
    let stop = stop::measure(&guest, arguments.stops)?;
    progress.clear();
    Ok(Program {
        name: guest.name().to_owned(),
        about: guest.about().to_owned(),
        run,
        build,
        stop,
    })
}

/// Says what is being measured: on a terminal in one line that changes, elsewhere in one line per program.
struct Progress {
    program: String,
    is_terminal: bool,
}

impl Progress {
    fn new(program: String) -> Self {
        let is_terminal = stderr().is_terminal();
        if !is_terminal {
            eprintln!("{program}");
        }
        Self {
            program,
            is_terminal,
        }
    }

    /// A progress that cannot be shown is no reason to stop.
    fn show(&self, what: &str) {
        if self.is_terminal {
            let _ = write!(stderr(), "\r\x1b[K{}: {what}", self.program);
        }
    }

    fn clear(&self) {
        if self.is_terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
