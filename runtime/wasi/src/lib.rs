//! WASI preview 1 for programs that are stopped and go on elsewhere.
//!
//! [`Wasi`] is the whole host state of one program: descriptors, clocks, random stream, a wait that was cut short. Every
//! bit of it belongs to this package, so it can be saved as bytes and restored in another process. It has a method for
//! each function of `wasi_snapshot_preview1` and knows no engine: an engine links them with [`for_each_function!`].
//!
//! ```
//! use wsnap_wasi::{Errno, Grants, SavedState, Wasi, WasiConfig};
//!
//! let config = WasiConfig { args: vec!["program".to_owned()], ..WasiConfig::default() };
//! let mut wasi = Wasi::new(config)?;
//! let mut memory = vec![0; 65536];
//! assert_eq!(wasi.args_sizes_get(&mut memory, 0, 4), Ok(Errno::Success));
//! assert_eq!(memory[0..8], [1, 0, 0, 0, 8, 0, 0, 0]);
//!
//! // Here, or in another process:
//! let state = SavedState::decode(&wasi.save()?)?;
//! let resumed = Wasi::restore(&state, Grants::default())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Behaviour
//!
//! Error numbers, rights and file types are those of wasmtime's own preview 1, except that an address out of range is
//! [`Errno::Fault`] and an unknown flag or enumerator [`Errno::Inval`] where wasmtime traps, that descriptors get the
//! lowest free number, that `fd_allocate` works, that reads and writes use all buffers given, and that a slash at the
//! end of a path asks for a directory, as on Linux. Errors of the host for which wasmtime's preview 1 has no word, and
//! says [`Errno::Io`], keep their own number, and the third time of a file is that of its last change of status, for
//! which wasmtime puts the time of its creation. Sockets are listeners that were granted, and what they accept: see
//! [`WasiConfig::listeners`]; their error numbers are those of Linux. The functions rely on `SIGPIPE` being ignored, as
//! it is in every Rust program: writing to a closed pipe is [`Errno::Pipe`].
//!
//! A call that blocks, on a standard stream, a socket or in `poll_oneoff`, is cut short by an [`Interrupter`] before it takes
//! effect and returns [`Stop::Suspended`]: it is to be made again. A write that was interrupted after some bytes
//! returns their count instead.
//!
//! Programs of 2019 and 2020 import `wasi_unstable` instead (preview 0): [`for_each_unstable_function!`] lists the few
//! functions of it that differ.
//!
//! Linux only: interruption uses `eventfd`, and streams `preadv2`.

mod bytes;
mod calls;
mod carried;
mod clocks;
mod descriptors;
mod directories;
mod errno;
mod files;
mod generation;
mod interrupt;
mod listing;
mod locate;
mod memory;
mod paths;
mod poll;
mod process;
mod random;
mod restore;
mod save;
mod saved_state;
mod sockets;
mod stat;
mod streams;
mod types;
mod unstable;
mod volume;
mod volume_calls;
mod wasi;

pub use calls::Stop;
pub use carried::{CARRIED_BYTES_MAX, CarriedExtent, CarriedFile};
pub use clocks::{DETERMINISTIC_EPOCH_NS, DETERMINISTIC_STEP_NS};
pub use descriptors::Access;
pub use errno::Errno;
pub use interrupt::Interrupter;
pub use restore::{AcceptedChange, Change, Files, Grants, RestoreError};
pub use save::SaveError;
pub use saved_state::{
    DecodeError, Evidence, Fingerprint, PendingWait, STATE_VERSION, SavedConnection,
    SavedDescriptor, SavedDirectory, SavedFile, SavedFileKind, SavedListener, SavedLost,
    SavedRandom, SavedState, SavedVolumeDirectory, SavedVolumeFile,
};
pub use streams::{Standard, StandardStreams, Stdio};
pub use types::{FdFlags, FileType, LookupFlags, OFlags, ReceiveFlags, Rights, ShutdownFlags};
pub use volume::{
    SavedVolume, Volume, VolumeEntry, VolumeError, VolumeGrant, VolumeMemory, VolumeTree,
};
pub use wasi::{Preopen, Wasi, WasiConfig, WasiError};
