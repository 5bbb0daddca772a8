//! What changed between two images, for people.

use std::fmt;
use std::time::Duration;

use super::report::{
    Change, DescriptorChange, GlobalReport, MemoryReport, Report, StackReport, TableRange,
    TableReport, WasiChange,
};
use crate::commands::inspect::report::{DescriptorReport, FrameReport, ValueReport};
use crate::commands::inspect::text::{describe_descriptor, describe_frame};
use crate::output;

/// Writes a report for people, over many lines, without a newline at the end.
pub(super) struct Text<'a>(pub &'a Report);

/// So many stretches of a memory, runs of a table and globals are shown.
const ITEMS_SHOWN: usize = 16;
/// So many frames are shown where the call stacks have parted.
const FRAMES_SHOWN: usize = 10;

impl fmt::Display for Text<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(to, "old     {}", report.old_image)?;
        writeln!(to, "new     {}", report.new_image)?;
        write!(to, "module  {}", report.module)?;
        if report.identical {
            return write!(to, "\n\nboth are the same image: nothing differs");
        }
        call_stack(to, &report.call_stack)?;
        writeln!(to)?;
        report.memories.iter().try_for_each(|one| memory(to, one))?;
        list(to, &report.globals, global)?;
        report.tables.iter().try_for_each(|one| table(to, one))?;
        rare(to, report)?;
        match &report.wasi {
            Some(change) => wasi(to, change),
            None => Ok(()),
        }
    }
}

/// Writes the first items, and how many more there are.
fn list<T>(
    to: &mut fmt::Formatter<'_>,
    items: &[T],
    mut write: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for item in items.iter().take(ITEMS_SHOWN) {
        write(to, item)?;
    }
    more(to, items.len(), ITEMS_SHOWN)
}

fn more(to: &mut fmt::Formatter<'_>, count: usize, shown: usize) -> fmt::Result {
    match count.saturating_sub(shown) {
        0 => Ok(()),
        hidden => write!(to, "\n  … and {hidden} more: --json shows all"),
    }
}

fn call_stack(to: &mut fmt::Formatter<'_>, stack: &StackReport) -> fmt::Result {
    let Change { old, new } = &stack.frame_count;
    if (stack.common, stack.common) == (*old, *new) {
        let frames = output::count(*new as u64, "frame", "frames");
        return write!(to, "\n\ncall stack: {frames}, unchanged");
    }
    write!(
        to,
        "\n\ncall stack, outermost first ({old} frames before, {new} now)"
    )?;
    if let Some(frame) = &stack.last_common {
        write!(
            to,
            "\n  {} unchanged, the last of them {}",
            output::count(stack.common as u64, "frame is", "frames are"),
            frame.label()
        )?;
    }
    frames(to, "-", &stack.frames.old)?;
    frames(to, "+", &stack.frames.new)
}

fn frames(to: &mut fmt::Formatter<'_>, sign: &str, frames: &[FrameReport]) -> fmt::Result {
    for frame in frames.iter().take(FRAMES_SHOWN) {
        describe_frame(to, sign, frame)?;
    }
    more(to, frames.len(), FRAMES_SHOWN)
}

fn memory(to: &mut fmt::Formatter<'_>, memory: &MemoryReport) -> fmt::Result {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "nothing".to_owned(), output::bytes);
    let Change { old, new } = memory.bytes;
    match &memory.volume {
        Some(name) => write!(to, "\nvolume {name}: ")?,
        None => write!(to, "\nmemory {}: ", memory.index)?,
    }
    if old == new {
        write!(to, "{}", size(new))?;
    } else {
        write!(to, "{} -> {}", size(old), size(new))?;
    }
    let change = &memory.change;
    if change.changed_pages == 0 {
        return write!(to, ", content unchanged");
    }
    let (pages, bytes) = (change.changed_pages, change.changed_bytes);
    write!(
        to,
        ", {} in {}",
        output::count(bytes, "byte differs", "bytes differ"),
        output::count(pages, "page of 4 KiB", "pages of 4 KiB"),
    )?;
    list(to, &change.ranges, |to, range| {
        let end = range.offset + range.length;
        write!(
            to,
            "\n  {:#010x}..{end:#010x}  {}",
            range.offset,
            output::bytes(range.length)
        )
    })
}

fn arrow<T>(change: &Change<T>, describe: impl Fn(&T) -> String) -> String {
    format!("{} -> {}", describe(&change.old), describe(&change.new))
}

fn value(value: &Option<ValueReport>) -> String {
    let none = || "nothing".to_owned();
    value.as_ref().map_or_else(none, ValueReport::text)
}

fn global(to: &mut fmt::Formatter<'_>, global: &GlobalReport) -> fmt::Result {
    write!(to, "\nglobal {}", global.index)?;
    if let Some(name) = &global.name {
        write!(to, " ({name})")?;
    }
    write!(to, ": {}", arrow(&global.value, value))
}

fn table(to: &mut fmt::Formatter<'_>, table: &TableReport) -> fmt::Result {
    write!(to, "\ntable {}: ", table.index)?;
    if table.length.old == table.length.new {
        write!(to, "{} elements", table.length.new)?;
    } else {
        write!(to, "{} elements", arrow(&table.length, u64::to_string))?;
    }
    write!(to, ", {} changed", table.changed_elements)?;
    list(to, &table.ranges, |to, range: &TableRange| {
        write!(
            to,
            "\n  {} × from {}: {}",
            range.length,
            range.offset,
            arrow(&range.value, value)
        )
    })
}

/// What hardly ever changes.
fn rare(to: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    if let Some(change) = &report.deterministic {
        write!(to, "\ndeterministic: {}", arrow(change, bool::to_string))?;
    }
    if let Some(change) = &report.invocation {
        let call = arrow(change, |call| format!("{} ({})", call.export, call.phase));
        write!(to, "\ncall: {call}")?;
    }
    let segments = |indices: &Vec<u32>| format!("{indices:?}");
    if let Some(change) = &report.dropped_data_segments {
        write!(to, "\ndropped data segments: {}", arrow(change, segments))?;
    }
    if let Some(change) = &report.dropped_element_segments {
        write!(
            to,
            "\ndropped element segments: {}",
            arrow(change, segments)
        )?;
    }
    if report.exceptions_changed {
        write!(to, "\nthe exceptions that it holds differ")?;
    }
    for section in &report.host_sections {
        write!(to, "\nhost section {section:?} differs")?;
    }
    Ok(())
}

fn wasi(to: &mut fmt::Formatter<'_>, change: &WasiChange) -> fmt::Result {
    writeln!(to)?;
    let lists = [
        ("arguments", &change.arguments),
        ("environment", &change.environment),
        ("directories", &change.directories),
    ];
    for (what, change) in lists {
        if let Some(Change { old, new }) = change {
            entries(to, what, "-", old, new)?;
            entries(to, what, "+", new, old)?;
        }
    }
    let unknown = || "nothing".to_owned();
    if let Some(change) = &change.monotonic_ns {
        let clock = arrow(change, |ns| {
            ns.map_or_else(unknown, |ns| output::duration(Duration::from_nanos(ns)))
        });
        write!(to, "\nclock: {clock} since the program's start")?;
    }
    if let Some(change) = &change.random_bytes_drawn {
        let drawn = arrow(change, |drawn| {
            drawn.map_or_else(unknown, |drawn| drawn.to_string())
        });
        write!(to, "\nrandom bytes drawn: {drawn}")?;
    }
    if let Some(change) = &change.waiting {
        let state = |waiting: &bool| if *waiting { "waiting" } else { "not waiting" }.to_owned();
        write!(to, "\n{} for time or streams", arrow(change, state))?;
    }
    change
        .descriptors
        .iter()
        .try_for_each(|one| descriptor(to, one))
}

/// Writes the entries that one side has and the other doesn't; all of them if only their order differs.
fn entries(
    to: &mut fmt::Formatter<'_>,
    what: &str,
    sign: &str,
    of: &[String],
    other: &[String],
) -> fmt::Result {
    let own: Vec<_> = of.iter().filter(|entry| !other.contains(entry)).collect();
    if own.is_empty() && of.len() == other.len() {
        return write!(to, "\n{sign} {what} {}", of.join(" "));
    }
    own.iter()
        .try_for_each(|entry| write!(to, "\n{sign} {what} {entry}"))
}

fn descriptor(to: &mut fmt::Formatter<'_>, change: &DescriptorChange) -> fmt::Result {
    let mut side = |sign: &str, descriptor: &Option<DescriptorReport>| match descriptor {
        Some(descriptor) => {
            write!(to, "\n{sign} ")?;
            describe_descriptor(to, descriptor)
        }
        None => Ok(()),
    };
    side("-", &change.change.old)?;
    side("+", &change.change.new)
}
