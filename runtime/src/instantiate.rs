//! Making instances: memories, imports, hooks, and the initial content of memories.

use crate::control::Control;
use crate::creator::{MEMORY_GUARD, MEMORY_RESERVATION, with_memories};
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::guest_api::Own;
use crate::host::HostState;
use crate::instance::{Call, Instance, State};
use crate::limits::Limiter;
use crate::link::missing_import;
use crate::memory::Mapping;
use crate::pages::Pages;
use crate::program::Program;
use crate::snapshot::Desk;
use crate::volumes;
use std::sync::Arc;
use wasmtime::{Extern, Store, Val};
use wsnap_instrument::control::{self as layout, CONTROL_BYTES};
use wsnap_instrument::{Import, Module, Name};
use wsnap_snapshots::{Phase, StoredImage};
use wsnap_wasi::Wasi;

impl Program {
    /// Makes an instance that will call an exported function, after the module's start function if it has one.
    ///
    /// # Errors
    ///
    /// [`Error::NoExport`] and [`Error::Arguments`] when the call is impossible, [`Error::Import`] and
    /// [`Error::Instantiate`] when the module cannot be instantiated.
    pub fn start(&self, mut wasi: Wasi, call: Call) -> Result<Instance> {
        let (params, _) = self
            .signature(&call.export)
            .ok_or_else(|| Error::NoExport {
                export: call.export.clone(),
            })?;
        if !call
            .arguments
            .iter()
            .map(|value| crate::values::class_of_value(*value))
            .eq(params)
        {
            return Err(Error::Arguments {
                export: call.export,
            });
        }
        if self.engine().config().bare {
            return Instance::bare(self, wasi, call);
        }
        self.verify_bytes()?;
        let module = self.parsed()?;
        let memories = module
            .memories()
            .iter()
            .map(|ty| initial_memory(ty, ty.initial))
            .collect::<Result<_>>()?;
        let volumes = volumes::empty(&wasi)?;
        volumes::attach(&mut wasi, &volumes)?;
        let memories = Memories { memories, volumes };
        let mut instance = Instance::new(self, module, wasi, call, memories, None)?;
        instance.apply_data(module)?;
        instance.store.data_mut().phase = if module.start().is_some() {
            Phase::Start
        } else {
            Phase::Export
        };
        Ok(instance)
    }
}

/// A memory of so many pages, zero, with as much address space as it may ever need.
pub(crate) fn initial_memory(ty: &wasmparser::MemoryType, pages: u64) -> Result<Arc<Mapping>> {
    let (size, reserved) = memory_bytes(ty, pages);
    Mapping::new(size, reserved, MEMORY_GUARD as usize)
}

/// Size and address space of a memory of so many pages, in bytes.
pub(crate) fn memory_bytes(ty: &wasmparser::MemoryType, pages: u64) -> (usize, usize) {
    /// How far a 64-bit memory can grow, in bytes.
    const MEMORY64_MAX: u64 = 1 << 36;
    let page = 1u64 << ty.page_size_log2();
    let bytes = |pages: u64| pages.saturating_mul(page);
    let reserved = if ty.memory64 {
        ty.maximum
            .map_or(MEMORY64_MAX, bytes)
            .clamp(MEMORY_RESERVATION, MEMORY64_MAX)
    } else {
        MEMORY_RESERVATION
    };
    let size = usize::try_from(bytes(pages)).unwrap_or(usize::MAX);
    (size, reserved as usize)
}

/// What of a program is stored page by page.
pub(crate) struct Memories {
    /// The module's memories, by index.
    pub memories: Vec<Arc<Mapping>>,
    /// The content of the volumes that its host state has, by index.
    pub volumes: Vec<Arc<Mapping>>,
}

impl Instance {
    /// Instantiates the rewritten module over `memories`, which have the content of `base`.
    pub(crate) fn new(
        program: &Program,
        module: &Module<'_>,
        wasi: Wasi,
        call: Call,
        Memories { memories, volumes }: Memories,
        base: Option<Arc<StoredImage>>,
    ) -> Result<Self> {
        let engine = program.engine();
        let control_memory = Mapping::new(
            CONTROL_BYTES as usize,
            MEMORY_RESERVATION as usize,
            MEMORY_GUARD as usize,
        )?;
        let control = Arc::new(Control::new(control_memory.clone(), wasi.interrupter()));
        let host = HostState {
            wasi,
            control: Some(control.clone()),
            memory: None,
            stop: None,
            guest: None,
            phase: Phase::Export,
            own: Own::default(),
            limiter: Limiter::default(),
        };
        let mut store = Store::new(engine.wasmtime(), host);
        // Even without limits: those that the engine has by itself would end a program that often goes on in place.
        store.limiter(|host| &mut host.limiter);
        let linked = program.linked()?;
        let imports = match &linked.pre {
            Some(_) => Vec::new(),
            None => resolve_imports(program, module, &mut store, &memories)?,
        };
        let defined = memories[module.imported_memories() as usize..]
            .iter()
            .cloned()
            // The control memory, and the request memory, which is the same bytes.
            .chain([control_memory.clone(), control_memory]);
        let instantiate = || match &linked.pre {
            Some(pre) => pre.instantiate(&mut store),
            None => wasmtime::Instance::new(&mut store, &program.0.module, &imports),
        };
        // At most initialisers run here, which call nothing: they need no large stack.
        let instance = with_memories(defined, instantiate).map_err(Error::Instantiate)?;
        linked.attach(&mut store, instance)?;
        control.set(layout::SAVE_POINTER, module.control_layout().frames());
        let guest = Arc::new(Guest {
            program: program.clone(),
            instance,
            control: control.clone(),
            pages: Pages::new(memories.into_iter().chain(volumes).collect(), base),
            call: call.clone(),
            desk: Desk::default(),
        });
        store.data_mut().guest = Some(guest.clone());
        Ok(Self {
            program: program.clone(),
            store,
            instance,
            state: State::Ready,
            call,
            control: Some(control),
            guest: Some(guest),
        })
    }

    /// Instantiates the module as it is.
    fn bare(program: &Program, wasi: Wasi, call: Call) -> Result<Self> {
        let mut store = Store::new(
            program.engine().wasmtime(),
            HostState {
                wasi,
                control: None,
                memory: None,
                stop: None,
                guest: None,
                phase: Phase::Export,
                own: Own::default(),
                limiter: Limiter::default(),
            },
        );
        for import in program.0.module.imports() {
            if program
                .0
                .linker
                .get(&mut store, import.module(), import.name())
                .is_err()
            {
                return Err(missing_import(import.module(), import.name(), &import.ty()));
            }
        }
        let instance = program
            .0
            .linker
            .instantiate(&mut store, &program.0.module)
            .map_err(Error::Instantiate)?;
        store.data_mut().memory = instance.get_memory(&mut store, "memory");
        Ok(Self {
            program: program.clone(),
            store,
            instance,
            state: State::Ready,
            call,
            control: None,
            guest: None,
        })
    }

    /// Copies the active data segments into the memories.
    fn apply_data(&mut self, module: &Module<'_>) -> Result<()> {
        for (segment, data) in (0u32..).zip(module.data()) {
            let Some((memory, _)) = &data.active else {
                continue;
            };
            let start = match data.constant_offset() {
                Some(offset) => offset,
                None => self.data_offset(module, segment)?,
            };
            let mapping = &self.memories()[*memory as usize];
            let range = usize::try_from(start)
                .ok()
                .and_then(|start| Some(start..start.checked_add(data.bytes.len())?));
            if !range.is_some_and(|range| mapping.copy_in(range, data.bytes)) {
                return Err(Error::Instantiate(wasmtime::Trap::MemoryOutOfBounds.into()));
            }
        }
        Ok(())
    }

    /// Where an active data segment goes whose offset is computed from globals.
    fn data_offset(&mut self, module: &Module<'_>, segment: u32) -> Result<u64> {
        let name = Name::DataOffset(segment).in_module(module);
        let function = self.function(&name)?;
        let mut offset = [Val::I32(0)];
        function
            .call(&mut self.store, &[], &mut offset)
            .map_err(Error::Instantiate)?;
        Ok(match offset[0] {
            Val::I64(offset) => offset as u64,
            Val::I32(offset) => u64::from(offset as u32),
            _ => u64::MAX,
        })
    }
}

/// Finds what the module imports: functions of the host, and memories, which are the program's own here.
fn resolve_imports(
    program: &Program,
    module: &Module<'_>,
    store: &mut Store<HostState>,
    memories: &[Arc<Mapping>],
) -> Result<Vec<Extern>> {
    let mut memories = module.memories().iter().zip(memories);
    let mut resolved = Vec::new();
    for (import, ty) in module.imports().iter().zip(program.0.module.imports()) {
        let Import {
            module: from, name, ..
        } = *import;
        if let Ok(item) = program.0.linker.get(&mut *store, from, name) {
            resolved.push(item);
        } else if matches!(import.ty, wasmparser::TypeRef::Memory(_)) {
            let Some((_, mapping)) = memories.next() else {
                break;
            };
            resolved.push(own_memory(program, store, mapping, &ty.ty())?);
        } else {
            return Err(missing_import(from, name, &ty.ty()));
        }
    }
    Ok(resolved)
}

/// Makes a memory for a module that imports it: the engine takes ours only where a module defines one.
fn own_memory(
    program: &Program,
    store: &mut Store<HostState>,
    mapping: &Arc<Mapping>,
    ty: &wasmtime::ExternType,
) -> Result<Extern> {
    let Some(ty) = ty.memory() else {
        return Err(Error::Internal(wasmtime::Error::msg("not a memory")));
    };
    let index = if ty.is_64() { "i64 " } else { "" };
    let maximum = ty
        .maximum()
        .map(|pages| pages.to_string())
        .unwrap_or_default();
    let text = format!(
        "(module (memory (export \"memory\") {index}{} {maximum}))",
        ty.minimum()
    );
    let wasm = wat::parse_str(&text).map_err(|error| Error::Text(error.to_string()))?;
    let module = wasmtime::Module::from_binary(program.engine().wasmtime(), &wasm)
        .map_err(Error::Compile)?;
    let instantiate = || wasmtime::Instance::new(&mut *store, &module, &[]);
    let instance = with_memories([mapping.clone()], instantiate).map_err(Error::Instantiate)?;
    let memory = instance.get_export(store, "memory");
    memory.ok_or_else(|| Error::Internal(wasmtime::Error::msg("the memory is not exported")))
}
