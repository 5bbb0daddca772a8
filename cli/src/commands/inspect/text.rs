//! What an image contains, for people.

use std::fmt;
use std::time::Duration;

use super::report::{
    DescriptorReport, FrameReport, Report, SlotReport, TableReport, ValueReport, WasiReport,
};
use crate::output;

/// Writes a report for people, over many lines, without a newline at the end.
pub(super) struct Text<'a>(pub &'a Report);

/// So many runs of a table are shown.
const RUNS_SHOWN: usize = 8;

impl fmt::Display for Text<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(to, "image   {}", report.image)?;
        writeln!(to, "module  {}", report.module)?;
        let deterministic = if report.deterministic {
            ", deterministic"
        } else {
            ""
        };
        let invocation = &report.invocation;
        write!(
            to,
            "call    {}({}), in its {} phase{deterministic}",
            invocation.export,
            list(&invocation.arguments),
            invocation.phase
        )?;
        if report.resumes > 0 {
            write!(to, "\nresumed {} times before", report.resumes)?;
        }
        if report.in_own_snapshot {
            write!(to, "\ntaken by the program itself, which is told so")?;
        }
        for rejection in &report.rejected {
            write!(
                to,
                "\nrejected at {}: {}",
                output::time(output::from_unix_ms(rejection.at_ms)),
                rejection.reason
            )?;
        }
        frames(to, report)?;
        state(to, report)?;
        match &report.wasi {
            Some(state) => wasi(to, state),
            None => Ok(()),
        }
    }
}

fn frames(to: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    write!(
        to,
        "\n\ncall stack, innermost first ({} frames)",
        report.frame_count
    )?;
    for (depth, one) in report.frames.iter().enumerate() {
        frame(to, depth, one)?;
    }
    let hidden = report.frame_count - report.frames.len();
    if hidden > 0 {
        write!(
            to,
            "\n  … {hidden} more: --frames {} shows all",
            report.frame_count
        )?;
    }
    Ok(())
}

fn frame(to: &mut fmt::Formatter<'_>, depth: usize, frame: &FrameReport) -> fmt::Result {
    describe_frame(to, &format!("#{depth:<3}"), frame)
}

/// Writes a newline and a frame with its values, `mark` before it.
pub(in crate::commands) fn describe_frame(
    to: &mut fmt::Formatter<'_>,
    mark: &str,
    frame: &FrameReport,
) -> fmt::Result {
    let label = frame.label();
    match frame.state {
        "host-call" => write!(to, "\n  {mark} {label}, to be called again by the host")?,
        state => write!(
            to,
            "\n  {mark} {label} at byte {:#x}, {state}",
            frame.offset
        )?,
    }
    let indent = " ".repeat(mark.len());
    if !frame.locals.is_empty() {
        let locals: Vec<_> = frame.locals.iter().map(slot).collect();
        write!(to, "\n  {indent} locals    {}", locals.join(", "))?;
    }
    if !frame.operands.is_empty() {
        write!(to, "\n  {indent} operands  {}", list(&frame.operands))?;
    }
    Ok(())
}

fn slot(slot: &SlotReport) -> String {
    let name = slot.name.clone().unwrap_or_else(|| slot.index.to_string());
    format!("{name} = {}", slot.value.text())
}

fn list(values: &[ValueReport]) -> String {
    let texts: Vec<_> = values.iter().map(ValueReport::text).collect();
    texts.join(", ")
}

fn state(to: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    writeln!(to)?;
    for memory in &report.memories {
        write!(
            to,
            "\nmemory {}: {} ({} pages), of which {} are stored",
            memory.index,
            output::bytes(memory.bytes),
            memory.pages,
            output::bytes(memory.stored_bytes)
        )?;
    }
    for volume in &report.volumes {
        write!(
            to,
            "\nvolume {} at {}: {}, of which {} are stored",
            volume.name,
            volume.guest_path,
            output::bytes(volume.bytes),
            output::bytes(volume.stored_bytes)
        )?;
    }
    for global in &report.globals {
        write!(to, "\nglobal {}: {}", global.index, global.value.text())?;
    }
    report.tables.iter().try_for_each(|one| table(to, one))?;
    for exception in &report.exceptions {
        let fields = list(&exception.fields);
        write!(
            to,
            "\nexception {}: tag {} ({fields})",
            exception.index, exception.tag
        )?;
    }
    indices(to, "dropped data segments", &report.dropped_data_segments)?;
    indices(
        to,
        "dropped element segments",
        &report.dropped_element_segments,
    )
}

fn table(to: &mut fmt::Formatter<'_>, table: &TableReport) -> fmt::Result {
    write!(to, "\ntable {}: {} elements", table.index, table.length)?;
    for run in table.runs.iter().take(RUNS_SHOWN) {
        write!(to, "\n  {} × {}", run.length, run.value.text())?;
    }
    match table.runs.len().saturating_sub(RUNS_SHOWN) {
        0 => Ok(()),
        hidden => write!(to, "\n  … {hidden} more runs: --json shows all"),
    }
}

fn indices(to: &mut fmt::Formatter<'_>, what: &str, indices: &[u32]) -> fmt::Result {
    if indices.is_empty() {
        return Ok(());
    }
    let texts: Vec<_> = indices.iter().map(u32::to_string).collect();
    write!(to, "\n{what}: {}", texts.join(", "))
}

fn wasi(to: &mut fmt::Formatter<'_>, state: &WasiReport) -> fmt::Result {
    write!(to, "\n\narguments  {}", state.arguments.join(" "))?;
    for variable in &state.environment {
        write!(to, "\nvariable   {variable}")?;
    }
    let clock = output::duration(Duration::from_nanos(state.monotonic_ns));
    write!(to, "\nclock      {clock} since the program's start")?;
    if let Some(drawn) = state.random_bytes_drawn {
        write!(to, "\nrandom     {drawn} bytes drawn")?;
    }
    if state.waiting {
        write!(
            to,
            "\nwaiting    a wait for time or streams goes on when the program is resumed"
        )?;
    }
    let descriptors = &state.descriptors;
    descriptors.iter().try_for_each(|one| {
        writeln!(to)?;
        describe_descriptor(to, one)
    })
}

/// Writes a descriptor in one line.
pub(in crate::commands) fn describe_descriptor(
    to: &mut fmt::Formatter<'_>,
    descriptor: &DescriptorReport,
) -> fmt::Result {
    write!(to, "fd {:<7} {}", descriptor.fd, descriptor.kind)?;
    if let Some(path) = &descriptor.path {
        write!(to, " {path}")?;
    }
    if let (Some(offset), Some(bytes)) = (descriptor.offset, descriptor.bytes) {
        write!(to, " at byte {offset} of {bytes}")?;
    }
    match descriptor.flags.as_slice() {
        [] => Ok(()),
        flags => write!(to, " ({})", flags.join(", ")),
    }
}
