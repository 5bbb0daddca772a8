//! A program's module, linked once for all of its instances: imports are looked up and checked, exports found by name.

use crate::error::{Error, Result};
use crate::host::{self, FramesFull, HostState};
use crate::program::Program;
use wasmtime::{
    Caller, Extern, ExternType, InstancePre, Linker, ModuleExport, Ref, Store, Table,
    UnknownImportError,
};
use wsnap_instrument::{Module, Name, hooks};

/// What making an instance needs of the rewritten module.
pub(crate) struct Linked {
    /// None for a module that imports memories: those belong to an instance, so it is linked for each anew.
    pub pre: Option<InstancePre<HostState>>,
    /// The memory that WASI calls read and write.
    memory: Option<ModuleExport>,
    hook_table: ModuleExport,
    /// The functions for the table of hooks. Apart from those that the program can import: it must not call these.
    hooks: Linker<HostState>,
}

/// The module name of the hooks in their linker.
const HOOKS: &str = "hooks";

impl Linked {
    /// Links the rewritten module of `program`.
    ///
    /// # Errors
    ///
    /// [`Error::Import`] when nobody provides an import, [`Error::Instantiate`] when one is of another type.
    pub fn new(program: &Program, module: &Module<'_>) -> Result<Self> {
        let rewritten = &program.0.module;
        let pre = if module.imported_memories() == 0 {
            let linked = program.0.linker.instantiate_pre(rewritten);
            Some(linked.map_err(|error| unlinked(program, error))?)
        } else {
            None
        };
        let memory = match rewritten.get_export("memory") {
            Some(ExternType::Memory(_)) => rewritten.get_export_index("memory"),
            _ => rewritten.get_export_index(&Name::Memory(0).in_module(module)),
        };
        let mut linker = Linker::new(program.engine().wasmtime());
        let safepoint = |mut caller: Caller<'_, HostState>| host::at_safepoint(&mut caller);
        let full = || -> wasmtime::Result<()> { Err(FramesFull.into()) };
        linker
            .func_wrap(HOOKS, hook_name(hooks::SAFEPOINT), safepoint)
            .and_then(|linker| linker.func_wrap(HOOKS, hook_name(hooks::FRAMES_FULL), full))
            .map_err(Error::Internal)?;
        Ok(Self {
            pre,
            memory,
            hook_table: export(rewritten, &Name::Hooks.in_module(module))?,
            hooks: linker,
        })
    }

    /// Makes an instance ready to run: tells WASI calls their memory, and puts the host's functions where safepoints call
    /// them.
    pub fn attach(&self, store: &mut Store<HostState>, instance: wasmtime::Instance) -> Result<()> {
        let memory = self
            .memory
            .and_then(|memory| instance.get_module_export(&mut *store, &memory));
        store.data_mut().memory = memory.and_then(Extern::into_memory);
        let table = exported_table(store, instance, &self.hook_table)?;
        for place in [hooks::SAFEPOINT, hooks::FRAMES_FULL] {
            let hook = self.hooks.get(&mut *store, HOOKS, hook_name(place));
            let hook = hook.map_err(Error::Internal)?.into_func();
            table
                .set(&mut *store, place.into(), Ref::Func(hook))
                .map_err(Error::Internal)?;
        }
        Ok(())
    }
}

/// The name of a hook in its linker.
fn hook_name(place: u32) -> &'static str {
    if place == hooks::SAFEPOINT {
        "safepoint"
    } else {
        "frames full"
    }
}

/// The place of an export that a module has because the rewriter put it there.
pub(crate) fn export(module: &wasmtime::Module, name: &str) -> Result<ModuleExport> {
    module.get_export_index(name).ok_or_else(|| {
        Error::Internal(wasmtime::Error::msg(format!(
            "the module has no export {name}"
        )))
    })
}

/// The table exported there.
pub(crate) fn exported_table(
    store: &mut Store<HostState>,
    instance: wasmtime::Instance,
    export: &ModuleExport,
) -> Result<Table> {
    let item = instance.get_module_export(store, export);
    item.and_then(Extern::into_table)
        .ok_or_else(|| Error::Internal(wasmtime::Error::msg("an export is not the table it was")))
}

/// Says what kind of import is missing, if that is why linking failed.
fn unlinked(program: &Program, error: wasmtime::Error) -> Error {
    let Some(unknown) = error.downcast_ref::<UnknownImportError>() else {
        return Error::Instantiate(error);
    };
    let (from, name) = (unknown.module(), unknown.name());
    let mut imports = program.0.module.imports();
    match imports.find(|import| import.module() == from && import.name() == name) {
        Some(import) => missing_import(from, name, &import.ty()),
        None => Error::Instantiate(error),
    }
}

/// Nobody provides this import.
pub(crate) fn missing_import(module: &str, name: &str, ty: &ExternType) -> Error {
    let kind = match ty {
        ExternType::Func(_) => "a function",
        ExternType::Global(_) => "a global",
        ExternType::Table(_) => "a table",
        ExternType::Memory(_) => "a memory",
        ExternType::Tag(_) => "a tag",
    };
    Error::Import {
        module: module.to_owned(),
        name: name.to_owned(),
        kind,
    }
}
