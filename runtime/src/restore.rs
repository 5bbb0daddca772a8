//! Resuming images: a new instance with the state of the one that was stored.

use crate::capture::WASI_SECTION;
use crate::error::{Error, Result};
use crate::frames::{Place, SavedFrame, SavedValue};
use crate::host::HostState;
use crate::instance::{Call, Instance, State};
use crate::instantiate::initial_memory;
use crate::memory::{Mapping, page_size};
use crate::program::Program;
use crate::values::{References, class_of_value, table};
use std::sync::Arc;
use wasmtime::{Ref, Store, Val};
use wsnap_instrument::{Module, Name, Point, ValueClass};
use wsnap_snapshots::{
    Exception, Frame, FrameState, Manifest, Phase, StoredImage, StoredMemory, Value,
};
use wsnap_wasi::Wasi;

impl Program {
    /// Makes an instance in the state of `image`, which was taken of this program. Its memories are the image's pages,
    /// mapped copy-on-write. `wasi` is the host state that was restored from the image's section [`WASI_SECTION`].
    ///
    /// The image is not verified here: see [`StoredImage::verify`]. Whatever it says, the guest stays in its sandbox.
    ///
    /// # Errors
    ///
    /// [`Error::Image`] when the image is of another module, or what it says does not fit the module.
    pub fn resume(&self, image: &Arc<StoredImage>, wasi: Wasi) -> Result<Instance> {
        let manifest = image.manifest();
        self.check_manifest(manifest)?;
        let module = self.parsed()?;
        let memories = map_memories(module, image)?;
        let call = Call {
            export: manifest.invocation.export.clone(),
            arguments: manifest.invocation.arguments.clone(),
        };
        let mut instance = Instance::new(self, module, wasi, call, memories, Some(image.clone()))?;
        instance.phase = manifest.invocation.phase;
        let mut references = References::new(
            &mut instance.store,
            instance.instance,
            module,
            self.facts()?,
        )?;
        instance.restore_globals(module, &mut references, manifest)?;
        instance.restore_tables(module, &mut references, manifest)?;
        instance.drop_again(module, manifest)?;
        let frames = instance.restore_references(module, &mut references, manifest)?;
        if !frames.is_empty() {
            instance.state = State::Suspended(frames);
        }
        Ok(instance)
    }

    fn check_manifest(&self, manifest: &Manifest) -> Result<()> {
        let wrong = |what: String| Err(Error::Image(what));
        if manifest.module != self.hash() {
            return wrong(format!(
                "it is of module {}, this is module {}",
                manifest.module,
                self.hash()
            ));
        }
        if manifest.deterministic != self.engine().config().deterministic {
            return wrong("only one of image and engine is deterministic".into());
        }
        if let Some(section) = manifest
            .host
            .keys()
            .find(|section| *section != WASI_SECTION)
        {
            return wrong(format!(
                "it has host state {section:?}, which this version does not know"
            ));
        }
        let invocation = &manifest.invocation;
        if invocation.phase == Phase::Start && self.parsed()?.start().is_none() {
            return wrong("it runs a start function, which the module does not have".into());
        }
        let Some((params, _)) = self.signature(&invocation.export) else {
            return wrong(format!(
                "it runs function {:?}, which the module does not export",
                invocation.export
            ));
        };
        if !invocation
            .arguments
            .iter()
            .map(|value| class_of_value(*value))
            .eq(params)
        {
            return wrong(format!(
                "it calls {:?} with arguments of other types",
                invocation.export
            ));
        }
        Ok(())
    }
}

/// The memories of an image, mapped.
fn map_memories(module: &Module<'_>, image: &StoredImage) -> Result<Vec<Arc<Mapping>>> {
    let states = &image.manifest().memories;
    if states.len() != module.memories().len() {
        let (is, should) = (states.len(), module.memories().len());
        return Err(Error::Image(format!(
            "it has {is} memories where the module has {should}"
        )));
    }
    let mut memories = Vec::with_capacity(states.len());
    for ((ty, state), stored) in module.memories().iter().zip(states).zip(image.memories()) {
        let limit = ty.maximum.unwrap_or(u64::MAX).min(if ty.memory64 {
            u64::MAX
        } else {
            1 << (32 - ty.page_size_log2())
        });
        if state.page_size_log2 as u32 != ty.page_size_log2()
            || state.pages < ty.initial
            || state.pages > limit
        {
            return Err(Error::Image(
                "a memory has a size that the module does not admit".into(),
            ));
        }
        let mut mapping = initial_memory(ty, state.pages)?;
        fill(&mut mapping, stored)?;
        memories.push(mapping);
    }
    Ok(memories)
}

/// Maps the stored pages over the memory, or copies them where the system's pages are too large for that.
fn fill(mapping: &mut Arc<Mapping>, stored: &StoredMemory) -> Result<()> {
    let mappable = page_size() == wsnap_snapshots::PAGE_SIZE;
    for extent in stored.extents() {
        let file = stored.layers()[extent.layer as usize].file();
        if mappable && extent.length > 0 {
            Mapping::map_file(
                mapping,
                extent.memory_offset,
                file,
                extent.layer_offset,
                extent.length,
            )?;
            continue;
        }
        let end = extent.memory_end().min(stored.byte_len());
        let mut bytes = vec![0; end.saturating_sub(extent.memory_offset) as usize];
        stored.read_at(extent.memory_offset, &mut bytes)?;
        let start = extent.memory_offset as usize;
        if !mapping.copy_in(start..start + bytes.len(), &bytes) {
            return Err(Error::Image("a memory is shorter than its content".into()));
        }
    }
    Ok(())
}

fn refused(what: &'static str) -> impl FnOnce(wasmtime::Error) -> Error {
    move |error| Error::Image(format!("{what}: {error}"))
}

impl Instance {
    fn restore_globals(
        &mut self,
        module: &Module<'_>,
        references: &mut References<'_>,
        manifest: &Manifest,
    ) -> Result<()> {
        let mutable = (0u32..)
            .zip(module.globals())
            .filter(|(_, ty)| ty.mutable)
            .map(|(index, _)| index);
        if !manifest
            .globals
            .iter()
            .map(|global| global.index)
            .eq(mutable)
        {
            return Err(Error::Image(
                "it does not have exactly the mutable globals of the module".into(),
            ));
        }
        for state in &manifest.globals {
            let name = Name::Global(state.index).in_module(module);
            let missing = || {
                Error::Internal(wasmtime::Error::msg(format!(
                    "global {} is missing",
                    state.index
                )))
            };
            let global = self
                .instance
                .get_global(&mut self.store, &name)
                .ok_or_else(missing)?;
            let class = ValueClass::of(module.globals()[state.index as usize].content_type);
            let value =
                references.make(&mut self.store, &manifest.exceptions, class, state.value)?;
            global
                .set(&mut self.store, value)
                .map_err(refused("a global does not take its value"))?;
        }
        Ok(())
    }

    fn restore_tables(
        &mut self,
        module: &Module<'_>,
        references: &mut References<'_>,
        manifest: &Manifest,
    ) -> Result<()> {
        let program = self.program.clone();
        if !manifest
            .tables
            .iter()
            .map(|table| &table.index)
            .eq(program.facts()?.changed_tables())
        {
            return Err(Error::Image(
                "it does not have exactly the tables that the program can change".into(),
            ));
        }
        for state in &manifest.tables {
            let table = table(
                &mut self.store,
                self.instance,
                &Name::Table(state.index).in_module(module),
            )?;
            let class = ValueClass::of(wasmparser::ValType::Ref(
                module.tables()[state.index as usize].element_type,
            ));
            let mut place = 0;
            for run in state.elements.runs() {
                let value =
                    references.make(&mut self.store, &manifest.exceptions, class, run.value)?;
                let value = reference(value)?;
                let have = table
                    .size(&self.store)
                    .saturating_sub(place)
                    .min(run.length);
                table
                    .fill(&mut self.store, place, value.clone(), have)
                    .map_err(refused("a table"))?;
                if have < run.length {
                    table
                        .grow(&mut self.store, run.length - have, value)
                        .map_err(refused("a table"))?;
                }
                place += run.length;
            }
            if place != table.size(&self.store) {
                return Err(Error::Image(format!(
                    "table {} is shorter than the module makes it",
                    state.index
                )));
            }
        }
        Ok(())
    }

    fn drop_again(&mut self, module: &Module<'_>, manifest: &Manifest) -> Result<()> {
        let layout = module.control_layout();
        let data = manifest
            .dropped_data
            .iter()
            .filter(|segment| (**segment as usize) < module.data().len());
        let elements = manifest
            .dropped_elements
            .iter()
            .filter(|segment| **segment < module.element_count());
        let flags = data.map(|segment| layout.data_dropped(*segment));
        let flags: Vec<u32> = flags
            .chain(elements.map(|segment| layout.element_dropped(*segment)))
            .collect();
        if flags.len() != manifest.dropped_data.len() + manifest.dropped_elements.len() {
            return Err(Error::Image(
                "it drops a segment that the module does not have".into(),
            ));
        }
        if flags.is_empty() {
            return Ok(());
        }
        let control = self.control.clone().ok_or(Error::Bare)?;
        for flag in flags {
            control
                .memory()
                .copy_in(flag as usize..flag as usize + 1, &[1]);
        }
        let function = self.function(&Name::DropAgain.in_module(module))?;
        function
            .call(&mut self.store, &[], &mut [])
            .map_err(Error::Internal)
    }

    /// Puts the references that frames hold into the tables of saved ones, and returns the frames.
    fn restore_references(
        &mut self,
        module: &Module<'_>,
        references: &mut References<'_>,
        manifest: &Manifest,
    ) -> Result<Vec<SavedFrame>> {
        let mut saver = Saver {
            tables: [
                Name::SavedFunctions,
                Name::SavedExterns,
                Name::SavedExceptions,
            ]
            .map(|name| {
                self.instance
                    .get_table(&mut self.store, &name.in_module(module))
            }),
            counts: [0; 3],
            exceptions: &manifest.exceptions,
        };
        let frames = manifest.frames.iter();
        frames
            .map(|frame| saver.frame(&mut self.store, references, frame))
            .collect()
    }
}

fn reference(value: Val) -> Result<Ref> {
    value
        .ref_()
        .ok_or_else(|| Error::Image("a table holds what is no reference".into()))
}

/// Puts references into the tables of saved ones.
struct Saver<'e> {
    tables: [Option<wasmtime::Table>; 3],
    counts: [u64; 3],
    exceptions: &'e [Exception],
}

impl Saver<'_> {
    fn frame(
        &mut self,
        store: &mut Store<HostState>,
        references: &mut References<'_>,
        frame: &Frame,
    ) -> Result<SavedFrame> {
        let mut locals = Vec::with_capacity(frame.locals.len());
        for (local, value) in &frame.locals {
            locals.push((*local, self.value(store, references, *value)?));
        }
        let mut operands = Vec::with_capacity(frame.operands.len());
        for value in &frame.operands {
            operands.push(self.value(store, references, *value)?);
        }
        let place = match frame.state {
            FrameState::HostCall => Place::HostCall,
            FrameState::Calling => Place::At(Point::Calling(frame.offset)),
            FrameState::Next => Place::At(Point::Next(frame.offset)),
        };
        Ok(SavedFrame {
            function: frame.function,
            place,
            locals,
            operands,
        })
    }

    fn value(
        &mut self,
        store: &mut Store<HostState>,
        references: &mut References<'_>,
        value: Value,
    ) -> Result<SavedValue> {
        let class = class_of_value(value);
        let bits = match value {
            Value::I32(value) => u128::from(value as u32),
            Value::I64(value) => u128::from(value as u64),
            Value::F32(bits) => bits.into(),
            Value::F64(bits) => bits.into(),
            Value::V128(bits) => bits,
            Value::FuncRef(_) | Value::ExternRefNull | Value::ExnRef(_) => {
                let value = references.make(store, self.exceptions, class, value)?;
                self.save(store, class, reference(value)?)?
            }
        };
        Ok(SavedValue { class, bits })
    }

    fn save(
        &mut self,
        store: &mut Store<HostState>,
        class: ValueClass,
        reference: Ref,
    ) -> Result<u128> {
        let index = class.saved_table();
        let Some(table) = self.tables[index] else {
            // Without a table for them, references of the class can only be null, and nobody looks the number up.
            return Ok(u128::from(u32::MAX));
        };
        let place = self.counts[index];
        if place < table.size(&*store) {
            table
                .set(store, place, reference)
                .map_err(Error::Internal)?;
        } else {
            table.grow(store, 1, reference).map_err(Error::Internal)?;
        }
        self.counts[index] += 1;
        Ok(place.into())
    }
}
