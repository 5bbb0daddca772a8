//! A guest in miniature: a memory with fixed places for arguments, and the calls that most tests make.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::Path;
use tempfile::TempDir;
use wsnap_wasi::{
    Errno, Grants, OFlags, Preopen, RestoreError, Rights, SavedState, StandardStreams, Stdio, Stop,
    Wasi, WasiConfig,
};

/// Where results are stored.
pub const OUT: u32 = 0;
/// Where arrays of buffers are.
pub const IOVS: u32 = 256;
/// Where the first path is.
pub const PATH: u32 = 1024;
/// Where the second path is.
pub const PATH2: u32 = 2048;
/// Where data is, up to the end.
pub const DATA: u32 = 4096;
/// The first granted directory.
pub const DIR: u32 = 3;

pub const MEMORY_BYTES: usize = 256 * 1024;

pub const READ: Rights = Rights::FD_READ;
pub const WRITE: Rights = Rights::FD_WRITE;

pub struct Guest {
    pub wasi: Wasi,
    pub memory: Vec<u8>,
    /// The host's directory that the guest knows as `/w`.
    pub dir: TempDir,
}

/// Calls a function of preview 1 with the guest's memory.
#[macro_export]
macro_rules! call {
    ($guest:ident . $name:ident ( $($argument:expr),* $(,)? )) => {
        $guest.wasi.$name(&mut $guest.memory, $($argument),*)
    };
}

/// The outcome of a call that must return to the guest.
pub fn returned(result: Result<Errno, Stop>) -> Result<(), Errno> {
    match result {
        Ok(Errno::Success) => Ok(()),
        Ok(errno) => Err(errno),
        Err(stop) => panic!("the call did not return to the guest: {stop:?}"),
    }
}

pub fn closed_streams() -> StandardStreams {
    StandardStreams {
        stdin: Stdio::Closed,
        stdout: Stdio::Closed,
        stderr: Stdio::Closed,
    }
}

pub fn preopens(dir: &Path) -> Vec<Preopen> {
    vec![Preopen::open(dir, "/w").expect("the directory exists")]
}

pub fn grants(dir: &Path) -> Grants {
    Grants {
        preopens: preopens(dir),
        streams: closed_streams(),
        ..Grants::default()
    }
}

impl Guest {
    /// A guest with an empty `/w` and closed streams.
    pub fn new() -> Guest {
        Guest::with(|_| {})
    }

    pub fn with_streams(streams: StandardStreams) -> Guest {
        Guest::with(|config| config.streams = streams)
    }

    pub fn deterministic(seed: u8) -> Guest {
        Guest::with(|config| config.deterministic_seed = Some([seed; 32]))
    }

    pub fn with(change: impl FnOnce(&mut WasiConfig)) -> Guest {
        let dir = TempDir::new().expect("a temporary directory");
        let mut config = WasiConfig {
            args: vec!["program".to_owned()],
            env: vec![("HOME".to_owned(), "/w".to_owned())],
            preopens: preopens(dir.path()),
            volumes: Vec::new(),
            listeners: Vec::new(),
            streams: closed_streams(),
            deterministic_seed: None,
        };
        change(&mut config);
        Guest {
            wasi: Wasi::new(config).expect("a valid configuration"),
            memory: vec![0; MEMORY_BYTES],
            dir,
        }
    }

    /// What another process would make of this guest's state, in the same directory.
    pub fn resume(self) -> Result<Guest, RestoreError> {
        let state = self.state();
        let grants = grants(self.dir.path());
        Ok(Guest {
            wasi: Wasi::restore(&state, grants)?,
            ..self
        })
    }

    pub fn state(&self) -> SavedState {
        let bytes = self.wasi.save().expect("the state can be saved");
        SavedState::decode(&bytes).expect("what was saved can be decoded")
    }

    pub fn host(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    pub fn put(&mut self, address: u32, bytes: &[u8]) -> u32 {
        let start = address as usize;
        self.memory[start..start + bytes.len()].copy_from_slice(bytes);
        bytes.len() as u32
    }

    pub fn bytes(&self, address: u32, length: u32) -> &[u8] {
        &self.memory[address as usize..][..length as usize]
    }

    pub fn u32(&self, address: u32) -> u32 {
        u32::from_le_bytes(self.bytes(address, 4).try_into().expect("4 bytes"))
    }

    pub fn u64(&self, address: u32) -> u64 {
        u64::from_le_bytes(self.bytes(address, 8).try_into().expect("8 bytes"))
    }

    /// Makes the array of buffers at `IOVS` name `length` bytes at `DATA`.
    pub fn one_buffer(&mut self, length: u32) {
        self.put(IOVS, &DATA.to_le_bytes());
        self.put(IOVS + 4, &length.to_le_bytes());
    }

    pub fn open(&mut self, path: &str, oflags: OFlags, rights: Rights) -> Result<u32, Errno> {
        self.open_at(DIR, path, oflags, rights, 0)
    }

    pub fn open_at(
        &mut self,
        dir: u32,
        path: &str,
        oflags: OFlags,
        rights: Rights,
        fdflags: u32,
    ) -> Result<u32, Errno> {
        let length = self.put(PATH, path.as_bytes());
        let (oflags, rights) = (oflags.bits().into(), rights.bits());
        returned(call!(self.path_open(
            dir, 1, PATH, length, oflags, rights, 0, fdflags, OUT
        )))?;
        Ok(self.u32(OUT))
    }

    /// Creates a file for reading and writing.
    pub fn create(&mut self, path: &str) -> u32 {
        let created = self.open(path, OFlags::CREAT, READ | WRITE);
        created.expect("the file can be created")
    }

    pub fn write(&mut self, fd: u32, bytes: &[u8]) -> Result<u32, Errno> {
        let length = self.put(DATA, bytes);
        self.one_buffer(length);
        returned(call!(self.fd_write(fd, IOVS, 1, OUT)))?;
        Ok(self.u32(OUT))
    }

    pub fn read(&mut self, fd: u32, length: u32) -> Result<Vec<u8>, Errno> {
        self.one_buffer(length);
        returned(call!(self.fd_read(fd, IOVS, 1, OUT)))?;
        Ok(self.bytes(DATA, self.u32(OUT)).to_vec())
    }

    pub fn seek(&mut self, fd: u32, offset: i64, whence: u32) -> Result<u64, Errno> {
        returned(call!(self.fd_seek(fd, offset, whence, OUT)))?;
        Ok(self.u64(OUT))
    }

    pub fn tell(&mut self, fd: u32) -> Result<u64, Errno> {
        returned(call!(self.fd_tell(fd, OUT)))?;
        Ok(self.u64(OUT))
    }

    pub fn close(&mut self, fd: u32) -> Result<(), Errno> {
        returned(call!(self.fd_close(fd)))
    }

    pub fn monotonic_ns(&mut self) -> u64 {
        returned(call!(self.clock_time_get(1, 0, OUT))).expect("the clock can be read");
        self.u64(OUT)
    }

    pub fn random<const N: usize>(&mut self) -> [u8; N] {
        returned(call!(self.random_get(DATA, N as u32))).expect("random bytes");
        self.bytes(DATA, N as u32).try_into().expect("N bytes")
    }
}
