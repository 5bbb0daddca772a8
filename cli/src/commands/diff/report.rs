//! What changed between two images, in the form that `--json` prints.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use wsnap::names::Names;
use wsnap::snapshots::{Elements, Frame, Manifest, StoredImage, Value};

use super::memory::{self, MemoryChange};
use crate::commands::inspect::report::{
    DescriptorReport, FrameReport, InvocationReport, ValueReport, WasiReport, frame, invocation,
    saved_state, wasi,
};
use crate::failure::Failure;

#[derive(Serialize)]
pub(super) struct Report {
    pub old_image: String,
    pub new_image: String,
    pub module: String,
    /// Whether nothing differs, so that both are one image.
    pub identical: bool,
    /// Each of these is there only if it changed, up to `exceptions_changed`.
    pub deterministic: Option<Change<bool>>,
    pub invocation: Option<Change<InvocationReport>>,
    pub dropped_data_segments: Option<Change<Vec<u32>>>,
    pub dropped_element_segments: Option<Change<Vec<u32>>>,
    /// Whether other exceptions are held than before.
    pub exceptions_changed: bool,
    /// All memories, changed or not.
    pub memories: Vec<MemoryReport>,
    /// How many mutable globals there are.
    pub global_count: usize,
    /// Those that changed.
    pub globals: Vec<GlobalReport>,
    /// Those that changed.
    pub tables: Vec<TableReport>,
    pub call_stack: StackReport,
    /// What changed of the WASI state.
    pub wasi: Option<WasiChange>,
    /// The names of other sections of host state that changed.
    pub host_sections: Vec<String>,
}

/// Two values that differ. None stands for what isn't there.
#[derive(Serialize)]
pub(super) struct Change<T> {
    pub old: T,
    pub new: T,
}

#[derive(Serialize)]
pub(super) struct MemoryReport {
    pub index: usize,
    /// The volume whose content it is, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// The sizes.
    pub bytes: Change<Option<u64>>,
    #[serde(flatten)]
    pub change: MemoryChange,
}

#[derive(Serialize)]
pub(super) struct GlobalReport {
    pub index: u32,
    pub name: Option<String>,
    #[serde(flatten)]
    pub value: Change<Option<ValueReport>>,
}

#[derive(Serialize)]
pub(super) struct TableReport {
    pub index: u32,
    pub length: Change<u64>,
    pub changed_elements: u64,
    pub ranges: Vec<TableRange>,
}

/// Neighbouring elements that all had one value and all have another.
#[derive(Serialize)]
pub(super) struct TableRange {
    pub offset: u64,
    pub length: u64,
    #[serde(flatten)]
    pub value: Change<Option<ValueReport>>,
}

#[derive(Serialize)]
pub(super) struct StackReport {
    pub frame_count: Change<usize>,
    /// So many of the outermost frames are equal, with all their values.
    pub common: usize,
    /// The innermost of these.
    pub last_common: Option<FrameReport>,
    /// The other frames, outermost first.
    pub frames: Change<Vec<FrameReport>>,
}

/// Each is there only if it changed.
#[derive(Serialize)]
pub(super) struct WasiChange {
    pub arguments: Option<Change<Vec<String>>>,
    pub environment: Option<Change<Vec<String>>>,
    pub directories: Option<Change<Vec<String>>>,
    pub monotonic_ns: Option<Change<Option<u64>>>,
    pub random_bytes_drawn: Option<Change<Option<u64>>>,
    pub waiting: Option<Change<bool>>,
    pub descriptors: Vec<DescriptorChange>,
}

#[derive(Serialize)]
pub(super) struct DescriptorChange {
    pub fd: u32,
    #[serde(flatten)]
    pub change: Change<Option<DescriptorReport>>,
}

impl Report {
    /// Compares two images of one module.
    pub fn new(old: &StoredImage, new: &StoredImage, names: &Names) -> Result<Self, Failure> {
        let [a, b] = [old.manifest(), new.manifest()];
        Ok(Self {
            old_image: old.id().to_string(),
            new_image: new.id().to_string(),
            module: a.module.to_string(),
            identical: old.id() == new.id(),
            deterministic: changed(a.deterministic, b.deterministic),
            invocation: changed(invocation(&a.invocation), invocation(&b.invocation)),
            dropped_data_segments: changed(a.dropped_data.clone(), b.dropped_data.clone()),
            dropped_element_segments: changed(
                a.dropped_elements.clone(),
                b.dropped_elements.clone(),
            ),
            exceptions_changed: a.exceptions != b.exceptions,
            memories: memories(old, new)?,
            global_count: a.globals.len().max(b.globals.len()),
            globals: globals(a, b, names),
            tables: tables(a, b),
            call_stack: call_stack(&a.frames, &b.frames, names),
            wasi: wasi_change(wasi(a)?, wasi(b)?),
            host_sections: host_sections(a, b),
        })
    }
}

fn changed<T: PartialEq>(old: T, new: T) -> Option<Change<T>> {
    (old != new).then_some(Change { old, new })
}

fn memories(old: &StoredImage, new: &StoredImage) -> Result<Vec<MemoryReport>, Failure> {
    // A program has the same volumes all its life. Their contents come behind its memories.
    let state = saved_state(new.manifest())?;
    let volumes = state.map(|state| state.volumes).unwrap_or_default();
    let (old, new) = (old.memories(), new.memories());
    let first_volume = new.len().saturating_sub(volumes.len());
    (0..old.len().max(new.len()))
        .map(|index| {
            let (old, new) = (old.get(index), new.get(index));
            let change = match (old, new) {
                (Some(old), Some(new)) => memory::compare(old, new)?,
                _ => MemoryChange::default(),
            };
            let volume = index.checked_sub(first_volume);
            let volume = volume.and_then(|volume| volumes.get(volume));
            Ok(MemoryReport {
                index,
                volume: volume.map(|volume| volume.name.clone()),
                bytes: Change {
                    old: old.map(|memory| memory.byte_len()),
                    new: new.map(|memory| memory.byte_len()),
                },
                change,
            })
        })
        .collect()
}

/// Pairs up what both sides have under the same keys, in their order.
fn paired<K: Ord + Copy, T>(
    old: impl IntoIterator<Item = (K, T)>,
    new: impl IntoIterator<Item = (K, T)>,
) -> BTreeMap<K, (Option<T>, Option<T>)> {
    let mut pairs: BTreeMap<K, (Option<T>, Option<T>)> = old
        .into_iter()
        .map(|(key, value)| (key, (Some(value), None)))
        .collect();
    for (key, value) in new {
        pairs.entry(key).or_insert((None, None)).1 = Some(value);
    }
    pairs
}

fn globals(old: &Manifest, new: &Manifest, names: &Names) -> Vec<GlobalReport> {
    let values = |manifest: &Manifest| -> Vec<(u32, Value)> {
        let globals = manifest.globals.iter();
        globals.map(|global| (global.index, global.value)).collect()
    };
    paired(values(old), values(new))
        .into_iter()
        .filter(|(_, (old, new))| old != new)
        .map(|(index, (old, new))| GlobalReport {
            index,
            name: names.global(index).map(str::to_owned),
            value: Change {
                old: old.as_ref().map(ValueReport::of),
                new: new.as_ref().map(ValueReport::of),
            },
        })
        .collect()
}

fn tables(old: &Manifest, new: &Manifest) -> Vec<TableReport> {
    fn elements(manifest: &Manifest) -> impl Iterator<Item = (u32, &Elements)> {
        let tables = manifest.tables.iter();
        tables.map(|table| (table.index, &table.elements))
    }
    let none = Elements::default();
    paired(elements(old), elements(new))
        .into_iter()
        .filter(|(_, (old, new))| old != new)
        .map(|(index, (old, new))| table(index, old.unwrap_or(&none), new.unwrap_or(&none)))
        .collect()
}

/// Compares two tables run by run: they can have millions of elements.
fn table(index: u32, old: &Elements, new: &Elements) -> TableReport {
    let ends = |elements: &Elements| {
        let runs = elements.runs().iter();
        runs.scan(0, |end, run| {
            *end += run.length;
            Some((*end, run.value))
        })
        .collect::<Vec<(u64, Value)>>()
    };
    let (old_ends, new_ends) = (ends(old), ends(new));
    // Between two neighbouring borders each side has one value.
    let borders: BTreeSet<u64> = old_ends
        .iter()
        .chain(&new_ends)
        .map(|(end, _)| *end)
        .collect();
    let value_at = |ends: &[(u64, Value)], offset: u64| {
        let run = ends.partition_point(|(end, _)| *end <= offset);
        ends.get(run).map(|(_, value)| *value)
    };
    let mut ranges = Vec::new();
    let mut changed_elements = 0;
    let mut offset = 0;
    for border in borders {
        let (old, new) = (value_at(&old_ends, offset), value_at(&new_ends, offset));
        if old != new {
            changed_elements += border - offset;
            ranges.push(TableRange {
                offset,
                length: border - offset,
                value: Change {
                    old: old.as_ref().map(ValueReport::of),
                    new: new.as_ref().map(ValueReport::of),
                },
            });
        }
        offset = border;
    }
    TableReport {
        index,
        length: Change {
            old: old.len(),
            new: new.len(),
        },
        changed_elements,
        ranges,
    }
}

fn call_stack(old: &[Frame], new: &[Frame], names: &Names) -> StackReport {
    let pairs = old.iter().zip(new);
    let common = pairs.take_while(|(old, new)| old == new).count();
    let rest = |frames: &[Frame]| -> Vec<FrameReport> {
        let rest = frames[common..].iter();
        rest.map(|one| frame(one, names)).collect()
    };
    StackReport {
        frame_count: Change {
            old: old.len(),
            new: new.len(),
        },
        common,
        last_common: old[..common].last().map(|one| frame(one, names)),
        frames: Change {
            old: rest(old),
            new: rest(new),
        },
    }
}

fn wasi_change(old: Option<WasiReport>, new: Option<WasiReport>) -> Option<WasiChange> {
    if old == new {
        return None;
    }
    let clock = |state: &Option<WasiReport>| state.as_ref().map(|state| state.monotonic_ns);
    let random = |state: &Option<WasiReport>| state.as_ref()?.random_bytes_drawn;
    let (clocks, randoms) = ((clock(&old), clock(&new)), (random(&old), random(&new)));
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    let by_fd = |descriptors: Vec<DescriptorReport>| {
        descriptors
            .into_iter()
            .map(|descriptor| (descriptor.fd, descriptor))
    };
    let descriptors = paired(by_fd(old.descriptors), by_fd(new.descriptors));
    Some(WasiChange {
        arguments: changed(old.arguments, new.arguments),
        environment: changed(old.environment, new.environment),
        directories: changed(old.directories, new.directories),
        monotonic_ns: changed(clocks.0, clocks.1),
        random_bytes_drawn: changed(randoms.0, randoms.1),
        waiting: changed(old.waiting, new.waiting),
        descriptors: descriptors
            .into_iter()
            .filter_map(|(fd, (old, new))| {
                let change = changed(old, new)?;
                Some(DescriptorChange { fd, change })
            })
            .collect(),
    })
}

fn host_sections(old: &Manifest, new: &Manifest) -> Vec<String> {
    let names: BTreeSet<&String> = old.host.keys().chain(new.host.keys()).collect();
    names
        .into_iter()
        .filter(|name| *name != wsnap::WASI_SECTION && old.host.get(*name) != new.host.get(*name))
        .cloned()
        .collect()
}
