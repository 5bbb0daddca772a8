//! From a module to compiled code: rewriting, compiling, and the cache.

use crate::cache::Key;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::layouts::EntryLayouts;
use crate::module_bytes::ModuleBytes;
use crate::restore;
use rayon::{ThreadPool, ThreadPoolBuilder};
use wsnap_instrument::{CloneRequest, Facts, Module, Point};
use wsnap_snapshots::{Manifest, ModuleHash};

/// What a thread that makes clones has: as much as the first thread of a process, which makes them otherwise.
const STACK_BYTES: usize = 8 << 20;

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

fn clone_key(engine: &Engine, module: &ModuleHash, requests: &[CloneRequest]) -> Key {
    let kind = format!(
        "clones {:?}, layouts {}",
        engine.config().rewriting,
        EntryLayouts::VERSION
    );
    Key::new(engine, &kind, &hash_of(module, requests))
}

/// A module that clones are made of.
pub(crate) struct Original<'p, 'a> {
    pub hash: &'p ModuleHash,
    pub bytes: &'p ModuleBytes,
    pub parsed: &'p Module<'a>,
    pub facts: &'p Facts,
}

/// The layouts at the points of `requests`, from the cache if it has them.
pub(crate) fn entry_layouts(
    engine: &Engine,
    original: &Original<'_, '_>,
    requests: &[CloneRequest],
) -> Result<EntryLayouts> {
    let key = clone_key(engine, original.hash, requests);
    let notes = engine.cache().and_then(|cache| cache.notes(key));
    if let Some(layouts) = notes.and_then(|notes| EntryLayouts::from_bytes(requests, &notes)) {
        return Ok(layouts);
    }
    original.bytes.verify()?;
    let layouts = EntryLayouts::find(original.parsed, original.facts, requests)?;
    if let Some(cache) = engine.cache().filter(|cache| cache.has_code(key)) {
        // They were lost. Otherwise they come with the code.
        let _ = cache.put_notes(key, &layouts.to_bytes());
    }
    Ok(layouts)
}

/// The code of clones for `requests`, from the cache if there is any. The layouts at their points are kept beside it.
pub(crate) fn clones(
    engine: &Engine,
    original: &Original<'_, '_>,
    requests: &[CloneRequest],
    layouts: &EntryLayouts,
) -> Result<wasmtime::Module> {
    let key = clone_key(engine, original.hash, requests);
    if let Some(module) = engine.cache().and_then(|cache| cache.module(engine, key)) {
        return Ok(module);
    }
    original.bytes.verify()?;
    let made = wsnap_instrument::clones(original.parsed, original.facts, requests)?;
    compile(engine, key, &made.wasm, Some(&layouts.to_bytes()))
}

/// What is made of a module that has no code yet.
pub(crate) struct Made {
    pub module: wasmtime::Module,
    pub facts: Facts,
    /// For the frames of an image, if there is one and nothing is wrong with them.
    pub clones: Option<MadeClones>,
}

/// Clones that have no place in a program yet.
pub(crate) struct MadeClones {
    pub requests: Vec<CloneRequest>,
    pub layouts: EntryLayouts,
    pub module: wasmtime::Module,
}

/// Compiles a module, which `bytes` are, that the cache has not. With the manifest of an image, clones for its frames are compiled at the same time.
pub(crate) fn rewrite_and_compile(
    engine: &Engine,
    key: Key,
    bytes: &ModuleBytes,
    parsed: &Module<'_>,
    image: Option<&Manifest>,
) -> Result<Made> {
    bytes.verify()?;
    let rewritten = wsnap_instrument::rewrite(parsed, engine.config().rewriting)?;
    let facts = rewritten.facts;
    let compile_module = || compile(engine, key, &rewritten.wasm, Some(&facts.to_bytes()));
    let wanted = image.and_then(|image| wanted(parsed, &facts, image));
    let (module, clones) = match wanted {
        Some(Wanted {
            hash,
            requests,
            layouts,
            threads,
        }) => {
            let mut made = None;
            let module = threads.in_place_scope(|scope| {
                let original = Original {
                    hash,
                    bytes,
                    parsed,
                    facts: &facts,
                };
                let made = &mut made;
                let (requests, layouts) = (&requests, &layouts);
                scope.spawn(move |_| *made = clones(engine, &original, requests, layouts).ok());
                compile_module()
            });
            let made = made.map(|module| MadeClones {
                requests,
                layouts,
                module,
            });
            (module, made)
        }
        None => (compile_module(), None),
    };
    Ok(Made {
        module: module?,
        facts,
        clones,
    })
}

/// Clones to be made for an image.
struct Wanted<'i> {
    /// Of the module.
    hash: &'i ModuleHash,
    requests: Vec<CloneRequest>,
    layouts: EntryLayouts,
    /// What compiles them.
    threads: ThreadPool,
}

/// What clones the frames of an image need; none if there is nothing to do or it cannot be done now.
fn wanted<'i>(parsed: &Module<'_>, facts: &Facts, image: &'i Manifest) -> Option<Wanted<'i>> {
    if image.frames.is_empty() {
        return None;
    }
    let (requests, layouts) = restore::clone_requests(parsed, facts, image).ok()?;
    // Threads of their own, as the queue of those that compile the module would come to the clones last.
    let threads = ThreadPoolBuilder::new()
        .num_threads(requests.len().min(rayon::current_num_threads()))
        .thread_name(|_| "clones".to_owned())
        .stack_size(STACK_BYTES)
        .build();
    Some(Wanted {
        hash: &image.module,
        requests,
        layouts,
        threads: threads.ok()?,
    })
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
