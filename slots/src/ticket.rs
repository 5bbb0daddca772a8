//! A process's place among those who want slots.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{EventfdFlags, eventfd};

use crate::error::{ResultExt, SlotsError};
use crate::files::{ASKED, Directory, RUNNING, WAITING, remove};
use crate::id::TicketId;
use crate::slots::Slots;
use crate::watch::{Changes, Heard};

/// What a process has as long as it wants a slot. Dropping it gives everything back.
#[derive(Debug)]
pub struct Ticket {
    slots: Slots,
    id: TicketId,
    is_running: bool,
    /// Locked, so that others know that this process lives.
    _file: File,
}

/// What ended the waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// There is a slot, and it is ours.
    Running,
    /// Something else was waited for, too, and has happened.
    Woken,
}

impl Slots {
    /// Gets in line.
    ///
    /// # Errors
    ///
    /// [`SlotsError`].
    pub fn enter(&self, priority: i32) -> Result<Ticket, SlotsError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let arrived_ns = since.map_or(0, |since| since.as_nanos() as u64);
        let mut id = TicketId::new(priority, arrived_ns, std::process::id());
        loop {
            let path = self.directory.ticket(WAITING, id);
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path);
            let file = match made {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    id.arrived_ns += 1;
                    continue;
                }
                Err(error) => return Err(error).during("create", &path),
            };
            file.lock().during("lock", &path)?;
            // Before it was locked somebody may have taken it for that of a dead process, and removed it.
            if path.exists() {
                return Ok(Ticket {
                    slots: self.clone(),
                    id,
                    is_running: false,
                    _file: file,
                });
            }
        }
    }
}

impl Ticket {
    /// Its name.
    pub fn id(&self) -> TicketId {
        self.id
    }

    /// Whether it has a slot.
    pub fn is_running(&self) -> bool {
        self.is_running
    }

    /// Waits for a slot, or until `wake` is readable.
    ///
    /// # Errors
    ///
    /// [`SlotsError`].
    pub fn wait(&mut self, wake: BorrowedFd<'_>) -> Result<Waited, SlotsError> {
        let directory = self.directory();
        let mut changes = Changes::new(&directory.0)?;
        for folder in [WAITING, RUNNING] {
            changes.watch_tickets(&directory.folder(folder))?;
        }
        // For those who make fewer or more slots of it.
        changes.watch_replacements(&directory.0)?;
        let mut looks_again = false;
        loop {
            changes.clear();
            if self.try_run()? {
                return Ok(Waited::Running);
            }
            let heard = changes.wait(wake, looks_again);
            let heard = heard.during("watch", &self.directory().0)?;
            if heard == Heard::Wake {
                return Ok(Waited::Woken);
            }
            looks_again = heard == Heard::Change;
        }
    }

    /// Takes a slot if it is our turn; otherwise asks a less urgent program for its own, if that is our turn.
    fn try_run(&mut self) -> Result<bool, SlotsError> {
        if self.is_running {
            return Ok(true);
        }
        let count = self.slots.count()?;
        // Whoever has that many before it need not even keep the others waiting.
        if self.rank(count)? >= count {
            return Ok(false);
        }
        let directory = self.directory();
        let _lock = directory.lock()?;
        let rank = self.rank(count)?;
        let running = directory.alive(RUNNING, usize::MAX)?;
        let free = count.saturating_sub(running.len());
        if rank < free {
            let from = directory.ticket(WAITING, self.id);
            fs::rename(&from, directory.ticket(RUNNING, self.id)).during("move", &from)?;
            self.is_running = true;
            return Ok(true);
        }
        let surplus = running.len().saturating_sub(count);
        let victim = running.iter().rev().nth(surplus + rank - free);
        if let Some(victim) = victim
            && victim.priority() < self.id.priority()
            && !directory.is_asked(*victim)
        {
            directory.ask(*victim)?;
        }
        Ok(false)
    }

    /// How many who wait come before us; no more than `most` are counted.
    fn rank(&self, most: usize) -> Result<usize, SlotsError> {
        let directory = &self.slots.directory;
        let mut rank = 0;
        for id in directory.list(WAITING)? {
            if id >= self.id || rank == most {
                break;
            }
            rank += usize::from(directory.is_alive(WAITING, id)?);
        }
        Ok(rank)
    }

    /// Gives the slot back and waits in line again, at the old place.
    ///
    /// # Errors
    ///
    /// [`SlotsError`].
    pub fn give_back(&mut self) -> Result<(), SlotsError> {
        if !self.is_running {
            return Ok(());
        }
        let directory = self.directory();
        let from = directory.ticket(RUNNING, self.id);
        fs::rename(&from, directory.ticket(WAITING, self.id)).during("move", &from)?;
        self.is_running = false;
        remove(&directory.ticket(ASKED, self.id))
    }

    /// Calls `asked` from a thread of its own whenever this program, while it has a slot, is asked to give it back.
    ///
    /// # Errors
    ///
    /// [`SlotsError`].
    pub fn watch(&self, asked: impl Fn() + Send + 'static) -> Result<Watcher, SlotsError> {
        let directory = self.directory();
        let mut changes = Changes::new(&directory.0)?;
        let folder = directory.folder(ASKED);
        changes.watch_tickets(&folder)?;
        let over = eventfd(0, EventfdFlags::CLOEXEC).during("watch", &folder)?;
        let is_over = over.try_clone().during("watch", &folder)?;
        let id = self.id;
        let watch = move || {
            let mut was_asked = false;
            loop {
                changes.clear();
                let is_asked = directory.is_asked(id);
                if is_asked && !was_asked {
                    asked();
                }
                was_asked = is_asked;
                match changes.wait(is_over.as_fd(), false) {
                    Ok(Heard::Wake) | Err(_) => return,
                    Ok(Heard::Change | Heard::Nothing) => (),
                }
            }
        };
        let thread = thread::Builder::new().name("slots".to_owned()).spawn(watch);
        thread.during("start a thread for", &folder)?;
        Ok(Watcher { over })
    }

    fn directory(&self) -> Directory {
        self.slots.directory.clone()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // What cannot be removed is that of a dead process soon.
        let directory = &self.slots.directory;
        let folder = if self.is_running { RUNNING } else { WAITING };
        let _ = remove(&directory.ticket(folder, self.id));
        let _ = remove(&directory.ticket(ASKED, self.id));
    }
}

/// A program listens whether it is asked for its slot, until this is dropped.
#[derive(Debug)]
pub struct Watcher {
    over: rustix::fd::OwnedFd,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It fails only when it is readable already.
        let _ = rustix::io::write(&self.over, &1u64.to_ne_bytes());
    }
}
