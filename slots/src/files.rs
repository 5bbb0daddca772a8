//! Tickets as files: made, locked, listed, found dead.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::{ResultExt, SlotsError};
use crate::id::TicketId;

pub(crate) const WAITING: &str = "waiting";
pub(crate) const RUNNING: &str = "running";
pub(crate) const ASKED: &str = "asked";
pub(crate) const COUNT: &str = "count";
pub(crate) const LOCK: &str = "lock";

/// The directory of some slots.
#[derive(Clone, Debug)]
pub(crate) struct Directory(pub PathBuf);

impl Directory {
    pub fn folder(&self, folder: &str) -> PathBuf {
        self.0.join(folder)
    }

    pub fn ticket(&self, folder: &str, id: TicketId) -> PathBuf {
        self.0.join(folder).join(id.to_string())
    }

    /// Keeps everybody else from taking slots or asking for them, until the file is dropped.
    pub fn lock(&self) -> Result<File, SlotsError> {
        let path = self.0.join(LOCK);
        let file = open_lock(&path).during("open", &path)?;
        loop {
            match file.lock() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                locked => return locked.map(|()| file).during("lock", &path),
            }
        }
    }

    /// All tickets in a folder, the most urgent first, dead ones included.
    pub fn list(&self, folder: &str) -> Result<Vec<TicketId>, SlotsError> {
        let path = self.folder(folder);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&path).during("list", &path)? {
            let entry = entry.during("list", &path)?;
            ids.extend(
                entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse::<TicketId>().ok()),
            );
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Whether the process of a ticket lives. A dead one's ticket is removed, with what it was asked.
    pub fn is_alive(&self, folder: &str, id: TicketId) -> Result<bool, SlotsError> {
        let path = self.ticket(folder, id);
        let Some(file) = open_ticket(&path).during("open", &path)? else {
            return Ok(false);
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error).during("lock", &path),
            Ok(()) => {
                remove(&path)?;
                remove(&self.ticket(ASKED, id))?;
                Ok(false)
            }
        }
    }

    /// The tickets of a folder whose processes live, the most urgent first; no more than `most` of them.
    pub fn alive(&self, folder: &str, most: usize) -> Result<Vec<TicketId>, SlotsError> {
        let mut alive = Vec::new();
        for id in self.list(folder)? {
            if alive.len() == most {
                break;
            }
            if self.is_alive(folder, id)? {
                alive.push(id);
            }
        }
        Ok(alive)
    }

    /// Whether a running program has been asked for its slot.
    pub fn is_asked(&self, id: TicketId) -> bool {
        self.ticket(ASKED, id).exists()
    }

    /// Asks a running program for its slot.
    pub fn ask(&self, id: TicketId) -> Result<(), SlotsError> {
        let path = self.ticket(ASKED, id);
        File::create(&path).map(drop).during("create", &path)
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
}

/// Opens a ticket; none if there is none. Something else by the name of one is nobody's ticket, and must not be waited for.
fn open_ticket(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A symbolic link, or a socket.
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::LOOP | Errno::NXIO)
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Removes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> Result<(), SlotsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.during("remove", path),
    }
}
