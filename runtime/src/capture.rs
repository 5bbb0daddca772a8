//! The state of a program, apart from the content of its memories, as the manifest of an image.

use crate::error::{Error, Result};
use crate::frames::{Place, SavedFrame, SavedValue};
use crate::guest::Guest;
use crate::host::HostState;
use crate::values::{References, table};
use crate::volumes::VOLUME_PAGE_SIZE_LOG2;
use wasmtime::{AsContextMut, Table, Val};
use wsnap_instrument::{Module, Name, Point, ValueClass};
use wsnap_snapshots::{
    Elements, Frame, FrameState, GlobalState, Invocation, Manifest, MemoryState, TableState, Value,
};

/// Under which name the state of the WASI host is kept in an image.
pub const WASI_SECTION: &str = "wasi_snapshot_preview1";

/// Under which name it is kept in an image how the program came to be in this state, as far as it can tell.
pub const OWN_SECTION: &str = "wsnap";

/// The state of a program whose guest code stands still, its call stack being `frames`, outermost first. The content of
/// memories is left open.
///
/// # Errors
///
/// [`Error::NotStorable`] and [`Error::Wasi`] when the program holds something that cannot be part of an image.
pub(crate) fn manifest<S: AsContextMut<Data = HostState>>(
    store: &mut S,
    guest: &Guest,
    frames: &[SavedFrame],
) -> Result<Manifest> {
    let program = &guest.program;
    let module = program.parsed()?;
    let host = store.as_context_mut();
    let invocation = Invocation {
        phase: host.data().phase,
        export: guest.call.export.clone(),
        arguments: guest.call.arguments.clone(),
    };
    let mut manifest = Manifest::new(program.hash(), invocation);
    manifest.deterministic = program.engine().config().deterministic;
    manifest
        .host
        .insert(WASI_SECTION.to_owned(), host.data().wasi.save()?);
    if let Some(own) = host.data().saved_own() {
        manifest.host.insert(OWN_SECTION.to_owned(), own.encode());
    }
    // The content of volumes comes behind the module's memories.
    let page_sizes = module.memories().iter().map(|ty| ty.page_size_log2() as u8);
    let page_sizes = page_sizes.chain(std::iter::repeat(VOLUME_PAGE_SIZE_LOG2));
    for (log2, mapping) in page_sizes.zip(guest.pages.memories()) {
        let pages = mapping.size() as u64 >> log2;
        manifest.memories.push(MemoryState::draft(pages, log2));
    }
    capture_dropped(guest, module, &mut manifest);
    let mut references = References::new(store, guest.instance, module, program.facts()?)?;
    let saved = SavedTables::new(store, guest.instance, module);
    for frame in frames {
        let value = |value: &SavedValue| {
            let reference = saved.get(store, *value)?;
            references.describe(store, reference)
        };
        manifest.frames.push(to_image_frame(frame, value)?);
    }
    capture_globals(store, guest, module, &mut references, &mut manifest)?;
    capture_tables(store, guest, module, &mut references, &mut manifest)?;
    manifest.exceptions = references.exceptions(store)?;
    Ok(manifest)
}

/// The image's form of frames that hold no references, outermost first; none if they do.
pub(crate) fn plain_frames(frames: &[SavedFrame]) -> Option<Vec<Frame>> {
    let refuse = |_: &SavedValue| Err(Error::NotStorable("it holds references".into()));
    let frames = frames.iter().map(|frame| to_image_frame(frame, refuse));
    frames.collect::<Result<_>>().ok()
}

fn capture_dropped(guest: &Guest, module: &Module<'_>, manifest: &mut Manifest) {
    let layout = module.control_layout();
    let is_set = |address: u32| {
        let mut flag = [0];
        let range = u64::from(address)..u64::from(address) + 1;
        guest.control.memory().copy_out(range, &mut flag);
        flag == [1]
    };
    let data = 0..module.data().len() as u32;
    manifest.dropped_data = data
        .filter(|segment| is_set(layout.data_dropped(*segment)))
        .collect();
    let elements = 0..module.element_count();
    manifest.dropped_elements = elements
        .filter(|segment| is_set(layout.element_dropped(*segment)))
        .collect();
}

fn capture_globals<S: AsContextMut<Data = HostState>>(
    store: &mut S,
    guest: &Guest,
    module: &Module<'_>,
    references: &mut References<'_>,
    manifest: &mut Manifest,
) -> Result<()> {
    for (index, ty) in (0u32..).zip(module.globals()).filter(|(_, ty)| ty.mutable) {
        let name = Name::Global(index).in_module(module);
        let missing = || {
            Error::Internal(wasmtime::Error::msg(format!(
                "global {index} of type {ty:?} is missing"
            )))
        };
        let global = guest
            .instance
            .get_global(&mut *store, &name)
            .ok_or_else(missing)?;
        let value = global.get(&mut *store);
        manifest.globals.push(GlobalState {
            index,
            value: references.describe(store, value)?,
        });
    }
    Ok(())
}

fn capture_tables<S: AsContextMut<Data = HostState>>(
    store: &mut S,
    guest: &Guest,
    module: &Module<'_>,
    references: &mut References<'_>,
    manifest: &mut Manifest,
) -> Result<()> {
    for index in guest.program.facts()?.changed_tables() {
        let name = Name::Table(*index).in_module(module);
        let table = table(store, guest.instance, &name)?;
        let mut elements = Elements::default();
        for place in 0..table.size(&mut *store) {
            let value = element(store, &table, place)?;
            elements.push_run(1, references.describe(store, value)?);
        }
        manifest.tables.push(TableState {
            index: *index,
            elements,
        });
    }
    Ok(())
}

fn element<S: AsContextMut<Data = HostState>>(
    store: &mut S,
    table: &Table,
    place: u64,
) -> Result<Val> {
    let missing = || Error::Internal(wasmtime::Error::msg("a table is shorter than it was"));
    Ok(table.get(store, place).ok_or_else(missing)?.into())
}

/// The tables that saved references are in, by class.
struct SavedTables([Option<Table>; 3]);

impl SavedTables {
    fn new<S: AsContextMut<Data = HostState>>(
        store: &mut S,
        instance: wasmtime::Instance,
        module: &Module<'_>,
    ) -> Self {
        let names = [
            Name::SavedFunctions,
            Name::SavedExterns,
            Name::SavedExceptions,
        ];
        Self(names.map(|name| instance.get_table(&mut *store, &name.in_module(module))))
    }

    fn get<S: AsContextMut<Data = HostState>>(
        &self,
        store: &mut S,
        value: SavedValue,
    ) -> Result<Val> {
        match &self.0[value.class.saved_table()] {
            Some(table) => element(store, table, value.bits as u64),
            None => Err(Error::Internal(wasmtime::Error::msg(
                "a frame holds a reference of a kind that the module has none of",
            ))),
        }
    }
}

/// The image's form of a frame; `reference` describes the references in it.
fn to_image_frame(
    frame: &SavedFrame,
    mut reference: impl FnMut(&SavedValue) -> Result<Value>,
) -> Result<Frame> {
    let mut value = |value: &SavedValue| -> Result<Value> {
        let bits = value.bits;
        Ok(match value.class {
            ValueClass::I32 => Value::I32(bits as i32),
            ValueClass::I64 => Value::I64(bits as i64),
            ValueClass::F32 => Value::F32(bits as u32),
            ValueClass::F64 => Value::F64(bits as u64),
            ValueClass::V128 => Value::V128(bits),
            ValueClass::Function | ValueClass::Extern | ValueClass::Exception => reference(value)?,
        })
    };
    let locals = frame
        .locals
        .iter()
        .map(|(local, v)| Ok((*local, value(v)?)))
        .collect::<Result<_>>()?;
    let operands = frame
        .operands
        .iter()
        .map(&mut value)
        .collect::<Result<_>>()?;
    let (offset, state) = match frame.place {
        Place::HostCall => (0, FrameState::HostCall),
        Place::At(Point::Calling(offset)) => (offset, FrameState::Calling),
        Place::At(Point::Next(offset)) => (offset, FrameState::Next),
    };
    Ok(Frame {
        function: frame.function,
        offset,
        state,
        locals,
        operands,
    })
}
