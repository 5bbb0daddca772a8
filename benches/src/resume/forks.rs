//! What one more instance of an image costs in memory while it does nothing.
//!
//! Counted is what the process has to itself: private pages that are dirty, and page tables. Pages of the image are in the
//! page cache, which everybody shares.

use crate::error::BenchError;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use wsnap::{Instance, Outcome};

/// Memory per instance.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What was resumed.
    pub guest: String,
    /// How many instances there were at once.
    pub instances: u64,
    /// Resumed, not run.
    pub resumed_bytes: u64,
    /// Resumed, run up to the first safepoint, suspended.
    pub suspended_bytes: u64,
}

/// Makes so many instances, all alive at once.
pub fn measure(
    guest: String,
    instances: u64,
    resume: impl Fn() -> Result<Instance, BenchError>,
) -> Result<Row, BenchError> {
    // What is allocated once, at the first time, is not part of what each one costs.
    run_a_little(&mut resume()?)?;
    let before = private_bytes()?;
    let mut alive = Vec::new();
    for _ in 0..instances {
        alive.push(resume()?);
    }
    let resumed = private_bytes()?;
    for instance in &mut alive {
        run_a_little(instance)?;
    }
    let suspended = private_bytes()?;
    Ok(Row {
        guest,
        instances,
        resumed_bytes: resumed.saturating_sub(before) / instances,
        suspended_bytes: suspended.saturating_sub(before) / instances,
    })
}

fn run_a_little(instance: &mut Instance) -> Result<(), BenchError> {
    instance.stop_at_safepoint(1)?;
    match instance.run()? {
        Outcome::Suspended(_) => Ok(()),
        other => Err(BenchError::Unexpected(format!("{other:?}"))),
    }
}

/// Private dirty pages and page tables of this process, in bytes.
pub fn private_bytes() -> Result<u64, BenchError> {
    let fields = [
        ("/proc/self/smaps_rollup", "Private_Dirty:"),
        ("/proc/self/status", "VmPTE:"),
    ];
    let mut bytes = 0;
    for (path, field) in fields {
        let text = fs::read_to_string(Path::new(path)).map_err(|source| BenchError::Io {
            path: PathBuf::from(path),
            source,
        })?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        let missing = || BenchError::Unexpected(format!("{path} has no {field}"));
        bytes += kib.ok_or_else(missing)? << 10;
    }
    Ok(bytes)
}
