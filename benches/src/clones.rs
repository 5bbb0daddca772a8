//! Many clones of one booted interpreter: how soon all of them are there, and how soon each has answered a request of its own.
//!
//! An interpreter that answers requests on its standard input is stopped where it waits for the first one, stored and prepared. Then
//! clones are resumed, all alive at once; each is given another request and runs until it has answered and waits for the next. Then
//! each gets its request again, which shows how long it takes to answer in pages that are its own. Answers are checked.

use crate::error::{BenchError, at};
use crate::guest::{Guest, processor_time};
use crate::machine::Machine;
use crate::markdown::{number, table};
use crate::output::Output;
use crate::resume::private_bytes;
use crate::statistics::{Spread, ms};
use crate::table::{Row as Listed, select};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wsnap::snapshots::Store;
use wsnap::wasi::{StandardStreams, Stdio, Wasi, WasiConfig};
use wsnap::{Call, Instance, Outcome, PreparedImage};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The interpreters, by their names in the table; those that have `serves` there
    #[arg(default_values_t = ["quickjs", "cpython", "ruby"].map(String::from))]
    programs: Vec<String>,
    /// Make so many clones
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    clones: u32,
    /// So often
    #[arg(long, default_value_t = 5)]
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

/// Figures of each round, all clones of it together. They run on one processor, one after the other.
#[derive(Debug, Default, Serialize)]
struct Row {
    name: String,
    clones: u32,
    /// Until all clones were there.
    up_ms: Vec<f64>,
    /// From then until each had answered.
    answered_ms: Vec<f64>,
    /// What answering once more took, of all clones together.
    answered_again_ms: Vec<f64>,
    /// Until all had answered once: what the processor worked for this thread.
    processor_ms: Vec<f64>,
    /// What one clone has to itself in memory, in bytes: before it runs, and when it has answered.
    idle_bytes: Vec<f64>,
    answered_bytes: Vec<f64>,
}

/// Measures and prints the figures.
pub fn measure_all(arguments: &Arguments) -> Result<(), BenchError> {
    raise_descriptor_limit();
    let mut report = Report {
        machine: Machine::this(),
        programs: Vec::new(),
    };
    for listed in select(arguments.table.as_deref(), &arguments.programs)? {
        eprintln!("{} …", listed.name);
        report.programs.push(measure(listed, arguments)?);
    }
    let text = format!("{}\n\n{}", report.machine, figures(&report.programs));
    arguments.output.publish("clones", &report, &text, &[])
}

/// Every clone has pipes of its own. Where the limit stays too low, making them says so.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

fn measure(listed: Listed, arguments: &Arguments) -> Result<Row, BenchError> {
    let Some(serves) = listed.serves.clone() else {
        return Err(BenchError::NoStart(listed.name));
    };
    let mut row = Row {
        name: listed.name.clone(),
        clones: arguments.clones,
        ..Row::default()
    };
    let guest = Guest::new(listed)?;
    let booted = boot(&guest, &serves.args)?;
    // What is allocated once, at the first time, is not part of what each clone costs.
    Clone::new(&guest, &booted, &serves.request, 0)?.answer()?;
    for _ in 0..arguments.rounds {
        let before = private_bytes()?;
        let (start, worked) = (Instant::now(), processor_time());
        let mut clones = Vec::new();
        for number in 0..arguments.clones {
            clones.push(Clone::new(&guest, &booted, &serves.request, number)?);
        }
        let up = start.elapsed();
        let mut worked = processor_time() - worked;
        let idle = private_bytes()?;
        let mut answered = Duration::ZERO;
        for clone in &mut clones {
            let (start, before) = (Instant::now(), processor_time());
            clone.answer()?;
            answered += start.elapsed();
            worked += processor_time() - before;
        }
        let answered_bytes = private_bytes()?;
        let mut answered_again = Duration::ZERO;
        for clone in &mut clones {
            clone.ask()?;
            let start = Instant::now();
            clone.answer()?;
            answered_again += start.elapsed();
        }
        let each = |bytes: u64| bytes.saturating_sub(before) as f64 / f64::from(arguments.clones);
        row.idle_bytes.push(each(idle));
        row.answered_bytes.push(each(answered_bytes));
        row.up_ms.push(ms(up));
        row.answered_ms.push(ms(answered));
        row.answered_again_ms.push(ms(answered_again));
        row.processor_ms.push(ms(worked));
    }
    Ok(row)
}

/// Runs the interpreter until it waits for a request, and prepares the image of that.
fn boot(guest: &Guest, arguments: &[String]) -> Result<PreparedImage, BenchError> {
    let program = guest.compile(None)?;
    let (input, _open) = pipe().map_err(at(Path::new("a pipe")))?;
    let mut args = vec![guest.name().to_owned()];
    args.extend_from_slice(arguments);
    let mut wasi = Wasi::new(WasiConfig {
        args,
        streams: StandardStreams {
            stdin: Stdio::Descriptor(input.into()),
            stdout: nowhere()?,
            stderr: nowhere()?,
        },
        ..WasiConfig::default()
    })?;
    wasi.set_stdin_probe(true);
    let mut instance = program.start(wasi, Call::command())?;
    match instance.run()? {
        Outcome::Suspended(_) => {}
        other => return Err(BenchError::Unexpected(format!("{other:?}"))),
    }
    let store = Store::open(guest.folder().join("clones"))?;
    let id = instance.snapshot()?.store(&store)?;
    drop(instance);
    Ok(program.prepare(Arc::new(store.load(id)?))?)
}

/// A stream into which whatever is written disappears.
fn nowhere() -> Result<Stdio, BenchError> {
    let path = Path::new("/dev/null");
    let file = File::options().write(true).open(path).map_err(at(path))?;
    Ok(Stdio::Descriptor(file.into()))
}

/// A clone that has its request, and what it is to answer.
struct Clone {
    instance: Instance,
    /// Where it waits for another one.
    requests: PipeWriter,
    request: String,
    output: PipeReader,
    expected: String,
}

impl Clone {
    fn new(
        guest: &Guest,
        booted: &PreparedImage,
        request: &str,
        number: u32,
    ) -> Result<Self, BenchError> {
        let failed = || at(Path::new("a pipe"));
        let (input, requests) = pipe().map_err(failed())?;
        let (output, answers) = pipe().map_err(failed())?;
        // A clone that has ended without an answer still has its end of the pipe.
        fcntl_setfl(&output, OFlags::NONBLOCK)
            .map_err(io::Error::from)
            .map_err(failed())?;
        let streams = StandardStreams {
            stdin: Stdio::Descriptor(input.into()),
            stdout: Stdio::Descriptor(answers.into()),
            stderr: nowhere()?,
        };
        let mut wasi = guest.wasi_with(booted.image(), streams)?;
        wasi.set_stdin_probe(true);
        let mut clone = Self {
            requests,
            request: request.replace("{}", &number.to_string()),
            instance: booted.resume(wasi)?,
            output,
            expected: format!("{}\n", u64::from(number) * 7),
        };
        clone.ask()?;
        Ok(clone)
    }

    fn ask(&mut self) -> Result<(), BenchError> {
        let written = self.requests.write_all(self.request.as_bytes());
        written.map_err(at(Path::new("a pipe")))
    }

    /// Runs it until it waits for the next request.
    fn answer(&mut self) -> Result<(), BenchError> {
        let outcome = self.instance.run()?;
        if !matches!(outcome, Outcome::Suspended(_)) {
            return Err(BenchError::Unexpected(format!("{outcome:?}")));
        }
        let mut answer = vec![0; self.expected.len()];
        self.output
            .read_exact(&mut answer)
            .map_err(at(Path::new("a pipe")))?;
        if answer == self.expected.as_bytes() {
            return Ok(());
        }
        Err(BenchError::Unexpected(format!(
            "it answered {:?}, not {:?}",
            String::from_utf8_lossy(&answer),
            self.expected
        )))
    }
}

fn figures(rows: &[Row]) -> comfy_table::Table {
    let mut table = table(&[
        "clones of",
        "number",
        "all up ms",
        "all answered, after that ms",
        "both ms",
        "least",
        "most",
        "once more ms",
        "processor ms",
        "idle KiB each",
        "KiB each once answered",
    ]);
    for row in rows {
        let median = |figures: &[f64]| Spread::of(figures.iter().copied()).median;
        // What earlier rounds used and freed the process may have kept: the first one tells.
        let first = |figures: &[f64]| figures.first().copied().unwrap_or_default();
        let both = Spread::of(row.up_ms.iter().zip(&row.answered_ms).map(|(a, b)| a + b));
        table.add_row([
            row.name.clone(),
            row.clones.to_string(),
            number(median(&row.up_ms)),
            number(median(&row.answered_ms)),
            number(both.median),
            number(both.min),
            number(both.max),
            number(median(&row.answered_again_ms)),
            number(median(&row.processor_ms)),
            number(first(&row.idle_bytes) / 1024.0),
            number(first(&row.answered_bytes) / 1024.0),
        ]);
    }
    table
}
