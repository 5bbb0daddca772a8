//! Functions that every rewritten module has beside the program's own.

use crate::control::*;
use crate::emit::SegmentOperation;
use crate::error::Result;
use crate::module::Module;
use crate::staging::{STAGED_MAX, Staged};
use crate::types::{self, ValueClass};
use std::collections::HashMap;
use wasm_encoder as enc;
use wasm_encoder::Encode;
use wasmparser::ElementKind;

/// Places of the host's functions in the table of hooks.
pub mod hooks {
    /// `() -> ()`: a safepoint asks what to do; the host answers through the request word.
    pub const SAFEPOINT: u32 = 0;
    /// `() -> ()`: the frame buffer is full; the host traps.
    pub const FRAMES_FULL: u32 = 1;
    /// Number of hooks.
    pub const COUNT: u32 = 2;
}

/// Memory arguments for the control memory.
pub(crate) fn at(control_memory: u32, offset: u32) -> enc::MemArg {
    enc::MemArg {
        offset: offset.into(),
        align: 0,
        memory_index: control_memory,
    }
}

fn finish(function: enc::Function) -> Vec<u8> {
    function.into_raw_body()
}

/// `safepoint(size) -> address`: the cold path of every safepoint. Returns zero if the program shall go on, else the
/// address of `size` bytes that are reserved for the caller's frame.
pub(crate) fn safepoint(control_memory: u32, hooks_table: u32, hook_type: u32) -> Vec<u8> {
    let at = |offset| at(control_memory, offset);
    let (size, word, address, counter) = (0, 1, 2, 3);
    let mut function = enc::Function::new([(2, enc::ValType::I32), (1, enc::ValType::I64)]);
    let mut sink = function.instructions();
    sink.block(enc::BlockType::Empty);
    // Already unwinding: only reserve.
    sink.i32_const(0)
        .i32_load(at(REQUEST_WORD))
        .local_tee(word)
        .i32_const(0)
        .i32_lt_s()
        .br_if(0);
    sink.local_get(word)
        .i32_const(COUNTING as i32)
        .i32_and()
        .if_(enc::BlockType::Empty);
    sink.i32_const(0)
        .i32_const(0)
        .i64_load(at(COUNTER))
        .i64_const(1)
        .i64_sub()
        .local_tee(counter);
    sink.i64_store(at(COUNTER));
    sink.local_get(counter).i64_eqz().i32_eqz();
    sink.local_get(word)
        .i32_const(REQUEST as i32)
        .i32_and()
        .i32_eqz()
        .i32_and();
    sink.if_(enc::BlockType::Empty).i32_const(0).return_().end();
    sink.end();
    sink.i32_const(hooks::SAFEPOINT as i32)
        .call_indirect(hooks_table, hook_type);
    sink.i32_const(0)
        .i32_load(at(REQUEST_WORD))
        .i32_const(0)
        .i32_lt_s()
        .br_if(0);
    sink.i32_const(0).return_();
    sink.end();
    sink.i32_const(0)
        .i32_load(at(SAVE_POINTER))
        .local_tee(address)
        .local_get(size)
        .i32_add()
        .local_tee(word);
    sink.i32_const(CONTROL_BYTES as i32)
        .i32_gt_u()
        .if_(enc::BlockType::Empty);
    sink.i32_const(hooks::FRAMES_FULL as i32)
        .call_indirect(hooks_table, hook_type)
        .unreachable()
        .end();
    sink.i32_const(0)
        .local_get(word)
        .i32_store(at(SAVE_POINTER));
    sink.local_get(address).end();
    finish(function)
}

/// `save(reference) -> index`: puts a reference into the table of saved ones.
pub(crate) fn save_reference(control_memory: u32, class: ValueClass, table: u32) -> Vec<u8> {
    let (count_at, heap_type) = match class {
        ValueClass::Extern => (SAVED_EXTERNS, enc::HeapType::EXTERN),
        ValueClass::Exception => (SAVED_EXCEPTIONS, types::EXN),
        _ => (SAVED_FUNCTIONS, enc::HeapType::FUNC),
    };
    let count_at = at(control_memory, count_at);
    let (reference, index) = (0, 1);
    let mut function = enc::Function::new([(1, enc::ValType::I32)]);
    let mut sink = function.instructions();
    sink.i32_const(0)
        .i32_load(count_at)
        .local_tee(index)
        .table_size(table)
        .i32_ge_u();
    sink.if_(enc::BlockType::Empty);
    // Twice as large, so that saving is linear; a failure to grow traps at the store below.
    let growing = at(control_memory, GROWING);
    sink.i32_const(0).i32_const(1).i32_store(growing);
    sink.ref_null(heap_type)
        .local_get(index)
        .i32_const(16)
        .i32_add()
        .table_grow(table)
        .drop();
    sink.i32_const(0).i32_const(0).i32_store(growing).end();
    sink.local_get(index).local_get(reference).table_set(table);
    sink.i32_const(0)
        .local_get(index)
        .i32_const(1)
        .i32_add()
        .i32_store(count_at);
    sink.local_get(index).end();
    finish(function)
}

/// A wrapper around imported function `import`: when the host says that it wants to be suspended before the call took
/// effect, it saves the arguments, so that the call is made again.
pub(crate) fn wrapper(
    module: &Module<'_>,
    control_memory: u32,
    safepoint: u32,
    savers: [Option<u32>; 3],
    import: u32,
    dummies: &HashMap<u32, u32>,
) -> Vec<u8> {
    let ty = module.function_type(import);
    let params: Vec<enc::ValType> = ty
        .params()
        .iter()
        .map(|ty| types::encode(module, *ty))
        .collect();
    let results: Vec<enc::ValType> = ty
        .results()
        .iter()
        .map(|ty| types::encode(module, *ty))
        .collect();
    let mut locals: Vec<(u32, enc::ValType)> = vec![(1, enc::ValType::I32)];
    let frame = params.len() as u32;
    locals.extend(results.iter().map(|ty| (1, types::nullable(*ty))));
    let mut function = enc::Function::new(locals);
    let mut sink = function.instructions();
    for param in 0..frame {
        sink.local_get(param);
    }
    sink.call(import);
    for result in (0..results.len() as u32).rev() {
        sink.local_set(frame + 1 + result);
    }
    sink.i32_const(0)
        .i32_load(at(control_memory, REQUEST_WORD))
        .i32_const(CALL_CUT_SHORT as i32)
        .i32_and();
    sink.if_(enc::BlockType::Empty);
    let classes: Vec<ValueClass> = ty.params().iter().map(|ty| ValueClass::of(*ty)).collect();
    let size = SAVED_HEADER_BYTES + classes.iter().map(|class| class.size_bytes()).sum::<u32>();
    sink.i32_const(size as i32).call(safepoint).local_tee(frame);
    // No site, and nothing was staged.
    sink.i64_const(i64::from(import))
        .i64_store(at(control_memory, SAVED_FUNCTION));
    sink.local_get(frame)
        .i64_const(i64::from(size) << 32)
        .i64_store(at(control_memory, SAVED_SITE));
    let mut offset = SAVED_HEADER_BYTES;
    for (param, class) in (0..).zip(&classes) {
        store_value(
            &mut sink,
            at(control_memory, offset),
            frame,
            param,
            *class,
            savers,
        );
        offset += class.size_bytes();
    }
    for ty in &results {
        dummy_value(&mut sink, *ty, safepoint, dummies);
    }
    sink.return_().end();
    for (result, ty) in (0..).zip(&results) {
        sink.local_get(frame + 1 + result);
        if types::is_non_null(*ty) {
            sink.ref_as_non_null();
        }
    }
    sink.end();
    finish(function)
}

/// Stores local `local` of class `class` to the address in local `frame` and the offset of `at`.
pub(crate) fn store_value(
    sink: &mut enc::InstructionSink<'_>,
    at: enc::MemArg,
    frame: u32,
    local: u32,
    class: ValueClass,
    savers: [Option<u32>; 3],
) {
    sink.local_get(frame);
    get_stored(sink, local, class, savers);
    match class {
        ValueClass::I64 => sink.i64_store(at),
        ValueClass::F32 => sink.f32_store(at),
        ValueClass::F64 => sink.f64_store(at),
        ValueClass::V128 => sink.v128_store(at),
        ValueClass::I32 | ValueClass::Function | ValueClass::Extern | ValueClass::Exception => {
            sink.i32_store(at)
        }
    };
}

/// Local `local` as it is in a frame: a reference is saved, and its number stands for it.
pub(crate) fn get_stored(
    sink: &mut enc::InstructionSink<'_>,
    local: u32,
    class: ValueClass,
    savers: [Option<u32>; 3],
) {
    sink.local_get(local);
    if let ValueClass::Function | ValueClass::Extern | ValueClass::Exception = class {
        match savers[class.saved_table()] {
            Some(saver) => sink.call(saver),
            // No function has a reference of its kind.
            None => sink.unreachable(),
        };
    }
}

/// `push_frame(function | staged << 32, site | direct << 32)`: completes the frame at the save pointer, of which `direct` bytes have
/// been stored: writes the header, copies what was staged, no more than `max`, and advances the save pointer.
///
/// It must need no stack, for a program at the end of its stack can be asked to unwind.
pub(crate) fn push_frame(control_memory: u32, staging: u32, max: Staged) -> Vec<u8> {
    let at = |offset| at(control_memory, offset);
    let (of, site, staged, frame, address) = (0, 1, 2, 3, 4);
    let mut function = enc::Function::new([(3, enc::ValType::I32)]);
    let mut sink = function.instructions();
    sink.local_get(of)
        .i64_const(32)
        .i64_shr_u()
        .i32_wrap_i64()
        .local_set(staged);
    sink.i32_const(0)
        .i32_load(at(SAVE_POINTER))
        .local_tee(frame);
    sink.i32_const(SAVED_HEADER_BYTES as i32)
        .i32_add()
        .local_set(address);
    sink.local_get(frame)
        .local_get(of)
        .i64_store(at(SAVED_FUNCTION));
    sink.local_get(frame)
        .local_get(site)
        .i64_store(at(SAVED_SITE));
    let mut copy = |first: u32, count: u32, bit: i32, bytes: i32| {
        if count == 0 {
            return;
        }
        // From the last one on down to the first.
        for _ in 0..=count {
            sink.block(enc::BlockType::Empty);
        }
        sink.local_get(staged)
            .i32_const(bit)
            .i32_shr_u()
            .i32_const(0xff)
            .i32_and();
        sink.br_table((0..=count).rev().collect::<Vec<_>>(), count)
            .end();
        for number in (0..count).rev() {
            sink.local_get(address).global_get(first + number);
            match bytes {
                4 => sink.i32_store(at(number * 4)),
                _ => sink.i64_store(at(number * 8)),
            };
            sink.end();
        }
        sink.local_get(address)
            .local_get(staged)
            .i32_const(bit)
            .i32_shr_u()
            .i32_const(0xff)
            .i32_and()
            .i32_const(bytes)
            .i32_mul()
            .i32_add()
            .local_set(address);
    };
    copy(staging, max.i32s, 0, 4);
    copy(staging + STAGED_MAX.i32s, max.i64s, 8, 8);
    sink.local_get(address)
        .local_get(site)
        .i64_const(32)
        .i64_shr_u()
        .i32_wrap_i64()
        .i32_add()
        .local_set(address);
    sink.local_get(frame)
        .local_get(address)
        .local_get(frame)
        .i32_sub()
        .i32_store(at(SAVED_SIZE));
    sink.i32_const(0)
        .local_get(address)
        .i32_store(at(SAVE_POINTER));
    sink.end();
    finish(function)
}

/// Any value of a type, for results that nobody looks at while the stack unwinds.
pub(crate) fn dummy_value(
    sink: &mut enc::InstructionSink<'_>,
    ty: enc::ValType,
    safepoint: u32,
    dummies: &HashMap<u32, u32>,
) {
    match ty {
        enc::ValType::I32 => sink.i32_const(0),
        enc::ValType::I64 => sink.i64_const(0),
        enc::ValType::F32 => sink.f32_const(0.0.into()),
        enc::ValType::F64 => sink.f64_const(0.0.into()),
        enc::ValType::V128 => sink.v128_const(0),
        enc::ValType::Ref(reference) if reference.nullable => sink.ref_null(reference.heap_type),
        enc::ValType::Ref(reference) => match reference.heap_type {
            enc::HeapType::Concrete(index) | enc::HeapType::Exact(index) => {
                sink.ref_func(dummies[&index])
            }
            enc::HeapType::Abstract {
                ty: enc::AbstractHeapType::Func,
                ..
            } => sink.ref_func(safepoint),
            enc::HeapType::Abstract {
                ty: enc::AbstractHeapType::Extern,
                ..
            } => sink.i32_const(0).ref_i31().extern_convert_any(),
            // Exceptions are refused when the module is planned; the others have no values.
            _ => sink.unreachable(),
        },
    };
}

/// Drops again, in a fresh instance, the segments whose dropped flag is set.
pub(crate) fn drop_again(module: &Module<'_>, control_memory: u32) -> Vec<u8> {
    let layout = module.control_layout();
    let mut function = enc::Function::new([]);
    let mut sink = function.instructions();
    for (segment, data) in (0u32..).zip(&module.data) {
        if data.active.is_none() {
            let flag = at(control_memory, layout.data_dropped(segment));
            sink.i32_const(0)
                .i32_load8_u(flag)
                .if_(enc::BlockType::Empty)
                .data_drop(segment)
                .end();
        }
    }
    for (segment, element) in (0u32..).zip(&module.elements) {
        if matches!(element.kind, ElementKind::Passive) {
            let flag = at(control_memory, layout.element_dropped(segment));
            sink.i32_const(0)
                .i32_load8_u(flag)
                .if_(enc::BlockType::Empty)
                .elem_drop(segment)
                .end();
        }
    }
    sink.end();
    finish(function)
}

/// A function that executes an instruction on a segment for a module that cannot.
pub(crate) fn segment_operation(
    module: &Module<'_>,
    control_memory: u32,
    operation: SegmentOperation,
) -> Vec<u8> {
    let mut function = enc::Function::new([]);
    let mut sink = function.instructions();
    for param in 0..segment_parameters(module, operation).len() as u32 {
        sink.local_get(param);
    }
    let layout = module.control_layout();
    match operation {
        SegmentOperation::MemoryInit { memory, segment } => {
            sink.memory_init(memory, segment);
        }
        SegmentOperation::TableInit { table, segment } => {
            sink.table_init(table, segment);
        }
        SegmentOperation::DataDrop { segment } => {
            sink.data_drop(segment);
            sink.i32_const(0)
                .i32_const(1)
                .i32_store8(at(control_memory, layout.data_dropped(segment)));
        }
        SegmentOperation::ElementDrop { segment } => {
            sink.elem_drop(segment);
            sink.i32_const(0)
                .i32_const(1)
                .i32_store8(at(control_memory, layout.element_dropped(segment)));
        }
    }
    sink.end();
    finish(function)
}

/// The operands of an instruction on a segment.
pub(crate) fn segment_parameters(
    module: &Module<'_>,
    operation: SegmentOperation,
) -> Vec<enc::ValType> {
    let wide = match operation {
        SegmentOperation::MemoryInit { memory, .. } => module.memories[memory as usize].memory64,
        SegmentOperation::TableInit { table, .. } => module.tables[table as usize].table64,
        _ => return Vec::new(),
    };
    let address = if wide {
        enc::ValType::I64
    } else {
        enc::ValType::I32
    };
    vec![address, enc::ValType::I32, enc::ValType::I32]
}

/// A function that computes the offset of active data segment `segment`, which the host cannot.
pub(crate) fn data_offset(module: &Module<'_>, segment: u32) -> Result<Option<Vec<u8>>> {
    let Some((_, expression)) = &module.data[segment as usize].active else {
        return Ok(None);
    };
    let mut body = Vec::new();
    0u32.encode(&mut body);
    let mut reader = expression.get_binary_reader();
    let length = reader.bytes_remaining();
    body.extend_from_slice(reader.read_bytes(length)?);
    Ok(Some(body))
}

/// A function of which only a reference is needed.
pub(crate) fn dummy() -> Vec<u8> {
    let mut function = enc::Function::new([]);
    function.instructions().unreachable().end();
    finish(function)
}
