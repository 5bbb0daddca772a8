//! A volume answers as a directory of the host does: the same random calls are made on both, and their results compared.
//!
//! The program with the volume is saved and restored in between, which must make no difference.

mod calls;
#[path = "../common/mod.rs"]
mod common;

use calls::{Call, Numbers, choose};
use common::{Guest, closed_streams};
use std::sync::{Arc, Mutex};
use wsnap_wasi::{Errno, Grants, SavedState, VolumeGrant, VolumeMemory, Wasi, WasiConfig};

/// How many calls are made with each seed.
const CALLS: usize = 4000;

/// A memory that hands its bytes over when the program that had it is no more.
struct Handed {
    bytes: Vec<u8>,
    to: Arc<Mutex<Vec<u8>>>,
}

impl VolumeMemory for Handed {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn grow_to(&mut self, byte_len: u64) -> std::io::Result<()> {
        self.bytes.grow_to(byte_len)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        *self.to.lock().expect("nobody panicked") = bytes;
    }
}

struct OnVolume {
    guest: Guest,
    content: Arc<Mutex<Vec<u8>>>,
}

impl OnVolume {
    fn new() -> OnVolume {
        let content = Arc::new(Mutex::new(Vec::new()));
        let mut guest = Guest::with(|config: &mut WasiConfig| {
            config.preopens.clear();
            config.streams = closed_streams();
            config.volumes.push(VolumeGrant {
                name: "data".to_owned(),
                guest_path: "/w".to_owned(),
            });
        });
        let memory = Handed {
            bytes: Vec::new(),
            to: content.clone(),
        };
        let set = guest.wasi.set_volume_memory(0, Box::new(memory));
        set.expect("there is a volume");
        OnVolume { guest, content }
    }

    /// Goes on in another process, as it were.
    fn resume(&mut self) {
        let state = self.guest.state();
        let grants = || Grants {
            streams: closed_streams(),
            ..Grants::default()
        };
        let wasi = Wasi::restore(&state, grants()).expect("nothing is needed");
        // Here the old program ends, and the content is handed over.
        self.guest.wasi = wasi;
        let bytes = std::mem::take(&mut *self.content.lock().expect("nobody panicked"));
        let memory = Handed {
            bytes,
            to: self.content.clone(),
        };
        let set = self.guest.wasi.set_volume_memory(0, Box::new(memory));
        set.expect("the content is as long as it was");
        let again: SavedState = self.guest.state();
        assert_eq!(again.volumes, state.volumes);
        assert_eq!(again.descriptors, state.descriptors);
    }
}

fn compare(seed: u64) {
    let mut numbers = Numbers(seed);
    let mut host = Guest::new();
    let mut volume = OnVolume::new();
    let mut cookie = 0;
    for number in 0..CALLS {
        let call = choose(&mut numbers);
        // The granted directory stays where it is: everything would fail without it.
        let keeps = match call {
            Call::Close(fd) => fd != common::DIR,
            Call::Renumber(from, to) => from != common::DIR && to != common::DIR,
            // The host's directories are granted without the right to change their times: they are opened as paths.
            Call::SetFileTimes(fd, ..) => fd != common::DIR,
            _ => true,
        };
        if !keeps {
            continue;
        }
        let expected = host.make(&call, cookie);
        let found = volume.guest.make(&call, cookie);
        assert_eq!(found, expected, "seed {seed}, call {number}: {call:?}");
        if let (Call::Readdir(..), Ok(listing)) = (&call, &found)
            && listing.len() >= 24
        {
            let first: Vec<u8> = listing[..8].iter().map(|byte| *byte as u8).collect();
            cookie = u64::from_le_bytes(first.try_into().expect("8 bytes"));
        }
        if numbers.one_in(50) {
            volume.resume();
        }
        if numbers.one_in(100) {
            let at = format!("seed {seed}, after call {number}: {call:?}");
            assert_eq!(volume.guest.tree("."), host.tree("."), "{at}");
        }
    }
    // Without any file nothing is left in the content.
    for fd in (0..16).filter(|fd| *fd != common::DIR) {
        let _closed = volume.guest.close(fd);
    }
    let mut names: Vec<_> = volume.guest.tree(".");
    names.reverse();
    for (path, known) in names {
        let call = match known[0] {
            3 => Call::RemoveDirectory(common::DIR, path.clone()),
            _ => Call::Unlink(common::DIR, path.clone()),
        };
        assert_eq!(
            volume.guest.make(&call, 0),
            Ok(vec![]),
            "seed {seed}: {path}"
        );
    }
    drop(volume.guest);
    let content = volume.content.lock().expect("nobody panicked");
    assert!(content.iter().all(|byte| *byte == 0), "seed {seed}");
}

#[test]
fn a_volume_answers_as_a_directory_of_the_host_does() {
    for seed in 0..8 {
        compare(seed);
    }
}

#[test]
fn allocating_more_than_there_is_room_for_changes_nothing() {
    let mut volume = OnVolume::new();
    let guest = &mut volume.guest;
    let fd = guest.create("f");
    assert_eq!(guest.write(fd, b"kept"), Ok(4));
    let before = guest.state().volumes;
    for length in [1 << 40, i64::MAX as u64 - 1] {
        assert_eq!(
            guest.make(&Call::Allocate(fd, 1, length), 0),
            Err(Errno::Nospc)
        );
        assert_eq!(guest.state().volumes, before);
    }
    assert_eq!(guest.make(&Call::Allocate(fd, 8192, 1), 0), Ok(vec![]));
    assert_eq!(guest.make(&Call::FileStat(fd), 0), Ok(vec![4, 1, 8193]));
}

#[test]
fn a_volume_with_a_limit_is_full_when_it_is_reached_and_has_room_again_after_that() {
    let mut volume = OnVolume::new();
    volume.guest.wasi.set_volume_limit(3 * 4096);
    let guest = &mut volume.guest;
    let (a, b) = (guest.create("a"), guest.create("b"));
    assert_eq!(guest.write(a, &[1; 8192]), Ok(8192));
    assert_eq!(guest.write(b, &[2; 8192]), Ok(4096));
    assert_eq!(guest.write(b, &[2]), Err(Errno::Nospc));
    assert_eq!(guest.make(&Call::SetSize(a, 4096), 0), Ok(vec![]));
    assert_eq!(guest.write(b, &[2]), Ok(1));
    assert_eq!(guest.make(&Call::Close(a), 0), Ok(vec![]));
    let unlink = Call::Unlink(common::DIR, "a".to_owned());
    assert_eq!(guest.make(&unlink, 0), Ok(vec![]));
    assert_eq!(guest.write(b, &[2; 4096]), Ok(4096));
}

/// Whatever is accepted is a state of its own, which can be gone on from and saved again.
#[test]
fn a_volume_with_flipped_bits_is_refused_or_one_that_works() {
    let mut numbers = Numbers(99);
    let mut volume = OnVolume::new();
    for _ in 0..400 {
        let call = choose(&mut numbers);
        if !matches!(call, Call::Close(common::DIR) | Call::Renumber(..)) {
            let _result = volume.guest.make(&call, 0);
        }
    }
    let bytes = volume.guest.wasi.save().expect("saves");
    let mut accepted = 0;
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(state) = SavedState::decode(&flipped) else {
            continue;
        };
        assert_eq!(state.encode(), flipped, "bit {bit}");
        let grants = Grants {
            streams: closed_streams(),
            ..Grants::default()
        };
        let Ok(wasi) = Wasi::restore(&state, grants) else {
            continue;
        };
        volume.guest.wasi = wasi;
        // A content that is larger than any test needs stays away, and all calls that need it fail.
        let length = state
            .volumes
            .first()
            .map_or(0, |saved| saved.content_bytes());
        if length < 1 << 24 {
            let content: Vec<u8> = vec![7; length as usize];
            let _set = volume.guest.wasi.set_volume_memory(0, Box::new(content));
        }
        let mut numbers = Numbers(bit as u64);
        for _ in 0..20 {
            let _result = volume.guest.make(&choose(&mut numbers), 0);
        }
        let again = volume.guest.wasi.save().expect("saves");
        assert!(SavedState::decode(&again).is_ok(), "bit {bit}");
        accepted += 1;
    }
    assert!(accepted > 0 && accepted < bytes.len() * 8);
}
