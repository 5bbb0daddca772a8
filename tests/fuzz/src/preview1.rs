//! Calls of preview 1 that nobody in their right mind would make.
//!
//! Bytes are read as a list of calls: first what is put into the guest's memory, then a function and its arguments. Most
//! arguments mean something, or nothing would ever be opened.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use wsnap_wasi::{
    Errno, Grants, Preopen, SaveError, SavedState, StandardStreams, Stdio, Stop, VolumeGrant, Wasi,
    WasiConfig,
};

const MEMORY_BYTES: usize = 64 << 10;
/// What lies outside of the granted directory.
const SECRET: &[u8] = b"nobody may read or change this";
/// So many calls are made of one input.
const CALLS_MAX: usize = 200;
/// So many bytes of the disk one call may take.
const ALLOCATED_BYTES_MAX: u64 = 1 << 16;
/// So many bytes each volume may hold.
const VOLUME_BYTES_MAX: u64 = 1 << 20;

/// Names that lead somewhere, or try to lead out.
const PATHS: &[&str] = &[
    "a",
    "b",
    "d",
    "d/a",
    "d/e",
    "link",
    "link/a",
    "out",
    "out/secret",
    "..",
    "../outside/secret",
    "/",
    "/etc/passwd",
    ".",
    "d/../../outside",
    "a/",
    "",
    "\0",
    "d/./..",
    "../inside/a",
];

/// Where paths are put for calls to find them.
const PATH: u32 = 256;
const OTHER_PATH: u32 = 512;
/// Where buffers are described, and where they lie.
const BUFFERS: u32 = 768;
const DATA: u32 = 16 << 10;
/// Where subscriptions are, and where results go.
const SUBSCRIPTIONS: u32 = 2 << 10;
const RESULTS: u32 = 8 << 10;

/// Bytes that decide, and the lengths of the paths that they have put into memory.
struct Input<'b> {
    bytes: &'b [u8],
    path_length: u32,
    other_path_length: u32,
}

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                *first
            }
            None => 0,
        }
    }

    fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.byte());
        u64::from_le_bytes(bytes)
    }

    /// Anything, most of it at an edge.
    fn anything(&mut self) -> u64 {
        match self.byte() % 4 {
            0 => self.number(),
            1 => u64::MAX - u64::from(self.byte()),
            // Where the memory ends.
            2 => (MEMORY_BYTES as u64 + 8).saturating_sub(u64::from(self.byte())),
            _ => u64::from(self.byte()),
        }
    }

    /// An argument of a function, by its name: most often one that means something.
    fn u32(&mut self, name: &str) -> u32 {
        if self.byte().is_multiple_of(64) {
            return self.anything() as u32;
        }
        let few = u32::from(self.byte());
        match name {
            "fd" | "old_fd" | "new_fd" | "to" => {
                [3, 4, 3, 4, 5, 6, 7, 8, 9, few % 10][few as usize % 10]
            }
            "path" | "old_path" => PATH,
            "new_path" => OTHER_PATH,
            "path_length" | "old_path_length" => self.path_length,
            "new_path_length" => self.other_path_length,
            "iovs" => BUFFERS,
            "subscriptions" => SUBSCRIPTIONS,
            "iovs_length" | "subscriptions_length" => few % 4,
            "buf_length" | "length" => few * 8,
            "oflags" => [0, 0, 1, 1, 2, 5, 8, 9][few as usize % 8],
            "fdflags" => [0, 0, 1, 4][few as usize % 4],
            "lookup" => few % 2,
            "flags" | "id" | "advice" | "whence" | "how" | "signal" => few % 6,
            "code" => few,
            _ => RESULTS + few * 8,
        }
    }

    fn u64(&mut self, name: &str) -> u64 {
        match name {
            "rights_base" if !self.byte().is_multiple_of(32) => {
                [2, 0x40, 0x42, 0x3fff_ffff][usize::from(self.byte()) % 4]
            }
            "rights_inheriting" => 0,
            _ if self.byte().is_multiple_of(8) => self.anything(),
            _ => u64::from(self.byte()) * 100,
        }
    }

    fn i64(&mut self, name: &str) -> i64 {
        self.u64(name) as i64
    }

    /// Puts into memory what the next call may use: two paths, buffers, a subscription, and anything at all.
    fn fill(&mut self, memory: &mut [u8]) {
        let mut put = |address: u32, bytes: &[u8]| {
            let start = address as usize;
            memory[start..start + bytes.len()].copy_from_slice(bytes);
            bytes.len() as u32
        };
        let path = PATHS[usize::from(self.byte()) % PATHS.len()];
        self.path_length = put(PATH, path.as_bytes());
        let path = PATHS[usize::from(self.byte()) % PATHS.len()];
        self.other_path_length = put(OTHER_PATH, path.as_bytes());
        for place in 0..4 {
            let (address, length) = match self.byte() {
                0 => (self.anything() as u32, self.anything() as u32),
                few => (DATA + u32::from(few) * 40, u32::from(few) * 30),
            };
            put(BUFFERS + 8 * place, &address.to_le_bytes());
            put(BUFFERS + 8 * place + 4, &length.to_le_bytes());
        }
        for place in 0..3 {
            let mut subscription = [0; 48];
            subscription[8] = self.byte() % 4;
            subscription[16] = self.byte() % 8;
            subscription[24] = self.byte();
            subscription[40] = self.byte() % 3;
            put(SUBSCRIPTIONS + 48 * place, &subscription);
        }
        if self.byte().is_multiple_of(8) {
            let address = SUBSCRIPTIONS + u32::from(self.byte());
            let anything = self.anything().to_le_bytes();
            put(address, &anything);
        }
    }
}

macro_rules! calls {
    ($($name:ident($($parameter:ident: $type:ident),*) -> $result:ident;)*) => {
        /// Makes the call that the input says, if the program goes on after it.
        fn call(wasi: &mut Wasi, memory: &mut [u8], input: &mut Input<'_>) {
            let names = [$(stringify!($name)),*];
            let functions: &[fn(&mut Wasi, &mut [u8], &mut Input<'_>)] = &[
                $(|wasi, memory, input| {
                    // One function has no arguments.
                    let _ = &input;
                    $(let $parameter = input.$type(stringify!($parameter));)*
                    calls!(@one $result wasi, memory, $name($($parameter),*));
                },)*
            ];
            let index = usize::from(input.byte());
            // Files have to be opened before much can happen to them.
            let index = match index % 5 {
                0 => names.iter().position(|name| *name == "path_open").unwrap_or_default(),
                _ => index % functions.len(),
            };
            functions[index](wasi, memory, input);
        }
    };
    (@one errno $wasi:ident, $memory:ident, fd_close($fd:ident)) => {
        seen($wasi.fd_close($memory, spared($fd)))
    };
    (@one errno $wasi:ident, $memory:ident, fd_renumber($fd:ident, $to:ident)) => {
        seen($wasi.fd_renumber($memory, spared($fd), spared($to)))
    };
    (@one errno $wasi:ident, $memory:ident, fd_allocate($fd:ident, $offset:ident, $length:ident)) => {
        seen($wasi.fd_allocate($memory, $fd, $offset, $length % ALLOCATED_BYTES_MAX))
    };
    (@one errno $wasi:ident, $memory:ident, $name:ident($($argument:ident),*)) => {
        seen($wasi.$name($memory, $($argument),*))
    };
    (@one never $wasi:ident, $memory:ident, $name:ident($argument:ident)) => {
        match $wasi.$name($memory, $argument) {
            Err(stop) => assert_eq!(stop, Stop::Exit($argument)),
            Ok(never) => match never {},
        }
    };
}

wsnap_wasi::for_each_function!(calls);

macro_rules! old_calls {
    ($($name:ident = $method:ident($($parameter:ident: $type:ident),*);)*) => {
        /// Makes one of the calls that were different in preview 0.
        fn old_call(wasi: &mut Wasi, memory: &mut [u8], input: &mut Input<'_>) {
            let functions: &[fn(&mut Wasi, &mut [u8], &mut Input<'_>)] = &[
                $(|wasi, memory, input| {
                    $(let $parameter = input.$type(stringify!($parameter));)*
                    seen(wasi.$method(memory, $($parameter),*));
                },)*
            ];
            let index = usize::from(input.byte());
            functions[index % functions.len()](wasi, memory, input);
        }
    };
}

wsnap_wasi::for_each_unstable_function!(old_calls);

/// Another descriptor than the granted ones, without which nothing more would happen.
fn spared(fd: u32) -> u32 {
    match fd {
        3..=5 => fd + 4,
        _ => fd,
    }
}

/// Calls return to the guest, or are suspended, as they would block.
fn seen(result: Result<Errno, Stop>) {
    match result {
        Ok(errno) => assert!(errno.raw() <= 76, "{errno:?}"),
        Err(stop) => assert_eq!(stop, Stop::Suspended),
    }
}

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

/// Saves the state and has another `Wasi` go on from it.
fn saved_and_restored(wasi: Wasi, inside: &Path, listener: &TcpListener) -> Wasi {
    let bytes = match wasi.save() {
        Ok(bytes) => bytes,
        // What nobody could open again is a reason.
        Err(
            SaveError::TooLarge { .. }
            | SaveError::Elsewhere { .. }
            | SaveError::RemovedSpecial { .. },
        ) => return wasi,
        Err(error) => panic!("{error}"),
    };
    let state = SavedState::decode(&bytes).expect("what was saved can be read");
    assert_eq!(state.encode(), bytes);
    let contents: Vec<_> = wasi
        .volumes()
        .map(|volume| {
            volume
                .memory()
                .map_or_else(Vec::new, |memory| memory.bytes().to_vec())
        })
        .collect();
    let grants = Grants {
        preopens: preopens(inside),
        listeners: vec![listener.try_clone().expect("a descriptor is free")],
        streams: streams(),
        ..Grants::default()
    };
    // A file that may not be opened again, as the guest has put something else in its place, is a reason too.
    let Ok(mut restored) = Wasi::restore(&state, grants) else {
        return wasi;
    };
    for (index, content) in contents.into_iter().enumerate() {
        let set = restored.set_volume_memory(index, Box::new(content));
        assert_eq!(set, Ok(()));
    }
    restored.set_volume_limit(VOLUME_BYTES_MAX);
    restored.interrupter().interrupt();
    let again = restored.saved_state().expect("it was saved before");
    assert_eq!(again.descriptors.len(), state.descriptors.len());
    assert_eq!(again.volumes, state.volumes);
    restored
}

/// Makes the calls that `bytes` stand for.
///
/// # Panics
///
/// If something does not hold.
pub fn check(bytes: &[u8]) {
    let mut input = Input {
        bytes,
        path_length: 0,
        other_path_length: 0,
    };
    let base = tempfile::tempdir().expect("a temporary directory");
    let (inside, outside) = (base.path().join("inside"), base.path().join("outside"));
    for directory in [&inside, &outside, &inside.join("d")] {
        fs::create_dir(directory).expect("there is room");
    }
    fs::write(outside.join("secret"), SECRET).expect("there is room");
    std::os::unix::fs::symlink("../outside", inside.join("out")).expect("there is room");
    std::os::unix::fs::symlink("d", inside.join("link")).expect("there is room");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    // Connections to accept: one that goes on, and one that has ended.
    let mut peer = TcpStream::connect(address).expect("it listens");
    peer.write_all(b"some bytes").expect("there is room");
    drop(TcpStream::connect(address).expect("it listens"));
    let config = WasiConfig {
        args: vec!["program".into()],
        preopens: preopens(&inside),
        volumes: vec![VolumeGrant {
            name: "data".into(),
            guest_path: "/v".into(),
        }],
        streams: streams(),
        deterministic_seed: (input.byte() % 2 == 1).then_some([1; 32]),
        listeners: vec![listener.try_clone().expect("a descriptor is free")],
        ..WasiConfig::default()
    };
    let mut wasi = Wasi::new(config).expect("a valid configuration");
    wasi.set_volume_limit(VOLUME_BYTES_MAX);
    // Whatever would block is cut short.
    wasi.interrupter().interrupt();
    let mut memory = vec![0; MEMORY_BYTES];
    for _ in 0..CALLS_MAX {
        if input.bytes.is_empty() {
            break;
        }
        input.fill(&mut memory);
        match input.byte() % 16 {
            0 => old_call(&mut wasi, &mut memory, &mut input),
            _ => call(&mut wasi, &mut memory, &mut input),
        }
        if input.byte() % 32 == 31 {
            wasi = saved_and_restored(wasi, &inside, &listener);
        }
    }
    saved_and_restored(wasi, &inside, &listener);
    let found = memory.windows(SECRET.len()).any(|bytes| bytes == SECRET);
    assert!(!found, "the secret was read");
    let secret = fs::read(outside.join("secret")).expect("nobody removed it");
    assert_eq!(secret, SECRET);
    let entries = |path: &Path| fs::read_dir(path).expect("nobody removed it").count();
    assert_eq!((entries(base.path()), entries(&outside)), (2, 1));
}
