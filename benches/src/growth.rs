//! How what wsnap does grows with what it is done to: the size of the memory, the depth of the stack, the size of the module,
//! the number of images in a store, the number of clones.
//!
//! Each curve has the exponent that fits its upper half: 1 is linear, 0 is no growth at all. What grows faster than
//! linearly is marked.

mod curve;
mod plot;

use crate::error::BenchError;
use crate::guest::scratch_folder;
use crate::machine::Machine;
use crate::markdown::{number, table};
use crate::others::Compiled;
use crate::output::Output;
use crate::resume::private_bytes;
use crate::resume::subject::{Shape, Subject, guest, stopped};
use crate::statistics::ms;
use curve::Curve;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wsnap::snapshots::{GcOptions, NewRecord, Store};
use wsnap::{Call, Engine, EngineConfig, Options, Outcome, Program};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// No axis further than this part of its usual length; small values are for trying out
    #[arg(long, default_value_t = 1.0, value_name = "PART")]
    scale: f64,
    /// Repeat what takes little time so often; the median counts
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    axes: Vec<Axis>,
}

/// What changes, and how figures change with it.
#[derive(Debug, Serialize)]
pub struct Axis {
    /// What lies along it, with its unit.
    name: &'static str,
    curves: Vec<Curve>,
}

/// Measures and prints the figures.
pub fn measure_all(arguments: &Arguments) -> Result<(), BenchError> {
    let mut axes = Vec::new();
    for measure in [memory, stack, module, images, clones] {
        let axis = measure(arguments)?;
        eprintln!("{} …", axis.name);
        axes.push(axis);
    }
    let report = Report {
        machine: Machine::this(),
        axes,
    };
    let text = format!("{}\n\n{}", report.machine, curves(&report.axes));
    let plots = [("growth.svg", plot::all(&report.axes))];
    arguments.output.publish("growth", &report, &text, &plots)
}

/// Values from `first`, each four times the one before, up to a part of `last`.
fn steps(first: u32, last: u32, arguments: &Arguments) -> Vec<u32> {
    let last = f64::from(last) * arguments.scale;
    let mut values = vec![first];
    while let Some(next) = values.last().map(|value| value * 4)
        && f64::from(next) <= last
    {
        values.push(next);
    }
    values
}

/// The median time of several turns, in milliseconds.
fn median<T>(
    arguments: &Arguments,
    mut turn: impl FnMut() -> Result<T, BenchError>,
    time: impl Fn(T, Duration) -> Duration,
) -> Result<f64, BenchError> {
    let mut times = Vec::new();
    for _ in 0..arguments.rounds {
        let start = Instant::now();
        let done = turn()?;
        times.push(time(done, start.elapsed()));
    }
    times.sort();
    Ok(ms(times[times.len() / 2]))
}

/// Stops guests of different shapes, stores them and resumes them.
fn shapes(
    arguments: &Arguments,
    name: &'static str,
    values: &[u32],
    shape: impl Fn(u32) -> Shape,
) -> Result<Axis, BenchError> {
    let mut axis = Axis {
        name,
        curves: ["store", "verify", "resume", "resume prepared"]
            .map(|what| Curve::new(what, "ms"))
            .into(),
    };
    for value in values {
        let shape = shape(*value);
        let mut figures = [0.0; 4];
        let folder = scratch_folder(None)?;
        let mut instance = stopped(shape)?;
        let store = Store::open(folder.path())?;
        let start = Instant::now();
        let id = instance.snapshot()?.store(&store)?;
        figures[0] = ms(start.elapsed());
        drop(instance);
        let image = store.load(id)?;
        figures[1] = median(arguments, || Ok(image.verify()?), |(), elapsed| elapsed)?;
        let subject = Subject::stored(shape, image)?;
        subject.run_unprepared()?;
        let first = |resumed: crate::resume::subject::Resumed, _| resumed.first_instruction;
        figures[2] = median(arguments, || subject.run_unprepared(), first)?;
        figures[3] = median(arguments, || subject.run_prepared(), first)?;
        for (curve, figure) in axis.curves.iter_mut().zip(figures) {
            curve.add(f64::from(*value), figure);
        }
    }
    Ok(axis)
}

fn memory(arguments: &Arguments) -> Result<Axis, BenchError> {
    let values = steps(1, 1024, arguments);
    shapes(arguments, "memory, MiB", &values, |memory_mib| Shape {
        memory_mib: memory_mib.into(),
        depth: 98,
        functions: 1,
    })
}

fn stack(arguments: &Arguments) -> Result<Axis, BenchError> {
    let values = steps(25, 25_600, arguments);
    shapes(arguments, "stack, frames", &values, |depth| Shape {
        memory_mib: 1,
        depth,
        functions: 1,
    })
}

fn module(arguments: &Arguments) -> Result<Axis, BenchError> {
    let mut axis = Axis {
        name: "module, functions",
        curves: ["compile bare", "compile", "start from cache"]
            .map(|what| Curve::new(what, "ms"))
            .into(),
    };
    for functions in steps(20, 20_480, arguments) {
        let folder = scratch_folder(None)?;
        let engine = |cache: Option<PathBuf>| {
            Engine::new(&EngineConfig {
                cache,
                ..EngineConfig::default()
            })
        };
        let text = guest(Shape {
            memory_mib: 1,
            depth: 98,
            functions,
        });
        let wasm = Program::new(&engine(None)?, text.into_bytes())?
            .wasm()
            .to_vec();
        let compile = |engine: &Engine| Ok(Program::new(engine, wasm.clone())?);
        let bare = median(arguments, || Compiled::new(&wasm), |_, elapsed| elapsed)?;
        let plain = engine(None)?;
        let compiled = median(arguments, || compile(&plain), |_, elapsed| elapsed)?;
        let cached = engine(Some(folder.path().join("cache")))?;
        compile(&cached)?;
        let started = median(arguments, || compile(&cached), |_, elapsed| elapsed)?;
        for (curve, figure) in axis.curves.iter_mut().zip([bare, compiled, started]) {
            curve.add(functions.into(), figure);
        }
    }
    Ok(axis)
}

/// A loop that counts in its memory: every turn is another image.
const COUNTER: &str = r#"(module (memory 1) (func (export "main")
    (loop $turn (i32.store (i32.const 64) (i32.add (i32.load (i32.const 64)) (i32.const 1))) (br $turn))))"#;

fn images(arguments: &Arguments) -> Result<Axis, BenchError> {
    let mut axis = Axis {
        name: "images in a store",
        curves: ["one more", "list", "log", "gc"]
            .map(|what| Curve::new(what, "ms"))
            .into(),
    };
    let engine = Engine::new(&EngineConfig {
        rewriting: Options {
            countable_safepoints: true,
            ..Options::default()
        },
        ..EngineConfig::default()
    })?;
    let program = Program::new(&engine, COUNTER.as_bytes().to_vec())?;
    let call = Call {
        export: "main".into(),
        arguments: Vec::new(),
    };
    let mut instance = program.start(wsnap::wasi::Wasi::new(Default::default())?, call)?;
    let folder = scratch_folder(None)?;
    let store = Store::open(folder.path())?;
    let (mut stored, mut parent) = (0, None);
    for count in steps(4, 4096, arguments) {
        let mut last = Duration::ZERO;
        while stored < count {
            instance.stop_at_safepoint(1)?;
            match instance.run()? {
                Outcome::Suspended(_) => {}
                other => return Err(BenchError::Unexpected(format!("{other:?}"))),
            }
            let start = Instant::now();
            let id = instance.snapshot()?.store(&store)?;
            let mut record = NewRecord::new(id, u64::from(stored), "growth");
            record.parent = parent;
            parent = Some(store.put_record(record)?.id);
            last = start.elapsed();
            stored += 1;
        }
        let list = median(arguments, || Ok(store.images()?), |_, elapsed| elapsed)?;
        let log = median(arguments, || Ok(store.records()?), |_, elapsed| elapsed)?;
        let gc = || Ok(store.gc(&GcOptions::default())?);
        let gc = median(arguments, gc, |_, elapsed| elapsed)?;
        for (curve, figure) in axis.curves.iter_mut().zip([ms(last), list, log, gc]) {
            curve.add(count.into(), figure);
        }
    }
    Ok(axis)
}

fn clones(arguments: &Arguments) -> Result<Axis, BenchError> {
    let mut axis = Axis {
        name: "clones of one image",
        curves: vec![Curve::new("resume all", "ms"), Curve::new("memory", "KiB")],
    };
    let folder = scratch_folder(None)?;
    let shape = Shape {
        memory_mib: 64,
        depth: 98,
        functions: 1,
    };
    let subject = Subject::new(shape, folder.path())?;
    subject.resume()?;
    for count in steps(4, 4096, arguments) {
        let before = private_bytes()?;
        let start = Instant::now();
        let mut alive = Vec::new();
        for _ in 0..count {
            alive.push(subject.resume()?);
        }
        axis.curves[0].add(count.into(), ms(start.elapsed()));
        let bytes = private_bytes()?.saturating_sub(before);
        axis.curves[1].add(count.into(), bytes as f64 / 1024.0);
    }
    Ok(axis)
}

fn curves(axes: &[Axis]) -> comfy_table::Table {
    let mut table = table(&["grows with", "what", "from", "to", "", "exponent", ""]);
    for axis in axes {
        for curve in &axis.curves {
            let (Some(first), Some(last)) = (curve.points.first(), curve.points.last()) else {
                continue;
            };
            let exponent = curve.exponent();
            let point = |[x, y]: [f64; 2]| format!("{} at {x}", number(y));
            table.add_row([
                axis.name.to_owned(),
                curve.what.to_owned(),
                point(*first),
                point(*last),
                curve.unit.to_owned(),
                format!("{exponent:.2}"),
                if curve.is_steep() {
                    "more than linear"
                } else {
                    ""
                }
                .to_owned(),
            ]);
        }
    }
    table
}
