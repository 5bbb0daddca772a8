//! The standard streams: never buffered here, and never blocked on without being interruptible.
//!
//! A stream that can block is first tried without waiting (`RWF_NOWAIT`, one system call). Where the kernel cannot do
//! that, terminals for one, readiness is asked for first and writes are cut into pieces that a ready stream takes.

use crate::calls::{Failure, Stop};
use crate::errno::Errno;
use crate::interrupt::{Interrupter, Woken};
use crate::memory::touch;
use crate::types::FileType;
use rustix::event::PollFlags;
use rustix::fd::OwnedFd;
use rustix::io::{Errno as HostErrno, ReadWriteFlags, preadv2, pwritev2, retry_on_intr};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Where a standard stream of the guest leads.
#[derive(Debug, Default)]
pub enum Stdio {
    /// To this process's own stream of that name.
    #[default]
    Inherit,
    /// Nowhere: the guest finds the descriptor closed.
    Closed,
    /// To this file, pipe, socket or terminal.
    Descriptor(OwnedFd),
}

/// The three standard streams of whoever runs or resumes a program.
#[derive(Debug, Default)]
pub struct StandardStreams {
    /// Descriptor 0.
    pub stdin: Stdio,
    /// Descriptor 1.
    pub stdout: Stdio,
    /// Descriptor 2.
    pub stderr: Stdio,
}

/// Which of the standard streams a descriptor is; programs can move them to other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    /// Standard input.
    Input,
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Standard {
    /// All of them, at the index that is their usual descriptor number.
    pub(crate) const ALL: [Standard; 3] = [Standard::Input, Standard::Output, Standard::Error];
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocking {
    /// Regular files and the like: always ready.
    Never,
    /// It can block, and the kernel can be told not to.
    Avoidable,
    /// It can block, and only asking first helps.
    AskFirst,
}

/// A ready pipe takes this many bytes without blocking (`PIPE_BUF`), a terminal roughly so.
const PIECE_BYTES: usize = 4096;

/// Offset -1 means the stream's own position.
const HERE: u64 = u64::MAX;

enum Source {
    Inherited(Standard),
    Owned(OwnedFd),
}

pub(crate) struct Stream {
    source: Source,
    blocking: Blocking,
    pub(crate) file_type: FileType,
    /// How many bytes the program has written to it.
    written: u64,
}

impl Stream {
    /// The stream that `stdio` grants; none if it is closed, here or in this process.
    pub(crate) fn new(stdio: Stdio, standard: Standard) -> Option<Stream> {
        let source = match stdio {
            Stdio::Closed => return None,
            Stdio::Inherit => Source::Inherited(standard),
            Stdio::Descriptor(fd) => Source::Owned(fd),
        };
        let stat = rustix::fs::fstat(source.as_fd()).ok()?;
        use rustix::fs::FileType as Host;
        let memory_device = rustix::fs::major(stat.st_rdev) == 1;
        let blocking = match Host::from_raw_mode(stat.st_mode) {
            Host::RegularFile | Host::BlockDevice => Blocking::Never,
            Host::CharacterDevice if memory_device => Blocking::Never,
            _ => Blocking::Avoidable,
        };
        let file_type = if rustix::termios::isatty(source.as_fd()) {
            FileType::CharacterDevice
        } else {
            FileType::Unknown
        };
        Some(Stream {
            source,
            blocking,
            file_type,
            written: 0,
        })
    }

    /// Whether waiting for readiness makes sense at all.
    pub(crate) fn can_block(&self) -> bool {
        self.blocking != Blocking::Never
    }

    /// Reads what is there, waiting for the first byte.
    ///
    /// With `stop_when_empty` it does not wait at all: [`Stop::Suspended`] says that it would have.
    pub(crate) fn read(
        &mut self,
        buffers: &mut [IoSliceMut<'_>],
        interrupter: &Interrupter,
        stop_when_empty: bool,
    ) -> Result<usize, Failure> {
        let timeout = stop_when_empty.then_some(Duration::ZERO);
        loop {
            if self.blocking == Blocking::AskFirst {
                self.await_ready(PollFlags::IN, interrupter, timeout)?;
            }
            match self.try_read(buffers) {
                Ok(count) => {
                    touch(buffers, count);
                    return Ok(count);
                }
                Err(HostErrno::AGAIN) => {
                    self.await_ready(PollFlags::IN, interrupter, timeout)?;
                }
                Err(HostErrno::OPNOTSUPP) if self.blocking == Blocking::Avoidable => {
                    self.blocking = Blocking::AskFirst;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn try_read(&self, buffers: &mut [IoSliceMut<'_>]) -> rustix::io::Result<usize> {
        let flags = self.flags();
        retry_on_intr(|| preadv2(self, buffers, HERE, flags))
    }

    /// Writes everything, waiting where it must. Fewer bytes mean an interruption or an error after them, which the
    /// next call meets again.
    pub(crate) fn write(
        &mut self,
        mut buffers: &mut [IoSlice<'_>],
        interrupter: &Interrupter,
    ) -> Result<usize, Failure> {
        let mut written = 0;
        while buffers.iter().any(|buffer| !buffer.is_empty()) {
            match self.write_some(buffers, interrupter) {
                Ok(count) => {
                    written += count;
                    self.written += count as u64;
                    IoSlice::advance_slices(&mut buffers, count);
                }
                Err(failure) if written == 0 => return Err(failure),
                Err(_) => break,
            }
        }
        Ok(written)
    }

    fn write_some(
        &mut self,
        buffers: &[IoSlice<'_>],
        interrupter: &Interrupter,
    ) -> Result<usize, Failure> {
        loop {
            if self.blocking == Blocking::AskFirst {
                self.await_ready(PollFlags::OUT, interrupter, None)?;
            }
            match self.try_write(buffers) {
                Ok(count) => return Ok(count),
                Err(HostErrno::AGAIN) => self.await_ready(PollFlags::OUT, interrupter, None)?,
                Err(HostErrno::OPNOTSUPP) if self.blocking == Blocking::Avoidable => {
                    self.blocking = Blocking::AskFirst;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn try_write(&self, buffers: &[IoSlice<'_>]) -> rustix::io::Result<usize> {
        let flags = self.flags();
        let total = buffers.iter().map(|buffer| buffer.len()).sum::<usize>();
        if self.blocking == Blocking::AskFirst && total > PIECE_BYTES {
            let longest = buffers.iter().find(|buffer| !buffer.is_empty());
            let piece = longest.map_or(&[][..], |buffer| &buffer[..buffer.len().min(PIECE_BYTES)]);
            return retry_on_intr(|| rustix::io::write(self, piece));
        }
        retry_on_intr(|| pwritev2(self, buffers, HERE, flags))
    }

    fn flags(&self) -> ReadWriteFlags {
        if self.blocking == Blocking::Avoidable {
            ReadWriteFlags::NOWAIT
        } else {
            ReadWriteFlags::empty()
        }
    }

    fn await_ready(
        &self,
        flags: PollFlags,
        interrupter: &Interrupter,
        timeout: Option<Duration>,
    ) -> Result<(), Failure> {
        let woken = retry_on_intr(|| interrupter.wait(&[(self.as_fd(), flags)], timeout))?;
        match woken {
            Woken::Ready => Ok(()),
            Woken::Interrupted | Woken::TimedOut => Err(Stop::Suspended.into()),
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Inherited(Standard::Input) => rustix::stdio::stdin(),
            Source::Inherited(Standard::Output) => rustix::stdio::stdout(),
            Source::Inherited(Standard::Error) => rustix::stdio::stderr(),
            Source::Owned(fd) => fd.as_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

/// The streams that a program has been granted, by [`Standard`].
pub(crate) struct Streams([Option<Stream>; 3]);

impl Streams {
    pub(crate) fn new(granted: StandardStreams) -> Streams {
        Streams([
            Stream::new(granted.stdin, Standard::Input),
            Stream::new(granted.stdout, Standard::Output),
            Stream::new(granted.stderr, Standard::Error),
        ])
    }

    pub(crate) fn get(&self, standard: Standard) -> Result<&Stream, Errno> {
        self.0[standard as usize].as_ref().ok_or(Errno::Badf)
    }

    /// How many bytes the program has written to a stream of its own, since it was started or resumed.
    pub(crate) fn written(&self, standard: Standard) -> u64 {
        let stream = self.0[standard as usize].as_ref();
        stream.map_or(0, |stream| stream.written)
    }

    pub(crate) fn get_mut(&mut self, standard: Standard) -> Result<&mut Stream, Errno> {
        self.0[standard as usize].as_mut().ok_or(Errno::Badf)
    }
}
