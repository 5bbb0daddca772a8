//! The functions of `wasi_unstable` (preview 0) that differ from those of `wasi_snapshot_preview1`.
//!
//! Programs of 2019 and 2020 import that module. It has the functions of preview 1 but `sock_accept`, and all of them
//! are the same but four: `fd_seek` numbers its bases otherwise, the record `filestat` counts links in 32 bits, and
//! the subscription to a clock begins with an identifier that nobody uses.

use crate::calls::{Outcome, Stop, answer};
use crate::errno::Errno;
use crate::files::{fd_filestat_get, fd_seek};
use crate::memory::Memory;
use crate::paths::path_filestat_get;
use crate::poll::{SubscriptionLayout, poll};
use crate::wasi::Wasi;

/// A subscription of 56 bytes; what it says about a clock stands behind the clock's identifier.
const SUBSCRIPTION: SubscriptionLayout = SubscriptionLayout {
    bytes: 56,
    clock_offset: 24,
};

/// The record `filestat` of preview 1.
const FILESTAT_BYTES: u32 = 64;

/// The record `filestat` of preview 0.
const OLD_FILESTAT_BYTES: u32 = 56;

/// No host's path is as long.
const PATH_BYTES_MAX: u32 = 1 << 16;

/// The bases of `fd_seek` by their old numbers: the position, the end, the start.
fn whence(old: u32) -> Result<u32, Errno> {
    const START: u32 = 0;
    const POSITION: u32 = 1;
    const END: u32 = 2;
    match old {
        0 => Ok(POSITION),
        1 => Ok(END),
        2 => Ok(START),
        _ => Err(Errno::Inval),
    }
}

/// Asks a function of preview 1 that stores a `filestat` at address 0 of the memory it is given, which continues with
/// `path`, and stores the old record.
fn filestat(
    memory: &mut Memory<'_>,
    path: (u32, u32),
    pointer: u32,
    ask: impl FnOnce(Memory<'_>) -> Outcome,
) -> Outcome {
    memory.check(pointer, OLD_FILESTAT_BYTES)?;
    if path.1 > PATH_BYTES_MAX {
        return Err(Errno::Nametoolong.into());
    }
    let mut scratch = vec![0; FILESTAT_BYTES as usize];
    scratch.extend_from_slice(memory.bytes(path.0, path.1)?);
    ask(Memory::new(&mut scratch))?;
    let mut old = [0; OLD_FILESTAT_BYTES as usize];
    // Device, inode and type.
    old[0..17].copy_from_slice(&scratch[0..17]);
    let mut links = [0; 8];
    links.copy_from_slice(&scratch[24..32]);
    let links = u32::try_from(u64::from_le_bytes(links)).unwrap_or(u32::MAX);
    old[20..24].copy_from_slice(&links.to_le_bytes());
    // The size and the three times.
    old[24..56].copy_from_slice(&scratch[32..64]);
    Ok(memory.write(pointer, &old)?)
}

/// The functions of `wasi_unstable` that differ from those of `wasi_snapshot_preview1`; see
/// [`for_each_unstable_function!`](crate::for_each_unstable_function).
///
/// # Errors
///
/// [`Stop`] when the call does not return to the guest.
impl Wasi {
    /// The function `fd_seek` of preview 0.
    pub fn unstable_fd_seek(
        &mut self,
        memory: &mut [u8],
        fd: u32,
        offset: i64,
        old_whence: u32,
        position: u32,
    ) -> Result<Errno, Stop> {
        let memory = Memory::new(memory);
        answer(match whence(old_whence) {
            Ok(whence) => fd_seek(self, memory, fd, offset, whence, position),
            Err(error) => Err(error.into()),
        })
    }

    /// The function `fd_filestat_get` of preview 0.
    pub fn unstable_fd_filestat_get(
        &mut self,
        memory: &mut [u8],
        fd: u32,
        pointer: u32,
    ) -> Result<Errno, Stop> {
        let memory = &mut Memory::new(memory);
        let ask = |scratch: Memory<'_>| fd_filestat_get(self, scratch, fd, 0);
        answer(filestat(memory, (0, 0), pointer, ask))
    }

    /// The function `path_filestat_get` of preview 0.
    pub fn unstable_path_filestat_get(
        &mut self,
        memory: &mut [u8],
        fd: u32,
        lookup: u32,
        path: u32,
        path_length: u32,
        pointer: u32,
    ) -> Result<Errno, Stop> {
        let memory = &mut Memory::new(memory);
        let ask = |scratch: Memory<'_>| {
            path_filestat_get(self, scratch, fd, lookup, FILESTAT_BYTES, path_length, 0)
        };
        answer(filestat(memory, (path, path_length), pointer, ask))
    }

    /// The function `poll_oneoff` of preview 0.
    pub fn unstable_poll_oneoff(
        &mut self,
        memory: &mut [u8],
        subscriptions: u32,
        events: u32,
        subscriptions_length: u32,
        nevents: u32,
    ) -> Result<Errno, Stop> {
        answer(poll(
            self,
            Memory::new(memory),
            SUBSCRIPTION,
            subscriptions,
            events,
            subscriptions_length,
            nevents,
        ))
    }
}

/// Calls `$callback!` with the functions of `wasi_unstable` that differ from those of preview 1, as
/// [`for_each_function!`](crate::for_each_function) does with all of those, and with the method of
/// [`Wasi`](crate::Wasi) that each is. All others are as in preview 1, except that there is no `sock_accept`.
///
/// ```
/// macro_rules! names {
///     ($($name:ident = $method:ident($($parameter:ident: $type:ident),*);)*) => {
///         [$(stringify!($name)),*]
///     };
/// }
/// let differing = wsnap_wasi::for_each_unstable_function!(names);
/// assert_eq!(differing, ["fd_seek", "fd_filestat_get", "path_filestat_get", "poll_oneoff"]);
/// ```
#[macro_export]
macro_rules! for_each_unstable_function {
    ($callback:ident) => {
        $callback! {
            fd_seek = unstable_fd_seek(fd: u32, offset: i64, whence: u32, position: u32);
            fd_filestat_get = unstable_fd_filestat_get(fd: u32, filestat: u32);
            path_filestat_get = unstable_path_filestat_get(fd: u32, lookup: u32, path: u32, path_length: u32, filestat: u32);
            poll_oneoff = unstable_poll_oneoff(subscriptions: u32, events: u32, subscriptions_length: u32, nevents: u32);
        }
    };
}
