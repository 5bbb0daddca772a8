//! Granted directories and listings.

mod common;

use common::{DATA, DIR, Guest, OUT, READ, preopens, returned};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use wsnap_wasi::{Errno, FileType, OFlags, Preopen, WasiError};

struct Entry {
    next: u64,
    inode: u64,
    file_type: u8,
    name: String,
}

/// The whole entries in what `fd_readdir` stored.
fn parse(mut bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some((header, rest)) = bytes.split_at_checked(24) {
        let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let length = usize::try_from(word(16) & 0xffff_ffff).expect("a length");
        let Some((name, rest)) = rest.split_at_checked(length) else {
            break;
        };
        entries.push(Entry {
            next: word(0),
            inode: word(8),
            file_type: header[20],
            name: String::from_utf8(name.to_vec()).expect("a name"),
        });
        bytes = rest;
    }
    entries
}

impl Guest {
    fn readdir(&mut self, fd: u32, room: u32, cookie: u64) -> Result<(Vec<Entry>, u32), Errno> {
        returned(call!(self.fd_readdir(fd, DATA, room, cookie, OUT)))?;
        let used = self.u32(OUT);
        Ok((parse(self.bytes(DATA, used)), used))
    }

    /// Lists as programs do: until the buffer isn't filled.
    fn list(&mut self, fd: u32, room: u32) -> Vec<String> {
        let mut names = Vec::new();
        let mut cookie = 0;
        loop {
            let (entries, used) = self.readdir(fd, room, cookie).expect("a listing");
            cookie = entries.last().map_or(cookie, |entry| entry.next);
            names.extend(entries.into_iter().map(|entry| entry.name));
            if used < room {
                return names;
            }
        }
    }
}

fn populated(count: usize) -> Guest {
    let guest = Guest::new();
    for index in 0..count {
        fs::write(guest.host(&format!("file{index}")), "").expect("a file");
    }
    guest
}

#[test]
fn a_listing_begins_with_itself_and_its_parent() {
    let mut guest = populated(1);
    fs::create_dir(guest.host("d")).expect("a directory");
    let (entries, _) = guest.readdir(DIR, 1000, 0).expect("a listing");
    let types: Vec<_> = entries
        .iter()
        .map(|e| (e.name.as_str(), e.file_type))
        .collect();
    let directory = FileType::Directory as u8;
    assert_eq!(types[..2], [(".", directory), ("..", directory)]);
    let rest: BTreeSet<_> = types[2..].iter().copied().collect();
    let expected = [("d", directory), ("file0", FileType::RegularFile as u8)];
    assert_eq!(rest, BTreeSet::from(expected));
}

#[test]
fn every_entry_is_listed_once_whatever_the_buffer() {
    let mut guest = populated(50);
    let whole = guest.list(DIR, 10_000);
    assert_eq!(whole.len(), 52);
    assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), 52);
    for room in [34, 64, 100, 1000] {
        assert_eq!(guest.list(DIR, room), whole);
    }
}

#[test]
fn a_buffer_too_small_for_the_next_entry_is_filled_to_the_end() {
    let mut guest = populated(1);
    for room in [0, 1, 24, 25, 30, 50, 51, 60] {
        let (_, used) = guest.readdir(DIR, room, 0).expect("a listing");
        assert_eq!(used, room);
    }
}

#[test]
fn removing_what_was_listed_skips_nothing_that_follows() {
    let mut guest = populated(40);
    let mut seen = BTreeSet::new();
    let mut cookie = 0;
    loop {
        let (entries, used) = guest.readdir(DIR, 120, cookie).expect("a listing");
        for entry in &entries {
            if entry.name.starts_with("file") {
                fs::remove_file(guest.host(&entry.name)).expect("it was there");
                seen.insert(entry.name.clone());
            }
            cookie = entry.next;
        }
        if used < 120 {
            break;
        }
    }
    assert_eq!(seen.len(), 40);
}

/// A listing that is read piece by piece, with entries that come and go in between and a resume after each piece: what
/// was there all the time is told exactly once, what comes and goes at most once.
#[test]
fn a_listing_survives_resumes_and_changes() {
    const ROOM: u32 = 150;
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).expect("a directory");
    let host = guest.host("d");
    for index in 0..40 {
        fs::write(host.join(format!("stays{index}")), "").expect("a file");
        fs::write(host.join(format!("goes{index}")), "").expect("a file");
    }
    let d = guest.open("d", OFlags::DIRECTORY, READ).expect("opens");
    let (mut seen, mut cookie, mut round) = (Vec::new(), 0, 0);
    loop {
        let (entries, used) = guest.readdir(d, ROOM, cookie).expect("a listing");
        cookie = entries.last().map_or(cookie, |entry| entry.next);
        seen.extend(entries.into_iter().map(|entry| entry.name));
        if used < ROOM {
            break;
        }
        if round < 40 {
            fs::remove_file(host.join(format!("goes{round}"))).expect("it was there");
            fs::write(host.join(format!("comes{round}")), "").expect("a file");
        }
        round += 1;
        guest = guest.resume().expect("the guest can be resumed");
    }
    assert!(round > 10, "the listing was not read in pieces");
    let once: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(once.len(), seen.len(), "an entry was told twice");
    for index in 0..40 {
        let stays = format!("stays{index}");
        assert!(once.contains(&stays), "{stays} was skipped");
    }
    // From the start again, it is what is there now.
    let now: BTreeSet<_> = guest.list(d, 10_000).into_iter().collect();
    assert_eq!(now.len(), 2 + 40 + 40);
}

#[test]
fn a_cookie_means_the_same_on_another_host() {
    let mut guest = populated(20);
    let (entries, _) = guest.readdir(DIR, 10_000, 0).expect("a listing");
    // Another directory, whose files were made in another order, with other inodes and neighbours.
    let mut other = Guest::new();
    fs::write(other.host("neighbour"), "").expect("a file");
    for index in (0..20).rev() {
        fs::write(other.host(&format!("file{index}")), "").expect("a file");
    }
    for (index, entry) in entries.iter().enumerate() {
        let (rest, _) = other.readdir(DIR, 10_000, entry.next).expect("a listing");
        let rest = rest.iter().map(|entry| entry.name.as_str());
        let rest: Vec<_> = rest.filter(|name| *name != "neighbour").collect();
        let expected = entries[index + 1..].iter().map(|entry| entry.name.as_str());
        assert_eq!(rest, expected.collect::<Vec<_>>());
    }
}

#[test]
fn an_entry_has_the_inode_that_its_file_tells() {
    for mut guest in [populated(1), Guest::deterministic(1)] {
        let fd = guest.create("file0");
        let (entries, _) = guest.readdir(DIR, 1000, 0).expect("a listing");
        let listed = entries.iter().find(|entry| entry.name == "file0");
        assert_eq!(returned(call!(guest.fd_filestat_get(fd, OUT))), Ok(()));
        assert_eq!(listed.expect("the file").inode, guest.u64(OUT + 8));
    }
}

#[test]
fn deterministic_listings_of_equal_directories_are_equal_bytes() {
    let bytes = || {
        let mut guest = Guest::deterministic(1);
        for name in ["x", "y", "z"] {
            guest.create(name);
        }
        let (_, used) = guest.readdir(DIR, 1000, 0).expect("a listing");
        guest.bytes(DATA, used).to_vec()
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn deterministic_programs_do_not_see_the_hosts_times() {
    let stat = || {
        let mut guest = Guest::deterministic(1);
        let fd = guest.create("x");
        assert_eq!(returned(call!(guest.fd_filestat_get(fd, OUT))), Ok(()));
        guest.bytes(OUT, 64).to_vec()
    };
    assert_eq!(stat(), stat());
}

#[test]
fn only_directories_can_be_listed() {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    assert_eq!(
        call!(guest.fd_readdir(fd, DATA, 100, 0, OUT)),
        Ok(Errno::Badf)
    );
    let d = guest.open(".", OFlags::DIRECTORY, READ).expect("opens");
    assert_eq!(guest.list(d, 1000), guest.list(DIR, 1000));
}

#[test]
fn granted_directories_are_found_by_their_numbers() {
    let second = tempfile::TempDir::new().expect("a directory");
    let mut guest = Guest::with(|config| {
        let second = Preopen::open(second.path(), "/second").expect("the directory exists");
        config.preopens.push(second);
    });
    for (fd, name) in [(3, "/w"), (4, "/second")] {
        assert_eq!(returned(call!(guest.fd_prestat_get(fd, OUT))), Ok(()));
        assert_eq!(guest.u32(OUT), 0);
        let length = guest.u32(OUT + 4);
        assert_eq!(
            returned(call!(guest.fd_prestat_dir_name(fd, DATA, length))),
            Ok(())
        );
        assert_eq!(guest.bytes(DATA, length), name.as_bytes());
        let short = call!(guest.fd_prestat_dir_name(fd, DATA, length - 1));
        assert_eq!(short, Ok(Errno::Nametoolong));
    }
    assert_eq!(call!(guest.fd_prestat_get(5, OUT)), Ok(Errno::Badf));
    let f = guest.create("f");
    assert_eq!(call!(guest.fd_prestat_get(f, OUT)), Ok(Errno::Badf));
    assert_eq!(
        call!(guest.fd_prestat_dir_name(f, DATA, 9)),
        Ok(Errno::Notdir)
    );
}

#[test]
fn a_directory_that_does_not_exist_cannot_be_granted() {
    let guest = Guest::new();
    match Preopen::open(&guest.host("missing"), "/m") {
        Err(WasiError::Preopen { path, .. }) => assert_eq!(path, guest.host("missing")),
        other => panic!("another outcome: {other:?}"),
    }
    assert_eq!(preopens(guest.dir.path()).len(), 1);
}

#[test]
fn what_others_change_in_a_directory_that_was_listed_long_after_its_last_change_is_listed() {
    let mut guest = populated(300);
    // From then on the listing may be kept.
    std::thread::sleep(std::time::Duration::from_millis(3200));
    assert_eq!(guest.list(DIR, 500).len(), 302);
    assert_eq!(guest.list(DIR, 500).len(), 302);
    fs::write(guest.host("another"), "").expect("a file");
    assert!(guest.list(DIR, 500).contains(&"another".to_owned()));
    fs::remove_file(guest.host("another")).expect("it is there");
    assert_eq!(guest.list(DIR, 500).len(), 302);
    fs::remove_file(guest.host("file7")).expect("it is there");
    fs::create_dir(guest.host("file7")).expect("a directory");
    let (entries, _) = guest.readdir(DIR, 20_000, 0).expect("a listing");
    let replaced = entries.iter().find(|entry| entry.name == "file7");
    let directory = FileType::Directory as u8;
    assert_eq!(replaced.map(|entry| entry.file_type), Some(directory));
}

#[test]
fn the_times_of_granted_opened_and_removed_directories_can_be_set() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).expect("a directory");
    let inner = guest.open("d", OFlags::DIRECTORY, READ).expect("it exists");
    for (fd, path) in [(DIR, "."), (inner, "d")] {
        let set = call!(guest.fd_filestat_set_times(fd, 5_000_000_000, 7_000_000_009, 1 | 4));
        assert_eq!(returned(set), Ok(()));
        let metadata = fs::metadata(guest.host(path)).expect("it exists");
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        assert_eq!((metadata.atime(), modified), (5, (7, 9)));
    }
    fs::remove_dir(guest.host("d")).expect("it exists");
    let set = call!(guest.fd_filestat_set_times(inner, 0, 11_000_000_000, 4));
    assert_eq!(returned(set), Ok(()));
    assert_eq!(returned(call!(guest.fd_filestat_get(inner, OUT))), Ok(()));
    assert_eq!(guest.u64(OUT + 48), 11_000_000_000);
}
