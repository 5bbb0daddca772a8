//! What a program can ask wsnap about itself, and the snapshots that it can take.
//!
//! Beside WASI, wsnap provides a module named `wsnap`. A program that uses this crate runs under wsnap only.
//!
//! ```no_run
//! use wsnap_guest::{Snapshot, snapshot};
//!
//! // … what takes long and is the same each time …
//! match snapshot() {
//!     Ok(Snapshot::Taken) => println!("this can be resumed from here"),
//!     Ok(Snapshot::Resumed) => println!("here we are again"),
//!     Err(error) => eprintln!("going on without: {error}"),
//! }
//! ```

#![no_std]

use core::error::Error;
use core::fmt;

#[link(wasm_import_module = "wsnap")]
unsafe extern "C" {
    #[link_name = "snapshot"]
    safe fn raw_snapshot() -> i32;
    #[link_name = "generation"]
    fn raw_generation(address: *mut u8) -> i32;
    #[link_name = "resume_count"]
    safe fn raw_resume_count() -> u64;
}

/// On which side of a snapshot a program finds itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// The snapshot is kept, and this is the run that goes on.
    Taken,
    /// This run was resumed from the snapshot.
    Resumed,
}

/// Why there is no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Nobody keeps snapshots of this program: it runs with `--bare`, or in a host application that does not offer it.
    Unavailable,
    /// This one could not be taken or not be kept. The host says why on its standard error.
    Failed,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unavailable => "nobody keeps snapshots of this program",
            Self::Failed => "the snapshot could not be taken or not be kept",
        })
    }
}

impl Error for SnapshotError {}

/// Takes a snapshot of the program. Returns, like `fork`, [`Snapshot::Taken`] in the run that goes on, when the image is
/// durable, and [`Snapshot::Resumed`] in each run that is resumed from it.
///
/// # Errors
///
/// When there is no snapshot.
pub fn snapshot() -> Result<Snapshot, SnapshotError> {
    match raw_snapshot() {
        0 => Ok(Snapshot::Taken),
        1 => Ok(Snapshot::Resumed),
        -1 => Err(SnapshotError::Unavailable),
        _ => Err(SnapshotError::Failed),
    }
}

/// The host has no random bytes; the number is an errno of WASI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationError(pub i32);

impl fmt::Display for GenerationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the host has no generation for this run (errno {})", self.0)
    }
}

impl Error for GenerationError {}

/// A value that no other run has: it is new since each start and each resume, and stays the same in between.
///
/// A program that keeps random numbers of its own (a generator's state, a seed, a nonce) has the same ones in all runs
/// that are resumed from one image. Mix the generation in where that matters. With `--deterministic` it follows from the
/// seed alone, and is the same in all runs.
///
/// # Errors
///
/// When the host has no random bytes.
pub fn generation() -> Result<u128, GenerationError> {
    let mut bytes = [0; 16];
    // SAFETY: the host writes 16 bytes to the address, which are borrowed exclusively.
    match unsafe { raw_generation(bytes.as_mut_ptr()) } {
        0 => Ok(u128::from_le_bytes(bytes)),
        errno => Err(GenerationError(errno)),
    }
}

/// How often the program was resumed since it was started: 0 for a fresh one. Going on after a snapshot does not count.
/// With `--deterministic` it is always 0.
#[must_use]
pub fn resume_count() -> u64 {
    raw_resume_count()
}
