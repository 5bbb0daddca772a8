//! Volumes: they answer as a directory of the host does, and are saved with the program.

mod common;

use common::{DATA, DIR, Guest, IOVS, OUT, PATH, PATH2, READ, WRITE, closed_streams, returned};
use std::collections::BTreeMap;
use wsnap_wasi::{
    DecodeError, Errno, FileType, Grants, OFlags, SavedState, VolumeError, VolumeGrant, Wasi,
};

fn grant(name: &str, guest_path: &str) -> VolumeGrant {
    VolumeGrant {
        name: name.to_owned(),
        guest_path: guest_path.to_owned(),
    }
}

/// A guest that has a volume where others have a directory.
fn guest() -> Guest {
    Guest::with(|config| {
        config.preopens.clear();
        config.volumes.push(grant("data", "/w"));
    })
}

fn content(guest: &Guest, index: usize) -> Vec<u8> {
    let mut volumes = guest.wasi.volumes();
    let memory = volumes.nth(index).expect("a volume").memory();
    memory.expect("it has its memory").bytes().to_vec()
}

/// What another process would make of the guest's state and the content of its volumes.
fn resumed(guest: Guest) -> Guest {
    let state = guest.state();
    let contents: Vec<_> = (0..state.volumes.len())
        .map(|index| content(&guest, index))
        .collect();
    let grants = Grants {
        streams: closed_streams(),
        ..Grants::default()
    };
    let mut wasi = Wasi::restore(&state, grants).expect("nothing is needed");
    for (index, content) in contents.into_iter().enumerate() {
        let set = wasi.set_volume_memory(index, Box::new(content));
        assert_eq!(set, Ok(()));
    }
    Guest { wasi, ..guest }
}

/// A small generator of numbers (SplitMix64), so that a failure can be repeated.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn pick<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len() as u64) as usize]
    }
}

const PATHS: &[&str] = &[
    "a", "b", "c", "d", "a/b", "a/c", "b/a", "d/e", "d/e/f", "a/../b", "./c", "d/.", "a/", "d/e/",
    "link", "link/x", "c/..", ".", "..", "../a", "", "/a", "a//b", "d/../..",
];
const TARGETS: &[&str] = &[
    "a", "b", "d/e", "../a", "link", "nowhere", "/a", "", "./c/", "d/",
];

/// A call with all of its arguments, to be made of two guests.
#[derive(Clone, Debug)]
enum Step {
    Open {
        dir: u32,
        path: &'static str,
        oflags: u32,
        rights: u64,
        follow: u32,
        fdflags: u32,
    },
    Close {
        fd: u32,
    },
    Renumber {
        fd: u32,
        to: u32,
    },
    Write {
        fd: u32,
        length: u32,
        byte: u8,
    },
    PositionedWrite {
        fd: u32,
        length: u32,
        offset: u64,
    },
    Read {
        fd: u32,
        length: u32,
    },
    PositionedRead {
        fd: u32,
        length: u32,
        offset: u64,
    },
    Seek {
        fd: u32,
        offset: i64,
        whence: u32,
    },
    SetSize {
        fd: u32,
        size: u64,
    },
    Allocate {
        fd: u32,
        offset: u64,
        length: u64,
    },
    SetFlags {
        fd: u32,
        flags: u32,
    },
    Describe {
        fd: u32,
    },
    List {
        fd: u32,
    },
    Directory {
        dir: u32,
        path: &'static str,
    },
    RemoveDirectory {
        dir: u32,
        path: &'static str,
    },
    Unlink {
        dir: u32,
        path: &'static str,
    },
    Link {
        dir: u32,
        old: &'static str,
        new_dir: u32,
        new: &'static str,
    },
    Rename {
        dir: u32,
        old: &'static str,
        new_dir: u32,
        new: &'static str,
    },
    Symlink {
        target: &'static str,
        dir: u32,
        path: &'static str,
    },
    ReadLink {
        dir: u32,
        path: &'static str,
    },
    Stat {
        dir: u32,
        path: &'static str,
        follow: u32,
    },
    SetTimes {
        dir: u32,
        path: &'static str,
        follow: u32,
    },
}

fn step(numbers: &mut Numbers) -> Step {
    // A few numbers of descriptors, most of which will be open.
    let fd = 3 + numbers.below(6) as u32;
    let dir = match numbers.below(4) {
        0 => fd,
        _ => DIR,
    };
    let new_dir = match numbers.below(4) {
        0 => 3 + numbers.below(6) as u32,
        _ => DIR,
    };
    let (path, new) = (numbers.pick(PATHS), numbers.pick(PATHS));
    let offset = numbers.below(20_000);
    let length = numbers.below(9_000) as u32;
    let follow = numbers.below(2) as u32;
    match numbers.below(26) {
        0..=4 => Step::Open {
            dir,
            path,
            oflags: [0, 1, 1, 2, 5, 8, 9][numbers.below(7) as usize],
            rights: [2, 0x40, 0x42, 0x42][numbers.below(4) as usize],
            follow,
            fdflags: [0, 0, 1, 4][numbers.below(4) as usize],
        },
        5 => Step::Close { fd: fd.max(4) },
        6 => Step::Renumber {
            fd: fd.max(4),
            to: 4 + numbers.below(5) as u32,
        },
        7..=8 => Step::Write {
            fd,
            length,
            byte: numbers.below(255) as u8 + 1,
        },
        9 => Step::PositionedWrite { fd, length, offset },
        10 => Step::Read { fd, length },
        11 => Step::PositionedRead { fd, length, offset },
        12 => Step::Seek {
            fd,
            offset: offset as i64 - 5_000,
            whence: numbers.below(4) as u32,
        },
        13 => Step::SetSize { fd, size: offset },
        14 => Step::Allocate {
            fd,
            offset,
            length: u64::from(length),
        },
        15 => Step::SetFlags {
            fd,
            flags: [0, 1, 4, 2][numbers.below(4) as usize],
        },
        16 => Step::Describe { fd },
        17 => Step::List { fd },
        18 => Step::Directory { dir, path },
        19 => Step::RemoveDirectory { dir, path },
        20 => Step::Unlink { dir, path },
        21 => Step::Link {
            dir,
            old: path,
            new_dir,
            new,
        },
        22 => Step::Rename {
            dir,
            old: path,
            new_dir,
            new,
        },
        23 => Step::Symlink {
            target: numbers.pick(TARGETS),
            dir,
            path,
        },
        24 => match numbers.below(2) {
            0 => Step::ReadLink { dir, path },
            _ => Step::SetTimes { dir, path, follow },
        },
        _ => Step::Stat { dir, path, follow },
    }
}

/// What the guest can see of a call, as far as it must be the same everywhere.
type Seen = Result<Vec<u8>, Errno>;

/// Type, links, size, access and modification time of a `filestat`: those of a directory depend on the file system.
fn stat_seen(guest: &Guest, with_times: bool) -> Vec<u8> {
    let bytes = guest.bytes(OUT, 64);
    let is_directory = bytes[16] == FileType::Directory as u8;
    let mut seen = vec![bytes[16]];
    if !is_directory {
        seen.extend(&bytes[24..40]);
    }
    if with_times {
        // The host notes when a link was followed, and when a directory was read.
        let from = if bytes[16] == FileType::RegularFile as u8 {
            40
        } else {
            48
        };
        seen.extend(&bytes[from..56]);
    }
    seen
}

fn make(guest: &mut Guest, step: &Step) -> Seen {
    let put = |guest: &mut Guest, path: &str| guest.put(PATH, path.as_bytes());
    match *step {
        Step::Open {
            dir,
            path,
            oflags,
            rights,
            follow,
            fdflags,
        } => {
            let length = put(guest, path);
            returned(call!(guest.path_open(
                dir, follow, PATH, length, oflags, rights, 0, fdflags, OUT
            )))?;
            Ok(guest.bytes(OUT, 4).to_vec())
        }
        Step::Close { fd } => returned(call!(guest.fd_close(fd))).map(|()| Vec::new()),
        Step::Renumber { fd, to } => {
            returned(call!(guest.fd_renumber(fd, to))).map(|()| Vec::new())
        }
        Step::Write { fd, length, byte } => {
            let bytes = vec![byte; length as usize];
            guest
                .write(fd, &bytes)
                .map(|count| count.to_le_bytes().to_vec())
        }
        Step::PositionedWrite { fd, length, offset } => {
            guest.put(DATA, &vec![0x5a; length as usize]);
            guest.one_buffer(length);
            returned(call!(guest.fd_pwrite(fd, IOVS, 1, offset, OUT)))?;
            Ok(guest.bytes(OUT, 4).to_vec())
        }
        Step::Read { fd, length } => guest.read(fd, length),
        Step::PositionedRead { fd, length, offset } => {
            guest.one_buffer(length);
            returned(call!(guest.fd_pread(fd, IOVS, 1, offset, OUT)))?;
            Ok(guest.bytes(DATA, guest.u32(OUT)).to_vec())
        }
        Step::Seek { fd, offset, whence } => {
            let place = guest.seek(fd, offset, whence)?;
            Ok(place.to_le_bytes().to_vec())
        }
        Step::SetSize { fd, size } => {
            returned(call!(guest.fd_filestat_set_size(fd, size))).map(|()| Vec::new())
        }
        Step::Allocate { fd, offset, length } => {
            returned(call!(guest.fd_allocate(fd, offset, length))).map(|()| Vec::new())
        }
        Step::SetFlags { fd, flags } => {
            returned(call!(guest.fd_fdstat_set_flags(fd, flags))).map(|()| Vec::new())
        }
        Step::Describe { fd } => {
            returned(call!(guest.fd_fdstat_get(fd, OUT)))?;
            let mut seen = guest.bytes(OUT, 24).to_vec();
            returned(call!(guest.fd_filestat_get(fd, OUT)))?;
            seen.extend(stat_seen(guest, false));
            Ok(seen)
        }
        Step::List { fd } => {
            returned(call!(guest.fd_readdir(fd, DATA, 60_000, 0, OUT)))?;
            let used = guest.u32(OUT) as usize;
            let mut records = guest.bytes(DATA, used as u32);
            let mut seen = Vec::new();
            while !records.is_empty() {
                let (record, rest) = records.split_at(24);
                let length = u32::from_le_bytes(record[16..20].try_into().expect("4 bytes"));
                let (name, rest) = rest.split_at(length as usize);
                // The cookie, the type and the name, but not the inode.
                seen.extend(&record[..8]);
                seen.push(record[20]);
                seen.extend(name);
                records = rest;
            }
            Ok(seen)
        }
        Step::Directory { dir, path } => {
            let length = put(guest, path);
            returned(call!(guest.path_create_directory(dir, PATH, length))).map(|()| Vec::new())
        }
        Step::RemoveDirectory { dir, path } => {
            let length = put(guest, path);
            returned(call!(guest.path_remove_directory(dir, PATH, length))).map(|()| Vec::new())
        }
        Step::Unlink { dir, path } => {
            let length = put(guest, path);
            returned(call!(guest.path_unlink_file(dir, PATH, length))).map(|()| Vec::new())
        }
        Step::Link {
            dir,
            old,
            new_dir,
            new,
        } => {
            let length = put(guest, old);
            let new_length = guest.put(PATH2, new.as_bytes());
            returned(call!(
                guest.path_link(dir, 0, PATH, length, new_dir, PATH2, new_length)
            ))
            .map(|()| Vec::new())
        }
        Step::Rename {
            dir,
            old,
            new_dir,
            new,
        } => {
            let length = put(guest, old);
            let new_length = guest.put(PATH2, new.as_bytes());
            returned(call!(
                guest.path_rename(dir, PATH, length, new_dir, PATH2, new_length)
            ))
            .map(|()| Vec::new())
        }
        Step::Symlink { target, dir, path } => {
            let length = put(guest, target);
            let new_length = guest.put(PATH2, path.as_bytes());
            returned(call!(
                guest.path_symlink(PATH, length, dir, PATH2, new_length)
            ))
            .map(|()| Vec::new())
        }
        Step::ReadLink { dir, path } => {
            let length = put(guest, path);
            returned(call!(
                guest.path_readlink(dir, PATH, length, DATA, 100, OUT)
            ))?;
            Ok(guest.bytes(DATA, guest.u32(OUT)).to_vec())
        }
        Step::Stat { dir, path, follow } => {
            let length = put(guest, path);
            returned(call!(
                guest.path_filestat_get(dir, follow, PATH, length, OUT)
            ))?;
            Ok(stat_seen(guest, false))
        }
        Step::SetTimes { dir, path, follow } => {
            let length = put(guest, path);
            returned(call!(guest.path_filestat_set_times(
                dir,
                follow,
                PATH,
                length,
                1_000_000_000,
                2_000_000_007,
                5
            )))?;
            returned(call!(
                guest.path_filestat_get(dir, follow, PATH, length, OUT)
            ))?;
            Ok(stat_seen(guest, true))
        }
    }
}

#[test]
fn a_volume_answers_every_call_as_a_directory_of_the_host_does() {
    let seed = std::env::var("WSNAP_TEST_SEED").map_or(7, |seed| seed.parse().expect("a number"));
    let rounds =
        std::env::var("WSNAP_TEST_ROUNDS").map_or(60, |rounds| rounds.parse().expect("a number"));
    for round in seed..seed + rounds {
        let mut numbers = Numbers(round);
        let (mut host, mut volume) = (Guest::new(), guest());
        let mut done = Vec::new();
        for _ in 0..400 {
            let step = step(&mut numbers);
            let (expected, found) = (make(&mut host, &step), make(&mut volume, &step));
            done.push((step, expected.clone()));
            let tail = &done[done.len().saturating_sub(4)..];
            assert_eq!(found, expected, "round {round}, after {tail:?}");
            if numbers.below(40) == 0 {
                volume = resumed(volume);
            }
        }
    }
}

#[test]
fn a_volume_that_was_saved_before_is_saved_as_it_is_now() {
    for round in 0..20 {
        let mut numbers = Numbers(round);
        let mut guest = guest();
        for _ in 0..400 {
            let step = step(&mut numbers);
            // Whether it goes well is another matter.
            let _ = make(&mut guest, &step);
            let is = guest.wasi.saved_state().expect("it can be saved");
            assert_eq!(guest.state().volumes, is.volumes, "{round}, after {step:?}");
        }
    }
}

#[test]
fn what_is_in_a_volume_is_saved_with_what_is_open_in_it() {
    let mut guest = guest();
    assert_eq!(
        make(
            &mut guest,
            &Step::Directory {
                dir: DIR,
                path: "d"
            }
        ),
        Ok(vec![])
    );
    let directory = guest
        .open("d", OFlags::DIRECTORY, READ)
        .expect("it is there");
    let file = guest
        .open_at(directory, "f", OFlags::CREAT, READ | WRITE, 0)
        .expect("room");
    assert_eq!(guest.write(file, &[7; 5000]), Ok(5000));
    assert_eq!(guest.seek(file, 4990, 0), Ok(4990));
    let appending = guest
        .open_at(directory, "f", OFlags::empty(), WRITE, 1)
        .expect("it is there");
    assert_eq!(
        make(
            &mut guest,
            &Step::Unlink {
                dir: directory,
                path: "f"
            }
        ),
        Ok(vec![])
    );
    for round in 0..3 {
        guest = resumed(guest);
        assert_eq!(guest.tell(file), Ok(4990 + round));
        assert_eq!(guest.read(file, 1), Ok(vec![7]));
        assert_eq!(guest.write(appending, &[8]), Ok(1));
        let seen = make(&mut guest, &Step::Describe { fd: file }).expect("it is open");
        // Links and length of the file, behind its `fdstat`.
        assert_eq!(seen[25..33], [0; 8]);
        assert_eq!(seen[33..41], (5001 + round).to_le_bytes());
    }
    assert_eq!(guest.close(file), Ok(()));
    assert_eq!(guest.close(appending), Ok(()));
    let guest = resumed(guest);
    assert!(
        content(&guest, 0).iter().all(|&byte| byte == 0),
        "removed files leave nothing behind"
    );
}

#[test]
fn equal_files_are_equal_states_whatever_was_there_before() {
    let mut states = Vec::new();
    for detour in [false, true] {
        let mut guest = Guest::with(|config| {
            config.preopens.clear();
            config.volumes.push(grant("data", "/w"));
            config.deterministic_seed = Some([1; 32]);
        });
        if detour {
            let other = guest.create("other");
            assert_eq!(guest.write(other, &[9; 20_000]), Ok(20_000));
            assert_eq!(
                make(
                    &mut guest,
                    &Step::Unlink {
                        dir: DIR,
                        path: "other"
                    }
                ),
                Ok(vec![])
            );
            assert_eq!(guest.close(other), Ok(()));
        }
        let file = guest.create("f");
        assert_eq!(guest.write(file, &[7; 30_000]), Ok(30_000));
        assert_eq!(guest.close(file), Ok(()));
        states.push((guest.state(), content(&guest, 0)));
    }
    assert!(states[0] == states[1]);
}

#[test]
fn a_full_volume_takes_what_fits_and_then_nothing() {
    let mut guest = guest();
    guest.wasi.set_volume_limit(3 * 4096);
    let file = guest.create("f");
    assert_eq!(guest.write(file, &[1; 10_000]), Ok(10_000));
    let other = guest.create("other");
    assert_eq!(guest.write(other, &[1; 10]), Err(Errno::Nospc));
    assert_eq!(guest.write(file, &[1; 10_000]), Ok(2288));
    assert_eq!(guest.write(file, &[1; 1]), Err(Errno::Nospc));
    let allocate = Step::Allocate {
        fd: other,
        offset: 0,
        length: 10,
    };
    assert_eq!(make(&mut guest, &allocate), Err(Errno::Nospc));
    assert_eq!(
        make(
            &mut guest,
            &Step::SetSize {
                fd: file,
                size: 4096
            }
        ),
        Ok(vec![])
    );
    assert_eq!(make(&mut guest, &allocate), Ok(vec![]));
    assert_eq!(guest.write(other, &[1; 10]), Ok(10));
}

#[test]
fn nothing_is_linked_or_renamed_between_file_systems() {
    let mut guest = Guest::with(|config| {
        config.volumes.push(grant("one", "/one"));
        config.volumes.push(grant("two", "/two"));
    });
    for fd in 3..6 {
        guest
            .open_at(fd, "f", OFlags::CREAT, WRITE, 0)
            .expect("room");
    }
    for (dir, new_dir) in [(3, 4), (4, 3), (4, 5)] {
        let rename = Step::Rename {
            dir,
            old: "f",
            new_dir,
            new: "g",
        };
        assert_eq!(make(&mut guest, &rename), Err(Errno::Xdev));
        let link = Step::Link {
            dir,
            old: "f",
            new_dir,
            new: "g",
        };
        assert_eq!(make(&mut guest, &link), Err(Errno::Xdev));
    }
    for (fd, name) in [(3, "/w"), (4, "/one"), (5, "/two")] {
        assert_eq!(returned(call!(guest.fd_prestat_get(fd, OUT))), Ok(()));
        let length = guest.u32(OUT + 4);
        assert_eq!(
            returned(call!(guest.fd_prestat_dir_name(fd, DATA, length))),
            Ok(())
        );
        assert_eq!(guest.bytes(DATA, length), name.as_bytes());
    }
}

#[test]
fn a_volume_without_its_memory_has_names_but_no_content() {
    let mut guest = guest();
    let file = guest.create("f");
    assert_eq!(guest.write(file, b"content"), Ok(7));
    let (state, bytes) = (guest.state(), content(&guest, 0));
    let grants = Grants {
        streams: closed_streams(),
        ..Grants::default()
    };
    guest.wasi = Wasi::restore(&state, grants).expect("nothing is needed");
    assert_eq!(guest.read(file, 10), Ok(vec![]), "it stood at its end");
    assert_eq!(guest.seek(file, 0, 0), Ok(0));
    assert_eq!(guest.read(file, 10), Err(Errno::Io));
    assert_eq!(guest.write(file, b"more"), Err(Errno::Io));
    assert_eq!(
        make(&mut guest, &Step::SetSize { fd: file, size: 1 }),
        Err(Errno::Io)
    );
    let content_bytes = bytes.len() as u64;
    let short = guest
        .wasi
        .set_volume_memory(0, Box::new(bytes[4096..].to_vec()));
    let volume = "data".to_owned();
    let is_bytes = content_bytes - 4096;
    assert_eq!(
        short,
        Err(VolumeError::Memory {
            volume,
            is_bytes,
            content_bytes
        })
    );
    assert_eq!(guest.wasi.set_volume_memory(0, Box::new(bytes)), Ok(()));
    assert_eq!(guest.read(file, 10), Ok(b"content".to_vec()));
    let volume = "number 1".to_owned();
    let none = guest.wasi.set_volume_memory(1, Box::new(Vec::new()));
    assert_eq!(none, Err(VolumeError::NoSuchVolume { volume }));
}

#[test]
fn a_volume_is_read_and_changed_from_outside() {
    let mut guest = guest();
    let file = guest.create("f");
    assert_eq!(guest.write(file, b"from inside"), Ok(11));
    let mut state = guest.state();
    let memory = Box::new(content(&guest, 0));
    let mut volume = state.volume("data", memory).expect("it is there");
    let mut buffer = [0; 20];
    assert_eq!(volume.read_at("f", 5, &mut buffer), Ok(6));
    assert_eq!(&buffer[..6], b"inside");
    assert_eq!(volume.create_dir("d"), Ok(()));
    assert_eq!(volume.create_file("d/g"), Ok(()));
    assert_eq!(volume.write_at("d/g", 2, b"from outside"), Ok(()));
    let entries = volume.entries(".").expect("a directory");
    let seen: BTreeMap<_, _> = entries
        .into_iter()
        .map(|entry| (entry.name, (entry.file_type, entry.size_bytes)))
        .collect();
    assert_eq!(seen["f"], (FileType::RegularFile, 11));
    assert_eq!(seen["d"], (FileType::Directory, 0));
    assert_eq!(seen.len(), 2);
    let missing = volume.read_at("nothing", 0, &mut buffer);
    let missing = missing.expect_err("there is nothing").to_string();
    assert_eq!(
        missing,
        "cannot read nothing in volume data: there is no such file or directory"
    );

    state.set_volume(&volume);
    let state = SavedState::decode(&state.encode()).expect("it is a state");
    let bytes = volume.memory().expect("it has its memory").bytes().to_vec();
    let grants = Grants {
        streams: closed_streams(),
        ..Grants::default()
    };
    guest.wasi = Wasi::restore(&state, grants).expect("nothing is needed");
    assert_eq!(guest.wasi.set_volume_memory(0, Box::new(bytes)), Ok(()));
    let inside = guest
        .open("d/g", OFlags::empty(), READ)
        .expect("it was made");
    assert_eq!(guest.read(inside, 99), Ok(b"\0\0from outside".to_vec()));
    assert_eq!(guest.write(file, b"!"), Ok(1));
}

#[test]
fn a_volume_with_any_bit_flipped_is_refused_or_works() {
    let mut guest = guest();
    for step in [
        Step::Directory {
            dir: DIR,
            path: "d",
        },
        Step::Directory {
            dir: DIR,
            path: "d/e",
        },
        Step::Symlink {
            target: "d/e",
            dir: DIR,
            path: "link",
        },
    ] {
        assert_eq!(make(&mut guest, &step), Ok(vec![]));
    }
    let file = guest.create("d/f");
    assert_eq!(guest.write(file, &[7; 9000]), Ok(9000));
    let other = guest.create("other");
    assert_eq!(guest.write(other, &[7; 100]), Ok(100));
    assert_eq!(
        make(
            &mut guest,
            &Step::Unlink {
                dir: DIR,
                path: "other"
            }
        ),
        Ok(vec![])
    );
    let bytes = guest.wasi.save().expect("it can be saved");
    let memory = content(&guest, 0);
    let mut refused = 0;
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let state = match SavedState::decode(&damaged) {
            Ok(state) => state,
            Err(
                DecodeError::Invalid { .. }
                | DecodeError::Truncated { .. }
                | DecodeError::Version { .. },
            ) => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(state.encode(), damaged, "bit {bit}");
        let grants = Grants {
            streams: closed_streams(),
            ..Grants::default()
        };
        let Ok(wasi) = Wasi::restore(&state, grants) else {
            continue;
        };
        guest.wasi = wasi;
        if guest
            .wasi
            .set_volume_memory(0, Box::new(memory.clone()))
            .is_err()
        {
            continue;
        }
        let mut numbers = Numbers(bit as u64);
        for _ in 0..30 {
            let _ = make(&mut guest, &step(&mut numbers));
        }
        assert!(guest.wasi.save().is_ok());
    }
    assert!(refused > bytes.len(), "{refused}");
}

#[test]
fn writing_nothing_is_no_modification() {
    for mut guest in [Guest::new(), guest()] {
        let fd = guest.create("f");
        assert_eq!(guest.write(fd, b"12345"), Ok(5));
        let modified_ns = |guest: &mut Guest| {
            let stat = call!(guest.fd_filestat_get(fd, OUT));
            returned(stat).expect("it is open");
            guest.u64(OUT + 48)
        };
        let before_ns = modified_ns(&mut guest);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(returned(call!(guest.fd_write(fd, IOVS, 0, OUT))), Ok(()));
        assert_eq!(
            returned(call!(guest.fd_pwrite(fd, IOVS, 0, 0, OUT))),
            Ok(())
        );
        assert_eq!(modified_ns(&mut guest), before_ns);
        assert_eq!(guest.tell(fd), Ok(5));
    }
}
