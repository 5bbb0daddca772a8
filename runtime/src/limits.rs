//! Limits of what a program may use. They belong to whoever runs it and are no part of an image.

use crate::control::Control;
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::program::Program;
use crate::values::table;
use std::sync::Arc;
use wasmtime::ResourceLimiter;
use wsnap_instrument::Name;
use wsnap_snapshots::Manifest;

/// How much a program may use at most; none for as much as the engine and the system let it. Whoever resumes a program sets
/// them anew, by [`Instance::set_limits`].
///
/// There is none for time, since any thread can stop a program when its time is up, by [`crate::Handle::request_stop`]. The
/// native stack is limited for all programs of an engine by [`crate::EngineConfig::stack_bytes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How large each linear memory may become, in bytes.
    pub memory_bytes: Option<u64>,
    /// How long each table may become, in elements.
    pub table_elements: Option<u64>,
    /// Whether a program that would exceed one of these traps. Otherwise `memory.grow` and `table.grow` return -1.
    pub trap_on_grow_failure: bool,
    /// How many descriptors may be open, those of streams and granted directories included. Beyond that, functions of WASI
    /// fail with [`wsnap_wasi::Errno::Mfile`].
    pub descriptors: Option<u32>,
    /// How much the files of each volume may hold, in bytes, counted in whole pages of 4096; their names may take as much
    /// again, counted with 80 bytes more for each. Beyond that, functions of WASI fail with [`wsnap_wasi::Errno::Nospc`].
    pub volume_bytes: Option<u64>,
}

/// What would be exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitReached {
    /// [`Limits::memory_bytes`].
    #[error(
        "the limit for each memory is {limit_bytes} bytes, and the program wants one of {wanted_bytes}"
    )]
    Memory {
        /// The limit.
        limit_bytes: u64,
        /// What was wanted.
        wanted_bytes: u64,
    },
    /// [`Limits::table_elements`].
    #[error("the limit for each table is {limit} elements, and the program wants one of {wanted}")]
    Table {
        /// The limit.
        limit: u64,
        /// What was wanted.
        wanted: u64,
    },
}

impl Limits {
    fn check_memory(&self, wanted_bytes: u64) -> Result<(), LimitReached> {
        match self.memory_bytes {
            Some(limit_bytes) if wanted_bytes > limit_bytes => Err(LimitReached::Memory {
                limit_bytes,
                wanted_bytes,
            }),
            _ => Ok(()),
        }
    }

    fn check_table(&self, wanted: u64) -> Result<(), LimitReached> {
        match self.table_elements {
            Some(limit) if wanted > limit => Err(LimitReached::Table { limit, wanted }),
            _ => Ok(()),
        }
    }
}

impl Limits {
    /// Checks what an image of `program` says of the sizes of memories and tables, before an instance is made of it:
    /// [`Instance::set_limits`] comes too late for one that says that it has tables of gigabytes.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`].
    pub fn admit(&self, program: &Program, manifest: &Manifest) -> Result<()> {
        // The content of volumes comes behind the module's memories.
        let memories = program.parsed()?.memories().len();
        for memory in manifest.memories.iter().take(memories) {
            self.check_memory(memory.byte_len().unwrap_or(u64::MAX))?;
        }
        for table in &manifest.tables {
            self.check_table(table.elements.len())?;
        }
        Ok(())
    }
}

impl Instance {
    /// Limits what the program may use from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] when one of its memories or tables is larger already. Descriptors that are open and files that are in
    /// volumes stay, however many they are.
    pub fn set_limits(&mut self, limits: Limits) -> Result<()> {
        let program = self.program.clone();
        if let Ok(module) = program.parsed() {
            for (_, memory) in module.memories().iter().zip(self.memories()) {
                limits.check_memory(memory.size() as u64)?;
            }
            for index in 0..module.tables().len() as u32 {
                let name = Name::Table(index).in_module(module);
                // Tables that nothing names are not exported, and never grow.
                if let Ok(table) = table(&mut self.store, self.instance, &name) {
                    limits.check_table(table.size(&self.store))?;
                }
            }
        } else if let Some(memory) = self.memory(0) {
            limits.check_memory(memory.len() as u64)?;
        }
        let wasi = self.wasi();
        wasi.set_descriptor_limit(limits.descriptors);
        wasi.set_volume_limit(limits.volume_bytes.unwrap_or(u64::MAX));
        let control = self.control.clone();
        self.store.data_mut().limiter = Limiter { limits, control };
        self.store.limiter(|host| &mut host.limiter);
        Ok(())
    }
}

/// Holds the program to its limits.
#[derive(Default)]
pub(crate) struct Limiter {
    limits: Limits,
    control: Option<Arc<Control>>,
}

impl Limiter {
    fn answer(&self, checked: Result<(), LimitReached>) -> wasmtime::Result<bool> {
        match checked {
            Err(reached) if self.limits.trap_on_grow_failure => Err(reached.into()),
            checked => Ok(checked.is_ok()),
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.answer(self.limits.check_memory(desired as u64))
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // A program that unwinds saves its references in tables of ours.
        if self
            .control
            .as_ref()
            .is_some_and(|control| control.is_saving_references())
        {
            return Ok(true);
        }
        self.answer(self.limits.check_table(desired as u64))
    }

    // Each time that a program goes on in place its clones are instances more, with tables of their own. The engine would
    // allow 10,000 of each.

    fn instances(&self) -> usize {
        usize::MAX
    }

    fn tables(&self) -> usize {
        usize::MAX
    }

    fn memories(&self) -> usize {
        usize::MAX
    }
}

impl From<LimitReached> for Error {
    fn from(reached: LimitReached) -> Self {
        Self::Limit(reached)
    }
}
