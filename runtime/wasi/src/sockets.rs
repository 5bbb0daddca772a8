//! TCP sockets: listeners that were granted, and the connections that they accept.
//!
//! All of the host's sockets are non-blocking; a call of the guest that blocks waits here, where it can be interrupted.
//! A listener is granted again by whoever resumes a program. A connection cannot be: the guest finds it reset.

use crate::calls::{Failure, Outcome, Stop};
use crate::descriptors::Descriptor;
use crate::errno::Errno;
use crate::interrupt::{Interrupter, Woken};
use crate::memory::{Memory, Ranges, touch};
use crate::types::{FdFlags, FdStat, FileType, ReceiveFlags, Rights, ShutdownFlags, flags};
use crate::wasi::Wasi;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// What a connection can be used for.
const CONNECTION_RIGHTS: Rights = Rights::FD_READ
    .union(Rights::FD_WRITE)
    .union(Rights::FD_FDSTAT_SET_FLAGS)
    .union(Rights::FD_FILESTAT_GET)
    .union(Rights::POLL_FD_READWRITE)
    .union(Rights::SOCK_SHUTDOWN);

/// What a listener can be used for.
const LISTENER_RIGHTS: Rights = Rights::SOCK_ACCEPT
    .union(Rights::FD_FDSTAT_SET_FLAGS)
    .union(Rights::FD_FILESTAT_GET)
    .union(Rights::POLL_FD_READWRITE);

/// How much is received at once when it is kept here.
const PIECE_BYTES: usize = 64 * 1024;

/// An open socket.
pub(crate) enum Socket {
    Listener(Listener),
    Connection(Connection),
}

/// A socket that accepts connections.
pub(crate) struct Listener {
    /// The index among the granted listeners.
    pub index: u32,
    handle: TcpListener,
    pub nonblocking: bool,
}

/// A connection that was accepted.
pub(crate) struct Connection {
    /// None: it was lost when the program was resumed.
    stream: Option<TcpStream>,
    pub nonblocking: bool,
    /// What was received and the guest has not got yet: it looked ahead, or its wait for more was cut short.
    received: VecDeque<u8>,
    /// The error that came behind `received`.
    failed: Option<Errno>,
}

/// Waits until a socket is ready, or the call is cut short.
fn await_ready(
    socket: BorrowedFd<'_>,
    wanted: PollFlags,
    interrupter: &Interrupter,
) -> Result<(), Failure> {
    match retry_on_intr(|| interrupter.wait(&[(socket, wanted)], None))? {
        Woken::Ready => Ok(()),
        Woken::Interrupted | Woken::TimedOut => Err(Stop::Suspended.into()),
    }
}

/// Whether a call that could go on without waiting should be cut short all the same, because it takes long.
fn is_interrupted(interrupter: &Interrupter) -> Result<bool, Failure> {
    let woken = retry_on_intr(|| interrupter.wait(&[], Some(Duration::ZERO)))?;
    Ok(woken == Woken::Interrupted)
}

impl Listener {
    /// # Errors
    ///
    /// When the host does not let it be made non-blocking.
    pub(crate) fn new(index: u32, handle: TcpListener, nonblocking: bool) -> io::Result<Listener> {
        handle.set_nonblocking(true)?;
        Ok(Listener {
            index,
            handle,
            nonblocking,
        })
    }

    fn accept(&self, interrupter: &Interrupter) -> Result<TcpStream, Failure> {
        loop {
            match self.handle.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.nonblocking => {
                    await_ready(self.handle.as_fd(), PollFlags::IN, interrupter)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Connection {
    fn new(stream: TcpStream, nonblocking: bool) -> Connection {
        Connection {
            stream: Some(stream),
            nonblocking,
            received: VecDeque::new(),
            failed: None,
        }
    }

    /// One that a resumed program had.
    pub(crate) fn lost(nonblocking: bool) -> Connection {
        Connection {
            stream: None,
            nonblocking,
            received: VecDeque::new(),
            failed: None,
        }
    }

    fn receive(
        &mut self,
        memory: &mut Memory<'_>,
        ranges: &Ranges,
        how: ReceiveFlags,
        interrupter: &Interrupter,
    ) -> Result<usize, Failure> {
        let mut buffers = memory.read_buffers(ranges);
        let wanted = buffers.iter().map(|buffer| buffer.len()).sum();
        if how.is_empty() && self.received.is_empty() && self.failed.is_none() {
            let stream = self.stream.as_ref().ok_or(Errno::Connreset)?;
            let count = self.without_blocking(PollFlags::IN, interrupter, || {
                (&*stream).read_vectored(&mut buffers)
            })?;
            touch(&mut buffers, count);
            return Ok(count);
        }
        self.fill(wanted, how.contains(ReceiveFlags::WAITALL), interrupter)?;
        if self.received.is_empty()
            && let Some(error) = self.failed.take()
        {
            return Err(error.into());
        }
        let count = wanted.min(self.received.len());
        let mut bytes = self.received.iter().copied();
        for buffer in &mut buffers {
            for (slot, byte) in buffer.iter_mut().zip(&mut bytes) {
                *slot = byte;
            }
        }
        if !how.contains(ReceiveFlags::PEEK) {
            self.received.drain(..count);
        }
        Ok(count)
    }

    /// Receives until `wanted` bytes are here, or those that there are: all that have come, or with `all` all that will
    /// ever come. When it is cut short, what has come stays here.
    fn fill(&mut self, wanted: usize, all: bool, interrupter: &Interrupter) -> Result<(), Failure> {
        while self.received.len() < wanted && self.failed.is_none() {
            let stream = self.stream.as_ref().ok_or(Errno::Connreset)?;
            let mut piece = vec![0; (wanted - self.received.len()).min(PIECE_BYTES)];
            match (&*stream).read(&mut piece) {
                Ok(0) => break,
                Ok(count) => self.received.extend(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let enough = !self.received.is_empty() && (!all || self.nonblocking);
                    if enough {
                        break;
                    }
                    if self.nonblocking {
                        return Err(Errno::Again.into());
                    }
                    await_ready(stream.as_fd(), PollFlags::IN, interrupter)?;
                }
                Err(error) => self.failed = Some(error.into()),
            }
            if self.received.len() < wanted && all && is_interrupted(interrupter)? {
                return Err(Stop::Suspended.into());
            }
        }
        Ok(())
    }

    /// Sends everything, waiting where it must. Fewer bytes mean an interruption or an error after them, which the
    /// next call meets again.
    fn send(
        &self,
        mut buffers: &mut [IoSlice<'_>],
        interrupter: &Interrupter,
    ) -> Result<usize, Failure> {
        let stream = self.stream.as_ref().ok_or(Errno::Connreset)?;
        let mut sent = 0;
        while buffers.iter().any(|buffer| !buffer.is_empty()) {
            if sent > 0 && is_interrupted(interrupter)? {
                break;
            }
            let count = self.without_blocking(PollFlags::OUT, interrupter, || {
                (&*stream).write_vectored(buffers)
            });
            match count {
                Ok(count) => {
                    sent += count;
                    IoSlice::advance_slices(&mut buffers, count);
                }
                Err(failure) if sent == 0 => return Err(failure),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// Tries something until it need not wait, or as the guest wants it, once.
    fn without_blocking(
        &self,
        wanted: PollFlags,
        interrupter: &Interrupter,
        mut attempt: impl FnMut() -> io::Result<usize>,
    ) -> Result<usize, Failure> {
        let stream = self.stream.as_ref().ok_or(Errno::Connreset)?;
        loop {
            match attempt() {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.nonblocking => {
                    await_ready(stream.as_fd(), wanted, interrupter)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn shut_down(&self, how: ShutdownFlags) -> Result<(), Failure> {
        let stream = self.stream.as_ref().ok_or(Errno::Notconn)?;
        let how = match (
            how.contains(ShutdownFlags::RD),
            how.contains(ShutdownFlags::WR),
        ) {
            (true, true) => Shutdown::Both,
            (true, false) => Shutdown::Read,
            (false, true) => Shutdown::Write,
            (false, false) => return Err(Errno::Inval.into()),
        };
        Ok(stream.shutdown(how)?)
    }
}

/// What waiting for a socket has to know.
pub(crate) enum Readiness {
    /// Nothing would block.
    Ready,
    /// Nothing would block, and the other side is gone.
    Hangup,
    /// It would block.
    Blocks,
}

impl Socket {
    /// Reads what has come, waiting for the first byte.
    pub(crate) fn read(
        &mut self,
        memory: &mut Memory<'_>,
        ranges: &Ranges,
        how: ReceiveFlags,
        interrupter: &Interrupter,
    ) -> Result<usize, Failure> {
        match self {
            Socket::Listener(_) => Err(Errno::Notconn.into()),
            Socket::Connection(connection) => connection.receive(memory, ranges, how, interrupter),
        }
    }

    pub(crate) fn write(
        &self,
        buffers: &mut [IoSlice<'_>],
        interrupter: &Interrupter,
    ) -> Result<usize, Failure> {
        match self {
            Socket::Listener(_) => Err(Errno::Pipe.into()),
            Socket::Connection(connection) => connection.send(buffers, interrupter),
        }
    }

    fn nonblocking(&self) -> bool {
        match self {
            Socket::Listener(listener) => listener.nonblocking,
            Socket::Connection(connection) => connection.nonblocking,
        }
    }

    pub(crate) fn set_flags(&mut self, new: FdFlags) -> Result<(), Errno> {
        if !FdFlags::NONBLOCK.contains(new) {
            return Err(Errno::Inval);
        }
        let nonblocking = match self {
            Socket::Listener(listener) => &mut listener.nonblocking,
            Socket::Connection(connection) => &mut connection.nonblocking,
        };
        *nonblocking = new.contains(FdFlags::NONBLOCK);
        Ok(())
    }

    pub(crate) fn fdstat(&self) -> FdStat {
        let mut flags = FdFlags::empty();
        flags.set(FdFlags::NONBLOCK, self.nonblocking());
        let rights_base = match self {
            Socket::Listener(_) => LISTENER_RIGHTS,
            Socket::Connection(_) => CONNECTION_RIGHTS,
        };
        FdStat {
            file_type: FileType::SocketStream,
            flags,
            rights_base,
            rights_inheriting: CONNECTION_RIGHTS,
        }
    }

    /// The host's socket to wait for; none if there is nothing to wait for any more.
    pub(crate) fn source(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Socket::Listener(listener) => Some(listener.handle.as_fd()),
            Socket::Connection(connection) => connection.stream.as_ref().map(|s| s.as_fd()),
        }
    }

    /// Whether accepting or reading, or else writing, would block now.
    pub(crate) fn readiness(&self, reading: bool) -> Result<Readiness, Errno> {
        let Some(source) = self.source() else {
            return Ok(Readiness::Hangup);
        };
        if let Socket::Connection(connection) = self
            && reading
            && !(connection.received.is_empty() && connection.failed.is_none())
        {
            return Ok(Readiness::Ready);
        }
        let mut polled = [PollFd::from_borrowed_fd(source, interest(reading))];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        retry_on_intr(|| poll(&mut polled, Some(&at_once)))?;
        let events = polled[0].revents();
        Ok(if events.contains(PollFlags::HUP) {
            Readiness::Hangup
        } else if events.is_empty() {
            Readiness::Blocks
        } else {
            Readiness::Ready
        })
    }
}

/// What to wait for.
pub(crate) fn interest(reading: bool) -> PollFlags {
    match reading {
        true => PollFlags::IN,
        false => PollFlags::OUT,
    }
}

impl Wasi {
    fn socket(&mut self, fd: u32) -> Result<&mut Socket, Errno> {
        match self.descriptors.get_mut(fd)? {
            Descriptor::Socket(socket) => Ok(socket),
            _ => Err(Errno::Notsock),
        }
    }
}

pub(crate) fn sock_accept(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    raw_flags: u32,
    accepted: u32,
) -> Outcome {
    memory.check(accepted, 4)?;
    let flags: FdFlags = flags(raw_flags)?;
    // The number first: a connection that was accepted and then has none would be lost.
    let number = wasi.descriptors.lowest_free();
    let listener = match wasi.descriptors.get(fd)? {
        Descriptor::Socket(Socket::Listener(listener)) => listener,
        Descriptor::Socket(Socket::Connection(_)) => return Err(Errno::Inval.into()),
        _ => return Err(Errno::Notsock.into()),
    };
    if !FdFlags::NONBLOCK.contains(flags) {
        return Err(Errno::Inval.into());
    }
    let number = number?;
    let stream = listener.accept(&wasi.interrupter)?;
    let connection = Connection::new(stream, flags.contains(FdFlags::NONBLOCK));
    let socket = Descriptor::Socket(Socket::Connection(connection));
    wasi.descriptors.insert_at(number, socket)?;
    Ok(memory.write_u32(accepted, number)?)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parameters are those of preview 1"
)]
pub(crate) fn sock_recv(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    iovs: u32,
    iovs_length: u32,
    raw_flags: u32,
    nread: u32,
    result_flags: u32,
) -> Outcome {
    memory.check(nread, 4)?;
    memory.check(result_flags, 2)?;
    let how: ReceiveFlags = flags(raw_flags)?;
    let ranges = memory.iovecs(iovs, iovs_length)?;
    let interrupter = wasi.interrupter.clone();
    let socket = wasi.socket(fd)?;
    let read = socket.read(&mut memory, &ranges, how, &interrupter)?;
    let read = u32::try_from(read).map_err(|_| Errno::Overflow)?;
    memory.write_u32(nread, read)?;
    // A stream has no messages that could be cut off.
    Ok(memory.write(result_flags, &[0; 2])?)
}

pub(crate) fn sock_send(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    iovs: u32,
    iovs_length: u32,
    raw_flags: u32,
    nwritten: u32,
) -> Outcome {
    memory.check(nwritten, 4)?;
    let ranges = memory.iovecs(iovs, iovs_length)?;
    let interrupter = wasi.interrupter.clone();
    let socket = wasi.socket(fd)?;
    if raw_flags != 0 {
        // None is defined.
        return Err(Errno::Inval.into());
    }
    let written = socket.write(&mut memory.write_buffers(&ranges), &interrupter)?;
    let written = u32::try_from(written).map_err(|_| Errno::Overflow)?;
    Ok(memory.write_u32(nwritten, written)?)
}

pub(crate) fn sock_shutdown(
    wasi: &mut Wasi,
    _memory: Memory<'_>,
    fd: u32,
    raw_how: u32,
) -> Outcome {
    let how: ShutdownFlags = flags(raw_how)?;
    match wasi.socket(fd)? {
        Socket::Listener(_) => Err(Errno::Notconn.into()),
        Socket::Connection(connection) => connection.shut_down(how),
    }
}
