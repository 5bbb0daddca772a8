//! Programs of the table of runs, plain and suspendable, side by side.

use crate::guest::{BenchError, Guest};
use crate::report::{self, Machine, Report};
use crate::{build, run, stop};
use wsnap_tests::guests::{Run, runs};

/// Programs of the table that compute for long enough to be timed, with other arguments where those of the table are for
/// tests.
const PROGRAMS: [(&str, &[&str]); 11] = [
    ("pi", &["20000"]),
    ("library", &[]),
    ("files", &[]),
    ("queue", &["3000", "/out/report.txt"]),
    ("quickjs", &[]),
    ("cpython", &[]),
    ("ruby", &[]),
    ("boolector", &[]),
    ("resvg", &[]),
    ("avr_as", &[]),
    ("flite", &[]),
];

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run each program so many times each way
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Stop each program so many times, at random moments
    #[arg(long, default_value_t = 10)]
    stops: u32,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// The programs, by their names in guest-examples/runs.toml [default: those that run for long enough]
    #[arg(value_name = "PROGRAM")]
    programs: Vec<String>,
}

/// Measures the programs and prints the figures.
pub fn measure_all(arguments: &Arguments) -> Result<(), BenchError> {
    let mut report = Report {
        machine: Machine::this(),
        programs: Vec::new(),
    };
    let mut failures = 0;
    for run in selected(&arguments.programs)? {
        let name = run.name.clone();
        eprintln!("{name} …");
        // The others take long enough that they are not to be measured in vain.
        match measure(run, arguments) {
            Ok(program) => report.programs.push(program),
            Err(error) => {
                eprintln!("error: {name}: {error}");
                failures += 1;
            }
        }
    }
    if arguments.json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    if failures > 0 {
        return Err(BenchError::Failures(failures));
    }
    Ok(())
}

fn measure(run: Run, arguments: &Arguments) -> Result<report::Program, BenchError> {
    let guest = Guest::new(run)?;
    Ok(report::Program {
        name: guest.name().to_owned(),
        build: build::measure(&guest)?,
        run: run::measure(&guest, arguments.rounds)?,
        stop: stop::measure(&guest, arguments.stops)?,
    })
}

pub fn selected(names: &[String]) -> Result<Vec<Run>, BenchError> {
    let known = runs();
    let all: Vec<&str> = PROGRAMS.iter().map(|(name, _)| *name).collect();
    let names = if names.is_empty() {
        all
    } else {
        names.iter().map(String::as_str).collect()
    };
    let find = |name: &&str| {
        let run = known.iter().find(|run| run.name == **name).cloned();
        let run = run.ok_or_else(|| BenchError::Unknown((*name).to_owned()))?;
        Ok(match PROGRAMS.iter().find(|(other, _)| other == name) {
            Some((_, args)) if !args.is_empty() => run.with_args(args),
            _ => run,
        })
    };
    names.iter().map(find).collect()
}
