//! Making instances in the state of an image: what the image says is checked and looked up once, into a [`Plan`], and then
//! put into as many instances as are asked for.

use crate::capture::{OWN_SECTION, WASI_SECTION};
use crate::creator::MEMORY_GUARD;
use crate::error::{Error, Result};
use crate::flat::{self, FlatMemory};
use crate::frames::{self, Place, SavedFrame, SavedValue};
use crate::guest_api;
use crate::guest_state::SavedOwn;
use crate::host::HostState;
use crate::instance::{Call, Instance, State};
use crate::instantiate::{Memories, memory_bytes};
use crate::layouts::EntryLayouts;
use crate::link::{self, exported_table};
use crate::memory::{Mapping, Piece, page_size};
use crate::program::Program;
use crate::stack::SavedStack;
use crate::values::{References, class_of_value, plain_val};
use crate::volumes::{self, VOLUME_PAGE_SIZE_LOG2, VOLUME_RESERVATION};
use std::sync::Arc;
use wasmtime::{Extern, ModuleExport, Ref, Store, Val};
use wsnap_instrument::{CloneRequest, Facts, Module, Name, Point, ValueClass};
use wsnap_snapshots::{
    Elements, Exception, Frame, FrameState, Manifest, MemoryState, Phase, StoredImage,
    StoredMemory, Value,
};
use wsnap_wasi::{Wasi, WasiConfig};

impl Program {
    /// Makes an instance in the state of `image`, which was taken of this program. Its memories are the image's pages,
    /// mapped copy-on-write. `wasi` is the host state that was restored from the image's section [`WASI_SECTION`].
    ///
    /// The image is not verified here: see [`StoredImage::verify`]. Whatever it says, the guest stays in its sandbox, but
    /// tables are made as long as it says: [`crate::Limits::admit`] tells beforehand whether they may be. An image that is
    /// resumed more than once is better prepared, see [`Program::prepare`].
    ///
    /// # Errors
    ///
    /// [`Error::Image`] when the image is of another module, or what it says does not fit the module.
    pub fn resume(&self, image: &Arc<StoredImage>, wasi: Wasi) -> Result<Instance> {
        Plan::new(self, image.manifest())?.resume(image, wasi)
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
            .find(|section| *section != WASI_SECTION && *section != OWN_SECTION)
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

/// What is found out about an image once, for all instances that are made of it.
pub(crate) struct Plan {
    program: Program,
    phase: Phase,
    call: Call,
    /// The module's mutable globals, in order, which are also those of the image.
    globals: Vec<(ModuleExport, ValueClass)>,
    /// The tables that the program can change, in order, which are also those of the image.
    tables: Vec<(ModuleExport, ValueClass)>,
    /// Where the dropped flags of the segments are that the image says are dropped.
    dropped_flags: Vec<u32>,
    saved: [SavedReferences; 3],
    own: SavedOwn,
    /// None if no function was active.
    stack: Option<Arc<SavedStack>>,
    /// Of the module's memories, by index, those that were copied; there can be fewer entries.
    flat: Vec<Option<FlatMemory>>,
}

/// The references of one class that frames hold.
struct SavedReferences {
    /// The table of saved ones. Without one, the module has no references of the class.
    table: Option<ModuleExport>,
    /// What belongs into the table.
    values: Vec<Value>,
}

impl Plan {
    /// Checks what `manifest` says against the module that it should be of.
    ///
    /// # Errors
    ///
    /// [`Error::Image`].
    pub fn new(program: &Program, manifest: &Manifest) -> Result<Self> {
        program.check_manifest(manifest)?;
        let module = program.parsed()?;
        check_memories(module, manifest)?;
        let globals = globals(program, module, manifest)?;
        let tables = tables(program, module, manifest)?;
        let (frames, [functions, externs, exceptions]) = saved_frames(manifest);
        let saved = [
            (Name::SavedFunctions, functions),
            (Name::SavedExterns, externs),
            (Name::SavedExceptions, exceptions),
        ]
        .map(|(name, values)| SavedReferences {
            table: program.0.module.get_export_index(&name.in_module(module)),
            values,
        });
        Ok(Self {
            program: program.clone(),
            phase: manifest.invocation.phase,
            call: Call {
                export: manifest.invocation.export.clone(),
                arguments: manifest.invocation.arguments.clone(),
            },
            globals,
            tables,
            dropped_flags: dropped_flags(module, manifest)?,
            own: own(module, manifest)?,
            saved,
            stack: (!frames.is_empty()).then(|| Arc::new(SavedStack::new(frames))),
            flat: Vec::new(),
        })
    }

    /// Has the clones for the image's frames compiled.
    ///
    /// # Errors
    ///
    /// [`Error::Image`] when the frames do not fit the module or each other.
    pub fn make_clones(&self) -> Result<()> {
        let Some(stack) = &self.stack else {
            return Ok(());
        };
        let restorer = stack.restorer(&self.program, self.phase, &self.call.export);
        restorer.map(drop)
    }

    /// Copies memories of the image that lie in many pieces, for being mapped often.
    pub fn flatten(&mut self, image: &StoredImage) -> Result<()> {
        let count = self.program.parsed()?.memories().len();
        let mut budget = flat::COPIED_MAX;
        self.flat = image
            .memories()
            .iter()
            .take(count)
            .map(|stored| FlatMemory::new(stored, &mut budget))
            .collect();
        Ok(())
    }

    /// Whether instances map a copy of memory `index`.
    pub fn is_flat(&self, index: usize) -> bool {
        matches!(self.flat.get(index), Some(Some(_)))
    }

    /// Makes an instance in the state of `image`, whose manifest the plan was made of.
    pub fn resume(&self, image: &Arc<StoredImage>, mut wasi: Wasi) -> Result<Instance> {
        let volumes = map_volumes(self.program.parsed()?, image)?;
        volumes::attach(&mut wasi, &volumes)?;
        self.instantiate(image, wasi, volumes)
    }

    /// Checks what only the engine can check, as it takes the values of `image`.
    ///
    /// # Errors
    ///
    /// [`Error::Image`].
    pub fn check(&self, image: &Arc<StoredImage>) -> Result<()> {
        let wasi = Wasi::new(WasiConfig::default())?;
        self.instantiate(image, wasi, Vec::new()).map(drop)
    }

    fn instantiate(
        &self,
        image: &Arc<StoredImage>,
        wasi: Wasi,
        volumes: Vec<Arc<Mapping>>,
    ) -> Result<Instance> {
        let program = &self.program;
        let module = program.parsed()?;
        let manifest = image.manifest();
        let memories = map_memories(module, image, &self.flat)?;
        let memories = Memories { memories, volumes };
        let base = Some(image.clone());
        let mut instance = Instance::new(program, module, wasi, self.call.clone(), memories, base)?;
        let host = instance.store.data_mut();
        host.phase = self.phase;
        host.restore_own(self.own);
        let mut restoring = Restoring {
            program,
            instance: instance.instance,
            exceptions: &manifest.exceptions,
            references: None,
        };
        let store = &mut instance.store;
        for ((export, class), state) in self.globals.iter().zip(&manifest.globals) {
            restoring.global(store, export, *class, state.value)?;
        }
        for ((export, class), state) in self.tables.iter().zip(&manifest.tables) {
            restoring.table(store, export, *class, &state.elements)?;
        }
        self.drop_again(module, &mut instance)?;
        for saved in &self.saved {
            restoring.saved(&mut instance.store, saved)?;
        }
        if let Some(stack) = &self.stack {
            instance.state = State::Suspended(stack.clone());
        }
        Ok(instance)
    }

    fn drop_again(&self, module: &Module<'_>, instance: &mut Instance) -> Result<()> {
        if self.dropped_flags.is_empty() {
            return Ok(());
        }
        let control = instance.control.clone().ok_or(Error::Bare)?;
        for flag in &self.dropped_flags {
            let flag = *flag as usize;
            control.memory().copy_in(flag..flag + 1, &[1]);
        }
        let function = instance.function(&Name::DropAgain.in_module(module))?;
        function
            .call(&mut instance.store, &[], &mut [])
            .map_err(Error::Internal)
    }
}

/// What the image says about the program itself.
fn own(module: &Module<'_>, manifest: &Manifest) -> Result<SavedOwn> {
    let Some(bytes) = manifest.host.get(OWN_SECTION) else {
        return Ok(SavedOwn::default());
    };
    let own = SavedOwn::decode(bytes)?;
    let asks = |frame: &Frame| {
        frame.state == FrameState::HostCall && guest_api::is_snapshot(module, frame.function)
    };
    if own.is_in_snapshot && !manifest.frames.last().is_some_and(asks) {
        return Err(Error::Image(
            "it was taken for the program, which does not ask for it".into(),
        ));
    }
    Ok(own)
}

fn check_memories(module: &Module<'_>, manifest: &Manifest) -> Result<()> {
    let states = &manifest.memories;
    if states.len() < module.memories().len() {
        let (is, should) = (states.len(), module.memories().len());
        return Err(Error::Image(format!(
            "it has {is} memories where the module has {should}"
        )));
    }
    for (ty, state) in module.memories().iter().zip(states) {
        let limit = ty.maximum.unwrap_or(u64::MAX).min(if ty.memory64 {
            u64::MAX
        } else {
            1 << (32 - ty.page_size_log2())
        });
        // No program can have grown it beyond the address space that it starts with.
        let (least, reserved) = memory_bytes(ty, ty.initial);
        let (size, _) = memory_bytes(ty, state.pages);
        if state.page_size_log2 as u32 != ty.page_size_log2()
            || state.pages < ty.initial
            || state.pages > limit
            || size > reserved.max(least)
        {
            return Err(Error::Image(
                "a memory has a size that the module does not admit".into(),
            ));
        }
    }
    // Behind them comes the content of volumes. How many there are is the host state's business.
    let volumes = &states[module.memories().len()..];
    volumes.iter().try_for_each(check_volume)
}

fn check_volume(state: &MemoryState) -> Result<()> {
    let is_whole = (state.pages).is_multiple_of(wsnap_snapshots::PAGE_SIZE as u64);
    if state.page_size_log2 != VOLUME_PAGE_SIZE_LOG2
        || !is_whole
        || state.pages > VOLUME_RESERVATION as u64
    {
        return Err(Error::Image(
            "a volume's content has a size that no volume has".into(),
        ));
    }
    Ok(())
}

fn globals(
    program: &Program,
    module: &Module<'_>,
    manifest: &Manifest,
) -> Result<Vec<(ModuleExport, ValueClass)>> {
    let mutable = (0u32..).zip(module.globals()).filter(|(_, ty)| ty.mutable);
    let indices = manifest.globals.iter().map(|global| global.index);
    if !indices.eq(mutable.clone().map(|(index, _)| index)) {
        return Err(Error::Image(
            "it does not have exactly the mutable globals of the module".into(),
        ));
    }
    let found = mutable.map(|(index, ty)| {
        let export = link::export(&program.0.module, &Name::Global(index).in_module(module))?;
        Ok((export, ValueClass::of(ty.content_type)))
    });
    found.collect()
}

fn tables(
    program: &Program,
    module: &Module<'_>,
    manifest: &Manifest,
) -> Result<Vec<(ModuleExport, ValueClass)>> {
    let changed = program.facts()?.changed_tables();
    if !manifest.tables.iter().map(|table| &table.index).eq(changed) {
        return Err(Error::Image(
            "it does not have exactly the tables that the program can change".into(),
        ));
    }
    let found = changed.iter().map(|index| {
        let export = link::export(&program.0.module, &Name::Table(*index).in_module(module))?;
        let element = module.tables()[*index as usize].element_type;
        Ok((export, ValueClass::of(wasmparser::ValType::Ref(element))))
    });
    found.collect()
}

fn dropped_flags(module: &Module<'_>, manifest: &Manifest) -> Result<Vec<u32>> {
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
    Ok(flags)
}

/// The frames of an image, and the references that they hold by class.
fn saved_frames(manifest: &Manifest) -> (Vec<SavedFrame>, [Vec<Value>; 3]) {
    let mut references = [const { Vec::new() }; 3];
    let frames = manifest.frames.iter();
    let frames = frames
        .map(|frame| saved_frame(&mut references, frame))
        .collect();
    (frames, references)
}

/// What clones the frames of an image need, and the layouts of its frames.
///
/// # Errors
///
/// [`Error::Image`] if frames do not fit the module or each other.
pub(crate) fn clone_requests(
    module: &Module<'_>,
    facts: &Facts,
    manifest: &Manifest,
) -> Result<(Vec<CloneRequest>, EntryLayouts)> {
    let (frames, _) = saved_frames(manifest);
    let requests = frames::requests(module, &frames)?;
    let layouts = EntryLayouts::find(module, facts, &requests)?;
    frames::write(module, &requests, &layouts, &frames)?;
    Ok((requests, layouts))
}

/// The frame in the form that clones are made for; its references get their numbers in the tables of saved ones.
fn saved_frame(references: &mut [Vec<Value>; 3], frame: &Frame) -> SavedFrame {
    let mut value = |value: Value| {
        let class = class_of_value(value);
        let bits = match value {
            Value::I32(value) => u128::from(value as u32),
            Value::I64(value) => u128::from(value as u64),
            Value::F32(bits) => bits.into(),
            Value::F64(bits) => bits.into(),
            Value::V128(bits) => bits,
            Value::FuncRef(_) | Value::ExternRefNull | Value::ExnRef(_) => {
                let values = &mut references[class.saved_table()];
                values.push(value);
                values.len() as u128 - 1
            }
        };
        SavedValue { class, bits }
    };
    let locals = frame.locals.iter();
    SavedFrame {
        function: frame.function,
        place: match frame.state {
            FrameState::HostCall => Place::HostCall,
            FrameState::Calling => Place::At(Point::Calling(frame.offset)),
            FrameState::Next => Place::At(Point::Next(frame.offset)),
        },
        locals: locals.map(|(local, v)| (*local, value(*v))).collect(),
        operands: frame.operands.iter().map(|v| value(*v)).collect(),
    }
}

/// The memories of an image, mapped, from their copies in `flat` if they have any. The manifest has been checked.
fn map_memories(
    module: &Module<'_>,
    image: &StoredImage,
    flat: &[Option<FlatMemory>],
) -> Result<Vec<Arc<Mapping>>> {
    let states = &image.manifest().memories;
    let mut memories = Vec::with_capacity(states.len());
    let described = module.memories().iter().zip(states).zip(image.memories());
    for (index, ((ty, state), stored)) in described.enumerate() {
        let (size, reserved) = memory_bytes(ty, state.pages);
        let guard = MEMORY_GUARD as usize;
        memories.push(match flat.get(index) {
            Some(Some(flat)) => Mapping::of_files(size, reserved, guard, flat.pieces())?,
            _ => map(stored, size, reserved, guard)?,
        });
    }
    Ok(memories)
}

/// The content of an image's volumes, mapped. The manifest has been checked.
fn map_volumes(module: &Module<'_>, image: &StoredImage) -> Result<Vec<Arc<Mapping>>> {
    let first = module.memories().len();
    let states = image.manifest().memories.iter().zip(image.memories());
    let contents = states.skip(first);
    contents
        .map(|(state, stored)| map_volume(state, stored))
        .collect()
}

/// The content of a volume, mapped.
///
/// # Errors
///
/// [`Error::Image`] when it has a size that no volume has.
pub(crate) fn map_volume(state: &MemoryState, stored: &StoredMemory) -> Result<Arc<Mapping>> {
    check_volume(state)?;
    map(stored, state.pages as usize, VOLUME_RESERVATION, 0)
}

/// A memory of `size` bytes with the stored content.
fn map(stored: &StoredMemory, size: usize, reserved: usize, guard: usize) -> Result<Arc<Mapping>> {
    if page_size() == wsnap_snapshots::PAGE_SIZE {
        Mapping::of_files(size, reserved, guard, pieces(stored))
    } else {
        copied(&Mapping::new(size, reserved, guard)?, stored)
    }
}

/// Where the pages of a memory lie.
fn pieces(stored: &StoredMemory) -> impl Iterator<Item = Piece<'_>> {
    stored.extents().iter().map(|extent| Piece {
        offset: extent.memory_offset,
        file: stored.layers()[extent.layer as usize].file(),
        file_offset: extent.layer_offset,
        length: extent.length,
    })
}

/// The memory with the stored bytes copied into it, for systems whose pages are too large to be mapped.
fn copied(mapping: &Arc<Mapping>, stored: &StoredMemory) -> Result<Arc<Mapping>> {
    for extent in stored.extents() {
        let end = extent.memory_end().min(stored.byte_len());
        let mut bytes = vec![0; end.saturating_sub(extent.memory_offset) as usize];
        stored.read_at(extent.memory_offset, &mut bytes)?;
        let start = extent.memory_offset as usize;
        if !mapping.copy_in(start..start + bytes.len(), &bytes) {
            return Err(Error::Image("a memory is shorter than its content".into()));
        }
    }
    Ok(mapping.clone())
}

fn refused(what: &'static str) -> impl FnOnce(wasmtime::Error) -> Error {
    move |error| Error::Image(format!("{what}: {error}"))
}

/// Puts an image's values into an instance.
struct Restoring<'p> {
    program: &'p Program,
    instance: wasmtime::Instance,
    exceptions: &'p [Exception],
    /// Set when the first value comes that points at something: most programs have none.
    references: Option<References<'p>>,
}

impl Restoring<'_> {
    /// The engine's form of a value, which must be of `class`.
    fn value(
        &mut self,
        store: &mut Store<HostState>,
        class: ValueClass,
        value: Value,
    ) -> Result<Val> {
        if let Some(plain) = plain_val(value).filter(|_| class_of_value(value) == class) {
            return Ok(plain);
        }
        let references = match &mut self.references {
            Some(references) => references,
            none => {
                let module = self.program.parsed()?;
                let facts = self.program.facts()?;
                none.insert(References::new(store, self.instance, module, facts)?)
            }
        };
        references.make(store, self.exceptions, class, value)
    }

    fn reference(
        &mut self,
        store: &mut Store<HostState>,
        class: ValueClass,
        value: Value,
    ) -> Result<Ref> {
        let reference = self.value(store, class, value)?.ref_();
        reference.ok_or_else(|| Error::Image("a table holds what is no reference".into()))
    }

    fn global(
        &mut self,
        store: &mut Store<HostState>,
        export: &ModuleExport,
        class: ValueClass,
        value: Value,
    ) -> Result<()> {
        let value = self.value(store, class, value)?;
        let item = self.instance.get_module_export(&mut *store, export);
        let global = item.and_then(Extern::into_global).ok_or_else(|| {
            Error::Internal(wasmtime::Error::msg("an export is not the global it was"))
        })?;
        global
            .set(store, value)
            .map_err(refused("a global does not take its value"))
    }

    fn table(
        &mut self,
        store: &mut Store<HostState>,
        export: &ModuleExport,
        class: ValueClass,
        elements: &Elements,
    ) -> Result<()> {
        let table = exported_table(store, self.instance, export)?;
        let mut place = 0;
        for run in elements.runs() {
            let value = self.reference(store, class, run.value)?;
            let have = table.size(&*store).saturating_sub(place).min(run.length);
            table
                .fill(&mut *store, place, value.clone(), have)
                .map_err(refused("a table"))?;
            if have < run.length {
                table
                    .grow(&mut *store, run.length - have, value)
                    .map_err(refused("a table"))?;
            }
            place += run.length;
        }
        if place != table.size(&*store) {
            return Err(Error::Image(
                "a table is shorter than the module makes it".into(),
            ));
        }
        Ok(())
    }

    /// Fills a table of saved references.
    fn saved(&mut self, store: &mut Store<HostState>, saved: &SavedReferences) -> Result<()> {
        for (place, value) in (0u64..).zip(&saved.values) {
            let reference = self.reference(store, class_of_value(*value), *value)?;
            let Some(export) = &saved.table else {
                return Err(Error::Image(
                    "its call stack holds references of a kind that the module has none of".into(),
                ));
            };
            let table = exported_table(store, self.instance, export)?;
            if place < table.size(&*store) {
                table.set(&mut *store, place, reference)
            } else {
                table.grow(&mut *store, 1, reference).map(drop)
            }
            .map_err(Error::Internal)?;
        }
        Ok(())
    }
}
