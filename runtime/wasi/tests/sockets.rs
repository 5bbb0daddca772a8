//! Listeners that were granted, and the connections that they accept.

mod common;

use common::{DATA, DIR, Guest, IOVS, OUT, PATH, grants, returned};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wsnap_wasi::{
    Errno, FileType, Grants, Interrupter, RestoreError, SavedConnection, SavedDescriptor,
    SavedListener, StandardStreams, Stdio, Stop, Wasi,
};

/// The first listener, behind the one directory.
const LISTENER: u32 = DIR + 1;
/// The first connection.
const CONNECTION: u32 = LISTENER + 1;
const NONBLOCK: u32 = 4;
const PEEK: u32 = 1;
const WAITALL: u32 = 2;
const RECEIVING: u32 = 1;
const SENDING: u32 = 2;
const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(50);
const EVENTS: u32 = DATA + 0x8000;

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

fn again(listener: &TcpListener) -> TcpListener {
    listener.try_clone().expect("a descriptor is free")
}

fn nowhere() -> Stdio {
    let mut options = std::fs::File::options();
    let file = options.read(true).write(true).open("/dev/null");
    Stdio::Descriptor(file.expect("it exists").into())
}

/// A guest with streams, a directory and these listeners, so that what it opens has the numbers behind those.
fn guest_with(listeners: Vec<TcpListener>) -> Guest {
    Guest::with(|config| {
        config.listeners = listeners;
        config.streams = StandardStreams {
            stdin: nowhere(),
            stdout: nowhere(),
            stderr: nowhere(),
        };
    })
}

fn with_listener() -> (Guest, TcpListener) {
    let listener = listener();
    (guest_with(vec![again(&listener)]), listener)
}

fn connect(listener: &TcpListener) -> TcpStream {
    let address = listener.local_addr().expect("it is bound");
    let stream = TcpStream::connect(address).expect("the listener listens");
    stream.set_read_timeout(Some(SOON)).expect("a valid time");
    stream.set_nodelay(true).expect("a valid option");
    stream
}

/// A guest with a connection, and the connection's other side.
fn connected() -> (Guest, TcpStream) {
    let (mut guest, listener) = with_listener();
    let peer = connect(&listener);
    assert_eq!(guest.accept(LISTENER, 0), Ok(CONNECTION));
    (guest, peer)
}

/// Does something on another thread, after a moment.
fn later(what: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(MOMENT);
        what();
    })
}

fn interrupt_later(guest: &Guest) -> JoinHandle<()> {
    let interrupter: Interrupter = guest.wasi.interrupter();
    later(move || interrupter.interrupt())
}

impl Guest {
    fn accept(&mut self, fd: u32, flags: u32) -> Result<u32, Errno> {
        returned(call!(self.sock_accept(fd, flags, OUT)))?;
        Ok(self.u32(OUT))
    }

    fn receive(&mut self, length: u32, flags: u32) -> Result<Vec<u8>, Errno> {
        self.one_buffer(length);
        self.put(OUT, &[0xff; 8]);
        let received = call!(self.sock_recv(CONNECTION, IOVS, 1, flags, OUT, OUT + 4));
        returned(received)?;
        assert_eq!(self.bytes(OUT + 4, 2), [0, 0], "nothing is cut off");
        Ok(self.bytes(DATA, self.u32(OUT)).to_vec())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<u32, Errno> {
        let length = self.put(DATA, bytes);
        self.one_buffer(length);
        returned(call!(self.sock_send(CONNECTION, IOVS, 1, 0, OUT)))?;
        Ok(self.u32(OUT))
    }

    fn set_flags(&mut self, fd: u32, flags: u32) -> Result<(), Errno> {
        returned(call!(self.fd_fdstat_set_flags(fd, flags)))
    }

    /// Type, flags and rights.
    fn fdstat(&mut self, fd: u32) -> Result<(u8, u8, u64), Errno> {
        returned(call!(self.fd_fdstat_get(fd, OUT)))?;
        Ok((
            self.bytes(OUT, 1)[0],
            self.bytes(OUT + 2, 1)[0],
            self.u64(OUT + 8),
        ))
    }

    fn shut_down(&mut self, how: u32) -> Result<(), Errno> {
        returned(call!(self.sock_shutdown(CONNECTION, how)))
    }

    fn poll_raw(&mut self, sources: &[(u32, bool)]) -> Result<Errno, Stop> {
        for (index, (fd, write)) in (0..).zip(sources) {
            let mut bytes = [0; 48];
            bytes[0] = index as u8;
            bytes[8] = if *write { 2 } else { 1 };
            bytes[16..20].copy_from_slice(&fd.to_le_bytes());
            self.put(DATA + 48 * index, &bytes);
        }
        call!(self.poll_oneoff(DATA, EVENTS, sources.len() as u32, OUT))
    }

    /// The index of the source and the flags of each event.
    fn poll(&mut self, sources: &[(u32, bool)]) -> Result<Vec<(u8, u8)>, Errno> {
        returned(self.poll_raw(sources))?;
        let event = |index| {
            let event = self.bytes(EVENTS + 32 * index, 32);
            (event[0], event[24])
        };
        Ok((0..self.u32(OUT)).map(event).collect())
    }

    fn resume_with(self, listeners: Vec<TcpListener>) -> Result<Guest, RestoreError> {
        let state = self.state();
        let grants = Grants {
            listeners,
            ..grants(self.dir.path())
        };
        Ok(Guest {
            wasi: Wasi::restore(&state, grants)?,
            ..self
        })
    }
}

#[test]
fn a_connection_is_accepted_and_carries_bytes_both_ways() {
    let (mut guest, mut peer) = connected();
    peer.write_all(b"question").expect("it is connected");
    assert_eq!(guest.read(CONNECTION, 100), Ok(b"question".to_vec()));
    assert_eq!(guest.write(CONNECTION, b"answer"), Ok(6));
    assert_eq!(guest.send(b", more"), Ok(6));
    let mut answer = [0; 12];
    peer.read_exact(&mut answer).expect("it was sent");
    assert_eq!(&answer, b"answer, more");
    drop(peer);
    assert_eq!(guest.receive(100, 0), Ok(vec![]));
    assert_eq!(guest.close(CONNECTION), Ok(()));
    assert_eq!(guest.read(CONNECTION, 1), Err(Errno::Badf));
}

#[test]
fn listeners_have_the_numbers_behind_the_directories() {
    let listeners = [listener(), listener()];
    let mut guest = guest_with(listeners.iter().map(again).collect());
    let _peer = connect(&listeners[1]);
    assert_eq!(guest.set_flags(LISTENER, NONBLOCK), Ok(()));
    assert_eq!(guest.accept(LISTENER, 0), Err(Errno::Again));
    assert_eq!(guest.accept(LISTENER + 1, 0), Ok(LISTENER + 2));
    let mut alone = Guest::with(|config| {
        config.preopens = Vec::new();
        config.listeners = vec![listener()];
    });
    let stream = FileType::SocketStream as u8;
    assert_eq!(alone.fdstat(3).map(|stat| stat.0), Ok(stream));
    let prestat = call!(alone.fd_prestat_get(3, OUT));
    assert_eq!(returned(prestat), Err(Errno::Badf));
}

#[test]
fn accepting_waits_for_a_connection() {
    let (mut guest, listener) = with_listener();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(MOMENT);
        connect(&listener)
    });
    assert_eq!(guest.accept(LISTENER, NONBLOCK), Ok(CONNECTION));
    drop(thread.join().expect("no panic"));
    assert_eq!(guest.fdstat(CONNECTION).map(|stat| stat.1), Ok(4));
}

#[test]
fn accepting_that_is_interrupted_loses_no_connection() {
    let (mut guest, listener) = with_listener();
    let started = Instant::now();
    let thread = interrupt_later(&guest);
    let suspended = call!(guest.sock_accept(LISTENER, 0, OUT));
    assert_eq!(suspended, Err(Stop::Suspended));
    assert!(started.elapsed() < SOON);
    thread.join().expect("no panic");
    // What is there wins over the request, which still stands.
    let mut peer = connect(&listener);
    assert_eq!(guest.accept(LISTENER, 0), Ok(CONNECTION));
    peer.write_all(b"x").expect("it is connected");
    assert_eq!(guest.read(CONNECTION, 9), Ok(b"x".to_vec()));
}

#[test]
fn receiving_that_is_interrupted_loses_nothing() {
    let (mut guest, mut peer) = connected();
    let thread = interrupt_later(&guest);
    guest.one_buffer(100);
    let suspended = call!(guest.fd_read(CONNECTION, IOVS, 1, OUT));
    assert_eq!(suspended, Err(Stop::Suspended));
    thread.join().expect("no panic");
    guest.wasi.interrupter().clear();
    peer.write_all(b"here").expect("it is connected");
    assert_eq!(guest.read(CONNECTION, 100), Ok(b"here".to_vec()));
}

#[test]
fn waiting_for_all_bytes_that_is_interrupted_loses_and_repeats_none() {
    let (mut guest, mut peer) = connected();
    peer.write_all(b"first, ").expect("it is connected");
    let thread = interrupt_later(&guest);
    guest.one_buffer(13);
    let suspended = call!(guest.sock_recv(CONNECTION, IOVS, 1, WAITALL, OUT, OUT + 4));
    assert_eq!(suspended, Err(Stop::Suspended));
    thread.join().expect("no panic");
    guest.wasi.interrupter().clear();
    let thread = later(move || {
        peer.write_all(b"second, third").expect("it is connected");
    });
    assert_eq!(guest.receive(13, WAITALL), Ok(b"first, second".to_vec()));
    thread.join().expect("no panic");
    assert_eq!(guest.read(CONNECTION, 100), Ok(b", third".to_vec()));
}

#[test]
fn what_an_interrupted_wait_for_all_bytes_has_received_is_for_whoever_reads_next() {
    let (mut guest, mut peer) = connected();
    peer.write_all(b"bytes").expect("it is connected");
    let thread = interrupt_later(&guest);
    guest.one_buffer(100);
    let suspended = call!(guest.sock_recv(CONNECTION, IOVS, 1, WAITALL, OUT, OUT + 4));
    assert_eq!(suspended, Err(Stop::Suspended));
    thread.join().expect("no panic");
    guest.wasi.interrupter().clear();
    assert_eq!(guest.poll(&[(CONNECTION, false)]), Ok(vec![(0, 0)]));
    assert_eq!(guest.read(CONNECTION, 2), Ok(b"by".to_vec()));
    assert_eq!(guest.read(CONNECTION, 100), Ok(b"tes".to_vec()));
}

#[test]
fn waiting_for_all_bytes_ends_with_the_connection() {
    let (mut guest, mut peer) = connected();
    peer.write_all(b"short").expect("it is connected");
    drop(peer);
    assert_eq!(guest.receive(100, WAITALL), Ok(b"short".to_vec()));
    assert_eq!(guest.receive(100, WAITALL), Ok(vec![]));
}

#[test]
fn a_large_message_is_received_whole() {
    let (mut guest, mut peer) = connected();
    let message: Vec<u8> = (0..200_000u32).map(|number| (number % 251) as u8).collect();
    let sent = message.clone();
    let thread = std::thread::spawn(move || peer.write_all(&sent).expect("it is connected"));
    let received = guest.receive(200_000, WAITALL);
    assert!(received == Ok(message), "another message arrived");
    thread.join().expect("no panic");
}

#[test]
fn looking_ahead_takes_nothing_away() {
    let (mut guest, mut peer) = connected();
    peer.write_all(b"one").expect("it is connected");
    assert_eq!(guest.receive(2, PEEK), Ok(b"on".to_vec()));
    let thread = later(move || peer.write_all(b"two").expect("it is connected"));
    assert_eq!(guest.receive(6, PEEK | WAITALL), Ok(b"onetwo".to_vec()));
    thread.join().expect("no panic");
    // Both buffers are filled from what was looked at.
    guest.put(IOVS, &DATA.to_le_bytes());
    guest.put(IOVS + 4, &4u32.to_le_bytes());
    guest.put(IOVS + 8, &(DATA + 100).to_le_bytes());
    guest.put(IOVS + 12, &100u32.to_le_bytes());
    let received = call!(guest.sock_recv(CONNECTION, IOVS, 2, 0, OUT, OUT + 4));
    assert_eq!(returned(received), Ok(()));
    assert_eq!(guest.u32(OUT), 6);
    assert_eq!(guest.bytes(DATA, 4), b"onet");
    assert_eq!(guest.bytes(DATA + 100, 2), b"wo");
}

#[test]
fn sending_more_than_fits_waits_and_an_interruption_tells_how_much_was_sent() {
    let (mut guest, mut peer) = connected();
    guest.memory = vec![7; 64 << 20];
    let length = 48 << 20;
    guest.one_buffer(length);
    let thread = interrupt_later(&guest);
    let sent = call!(guest.fd_write(CONNECTION, IOVS, 1, OUT));
    assert_eq!(returned(sent), Ok(()));
    thread.join().expect("no panic");
    let sent = guest.u32(OUT);
    assert!(sent > 0 && sent < length, "{sent}");
    // Once nothing fits any more, a call has no effect.
    let mut sent = u64::from(sent);
    let end = loop {
        match call!(guest.sock_send(CONNECTION, IOVS, 1, 0, OUT)) {
            Ok(Errno::Success) => sent += u64::from(guest.u32(OUT)),
            end => break end,
        }
    };
    assert_eq!(end, Err(Stop::Suspended));
    assert_eq!(guest.close(CONNECTION), Ok(()));
    let mut received = Vec::new();
    peer.read_to_end(&mut received).expect("it was sent");
    assert_eq!(received.len() as u64, sent);
}

#[test]
fn sockets_that_do_not_wait_say_so() {
    let (mut guest, listener) = with_listener();
    assert_eq!(guest.set_flags(LISTENER, NONBLOCK), Ok(()));
    assert_eq!(guest.accept(LISTENER, 0), Err(Errno::Again));
    let mut peer = connect(&listener);
    assert_eq!(guest.poll(&[(LISTENER, false)]), Ok(vec![(0, 0)]));
    assert_eq!(guest.accept(LISTENER, NONBLOCK), Ok(CONNECTION));
    assert_eq!(guest.receive(9, 0), Err(Errno::Again));
    assert_eq!(guest.receive(9, PEEK), Err(Errno::Again));
    assert_eq!(guest.read(CONNECTION, 9), Err(Errno::Again));
    peer.write_all(b"part").expect("it is connected");
    assert_eq!(guest.poll(&[(CONNECTION, false)]), Ok(vec![(0, 0)]));
    assert_eq!(guest.receive(9, WAITALL), Ok(b"part".to_vec()));
    guest.memory.resize(64 << 20, 0);
    guest.one_buffer(48 << 20);
    let sent = call!(guest.fd_write(CONNECTION, IOVS, 1, OUT));
    assert_eq!(returned(sent), Ok(()));
    assert!(guest.u32(OUT) < 48 << 20);
    let end = loop {
        if let Err(error) = guest.send(b"x") {
            break error;
        }
    };
    assert_eq!(end, Errno::Again);
    assert_eq!(guest.set_flags(CONNECTION, 0), Ok(()));
    assert_eq!(guest.fdstat(CONNECTION).map(|stat| stat.1), Ok(0));
}

#[test]
fn waiting_for_sockets_ends_with_what_comes_first() {
    let (mut guest, mut peer) = connected();
    assert_eq!(
        guest.poll(&[(CONNECTION, false), (CONNECTION, true), (LISTENER, false)]),
        Ok(vec![(1, 0)])
    );
    let thread = std::thread::spawn(move || {
        std::thread::sleep(MOMENT);
        peer.write_all(b"x").expect("it is connected");
        peer
    });
    let both = [(LISTENER, false), (CONNECTION, false)];
    assert_eq!(guest.poll(&both), Ok(vec![(1, 0)]));
    let peer = thread.join().expect("no panic");
    assert_eq!(guest.read(CONNECTION, 9), Ok(b"x".to_vec()));
    let thread = interrupt_later(&guest);
    assert_eq!(guest.poll_raw(&both), Err(Stop::Suspended));
    thread.join().expect("no panic");
    guest.wasi.interrupter().clear();
    // The end of a connection is something to read; it is gone when both sides have ended it.
    drop(peer);
    assert_eq!(guest.poll(&both), Ok(vec![(1, 0)]));
    assert_eq!(guest.shut_down(SENDING), Ok(()));
    assert_eq!(guest.poll(&[(CONNECTION, true)]), Ok(vec![(0, 1)]));
    assert_eq!(guest.poll(&[(LISTENER, true)]), Err(Errno::Badf));
}

#[test]
fn ending_one_direction_leaves_the_other() {
    let (mut guest, mut peer) = connected();
    assert_eq!(guest.shut_down(0), Err(Errno::Inval));
    assert_eq!(guest.shut_down(4), Err(Errno::Inval));
    assert_eq!(guest.shut_down(SENDING), Ok(()));
    assert_eq!(peer.read(&mut [0; 9]).expect("the end"), 0);
    assert_eq!(guest.send(b"x"), Err(Errno::Pipe));
    peer.write_all(b"still").expect("it is connected");
    assert_eq!(guest.receive(9, 0), Ok(b"still".to_vec()));
    assert_eq!(guest.shut_down(RECEIVING), Ok(()));
    assert_eq!(guest.receive(9, 0), Ok(vec![]));
    assert_eq!(guest.shut_down(RECEIVING | SENDING), Ok(()));
}

#[test]
fn a_reset_connection_says_so_once_behind_what_came_before() {
    let (mut guest, mut peer) = connected();
    peer.write_all(b"last").expect("it is connected");
    assert_eq!(guest.receive(4, PEEK | WAITALL), Ok(b"last".to_vec()));
    // Closing with unread bytes resets the connection.
    assert_eq!(guest.send(b"unread"), Ok(6));
    peer.peek(&mut [0; 6]).expect("it was sent");
    drop(peer);
    assert_eq!(guest.receive(9, WAITALL), Ok(b"last".to_vec()));
    assert_eq!(guest.receive(9, 0), Err(Errno::Connreset));
    assert_eq!(guest.receive(9, 0), Ok(vec![]));
}

#[test]
fn sockets_are_described_as_such() {
    let (mut guest, _peer) = connected();
    let stream = FileType::SocketStream as u8;
    let (accepts, reads_writes) = (1 << 29, 1 << 1 | 1 << 6);
    let (file_type, flags, rights) = guest.fdstat(LISTENER).expect("it is open");
    assert_eq!((file_type, flags), (stream, 0));
    assert_eq!(rights & (accepts | reads_writes), accepts);
    let (file_type, flags, rights) = guest.fdstat(CONNECTION).expect("it is open");
    assert_eq!((file_type, flags), (stream, 0));
    assert_eq!(rights & (accepts | reads_writes), reads_writes);
    let stat = call!(guest.fd_filestat_get(CONNECTION, OUT));
    assert_eq!(returned(stat), Ok(()));
    let mut expected = [0; 64];
    expected[16] = stream;
    assert_eq!(guest.bytes(OUT, 64), expected);
}

#[test]
fn what_sockets_cannot_do_has_the_error_number_of_linux() {
    let (mut guest, _peer) = connected();
    assert_eq!(guest.read(LISTENER, 1), Err(Errno::Notconn));
    assert_eq!(guest.write(LISTENER, b"x"), Err(Errno::Pipe));
    assert_eq!(guest.accept(CONNECTION, 0), Err(Errno::Inval));
    assert_eq!(guest.accept(LISTENER, 1), Err(Errno::Inval));
    assert_eq!(guest.accept(DIR, 0), Err(Errno::Notsock));
    assert_eq!(guest.accept(99, 0), Err(Errno::Badf));
    assert_eq!(guest.receive(1, 4), Err(Errno::Inval));
    let flags = call!(guest.sock_send(CONNECTION, IOVS, 1, 1, OUT));
    assert_eq!(returned(flags), Err(Errno::Inval));
    let listener = call!(guest.sock_shutdown(LISTENER, 3));
    assert_eq!(returned(listener), Err(Errno::Notconn));
    assert_eq!(guest.set_flags(CONNECTION, 1), Err(Errno::Inval));
    for fd in [LISTENER, CONNECTION] {
        assert_eq!(guest.seek(fd, 0, 0), Err(Errno::Spipe));
        assert_eq!(guest.tell(fd), Err(Errno::Spipe));
        guest.one_buffer(1);
        let read = call!(guest.fd_pread(fd, IOVS, 1, 0, OUT));
        assert_eq!(returned(read), Err(Errno::Spipe));
        let written = call!(guest.fd_pwrite(fd, IOVS, 1, 0, OUT));
        assert_eq!(returned(written), Err(Errno::Spipe));
        assert_eq!(call!(guest.fd_sync(fd)), Ok(Errno::Badf));
        assert_eq!(
            call!(guest.fd_readdir(fd, DATA, 9, 0, OUT)),
            Ok(Errno::Badf)
        );
        assert_eq!(call!(guest.fd_prestat_get(fd, OUT)), Ok(Errno::Badf));
        let times = call!(guest.fd_filestat_set_times(fd, 0, 0, 0));
        assert_eq!(returned(times), Err(Errno::Badf));
        let opened = call!(guest.path_open(fd, 0, PATH, 1, 0, 2, 0, 0, OUT));
        assert_eq!(returned(opened), Err(Errno::Badf));
    }
    let end = guest.memory.len() as u32;
    assert_eq!(
        call!(guest.sock_accept(LISTENER, 0, end - 3)),
        Ok(Errno::Fault)
    );
}

#[test]
fn a_connection_can_be_renumbered() {
    let (mut guest, mut peer) = connected();
    let fd = guest.create("f");
    assert_eq!(returned(call!(guest.fd_renumber(CONNECTION, fd))), Ok(()));
    assert_eq!(guest.write(fd, b"moved"), Ok(5));
    let mut moved = [0; 5];
    peer.read_exact(&mut moved).expect("it was sent");
    assert_eq!(guest.write(CONNECTION, b"x"), Err(Errno::Badf));
}

#[test]
fn a_resumed_program_goes_on_listening_on_what_it_is_granted() {
    let (mut guest, old) = with_listener();
    assert_eq!(guest.set_flags(LISTENER, NONBLOCK), Ok(()));
    let listener = SavedListener {
        listener: 0,
        nonblocking: true,
    };
    let state = guest.state();
    assert_eq!(
        state.descriptors[&LISTENER],
        SavedDescriptor::Listener(listener)
    );
    drop(old);
    let new = self::listener();
    let mut guest = guest.resume_with(vec![again(&new)]).expect("resumes");
    assert_eq!(guest.accept(LISTENER, 0), Err(Errno::Again));
    assert_eq!(guest.set_flags(LISTENER, 0), Ok(()));
    let mut peer = connect(&new);
    assert_eq!(guest.accept(LISTENER, 0), Ok(CONNECTION));
    peer.write_all(b"x").expect("it is connected");
    assert_eq!(guest.read(CONNECTION, 9), Ok(b"x".to_vec()));
}

#[test]
fn listeners_are_granted_again_in_the_old_order() {
    let mut guest = guest_with(vec![listener(), listener()]);
    assert_eq!(guest.close(LISTENER), Ok(()));
    let new = [listener(), listener()];
    let granted = new.iter().map(again).collect();
    let mut guest = guest.resume_with(granted).expect("resumes");
    assert_eq!(guest.accept(LISTENER, 0), Err(Errno::Badf));
    let _peer = connect(&new[1]);
    // The lowest free number is that of the listener that was closed.
    assert_eq!(guest.accept(LISTENER + 1, 0), Ok(LISTENER));
}

#[test]
fn a_listener_that_is_not_granted_again_is_an_error_that_names_the_flag() {
    let guest = guest_with(vec![listener(), listener()]);
    let error = guest.resume_with(vec![listener()]).map(drop);
    match error {
        Err(
            error @ RestoreError::NoListener {
                number: 2,
                granted: 1,
            },
        ) => {
            assert!(
                error.to_string().contains("--tcplisten HOST:PORT 2 times"),
                "{error}"
            );
        }
        other => panic!("another outcome: {other:?}"),
    }
    let mut closed = guest_with(vec![listener()]);
    assert_eq!(closed.close(LISTENER), Ok(()));
    assert!(closed.resume_with(vec![]).is_ok());
}

#[test]
fn a_connection_is_reset_for_a_resumed_program_and_never_hangs() {
    let (mut guest, mut peer) = connected();
    peer.write_all(b"never received").expect("it is connected");
    assert_eq!(guest.receive(5, PEEK), Ok(b"never".to_vec()));
    let connection = SavedDescriptor::Connection(SavedConnection { nonblocking: false });
    assert_eq!(guest.state().descriptors[&CONNECTION], connection);
    let mut guest = guest.resume_with(vec![listener()]).expect("resumes");
    for _ in 0..2 {
        assert_eq!(guest.read(CONNECTION, 9), Err(Errno::Connreset));
        assert_eq!(guest.write(CONNECTION, b"x"), Err(Errno::Connreset));
        assert_eq!(guest.receive(9, 0), Err(Errno::Connreset));
        assert_eq!(guest.receive(9, PEEK), Err(Errno::Connreset));
        assert_eq!(guest.receive(9, WAITALL), Err(Errno::Connreset));
        assert_eq!(guest.send(b"x"), Err(Errno::Connreset));
    }
    assert_eq!(guest.shut_down(SENDING), Err(Errno::Notconn));
    let all = [(CONNECTION, false), (CONNECTION, true), (LISTENER, false)];
    assert_eq!(guest.poll(&all), Ok(vec![(0, 1), (1, 1)]));
    assert_eq!(guest.fdstat(CONNECTION).map(|stat| stat.0), Ok(6));
    assert_eq!(guest.set_flags(CONNECTION, NONBLOCK), Ok(()));
    assert_eq!(guest.read(CONNECTION, 9), Err(Errno::Connreset));
    // It is as lost for whoever resumes it once more.
    let state = guest.state();
    let connection = SavedDescriptor::Connection(SavedConnection { nonblocking: true });
    assert_eq!(state.descriptors[&CONNECTION], connection);
    assert_eq!(guest.close(CONNECTION), Ok(()));
    assert_eq!(guest.read(CONNECTION, 9), Err(Errno::Badf));
}

#[test]
fn a_call_that_was_interrupted_is_reset_when_it_is_made_again_elsewhere() {
    let (mut guest, _peer) = connected();
    let thread = interrupt_later(&guest);
    guest.one_buffer(100);
    let suspended = call!(guest.fd_read(CONNECTION, IOVS, 1, OUT));
    assert_eq!(suspended, Err(Stop::Suspended));
    thread.join().expect("no panic");
    let mut guest = guest.resume_with(vec![listener()]).expect("resumes");
    assert_eq!(guest.read(CONNECTION, 100), Err(Errno::Connreset));
}

#[test]
fn a_deterministic_program_finds_its_sockets_always_ready() {
    let mut guest = Guest::with(|config| {
        config.deterministic_seed = Some([1; 32]);
        config.listeners = vec![listener()];
    });
    assert_eq!(guest.poll(&[(LISTENER, false)]), Ok(vec![(0, 0)]));
    guest.wasi.interrupter().interrupt();
    let suspended = call!(guest.sock_accept(LISTENER, 0, OUT));
    assert_eq!(suspended, Err(Stop::Suspended));
}

#[test]
fn equal_programs_on_different_addresses_have_equal_states() {
    let saved = || {
        let listener = listener();
        let granted = again(&listener);
        let mut guest = Guest::with(|config| {
            config.deterministic_seed = Some([1; 32]);
            config.listeners = vec![granted];
        });
        let mut peer = connect(&listener);
        peer.write_all(b"content").expect("it is connected");
        // Its streams are closed.
        assert_eq!(guest.accept(LISTENER, 0), Ok(0));
        assert_eq!(guest.read(0, 3), Ok(b"con".to_vec()));
        guest.wasi.save().expect("saves")
    };
    assert_eq!(saved(), saved());
}
