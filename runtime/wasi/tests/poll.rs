//! `poll_oneoff`: sleeping and waiting, interrupted and made again.

mod common;

use common::{DATA, DIR, Guest, OUT, closed_streams, grants, returned};
use std::io::{Write as _, pipe};
use std::time::{Duration, Instant};
use wsnap_wasi::{
    DETERMINISTIC_EPOCH_NS, Errno, Grants, SavedState, StandardStreams, Stdio, Stop, Wasi,
};

const EVENTS: u32 = DATA + 0x8000;
const SOON: Duration = Duration::from_secs(10);
const MILLISECOND_NS: u64 = 1_000_000;

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;

fn clock(userdata: u64, id: u32, timeout_ns: u64, absolute: bool) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[0..8].copy_from_slice(&userdata.to_le_bytes());
    bytes[16..20].copy_from_slice(&id.to_le_bytes());
    bytes[24..32].copy_from_slice(&timeout_ns.to_le_bytes());
    bytes[40] = u8::from(absolute);
    bytes
}

fn descriptor(userdata: u64, write: bool, fd: u32) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[0..8].copy_from_slice(&userdata.to_le_bytes());
    bytes[8] = if write { 2 } else { 1 };
    bytes[16..20].copy_from_slice(&fd.to_le_bytes());
    bytes
}

impl Guest {
    fn poll_raw(&mut self, subscriptions: &[[u8; 48]]) -> Result<Errno, Stop> {
        self.put(DATA, subscriptions.as_flattened());
        let count = subscriptions.len() as u32;
        call!(self.poll_oneoff(DATA, EVENTS, count, OUT))
    }

    /// The user data, type and flags of the events.
    fn poll(&mut self, subscriptions: &[[u8; 48]]) -> Result<Vec<(u64, u8, u8)>, Errno> {
        returned(self.poll_raw(subscriptions))?;
        let event = |index| {
            let event = self.bytes(EVENTS + 32 * index, 32);
            assert_eq!(event[8..10], [0, 0], "the event reports an error");
            let userdata = u64::from_le_bytes(event[..8].try_into().expect("8 bytes"));
            (userdata, event[10], event[24])
        };
        Ok((0..self.u32(OUT)).map(event).collect())
    }
}

fn with_pipe() -> (Guest, std::io::PipeWriter) {
    let (reader, writer) = pipe().expect("a pipe");
    let guest = Guest::with_streams(StandardStreams {
        stdin: Stdio::Descriptor(reader.into()),
        ..closed_streams()
    });
    (guest, writer)
}

#[test]
fn a_sleep_takes_its_time() {
    let mut guest = Guest::new();
    for id in [REALTIME, MONOTONIC] {
        let started = Instant::now();
        let slept = guest.poll(&[clock(7, id, 20 * MILLISECOND_NS, false)]);
        assert_eq!(slept, Ok(vec![(7, 0, 0)]));
        assert!(started.elapsed() >= Duration::from_millis(20));
    }
}

#[test]
fn a_sleep_until_a_time_ends_when_the_clock_shows_it() {
    let mut guest = Guest::new();
    let until_ns = guest.monotonic_ns() + 20 * MILLISECOND_NS;
    let slept = guest.poll(&[clock(1, MONOTONIC, until_ns, true)]);
    assert_eq!(slept, Ok(vec![(1, 0, 0)]));
    assert!(guest.monotonic_ns() >= until_ns);
    let past = guest.poll(&[clock(1, REALTIME, DETERMINISTIC_EPOCH_NS, true)]);
    assert_eq!(past, Ok(vec![(1, 0, 0)]));
}

#[test]
fn the_earliest_of_several_ends_the_wait() {
    let (mut guest, mut writer) = with_pipe();
    let long = clock(1, MONOTONIC, 3_600_000 * MILLISECOND_NS, false);
    let short = clock(2, MONOTONIC, 5 * MILLISECOND_NS, false);
    let input = descriptor(3, false, 0);
    assert_eq!(guest.poll(&[long, input, short]), Ok(vec![(2, 0, 0)]));
    writer.write_all(b"x").expect("room");
    assert_eq!(guest.poll(&[long, input]), Ok(vec![(3, 1, 0)]));
}

#[test]
fn input_that_arrives_later_ends_the_wait() {
    let (mut guest, mut writer) = with_pipe();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        writer.write_all(b"x").expect("room");
        writer
    });
    assert_eq!(guest.poll(&[descriptor(3, false, 0)]), Ok(vec![(3, 1, 0)]));
    drop(thread.join().expect("no panic"));
    assert_eq!(guest.read(0, 9), Ok(b"x".to_vec()));
    // The end of a pipe is something to read too.
    assert_eq!(guest.poll(&[descriptor(3, false, 0)]), Ok(vec![(3, 1, 0)]));
}

#[test]
fn files_are_always_ready_and_tell_their_end() {
    let mut guest = Guest::new();
    let fd = guest.create("f");
    assert_eq!(guest.write(fd, b"x"), Ok(1));
    let both = [descriptor(1, false, fd), descriptor(2, true, fd)];
    assert_eq!(guest.poll(&both), Ok(vec![(1, 1, 1), (2, 2, 0)]));
    assert_eq!(guest.seek(fd, 0, 0), Ok(0));
    assert_eq!(guest.poll(&both), Ok(vec![(1, 1, 0), (2, 2, 0)]));
}

#[test]
fn what_cannot_be_waited_for_is_an_error() {
    let (mut guest, _writer) = with_pipe();
    assert_eq!(guest.poll(&[]), Err(Errno::Inval));
    assert_eq!(guest.poll(&[descriptor(1, false, 99)]), Err(Errno::Badf));
    assert_eq!(guest.poll(&[descriptor(1, false, DIR)]), Err(Errno::Badf));
    assert_eq!(guest.poll(&[descriptor(1, true, 0)]), Err(Errno::Badf));
    assert_eq!(guest.poll(&[clock(1, 2, 0, false)]), Err(Errno::Inval));
    assert_eq!(guest.poll(&[clock(1, 9, 0, false)]), Err(Errno::Inval));
    let mut unknown = clock(1, MONOTONIC, 0, false);
    unknown[8] = 3;
    assert_eq!(guest.poll(&[unknown]), Err(Errno::Inval));
    let mut flags = clock(1, MONOTONIC, 0, false);
    flags[40] = 2;
    assert_eq!(guest.poll(&[flags]), Err(Errno::Inval));
}

#[test]
fn a_deterministic_sleep_passes_its_time_without_waiting() {
    let mut guest = Guest::deterministic(1);
    let hour_ns = 3_600_000 * MILLISECOND_NS;
    let before = guest.monotonic_ns();
    let started = Instant::now();
    let longer = clock(2, REALTIME, 2 * hour_ns, false);
    let slept = guest.poll(&[longer, clock(1, MONOTONIC, hour_ns, false)]);
    assert_eq!(slept, Ok(vec![(1, 0, 0)]));
    assert!(started.elapsed() < SOON);
    assert_eq!(guest.monotonic_ns() - before, hour_ns + MILLISECOND_NS);
}

#[test]
fn a_deterministic_program_finds_its_streams_always_ready() {
    let (reader, _writer) = pipe().expect("a pipe");
    let mut guest = Guest::with(|config| {
        config.deterministic_seed = Some([1; 32]);
        config.streams.stdin = Stdio::Descriptor(reader.into());
    });
    let sleep = clock(1, MONOTONIC, MILLISECOND_NS, false);
    let ready = guest.poll(&[sleep, descriptor(3, false, 0)]);
    assert_eq!(ready, Ok(vec![(3, 1, 0)]));
}

#[test]
fn the_longest_sleep_can_be_interrupted() {
    let mut guest = Guest::new();
    for absolute in [false, true] {
        for id in [REALTIME, MONOTONIC] {
            suspend(&mut guest, clock(1, id, u64::MAX, absolute));
            guest.wasi.interrupter().clear();
        }
    }
}

/// Suspends a sleep of `sleep` after a moment.
fn suspend(guest: &mut Guest, sleep: [u8; 48]) {
    let interrupter = guest.wasi.interrupter();
    let started = Instant::now();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        interrupter.interrupt();
    });
    assert_eq!(guest.poll_raw(&[sleep]), Err(Stop::Suspended));
    assert!(started.elapsed() < SOON);
    thread.join().expect("no panic");
}

#[test]
fn an_interrupted_sleep_made_again_takes_its_whole_time_and_is_then_forgotten() {
    let mut guest = Guest::new();
    let hour_ns = 3_600_000 * MILLISECOND_NS;
    suspend(&mut guest, clock(1, MONOTONIC, hour_ns, false));
    guest.wasi.interrupter().clear();
    // Whatever else is slept in between is another call with its own beginning.
    let sleep = clock(1, MONOTONIC, 150 * MILLISECOND_NS, false);
    let began_ns = guest.monotonic_ns();
    suspend(&mut guest, sleep);
    guest.wasi.interrupter().clear();
    assert_eq!(guest.poll(&[sleep]), Ok(vec![(1, 0, 0)]));
    assert!(guest.monotonic_ns() - began_ns >= 150 * MILLISECOND_NS);
    assert_eq!(guest.state().pending, None);
}

#[test]
fn an_interrupted_sleep_sleeps_only_what_was_left_after_a_resume() {
    let mut guest = Guest::new();
    let sleep = clock(1, MONOTONIC, 60_000 * MILLISECOND_NS, false);
    let began_ns = guest.monotonic_ns();
    suspend(&mut guest, sleep);
    let state = guest.state();
    let pending = state.pending.expect("the sleep is pending");
    assert!(pending.started_ns >= began_ns && pending.started_ns <= state.monotonic_ns);
    // A program that was suspended when all but the last moment of its sleep had passed.
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
fn another_sleep_does_not_inherit_the_beginning_of_a_pending_one() {
    let mut guest = Guest::new();
    suspend(
        &mut guest,
        clock(1, MONOTONIC, 60_000 * MILLISECOND_NS, false),
    );
    guest.wasi.interrupter().clear();
    let before_ns = guest.monotonic_ns();
    let sleep = clock(1, MONOTONIC, 50 * MILLISECOND_NS, false);
    assert_eq!(guest.poll(&[sleep]), Ok(vec![(1, 0, 0)]));
    assert!(guest.monotonic_ns() - before_ns >= 50 * MILLISECOND_NS);
}

#[test]
fn a_probe_stops_a_poll_that_waits_for_standard_input() {
    let (mut guest, mut writer) = with_pipe();
    guest.wasi.set_stdin_probe(true);
    let input = descriptor(3, false, 0);
    let later = clock(1, MONOTONIC, 60_000 * MILLISECOND_NS, false);
    assert_eq!(guest.poll_raw(&[input, later]), Err(Stop::Suspended));
    assert!(guest.wasi.stopped_at_stdin());
    writer.write_all(b"x").expect("room");
    assert_eq!(guest.poll(&[input, later]), Ok(vec![(3, 1, 0)]));
    assert!(!guest.wasi.stopped_at_stdin());
    // A sleep alone does not wait for input.
    let sleep = clock(1, MONOTONIC, MILLISECOND_NS, false);
    assert_eq!(guest.poll(&[sleep]), Ok(vec![(1, 0, 0)]));
}

#[test]
fn the_monotonic_clock_goes_on_after_a_resume_and_stands_still_while_stored() {
    let mut guest = Guest::new();
    assert!(
        guest
            .poll(&[clock(1, MONOTONIC, 5 * MILLISECOND_NS, false)])
            .is_ok()
    );
    let state = guest.state();
    std::thread::sleep(Duration::from_millis(50));
    let resumed = Wasi::restore(&state, grants(guest.dir.path())).expect("restores");
    let mut resumed = Guest {
        wasi: resumed,
        ..guest
    };
    let later = SavedState {
        monotonic_ns: u64::MAX / 2,
        ..state.clone()
    };
    assert!(resumed.monotonic_ns() >= state.monotonic_ns);
    let wasi = Wasi::restore(
        &later,
        Grants {
            streams: closed_streams(),
            ..grants(resumed.dir.path())
        },
    );
    let mut far = Guest {
        wasi: wasi.expect("restores"),
        ..resumed
    };
    assert!(far.monotonic_ns() >= u64::MAX / 2);
}
