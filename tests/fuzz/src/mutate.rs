//! Changes of manifests that nobody but a stranger would make.

use crate::input::{Input, disturb, disturb_bytes};
use wsnap::snapshots::{Elements, Frame, FrameState, Manifest, Phase, TableState, Value};
use wsnap::{OWN_SECTION, WASI_SECTION};

/// Names of functions that an image could say it calls; the last ones are the rewriter's own.
const EXPORTS: &[&str] = &[
    "_start",
    "",
    "memory",
    "wsnap:start",
    "wsnap:safepoint",
    "wsnap:drop-again",
    "wsnap:helper-1",
    "wsnap:bridge-0",
    "wsnap:function-0",
    "wsnap:function-3",
    "wsnap:saved-functions",
];

/// Changes `manifest` in some places, in the part that the input says or, if `frames_only`, in the call stack.
pub fn disturb_manifest(input: &mut Input<'_>, manifest: &mut Manifest, frames_only: bool) {
    for _ in 0..=input.byte() % 4 {
        match input.byte() % 16 {
            _ if frames_only => frames(input, manifest),
            0 => invocation(input, manifest),
            1 => memories(input, manifest),
            2 => globals(input, manifest),
            3 | 4 => tables(input, manifest),
            5 => indices(input, &mut manifest.dropped_data),
            6 => indices(input, &mut manifest.dropped_elements),
            7 | 8 => exceptions(input, manifest),
            9 => host(input, manifest),
            10 if input.once_in(8) => manifest.deterministic = !manifest.deterministic,
            11 if input.once_in(8) => manifest.module.0[0] ^= 1,
            _ => frames(input, manifest),
        }
    }
}

fn invocation(input: &mut Input<'_>, manifest: &mut Manifest) {
    let invocation = &mut manifest.invocation;
    match input.byte() % 3 {
        0 => {
            invocation.phase = match invocation.phase {
                Phase::Start => Phase::Export,
                Phase::Export => Phase::Start,
            }
        }
        1 => EXPORTS[input.index(EXPORTS.len())].clone_into(&mut invocation.export),
        _ => values(input, &mut invocation.arguments),
    }
    if input.once_in(4) {
        manifest.frames.clear();
    }
}

fn memories(input: &mut Input<'_>, manifest: &mut Manifest) {
    let at = input.index(manifest.memories.len());
    match manifest.memories.get_mut(at) {
        Some(memory) if !input.once_in(4) => {
            memory.pages = input.anything(memory.pages);
            if input.once_in(8) {
                memory.page_size_log2 = 16 - memory.page_size_log2;
            }
        }
        _ => disturb(input, &mut manifest.memories),
    }
}

fn globals(input: &mut Input<'_>, manifest: &mut Manifest) {
    let at = input.index(manifest.globals.len());
    match manifest.globals.get_mut(at) {
        Some(global) if !input.once_in(6) => match input.byte() % 4 {
            0 => global.index = input.anything(global.index.into()) as u32,
            _ => value(input, &mut global.value),
        },
        _ => disturb(input, &mut manifest.globals),
    }
}

fn tables(input: &mut Input<'_>, manifest: &mut Manifest) {
    let at = input.index(manifest.tables.len());
    let Some(table) = manifest.tables.get_mut(at) else {
        let elements = Elements::from_iter([Value::FuncRef(None)]);
        return manifest.tables.push(TableState {
            index: input.byte().into(),
            elements,
        });
    };
    if input.once_in(8) {
        table.index = input.anything(table.index.into()) as u32;
    } else if input.once_in(8) {
        disturb(input, &mut manifest.tables);
    } else {
        let mut runs: Vec<(u64, Value)> = table
            .elements
            .runs()
            .iter()
            .map(|run| (run.length, run.value))
            .collect();
        let at = input.index(runs.len());
        match runs.get_mut(at) {
            Some((length, _)) if input.once_in(2) => *length = input.anything(*length),
            Some((_, element)) if !input.once_in(4) => value(input, element),
            _ => disturb(input, &mut runs),
        }
        table.elements = Elements::default();
        for (length, value) in runs {
            // More than a table can have is refused when it is encoded; more than a number can hold cannot be said.
            table.elements.push_run(length.min(1 << 40), value);
        }
    }
}

fn indices(input: &mut Input<'_>, indices: &mut Vec<u32>) {
    match input.byte() % 3 {
        0 => disturb(input, indices),
        1 => indices.push(input.anything(1) as u32),
        _ => {
            indices.push(input.byte().into());
            indices.sort_unstable();
            indices.dedup();
        }
    }
}

fn exceptions(input: &mut Input<'_>, manifest: &mut Manifest) {
    let at = input.index(manifest.exceptions.len());
    match manifest.exceptions.get_mut(at) {
        Some(exception) if !input.once_in(6) => match input.byte() % 4 {
            0 => exception.tag = input.anything(exception.tag.into()) as u32,
            _ => values(input, &mut exception.fields),
        },
        _ => disturb(input, &mut manifest.exceptions),
    }
}

fn host(input: &mut Input<'_>, manifest: &mut Manifest) {
    match input.byte() % 8 {
        0 => drop(manifest.host.remove(WASI_SECTION)),
        1 => drop(manifest.host.insert("unknown".into(), vec![1])),
        2 | 3 => {
            let mut own = vec![1, 0, 0, 0, input.byte() % 2];
            own.extend(input.anything(1).to_le_bytes());
            manifest.host.insert(OWN_SECTION.into(), own);
        }
        section => {
            let name = if section == 4 {
                OWN_SECTION
            } else {
                WASI_SECTION
            };
            if let Some(bytes) = manifest.host.get_mut(name) {
                disturb_bytes(input, bytes);
            }
        }
    }
}

fn frames(input: &mut Input<'_>, manifest: &mut Manifest) {
    let count = manifest.frames.len();
    let (at, other) = (input.index(count), input.index(count));
    // What another frame says is at least a place that exists.
    let example = manifest.frames.get(other).cloned();
    match (manifest.frames.get_mut(at), example) {
        (Some(frame), Some(example)) if !input.once_in(5) => disturb_frame(input, frame, example),
        _ => disturb(input, &mut manifest.frames),
    }
}

fn disturb_frame(input: &mut Input<'_>, frame: &mut Frame, example: Frame) {
    match input.byte() % 10 {
        0 => frame.function = input.anything(frame.function.into()) as u32,
        1 => frame.function = example.function,
        2 | 3 => frame.offset = input.anything(frame.offset.into()) as u32,
        4 => frame.offset = example.offset,
        5 => {
            let states = [FrameState::Calling, FrameState::Next, FrameState::HostCall];
            frame.state = states[input.index(3)];
            if frame.state == FrameState::HostCall {
                frame.offset = 0;
            }
        }
        6 => disturb(input, &mut frame.locals),
        7 => {
            let at = input.index(frame.locals.len());
            if let Some((index, local)) = frame.locals.get_mut(at) {
                match input.byte() % 3 {
                    0 => *index = input.anything((*index).into()) as u32,
                    _ => value(input, local),
                }
            }
        }
        8 => values(input, &mut frame.operands),
        // Elsewhere in the same function, with what is alive there unknown.
        _ => frame.offset = example.offset.wrapping_add(u32::from(input.byte())),
    }
}

fn values(input: &mut Input<'_>, values: &mut Vec<Value>) {
    let at = input.index(values.len());
    match values.get_mut(at) {
        Some(found) if !input.once_in(4) => value(input, found),
        Some(_) => disturb(input, values),
        None => {
            let mut new = Value::I32(0);
            value(input, &mut new);
            values.push(new);
        }
    }
}

/// Another value, most often of the same type.
fn value(input: &mut Input<'_>, value: &mut Value) {
    let kind = match (input.once_in(4), *value) {
        (true, _) => input.byte() % 8,
        (false, Value::I32(_)) => 0,
        (false, Value::I64(_)) => 1,
        (false, Value::F32(_)) => 2,
        (false, Value::F64(_)) => 3,
        (false, Value::V128(_)) => 4,
        (false, Value::FuncRef(_)) => 5,
        (false, Value::ExternRefNull) => 6,
        (false, Value::ExnRef(_)) => 7,
    };
    let is_null = kind >= 5 && input.once_in(4);
    let number = input.anything(3);
    *value = match kind {
        0 => Value::I32(number as i32),
        1 => Value::I64(number as i64),
        2 => Value::F32(number as u32),
        3 => Value::F64(number),
        4 => Value::V128(u128::from(number) << 40),
        5 => Value::FuncRef((!is_null).then_some(number as u32)),
        6 => Value::ExternRefNull,
        _ => Value::ExnRef((!is_null).then_some(number as u32)),
    };
}
