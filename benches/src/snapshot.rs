//! What a snapshot of a program that goes on costs, beside writing the same bytes to a file.
//!
//! The guest fills its memory, then waits for orders: write to some pages, or to all of them, or go over all of them again
//! and again. After each order a snapshot is taken in passing. The pause is what the program stood still; the image is
//! durable when the call that stores it returns. In turn with each, as many bytes as were dirty are written to a file in the
//! same folder and synced, as `dd` does it: that is the disk's speed. So are as many as the memory has: that is what a
//! snapshot would take that copies everything, and all of it would be a pause.

mod writer;

use crate::error::BenchError;
use crate::guest::scratch_folder;
use crate::machine::Machine;
use crate::markdown::{number, table};
use crate::output::Output;
use crate::statistics::{Spread, ms};
use serde::Serialize;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use writer::{Order, Writer};
use wsnap::snapshots::Store;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Size of the guest's memory in MiB, a power of two up to 2048
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// Take a snapshot after each order so many times
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
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

/// Snapshots after one order.
#[derive(Debug, Default, Serialize)]
struct Row {
    order: String,
    dirty_bytes: u64,
    pause_ms: Spread,
    durable_ms: Spread,
    /// Writing and syncing the dirty bytes to a file.
    file_ms: Spread,
    /// Writing and syncing as many bytes as the memory has.
    full_copy_ms: Spread,
    /// How fast the snapshot becomes durable, relative to the file.
    speed_ratio: Spread,
    /// What the files of the store take on the disk more than before.
    added_bytes: Spread,
}

/// Measures and prints the figures.
pub fn measure_all(arguments: &Arguments) -> Result<(), BenchError> {
    let folder = scratch_folder(arguments.folder.as_deref())?;
    let report = Report {
        machine: Machine::this(),
        memory_mib: arguments.size,
        rows: measure(arguments, folder.path())?,
    };
    let text = format!("{}\n\n{}", report.machine, rows(&report.rows));
    arguments.output.publish("snapshot", &report, &text, &[])
}

/// What was seen of one snapshot.
struct Seen {
    pause: Duration,
    durable: Duration,
    file: Duration,
    full_copy: Duration,
    added: u64,
}

fn measure(arguments: &Arguments, folder: &Path) -> Result<Vec<Row>, BenchError> {
    let pages = arguments.size << 8;
    let orders = [
        ("all, the first snapshot", Order::Fill, pages),
        ("1% at random", Order::Scatter(pages / 100), pages / 100),
        ("7 pages", Order::Scatter(7), 7),
        ("all", Order::Fill, pages),
        ("all, again and again", Order::Sweep, pages),
    ];
    let mut seen: Vec<Vec<Seen>> = orders.iter().map(|_| Vec::new()).collect();
    for round in 0..arguments.rounds {
        eprintln!("round {} …", round + 1);
        let directory = folder.join("store");
        let store = Store::open(&directory).map_err(wsnap::Error::from)?;
        Writer::with(arguments.size, |writer| {
            for ((_, order, dirty), seen) in orders.iter().zip(&mut seen) {
                let bytes = (dirty << 12, pages << 12);
                seen.push(snapshot(writer, *order, bytes, &store, folder)?);
            }
            Ok(())
        })?;
        drop(store);
        fs::remove_dir_all(&directory).map_err(|source| BenchError::Io {
            path: directory.clone(),
            source,
        })?;
    }
    let rows = orders.iter().zip(&seen);
    Ok(rows
        .map(|((name, _, dirty), seen)| Row::new(name, dirty << 12, seen))
        .collect())
}

fn snapshot(
    writer: &mut Writer,
    order: Order,
    (dirty_bytes, memory_bytes): (u64, u64),
    store: &Store,
    folder: &Path,
) -> Result<Seen, BenchError> {
    writer.give(order)?;
    let before = disk_bytes(store.directory())?;
    let start = Instant::now();
    let snapshot = writer.handle().snapshot()?;
    let stored = snapshot.publish(store)?;
    let durable = start.elapsed();
    let added = disk_bytes(store.directory())?.saturating_sub(before);
    let pause = snapshot.pause();
    drop((snapshot, stored));
    writer.finish(order)?;
    let path = folder.join("file");
    Ok(Seen {
        pause,
        durable,
        file: write_file(&path, dirty_bytes)?,
        full_copy: write_file(&path, memory_bytes)?,
        added,
    })
}

/// Writes so many bytes to a new file and syncs it.
fn write_file(path: &Path, bytes: u64) -> Result<Duration, BenchError> {
    const BLOCK: usize = 1 << 20;
    let failed = |source| BenchError::Io {
        path: path.to_owned(),
        source,
    };
    let block: Vec<u8> = (0..BLOCK).map(|place| (place * 31 + 7) as u8).collect();
    let start = Instant::now();
    let mut file = File::create(path).map_err(failed)?;
    let mut left = bytes as usize;
    while left > 0 {
        let count = left.min(BLOCK);
        file.write_all(&block[..count]).map_err(failed)?;
        left -= count;
    }
    file.sync_data().map_err(failed)?;
    let elapsed = start.elapsed();
    fs::remove_file(path).map_err(failed)?;
    Ok(elapsed)
}

/// What all files below a folder take on the disk.
fn disk_bytes(folder: &Path) -> Result<u64, BenchError> {
    let failed = |source| BenchError::Io {
        path: folder.to_owned(),
        source,
    };
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        bytes += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}

impl Row {
    fn new(order: &str, dirty_bytes: u64, seen: &[Seen]) -> Self {
        let all = |figure: fn(&Seen) -> f64| Spread::of(seen.iter().map(figure));
        Self {
            order: order.to_owned(),
            dirty_bytes,
            pause_ms: all(|seen| ms(seen.pause)),
            durable_ms: all(|seen| ms(seen.durable)),
            file_ms: all(|seen| ms(seen.file)),
            full_copy_ms: all(|seen| ms(seen.full_copy)),
            speed_ratio: all(|seen| seen.file.as_secs_f64() / seen.durable.as_secs_f64()),
            added_bytes: all(|seen| seen.added as f64),
        }
    }
}

fn rows(rows: &[Row]) -> comfy_table::Table {
    let mut table = table(&[
        "dirty",
        "KiB",
        "pause ms",
        "most",
        "durable ms",
        "file ms",
        "full copy ms",
        "speed ratio",
        "on disk KiB",
        "of the dirty",
    ]);
    for row in rows {
        let kib = row.dirty_bytes as f64 / 1024.0;
        let added_kib = row.added_bytes.median / 1024.0;
        table.add_row([
            row.order.clone(),
            number(kib),
            number(row.pause_ms.median),
            number(row.pause_ms.max),
            number(row.durable_ms.median),
            number(row.file_ms.median),
            number(row.full_copy_ms.median),
            number(row.speed_ratio.median),
            number(added_kib),
            number(added_kib / kib),
        ]);
    }
    table
}
