//! Why something cannot be measured.

use std::io;
use std::path::{Path, PathBuf};
use wsnap::snapshots::StoreError;
use wsnap::wasi::{DecodeError, RestoreError, WasiError};
use wsnap_tests::fetch::FetchError;

/// Why something cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The table has no program of that name.
    #[error("the table has no program {0:?}; it has: {1}")]
    Unknown(String, String),
    /// The table of programs cannot be read.
    #[error("{path}: {source}")]
    Table {
        /// The table.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// The table does not say where a program's module is.
    #[error("the table needs one of `module`, `built` and `fetched` for {0}")]
    NoModule(String),
    /// The table does not say how to start a program.
    #[error(
        "the table does not say how {0} starts, waits for a script, what script it runs, or how it answers requests"
    )]
    NoStart(String),
    /// The command is not there.
    #[error("{0} is not there; please run `cargo build --release --workspace`")]
    NoCommand(PathBuf),
    /// Some programs, or commands, could not be measured.
    #[error("{0} of them could not be measured")]
    Failures(usize),
    /// The guests cannot be built.
    #[error("{script} ended with {status}; what it needs is said above")]
    Build {
        /// The script that builds them.
        script: PathBuf,
        /// How it ended.
        status: String,
    },
    /// The program did not do what the table says.
    #[error("it ended with {actual}, not with exit code {expected}; it said:\n{said}")]
    Ended {
        /// What it did.
        actual: String,
        /// What it should have done.
        expected: i32,
        /// What it wrote to standard error.
        said: String,
    },
    /// The program printed or left something else than the table says.
    #[error("its output has the hash {actual}, not {expected}; it begins with:\n{beginning}")]
    Output {
        /// The hash of the output.
        actual: String,
        /// What the table says.
        expected: String,
        /// Its first bytes, as text.
        beginning: String,
    },
    /// The guest of a benchmark did something else.
    #[error("the guest ended unexpectedly: {0}")]
    Unexpected(String),
    /// The image has no state of the WASI host.
    #[error("an image of {0} has no WASI state")]
    NoWasiState(String),
    /// The program is not there.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The program cannot be compiled, run, stored or resumed.
    #[error(transparent)]
    Wsnap(#[from] wsnap::Error),
    /// The program cannot be rewritten.
    #[error(transparent)]
    Rewrite(#[from] wsnap_instrument::Error),
    /// The program cannot be compiled or instantiated by plain wasmtime.
    #[error("wasmtime: {0:#}")]
    Wasmtime(wasmtime::Error),
    /// The program cannot be translated or instantiated by the interpreter.
    #[error("wasmi: {0}")]
    Wasmi(#[from] wasmi::Error),
    /// Binaryen is not there.
    #[error("wasm-opt is not installed (Debian package `binaryen`): {0}")]
    NoBinaryen(io::Error),
    /// Binaryen cannot process the module.
    #[error("wasm-opt: {0}")]
    Asyncify(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host state cannot be set up.
    #[error(transparent)]
    Wasi(#[from] WasiError),
    /// The host state in an image cannot be read.
    #[error(transparent)]
    State(#[from] DecodeError),
    /// The host state cannot be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

impl From<wasmtime::Error> for BenchError {
    fn from(error: wasmtime::Error) -> Self {
        Self::Wasmtime(error)
    }
}

/// Attaches the path to an error.
pub fn at(path: &Path) -> impl FnOnce(io::Error) -> BenchError {
    move |source| BenchError::Io {
        path: path.to_owned(),
        source,
    }
}
