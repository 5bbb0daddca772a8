//! The functions on descriptors, applied to files.

mod common;

use common::{DATA, DIR, Guest, IOVS, OUT, READ, WRITE, returned};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use wsnap_wasi::{Errno, FdFlags, FileType, OFlags, Rights};

const APPEND: u32 = FdFlags::APPEND.bits() as u32;
const NONBLOCK: u32 = FdFlags::NONBLOCK.bits() as u32;
const SYNC: u32 = FdFlags::SYNC.bits() as u32;

#[test]
fn what_is_written_is_read_again_from_where_it_was_written() {
    let mut guest = Guest::new();
    let fd = guest.create("a");
    assert_eq!(guest.write(fd, b"hello"), Ok(5));
    assert_eq!(guest.tell(fd), Ok(5));
    assert_eq!(guest.read(fd, 10), Ok(vec![]));
    assert_eq!(guest.seek(fd, 1, 0), Ok(1));
    assert_eq!(guest.read(fd, 3), Ok(b"ell".to_vec()));
    assert_eq!(guest.tell(fd), Ok(4));
    assert_eq!(fs::read(guest.host("a")).expect("the file"), b"hello");
}

#[test]
fn several_buffers_are_written_and_read_in_order() {
    let mut guest = Guest::new();
    let fd = guest.create("a");
    guest.put(DATA, b"worldhello ");
    for (slot, (address, length)) in [(DATA + 5, 6u32), (DATA, 0), (DATA, 5)].iter().enumerate() {
        let slot = IOVS + 8 * slot as u32;
        guest.put(slot, &address.to_le_bytes());
        guest.put(slot + 4, &length.to_le_bytes());
    }
    assert_eq!(returned(call!(guest.fd_write(fd, IOVS, 3, OUT))), Ok(()));
    assert_eq!(guest.u32(OUT), 11);
    assert_eq!(fs::read(guest.host("a")).expect("the file"), b"hello world");
    guest.put(DATA, &[0; 11]);
    assert_eq!(returned(call!(guest.fd_pread(fd, IOVS, 3, 0, OUT))), Ok(()));
    assert_eq!(guest.u32(OUT), 11);
    assert_eq!(guest.bytes(DATA, 11), b"worldhello ");
}

#[test]
fn positioned_transfers_leave_the_offset_alone() {
    let mut guest = Guest::new();
    let fd = guest.create("a");
    assert_eq!(guest.write(fd, b"0123456789"), Ok(10));
    assert_eq!(guest.seek(fd, 2, 0), Ok(2));
    let length = guest.put(DATA, b"XY");
    guest.one_buffer(length);
    assert_eq!(
        returned(call!(guest.fd_pwrite(fd, IOVS, 1, 7, OUT))),
        Ok(())
    );
    guest.one_buffer(4);
    assert_eq!(returned(call!(guest.fd_pread(fd, IOVS, 1, 6, OUT))), Ok(()));
    assert_eq!(guest.bytes(DATA, guest.u32(OUT)), b"6XY9");
    assert_eq!(guest.tell(fd), Ok(2));
}

#[test]
fn seeking_counts_from_the_start_the_offset_or_the_end() {
    let mut guest = Guest::new();
    let fd = guest.create("a");
    assert_eq!(guest.write(fd, b"0123456789"), Ok(10));
    assert_eq!(guest.seek(fd, -3, 1), Ok(7));
    assert_eq!(guest.seek(fd, -1, 2), Ok(9));
    assert_eq!(guest.seek(fd, 100, 2), Ok(110));
    assert_eq!(guest.read(fd, 1), Ok(vec![]));
    assert_eq!(guest.seek(fd, -1, 0), Err(Errno::Inval));
    assert_eq!(guest.seek(fd, i64::MIN, 1), Err(Errno::Inval));
    assert_eq!(guest.seek(fd, 0, 3), Err(Errno::Inval));
    assert_eq!(guest.tell(fd), Ok(110));
}

#[test]
fn appending_goes_to_the_end_whatever_the_offset() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "start").expect("the file");
    let fd = guest.open_at(DIR, "a", OFlags::empty(), WRITE, APPEND);
    let fd = fd.expect("the file opens");
    assert_eq!(guest.write(fd, b" middle"), Ok(7));
    assert_eq!(guest.seek(fd, 0, 0), Ok(0));
    assert_eq!(guest.write(fd, b" end"), Ok(4));
    assert_eq!(guest.tell(fd), Ok(16));
    assert_eq!(
        fs::read(guest.host("a")).expect("the file"),
        b"start middle end"
    );
    assert_eq!(returned(call!(guest.fd_fdstat_set_flags(fd, 0))), Ok(()));
    assert_eq!(guest.seek(fd, 0, 0), Ok(0));
    assert_eq!(guest.write(fd, b"S"), Ok(1));
    assert_eq!(
        fs::read(guest.host("a")).expect("the file"),
        b"Start middle end"
    );
}

#[test]
fn a_file_opened_for_one_purpose_refuses_the_other() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "text").expect("the file");
    let reader = guest.open("a", OFlags::empty(), READ).expect("opens");
    let writer = guest.open("a", OFlags::empty(), WRITE).expect("opens");
    assert_eq!(guest.write(reader, b"x"), Err(Errno::Badf));
    assert_eq!(guest.read(writer, 1), Err(Errno::Badf));
}

#[test]
fn the_size_of_a_file_can_be_set_and_its_space_allocated() {
    let mut guest = Guest::new();
    let fd = guest.create("a");
    assert_eq!(returned(call!(guest.fd_filestat_set_size(fd, 100))), Ok(()));
    assert_eq!(returned(call!(guest.fd_allocate(fd, 0, 50))), Ok(()));
    assert_eq!(fs::metadata(guest.host("a")).expect("the file").len(), 100);
    assert_eq!(returned(call!(guest.fd_allocate(fd, 100, 28))), Ok(()));
    assert_eq!(fs::metadata(guest.host("a")).expect("the file").len(), 128);
    assert_eq!(call!(guest.fd_allocate(fd, 0, 0)), Ok(Errno::Inval));
    assert_eq!(
        call!(guest.fd_filestat_set_size(fd, u64::MAX)),
        Ok(Errno::Inval)
    );
}

#[test]
fn syncing_and_advice_are_for_files_only() {
    let mut guest = Guest::new();
    let fd = guest.create("a");
    assert_eq!(returned(call!(guest.fd_sync(fd))), Ok(()));
    assert_eq!(returned(call!(guest.fd_datasync(fd))), Ok(()));
    for advice in 0..6 {
        assert_eq!(returned(call!(guest.fd_advise(fd, 0, 10, advice))), Ok(()));
    }
    assert_eq!(call!(guest.fd_advise(fd, 0, 10, 6)), Ok(Errno::Inval));
    assert_eq!(call!(guest.fd_sync(DIR)), Ok(Errno::Badf));
    assert_eq!(call!(guest.fd_datasync(DIR)), Ok(Errno::Badf));
    assert_eq!(call!(guest.fd_advise(DIR, 0, 0, 0)), Ok(Errno::Badf));
}

#[test]
fn a_closed_descriptor_is_bad_for_every_function() {
    let mut guest = Guest::new();
    let fd = guest.create("a");
    assert_eq!(guest.close(fd), Ok(()));
    let bad = Ok(Errno::Badf);
    assert_eq!(call!(guest.fd_close(fd)), bad);
    assert_eq!(call!(guest.fd_read(fd, IOVS, 0, OUT)), bad);
    assert_eq!(call!(guest.fd_write(fd, IOVS, 0, OUT)), bad);
    assert_eq!(call!(guest.fd_pread(fd, IOVS, 0, 0, OUT)), bad);
    assert_eq!(call!(guest.fd_pwrite(fd, IOVS, 0, 0, OUT)), bad);
    assert_eq!(call!(guest.fd_seek(fd, 0, 0, OUT)), bad);
    assert_eq!(call!(guest.fd_tell(fd, OUT)), bad);
    assert_eq!(call!(guest.fd_sync(fd)), bad);
    assert_eq!(call!(guest.fd_allocate(fd, 0, 1)), bad);
    assert_eq!(call!(guest.fd_fdstat_get(fd, OUT)), bad);
    assert_eq!(call!(guest.fd_fdstat_set_flags(fd, 0)), bad);
    assert_eq!(call!(guest.fd_fdstat_set_rights(fd, 0, 0)), bad);
    assert_eq!(call!(guest.fd_filestat_get(fd, OUT)), bad);
    assert_eq!(call!(guest.fd_filestat_set_size(fd, 0)), bad);
    assert_eq!(call!(guest.fd_filestat_set_times(fd, 0, 0, 0)), bad);
    assert_eq!(call!(guest.fd_readdir(fd, DATA, 100, 0, OUT)), bad);
    assert_eq!(call!(guest.fd_renumber(fd, DIR)), bad);
    assert_eq!(call!(guest.fd_renumber(DIR, fd)), bad);
    assert_eq!(call!(guest.fd_prestat_get(fd, OUT)), bad);
    assert_eq!(call!(guest.fd_prestat_dir_name(fd, DATA, 9)), bad);
}

#[test]
fn numbers_are_reused_from_the_lowest() {
    let mut guest = Guest::new();
    let names = ["a", "b", "c", "d"];
    // The standard streams are closed, so their numbers are free.
    assert_eq!(names.map(|name| guest.create(name)), [0, 1, 2, 4]);
    assert_eq!(guest.close(4), Ok(()));
    assert_eq!(guest.close(1), Ok(()));
    assert_eq!(guest.create("e"), 1);
    assert_eq!(guest.create("f"), 4);
}

#[test]
fn renumbering_moves_a_descriptor_and_closes_what_was_there() {
    let mut guest = Guest::new();
    let (a, b) = (guest.create("a"), guest.create("b"));
    assert_eq!(guest.write(a, b"in a"), Ok(4));
    assert_eq!(returned(call!(guest.fd_renumber(a, b))), Ok(()));
    assert_eq!(guest.tell(a), Err(Errno::Badf));
    assert_eq!(guest.tell(b), Ok(4));
    assert_eq!(returned(call!(guest.fd_renumber(b, b))), Ok(()));
    assert_eq!(guest.write(b, b"!"), Ok(1));
    assert_eq!(fs::read(guest.host("a")).expect("the file"), b"in a!");
    assert_eq!(fs::read(guest.host("b")).expect("the file"), b"");
}

/// The file type, flags and rights that `fd_fdstat_get` tells.
fn fdstat(guest: &mut Guest, fd: u32) -> (u8, u16, Rights, Rights) {
    assert_eq!(returned(call!(guest.fd_fdstat_get(fd, OUT))), Ok(()));
    let flags = guest.u32(OUT) >> 16;
    let rights = [8, 16].map(|at| Rights::from_bits_retain(guest.u64(OUT + at)));
    (
        guest.memory[OUT as usize],
        flags as u16,
        rights[0],
        rights[1],
    )
}

#[test]
fn rights_follow_from_how_a_descriptor_was_opened() {
    let mut guest = Guest::new();
    fs::write(guest.host("a"), "").expect("the file");
    let reader = guest.open_at(DIR, "a", OFlags::empty(), READ, NONBLOCK);
    let writer = guest.open("a", OFlags::empty(), WRITE).expect("opens");
    let (file_type, flags, base, inheriting) = fdstat(&mut guest, reader.expect("opens"));
    assert_eq!(file_type, FileType::RegularFile as u8);
    assert_eq!(u32::from(flags), NONBLOCK);
    assert_eq!(base, Rights::all() - WRITE);
    assert_eq!(inheriting, base);
    let (_, flags, base, _) = fdstat(&mut guest, writer);
    assert_eq!(flags, 0);
    assert_eq!(base, Rights::all() - READ - Rights::FD_READDIR);
    let (file_type, _, base, inheriting) = fdstat(&mut guest, DIR);
    assert_eq!(file_type, FileType::Directory as u8);
    assert!(base.contains(Rights::PATH_OPEN | Rights::FD_READDIR) && !base.contains(READ));
    assert!(inheriting.contains(READ | WRITE | Rights::FD_SEEK));
    assert_eq!(
        call!(guest.fd_fdstat_set_rights(writer, 0, 0)),
        Ok(Errno::Notsup)
    );
}

#[test]
fn only_append_and_nonblock_can_be_changed() {
    let mut guest = Guest::new();
    let fd = guest.create("a");
    assert_eq!(
        returned(call!(guest.fd_fdstat_set_flags(fd, APPEND | NONBLOCK))),
        Ok(())
    );
    assert_eq!(u32::from(fdstat(&mut guest, fd).1), APPEND | NONBLOCK);
    assert_eq!(call!(guest.fd_fdstat_set_flags(fd, SYNC)), Ok(Errno::Inval));
    assert_eq!(
        call!(guest.fd_fdstat_set_flags(fd, 1 << 5)),
        Ok(Errno::Inval)
    );
    assert_eq!(
        call!(guest.fd_fdstat_set_flags(fd, 1 << 16)),
        Ok(Errno::Inval)
    );
    assert_eq!(call!(guest.fd_fdstat_set_flags(DIR, 0)), Ok(Errno::Badf));
}

#[test]
fn a_file_is_described_as_the_host_knows_it() {
    let mut guest = Guest::new();
    let fd = guest.create("a");
    assert_eq!(guest.write(fd, b"12345"), Ok(5));
    assert_eq!(returned(call!(guest.fd_filestat_get(fd, OUT))), Ok(()));
    let host = fs::metadata(guest.host("a")).expect("the file");
    let modified_ns = host.mtime() as u64 * 1_000_000_000 + host.mtime_nsec() as u64;
    assert_eq!(guest.u64(OUT + 16), FileType::RegularFile as u64);
    assert_eq!(guest.u64(OUT + 24), 1);
    assert_eq!(guest.u64(OUT + 32), 5);
    assert_eq!(guest.u64(OUT + 48), modified_ns);
    let inode = guest.u64(OUT + 8);
    assert_eq!(returned(call!(guest.fd_filestat_get(DIR, OUT))), Ok(()));
    assert_eq!(guest.u64(OUT + 16), FileType::Directory as u64);
    assert_ne!(guest.u64(OUT + 8), inode);
}

#[test]
fn times_are_set_kept_or_made_now() {
    let mut guest = Guest::new();
    let fd = guest.create("a");
    let (atim, atim_now, mtim, mtim_now) = (1, 2, 4, 8);
    let times = |guest: &Guest| {
        let host = fs::metadata(guest.host("a")).expect("the file");
        (host.atime(), host.mtime(), host.mtime_nsec())
    };
    let set = call!(guest.fd_filestat_set_times(fd, 5_000_000_000, 7_000_000_009, atim | mtim));
    assert_eq!(returned(set), Ok(()));
    assert_eq!(times(&guest), (5, 7, 9));
    assert_eq!(
        returned(call!(guest.fd_filestat_set_times(fd, 0, 0, mtim))),
        Ok(())
    );
    assert_eq!(times(&guest), (5, 0, 0));
    assert_eq!(
        returned(call!(guest.fd_filestat_set_times(fd, 0, 0, atim_now))),
        Ok(())
    );
    assert!(times(&guest).0 > 1_000_000_000 && times(&guest).1 == 0);
    for both in [atim | atim_now, mtim | mtim_now, 16] {
        let set = call!(guest.fd_filestat_set_times(fd, 0, 0, both));
        assert_eq!(set, Ok(Errno::Inval));
    }
}

#[test]
fn calls_without_buffers_ask_for_the_same_rights_as_others() {
    let mut guest = Guest::new();
    let both = guest.create("f");
    assert_eq!(guest.write(both, b"12345"), Ok(5));
    let input = guest.open("f", OFlags::empty(), READ).expect("opens");
    let output = guest.open("f", OFlags::empty(), WRITE).expect("opens");
    let badf = Err(Errno::Badf);
    for (fd, reads, writes) in [
        (both, Ok(()), Ok(())),
        (input, Ok(()), badf),
        (output, badf, Ok(())),
        (DIR, badf, badf),
        (99, badf, badf),
    ] {
        assert_eq!(
            returned(call!(guest.fd_read(fd, IOVS, 0, OUT))),
            reads,
            "{fd}"
        );
        assert_eq!(
            returned(call!(guest.fd_pread(fd, IOVS, 0, 0, OUT))),
            reads,
            "{fd}"
        );
        assert_eq!(
            returned(call!(guest.fd_write(fd, IOVS, 0, OUT))),
            writes,
            "{fd}"
        );
        assert_eq!(
            returned(call!(guest.fd_pwrite(fd, IOVS, 0, 0, OUT))),
            writes,
            "{fd}"
        );
    }
    assert_eq!(guest.tell(both), Ok(5));
    // In append mode a write of nothing moves to the end, too.
    let append = guest
        .open_at(DIR, "f", OFlags::empty(), READ | WRITE, 1)
        .expect("opens");
    assert_eq!(
        returned(call!(guest.fd_write(append, IOVS, 0, OUT))),
        Ok(())
    );
    assert_eq!(guest.tell(append), Ok(5));
}

#[test]
fn enumerators_and_flags_that_nobody_knows_are_refused_whatever_the_descriptor_is() {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    for fd in [fd, DIR, 99] {
        assert_eq!(guest.seek(fd, 0, 3), Err(Errno::Inval), "{fd}");
        let advice = call!(guest.fd_advise(fd, 0, 0, 6));
        assert_eq!(advice, Ok(Errno::Inval), "{fd}");
        let flags = call!(guest.fd_fdstat_set_flags(fd, 1 << 5));
        assert_eq!(flags, Ok(Errno::Inval), "{fd}");
        for (base, inheriting) in [(1 << 30, 0), (0, 1 << 63)] {
            let rights = call!(guest.fd_fdstat_set_rights(fd, base, inheriting));
            assert_eq!(rights, Ok(Errno::Inval), "{fd}");
        }
        let times = call!(guest.fd_filestat_set_times(fd, 0, 0, 1 << 4));
        assert_eq!(times, Ok(Errno::Inval), "{fd}");
    }
    assert_eq!(
        call!(guest.fd_fdstat_set_rights(fd, 0, 0)),
        Ok(Errno::Notsup)
    );
    assert_eq!(call!(guest.fd_fdstat_set_rights(99, 0, 0)), Ok(Errno::Badf));
}
