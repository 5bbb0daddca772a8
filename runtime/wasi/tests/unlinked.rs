//! Files that are no longer where the program opened them: removed, replaced, renamed, with another name left.

mod common;

use common::{DIR, Guest, IOVS, OUT, PATH, PATH2, READ, WRITE, closed_streams, grants, returned};
use std::fs;
use std::os::unix::fs::FileExt as _;
use tempfile::TempDir;
use wsnap_wasi::{
    CARRIED_BYTES_MAX, Errno, FdFlags, Grants, OFlags, Preopen, Rights, SaveError, SavedDescriptor,
    SavedFileKind, Wasi,
};

fn resumed(guest: Guest) -> Guest {
    guest.resume().expect("the guest can be resumed")
}

impl Guest {
    fn unlink(&mut self, path: &str) {
        let length = self.put(PATH, path.as_bytes());
        let unlinked = returned(call!(self.path_unlink_file(DIR, PATH, length)));
        assert_eq!(unlinked, Ok(()), "{path}");
    }

    fn rename(&mut self, old: &str, new: &str) {
        let (old, new) = (
            self.put(PATH, old.as_bytes()),
            self.put(PATH2, new.as_bytes()),
        );
        let renamed = returned(call!(self.path_rename(DIR, PATH, old, DIR, PATH2, new)));
        assert_eq!(renamed, Ok(()));
    }

    fn link(&mut self, old: &str, new: &str) {
        let (old, new) = (
            self.put(PATH, old.as_bytes()),
            self.put(PATH2, new.as_bytes()),
        );
        let linked = returned(call!(self.path_link(DIR, 0, PATH, old, DIR, PATH2, new)));
        assert_eq!(linked, Ok(()));
    }

    /// Inode, links, size and modification time.
    fn filestat(&mut self, fd: u32) -> [u64; 4] {
        assert_eq!(returned(call!(self.fd_filestat_get(fd, OUT))), Ok(()));
        [8, 24, 32, 48].map(|field| self.u64(OUT + field))
    }

    fn pread(&mut self, fd: u32, length: u32, offset: u64) -> Result<Vec<u8>, Errno> {
        self.one_buffer(length);
        returned(call!(self.fd_pread(fd, IOVS, 1, offset, OUT)))?;
        Ok(self.bytes(common::DATA, self.u32(OUT)).to_vec())
    }

    /// The path under which a descriptor is saved, and whether its content travels.
    fn saved_at(&self, fd: u32) -> (String, bool) {
        match &self.state().descriptors[&fd] {
            SavedDescriptor::File(file) => {
                let carried = matches!(file.kind, SavedFileKind::Carried(_));
                (file.path.clone(), carried)
            }
            other => panic!("no file: {other:?}"),
        }
    }
}

#[test]
fn a_file_unlinked_while_open_keeps_its_content_offset_and_flags() {
    let mut guest = Guest::new();
    let flags = FdFlags::NONBLOCK.bits().into();
    let fd = guest.open_at(DIR, "f", OFlags::CREAT, READ | WRITE, flags);
    let fd = fd.expect("opens");
    assert_eq!(guest.write(fd, b"still here"), Ok(10));
    assert_eq!(guest.seek(fd, 6, 0), Ok(6));
    guest.unlink("f");
    let before = guest.filestat(fd);
    for _ in 0..2 {
        guest = resumed(guest);
        assert_eq!(guest.tell(fd), Ok(6));
        assert_eq!(guest.filestat(fd)[1..], before[1..]);
        assert_eq!(returned(call!(guest.fd_fdstat_get(fd, OUT))), Ok(()));
        assert_eq!(guest.u32(OUT) >> 16, flags);
        assert_eq!(guest.pread(fd, 99, 0), Ok(b"still here".to_vec()));
    }
    assert_eq!(before[1], 0);
    assert_eq!(guest.write(fd, b"and more"), Ok(8));
    guest = resumed(guest);
    assert_eq!(guest.pread(fd, 99, 0), Ok(b"still and more".to_vec()));
    // Nothing of it is left, nor was anything put in its place.
    let left = fs::read_dir(guest.dir.path()).expect("the directory");
    assert_eq!(left.count(), 0);
    assert_eq!(guest.close(fd), Ok(()));
    assert!(guest.state().carried.is_empty());
}

#[test]
fn an_unlinked_file_is_carried_to_a_host_that_lacks_its_directory() {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    assert_eq!(guest.write(fd, b"content"), Ok(7));
    guest.unlink("f");
    assert_eq!(guest.close(DIR), Ok(()));
    let state = guest.state();
    for _ in 0..2 {
        let streams = closed_streams();
        let grants = Grants {
            streams,
            ..Grants::default()
        };
        let wasi = Wasi::restore(&state, grants).expect("nothing needs a directory");
        guest = Guest { wasi, ..guest };
        assert_eq!(guest.pread(fd, 99, 0), Ok(b"content".to_vec()));
        assert_eq!(guest.filestat(fd)[1], 0);
        // The clock alone has gone on.
        let again = guest.state();
        assert_eq!(again.carried, state.carried);
        assert_eq!(again.descriptors, state.descriptors);
        assert_eq!(guest.write(fd, b"more"), Ok(4));
    }
}

#[test]
fn descriptors_of_one_unlinked_file_see_each_others_writes() {
    let mut guest = Guest::new();
    let first = guest.create("f");
    guest.link("f", "g");
    let second = guest.open("g", OFlags::empty(), READ | WRITE);
    let second = second.expect("opens");
    let other = guest.create("other");
    for path in ["f", "g", "other"] {
        guest.unlink(path);
    }
    guest.write(other, b"unrelated").expect("room");
    for text in ["one", "two", "three"] {
        guest = resumed(guest);
        assert_eq!(guest.state().carried.len(), 2);
        assert_eq!(guest.seek(first, 0, 0), Ok(0));
        assert!(guest.write(first, text.as_bytes()).is_ok());
        let length = text.len() as u32;
        assert_eq!(guest.pread(second, length, 0), Ok(text.into()));
        assert_eq!(guest.filestat(first)[0], guest.filestat(second)[0]);
        assert_ne!(guest.filestat(first)[0], guest.filestat(other)[0]);
        assert_eq!(guest.pread(other, 99, 0), Ok(b"unrelated".to_vec()));
    }
}

#[test]
fn an_unlinked_file_can_be_used_only_as_it_was_opened() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), "text").expect("written");
    let reader = guest.open("f", OFlags::empty(), READ).expect("opens");
    let writer = guest.open("f", OFlags::empty(), WRITE).expect("opens");
    guest.unlink("f");
    for _ in 0..2 {
        guest = resumed(guest);
        assert_eq!(guest.write(reader, b"x"), Err(Errno::Badf));
        assert_eq!(
            returned(call!(guest.fd_filestat_set_size(reader, 0))),
            Err(Errno::Inval)
        );
        assert_eq!(guest.pread(writer, 4, 0), Err(Errno::Badf));
        assert_eq!(guest.pread(reader, 9, 0), Ok(b"text".to_vec()));
        let rights = |guest: &mut Guest, fd| {
            assert_eq!(returned(call!(guest.fd_fdstat_get(fd, OUT))), Ok(()));
            Rights::from_bits_retain(guest.u64(OUT + 8)) & (READ | WRITE)
        };
        assert_eq!(rights(&mut guest, reader), READ);
        assert_eq!(rights(&mut guest, writer), WRITE);
    }
}

#[test]
fn a_write_only_file_alone_is_carried_too() {
    let mut guest = Guest::new();
    let flags = FdFlags::APPEND.bits().into();
    let fd = guest.open_at(DIR, "log", OFlags::CREAT, WRITE, flags);
    let fd = fd.expect("opens");
    guest.write(fd, b"one ").expect("room");
    guest.unlink("log");
    let mut guest = resumed(guest);
    assert_eq!(guest.seek(fd, 0, 0), Ok(0));
    assert_eq!(guest.write(fd, b"two"), Ok(3));
    let state = guest.state();
    assert_eq!(state.carried[0].extents[0].bytes, b"one two");
}

#[test]
fn holes_take_no_room_wherever_they_are() {
    const GIB: u64 = 1 << 30;
    let mut guest = Guest::new();
    let fd = guest.create("f");
    for (offset, text) in [(3 * GIB + 5, "middle"), (7, "start")] {
        assert_eq!(guest.seek(fd, offset as i64, 0), Ok(offset));
        assert!(guest.write(fd, text.as_bytes()).is_ok());
    }
    let set = call!(guest.fd_filestat_set_size(fd, 5 * GIB));
    assert_eq!(returned(set), Ok(()));
    guest.unlink("f");
    for _ in 0..2 {
        assert!(guest.wasi.save().expect("saves").len() < 20_000);
        guest = resumed(guest);
        assert_eq!(guest.filestat(fd)[2], 5 * GIB);
        assert_eq!(guest.pread(fd, 7, 6), Ok(b"\0start\0".to_vec()));
        assert_eq!(
            guest.pread(fd, 7, 3 * GIB + 4),
            Ok(b"\0middle"[..7].to_vec())
        );
        assert_eq!(guest.pread(fd, 9, 5 * GIB - 4), Ok(vec![0; 4]));
        assert_eq!(guest.pread(fd, 9, 5 * GIB), Ok(vec![]));
    }
}

#[test]
fn zeros_and_holes_give_the_same_state() {
    let saved = |written: bool| {
        let mut guest = Guest::deterministic(1);
        let fd = guest.create("f");
        if written {
            guest.write(fd, &[0; 100_000]).expect("room");
        }
        guest.seek(fd, 100_000, 0).expect("a file");
        guest.write(fd, b"end").expect("room");
        guest.unlink("f");
        guest.wasi.save().expect("saves")
    };
    assert_eq!(saved(true), saved(false));
}

#[test]
fn unlinked_files_beyond_the_limit_are_refused_by_name() {
    let mut guest = Guest::new();
    let (small, large) = (guest.create("small"), guest.create("large"));
    guest.write(small, b"x").expect("room");
    let file = fs::File::options().write(true).open(guest.host("large"));
    let file = file.expect("opens");
    let chunk = vec![1; 1 << 20];
    for offset in (0..CARRIED_BYTES_MAX).step_by(chunk.len()) {
        file.write_all_at(&chunk, offset).expect("room");
    }
    guest.unlink("large");
    assert!(guest.wasi.save().is_ok(), "the limit itself is allowed");
    guest.unlink("small");
    match guest.wasi.save() {
        Err(
            error @ SaveError::TooLarge {
                limit_bytes: CARRIED_BYTES_MAX,
                ..
            },
        ) => {
            let message = error.to_string();
            assert!(message.contains("/w/large"), "{message}");
            assert!(message.contains("67108864"), "{message}");
        }
        other => panic!("another outcome: {:?}", other.map(|bytes| bytes.len())),
    }
    assert_eq!(guest.close(large), Ok(()));
    assert!(guest.wasi.save().is_ok());
}

#[test]
fn a_replaced_file_stays_the_one_that_was_opened() {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    guest.write(fd, b"old").expect("room");
    fs::write(guest.host("new"), "new").expect("written");
    // As editors replace files, from outside and from inside.
    guest.rename("new", "f");
    fs::write(guest.host("newer"), "newer").expect("written");
    fs::rename(guest.host("newer"), guest.host("f")).expect("renamed");
    let mut guest = resumed(guest);
    assert_eq!(guest.pread(fd, 9, 0), Ok(b"old".to_vec()));
    guest.write(fd, b"er").expect("room");
    assert_eq!(fs::read(guest.host("f")).expect("the file"), b"newer");
}

#[test]
fn a_file_renamed_from_outside_is_found_where_it_is() {
    let mut guest = Guest::new();
    let fd = guest.create("log");
    guest.write(fd, b"one ").expect("room");
    fs::create_dir(guest.host("old")).expect("a directory");
    // As logs are rotated: a new file is at the path.
    fs::rename(guest.host("log"), guest.host("old/log.1")).expect("renamed");
    fs::write(guest.host("log"), "").expect("written");
    assert_eq!(guest.saved_at(fd), ("old/log.1".to_owned(), false));
    let mut guest = resumed(guest);
    guest.write(fd, b"two").expect("room");
    assert_eq!(
        fs::read(guest.host("old/log.1")).expect("the file"),
        b"one two"
    );
}

#[test]
fn a_directory_renamed_from_outside_is_found_with_what_is_below_it() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).expect("a directory");
    let d = guest.open("d", OFlags::DIRECTORY, READ).expect("opens");
    let fd = guest.open_at(d, "f", OFlags::CREAT, READ | WRITE, 0);
    let fd = fd.expect("opens");
    guest.write(fd, b"text").expect("room");
    fs::rename(guest.host("d"), guest.host("e")).expect("renamed");
    let mut guest = resumed(guest);
    assert_eq!(guest.pread(fd, 9, 0), Ok(b"text".to_vec()));
    assert!(guest.open_at(d, "f", OFlags::empty(), READ, 0).is_ok());
}

#[test]
fn a_file_with_another_name_left_is_opened_by_that() {
    let mut guest = Guest::new();
    fs::create_dir_all(guest.host("x/y")).expect("directories");
    let fd = guest.create("a");
    guest.write(fd, b"text").expect("room");
    guest.link("a", "x/y/b");
    guest.unlink("a");
    assert_eq!(guest.saved_at(fd), ("x/y/b".to_owned(), false));
    let mut guest = resumed(guest);
    guest.write(fd, b" and more").expect("room");
    assert_eq!(
        fs::read(guest.host("x/y/b")).expect("the file"),
        b"text and more"
    );
    // Its last name gone, it is carried.
    guest.unlink("x/y/b");
    assert_eq!(guest.saved_at(fd), ("x/y/b".to_owned(), true));
    let mut guest = resumed(guest);
    assert_eq!(guest.pread(fd, 99, 0), Ok(b"text and more".to_vec()));
}

#[test]
fn a_file_moved_out_of_what_is_granted_is_refused_by_name() {
    let outside = TempDir::new().expect("a directory");
    let mut guest = Guest::new();
    let fd = guest.create("f");
    let moved = outside.path().join("f");
    // On one file system: a temporary directory beside the guest's.
    fs::rename(guest.host("f"), &moved).expect("renamed");
    match guest.wasi.save() {
        Err(SaveError::Elsewhere {
            fd: named,
            guest_path,
        }) => assert_eq!((named, guest_path.as_str()), (fd, "/w/f")),
        other => panic!("another outcome: {other:?}"),
    }
    fs::rename(&moved, guest.host("back")).expect("renamed");
    assert_eq!(guest.saved_at(fd), ("back".to_owned(), false));
}

#[test]
fn a_file_moved_into_another_granted_directory_is_found_there() {
    let second = TempDir::new().expect("a directory");
    let mut guest = Guest::with(|config| {
        let second = Preopen::open(second.path(), "/second").expect("exists");
        config.preopens.push(second);
    });
    let fd = guest.create("f");
    guest.write(fd, b"text").expect("room");
    fs::rename(guest.host("f"), second.path().join("g")).expect("renamed");
    let state = guest.state();
    match &state.descriptors[&fd] {
        SavedDescriptor::File(file) => {
            assert_eq!(state.guest_path(file.preopen, &file.path), "/second/g");
        }
        other => panic!("no file: {other:?}"),
    }
    let mut grants = grants(guest.dir.path());
    let again = Preopen::open(second.path(), "/second").expect("exists");
    grants.preopens.push(again);
    guest.wasi = Wasi::restore(&state, grants).expect("restores");
    assert_eq!(guest.pread(fd, 9, 0), Ok(b"text".to_vec()));
}

#[test]
fn a_symbolic_link_that_leads_elsewhere_now_does_not_lead_a_descriptor_away() {
    let mut guest = Guest::new();
    for (name, text) in [("one", "1"), ("two", "2")] {
        fs::create_dir(guest.host(name)).expect("a directory");
        fs::write(guest.host(name).join("f"), text).expect("written");
    }
    std::os::unix::fs::symlink("one", guest.host("current")).expect("a link");
    let fd = guest.open("current/f", OFlags::empty(), READ);
    let fd = fd.expect("opens");
    fs::remove_file(guest.host("current")).expect("it was there");
    std::os::unix::fs::symlink("two", guest.host("current")).expect("a link");
    assert_eq!(guest.saved_at(fd), ("one/f".to_owned(), false));
    let mut guest = resumed(guest);
    assert_eq!(guest.pread(fd, 9, 0), Ok(b"1".to_vec()));
}

#[test]
fn a_removed_directory_stays_open_empty_and_without_a_name() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).expect("a directory");
    let d = guest.open("d", OFlags::DIRECTORY, READ).expect("opens");
    fs::remove_dir(guest.host("d")).expect("empty");
    for _ in 0..2 {
        let created = guest.open_at(d, "f", OFlags::CREAT, WRITE, 0);
        assert_eq!(created, Err(Errno::Noent));
        assert_eq!(guest.filestat(d)[1], 0);
        let left = fs::read_dir(guest.dir.path()).expect("the directory");
        assert_eq!(left.count(), 0);
        guest = resumed(guest);
    }
}

#[test]
fn a_removed_pipe_is_refused_by_name() {
    let mut guest = Guest::new();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, guest.host("pipe"), fifo, mode, 0).expect("a pipe");
    let fd = guest.open("pipe", OFlags::empty(), READ | WRITE);
    let fd = fd.expect("opens");
    guest.unlink("pipe");
    match guest.wasi.save() {
        Err(SaveError::RemovedSpecial { fd: named, .. }) => assert_eq!(named, fd),
        other => panic!("another outcome: {other:?}"),
    }
}
