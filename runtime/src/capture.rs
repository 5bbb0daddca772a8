//! Taking snapshots: the state of a suspended program, as an image.

use crate::error::{Error, Result};
use crate::frames::{Place, SavedFrame, SavedValue};
use crate::host::HostState;
use crate::instance::{Instance, State};
use crate::values::{References, table};
use wasmtime::{Store, Table, Val};
use wsnap_instrument::{Module, Name, Point, ValueClass};
use wsnap_snapshots::{
    Elements, Frame, FrameState, GlobalState, ImageId, Invocation, Manifest, MemoryState,
    Store as ImageStore, TableState, Value,
};

/// Under which name the state of the WASI host is kept in an image.
pub const WASI_SECTION: &str = "wasi_snapshot_preview1";

/// The state of a suspended program. Its memories are those of the program itself, which therefore stands still.
pub struct Snapshot<'i> {
    /// Everything but the memories' content.
    pub manifest: Manifest,
    /// The bytes of the memories, by index.
    pub memories: Vec<&'i [u8]>,
    wasm: &'i [u8],
}

impl Snapshot<'_> {
    /// Stores the snapshot, durably when this returns, and the module with it.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub fn store(&self, store: &ImageStore) -> Result<ImageId> {
        store.put_module(self.wasm)?;
        Ok(store.publish(self.manifest.clone(), &self.memories)?)
    }
}

impl Instance {
    /// Takes a snapshot of the program, which must be suspended.
    ///
    /// # Errors
    ///
    /// [`Error::NotSuspended`]; [`Error::NotStorable`] and [`Error::Wasi`] when the program holds something that cannot
    /// be part of an image. The program can go on all the same.
    pub fn snapshot(&mut self) -> Result<Snapshot<'_>> {
        let program = self.program.clone();
        self.read_frames()?;
        let State::Suspended(frames) = &self.state else {
            return Err(Error::NotSuspended);
        };
        let frames = frames.clone();
        let module = program.parsed()?;
        let invocation = Invocation {
            phase: self.phase,
            export: self.call.export.clone(),
            arguments: self.call.arguments.clone(),
        };
        let mut manifest = Manifest::new(program.hash(), invocation);
        manifest.deterministic = program.engine().config().deterministic;
        manifest
            .host
            .insert(WASI_SECTION.to_owned(), self.wasi().save()?);
        for (ty, mapping) in module.memories().iter().zip(&self.memories) {
            let log2 = ty.page_size_log2();
            manifest.memories.push(MemoryState::draft(
                mapping.size() as u64 >> log2,
                log2 as u8,
            ));
        }
        self.capture_dropped(module, &mut manifest)?;
        let mut references =
            References::new(&mut self.store, self.instance, module, program.facts()?)?;
        let saved = SavedTables::new(&mut self.store, self.instance, module)?;
        for frame in &frames {
            manifest.frames.push(to_image_frame(
                &mut self.store,
                &mut references,
                &saved,
                frame,
            )?);
        }
        self.capture_globals(module, &mut references, &mut manifest)?;
        self.capture_tables(module, &mut references, &mut manifest)?;
        manifest.exceptions = references.exceptions(&mut self.store)?;
        let memories = self
            .memories
            .iter()
            .filter_map(|mapping| mapping.view(0..mapping.size(), &self.store))
            .collect();
        Ok(Snapshot {
            manifest,
            memories,
            wasm: self.program.wasm(),
        })
    }

    fn capture_dropped(&mut self, module: &Module<'_>, manifest: &mut Manifest) -> Result<()> {
        let control = self.control.as_ref().ok_or(Error::Bare)?;
        let layout = module.control_layout();
        let is_set = |address: u32| {
            let flag = address as usize..address as usize + 1;
            control.memory().view(flag, &self.store) == Some(&[1])
        };
        let data = 0..module.data().len() as u32;
        manifest.dropped_data = data
            .filter(|segment| is_set(layout.data_dropped(*segment)))
            .collect();
        let elements = 0..module.element_count();
        manifest.dropped_elements = elements
            .filter(|segment| is_set(layout.element_dropped(*segment)))
            .collect();
        Ok(())
    }

    fn capture_globals(
        &mut self,
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
            let global = self
                .instance
                .get_global(&mut self.store, &name)
                .ok_or_else(missing)?;
            let value = global.get(&mut self.store);
            manifest.globals.push(GlobalState {
                index,
                value: references.describe(&mut self.store, value)?,
            });
        }
        Ok(())
    }

    fn capture_tables(
        &mut self,
        module: &Module<'_>,
        references: &mut References<'_>,
        manifest: &mut Manifest,
    ) -> Result<()> {
        let program = self.program.clone();
        for index in program.facts()?.changed_tables() {
            let table = table(
                &mut self.store,
                self.instance,
                &Name::Table(*index).in_module(module),
            )?;
            let mut elements = Elements::default();
            for place in 0..table.size(&self.store) {
                let value = element(&mut self.store, &table, place)?;
                elements.push_run(1, references.describe(&mut self.store, value)?);
            }
            manifest.tables.push(TableState {
                index: *index,
                elements,
            });
        }
        Ok(())
    }
}

fn element(store: &mut Store<HostState>, table: &Table, place: u64) -> Result<Val> {
    let missing = || Error::Internal(wasmtime::Error::msg("a table is shorter than it was"));
    Ok(table.get(store, place).ok_or_else(missing)?.into())
}

/// The tables that saved references are in, by class.
struct SavedTables([Option<Table>; 3]);

impl SavedTables {
    fn new(
        store: &mut Store<HostState>,
        instance: wasmtime::Instance,
        module: &Module<'_>,
    ) -> Result<Self> {
        let names = [
            Name::SavedFunctions,
            Name::SavedExterns,
            Name::SavedExceptions,
        ];
        Ok(Self(names.map(|name| {
            instance.get_table(&mut *store, &name.in_module(module))
        })))
    }

    fn get(&self, store: &mut Store<HostState>, value: SavedValue) -> Result<Val> {
        match &self.0[value.class.saved_table()] {
            Some(table) => element(store, table, value.bits as u64),
            // Without a table for them, references of the class can only be null.
            None => Ok(Val::ExnRef(None)),
        }
    }
}

fn to_image_frame(
    store: &mut Store<HostState>,
    references: &mut References<'_>,
    saved: &SavedTables,
    frame: &SavedFrame,
) -> Result<Frame> {
    let mut value = |value: &SavedValue| -> Result<Value> {
        let bits = value.bits;
        Ok(match value.class {
            ValueClass::I32 => Value::I32(bits as i32),
            ValueClass::I64 => Value::I64(bits as i64),
            ValueClass::F32 => Value::F32(bits as u32),
            ValueClass::F64 => Value::F64(bits as u64),
            ValueClass::V128 => Value::V128(bits),
            ValueClass::Function | ValueClass::Extern | ValueClass::Exception => {
                let reference = saved.get(store, *value)?;
                references.describe(store, reference)?
            }
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
