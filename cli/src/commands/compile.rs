//! `wsnap compile`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::output;
use crate::places::Places;
use crate::program::{self, Settings};

/// Compile a program into the code cache, so that running it starts at once
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap compile python.wasm\n  wsnap compile --target pulley64 python.wasm"
)]
pub(crate) struct Compile {
    /// Compile for another target; pulley64 is the portable interpreter
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// Compile for programs that are run with --deterministic
    #[arg(long)]
    deterministic: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// The program, in WebAssembly's binary or text format
    #[arg(value_name = "MODULE")]
    module: PathBuf,
}

#[derive(Serialize)]
struct Report {
    /// The hash of the module's binary form.
    module: String,
    module_bytes: usize,
    functions: u32,
    /// Nothing had to be done.
    cached: bool,
    compiled_ms: u64,
}

impl Compile {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let wasm = program::read_module(&self.module)?;
        let module_bytes = wasm.len();
        let settings = Settings {
            target: self.target,
            deterministic: self.deterministic,
            ..Settings::default()
        };
        let engine = settings.engine(places)?;
        let start = Instant::now();
        let label = self.module.display().to_string();
        let (program, cached) = program::compile(&engine, wasm.into(), &label, None)?;
        let elapsed = start.elapsed();
        if self.json {
            output::json_result(&Report {
                module: program.hash().to_string(),
                module_bytes,
                functions: program.function_count().unwrap_or(0),
                cached,
                compiled_ms: output::milliseconds(elapsed),
            })?;
        } else {
            let size = output::bytes(module_bytes as u64);
            let how = if cached {
                "was in the cache, read"
            } else {
                "compiled"
            };
            output::result(format_args!(
                "{label} ({size}, {} functions) {how} in {}",
                program.function_count().unwrap_or(0),
                output::duration(elapsed)
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
