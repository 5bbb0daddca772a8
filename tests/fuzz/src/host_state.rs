//! Host state from strangers: sections of images as they come, and true ones changed a little.

use crate::input::{Input, disturb_bytes};
use crate::measure;
use crate::scratch::scratch;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::OnceLock;
use wsnap_wasi::{
    Errno, Files, Grants, Preopen, SavedState, StandardStreams, Stdio, Stop, VolumeGrant, Wasi,
    WasiConfig,
};

/// A decoded state takes at most so many times its bytes, and restoring it so much more: buffers, and the tables of
/// descriptors that a program always has.
const BYTES_PER_BYTE: usize = 200;
const BYTES_ALWAYS: usize = 16 << 20;

const MEMORY_BYTES: usize = 64 << 10;
/// What lies outside of the granted directory.
const SECRET: &[u8] = b"nobody may read or change this";

fn streams() -> StandardStreams {
    let null = || {
        let file = fs::File::options().read(true).write(true).open("/dev/null");
        Stdio::Descriptor(file.expect("every system has it").into())
    };
    StandardStreams {
        stdin: null(),
        stdout: null(),
        stderr: null(),
    }
}

fn preopens(inside: &Path) -> Vec<Preopen> {
    vec![Preopen::open(inside, "/w").expect("the directory exists")]
}

/// A directory to grant, and a secret beside it.
struct Place {
    base: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let base = scratch();
        let place = Self { base };
        let (inside, outside) = (place.inside(), place.base.path().join("outside"));
        for directory in [&inside, &outside, &inside.join("d")] {
            fs::create_dir(directory).expect("there is room");
        }
        fs::write(inside.join("a"), b"some content").expect("there is room");
        fs::write(inside.join("d/b"), vec![7; 100_000]).expect("there is room");
        fs::write(outside.join("secret"), SECRET).expect("there is room");
        std::os::unix::fs::symlink("../outside", inside.join("out")).expect("there is room");
        place
    }

    fn inside(&self) -> std::path::PathBuf {
        self.base.path().join("inside")
    }

    /// Asserts that what lies outside is as it was.
    fn is_left_alone(&self) {
        let secret = fs::read(self.base.path().join("outside/secret")).expect("nobody removed it");
        assert_eq!(secret, SECRET);
        let entries = |path: &Path| fs::read_dir(path).expect("nobody removed it").count();
        assert_eq!(
            (
                entries(self.base.path()),
                entries(&self.base.path().join("outside"))
            ),
            (2, 1)
        );
    }
}

/// Calls of a program on its host state, with its memory.
struct Guest {
    wasi: Wasi,
    memory: Vec<u8>,
}

impl Guest {
    fn new(wasi: Wasi) -> Self {
        Self {
            wasi,
            memory: vec![0; MEMORY_BYTES],
        }
    }

    /// Puts a path where the calls below find it, and returns where and how long it is.
    fn path(&mut self, path: &str) -> (u32, u32) {
        self.memory[256..256 + path.len()].copy_from_slice(path.as_bytes());
        (256, path.len() as u32)
    }

    fn open(&mut self, fd: u32, path: &str, oflags: u32) {
        let (at, length) = self.path(path);
        seen(self.wasi.path_open(
            &mut self.memory,
            fd,
            0,
            at,
            length,
            oflags,
            0x3fff_ffff,
            0,
            0,
            64,
        ));
    }

    fn write(&mut self, fd: u32, length: u32) {
        self.buffer(length);
        seen(self.wasi.fd_write(&mut self.memory, fd, 512, 1, 64));
    }

    /// Describes a buffer for transfers.
    fn buffer(&mut self, length: u32) {
        self.memory[512..516].copy_from_slice(&16384_u32.to_le_bytes());
        self.memory[516..520].copy_from_slice(&length.to_le_bytes());
        self.memory[16384..16384 + length as usize].fill(7);
    }

    /// Does something with every descriptor that there can be.
    fn use_all(&mut self) {
        for fd in 0..16 {
            self.buffer(3000);
            let memory = &mut self.memory;
            let wasi = &mut self.wasi;
            seen(wasi.fd_fdstat_get(memory, fd, 64));
            seen(wasi.fd_filestat_get(memory, fd, 128));
            seen(wasi.fd_tell(memory, fd, 64));
            seen(wasi.fd_pread(memory, fd, 512, 1, 5, 64));
            seen(wasi.fd_read(memory, fd, 512, 1, 64));
            seen(wasi.fd_seek(memory, fd, i64::MAX, 1, 64));
            seen(wasi.fd_seek(memory, fd, 1, 2, 64));
            seen(wasi.fd_write(memory, fd, 512, 1, 64));
            seen(wasi.fd_readdir(memory, fd, 1024, 2000, 0, 64));
            seen(wasi.fd_allocate(memory, fd, 0, 10_000));
            seen(wasi.fd_filestat_set_size(memory, fd, 5000));
            self.open(fd, "new", 1);
            self.open(fd, "d/../../outside/secret", 0);
        }
        let memory = &mut self.memory;
        seen(self.wasi.random_get(memory, 16384, 1000));
        seen(self.wasi.clock_time_get(memory, 1, 0, 64));
        seen(self.wasi.clock_time_get(memory, 0, 0, 64));
        seen(self.wasi.args_sizes_get(memory, 64, 68));
        seen(self.wasi.environ_sizes_get(memory, 64, 68));
        // A sleep, in case one was suspended.
        memory[2048..2096].fill(0);
        memory[2064] = 1;
        memory[2072] = 5;
        seen(self.wasi.poll_oneoff(memory, 2048, 4096, 1, 64));
        for fd in 0..16 {
            seen(self.wasi.fd_close(&mut self.memory, fd));
        }
        let found = self
            .memory
            .windows(SECRET.len())
            .any(|bytes| bytes == SECRET);
        assert!(!found, "the secret was read");
    }
}

/// Calls return to the guest, or are suspended, as they would block.
fn seen(result: Result<Errno, Stop>) {
    match result {
        Ok(errno) => assert!(errno.raw() <= 76, "{errno:?}"),
        Err(stop) => assert_eq!(stop, Stop::Suspended),
    }
}

/// States as programs have them: with files of all kinds open, deterministic or not.
fn true_states() -> &'static [Vec<u8>] {
    static STATES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    STATES.get_or_init(|| [false, true].map(true_state).into())
}

fn true_state(deterministic: bool) -> Vec<u8> {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let _peer =
        TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let config = WasiConfig {
        args: vec!["program".into(), "argument".into()],
        env: vec![("NAME".into(), "value".into())],
        preopens: preopens(&place.inside()),
        volumes: ["data", "more"]
            .map(|name| VolumeGrant {
                name: name.into(),
                guest_path: format!("/{name}"),
            })
            .into(),
        streams: streams(),
        deterministic_seed: deterministic.then_some([1; 32]),
        listeners: vec![listener],
    };
    let wasi = Wasi::new(config).expect("a valid configuration");
    wasi.interrupter().interrupt();
    let mut guest = Guest::new(wasi);
    guest.open(3, "a", 0);
    guest.open(3, "d/b", 0);
    guest.open(3, "d", 2);
    for fd in [3, 4, 5] {
        guest.open(fd, "gone", 1);
        let opened = guest.memory[64..68]
            .first_chunk()
            .map_or(0, |fd| u32::from_le_bytes(*fd));
        guest.write(opened, 9000);
        let (at, length) = guest.path("gone");
        seen(
            guest
                .wasi
                .path_unlink_file(&mut guest.memory, fd, at, length),
        );
        let (at, length) = guest.path("sub");
        seen(
            guest
                .wasi
                .path_create_directory(&mut guest.memory, fd, at, length),
        );
        guest.open(fd, "sub/kept", 1);
        let opened = guest.memory[64..68]
            .first_chunk()
            .map_or(0, |fd| u32::from_le_bytes(*fd));
        guest.write(opened, 5000);
    }
    seen(guest.wasi.sock_accept(&mut guest.memory, 6, 0, 64));
    guest.memory[2064] = 1;
    guest.memory[2077] = 5;
    seen(guest.wasi.poll_oneoff(&mut guest.memory, 2048, 4096, 1, 64));
    guest.wasi.save().expect("all of it can be saved")
}

/// Restores the state that `bytes` are, or that they make of a true one, and uses it, if it is not refused.
///
/// # Panics
///
/// If something does not hold.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.byte();
    let states = true_states();
    let state = match states.get(usize::from(kind % 3)) {
        Some(state) => {
            let mut state = state.clone();
            disturb_bytes(&mut input, &mut state);
            state
        }
        None => input.rest().to_vec(),
    };
    let turn = measure::turn();
    let limit = BYTES_ALWAYS + state.len() * BYTES_PER_BYTE;
    let decoded = SavedState::decode(&state);
    turn.took_at_most(limit);
    let Ok(saved) = decoded else { return };
    assert_eq!(saved.encode(), state, "a state has one form");
    let place = Place::new();
    let grants = Grants {
        preopens: preopens(&place.inside()),
        listeners: vec![TcpListener::bind("127.0.0.1:0").expect("a port is free")],
        streams: streams(),
        files: [Files::RequireSame, Files::Reopen, Files::SkipMissing][usize::from(kind / 3) % 3],
        ..Grants::default()
    };
    let restored = Wasi::restore(&saved, grants);
    turn.took_at_most(limit);
    if let Ok(mut wasi) = restored {
        wasi.interrupter().interrupt();
        wasi.set_volume_limit(1 << 20);
        give_memories(&mut wasi);
        if let Ok(again) = wasi.saved_state() {
            assert_eq!(SavedState::decode(&again.encode()).as_ref(), Ok(&again));
        }
        let mut guest = Guest::new(wasi);
        guest.use_all();
    }
    turn.took_at_most(limit);
    place.is_left_alone();
}

/// Gives each volume the memory that its image would have. What is too large for this test is left without one.
fn give_memories(wasi: &mut Wasi) {
    let sizes: Vec<u64> = wasi
        .volumes()
        .map(|volume| volume.content_bytes())
        .collect();
    for (index, size) in sizes.into_iter().enumerate() {
        if size <= 1 << 20 {
            let set = wasi.set_volume_memory(index, Box::new(vec![0; size as usize]));
            assert_eq!(set, Ok(()));
        }
    }
}
