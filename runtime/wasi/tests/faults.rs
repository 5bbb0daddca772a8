//! Addresses, descriptors, flags and lengths that no honest guest passes.

mod common;

use common::{DATA, DIR, Guest, IOVS, OUT, PATH, READ, closed_streams};
use wsnap_wasi::{Errno, OFlags, StandardStreams, Stdio, Stop, Wasi, for_each_function};

type Call = fn(&mut Wasi, &mut [u8], &[u64]) -> Result<Errno, Stop>;

/// A function of preview 1, to be called with whatever numbers.
struct Function {
    name: &'static str,
    parameters: &'static [&'static str],
    call: Call,
}

macro_rules! functions {
    ($($name:ident($($parameter:ident: $type:ident),*) -> $result:ident;)*) => {
        &[$(Function {
            name: stringify!($name),
            parameters: &[$(stringify!($parameter)),*],
            call: |wasi, memory, arguments| {
                #[allow(unused_mut, unused_variables, reason = "sched_yield has no parameter")]
                let mut arguments = arguments.iter();
                $(let $parameter = *arguments.next().expect("an argument") as $type;)*
                functions!(@answer $result wasi.$name(memory, $($parameter),*))
            },
        }),*]
    };
    (@answer errno $call:expr) => { $call };
    (@answer never $call:expr) => { $call.map(|never| match never {}) };
}

static FUNCTIONS: &[Function] = for_each_function!(functions);

fn function(name: &str) -> &'static Function {
    let found = FUNCTIONS.iter().find(|function| function.name == name);
    found.expect("a function of preview 1")
}

const BEYOND: u64 = 0xffff_fff0;

/// Calls that work, with the positions of their addresses.
fn honest_calls(fd: u32) -> Vec<(&'static str, Vec<u64>, Vec<usize>)> {
    let [fd, dir, out, iovs, path, data] = [fd, DIR, OUT, IOVS, PATH, DATA].map(u64::from);
    vec![
        ("args_get", vec![out, data], vec![0, 1]),
        ("args_sizes_get", vec![out, out], vec![0, 1]),
        ("environ_get", vec![out, data], vec![0, 1]),
        ("environ_sizes_get", vec![out, out], vec![0, 1]),
        ("clock_res_get", vec![0, out], vec![1]),
        ("clock_time_get", vec![0, 0, out], vec![2]),
        ("fd_fdstat_get", vec![fd, out], vec![1]),
        ("fd_filestat_get", vec![fd, out], vec![1]),
        ("fd_pread", vec![fd, iovs, 1, 0, out], vec![1, 4]),
        ("fd_prestat_get", vec![dir, out], vec![1]),
        ("fd_prestat_dir_name", vec![dir, data, 9], vec![1]),
        ("fd_pwrite", vec![fd, iovs, 1, 0, out], vec![1, 4]),
        ("fd_read", vec![fd, iovs, 1, out], vec![1, 3]),
        ("fd_readdir", vec![dir, data, 99, 0, out], vec![1, 4]),
        ("fd_seek", vec![fd, 0, 0, out], vec![3]),
        ("fd_tell", vec![fd, out], vec![1]),
        ("fd_write", vec![fd, iovs, 1, out], vec![1, 3]),
        ("path_filestat_get", vec![dir, 0, path, 1, out], vec![2, 4]),
        (
            "path_filestat_set_times",
            vec![dir, 0, path, 1, 0, 0, 0],
            vec![2],
        ),
        (
            "path_open",
            vec![dir, 0, path, 1, 0, 2, 0, 0, out],
            vec![2, 8],
        ),
        ("path_symlink", vec![path, 1, dir, path + 8, 1], vec![0, 3]),
        (
            "path_readlink",
            vec![dir, path + 8, 1, data, 9, out],
            vec![1, 3, 5],
        ),
        (
            "path_link",
            vec![dir, 0, path, 1, dir, path + 16, 1],
            vec![2, 5],
        ),
        (
            "path_rename",
            vec![dir, path + 16, 1, dir, path + 24, 1],
            vec![1, 4],
        ),
        ("path_unlink_file", vec![dir, path + 24, 1], vec![1]),
        ("path_create_directory", vec![dir, path + 32, 1], vec![1]),
        ("path_remove_directory", vec![dir, path + 32, 1], vec![1]),
        (
            "poll_oneoff",
            vec![data, data + 4096, 1, out],
            vec![0, 1, 3],
        ),
        ("random_get", vec![data, 9], vec![0]),
    ]
}

fn prepared() -> (Guest, u32) {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    for (offset, name) in (0..).step_by(8).zip([b"f", b"l", b"h", b"r", b"d"]) {
        guest.put(PATH + offset, name);
    }
    guest.one_buffer(1);
    guest.put(DATA, &[0; 48]);
    (guest, fd)
}

#[test]
fn every_address_out_of_range_is_a_fault_and_the_call_without_it_works() {
    let (mut guest, fd) = prepared();
    for (name, arguments, addresses) in honest_calls(fd) {
        let call = function(name).call;
        for &position in &addresses {
            for beyond in [BEYOND, guest.memory.len() as u64] {
                let mut bad = arguments.clone();
                bad[position] = beyond;
                let parameter = function(name).parameters[position];
                let outcome = call(&mut guest.wasi, &mut guest.memory, &bad);
                assert_eq!(outcome, Ok(Errno::Fault), "{name}: {parameter}");
            }
        }
        guest.put(DATA, &[0; 48]);
        guest.one_buffer(1);
        let outcome = call(&mut guest.wasi, &mut guest.memory, &arguments);
        assert_eq!(outcome, Ok(Errno::Success), "{name}");
        guest.put(DATA, &[0; 48]);
        guest.one_buffer(1);
    }
}

#[test]
fn a_buffer_out_of_range_inside_an_array_is_a_fault() {
    let (mut guest, fd) = prepared();
    for (address, length) in [
        (0xffff_fff0u32, 1u32),
        (DATA, u32::MAX),
        (u32::MAX, u32::MAX),
    ] {
        guest.put(IOVS, &address.to_le_bytes());
        guest.put(IOVS + 4, &length.to_le_bytes());
        assert_eq!(call!(guest.fd_read(fd, IOVS, 1, OUT)), Ok(Errno::Fault));
        assert_eq!(call!(guest.fd_write(fd, IOVS, 1, OUT)), Ok(Errno::Fault));
    }
}

#[test]
fn a_write_whose_result_has_no_place_writes_nothing() {
    let (mut guest, fd) = prepared();
    let bad = call!(guest.fd_write(fd, IOVS, 1, u32::MAX));
    assert_eq!(bad, Ok(Errno::Fault));
    assert_eq!(guest.tell(fd), Ok(0));
    assert_eq!(std::fs::read(guest.host("f")).expect("the file"), b"");
}

#[test]
fn an_open_whose_result_has_no_place_opens_nothing() {
    let (mut guest, _) = prepared();
    let creat = OFlags::CREAT.bits().into();
    let length = guest.put(PATH, b"new");
    let bad = call!(guest.path_open(DIR, 0, PATH, length, creat, READ.bits(), 0, 0, u32::MAX));
    assert_eq!(bad, Ok(Errno::Fault));
    assert!(!guest.host("new").exists());
}

/// A small generator of pseudo-random numbers (SplitMix64), so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Small numbers, addresses and extremes. Nothing in between: a file must not be allocated that fills the disk.
    fn argument(&mut self) -> u64 {
        match self.next() % 8 {
            0..4 => self.next() % 8,
            4 => self.next() % 65_536,
            5 => self.next() % (1 << 18),
            6 => (1 << 18) - 1 - self.next() % 64,
            _ => u64::MAX - self.next() % 64,
        }
    }
}

/// Half of the time an honest call with some arguments replaced, else nothing but arbitrary numbers.
fn arbitrary_call(numbers: &mut Numbers) -> (&'static Function, Vec<u64>) {
    if numbers.next().is_multiple_of(2) {
        let function = &FUNCTIONS[numbers.next() as usize % FUNCTIONS.len()];
        let arguments = function.parameters.iter().map(|_| numbers.argument());
        return (function, arguments.collect());
    }
    let mut honest = honest_calls(4 + numbers.next() as u32 % 4);
    let (name, mut arguments, _) = honest.swap_remove(numbers.next() as usize % honest.len());
    for argument in &mut arguments {
        if numbers.next().is_multiple_of(8) {
            *argument = numbers.argument();
        }
    }
    (function(name), arguments)
}

/// Arbitrary calls in arbitrary memory: none may panic, and the state stays one that can be saved and restored.
#[test]
fn arbitrary_calls_never_panic_and_leave_a_state_that_can_be_saved() {
    let mut saved = 0;
    for seed in 0..20 {
        let mut numbers = Numbers(seed);
        let null = || std::fs::File::open("/dev/null").expect("opens");
        // Deterministic, so that no sleep takes real time.
        let mut guest = Guest::with(|config| {
            config.deterministic_seed = Some([0; 32]);
            config.streams = StandardStreams {
                stdin: Stdio::Descriptor(null().into()),
                ..closed_streams()
            };
        });
        for chunk in guest.memory.chunks_exact_mut(4) {
            let value = numbers.argument() as u32;
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        for _ in 0..3000 {
            for (offset, name) in (0..).step_by(8).zip([b"f", b"l", b"h", b"r", b"d"]) {
                guest.put(PATH + offset, name);
            }
            let (function, arguments) = arbitrary_call(&mut numbers);
            let outcome = (function.call)(&mut guest.wasi, &mut guest.memory, &arguments);
            if function.name == "proc_exit" {
                assert_eq!(outcome, Err(Stop::Exit(arguments[0] as u32)));
            } else {
                assert!(
                    outcome.is_ok(),
                    "{} {arguments:?}: {outcome:?}",
                    function.name
                );
            }
        }
        // A file that is open and was unlinked cannot be saved; that is tested elsewhere.
        if guest.wasi.save().is_ok() {
            saved += 1;
            let state = guest.state();
            let mut resumed = guest.resume().expect("nothing has changed");
            assert_eq!(resumed.state(), state);
            assert_eq!(call!(resumed.sched_yield()), Ok(Errno::Success));
        }
    }
    assert!(saved > 0);
}

#[test]
fn every_function_is_listed_once() {
    let mut names: Vec<_> = FUNCTIONS.iter().map(|function| function.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 46);
}
