//! Saved states that were damaged or made up.

mod common;

use common::{Guest, MEMORY_BYTES, READ, WRITE, grants};
use std::collections::BTreeMap;
use wsnap_wasi::{
    Access, CarriedExtent, CarriedFile, DecodeError, Evidence, FdFlags, FileType, Fingerprint,
    OFlags, PendingWait, SavedConnection, SavedDescriptor, SavedDirectory, SavedFile,
    SavedFileKind, SavedListener, SavedLost, SavedRandom, SavedState, SavedVolume,
    SavedVolumeDirectory, SavedVolumeFile, Standard, VolumeGrant, Wasi,
};

fn file(kind: SavedFileKind, flags: FdFlags) -> SavedDescriptor {
    SavedDescriptor::File(SavedFile {
        preopen: 1,
        path: "a/ß".to_owned(),
        offset: u64::MAX,
        flags,
        access: Access {
            read: true,
            write: true,
        },
        kind,
    })
}

fn regular(evidence: Evidence) -> SavedFileKind {
    SavedFileKind::Regular(Fingerprint {
        size_bytes: 5,
        evidence,
    })
}

/// A block, a hole, and a block that is cut off by the end of the file.
fn sparse() -> CarriedFile {
    let extent = |offset, length| CarriedExtent {
        offset,
        bytes: vec![0xa5; length],
    };
    CarriedFile {
        size_bytes: 12_289,
        modified_ns: Some(-3),
        extents: vec![extent(0, 4096), extent(8192, 4097)],
    }
}

fn empty_file() -> CarriedFile {
    CarriedFile {
        size_bytes: 0,
        modified_ns: None,
        extents: vec![],
    }
}

/// A volume in which every field occurs: a directory, a file with a hole that is open in it, and a link.
fn volume() -> SavedVolume {
    let mut guest = Guest::with(|config| {
        config.preopens.clear();
        config.deterministic_seed = Some([0; 32]);
        config.volumes.push(VolumeGrant {
            name: "data".to_owned(),
            guest_path: "/data".to_owned(),
        });
    });
    let path = guest.put(common::PATH, b"d");
    assert!(call!(guest.path_create_directory(common::DIR, common::PATH, path)).is_ok());
    assert!(call!(guest.path_symlink(common::PATH, path, common::DIR, common::DATA, 1)).is_ok());
    let file = guest.create("d/f");
    assert_eq!(guest.seek(file, 10_000, 0), Ok(10_000));
    assert_eq!(guest.write(file, b"content"), Ok(7));
    guest.state().volumes.remove(0)
}

/// A state in which every field occurs.
fn full_state() -> SavedState {
    let flags = FdFlags::APPEND | FdFlags::NONBLOCK;
    let descriptors = [
        SavedDescriptor::Stream(Standard::Input),
        SavedDescriptor::Stream(Standard::Output),
        SavedDescriptor::Stream(Standard::Error),
        SavedDescriptor::Preopen(1),
        SavedDescriptor::Directory(SavedDirectory {
            preopen: 0,
            path: "d".to_owned(),
            access: Access {
                read: true,
                write: false,
            },
            removed: false,
        }),
        file(regular(Evidence::None), FdFlags::empty()),
        file(regular(Evidence::Hash([9; 32])), flags),
        file(regular(Evidence::ModifiedNs(-1)), FdFlags::APPEND),
        file(
            SavedFileKind::Special(FileType::CharacterDevice),
            FdFlags::NONBLOCK,
        ),
        file(SavedFileKind::Carried(0), FdFlags::APPEND),
        file(SavedFileKind::Carried(1), FdFlags::empty()),
        file(SavedFileKind::Carried(0), FdFlags::empty()),
        SavedDescriptor::Directory(SavedDirectory {
            preopen: 1,
            path: "gone".to_owned(),
            access: Access {
                read: true,
                write: false,
            },
            removed: true,
        }),
        SavedDescriptor::Lost(SavedLost {
            preopen: 1,
            path: "lost".to_owned(),
        }),
        SavedDescriptor::VolumeDirectory(SavedVolumeDirectory {
            volume: 0,
            inode: 0,
            preopened: true,
            access: Access {
                read: true,
                write: false,
            },
        }),
        SavedDescriptor::VolumeFile(SavedVolumeFile {
            volume: 0,
            inode: 2,
            offset: 77,
            flags: FdFlags::APPEND,
            access: Access {
                read: true,
                write: true,
            },
        }),
        SavedDescriptor::Listener(SavedListener {
            listener: 1,
            nonblocking: true,
        }),
        SavedDescriptor::Connection(SavedConnection { nonblocking: false }),
    ];
    SavedState {
        args: vec![b"program".to_vec(), vec![], vec![0xff]],
        env: vec![b"A=b".to_vec()],
        preopens: vec!["/".to_owned(), "/w".to_owned()],
        monotonic_ns: 1 << 40,
        random: Some(SavedRandom {
            seed: [3; 32],
            position: 77,
        }),
        pending: Some(PendingWait {
            subscriptions: 1,
            events: 2,
            subscriptions_length: 3,
            subscriptions_hash: [4; 32],
            started_ns: 5,
        }),
        carried: vec![sparse(), empty_file()],
        volumes: vec![volume()],
        descriptors: (0..).step_by(3).zip(descriptors).collect(),
    }
}

#[test]
fn every_field_survives_encoding() {
    let empty = SavedState {
        args: vec![],
        env: vec![],
        preopens: vec![],
        monotonic_ns: 0,
        random: None,
        pending: None,
        carried: vec![],
        volumes: vec![],
        descriptors: BTreeMap::new(),
    };
    for state in [empty, full_state()] {
        assert_eq!(SavedState::decode(&state.encode()), Ok(state));
    }
}

/// The layout in STATE.md is a promise: this state has these bytes for as long as the version is 1.
#[test]
fn the_bytes_of_version_1_do_not_change() {
    let hash = blake3::hash(&full_state().encode());
    assert_eq!(hash.to_hex().as_str(), GOLDEN_HASH);
}

const GOLDEN_HASH: &str = "457166350acb388220ecf1e1e6dd4736cb9791b3ccd24d92f140965158e6c780";

#[test]
fn a_truncated_state_is_refused_wherever_it_ends() {
    let bytes = full_state().encode();
    for length in 0..bytes.len() {
        match SavedState::decode(&bytes[..length]) {
            Err(DecodeError::Truncated { offset }) => assert!(offset <= length),
            other => panic!("{length} bytes: another outcome: {other:?}"),
        }
    }
}

#[test]
fn what_follows_a_state_is_refused() {
    let mut bytes = full_state().encode();
    let offset = bytes.len();
    bytes.push(0);
    match SavedState::decode(&bytes) {
        Err(DecodeError::Invalid { offset: found, .. }) => assert_eq!(found, offset),
        other => panic!("another outcome: {other:?}"),
    }
}

#[test]
fn another_version_is_refused_by_its_number() {
    let mut bytes = full_state().encode();
    bytes[0] = 2;
    assert_eq!(
        SavedState::decode(&bytes),
        Err(DecodeError::Version { found: 2 })
    );
}

/// Whatever is accepted is a state of its own, with exactly those bytes; nothing else may happen.
#[test]
fn a_flipped_bit_gives_another_state_or_an_error() {
    let original = full_state();
    let bytes = original.encode();
    let mut accepted = 0;
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(state) = SavedState::decode(&flipped) {
            assert_ne!(state, original, "bit {bit}");
            assert_eq!(state.encode(), flipped, "bit {bit}");
            accepted += 1;
        }
    }
    assert!(accepted > 0 && accepted < bytes.len() * 8);
}

#[test]
fn restoring_a_state_with_any_bit_flipped_succeeds_or_fails_in_order() {
    let mut guest = Guest::deterministic(1);
    guest.create("f");
    guest.open(".", OFlags::DIRECTORY, READ).expect("opens");
    guest.open("g", OFlags::CREAT, WRITE).expect("opens");
    let removed = guest.create("removed");
    guest.write(removed, b"content").expect("room");
    std::fs::remove_file(guest.host("removed")).expect("it was there");
    let bytes = guest.wasi.save().expect("saves");
    let mut restored = 0;
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(state) = SavedState::decode(&flipped)
            && let Ok(mut wasi) = Wasi::restore(&state, grants(guest.dir.path()))
        {
            let mut memory = vec![0; MEMORY_BYTES];
            // A changed clock, offset or argument must not make any later call fail badly.
            let read = wasi.clock_time_get(&mut memory, 1, 0, 0);
            assert_eq!(read, Ok(wsnap_wasi::Errno::Success), "bit {bit}");
            restored += 1;
        }
    }
    assert!(restored > 0);
}

/// One content has one form: otherwise two images of one state would have different ids.
#[test]
fn the_content_of_a_removed_file_in_another_form_is_refused() {
    let changes: [fn(&mut CarriedFile); 8] = [
        |file| file.extents.swap(0, 1),
        |file| file.extents[1].offset = 4096,
        |file| file.extents[1].offset = 8193,
        |file| file.extents[0].bytes.fill(0),
        |file| file.extents[0].bytes.truncate(4095),
        |file| file.extents[0].bytes.clear(),
        |file| file.extents[1].bytes.push(1),
        |file| file.extents[1].offset = u64::MAX - 4095,
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut state = full_state();
        change(&mut state.carried[0]);
        match SavedState::decode(&state.encode()) {
            Err(DecodeError::Invalid { what, .. }) => assert_eq!(
                what, "the content of a removed file is not in its one form",
                "change {index}"
            ),
            other => panic!("change {index}: another outcome: {other:?}"),
        }
    }
}

#[test]
fn contents_of_removed_files_belong_to_descriptors_in_their_order() {
    let expect = |state: &SavedState, expected: &str| match SavedState::decode(&state.encode()) {
        Err(DecodeError::Invalid { what, .. }) => assert_eq!(what, expected),
        other => panic!("another outcome: {other:?}"),
    };
    let mut unneeded = full_state();
    unneeded.carried.push(empty_file());
    let missing = "the content of a removed file is missing, or needed by nothing";
    expect(&unneeded, missing);
    let mut absent = full_state();
    absent.carried.pop();
    expect(&absent, missing);
    let mut swapped = full_state();
    for saved in swapped.descriptors.values_mut() {
        if let SavedDescriptor::File(file) = saved
            && let SavedFileKind::Carried(index) = &mut file.kind
        {
            *index = 1 - *index;
        }
    }
    expect(&swapped, "a removed file's content out of order");
}

/// Asking for the position of the stream, once it was drawn from, overflowed.
#[test]
fn a_random_stream_at_its_end_is_refused() {
    let mut state = full_state();
    let random = |position| SavedRandom {
        seed: [3; 32],
        position,
    };
    state.random = Some(random(1 << 63));
    match SavedState::decode(&state.encode()) {
        Err(DecodeError::Invalid { what, .. }) => {
            assert_eq!(what, "more random bytes than anybody can have drawn");
        }
        other => panic!("another outcome: {other:?}"),
    }
    state.random = Some(random((1 << 63) - 1));
    state.descriptors.clear();
    (state.carried, state.volumes) = (vec![], vec![]);
    let state = SavedState::decode(&state.encode()).expect("nothing is wrong with it");
    let mut wasi = Wasi::restore(&state, Default::default()).expect("it needs nothing");
    let mut memory = vec![0; 1000];
    let drawn = wasi.random_get(&mut memory, 0, 1000);
    assert_eq!(drawn, Ok(wsnap_wasi::Errno::Success));
}

#[test]
fn a_count_beyond_the_bytes_is_refused_before_anything_is_allocated() {
    let mut bytes = full_state().encode();
    // The count of arguments stands behind the version and the flags.
    bytes[5..13].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(
        SavedState::decode(&bytes),
        Err(DecodeError::Truncated { offset: 5 })
    );
}
