//! The functions of preview 1, their list, and how they end.

pub(crate) use crate::clocks::{clock_res_get, clock_time_get};
pub(crate) use crate::directories::{fd_prestat_dir_name, fd_prestat_get, fd_readdir};
pub(crate) use crate::files::*;
pub(crate) use crate::paths::*;
pub(crate) use crate::poll::poll_oneoff;
pub(crate) use crate::process::*;
pub(crate) use crate::random::random_get;
pub(crate) use crate::sockets::{sock_accept, sock_recv, sock_send, sock_shutdown};

use crate::errno::Errno;
use crate::memory::Memory;
use crate::wasi::Wasi;
use std::convert::Infallible;
use std::io;

/// Why a call does not return to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest called `proc_exit` with this code. wasmtime traps for codes from 126 on; that is left to the caller.
    Exit(u32),
    /// The call would have blocked and was interrupted before it took effect: no byte was read or written. It is to be
    /// made again, with the same arguments, when the program goes on.
    Suspended,
}

/// How an implementation of a function fails.
#[derive(Debug)]
pub(crate) enum Failure {
    Errno(Errno),
    Stop(Stop),
}

pub(crate) type Outcome = Result<(), Failure>;

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure::Errno(errno)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Failure {
        Failure::Stop(stop)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Errno(error.into())
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Failure {
        Failure::Errno(error.into())
    }
}

/// What the guest is told.
pub(crate) fn answer(outcome: Outcome) -> Result<Errno, Stop> {
    match outcome {
        Ok(()) => Ok(Errno::Success),
        Err(Failure::Errno(errno)) => Ok(errno),
        Err(Failure::Stop(stop)) => Err(stop),
    }
}

/// Calls `$callback!` with the list of all functions of `wasi_snapshot_preview1`.
///
/// Each entry is `name(parameter: type, …) -> result;`. A parameter's type is `u32` (wasm `i32`), `u64` or `i64`
/// (both wasm `i64`). The result is `errno`: the wasm function returns one `i32`, [`Errno::raw`](crate::Errno::raw);
/// or `never` (`proc_exit` only): the wasm function returns nothing, because it never returns.
///
/// [`Wasi`](crate::Wasi) has a method of each name, which takes the guest's memory first:
///
/// ```
/// macro_rules! names {
///     ($($name:ident($($parameter:ident: $type:ident),*) -> $result:ident;)*) => {
///         [$(stringify!($name)),*]
///     };
/// }
/// let all = wsnap_wasi::for_each_function!(names);
/// assert_eq!(all.len(), 46);
/// ```
#[macro_export]
macro_rules! for_each_function {
    ($callback:ident) => {
        $callback! {
            args_get(argv: u32, argv_buf: u32) -> errno;
            args_sizes_get(count: u32, length: u32) -> errno;
            environ_get(environ: u32, environ_buf: u32) -> errno;
            environ_sizes_get(count: u32, length: u32) -> errno;
            clock_res_get(id: u32, resolution: u32) -> errno;
            clock_time_get(id: u32, precision: u64, time: u32) -> errno;
            fd_advise(fd: u32, offset: u64, length: u64, advice: u32) -> errno;
            fd_allocate(fd: u32, offset: u64, length: u64) -> errno;
            fd_close(fd: u32) -> errno;
            fd_datasync(fd: u32) -> errno;
            fd_fdstat_get(fd: u32, fdstat: u32) -> errno;
            fd_fdstat_set_flags(fd: u32, flags: u32) -> errno;
            fd_fdstat_set_rights(fd: u32, base: u64, inheriting: u64) -> errno;
            fd_filestat_get(fd: u32, filestat: u32) -> errno;
            fd_filestat_set_size(fd: u32, size: u64) -> errno;
            fd_filestat_set_times(fd: u32, atim: u64, mtim: u64, flags: u32) -> errno;
            fd_pread(fd: u32, iovs: u32, iovs_length: u32, offset: u64, nread: u32) -> errno;
            fd_prestat_get(fd: u32, prestat: u32) -> errno;
            fd_prestat_dir_name(fd: u32, path: u32, path_length: u32) -> errno;
            fd_pwrite(fd: u32, iovs: u32, iovs_length: u32, offset: u64, nwritten: u32) -> errno;
            fd_read(fd: u32, iovs: u32, iovs_length: u32, nread: u32) -> errno;
            fd_readdir(fd: u32, buf: u32, buf_length: u32, cookie: u64, used: u32) -> errno;
            fd_renumber(fd: u32, to: u32) -> errno;
            fd_seek(fd: u32, offset: i64, whence: u32, position: u32) -> errno;
            fd_sync(fd: u32) -> errno;
            fd_tell(fd: u32, position: u32) -> errno;
            fd_write(fd: u32, iovs: u32, iovs_length: u32, nwritten: u32) -> errno;
            path_create_directory(fd: u32, path: u32, path_length: u32) -> errno;
            path_filestat_get(fd: u32, lookup: u32, path: u32, path_length: u32, filestat: u32) -> errno;
            path_filestat_set_times(fd: u32, lookup: u32, path: u32, path_length: u32, atim: u64, mtim: u64, flags: u32) -> errno;
            path_link(old_fd: u32, lookup: u32, old_path: u32, old_path_length: u32, new_fd: u32, new_path: u32, new_path_length: u32) -> errno;
            path_open(fd: u32, lookup: u32, path: u32, path_length: u32, oflags: u32, rights_base: u64, rights_inheriting: u64, fdflags: u32, opened: u32) -> errno;
            path_readlink(fd: u32, path: u32, path_length: u32, buf: u32, buf_length: u32, used: u32) -> errno;
            path_remove_directory(fd: u32, path: u32, path_length: u32) -> errno;
            path_rename(fd: u32, old_path: u32, old_path_length: u32, new_fd: u32, new_path: u32, new_path_length: u32) -> errno;
            path_symlink(old_path: u32, old_path_length: u32, fd: u32, new_path: u32, new_path_length: u32) -> errno;
            path_unlink_file(fd: u32, path: u32, path_length: u32) -> errno;
            poll_oneoff(subscriptions: u32, events: u32, subscriptions_length: u32, nevents: u32) -> errno;
            proc_exit(code: u32) -> never;
            proc_raise(signal: u32) -> errno;
            random_get(buf: u32, buf_length: u32) -> errno;
            sched_yield() -> errno;
            sock_accept(fd: u32, flags: u32, accepted: u32) -> errno;
            sock_recv(fd: u32, iovs: u32, iovs_length: u32, flags: u32, nread: u32, result_flags: u32) -> errno;
            sock_send(fd: u32, iovs: u32, iovs_length: u32, flags: u32, nwritten: u32) -> errno;
            sock_shutdown(fd: u32, how: u32) -> errno;
        }
    };
}

macro_rules! define_methods {
    ($($name:ident($($parameter:ident: $type:ident),*) -> $result:ident;)*) => {
        /// The functions of `wasi_snapshot_preview1`, by their own names.
        ///
        /// `memory` is the guest's whole linear memory; parameters are the guest's, unchecked. An address out of range is
        /// [`Errno::Fault`], an unknown flag or enumerator [`Errno::Inval`].
        ///
        /// # Errors
        ///
        /// [`Stop`] when the call does not return to the guest.
        impl Wasi {
            $(define_methods!(@one $result $name($($parameter: $type),*));)*
        }
    };
    (@one errno $name:ident($($parameter:ident: $type:ident),*)) => {
        #[doc = concat!("The function `", stringify!($name), "`.")]
        #[allow(clippy::too_many_arguments, reason = "the parameters are those of preview 1")]
        pub fn $name(&mut self, memory: &mut [u8], $($parameter: $type),*) -> Result<Errno, Stop> {
            answer($name(self, Memory::new(memory), $($parameter),*))
        }
    };
    (@one never $name:ident($($parameter:ident: $type:ident),*)) => {
        #[doc = concat!("The function `", stringify!($name), "`, which never returns to the guest.")]
        pub fn $name(&mut self, _memory: &mut [u8], $($parameter: $type),*) -> Result<Infallible, Stop> {
            Err($name($($parameter),*))
        }
    };
}

for_each_function!(define_methods);
