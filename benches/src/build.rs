//! What it costs to make a module suspendable: rewriting, and compiling what came of it.

use crate::error::BenchError;
use crate::guest::Guest;
use crate::others::Compiled;
use crate::statistics::{Spread, ms};
use serde::Serialize;
use std::time::Instant;
use wsnap_instrument::{Module, Options, rewrite};

/// How often everything is repeated.
pub const REPETITIONS: usize = 5;

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
    /// From bytes to code under plain wasmtime.
    pub compile_bare_ms: Spread,
    /// The same with wsnap: parsing, rewriting, compiling.
    pub compile_wsnap_ms: Spread,
    /// With wsnap to under plain wasmtime, of what was compiled one after the other.
    pub compile_ratio: Spread,
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
    let (mut bare, mut with_wsnap) = (Vec::new(), Vec::new());
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        drop(Compiled::new(guest.wasm())?);
        bare.push(start.elapsed());
        let start = Instant::now();
        drop(guest.compile(None)?);
        with_wsnap.push(start.elapsed());
    }
    let pairs = with_wsnap.iter().zip(&bare);
    let compile_ratio = Spread::of(pairs.map(|(ours, theirs)| ms(*ours) / ms(*theirs)));
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
        compile_bare_ms: Spread::of_ms(&bare),
        compile_wsnap_ms: Spread::of_ms(&with_wsnap),
        compile_ratio,
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
