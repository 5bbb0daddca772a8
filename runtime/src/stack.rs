//! The call stack of a suspended program, and how clones restore it.

use crate::error::{Error, Result};
use crate::frames::{self, SavedFrame};
use crate::host::HostState;
use crate::link;
use crate::program::{CloneModule, Program};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use wasmtime::{Extern, Func, ModuleExport, Store};
use wsnap_instrument::{Name, ValueClass};
use wsnap_snapshots::Phase;

/// A call stack; instances that were resumed from one image share it.
pub(crate) struct SavedStack {
    /// Outermost first. Invariant: at least one.
    frames: Vec<SavedFrame>,
    restorer: OnceLock<Restorer>,
}

/// What is the same each time a call stack is restored.
pub(crate) struct Restorer {
    clones: Arc<CloneModule>,
    /// The clone of the outermost frame.
    outermost: ModuleExport,
    /// The frames as clones read them in the control memory.
    pub bytes: Vec<u8>,
}

impl Deref for SavedStack {
    type Target = [SavedFrame];

    fn deref(&self) -> &[SavedFrame] {
        &self.frames
    }
}

impl SavedStack {
    pub fn new(frames: Vec<SavedFrame>) -> Self {
        Self {
            frames,
            restorer: OnceLock::new(),
        }
    }

    /// How the stack is restored in a run of `export` that is in `phase`; found out, and clones compiled, when first asked
    /// for.
    ///
    /// # Errors
    ///
    /// [`Error::Image`] if a frame does not have the layout of its point, or calls what its neighbour is not, or whoever
    /// called the outermost one waits for something else.
    pub fn restorer(&self, program: &Program, phase: Phase, export: &str) -> Result<&Restorer> {
        if let Some(restorer) = self.restorer.get() {
            return Ok(restorer);
        }
        let restorer = Restorer::new(program, phase, export, &self.frames)?;
        Ok(self.restorer.get_or_init(|| restorer))
    }
}

impl Restorer {
    fn new(program: &Program, phase: Phase, export: &str, stack: &[SavedFrame]) -> Result<Self> {
        let empty = || Error::Image("it has an empty call stack".into());
        let first = stack.first().ok_or_else(empty)?;
        let module = program.parsed()?;
        let requests = frames::requests(module, stack)?;
        let layouts = program.entry_layouts(&requests)?;
        let bytes = frames::write(module, &requests, &layouts, stack)?;
        check_outermost(program, phase, export, first)?;
        let clones = program.clones(&requests, &layouts)?;
        let (place, _) = frames::clone_of(&requests, first)?;
        let name = Name::Clone(place as u32).in_module(module);
        Ok(Self {
            outermost: link::export(&clones.module, &name)?,
            clones,
            bytes,
        })
    }

    /// Instantiates the clones beside `main`, the program's own instance, and returns the outermost frame's.
    pub fn instantiate(
        &self,
        store: &mut Store<HostState>,
        main: wasmtime::Instance,
    ) -> Result<Func> {
        let missing = || Error::Internal(wasmtime::Error::msg("an export is not there any more"));
        let mut imports = Vec::with_capacity(self.clones.imports.len());
        for export in &self.clones.imports {
            let item = main.get_module_export(&mut *store, export);
            imports.push(item.ok_or_else(missing)?);
        }
        let clones = wasmtime::Instance::new(&mut *store, &self.clones.module, &imports)
            .map_err(Error::Internal)?;
        clones
            .get_module_export(store, &self.outermost)
            .and_then(Extern::into_func)
            .ok_or_else(missing)
    }
}

/// The outermost frame must give what whoever called it waits for.
fn check_outermost(
    program: &Program,
    phase: Phase,
    export: &str,
    outermost: &SavedFrame,
) -> Result<()> {
    let expected = match phase {
        Phase::Start => Vec::new(),
        Phase::Export => program
            .signature(export)
            .map(|(_, results)| results)
            .unwrap_or_default(),
    };
    let (_, results) = program
        .parsed()?
        .signature(outermost.function)
        .unwrap_or_default();
    let results = results.iter().map(|ty| ValueClass::of(*ty));
    let fits = results.eq(expected);
    fits.then_some(()).ok_or_else(|| {
        Error::Image("the outermost frame is not of the function that was called".into())
    })
}
