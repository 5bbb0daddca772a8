//! Hearing of changes in directories.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::error::{ResultExt, SlotsError};

/// Looks so often where the system does not tell of changes.
const LOOK_PERIOD: Duration = Duration::from_millis(20);
/// Looks at least so often where it does, should a change not be heard of.
const LONG_LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Changes in some directories. Without any more of the system's watches, of which it has some hundred for each user, one has
/// to look again and again.
pub(crate) struct Changes(Option<OwnedFd>);

impl Changes {
    pub fn new(path: &Path) -> Result<Self, SlotsError> {
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        match inotify::init(flags) {
            Ok(watches) => Ok(Self(Some(watches))),
            Err(Errno::MFILE | Errno::NFILE) => Ok(Self(None)),
            Err(error) => Err(error).during("watch", path),
        }
    }

    /// From now on changes among the tickets of this folder count, too: tickets that come and go, and the ends of processes that
    /// had some, whose files the system closes then.
    pub fn watch_tickets(&mut self, folder: &Path) -> Result<(), SlotsError> {
        let what = WatchFlags::CREATE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::CLOSE_WRITE;
        self.watch(folder, what)
    }

    /// From now on it counts, too, when a file of this directory is replaced. Nothing else that is done there does: whoever looks
    /// for a slot opens the lock there, and would wake everybody who looks, itself included.
    pub fn watch_replacements(&mut self, directory: &Path) -> Result<(), SlotsError> {
        self.watch(directory, WatchFlags::MOVED_TO)
    }

    fn watch(&mut self, path: &Path, what: WatchFlags) -> Result<(), SlotsError> {
        let Some(watches) = &self.0 else {
            return Ok(());
        };
        match inotify::add_watch(watches, path, what) {
            Ok(_) => Ok(()),
            Err(Errno::NOSPC | Errno::NOMEM) => {
                self.0 = None;
                Ok(())
            }
            Err(error) => Err(error).during("watch", path),
        }
    }

    /// Forgets the changes that have been heard of.
    pub fn clear(&self) {
        let Some(watches) = &self.0 else {
            return;
        };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        loop {
            match rustix::io::read(watches, &mut buffer[..]) {
                Ok((bytes, _)) if !bytes.is_empty() => (),
                Err(Errno::INTR) => (),
                _ => return,
            }
        }
    }

    /// Waits for a change, or until `wake` is readable, or until it is time to look all the same.
    pub fn wait(&self, wake: BorrowedFd<'_>, soon: bool) -> Result<Heard, Errno> {
        let mut fds = vec![PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        fds.extend(
            self.0
                .as_ref()
                .map(|watches| PollFd::new(watches, PollFlags::IN)),
        );
        let period = match &self.0 {
            _ if soon => SECOND_LOOK,
            Some(_) => LONG_LOOK_PERIOD,
            None => LOOK_PERIOD,
        };
        match poll(&mut fds, Timespec::try_from(period).ok().as_ref()) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(error) => return Err(error),
        }
        Ok(match &fds[..] {
            [wake, ..] if !wake.revents().is_empty() => Heard::Wake,
            [_, watches] if !watches.revents().is_empty() => Heard::Change,
            _ => Heard::Nothing,
        })
    }
}

/// The system tells of the end of a process a moment before it unlocks its files.
const SECOND_LOOK: Duration = Duration::from_millis(3);

/// What ended a wait for changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Wake,
    Change,
    Nothing,
}
