//! The compiler and its settings.

use crate::alignment::align_functions;
use crate::cache::Cache;
use crate::creator::{Creator, GC_HEAP_RESERVATION, MEMORY_GUARD, MEMORY_RESERVATION};
use crate::error::{Error, Result};
use crate::native_stacks::{self, Lease, Stacks};
use std::path::PathBuf;
use std::sync::Arc;
use wsnap_instrument::Options;

/// How programs are compiled and run.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The compilation target: none for this machine's, or `pulley64` for the portable interpreter.
    pub target: Option<String>,
    /// Whether every machine shall compute the same bits: not-a-number values are canonical, relaxed SIMD is not.
    pub deterministic: bool,
    /// How much native stack a program may use, in bytes. A resumed program may need somewhat more than one that never
    /// stopped, so give it more.
    pub stack_bytes: usize,
    /// The directory of the code cache, if there is one.
    pub cache: Option<PathBuf>,
    /// How modules are rewritten. Images do not depend on it.
    pub rewriting: Options,
    /// Whether programs run unrewritten under the engine's defaults: they cannot be suspended.
    pub bare: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            target: None,
            deterministic: false,
            stack_bytes: 16 << 20,
            cache: None,
            rewriting: Options::default(),
            bare: false,
        }
    }
}

/// Compiles and runs programs. Clones share everything.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    engine: wasmtime::Engine,
    config: EngineConfig,
    cache: Option<Cache>,
    stacks: Stacks,
}

/// Native stack that the host's own functions need below the guest's, in bytes.
const HOST_STACK_BYTES: usize = 512 << 10;

impl Engine {
    /// Sets up an engine.
    ///
    /// # Errors
    ///
    /// [`Error::Engine`] when the target is unknown or the settings contradict each other, [`Error::Cache`] when the
    /// code cache cannot be created or does not belong to this user alone.
    pub fn new(config: &EngineConfig) -> Result<Self> {
        let fail = |source| Error::Engine {
            target: config
                .target
                .clone()
                .unwrap_or_else(|| "this machine".into()),
            source,
        };
        let mut settings = wasmtime::Config::new();
        if let Some(target) = &config.target {
            settings.target(target).map_err(fail)?;
        }
        settings.cranelift_nan_canonicalization(config.deterministic);
        if !config.bare {
            // A program that resumes elsewhere must find relaxed instructions choose as before.
            settings.relaxed_simd_deterministic(true);
            settings.wasm_branch_hinting(true);
            if config.target.is_none() {
                align_functions(&mut settings);
            }
            settings.with_host_memory(Arc::new(Creator));
            settings.memory_init_cow(false);
            settings.memory_reservation(MEMORY_RESERVATION);
            settings.memory_guard_size(MEMORY_GUARD);
            settings.gc_heap_reservation(GC_HEAP_RESERVATION);
            settings.max_wasm_stack(config.stack_bytes);
            // Nothing runs asynchronously here, but the engine insists that this be no smaller.
            settings.async_stack_size(config.stack_bytes);
        }
        // Whoever makes an engine usually runs programs, too.
        native_stacks::look_at_own();
        let engine = wasmtime::Engine::new(&settings).map_err(fail)?;
        let cache = config
            .cache
            .as_ref()
            .map(|directory| Cache::open(directory))
            .transpose()?;
        Ok(Self(Arc::new(Inner {
            engine,
            stacks: Stacks::new(
                config.stack_bytes.saturating_add(HOST_STACK_BYTES),
                HOST_STACK_BYTES,
            ),
            config: config.clone(),
            cache,
        })))
    }

    /// The settings.
    pub fn config(&self) -> &EngineConfig {
        &self.0.config
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.0.engine
    }

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.0.cache.as_ref()
    }

    /// A stack that is large enough for guest code.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] when the system has no room.
    pub(crate) fn stack(&self) -> Result<Lease<'_>> {
        if self.0.config.bare {
            Ok(Lease::own())
        } else {
            self.0.stacks.take()
        }
    }
}
