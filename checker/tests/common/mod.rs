//! Rewrites modules and has the result checked, with clones for all points.

#[path = "../../../tests/equivalence/src/points.rs"]
mod points;

use std::path::{Path, PathBuf};
use wsnap_checker::{Checker, ClonedFunction};
use wsnap_instrument::{CloneRequest, Error, Module, Options, Point};

/// Points of one function that a module of clones is made for at a time.
const POINTS_AT_ONCE: usize = 200;

/// Pairs of points of one function for which clones are made at most.
const PAIRS_MAX: usize = 500;

/// What was checked.
#[derive(Debug, Default)]
pub struct Checked {
    pub modules: usize,
    pub refused: usize,
    pub functions: usize,
    pub points: usize,
}

/// The modules in a folder of this repository.
#[allow(dead_code, reason = "not every test uses it")]
pub fn modules(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|other| other == extension))
        .collect();
    paths.sort();
    paths
}

/// Checks what the rewriter makes of a module as users get it.
#[allow(dead_code, reason = "not every test uses it")]
pub fn check_default(wasm: &[u8], checked: &mut Checked) -> Result<(), String> {
    check_with(wasm, Options::default(), batches, checked)
}

/// Checks what the rewriter makes of a module, in both of its manners.
#[allow(dead_code, reason = "not every test uses it")]
pub fn check(wasm: &[u8], checked: &mut Checked) -> Result<(), String> {
    for choice in [false, true] {
        let options = Options {
            redundant_safepoints: choice,
            countable_safepoints: choice,
        };
        check_with(wasm, options, batches, checked)
            .map_err(|error| format!("{options:?}: {error}"))?;
    }
    Ok(())
}

/// As [`check_default`], but with clones for two points of each function: what one leaves out of the code, another must reach.
#[allow(dead_code, reason = "not every test uses it")]
pub fn check_pairs(wasm: &[u8], checked: &mut Checked) -> Result<(), String> {
    let options = Options::default();
    check_with(wasm, options, pairs, checked)
        .map_err(|error| format!("{options:?}, pairs: {error}"))
}

/// Which clones are made of a module: those of each element together.
type Batches = fn(&[u8], &Module<'_>) -> Vec<Vec<CloneRequest>>;

fn check_with(
    wasm: &[u8],
    options: Options,
    batches: Batches,
    checked: &mut Checked,
) -> Result<(), String> {
    let module = match Module::parse(wasm) {
        Ok(module) => module,
        Err(Error::Unsupported { .. }) => {
            checked.refused += 1;
            return Ok(());
        }
        Err(error) => return Err(format!("parsing fails: {error:?}")),
    };
    let rewritten = match wsnap_instrument::rewrite(&module, options) {
        Ok(rewritten) => rewritten,
        Err(Error::Unsupported { .. }) => {
            checked.refused += 1;
            return Ok(());
        }
        Err(error) => return Err(format!("rewriting fails: {error:?}")),
    };
    checked.modules += 1;
    let checker = Checker::new(wasm, &rewritten.wasm).map_err(|error| error.to_string())?;
    checked.functions += checker.check().map_err(|error| error.to_string())?;
    for requests in batches(wasm, &module) {
        checked.points += requests
            .iter()
            .map(|request| request.points.len())
            .sum::<usize>();
        let clones = wsnap_instrument::clones(&module, &rewritten.facts, &requests)
            .map_err(|error| format!("making clones fails: {error:?}"))?;
        let list: Vec<ClonedFunction> = requests.iter().map(clone).collect();
        checker
            .check_clones(&clones.wasm, &list)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn clone(request: &CloneRequest) -> ClonedFunction {
    let points = request.points.iter().map(|point| match *point {
        Point::Calling(offset) => wsnap_checker::Point::Calling(offset),
        Point::Next(offset) => wsnap_checker::Point::Next(offset),
    });
    ClonedFunction {
        function: request.function,
        points: points.collect(),
    }
}

/// All points of all functions, in as many requests as it takes to keep clones small, and the imported functions.
fn batches(wasm: &[u8], module: &Module<'_>) -> Vec<Vec<CloneRequest>> {
    let imported = (0..imported_functions(module)).map(|function| CloneRequest {
        function,
        points: Vec::new(),
    });
    let chunks = |points: &[Point]| {
        points
            .chunks(POINTS_AT_ONCE)
            .map(<[Point]>::to_vec)
            .collect()
    };
    batched(wasm, module, vec![imported.collect()], chunks)
}

/// Two points of each function at a time: all pairs, or where there are many of them as many that lie evenly.
fn pairs(wasm: &[u8], module: &Module<'_>) -> Vec<Vec<CloneRequest>> {
    let pairs = |points: &[Point]| {
        let later = |one: usize| points[one + 1..].iter().map(move |two| (one, *two));
        let all = (0..points.len()).flat_map(later);
        let all: Vec<Vec<Point>> = all.map(|(one, two)| vec![points[one], two]).collect();
        let step = all.len().div_ceil(PAIRS_MAX).max(1);
        all.into_iter().step_by(step).collect()
    };
    batched(wasm, module, Vec::new(), pairs)
}

fn imported_functions(module: &Module<'_>) -> u32 {
    (0..module.function_count())
        .take_while(|function| module.is_imported_function(*function))
        .count() as u32
}

/// Adds what `split` makes of the points of each function to `batches`, its n-th part to the n-th.
fn batched(
    wasm: &[u8],
    module: &Module<'_>,
    mut batches: Vec<Vec<CloneRequest>>,
    split: impl Fn(&[Point]) -> Vec<Vec<Point>>,
) -> Vec<Vec<CloneRequest>> {
    for request in points::all(wasm, imported_functions(module)) {
        for (number, points) in split(&request.points).into_iter().enumerate() {
            if batches.len() <= number {
                batches.push(Vec::new());
            }
            batches[number].push(CloneRequest {
                function: request.function,
                points,
            });
        }
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}
