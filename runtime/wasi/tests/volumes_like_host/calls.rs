//! Calls with arguments by chance, and what a program sees of their results.

use crate::call;
use crate::common::{self, DATA, Guest, IOVS, OUT, PATH, PATH2, returned};
use wsnap_wasi::{Errno, FileType};

/// Times that are set lie before this: nanoseconds since 1970.
const SET_TIMES_END_NS: u64 = 1_000_000_000_000_000_000;

/// Numbers from a seed (SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }

    /// A path. None ends in a slash, or a dot after one: cap-std does not tell such a path from one without, Linux and
    /// volumes do.
    fn path(&mut self) -> String {
        if self.one_in(40) {
            let odd = ["", "/", "/a", "//a", "../a", "./a", "."];
            let long = [
                "x".repeat(255),
                "a/".repeat(450) + "a",
                "./".repeat(450) + "b",
            ];
            let choice = self.below(10) as usize;
            return match odd.get(choice) {
                Some(odd) => (*odd).to_owned(),
                None => long[choice - odd.len()].clone(),
            };
        }
        let names = ["a", "b", "c", "d"];
        let depth = self.of(&[1, 1, 1, 2, 2, 3]);
        let mut path = String::new();
        for level in 0..depth {
            if level > 0 {
                path.push_str(self.of(&["/", "/", "/", "/", "//"]));
            }
            let name = match self.below(24) {
                0 if level + 1 < depth => ".",
                1 => "..",
                _ => self.of(&names),
            };
            path.push_str(name);
        }
        path
    }

    fn fd(&mut self) -> u32 {
        self.below(11) as u32
    }

    /// A directory: mostly the volume itself.
    fn directory(&mut self) -> u32 {
        match self.below(3) {
            0 => self.fd(),
            _ => common::DIR,
        }
    }

    fn offset(&mut self) -> u64 {
        match self.below(30) {
            0 => u64::MAX,
            1 => i64::MAX as u64,
            2 => self.below(1 << 30),
            _ => self.below(20_000),
        }
    }

    fn length(&mut self) -> u32 {
        self.of(&[0, 1, 10, 100, 4096, 5000, 9000])
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.length();
        let byte = self.of(&[0, 1, 2, 3]);
        vec![byte; length as usize]
    }
}

#[derive(Debug)]
pub enum Call {
    CreateDirectory(u32, String),
    RemoveDirectory(u32, String),
    Unlink(u32, String),
    Symlink(String, u32, String),
    Readlink(u32, String, u32),
    Link(u32, u32, String, u32, String),
    Rename(u32, String, u32, String),
    Stat(u32, u32, String),
    SetTimes(u32, u32, String, u64, u64, u32),
    Open {
        fd: u32,
        lookup: u32,
        path: String,
        oflags: u32,
        rights: u64,
        fdflags: u32,
    },
    Close(u32),
    Renumber(u32, u32),
    Read(u32, u32),
    Write(u32, Vec<u8>),
    Pread(u32, u32, u64),
    Pwrite(u32, Vec<u8>, u64),
    Seek(u32, i64, u32),
    Tell(u32),
    SetSize(u32, u64),
    Allocate(u32, u64, u64),
    Advise(u32, u64, u64, u32),
    Sync(u32),
    Datasync(u32),
    FdStat(u32),
    SetFlags(u32, u32),
    SetRights(u32),
    FileStat(u32),
    SetFileTimes(u32, u64, u64, u32),
    Readdir(u32, u32, bool),
    Prestat(u32),
    PollRead(u32),
}

pub fn choose(numbers: &mut Numbers) -> Call {
    let n = numbers;
    let fst_flags = |n: &mut Numbers| n.of(&[0, 1, 4, 5, 2, 8, 10, 3, 12, 6]);
    match n.below(62) {
        0..=3 => Call::CreateDirectory(n.directory(), n.path()),
        4..=5 => Call::RemoveDirectory(n.directory(), n.path()),
        6..=7 => Call::Unlink(n.directory(), n.path()),
        8..=9 => Call::Symlink(n.path(), n.directory(), n.path()),
        10 => Call::Readlink(n.directory(), n.path(), n.of(&[0, 1, 100])),
        11..=12 => Call::Link(
            n.of(&[0, 0, 0, 1]),
            n.directory(),
            n.path(),
            n.directory(),
            n.path(),
        ),
        13..=17 => Call::Rename(n.directory(), n.path(), n.directory(), n.path()),
        18..=21 => Call::Stat(n.directory(), n.of(&[0, 1]), n.path()),
        22 => Call::SetTimes(
            n.directory(),
            n.of(&[0, 1]),
            n.path(),
            n.below(SET_TIMES_END_NS),
            n.below(SET_TIMES_END_NS),
            fst_flags(n),
        ),
        23..=32 => Call::Open {
            fd: n.directory(),
            lookup: n.of(&[0, 1, 1]),
            path: n.path(),
            oflags: n.of(&[0, 0, 1, 1, 1, 2, 4, 5, 8, 9, 13, 3, 10]),
            rights: n.of(&[2, 64, 66, 66, 66, 0]),
            fdflags: n.of(&[0, 0, 0, 1, 4, 5, 2]),
        },
        33..=36 => Call::Close(n.fd()),
        37 => Call::Renumber(n.fd(), n.fd()),
        38..=40 => Call::Read(n.fd(), n.length()),
        41..=44 => Call::Write(n.fd(), n.bytes()),
        45 => Call::Pread(n.fd(), n.length(), n.offset()),
        46..=47 => Call::Pwrite(n.fd(), n.bytes(), n.offset()),
        48 => {
            let offset = n.of(&[0, 1, 5000, -1, -5000, i64::MAX, i64::MIN, 1 << 20]);
            Call::Seek(n.fd(), offset, n.of(&[0, 1, 2, 3]))
        }
        49 => Call::Tell(n.fd()),
        50..=51 => Call::SetSize(
            n.fd(),
            n.of(&[0, 1, 100, 4096, 5000, 8192, 20_000, 1 << 28, u64::MAX]),
        ),
        52 => {
            let length = n.of(&[0, 1, 4096, 10_000, u64::MAX]);
            Call::Allocate(
                n.fd(),
                n.of(&[0, 1, 5000, u64::MAX, i64::MAX as u64]),
                length,
            )
        }
        53 => Call::Advise(n.fd(), n.offset(), n.offset(), n.below(7) as u32),
        54 => n.of(&[Call::Sync as fn(u32) -> Call, Call::Datasync])(n.fd()),
        55 => Call::FdStat(n.fd()),
        56 => match n.one_in(4) {
            true => Call::SetRights(n.fd()),
            false => Call::SetFlags(n.fd(), n.of(&[0, 1, 4, 5, 16])),
        },
        57 => Call::FileStat(n.fd()),
        58 => Call::SetFileTimes(
            n.fd(),
            n.below(SET_TIMES_END_NS),
            n.below(SET_TIMES_END_NS),
            fst_flags(n),
        ),
        59 => Call::Readdir(n.directory(), n.of(&[0, 10, 30, 60, 4096]), n.one_in(2)),
        60 => Call::Prestat(n.fd()),
        _ => Call::PollRead(n.fd()),
    }
}

impl Guest {
    /// What was stored at `OUT` about a file, without what differs between file systems: inodes, how they see directories,
    /// and which changes count as such.
    fn file_stat(&self) -> Vec<u64> {
        let file_type = self.u64(OUT + 16);
        let is_directory = file_type == FileType::Directory as u64;
        let (links, size) = match is_directory {
            true => (0, 0),
            false => (self.u64(OUT + 24), self.u64(OUT + 32)),
        };
        vec![file_type, links, size]
    }

    fn times(&self, fst_flags: u32) -> Vec<u64> {
        let set = [(1, OUT + 40), (4, OUT + 48)];
        let set = set.iter().filter(|(flag, _)| fst_flags & flag != 0);
        set.map(|(_, address)| self.u64(*address)).collect()
    }

    fn two_paths(&mut self, first: &str, second: &str) -> (u32, u32) {
        (
            self.put(PATH, first.as_bytes()),
            self.put(PATH2, second.as_bytes()),
        )
    }

    /// The records of a listing, without the inodes.
    fn listing(&self, length: u32) -> Vec<u64> {
        let mut bytes = self.bytes(DATA, length).to_vec();
        let mut start = 0;
        while start + 24 <= bytes.len() {
            bytes[start + 8..start + 16].fill(0);
            let name = &bytes[start + 16..start + 20];
            let name = u32::from_le_bytes(name.try_into().expect("4 bytes"));
            start += 24 + name as usize;
        }
        // A record that was cut off inside its inode.
        if start + 8 < bytes.len() {
            let end = bytes.len().min(start + 16);
            bytes[start + 8..end].fill(0);
        }
        bytes.into_iter().map(u64::from).collect()
    }

    fn data(&self, length: u32) -> Vec<u64> {
        let hash = blake3::hash(self.bytes(DATA, length));
        let first = hash.as_bytes()[..8].try_into().expect("8 bytes");
        vec![length.into(), u64::from_le_bytes(first)]
    }

    /// Makes a call; what it stored is part of the result.
    pub fn make(&mut self, call: &Call, cookie: u64) -> Result<Vec<u64>, Errno> {
        let guest = self;
        let none = |result| returned(result).map(|()| Vec::new());
        match call {
            Call::CreateDirectory(fd, path) => {
                let length = guest.put(PATH, path.as_bytes());
                none(call!(guest.path_create_directory(*fd, PATH, length)))
            }
            Call::RemoveDirectory(fd, path) => {
                let length = guest.put(PATH, path.as_bytes());
                none(call!(guest.path_remove_directory(*fd, PATH, length)))
            }
            Call::Unlink(fd, path) => {
                let length = guest.put(PATH, path.as_bytes());
                none(call!(guest.path_unlink_file(*fd, PATH, length)))
            }
            Call::Symlink(target, fd, path) => {
                let (old, new) = guest.two_paths(target, path);
                none(call!(guest.path_symlink(PATH, old, *fd, PATH2, new)))
            }
            Call::Readlink(fd, path, room) => {
                let length = guest.put(PATH, path.as_bytes());
                none(call!(
                    guest.path_readlink(*fd, PATH, length, DATA, *room, OUT)
                ))?;
                Ok(guest.data(guest.u32(OUT)))
            }
            Call::Link(lookup, old_fd, old, new_fd, new) => {
                let (old, new) = guest.two_paths(old, new);
                none(call!(
                    guest.path_link(*old_fd, *lookup, PATH, old, *new_fd, PATH2, new)
                ))
            }
            Call::Rename(old_fd, old, new_fd, new) => {
                let (old, new) = guest.two_paths(old, new);
                none(call!(
                    guest.path_rename(*old_fd, PATH, old, *new_fd, PATH2, new)
                ))
            }
            Call::Stat(fd, lookup, path) => {
                let length = guest.put(PATH, path.as_bytes());
                none(call!(
                    guest.path_filestat_get(*fd, *lookup, PATH, length, OUT)
                ))?;
                Ok(guest.file_stat())
            }
            Call::SetTimes(fd, lookup, path, atim, mtim, fst_flags) => {
                let length = guest.put(PATH, path.as_bytes());
                none(call!(guest.path_filestat_set_times(
                    *fd, *lookup, PATH, length, *atim, *mtim, *fst_flags
                )))?;
                none(call!(
                    guest.path_filestat_get(*fd, *lookup, PATH, length, OUT)
                ))?;
                Ok(guest.times(*fst_flags))
            }
            Call::Open {
                fd,
                lookup,
                path,
                oflags,
                rights,
                fdflags,
            } => {
                let length = guest.put(PATH, path.as_bytes());
                none(call!(guest.path_open(
                    *fd, *lookup, PATH, length, *oflags, *rights, 0, *fdflags, OUT
                )))?;
                Ok(vec![guest.u32(OUT).into()])
            }
            Call::Close(fd) => none(call!(guest.fd_close(*fd))),
            Call::Renumber(from, to) => none(call!(guest.fd_renumber(*from, *to))),
            Call::Read(fd, length) => {
                guest.two_buffers(*length);
                none(call!(guest.fd_read(*fd, IOVS, 2, OUT)))?;
                Ok(guest.data(guest.u32(OUT)))
            }
            Call::Write(fd, bytes) => {
                let length = guest.put(DATA, bytes);
                guest.two_buffers(length);
                none(call!(guest.fd_write(*fd, IOVS, 2, OUT)))?;
                Ok(vec![guest.u32(OUT).into()])
            }
            Call::Pread(fd, length, offset) => {
                guest.two_buffers(*length);
                none(call!(guest.fd_pread(*fd, IOVS, 2, *offset, OUT)))?;
                Ok(guest.data(guest.u32(OUT)))
            }
            Call::Pwrite(fd, bytes, offset) => {
                let length = guest.put(DATA, bytes);
                guest.two_buffers(length);
                none(call!(guest.fd_pwrite(*fd, IOVS, 2, *offset, OUT)))?;
                Ok(vec![guest.u32(OUT).into()])
            }
            Call::Seek(fd, offset, whence) => {
                none(call!(guest.fd_seek(*fd, *offset, *whence, OUT)))?;
                Ok(vec![guest.u64(OUT)])
            }
            Call::Tell(fd) => {
                none(call!(guest.fd_tell(*fd, OUT)))?;
                Ok(vec![guest.u64(OUT)])
            }
            Call::SetSize(fd, size) => none(call!(guest.fd_filestat_set_size(*fd, *size))),
            Call::Allocate(fd, offset, length) => {
                none(call!(guest.fd_allocate(*fd, *offset, *length)))
            }
            Call::Advise(fd, offset, length, advice) => {
                none(call!(guest.fd_advise(*fd, *offset, *length, *advice)))
            }
            Call::Sync(fd) => none(call!(guest.fd_sync(*fd))),
            Call::Datasync(fd) => none(call!(guest.fd_datasync(*fd))),
            Call::FdStat(fd) => {
                guest.put(OUT, &[0; 24]);
                none(call!(guest.fd_fdstat_get(*fd, OUT)))?;
                Ok(vec![
                    guest.u64(OUT),
                    guest.u64(OUT + 8),
                    guest.u64(OUT + 16),
                ])
            }
            Call::SetFlags(fd, flags) => none(call!(guest.fd_fdstat_set_flags(*fd, *flags))),
            Call::SetRights(fd) => none(call!(guest.fd_fdstat_set_rights(*fd, 0, 0))),
            Call::FileStat(fd) => {
                none(call!(guest.fd_filestat_get(*fd, OUT)))?;
                Ok(guest.file_stat())
            }
            Call::SetFileTimes(fd, atim, mtim, fst_flags) => {
                none(call!(
                    guest.fd_filestat_set_times(*fd, *atim, *mtim, *fst_flags)
                ))?;
                none(call!(guest.fd_filestat_get(*fd, OUT)))?;
                Ok(guest.times(*fst_flags))
            }
            Call::Readdir(fd, room, from_last) => {
                let cookie = if *from_last { cookie } else { 0 };
                none(call!(guest.fd_readdir(*fd, DATA, *room, cookie, OUT)))?;
                Ok(guest.listing(guest.u32(OUT)))
            }
            Call::Prestat(fd) => {
                none(call!(guest.fd_prestat_get(*fd, OUT)))?;
                let prestat = guest.u64(OUT);
                none(call!(guest.fd_prestat_dir_name(*fd, DATA, 2)))?;
                let mut result = guest.data(2);
                result.push(prestat);
                Ok(result)
            }
            Call::PollRead(fd) => {
                let mut subscription = [0; 48];
                subscription[8] = 1;
                subscription[16..20].copy_from_slice(&fd.to_le_bytes());
                guest.put(DATA, &subscription);
                none(call!(guest.poll_oneoff(DATA, PATH, 1, OUT)))?;
                Ok((0..4).map(|word| guest.u64(PATH + 8 * word)).collect())
            }
        }
    }

    /// Makes the array of buffers name `length` bytes at `DATA`, in two parts.
    fn two_buffers(&mut self, length: u32) {
        let first = length / 3;
        for (place, word) in (0..).zip([DATA, first, DATA + first, length - first]) {
            self.put(IOVS + 4 * place, &word.to_le_bytes());
        }
    }

    /// Everything below `path`: names with what is known of each, and the beginning of files.
    pub fn tree(&mut self, path: &str) -> Vec<(String, Vec<u64>)> {
        let mut found = Vec::new();
        let call = Call::Open {
            fd: common::DIR,
            lookup: 0,
            path: path.to_owned(),
            oflags: 2,
            rights: 2,
            fdflags: 0,
        };
        let fd = self.make(&call, 0).expect("a directory")[0] as u32;
        let records = self.make(&Call::Readdir(fd, 65536, false), 0);
        let bytes: Vec<u8> = records
            .expect("a listing")
            .iter()
            .map(|b| *b as u8)
            .collect();
        assert_eq!(self.make(&Call::Close(fd), 0), Ok(vec![]));
        let mut rest = &bytes[..];
        while let Some((header, tail)) = rest.split_at_checked(24) {
            let length = u32::from_le_bytes(header[16..20].try_into().expect("4 bytes"));
            let (name, tail) = tail.split_at(length as usize);
            rest = tail;
            let name = std::str::from_utf8(name).expect("text");
            if name == "." || name == ".." {
                continue;
            }
            let inner = format!("{path}/{name}");
            let stat = self.make(&Call::Stat(common::DIR, 0, inner.clone()), 0);
            let mut known = stat.expect("an entry");
            match known[0] {
                3 => {
                    found.push((inner.clone(), known));
                    found.extend(self.tree(&inner));
                    continue;
                }
                4 => {
                    let open = Call::Open {
                        fd: common::DIR,
                        lookup: 0,
                        path: inner.clone(),
                        oflags: 0,
                        rights: 2,
                        fdflags: 0,
                    };
                    let fd = self.make(&open, 0).expect("a file")[0] as u32;
                    known.extend(self.make(&Call::Pread(fd, 65536, 0), 0).expect("bytes"));
                    assert_eq!(self.make(&Call::Close(fd), 0), Ok(vec![]));
                }
                _ => {
                    let link = Call::Readlink(common::DIR, inner.clone(), 1000);
                    known.extend(self.make(&link, 0).expect("a link"));
                }
            }
            found.push((inner, known));
        }
        found
    }
}
