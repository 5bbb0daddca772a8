//! Programs: modules rewritten and compiled, ready to be started or resumed any number of times.

use crate::cache::Key;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::host::{self, HostState};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use wsnap_instrument::{CloneRequest, Facts, Module, Name, ValueClass};
use wsnap_snapshots::ModuleHash;

/// A module that can be run. Clones share everything.
#[derive(Clone)]
pub struct Program(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub engine: Engine,
    pub wasm: Vec<u8>,
    pub hash: ModuleHash,
    pub module: wasmtime::Module,
    pub linker: wasmtime::Linker<HostState>,
    /// What the rewriter found out; none for a program that runs bare.
    pub facts: Option<Facts>,
    /// Modules of clones that were made in this process.
    clones: Mutex<HashMap<Vec<CloneRequest>, Arc<CloneModule>>>,
}

/// A compiled module of clones.
pub(crate) struct CloneModule {
    pub module: wasmtime::Module,
    /// The names of its imports, all from the rewritten module.
    pub imports: Vec<String>,
}

/// The binary form of a module that may be in text form.
fn to_binary(bytes: Vec<u8>) -> Result<Vec<u8>> {
    if bytes.starts_with(b"\0asm") {
        return Ok(bytes);
    }
    match wat::parse_bytes(&bytes) {
        Ok(Cow::Borrowed(_)) => Ok(bytes),
        Ok(Cow::Owned(binary)) => Ok(binary),
        Err(error) => Err(Error::Text(error.to_string())),
    }
}

fn key(engine: &Engine, wasm: &[u8]) -> Key {
    let config = engine.config();
    let kind = if config.bare { "bare".to_owned() } else { format!("rewritten {:?}", config.rewriting) };
    Key::new(engine, &kind, wasm)
}

impl Program {
    /// Makes a program of a module in binary or text format, with compiled code from the cache if there is any.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] and [`Error::Module`] for modules that are not valid or cannot be suspended,
    /// [`Error::Compile`] for those that the engine cannot compile, [`Error::Import`] when nobody provides an import.
    /// That compiled code cannot be put into the cache is no error.
    pub fn new(engine: &Engine, bytes: Vec<u8>) -> Result<Self> {
        let wasm = to_binary(bytes)?;
        let key = key(engine, &wasm);
        let cached = engine.cache().and_then(|cache| Some((cache.module(engine, key)?, cache.notes(key))));
        let (module, facts) = if engine.config().bare {
            let module = match cached {
                Some((module, _)) => module,
                None => compile_bare(engine, key, &wasm)?,
            };
            (module, None)
        } else {
            let parsed = Module::parse(&wasm)?;
            let cached = cached.and_then(|(module, notes)| Some((module, Facts::from_bytes(&parsed, &notes?)?)));
            let (module, facts) = match cached {
                Some(cached) => cached,
                None => rewrite_and_compile(engine, key, &parsed)?,
            };
            (module, Some(facts))
        };
        let linker = host::linker(engine)?;
        let hash = ModuleHash::of(&wasm);
        let inner = Inner { engine: engine.clone(), wasm, hash, module, linker, facts, clones: Mutex::default() };
        Ok(Self(Arc::new(inner)))
    }

    /// Whether the cache has compiled code for a module, so that [`Program::new`] will be quick.
    pub fn is_cached(engine: &Engine, bytes: &[u8]) -> bool {
        let Ok(wasm) = to_binary(bytes.to_vec()) else { return false };
        engine.cache().is_some_and(|cache| cache.has(key(engine, &wasm)))
    }

    /// The engine that the program was made with.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// The hash of the original module, by which images name it.
    pub fn hash(&self) -> ModuleHash {
        self.0.hash
    }

    /// The original module, in binary format.
    pub fn wasm(&self) -> &[u8] {
        &self.0.wasm
    }

    /// The functions that the module exports.
    pub fn exported_functions(&self) -> impl Iterator<Item = &str> {
        let exports = self.0.module.exports().filter(|export| matches!(export.ty(), wasmtime::ExternType::Func(_)));
        exports.map(|export| export.name()).filter(|name| !name.starts_with("wsnap:"))
    }

    /// Parameters and results of an exported function.
    pub fn signature(&self, export: &str) -> Option<(Vec<ValueClass>, Vec<ValueClass>)> {
        match self.0.module.get_export(export)? {
            wasmtime::ExternType::Func(ty) => {
                let class = |ty: wasmtime::ValType| crate::values::class_of(&ty);
                Some((ty.params().map(class).collect(), ty.results().map(class).collect()))
            }
            _ => None,
        }
    }

    /// How many functions of the module are imported and defined: what a progress message may want to say.
    pub fn function_count(&self) -> usize {
        self.0.facts.as_ref().map_or(0, |_| self.parsed().map_or(0, |module| module.function_count() as usize))
    }

    /// The original module, parsed.
    pub(crate) fn parsed(&self) -> Result<Module<'_>> {
        Ok(Module::parse(&self.0.wasm)?)
    }

    pub(crate) fn facts(&self) -> Result<&Facts> {
        self.0.facts.as_ref().ok_or(Error::Bare)
    }

    /// Compiled clones for `requests`, made now unless this process or the cache has them.
    pub(crate) fn clones(&self, parsed: &Module<'_>, requests: &[CloneRequest]) -> Result<Arc<CloneModule>> {
        let lock = || self.0.clones.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(clones) = lock().get(requests) {
            return Ok(clones.clone());
        }
        let engine = &self.0.engine;
        let made = wsnap_instrument::clones(parsed, self.facts()?, requests)?;
        let key = Key::new(engine, "clones", &made.wasm);
        let module = match engine.cache().and_then(|cache| cache.module(engine, key)) {
            Some(module) => module,
            None => compile(engine, key, &made.wasm, None)?,
        };
        let imports = made.imports.iter().map(|name: &Name| name.in_module(parsed)).collect();
        let clones = Arc::new(CloneModule { module, imports });
        lock().insert(requests.to_vec(), clones.clone());
        Ok(clones)
    }
}

fn compile_bare(engine: &Engine, key: Key, wasm: &[u8]) -> Result<wasmtime::Module> {
    if wasmparser::Parser::is_component(wasm) {
        return Err(Error::Module(wsnap_instrument::Error::Component));
    }
    compile(engine, key, wasm, None)
}

fn rewrite_and_compile(engine: &Engine, key: Key, parsed: &Module<'_>) -> Result<(wasmtime::Module, Facts)> {
    let rewritten = wsnap_instrument::rewrite(parsed, engine.config().rewriting)?;
    let module = compile(engine, key, &rewritten.wasm, Some(&rewritten.facts.to_bytes()))?;
    Ok((module, rewritten.facts))
}

fn compile(engine: &Engine, key: Key, wasm: &[u8], notes: Option<&[u8]>) -> Result<wasmtime::Module> {
    let module = wasmtime::Module::from_binary(engine.wasmtime(), wasm).map_err(Error::Compile)?;
    if let Some(cache) = engine.cache() {
        // A cache that cannot be written to costs time at the next start, nothing else.
        let _ = cache.put(key, &module, notes);
    }
    Ok(module)
}
