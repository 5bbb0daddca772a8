//! The functions on paths, and that none leads out of a granted directory.

mod common;

use common::{DATA, DIR, Guest, OUT, PATH, PATH2, READ, WRITE, returned};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use wsnap_wasi::{Errno, FileType, OFlags, Rights};

const FOLLOW: u32 = 1;
const NO_FOLLOW: u32 = 0;

impl Guest {
    fn create_directory(&mut self, path: &str) -> Result<(), Errno> {
        let length = self.put(PATH, path.as_bytes());
        returned(call!(self.path_create_directory(DIR, PATH, length)))
    }

    fn remove_directory(&mut self, path: &str) -> Result<(), Errno> {
        let length = self.put(PATH, path.as_bytes());
        returned(call!(self.path_remove_directory(DIR, PATH, length)))
    }

    fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        let length = self.put(PATH, path.as_bytes());
        returned(call!(self.path_unlink_file(DIR, PATH, length)))
    }

    fn rename(&mut self, old: &str, new: &str) -> Result<(), Errno> {
        let old_length = self.put(PATH, old.as_bytes());
        let new_length = self.put(PATH2, new.as_bytes());
        let renamed = call!(self.path_rename(DIR, PATH, old_length, DIR, PATH2, new_length));
        returned(renamed)
    }

    fn link(&mut self, lookup: u32, old: &str, new: &str) -> Result<(), Errno> {
        let old_length = self.put(PATH, old.as_bytes());
        let new_length = self.put(PATH2, new.as_bytes());
        let linked = call!(self.path_link(DIR, lookup, PATH, old_length, DIR, PATH2, new_length));
        returned(linked)
    }

    fn symlink(&mut self, target: &str, link: &str) -> Result<(), Errno> {
        let target_length = self.put(PATH, target.as_bytes());
        let link_length = self.put(PATH2, link.as_bytes());
        let linked = call!(self.path_symlink(PATH, target_length, DIR, PATH2, link_length));
        returned(linked)
    }

    fn readlink(&mut self, path: &str, room: u32) -> Result<Vec<u8>, Errno> {
        let length = self.put(PATH, path.as_bytes());
        returned(call!(
            self.path_readlink(DIR, PATH, length, DATA, room, OUT)
        ))?;
        Ok(self.bytes(DATA, self.u32(OUT)).to_vec())
    }

    /// The file type, inode and size at a path.
    fn stat(&mut self, lookup: u32, path: &str) -> Result<(u64, u64, u64), Errno> {
        let length = self.put(PATH, path.as_bytes());
        returned(call!(
            self.path_filestat_get(DIR, lookup, PATH, length, OUT)
        ))?;
        Ok((self.u64(OUT + 16), self.u64(OUT + 8), self.u64(OUT + 32)))
    }
}

#[test]
fn opening_distinguishes_the_ways_to_fail() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).expect("a directory");
    fs::write(guest.host("f"), "text").expect("a file");
    let none = OFlags::empty();
    assert_eq!(guest.open("missing", none, READ), Err(Errno::Noent));
    assert_eq!(guest.open("", none, READ), Err(Errno::Noent));
    assert_eq!(guest.open("f/below", none, READ), Err(Errno::Notdir));
    assert_eq!(guest.open("d", none, WRITE), Err(Errno::Isdir));
    assert_eq!(guest.open("f", OFlags::DIRECTORY, READ), Err(Errno::Notdir));
    let exclusive = OFlags::CREAT | OFlags::EXCL;
    assert_eq!(guest.open("f", exclusive, WRITE), Err(Errno::Exist));
    let confused = OFlags::CREAT | OFlags::DIRECTORY;
    assert_eq!(guest.open("d", confused, READ), Err(Errno::Inval));
    assert_eq!(guest.open("a\0b", none, READ), Err(Errno::Inval));
    assert_eq!(
        guest.open(&"x".repeat(300), none, READ),
        Err(Errno::Nametoolong)
    );
    let f = guest.open("f", none, READ).expect("opens");
    assert_eq!(guest.open_at(f, "x", none, READ, 0), Err(Errno::Notdir));
    assert_eq!(guest.open_at(99, "x", none, READ, 0), Err(Errno::Badf));
    let sync = 1 << 4;
    assert_eq!(
        guest.open_at(DIR, "f", none, READ, sync),
        Err(Errno::Notsup)
    );
    guest.put(PATH, &[0xff]);
    let not_unicode = call!(guest.path_open(DIR, 0, PATH, 1, 0, 0, 0, 0, OUT));
    assert_eq!(not_unicode, Ok(Errno::Ilseq));
}

#[test]
fn unknown_flags_are_invalid() {
    let mut guest = Guest::new();
    let length = guest.put(PATH, b"f");
    let read = READ.bits();
    let invalid = Ok(Errno::Inval);
    assert_eq!(
        call!(guest.path_open(DIR, 2, PATH, length, 0, read, 0, 0, OUT)),
        invalid
    );
    assert_eq!(
        call!(guest.path_open(DIR, 0, PATH, length, 16, read, 0, 0, OUT)),
        invalid
    );
    assert_eq!(
        call!(guest.path_open(DIR, 0, PATH, length, 0, 1 << 30, 0, 0, OUT)),
        invalid
    );
    assert_eq!(
        call!(guest.path_open(DIR, 0, PATH, length, 0, read, 1 << 63, 0, OUT)),
        invalid
    );
    assert_eq!(
        call!(guest.path_open(DIR, 0, PATH, length, 0, read, 0, 32, OUT)),
        invalid
    );
    assert_eq!(
        call!(guest.path_filestat_get(DIR, 2, PATH, length, OUT)),
        invalid
    );
}

#[test]
fn opening_creates_truncates_and_reports_directories() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), "text").expect("a file");
    fs::create_dir(guest.host("d")).expect("a directory");
    let truncated = guest.open("f", OFlags::TRUNC, WRITE);
    assert!(truncated.is_ok());
    assert_eq!(fs::read(guest.host("f")).expect("the file"), b"");
    let exclusive = OFlags::CREAT | OFlags::EXCL;
    assert!(guest.open("new", exclusive, WRITE).is_ok());
    assert!(guest.host("new").is_file());
    let d = guest.open("d", OFlags::DIRECTORY, READ).expect("opens");
    let inner = guest.open_at(d, "inner", OFlags::CREAT, WRITE, 0);
    assert!(inner.is_ok());
    assert!(guest.host("d/inner").is_file());
    assert_eq!(returned(call!(guest.fd_fdstat_get(d, OUT))), Ok(()));
    assert_eq!(guest.memory[OUT as usize], FileType::Directory as u8);
    let rights = Rights::from_bits_retain(guest.u64(OUT + 8));
    assert!(rights.contains(READ | Rights::FD_READDIR) && !rights.intersects(WRITE));
    assert_eq!(guest.read(d, 1), Err(Errno::Badf));
    assert_eq!(guest.seek(d, 0, 0), Err(Errno::Badf));
}

#[test]
fn directories_are_created_and_removed() {
    let mut guest = Guest::new();
    assert_eq!(guest.create_directory("d"), Ok(()));
    assert_eq!(guest.create_directory("d"), Err(Errno::Exist));
    assert_eq!(guest.create_directory("x/y"), Err(Errno::Noent));
    assert_eq!(guest.create_directory("d/e"), Ok(()));
    assert_eq!(guest.remove_directory("d"), Err(Errno::Notempty));
    assert_eq!(guest.unlink("d"), Err(Errno::Isdir));
    assert_eq!(guest.remove_directory("d/e"), Ok(()));
    assert_eq!(guest.remove_directory("d"), Ok(()));
    assert_eq!(guest.remove_directory("d"), Err(Errno::Noent));
}

#[test]
fn files_are_unlinked_and_stay_usable_while_open() {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    assert_eq!(guest.remove_directory("f"), Err(Errno::Notdir));
    assert_eq!(guest.unlink("f"), Ok(()));
    assert_eq!(guest.unlink("f"), Err(Errno::Noent));
    assert_eq!(guest.write(fd, b"still here"), Ok(10));
    assert_eq!(guest.seek(fd, 6, 0), Ok(6));
    assert_eq!(guest.read(fd, 9), Ok(b"here".to_vec()));
}

#[test]
fn renaming_replaces_files_and_refuses_what_does_not_fit() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "a").expect("a file");
    fs::write(guest.host("b"), "b").expect("a file");
    fs::create_dir(guest.host("d")).expect("a directory");
    assert_eq!(guest.rename("a", "b"), Ok(()));
    assert_eq!(fs::read(guest.host("b")).expect("the file"), b"a");
    assert_eq!(guest.rename("a", "c"), Err(Errno::Noent));
    assert_eq!(guest.rename("b", "d"), Err(Errno::Isdir));
    assert_eq!(guest.rename("d", "b"), Err(Errno::Notdir));
    assert_eq!(guest.rename("d", "d/e"), Err(Errno::Inval));
    assert_eq!(guest.rename("b", "d/b"), Ok(()));
    assert!(guest.host("d/b").is_file());
}

#[test]
fn hard_links_share_a_file() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "a").expect("a file");
    assert_eq!(guest.link(NO_FOLLOW, "a", "b"), Ok(()));
    assert_eq!(fs::metadata(guest.host("b")).expect("the link").nlink(), 2);
    assert_eq!(guest.stat(FOLLOW, "a"), guest.stat(FOLLOW, "b"));
    assert_eq!(guest.link(NO_FOLLOW, "a", "b"), Err(Errno::Exist));
    assert_eq!(guest.link(NO_FOLLOW, "x", "y"), Err(Errno::Noent));
    assert_eq!(guest.link(FOLLOW, "a", "c"), Err(Errno::Inval));
}

#[test]
fn symbolic_links_are_made_read_and_followed_on_demand() {
    let mut guest = Guest::new();
    fs::write(guest.host("file"), "four").expect("a file");
    assert_eq!(guest.symlink("file", "link"), Ok(()));
    assert_eq!(guest.symlink("file", "link"), Err(Errno::Exist));
    assert_eq!(guest.readlink("link", 100), Ok(b"file".to_vec()));
    assert_eq!(guest.readlink("link", 2), Ok(b"fi".to_vec()));
    assert_eq!(guest.readlink("file", 100), Err(Errno::Inval));
    let (regular, link) = (FileType::RegularFile as u64, FileType::SymbolicLink as u64);
    assert_eq!(
        guest.stat(FOLLOW, "link").map(|stat| (stat.0, stat.2)),
        Ok((regular, 4))
    );
    assert_eq!(guest.stat(NO_FOLLOW, "link").map(|stat| stat.0), Ok(link));
    let length = guest.put(PATH, b"link");
    let unfollowed = call!(guest.path_open(DIR, 0, PATH, length, 0, READ.bits(), 0, 0, OUT));
    assert_eq!(unfollowed, Ok(Errno::Loop));
    assert!(guest.open("link", OFlags::empty(), READ).is_ok());
}

#[test]
fn times_are_set_by_path() {
    let mut guest = Guest::new();
    fs::write(guest.host("file"), "").expect("a file");
    symlink("file", guest.host("link")).expect("a link");
    let length = guest.put(PATH, b"link");
    let (atim, mtim) = (1, 4);
    for (lookup, seconds) in [(FOLLOW, 5), (NO_FOLLOW, 9)] {
        let time_ns = seconds * 1_000_000_000;
        let set = call!(guest.path_filestat_set_times(
            DIR,
            lookup,
            PATH,
            length,
            time_ns,
            time_ns,
            atim | mtim
        ));
        assert_eq!(returned(set), Ok(()));
    }
    assert_eq!(
        fs::metadata(guest.host("file")).expect("the file").mtime(),
        5
    );
    assert_eq!(
        fs::symlink_metadata(guest.host("link"))
            .expect("the link")
            .mtime(),
        9
    );
    let both = call!(guest.path_filestat_set_times(DIR, 0, PATH, length, 0, 0, 3));
    assert_eq!(both, Ok(Errno::Inval));
}

#[test]
fn no_path_leads_out_of_a_granted_directory() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).expect("a directory");
    symlink("/etc", guest.host("absolute")).expect("a link");
    symlink("../..", guest.host("d/up")).expect("a link");
    let outside = [
        "/etc/passwd",
        "..",
        "../x",
        "d/../../x",
        "absolute/passwd",
        "d/up/x",
    ];
    for path in outside {
        let escaped = Err(Errno::Perm);
        assert_eq!(guest.open(path, OFlags::empty(), READ), escaped, "{path}");
        assert_eq!(guest.open(path, OFlags::CREAT, WRITE), escaped, "{path}");
        assert_eq!(guest.stat(FOLLOW, path), Err(Errno::Perm), "{path}");
        assert_eq!(guest.create_directory(path), Err(Errno::Perm), "{path}");
        assert_eq!(guest.unlink(path), Err(Errno::Perm), "{path}");
        assert_eq!(guest.rename(path, "stolen"), Err(Errno::Perm), "{path}");
        assert_eq!(guest.rename("d", path), Err(Errno::Perm), "{path}");
        assert_eq!(
            guest.link(NO_FOLLOW, path, "stolen"),
            Err(Errno::Perm),
            "{path}"
        );
        assert_eq!(guest.readlink(path, 9), Err(Errno::Perm), "{path}");
    }
    assert_eq!(guest.symlink("/etc", "link"), Err(Errno::Perm));
    assert!(guest.open("d/..", OFlags::DIRECTORY, READ).is_ok());
}

#[test]
fn an_opened_directory_is_a_border_too() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).expect("a directory");
    fs::write(guest.host("secret"), "").expect("a file");
    let d = guest.open("d", OFlags::DIRECTORY, READ).expect("opens");
    let outside = guest.open_at(d, "../secret", OFlags::empty(), READ, 0);
    assert_eq!(outside, Err(Errno::Perm));
}

#[test]
fn path_functions_need_a_directory() {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    // What is no text is not even looked at.
    let length = guest.put(PATH, b"\xff");
    let bad = Ok(Errno::Badf);
    assert_eq!(call!(guest.path_create_directory(fd, PATH, length)), bad);
    assert_eq!(call!(guest.path_remove_directory(fd, PATH, length)), bad);
    assert_eq!(call!(guest.path_unlink_file(fd, PATH, length)), bad);
    assert_eq!(
        call!(guest.path_filestat_get(fd, 0, PATH, length, OUT)),
        bad
    );
    assert_eq!(
        call!(guest.path_filestat_set_times(fd, 0, PATH, length, 0, 0, 0)),
        bad
    );
    assert_eq!(call!(guest.path_link(fd, 0, PATH, 1, DIR, PATH, 1)), bad);
    assert_eq!(call!(guest.path_link(DIR, 0, PATH, 1, fd, PATH, 1)), bad);
    assert_eq!(call!(guest.path_rename(fd, PATH, 1, DIR, PATH, 1)), bad);
    assert_eq!(call!(guest.path_rename(DIR, PATH, 1, fd, PATH, 1)), bad);
    assert_eq!(call!(guest.path_symlink(PATH, 1, fd, PATH, 1)), bad);
    assert_eq!(call!(guest.path_readlink(fd, PATH, 1, DATA, 9, OUT)), bad);
}

#[test]
fn opening_a_named_pipe_does_not_wait_for_its_other_end() {
    let mut guest = Guest::new();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, guest.host("pipe"), fifo, mode, 0).expect("a pipe");
    assert!(guest.open("pipe", OFlags::empty(), READ).is_ok());
    assert_eq!(
        guest.open("pipe", OFlags::empty(), READ | WRITE).map(drop),
        Ok(())
    );
}
