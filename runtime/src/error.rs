//! What can go wrong, by cause.

use crate::guest_state::DecodeOwnError;
use crate::limits::LimitReached;
use std::path::PathBuf;
use wsnap_snapshots::StoreError;
use wsnap_wasi::{SaveError, WasiError};

/// Why a program cannot be made, run, stored or resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text of a module does not parse.
    #[error("not a WebAssembly module in text format: {0}")]
    Text(String),
    /// The module is not valid, or cannot be suspended.
    #[error(transparent)]
    Module(#[from] wsnap_instrument::Error),
    /// The engine refuses its settings.
    #[error("the engine cannot be set up for {target}: {source:#}")]
    Engine {
        /// The compilation target asked for.
        target: String,
        /// What the engine says.
        source: wasmtime::Error,
    },
    /// The engine cannot compile the module.
    #[error("the module cannot be compiled: {0:#}")]
    Compile(wasmtime::Error),
    /// The module cannot be instantiated: an import is missing or an initialiser traps.
    #[error("the module cannot be instantiated: {0:#}")]
    Instantiate(wasmtime::Error),
    /// Nobody provides an import of the module.
    #[error("the module imports {module}.{name} ({kind}), which nobody provides")]
    Import {
        /// The module name of the import.
        module: String,
        /// The name of the import.
        name: String,
        /// What is imported.
        kind: &'static str,
    },
    /// There is no exported function of that name.
    #[error("the module exports no function {export:?}")]
    NoExport {
        /// The name asked for.
        export: String,
    },
    /// The arguments do not have the types of the function's parameters.
    #[error("function {export:?} takes other arguments")]
    Arguments {
        /// The exported function.
        export: String,
    },
    /// The code cache cannot be used.
    #[error("cannot {operation} the code cache {path}: {source}")]
    Cache {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Memory for the program cannot be mapped.
    #[error("cannot {operation} {bytes} bytes of memory: {source}")]
    Mapping {
        /// What was tried.
        operation: &'static str,
        /// How much.
        bytes: u64,
        /// What the system says.
        source: std::io::Error,
    },
    /// A program is to be stored or to go on that is not suspended.
    #[error("the program is not suspended")]
    NotSuspended,
    /// The program was to stop at a later safepoint than its next one.
    #[error("the program cannot stop at safepoint {count}: its safepoints are not countable")]
    NotCountable {
        /// Which one, counted from the next.
        count: u64,
    },
    /// The program has ended and cannot run again.
    #[error("the program has ended")]
    Ended,
    /// Programs that run unrewritten cannot be suspended or resumed.
    #[error("a program that runs bare cannot be suspended or resumed")]
    Bare,
    /// Something that the program holds cannot be part of an image.
    #[error("cannot take a snapshot: {0}")]
    NotStorable(String),
    /// The content of memories cannot be set aside while the program goes on.
    #[error("cannot take a snapshot: no room for the program's memory as it was: {0}")]
    Freeze(std::io::Error),
    /// The host state cannot be part of an image.
    #[error("cannot take a snapshot: {0}")]
    Wasi(#[from] SaveError),
    /// The host state for checking an image cannot be made.
    #[error(transparent)]
    Host(#[from] WasiError),
    /// The image is not one of this module, or contradicts it.
    #[error("the image does not fit the module: {0}")]
    Image(String),
    /// What an image says about the program itself is not readable.
    #[error(transparent)]
    Own(#[from] DecodeOwnError),
    /// The call stack is larger than the frame buffer.
    #[error("the call stack does not fit into the frame buffer of {bytes} bytes")]
    FramesFull {
        /// The size of the buffer.
        bytes: u64,
    },
    /// The program uses more than it may already.
    #[error(transparent)]
    Limit(LimitReached),
    /// The engine failed where it must not.
    #[error("the engine failed: {0:#}")]
    Internal(wasmtime::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A result whose error is [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
