//! Hearing of changes in directories.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::error::{ResultExt, SlotsError};

/// Becomes readable when something changes in the directories that it watches.
pub(crate) struct Changes(OwnedFd);

impl Changes {
    pub fn new(path: &Path) -> Result<Self, SlotsError> {
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        Ok(Self(inotify::init(flags).during("watch", path)?))
    }

    /// From now on changes in this directory count, too: tickets that come and go, and the ends of processes that had
    /// some, whose files the system closes then.
    pub fn watch(&self, path: &Path) -> Result<(), SlotsError> {
        let what = WatchFlags::CREATE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::CLOSE_WRITE;
        inotify::add_watch(&self.0, path, what)
            .map(drop)
            .during("watch", path)
    }

    /// Forgets the changes that have been heard of.
    pub fn clear(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        loop {
            match rustix::io::read(&self.0, &mut buffer[..]) {
                Ok((bytes, _)) if !bytes.is_empty() => (),
                Err(Errno::INTR) => (),
                _ => return,
            }
        }
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
