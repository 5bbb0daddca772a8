//! From a module to compiled code: rewriting, compiling, and the cache.

use crate::cache::Key;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::restore;
use rayon::{ThreadPool, ThreadPoolBuilder};
use wsnap_instrument::{CloneRequest, Facts, Module, Point};
use wsnap_snapshots::{Manifest, ModuleHash};

/// What the system gives the first thread of a process, on which the same work is done otherwise.
const MAIN_THREAD_STACK_BYTES: usize = 8 << 20;

/// The hash of all that clones are made of: the module, and what is requested.
fn hash_of(module: &ModuleHash, requests: &[CloneRequest]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut add = |word: u32| {
        hasher.update(&word.to_le_bytes());
    };
    for request in requests {
        add(request.function);
        add(request.points.len() as u32);
        for point in &request.points {
            add(u32::from(matches!(point, Point::Calling(_))));
            add(point.offset());
        }
    }
    hasher.update(&module.0);
    *hasher.finalize().as_bytes()
}

/// The code of clones for `requests`, from the cache if there is any.
pub(crate) fn clones(
    engine: &Engine,
    hash: &ModuleHash,
    parsed: &Module<'_>,
    facts: &Facts,
    requests: &[CloneRequest],
) -> Result<wasmtime::Module> {
    let kind = format!("clones {:?}", engine.config().rewriting);
    let key = Key::new(engine, &kind, &hash_of(hash, requests));
    if let Some(module) = engine.cache().and_then(|cache| cache.module(engine, key)) {
        return Ok(module);
    }
    let made = wsnap_instrument::clones(parsed, facts, requests)?;
    compile(engine, key, &made.wasm, None)
}

/// What is made of a module that has no code yet.
pub(crate) struct Made {
    pub module: wasmtime::Module,
    pub facts: Facts,
    /// For the frames of an image, if there is one and nothing is wrong with them.
    pub clones: Option<(Vec<CloneRequest>, wasmtime::Module)>,
}

/// Compiles a module that the cache has not. With the manifest of an image, clones for its frames are compiled at the same time.
pub(crate) fn rewrite_and_compile(
    engine: &Engine,
    key: Key,
    parsed: &Module<'_>,
    image: Option<&Manifest>,
) -> Result<Made> {
    let rewritten = wsnap_instrument::rewrite(parsed, engine.config().rewriting)?;
    let facts = rewritten.facts;
    let mut clones = None;
    let compile_module = || compile(engine, key, &rewritten.wasm, Some(&facts.to_bytes()));
    let thread = image.and_then(|_| thread_of_its_own());
    let module = match (image, thread) {
        (Some(image), Some(thread)) => thread.in_place_scope(|scope| {
            scope.spawn(|_| clones = clones_ahead(engine, parsed, &facts, image));
            compile_module()
        }),
        _ => compile_module(),
    };
    Ok(Made {
        module: module?,
        facts,
        clones,
    })
}

/// A thread apart from those that compile the module, whose queue would come to the clones last. Without one, clones are
/// compiled when they are asked for.
fn thread_of_its_own() -> Option<ThreadPool> {
    let builder = ThreadPoolBuilder::new().num_threads(1);
    builder.stack_size(MAIN_THREAD_STACK_BYTES).build().ok()
}

/// Clones for the frames of an image. If they cannot be made, whoever resumes it is told why.
fn clones_ahead(
    engine: &Engine,
    parsed: &Module<'_>,
    facts: &Facts,
    image: &Manifest,
) -> Option<(Vec<CloneRequest>, wasmtime::Module)> {
    let requests = restore::clone_requests(parsed, facts, image).ok()?;
    if requests.is_empty() {
        return None;
    }
    let module = clones(engine, &image.module, parsed, facts, &requests).ok()?;
    Some((requests, module))
}

/// Compiles a module as it is, and puts it into the cache.
pub(crate) fn compile(
    engine: &Engine,
    key: Key,
    wasm: &[u8],
    notes: Option<&[u8]>,
) -> Result<wasmtime::Module> {
    let module = wasmtime::Module::from_binary(engine.wasmtime(), wasm).map_err(Error::Compile)?;
    if let Some(cache) = engine.cache() {
        // A cache that cannot be written to costs time at the next start, nothing else.
        let _ = cache.put(key, &module, notes);
    }
    Ok(module)
}
