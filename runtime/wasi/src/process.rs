//! Arguments, environment, and ending.

use crate::calls::{Outcome, Stop};
use crate::errno::Errno;
use crate::memory::Memory;
use crate::wasi::Wasi;

/// The last signal that preview 1 has a number for.
const SIGNAL_LAST: u32 = 30;

/// Stores `strings`, each with a NUL after it, one behind the other at `buffer`, and their addresses at `pointers`.
fn write_strings(
    memory: &mut Memory<'_>,
    strings: &[Vec<u8>],
    pointers: u32,
    buffer: u32,
) -> Outcome {
    let mut slot = pointers;
    let mut text = buffer;
    for string in strings {
        memory.write_u32(slot, text)?;
        slot = slot.checked_add(4).ok_or(Errno::Fault)?;
        let length = u32::try_from(string.len()).map_err(|_| Errno::Overflow)?;
        memory.write(text, string)?;
        let end = text.checked_add(length).ok_or(Errno::Fault)?;
        memory.write(end, &[0])?;
        text = end.checked_add(1).ok_or(Errno::Fault)?;
    }
    Ok(())
}

fn write_sizes(memory: &mut Memory<'_>, strings: &[Vec<u8>], count: u32, length: u32) -> Outcome {
    let bytes = strings.iter().map(|string| string.len() + 1).sum::<usize>();
    memory.check(length, 4)?;
    let number = u32::try_from(strings.len()).map_err(|_| Errno::Overflow)?;
    memory.write_u32(count, number)?;
    let bytes = u32::try_from(bytes).map_err(|_| Errno::Overflow)?;
    Ok(memory.write_u32(length, bytes)?)
}

pub(crate) fn args_get(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    argv: u32,
    argv_buf: u32,
) -> Outcome {
    write_strings(&mut memory, &wasi.args, argv, argv_buf)
}

pub(crate) fn args_sizes_get(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    count: u32,
    length: u32,
) -> Outcome {
    write_sizes(&mut memory, &wasi.args, count, length)
}

pub(crate) fn environ_get(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    environ: u32,
    environ_buf: u32,
) -> Outcome {
    write_strings(&mut memory, &wasi.env, environ, environ_buf)
}

pub(crate) fn environ_sizes_get(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    count: u32,
    length: u32,
) -> Outcome {
    write_sizes(&mut memory, &wasi.env, count, length)
}

pub(crate) fn proc_exit(code: u32) -> Stop {
    Stop::Exit(code)
}

pub(crate) fn proc_raise(_wasi: &mut Wasi, _memory: Memory<'_>, signal: u32) -> Outcome {
    if signal > SIGNAL_LAST {
        return Err(Errno::Inval.into());
    }
    Err(Errno::Notsup.into())
}

pub(crate) fn sched_yield(_wasi: &mut Wasi, _memory: Memory<'_>) -> Outcome {
    std::thread::yield_now();
    Ok(())
}
