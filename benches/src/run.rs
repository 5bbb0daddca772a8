//! How long programs run, bare and suspendable.

use crate::guest::{BenchError, Guest};
use crate::statistics::Spread;
use serde::Serialize;

/// Run times of one program: instantiation and compilation are not part of them.
#[derive(Debug, Serialize)]
pub struct RunTimes {
    /// Under plain wasmtime with its defaults, in processor time.
    pub bare_ms: Spread,
    /// As wsnap runs it.
    pub wsnap_ms: Spread,
    /// wsnap's time relative to the bare one of the same round.
    pub ratio: Spread,
}

/// Runs the program so many times each way, in turn and with the order changing, so that a machine that gets faster or
/// slower meanwhile favours neither.
pub fn measure(guest: &Guest, rounds: u32) -> Result<RunTimes, BenchError> {
    let (bare, wsnap) = (guest.compile(true, None)?, guest.compile(false, None)?);
    let (mut bare_times, mut wsnap_times) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            bare_times.push(guest.finish(&mut guest.start(&bare)?)?);
            wsnap_times.push(guest.finish(&mut guest.start(&wsnap)?)?);
        } else {
            wsnap_times.push(guest.finish(&mut guest.start(&wsnap)?)?);
            bare_times.push(guest.finish(&mut guest.start(&bare)?)?);
        }
    }
    let pairs = wsnap_times.iter().zip(&bare_times);
    Ok(RunTimes {
        bare_ms: Spread::of_ms(&bare_times),
        wsnap_ms: Spread::of_ms(&wsnap_times),
        ratio: Spread::of(pairs.map(|(wsnap, bare)| wsnap.as_secs_f64() / bare.as_secs_f64())),
    })
}
