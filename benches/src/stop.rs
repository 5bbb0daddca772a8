//! How soon a running program stands still, and what storing and resuming it costs.

use crate::error::BenchError;
use crate::guest::{Guest, processor_time};
use crate::statistics::ms;
use serde::Serialize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use wsnap::snapshots::Store;
use wsnap::{Instance, Outcome, Program};

/// How often an image is resumed once its clones are compiled.
const RESUMES: usize = 20;

/// At which part of its run time a program is stopped for the measurement of what comes after.
const EARLY: f64 = 0.1;

/// What each stop of one program took. There is nothing of a program that was never met while it ran.
#[derive(Debug, Default, Serialize)]
pub struct StopFigures {
    /// From the request, made by another thread at a random moment, until the call stack is unwound.
    pub stop_ms: Vec<f64>,
    /// Taking a snapshot of the suspended program and storing it durably.
    pub store_ms: Vec<f64>,
    /// Activations on the call stack.
    pub frames: Vec<f64>,
    /// From the image's id to the first safepoint that the resumed program reaches: loading, mapping, compiling clones
    /// for its frames.
    pub resume_first_ms: Vec<f64>,
    /// The same with the clones compiled, as for all further resumes of an image.
    pub resume_again_ms: Vec<f64>,
}

/// Stops the program so many times at random moments.
pub fn measure(guest: &Guest, stops: u32) -> Result<StopFigures, BenchError> {
    let program = guest.compile(None)?;
    let whole = guest.finish(&mut guest.start(&program)?)?;
    let mut figures = StopFigures::default();
    for number in 0..stops {
        let mut instance = guest.start(&program)?;
        let part = 0.02 + 0.9 * fastrand::f64();
        let Some(latency) = stop_after(&mut instance, whole.mul_f64(part))? else {
            continue;
        };
        figures.stop_ms.push(ms(latency));
        let store = Store::open(guest.folder().join(format!("store-{number}")))?;
        figures.add_resumes(guest, &program, &mut instance, &store)?;
    }
    Ok(figures)
}

impl StopFigures {
    /// Stores a suspended program and resumes it again and again.
    fn add_resumes(
        &mut self,
        guest: &Guest,
        program: &Program,
        instance: &mut Instance,
        store: &Store,
    ) -> Result<(), BenchError> {
        let start = Instant::now();
        let snapshot = instance.snapshot()?;
        self.frames.push(snapshot.manifest().frames.len() as f64);
        let id = snapshot.store(store)?;
        self.store_ms.push(ms(start.elapsed()));
        for round in 0..=RESUMES {
            let start = Instant::now();
            let mut resumed = guest.resume(program, &Arc::new(store.load(id)?))?;
            resumed.stop_at_safepoint(1)?;
            let outcome = resumed.run()?;
            let elapsed = ms(start.elapsed());
            // A program that ends before its next safepoint says little about resuming.
            if matches!(outcome, Outcome::Suspended(_)) {
                let times = if round == 0 {
                    &mut self.resume_first_ms
                } else {
                    &mut self.resume_again_ms
                };
                times.push(elapsed);
            }
        }
        Ok(())
    }
}

/// Runs the program and asks it to stop after so long. Returns how long it took from the request until it stood still,
/// or none if it ended before.
pub fn stop_after(
    instance: &mut Instance,
    delay: Duration,
) -> Result<Option<Duration>, BenchError> {
    let handle = instance.handle();
    let start = Instant::now();
    let asking = thread::spawn(move || {
        thread::sleep((start + delay).saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        handle.request_stop();
        asked
    });
    let outcome = instance.run();
    let stopped = Instant::now();
    let asked = asking.join().unwrap_or(stopped);
    Ok(matches!(outcome?, Outcome::Suspended(_)).then(|| stopped.saturating_duration_since(asked)))
}

/// Runs a program that takes so long as a whole, stops it within its first tenth, and lets another instance go on to the
/// end. Returns the processor time of both parts, without what lies in between, or none if the program was never met
/// while it ran.
pub fn stopped_early(
    guest: &Guest,
    program: &Program,
    whole: Duration,
) -> Result<Option<Duration>, BenchError> {
    let mut instance = guest.start(program)?;
    let start = processor_time();
    if stop_after(&mut instance, whole.mul_f64(EARLY))?.is_none() {
        return Ok(None);
    }
    let before = processor_time() - start;
    let store = Store::open(guest.folder().join("store-early"))?;
    let id = instance.snapshot()?.store(&store)?;
    // The first resume compiles the clones, which is measured elsewhere; the program runs in them from the second on.
    let image = Arc::new(store.load(id)?);
    let mut first = guest.resume(program, &image)?;
    first.stop_at_safepoint(1)?;
    if !matches!(first.run()?, Outcome::Suspended(_)) {
        return Ok(None);
    }
    let after = guest.finish(&mut guest.resume(program, &image)?)?;
    Ok(Some(before + after))
}
