//! Rewriting a module gives a valid one, and so does making clones for all its points; and both are right on all paths, as
//! the checker sees it.

use crate::points;
use wsnap_checker::{Checker, ClonedFunction};
use wsnap_instrument::{CloneRequest, Error, Module, Options, Point};

/// What became of the modules looked at so far.
#[derive(Debug, Default)]
pub struct Validated {
    /// Modules that have something that cannot be suspended.
    pub refused: u32,
    /// Modules that were rewritten.
    pub rewritten: u32,
    /// Points for which clones were made.
    pub points: usize,
}

/// Rewrites a module and makes clones for all its points.
///
/// # Errors
///
/// What is not valid or not what it should be, and why.
pub fn check(
    engine: &wasmtime::Engine,
    wasm: &[u8],
    options: Options,
    tally: &mut Validated,
) -> Result<(), String> {
    wasmtime::Module::validate(engine, wasm)
        .map_err(|error| format!("the engine does not take it: {error:?}"))?;
    let rewritten = Module::parse(wasm)
        .and_then(|module| Ok((wsnap_instrument::rewrite(&module, options)?, module)));
    let (rewritten, module) = match rewritten {
        Ok(rewritten) => rewritten,
        Err(Error::Unsupported { .. }) => {
            tally.refused += 1;
            return Ok(());
        }
        Err(error) => return Err(format!("rewriting fails: {error:?}")),
    };
    tally.rewritten += 1;
    wasmtime::Module::validate(engine, &rewritten.wasm)
        .map_err(|error| format!("rewritten: {error:?}"))?;
    let imported =
        (0..module.function_count()).take_while(|function| module.is_imported_function(*function));
    let mut requests: Vec<CloneRequest> = imported
        .map(|function| CloneRequest {
            function,
            points: Vec::new(),
        })
        .collect();
    let imported = requests.len() as u32;
    requests.extend(points::all(wasm, imported));
    for request in requests.iter().filter(|request| !request.points.is_empty()) {
        tally.points += request.points.len();
        wsnap_instrument::layouts(&module, &rewritten.facts, request.function, &request.points)
            .map_err(|error| format!("layouts: {error:?}"))?;
    }
    let clones = wsnap_instrument::clones(&module, &rewritten.facts, &requests)
        .map_err(|error| format!("making clones fails: {error:?}"))?;
    wasmtime::Module::validate(engine, &clones.wasm)
        .map_err(|error| format!("clones: {error:?}"))?;
    let checker = Checker::new(wasm, &rewritten.wasm).map_err(|error| error.to_string())?;
    checker.check().map_err(|error| error.to_string())?;
    let cloned: Vec<ClonedFunction> = requests.iter().map(cloned).collect();
    checker
        .check_clones(&clones.wasm, &cloned)
        .map_err(|error| format!("clones: {error}"))
}

/// What the checker must know of a request.
fn cloned(request: &CloneRequest) -> ClonedFunction {
    let points = request.points.iter().map(|point| match *point {
        Point::Calling(offset) => wsnap_checker::Point::Calling(offset),
        Point::Next(offset) => wsnap_checker::Point::Next(offset),
    });
    ClonedFunction {
        function: request.function,
        points: points.collect(),
    }
}
