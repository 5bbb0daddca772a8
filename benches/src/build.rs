//! What it costs to make a module suspendable: rewriting, and compiling what came of it.

use crate::error::BenchError;
use crate::guest::Guest;
use crate::others::Compiled;
use crate::statistics::{Spread, ms};
use serde::Serialize;
use std::time::Instant;
use wsnap_instrument::{Module, Options, rewrite};

/// How often what takes milliseconds is repeated.
const REPETITIONS: usize = 5;

/// Times and sizes from the module to code that runs.
#[derive(Debug, Default, Serialize)]
pub struct BuildFigures {
    /// Size of the original module.
    pub module_bytes: usize,
    /// Size of the rewritten one, without the content of active data segments, which it does not have.
    pub rewritten_bytes: usize,
    /// Size of the original module's code section alone, and of the rewritten one's.
    pub code_bytes: [usize; 2],
    /// Reading the module and validating it.
    pub parse_ms: Spread,
    /// Rewriting it, once it is parsed.
    pub rewrite_ms: Spread,
    /// From bytes to code under plain wasmtime; once.
    pub compile_bare_ms: f64,
    /// The same with wsnap: parsing, rewriting, compiling; once.
    pub compile_wsnap_ms: f64,
    /// The same when the code is in the cache.
    pub cached_ms: Spread,
}

/// Measures rewriting and compiling.
pub fn measure(guest: &Guest) -> Result<BuildFigures, BenchError> {
    let (mut parse, mut rewriting, mut cached) = (Vec::new(), Vec::new(), Vec::new());
    let mut rewritten = Vec::new();
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        let module = Module::parse(guest.wasm())?;
        parse.push(start.elapsed());
        let start = Instant::now();
        rewritten = rewrite(&module, Options::default())?.wasm;
        rewriting.push(start.elapsed());
    }
    let start = Instant::now();
    drop(Compiled::new(guest.wasm())?);
    let compile_bare_ms = ms(start.elapsed());
    let start = Instant::now();
    drop(guest.compile(None)?);
    let compile_wsnap_ms = ms(start.elapsed());
    let cache = guest.folder().join("cache");
    drop(guest.compile(Some(cache.clone()))?);
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        drop(guest.compile(Some(cache.clone()))?);
        cached.push(start.elapsed());
    }
    Ok(BuildFigures {
        module_bytes: guest.wasm().len(),
        rewritten_bytes: rewritten.len(),
        code_bytes: [code_bytes(guest.wasm()), code_bytes(&rewritten)],
        parse_ms: Spread::of_ms(&parse),
        rewrite_ms: Spread::of_ms(&rewriting),
        compile_bare_ms,
        compile_wsnap_ms,
        cached_ms: Spread::of_ms(&cached),
    })
}

/// The size of a module's code section. The module is one that has been parsed.
fn code_bytes(wasm: &[u8]) -> usize {
    let payloads = wasmparser::Parser::new(0)
        .parse_all(wasm)
        .map_while(Result::ok);
    let sizes = payloads.filter_map(|payload| match payload {
        wasmparser::Payload::CodeSectionStart { size, .. } => Some(size as usize),
        _ => None,
    });
    sizes.sum()
}
