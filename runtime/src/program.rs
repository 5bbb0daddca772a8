//! Programs: modules rewritten and compiled, ready to be started or resumed any number of times.

use crate::cache::Key;
use crate::compile::{self, Made, MadeClones, Original};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::host::{self, HostState};
use crate::layouts::{EntryLayouts, Layouts};
use crate::link::{self, Linked};
use crate::module_bytes::ModuleBytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use wasmtime::ModuleExport;
use wsnap_instrument::{CloneRequest, Facts, Module, ValueClass};
use wsnap_snapshots::{Manifest, ModuleHash};

/// A module that can be run. Clones share everything.
#[derive(Clone)]
pub struct Program(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub engine: Engine,
    pub hash: ModuleHash,
    pub module: wasmtime::Module,
    pub linker: wasmtime::Linker<HostState>,
    source: Source,
    /// Set when the first instance is made.
    linked: OnceLock<Linked>,
    /// Modules of clones that were made in this process.
    clones: Mutex<HashMap<Vec<CloneRequest>, Arc<CloneModule>>>,
    /// What was found out about functions that had frames in snapshots.
    layouts: Mutex<Layouts>,
}

/// The original module.
enum Source {
    /// It runs as it is.
    Bare(ModuleBytes),
    Rewritten {
        parsed: Parsed,
        /// What the rewriter found out.
        facts: Facts,
    },
}

impl Source {
    fn bytes(&self) -> &ModuleBytes {
        match self {
            Self::Bare(wasm) => wasm,
            Self::Rewritten { parsed, .. } => parsed.borrow_owner(),
        }
    }
}

self_cell::self_cell! {
    /// A module in binary format, parsed.
    struct Parsed {
        owner: ModuleBytes,
        #[covariant]
        dependent: Module,
    }
}

/// A compiled module of clones.
pub(crate) struct CloneModule {
    pub module: wasmtime::Module,
    /// At the points that it is entered at.
    layouts: Arc<EntryLayouts>,
    /// What it imports: these exports of the rewritten module.
    pub imports: Vec<ModuleExport>,
}

/// So many modules of clones are kept in a process; then all are forgotten, and those that are still asked for made again.
/// Each set of places at which a call stack can stand has one, and strangers can think of any number of them.
const CLONE_MODULES_MAX: usize = 256;

impl Program {
    /// Makes a program of a module in binary or text format, with compiled code from the cache if there is any.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] and [`Error::Module`] for modules that are not valid or cannot be suspended,
    /// [`Error::Compile`] for those that the engine cannot compile. That compiled code cannot be put into the cache is
    /// no error.
    pub fn new(engine: &Engine, bytes: Vec<u8>) -> Result<Self> {
        Self::with_notice(engine, bytes.into(), || {})
    }

    /// As [`Program::new`], but calls `compiling` before the module is compiled, which can take a while; not when its
    /// code is in the cache.
    ///
    /// # Errors
    ///
    /// As [`Program::new`].
    pub fn with_notice(
        engine: &Engine,
        module: ModuleBytes,
        compiling: impl FnOnce(),
    ) -> Result<Self> {
        Self::build(engine, module, None, compiling)
    }

    /// As [`Program::with_notice`], for a program that is to go on from an image with this manifest: if the module has to be
    /// compiled, what resuming needs besides is compiled at the same time, not after it. If anything about the frames is
    /// wrong, whoever resumes the image is told.
    ///
    /// # Errors
    ///
    /// As [`Program::new`].
    pub fn for_image(
        engine: &Engine,
        module: ModuleBytes,
        manifest: &Manifest,
        compiling: impl FnOnce(),
    ) -> Result<Self> {
        Self::build(engine, module, Some(manifest), compiling)
    }

    fn build(
        engine: &Engine,
        module: ModuleBytes,
        image: Option<&Manifest>,
        compiling: impl FnOnce(),
    ) -> Result<Self> {
        let (wasm, hash) = module.into_binary()?;
        let config = engine.config();
        let kind = if config.bare {
            "bare".to_owned()
        } else {
            format!("rewritten {:?}", config.rewriting)
        };
        let key = Key::new(engine, &kind, &hash.0);
        let cached = engine.cache().and_then(|cache| cache.module(engine, key));
        let mut ahead = None;
        let (module, source) = if config.bare {
            if wasmparser::Parser::is_component(&wasm) {
                return Err(Error::Module(wsnap_instrument::Error::Component));
            }
            let module = cached.map_or_else(
                || {
                    compiling();
                    wasm.verify()?;
                    compile::compile(engine, key, &wasm, None)
                },
                Ok,
            )?;
            (module, Source::Bare(wasm))
        } else {
            let notes = cached
                .is_some()
                .then(|| engine.cache()?.notes(key))
                .flatten();
            // Only of a module that was accepted are there notes.
            let parsed = Parsed::try_new(wasm, |wasm| match &notes {
                Some(_) => Ok(Module::parse_accepted(wasm)?),
                None => {
                    wasm.verify()?;
                    Ok::<_, Error>(Module::parse(wasm)?)
                }
            })?;
            let facts =
                notes.and_then(|notes| Facts::from_bytes(parsed.borrow_dependent(), &notes));
            let (module, facts) = match cached.zip(facts) {
                Some(cached) => cached,
                None => {
                    compiling();
                    let image = image.filter(|manifest| {
                        manifest.module == hash && manifest.deterministic == config.deterministic
                    });
                    let Made {
                        module,
                        facts,
                        clones,
                    } = compile::rewrite_and_compile(
                        engine,
                        key,
                        parsed.borrow_owner(),
                        parsed.borrow_dependent(),
                        image,
                    )?;
                    ahead = clones;
                    (module, facts)
                }
            };
            (module, Source::Rewritten { parsed, facts })
        };
        let linker = host::linker(engine)?;
        let inner = Inner {
            engine: engine.clone(),
            hash,
            module,
            linker,
            source,
            linked: OnceLock::new(),
            clones: Mutex::default(),
            layouts: Mutex::default(),
        };
        let program = Self(Arc::new(inner));
        if let Some(MadeClones {
            requests,
            layouts,
            module,
        }) = ahead
        {
            // Without them they are made when the image is resumed.
            let _ = program.keep_clones(&requests, &Arc::new(layouts), module);
        }
        Ok(program)
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
        self.0.source.bytes()
    }

    /// The functions that the module exports.
    pub fn exported_functions(&self) -> impl Iterator<Item = &str> {
        let exports = self
            .0
            .module
            .exports()
            .filter(|export| matches!(export.ty(), wasmtime::ExternType::Func(_)));
        exports
            .map(|export| export.name())
            .filter(|name| !self.is_added_export(name))
    }

    /// Whether an export is none of the original module, which nobody may call by its name.
    fn is_added_export(&self, name: &str) -> bool {
        self.parsed()
            .is_ok_and(|module| module.is_added_export(name))
    }

    /// Parameters and results of an exported function.
    pub fn signature(&self, export: &str) -> Option<(Vec<ValueClass>, Vec<ValueClass>)> {
        match self.0.module.get_export(export)? {
            wasmtime::ExternType::Func(ty) if !self.is_added_export(export) => {
                let class = |ty: wasmtime::ValType| crate::values::class_of(&ty);
                Some((
                    ty.params().map(class).collect(),
                    ty.results().map(class).collect(),
                ))
            }
            _ => None,
        }
    }

    /// How many functions the module has, imported ones included; none if it runs bare.
    pub fn function_count(&self) -> Option<u32> {
        Some(self.parsed().ok()?.function_count())
    }

    /// The original module, parsed.
    pub(crate) fn parsed(&self) -> Result<&Module<'_>> {
        match &self.0.source {
            Source::Bare(_) => Err(Error::Bare),
            Source::Rewritten { parsed, .. } => Ok(parsed.borrow_dependent()),
        }
    }

    pub(crate) fn facts(&self) -> Result<&Facts> {
        match &self.0.source {
            Source::Bare(_) => Err(Error::Bare),
            Source::Rewritten { facts, .. } => Ok(facts),
        }
    }

    /// Checks the bytes of the module that are not hashed yet, see [`ModuleBytes::verify`].
    pub(crate) fn verify_bytes(&self) -> Result<()> {
        self.0.source.bytes().verify()
    }

    /// The original module, and what clones are made of besides.
    fn original(&self) -> Result<Original<'_, '_>> {
        Ok(Original {
            hash: &self.0.hash,
            bytes: self.0.source.bytes(),
            parsed: self.parsed()?,
            facts: self.facts()?,
        })
    }

    /// The rewritten module, linked.
    pub(crate) fn linked(&self) -> Result<&Linked> {
        if let Some(linked) = self.0.linked.get() {
            return Ok(linked);
        }
        let linked = Linked::new(self, self.parsed()?)?;
        Ok(self.0.linked.get_or_init(|| linked))
    }

    /// What was found out about functions that had frames in snapshots.
    pub(crate) fn layouts(&self) -> MutexGuard<'_, Layouts> {
        let layouts = self.0.layouts.lock();
        layouts.unwrap_or_else(PoisonError::into_inner)
    }

    /// The layouts at the points of `requests`, found out now unless this process or the cache knows them.
    ///
    /// # Errors
    ///
    /// [`Error::Image`] when a function has no such point.
    pub(crate) fn entry_layouts(&self, requests: &[CloneRequest]) -> Result<Arc<EntryLayouts>> {
        if let Some(clones) = self.known_clones().get(requests) {
            return Ok(clones.layouts.clone());
        }
        let layouts = compile::entry_layouts(&self.0.engine, &self.original()?, requests)?;
        Ok(Arc::new(layouts))
    }

    /// Compiled clones for `requests` with these layouts, made now unless this process or the cache has them.
    pub(crate) fn clones(
        &self,
        requests: &[CloneRequest],
        layouts: &Arc<EntryLayouts>,
    ) -> Result<Arc<CloneModule>> {
        if let Some(clones) = self.known_clones().get(requests) {
            return Ok(clones.clone());
        }
        let module = compile::clones(&self.0.engine, &self.original()?, requests, layouts)?;
        self.keep_clones(requests, layouts, module)
    }

    fn known_clones(&self) -> MutexGuard<'_, HashMap<Vec<CloneRequest>, Arc<CloneModule>>> {
        self.0.clones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_clones(
        &self,
        requests: &[CloneRequest],
        layouts: &Arc<EntryLayouts>,
        module: wasmtime::Module,
    ) -> Result<Arc<CloneModule>> {
        let imports = module.imports();
        let imports = imports
            .map(|import| link::export(&self.0.module, import.name()))
            .collect::<Result<_>>()?;
        let clones = Arc::new(CloneModule {
            module,
            layouts: layouts.clone(),
            imports,
        });
        let mut known = self.known_clones();
        if known.len() >= CLONE_MODULES_MAX {
            known.clear();
        }
        known.insert(requests.to_vec(), clones.clone());
        Ok(clones)
    }
}
