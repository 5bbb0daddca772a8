//! What differs in `wasi_unstable` (preview 0).

mod common;

use common::{DATA, DIR, Guest, OUT, PATH, grants, returned};
use std::time::{Duration, Instant};
use wsnap_wasi::{Errno, SavedState, Stop, Wasi};

const EVENTS: u32 = DATA + 0x8000;
const SOON: Duration = Duration::from_secs(10);
const MILLISECOND_NS: u64 = 1_000_000;
const MONOTONIC: u32 = 1;

/// A subscription of preview 0 to a clock.
fn clock(userdata: u64, id: u32, timeout_ns: u64, absolute: bool) -> [u8; 56] {
    let mut bytes = [0; 56];
    bytes[0..8].copy_from_slice(&userdata.to_le_bytes());
    // The identifier, which means nothing.
    bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    bytes[24..28].copy_from_slice(&id.to_le_bytes());
    bytes[32..40].copy_from_slice(&timeout_ns.to_le_bytes());
    bytes[48] = u8::from(absolute);
    bytes
}

fn descriptor(userdata: u64, write: bool, fd: u32) -> [u8; 56] {
    let mut bytes = [0; 56];
    bytes[0..8].copy_from_slice(&userdata.to_le_bytes());
    bytes[8] = if write { 2 } else { 1 };
    bytes[16..20].copy_from_slice(&fd.to_le_bytes());
    bytes
}

impl Guest {
    fn poll_raw(&mut self, subscriptions: &[[u8; 56]]) -> Result<Errno, Stop> {
        self.put(DATA, subscriptions.as_flattened());
        let count = subscriptions.len() as u32;
        call!(self.unstable_poll_oneoff(DATA, EVENTS, count, OUT))
    }

    /// The user data, type and flags of the events.
    fn poll(&mut self, subscriptions: &[[u8; 56]]) -> Result<Vec<(u64, u8, u8)>, Errno> {
        returned(self.poll_raw(subscriptions))?;
        let event = |index| {
            let event = self.bytes(EVENTS + 32 * index, 32);
            let userdata = u64::from_le_bytes(event[..8].try_into().expect("8 bytes"));
            (userdata, event[10], event[24])
        };
        Ok((0..self.u32(OUT)).map(event).collect())
    }

    fn old_seek(&mut self, fd: u32, offset: i64, whence: u32) -> Result<u64, Errno> {
        returned(call!(self.unstable_fd_seek(fd, offset, whence, OUT)))?;
        Ok(self.u64(OUT))
    }

    /// Suspends a sleep of `sleep` after a moment.
    fn suspend(&mut self, sleep: [u8; 56]) {
        let interrupter = self.wasi.interrupter();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            interrupter.interrupt();
        });
        assert_eq!(self.poll_raw(&[sleep]), Err(Stop::Suspended));
        thread.join().expect("no panic");
    }
}

#[test]
fn seeking_counts_from_the_position_the_end_and_the_start_in_this_order() {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    assert_eq!(guest.write(fd, b"0123456789"), Ok(10));
    assert_eq!(guest.old_seek(fd, 3, 2), Ok(3));
    assert_eq!(guest.old_seek(fd, 2, 0), Ok(5));
    assert_eq!(guest.old_seek(fd, -1, 1), Ok(9));
    assert_eq!(guest.old_seek(fd, -1, 2), Err(Errno::Inval));
    assert_eq!(guest.old_seek(fd, 0, 3), Err(Errno::Inval));
    assert_eq!(guest.old_seek(99, 0, 0), Err(Errno::Badf));
    assert_eq!(guest.read(fd, 9), Ok(b"9".to_vec()));
}

#[test]
fn the_record_of_a_file_has_56_bytes_with_the_links_in_32_bits() {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    assert_eq!(guest.write(fd, b"some bytes"), Ok(10));
    std::fs::hard_link(guest.host("f"), guest.host("g")).expect("a second name");
    assert_eq!(returned(call!(guest.fd_filestat_get(fd, OUT))), Ok(()));
    let new = guest.bytes(OUT, 64).to_vec();
    assert_eq!(new[24..32], 2u64.to_le_bytes());
    let length = guest.put(PATH, b"g");
    for by_path in [false, true] {
        guest.put(OUT, &[0xaa; 64]);
        let stored = match by_path {
            false => call!(guest.unstable_fd_filestat_get(fd, OUT)),
            true => call!(guest.unstable_path_filestat_get(DIR, 0, PATH, length, OUT)),
        };
        assert_eq!(returned(stored), Ok(()));
        let old = guest.bytes(OUT, 64);
        assert_eq!(old[0..17], new[0..17], "device, inode and type");
        assert_eq!(old[17..20], [0; 3], "padding");
        assert_eq!(old[20..24], 2u32.to_le_bytes(), "links");
        assert_eq!(old[24..56], new[32..64], "size and times");
        assert_eq!(old[56..64], [0xaa; 8], "what lies behind the record");
    }
}

#[test]
fn the_record_of_a_file_fits_into_the_last_56_bytes_of_memory_and_no_fewer() {
    let mut guest = Guest::new();
    let end = guest.memory.len() as u32;
    let length = guest.put(PATH, b".");
    let at = |guest: &mut Guest, pointer| {
        let by_descriptor = call!(guest.unstable_fd_filestat_get(DIR, pointer));
        let by_path = call!(guest.unstable_path_filestat_get(DIR, 0, PATH, length, pointer));
        [returned(by_descriptor), returned(by_path)]
    };
    assert_eq!(at(&mut guest, end - 56), [Ok(()); 2]);
    assert_eq!(at(&mut guest, end - 55), [Err(Errno::Fault); 2]);
    let stat = |guest: &mut Guest, fd, path, length| {
        returned(call!(
            guest.unstable_path_filestat_get(fd, 0, path, length, OUT)
        ))
    };
    assert_eq!(stat(&mut guest, DIR, end, 1), Err(Errno::Fault));
    assert_eq!(stat(&mut guest, DIR, 0, 70_000), Err(Errno::Nametoolong));
    assert_eq!(stat(&mut guest, 99, PATH, 1), Err(Errno::Badf));
    guest.put(PATH, b"x");
    assert_eq!(stat(&mut guest, DIR, PATH, 1), Err(Errno::Noent));
    let badf = call!(guest.unstable_fd_filestat_get(99, OUT));
    assert_eq!(returned(badf), Err(Errno::Badf));
}

#[test]
fn subscriptions_have_56_bytes_and_clocks_an_identifier() {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    let hour_ns = 3_600_000 * MILLISECOND_NS;
    let started = Instant::now();
    let slept = guest.poll(&[
        clock(1, MONOTONIC, hour_ns, false),
        clock(2, MONOTONIC, 20 * MILLISECOND_NS, false),
    ]);
    assert_eq!(slept, Ok(vec![(2, 0, 0)]));
    assert!(started.elapsed() >= Duration::from_millis(20));
    // The monotonic clock has shown more than a nanosecond already.
    assert_eq!(
        guest.poll(&[clock(3, MONOTONIC, 1, true)]),
        Ok(vec![(3, 0, 0)])
    );
    let ready = guest.poll(&[descriptor(4, false, fd), descriptor(5, true, fd)]);
    assert_eq!(ready, Ok(vec![(4, 1, 1), (5, 2, 0)]));
    assert_eq!(guest.poll(&[clock(1, 2, 0, false)]), Err(Errno::Inval));
    let mut flags = clock(1, MONOTONIC, 0, false);
    flags[48] = 2;
    assert_eq!(guest.poll(&[flags]), Err(Errno::Inval));
    let end = guest.memory.len() as u32;
    let outside = call!(guest.unstable_poll_oneoff(end - 55, EVENTS, 1, OUT));
    assert_eq!(outside, Ok(Errno::Fault));
}

#[test]
fn a_suspended_sleep_is_recognised_when_it_is_made_again_elsewhere() {
    let mut guest = Guest::new();
    let sleep = clock(1, MONOTONIC, 60_000 * MILLISECOND_NS, false);
    guest.suspend(sleep);
    let state = guest.state();
    let pending = state.pending.expect("the sleep is pending");
    let almost = SavedState {
        monotonic_ns: pending.started_ns + 59_990 * MILLISECOND_NS,
        ..state
    };
    let wasi = Wasi::restore(&almost, grants(guest.dir.path())).expect("restores");
    let mut resumed = Guest { wasi, ..guest };
    let started = Instant::now();
    assert_eq!(resumed.poll(&[sleep]), Ok(vec![(1, 0, 0)]));
    assert!(started.elapsed() < SOON);
    assert_eq!(resumed.state().pending, None);
}

#[test]
fn a_sleep_of_preview_1_at_the_same_address_is_another_call() {
    let mut guest = Guest::new();
    guest.suspend(clock(1, MONOTONIC, 60_000 * MILLISECOND_NS, false));
    guest.wasi.interrupter().clear();
    let old = guest.state().pending.expect("the sleep is pending");
    std::thread::sleep(Duration::from_millis(5));
    guest.wasi.interrupter().interrupt();
    // The bytes at its address, read as preview 1 does, would be a valid subscription too.
    let mut sleep = [0; 48];
    sleep[16..20].copy_from_slice(&MONOTONIC.to_le_bytes());
    sleep[24..32].copy_from_slice(&(60_000 * MILLISECOND_NS).to_le_bytes());
    guest.put(DATA, &sleep);
    let suspended = call!(guest.poll_oneoff(DATA, EVENTS, 1, OUT));
    assert_eq!(suspended, Err(Stop::Suspended));
    let new = guest.state().pending.expect("the sleep is pending");
    assert!(new.started_ns > old.started_ns);
}
