//! From a manifest to its bytes. `FORMAT.md` describes each field.

use super::{
    FORMAT_VERSION, Frame, FrameState, Invocation, MAGIC, Manifest, MemoryState, Phase, TableState,
    Value,
};
use crate::bytes::Writer;

/// The byte that tells which kind of value follows. Null references are kinds of their own.
pub(super) mod kind {
    pub const I32: u8 = 0;
    pub const I64: u8 = 1;
    pub const F32: u8 = 2;
    pub const F64: u8 = 3;
    pub const V128: u8 = 4;
    pub const FUNC_NULL: u8 = 5;
    pub const FUNC: u8 = 6;
    pub const EXTERN_NULL: u8 = 7;
    pub const EXN_NULL: u8 = 8;
    pub const EXN: u8 = 9;
}

impl Manifest {
    /// Writes the manifest as bytes: the only ones that [`Manifest::decode`] reads as this manifest.
    ///
    /// Lists are written in the order they have, also when the format forbids it: decode the result to check.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(&MAGIC);
        writer.u32(FORMAT_VERSION);
        writer.raw(&self.module.0);
        writer.u8(u8::from(self.deterministic));
        invocation(&mut writer, &self.invocation);
        list(&mut writer, &self.memories, memory);
        list(&mut writer, &self.globals, |writer, global| {
            writer.u32(global.index);
            value(writer, &global.value);
        });
        list(&mut writer, &self.tables, table);
        list(&mut writer, &self.dropped_data, |writer, index| {
            writer.u32(*index)
        });
        list(&mut writer, &self.dropped_elements, |writer, index| {
            writer.u32(*index)
        });
        list(&mut writer, &self.exceptions, |writer, exception| {
            writer.u32(exception.tag);
            list(writer, &exception.fields, value);
        });
        list(&mut writer, &self.frames, frame);
        writer.count(self.host.len());
        for (name, section) in &self.host {
            writer.sized(name.as_bytes());
            writer.sized(section);
        }
        writer.into_bytes()
    }
}

fn list<T>(writer: &mut Writer, items: &[T], item: impl Fn(&mut Writer, &T)) {
    writer.count(items.len());
    items.iter().for_each(|each| item(writer, each));
}

fn invocation(writer: &mut Writer, invocation: &Invocation) {
    writer.u8(match invocation.phase {
        Phase::Start => 0,
        Phase::Export => 1,
    });
    writer.sized(invocation.export.as_bytes());
    list(writer, &invocation.arguments, value);
}

fn memory(writer: &mut Writer, memory: &MemoryState) {
    writer.u64(memory.pages);
    writer.u8(memory.page_size_log2);
    writer.raw(&memory.content.0);
}

fn table(writer: &mut Writer, table: &TableState) {
    writer.u32(table.index);
    list(writer, table.elements.runs(), |writer, run| {
        writer.u64(run.length);
        value(writer, &run.value);
    });
}

fn frame(writer: &mut Writer, frame: &Frame) {
    writer.u32(frame.function);
    writer.u32(frame.offset);
    writer.u8(match frame.state {
        FrameState::Calling => 0,
        FrameState::Next => 1,
        FrameState::HostCall => 2,
    });
    list(writer, &frame.locals, |writer, (index, local)| {
        writer.u32(*index);
        value(writer, local);
    });
    list(writer, &frame.operands, value);
}

fn value(writer: &mut Writer, value: &Value) {
    match *value {
        Value::I32(number) => {
            writer.u8(kind::I32);
            writer.raw(&number.to_le_bytes());
        }
        Value::I64(number) => {
            writer.u8(kind::I64);
            writer.raw(&number.to_le_bytes());
        }
        Value::F32(bits) => {
            writer.u8(kind::F32);
            writer.u32(bits);
        }
        Value::F64(bits) => {
            writer.u8(kind::F64);
            writer.u64(bits);
        }
        Value::V128(bits) => {
            writer.u8(kind::V128);
            writer.raw(&bits.to_le_bytes());
        }
        Value::FuncRef(None) => writer.u8(kind::FUNC_NULL),
        Value::FuncRef(Some(function)) => {
            writer.u8(kind::FUNC);
            writer.u32(function);
        }
        Value::ExternRefNull => writer.u8(kind::EXTERN_NULL),
        Value::ExnRef(None) => writer.u8(kind::EXN_NULL),
        Value::ExnRef(Some(exception)) => {
            writer.u8(kind::EXN);
            writer.u32(exception);
        }
    }
}
