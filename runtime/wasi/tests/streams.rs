//! The standard streams: closed, files, pipes, terminals; interrupted and probed.

mod common;

use common::{DATA, Guest, IOVS, OUT, closed_streams, returned};
use rustix::fd::OwnedFd;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{self, File};
use std::io::{Read as _, Write as _, pipe};
use std::time::{Duration, Instant};
use wsnap_wasi::{Errno, FileType, Rights, StandardStreams, Stdio, Stop};

/// Far more than any interruption takes, far less than "for ever".
const SOON: Duration = Duration::from_secs(10);

/// How long the interrupting thread lets the call block first.
const A_MOMENT: Duration = Duration::from_millis(30);

fn with_stdin(fd: impl Into<OwnedFd>) -> Guest {
    Guest::with_streams(StandardStreams {
        stdin: Stdio::Descriptor(fd.into()),
        ..closed_streams()
    })
}

fn with_stdout(fd: impl Into<OwnedFd>) -> Guest {
    Guest::with_streams(StandardStreams {
        stdout: Stdio::Descriptor(fd.into()),
        ..closed_streams()
    })
}

/// Both ends of a new pseudo-terminal: the user's and the program's.
fn terminal() -> (File, File) {
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&user).expect("granted");
    unlockpt(&user).expect("unlocked");
    let name = ptsname(&user, Vec::new()).expect("a name");
    let mut options = File::options();
    let program = options.read(true).write(true);
    let program = program.open(name.to_str().expect("a path")).expect("opens");
    (user.into(), program)
}

#[test]
fn closed_streams_are_bad_descriptors() {
    let mut guest = Guest::new();
    assert_eq!(guest.read(0, 1), Err(Errno::Badf));
    assert_eq!(guest.write(1, b"x"), Err(Errno::Badf));
    assert_eq!(guest.write(2, b"x"), Err(Errno::Badf));
    assert_eq!(guest.close(0), Err(Errno::Badf));
}

#[test]
fn a_pipe_delivers_what_is_there_and_then_its_end() {
    let (reader, mut writer) = pipe().expect("a pipe");
    let mut guest = with_stdin(reader);
    writer.write_all(b"hello").expect("room");
    assert_eq!(guest.read(0, 3), Ok(b"hel".to_vec()));
    assert_eq!(guest.read(0, 100), Ok(b"lo".to_vec()));
    drop(writer);
    assert_eq!(guest.read(0, 100), Ok(vec![]));
}

#[test]
fn a_file_as_standard_input_goes_on_from_its_own_position() {
    let mut guest = Guest::new();
    fs::write(guest.host("input"), "line 1\nline 2\n").expect("a file");
    let input = File::open(guest.host("input")).expect("opens");
    guest = with_stdin(input);
    assert_eq!(guest.read(0, 7), Ok(b"line 1\n".to_vec()));
    assert_eq!(guest.read(0, 100), Ok(b"line 2\n".to_vec()));
    assert_eq!(guest.read(0, 100), Ok(vec![]));
}

#[test]
fn the_standard_streams_have_one_direction_and_no_position() {
    let (reader, writer) = pipe().expect("a pipe");
    let mut guest = Guest::with_streams(StandardStreams {
        stdin: Stdio::Descriptor(reader.into()),
        stdout: Stdio::Descriptor(writer.into()),
        stderr: Stdio::Closed,
    });
    assert_eq!(guest.write(0, b"x"), Err(Errno::Badf));
    assert_eq!(guest.read(1, 1), Err(Errno::Badf));
    assert_eq!(guest.tell(0), Err(Errno::Spipe));
    assert_eq!(guest.seek(1, 0, 0), Err(Errno::Spipe));
    guest.one_buffer(1);
    assert_eq!(call!(guest.fd_pread(0, IOVS, 1, 0, OUT)), Ok(Errno::Spipe));
    assert_eq!(call!(guest.fd_pwrite(1, IOVS, 1, 0, OUT)), Ok(Errno::Spipe));
    assert_eq!(call!(guest.fd_pread(1, IOVS, 1, 0, OUT)), Ok(Errno::Badf));
    assert_eq!(call!(guest.fd_pwrite(0, IOVS, 1, 0, OUT)), Ok(Errno::Badf));
    for (fd, rights) in [(0, Rights::FD_READ), (1, Rights::FD_WRITE)] {
        assert_eq!(returned(call!(guest.fd_fdstat_get(fd, OUT))), Ok(()));
        assert_eq!(guest.memory[OUT as usize], FileType::Unknown as u8);
        assert_eq!(guest.u64(OUT + 8), rights.bits());
        assert_eq!(returned(call!(guest.fd_filestat_get(fd, OUT))), Ok(()));
        assert_eq!(guest.bytes(OUT, 64), [0; 64]);
    }
}

#[test]
fn a_stream_can_be_moved_to_another_number() {
    let (mut reader, writer) = pipe().expect("a pipe");
    let mut guest = with_stdout(writer);
    let fd = guest.create("log");
    assert_eq!(returned(call!(guest.fd_renumber(1, fd))), Ok(()));
    assert_eq!(guest.write(1, b"x"), Err(Errno::Badf));
    assert_eq!(guest.write(fd, b"out"), Ok(3));
    drop(guest);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("readable");
    assert_eq!(text, "out");
}

#[test]
fn writing_to_a_pipe_without_a_reader_is_a_broken_pipe() {
    let (reader, writer) = pipe().expect("a pipe");
    let mut guest = with_stdout(writer);
    drop(reader);
    assert_eq!(guest.write(1, b"x"), Err(Errno::Pipe));
}

#[test]
fn a_large_write_waits_for_the_reader_and_arrives_whole() {
    let (mut reader, writer) = pipe().expect("a pipe");
    let mut guest = with_stdout(writer);
    let text: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    let consumer = std::thread::spawn(move || {
        std::thread::sleep(A_MOMENT);
        let mut received = Vec::new();
        reader.read_to_end(&mut received).expect("readable");
        received
    });
    assert_eq!(guest.write(1, &text), Ok(200_000));
    drop(guest);
    assert!(consumer.join().expect("no panic") == text);
}

/// Interrupts a blocking call of `guest` after a moment and gives its result.
fn interrupted<R>(guest: &mut Guest, call: impl FnOnce(&mut Guest) -> R) -> R {
    let interrupter = guest.wasi.interrupter();
    let started = Instant::now();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(A_MOMENT);
        interrupter.interrupt();
    });
    let result = call(guest);
    assert!(started.elapsed() < SOON);
    thread.join().expect("no panic");
    result
}

#[test]
fn an_interrupted_read_takes_no_byte_and_works_when_made_again() {
    let (reader, mut writer) = pipe().expect("a pipe");
    let mut guest = with_stdin(reader);
    guest.one_buffer(10);
    let read = interrupted(&mut guest, |guest| call!(guest.fd_read(0, IOVS, 1, OUT)));
    assert_eq!(read, Err(Stop::Suspended));
    // The request stands until it is cleared.
    assert_eq!(call!(guest.fd_read(0, IOVS, 1, OUT)), Err(Stop::Suspended));
    guest.wasi.interrupter().clear();
    writer.write_all(b"late").expect("room");
    assert_eq!(guest.read(0, 10), Ok(b"late".to_vec()));
}

#[test]
fn an_interruption_does_not_keep_what_is_ready_from_being_read() {
    let (reader, mut writer) = pipe().expect("a pipe");
    let mut guest = with_stdin(reader);
    guest.wasi.interrupter().interrupt();
    writer.write_all(b"ready").expect("room");
    assert_eq!(guest.read(0, 10), Ok(b"ready".to_vec()));
}

#[test]
fn an_interrupted_write_reports_what_was_written_and_then_nothing() {
    let (mut reader, writer) = pipe().expect("a pipe");
    let mut guest = with_stdout(writer);
    let text: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    let first = interrupted(&mut guest, |guest| guest.write(1, &text));
    let first = first.expect("a short write") as usize;
    assert!(first > 0 && first < text.len());
    guest.put(DATA, &text[first..]);
    guest.one_buffer((text.len() - first) as u32);
    assert_eq!(call!(guest.fd_write(1, IOVS, 1, OUT)), Err(Stop::Suspended));
    guest.wasi.interrupter().clear();
    let consumer = std::thread::spawn(move || {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).expect("readable");
        received
    });
    let rest = returned(call!(guest.fd_write(1, IOVS, 1, OUT)));
    assert_eq!(rest, Ok(()));
    assert_eq!(guest.u32(OUT) as usize, text.len() - first);
    drop(guest);
    assert!(consumer.join().expect("no panic") == text);
}

#[test]
fn a_terminal_is_a_character_device_and_its_reads_are_interruptible() {
    let (mut user, program) = terminal();
    let output = program.try_clone().expect("a second descriptor");
    let mut guest = Guest::with_streams(StandardStreams {
        stdin: Stdio::Descriptor(program.into()),
        stdout: Stdio::Descriptor(output.into()),
        stderr: Stdio::Closed,
    });
    assert_eq!(returned(call!(guest.fd_fdstat_get(0, OUT))), Ok(()));
    assert_eq!(guest.memory[OUT as usize], FileType::CharacterDevice as u8);
    guest.one_buffer(100);
    let read = interrupted(&mut guest, |guest| call!(guest.fd_read(0, IOVS, 1, OUT)));
    assert_eq!(read, Err(Stop::Suspended));
    guest.wasi.interrupter().clear();
    user.write_all(b"typed\n").expect("typed");
    assert_eq!(guest.read(0, 100), Ok(b"typed\n".to_vec()));
    assert_eq!(guest.write(1, b"> "), Ok(2));
}

#[test]
fn a_probe_stops_where_standard_input_would_block_and_only_there() {
    let (reader, mut writer) = pipe().expect("a pipe");
    let mut guest = with_stdin(reader);
    guest.wasi.set_stdin_probe(true);
    writer.write_all(b"some").expect("room");
    assert_eq!(guest.read(0, 10), Ok(b"some".to_vec()));
    assert!(!guest.wasi.stopped_at_stdin());
    guest.one_buffer(10);
    assert_eq!(call!(guest.fd_read(0, IOVS, 1, OUT)), Err(Stop::Suspended));
    assert!(guest.wasi.stopped_at_stdin());
    writer.write_all(b"more").expect("room");
    assert_eq!(guest.read(0, 10), Ok(b"more".to_vec()));
    assert!(!guest.wasi.stopped_at_stdin());
    drop(writer);
    assert_eq!(guest.read(0, 10), Ok(vec![]));
}

#[test]
fn a_probe_stops_at_a_terminal_that_waits() {
    let (mut user, program) = terminal();
    let mut guest = with_stdin(program);
    guest.wasi.set_stdin_probe(true);
    guest.one_buffer(10);
    assert_eq!(call!(guest.fd_read(0, IOVS, 1, OUT)), Err(Stop::Suspended));
    assert!(guest.wasi.stopped_at_stdin());
    user.write_all(b"1+1\n").expect("typed");
    assert_eq!(guest.read(0, 10), Ok(b"1+1\n".to_vec()));
}
