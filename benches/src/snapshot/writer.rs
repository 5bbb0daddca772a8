//! A guest that writes to its memory as it is told.

use crate::error::BenchError;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;
use wsnap::wasi::{StandardStreams, Stdio, Wasi, WasiConfig};
use wsnap::{Call, Engine, EngineConfig, Handle, Instance, Outcome, Program};

/// Reads orders of nine bytes: what to do, and how often. Answers each with a byte: when it has been carried out, or in the
/// case of a sweep when it has begun and when it is over. Memory below 64 KiB is its own.
const SOURCE: &str = include_str!("writer.wat");

/// How often a sweep goes over the memory: long enough that it outlasts the snapshot.
const SWEEPS: u64 = 24;

/// What the guest is told.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Write to every byte.
    Fill,
    /// Write to one word in each of so many pages, anywhere.
    Scatter(u64),
    /// Write to each page again and again, while the snapshot is taken.
    Sweep,
}

/// The guest, which runs on another thread.
pub struct Writer {
    handle: Handle,
    orders: PipeWriter,
    answers: PipeReader,
}

fn failed(source: std::io::Error) -> BenchError {
    BenchError::Io {
        path: PathBuf::from("the guest's pipe"),
        source,
    }
}

impl Writer {
    /// Runs a guest with a memory of `mib` MiB while `work` tells it what to do.
    pub fn with(
        mib: u64,
        work: impl FnOnce(&mut Self) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let (stdin, orders) = pipe().map_err(failed)?;
        let (answers, stdout) = pipe().map_err(failed)?;
        let mut instance = start(mib, stdin.into(), stdout.into())?;
        let mut writer = Self {
            handle: instance.handle(),
            orders,
            answers,
        };
        thread::scope(|scope| {
            let guest = scope.spawn(move || instance.run());
            let worked = work(&mut writer);
            // It ends at the end of its orders.
            drop(writer);
            match guest.join() {
                Ok(Ok(Outcome::Returned(_))) => worked,
                Ok(Ok(outcome)) => Err(BenchError::Unexpected(format!("{outcome:?}"))),
                Ok(Err(error)) => Err(error.into()),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// For taking snapshots of the guest.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Gives an order and waits until it has been carried out, or has begun if it is a sweep.
    pub fn give(&mut self, order: Order) -> Result<(), BenchError> {
        let (what, count) = match order {
            Order::Fill => (b'f', 1),
            Order::Scatter(pages) => (b'p', pages),
            Order::Sweep => (b's', SWEEPS),
        };
        let mut bytes = vec![what];
        bytes.extend(count.to_le_bytes());
        self.orders.write_all(&bytes).map_err(failed)?;
        self.answer()
    }

    /// Waits until the guest does nothing any more.
    pub fn finish(&mut self, order: Order) -> Result<(), BenchError> {
        match order {
            Order::Sweep => self.answer(),
            Order::Fill | Order::Scatter(_) => Ok(()),
        }
    }

    fn answer(&mut self) -> Result<(), BenchError> {
        self.answers.read_exact(&mut [0]).map_err(failed)
    }
}

fn start(mib: u64, stdin: OwnedFd, stdout: OwnedFd) -> Result<Instance, BenchError> {
    let engine = Engine::new(&EngineConfig::default())?;
    let source = SOURCE.replace("$PAGES", &(mib << 4).to_string());
    let program = Program::new(&engine, source.into_bytes())?;
    let config = WasiConfig {
        args: vec!["writer".into()],
        streams: StandardStreams {
            stdin: Stdio::Descriptor(stdin),
            stdout: Stdio::Descriptor(stdout),
            ..StandardStreams::default()
        },
        ..WasiConfig::default()
    };
    Ok(program.start(Wasi::new(config)?, Call::command())?)
}
