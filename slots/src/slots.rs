//! A directory of slots, and who has them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{ResultExt, SlotsError};
use crate::files::{ASKED, COUNT, Directory, RUNNING, WAITING};
use crate::id::TicketId;

/// So many slots can be shared: more than any machine has use for.
pub const SLOTS_MAX: u32 = 1 << 16;

/// Slots that programs share.
#[derive(Clone, Debug)]
pub struct Slots {
    pub(crate) directory: Directory,
}

/// A program that has a slot or waits for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its ticket.
    pub id: TicketId,
    /// What it does.
    pub state: State,
}

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has a slot.
    Running,
    /// It has a slot and has been asked to give it back.
    Asked,
    /// It waits for one.
    Waiting,
}

impl Slots {
    /// Makes a directory of so many slots, or changes how many there are. With fewer than there are programs running, those
    /// run on, and nobody gets a slot before enough have ended.
    ///
    /// # Errors
    ///
    /// [`SlotsError::Io`].
    pub fn create(path: impl Into<PathBuf>, count: u32) -> Result<Self, SlotsError> {
        let path = path.into();
        for folder in [WAITING, RUNNING, ASKED] {
            let folder = path.join(folder);
            fs::create_dir_all(&folder).during("create", &folder)?;
        }
        let target = path.join(COUNT);
        write_whole(&path, &target, format!("{count}\n").as_bytes()).during("write", &target)?;
        Ok(Self {
            directory: Directory(path),
        })
    }

    /// Opens a directory of slots.
    ///
    /// # Errors
    ///
    /// [`SlotsError::NoSlots`] when it is none.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, SlotsError> {
        let slots = Self {
            directory: Directory(path.into()),
        };
        slots.count()?;
        Ok(slots)
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.directory.0
    }

    /// How many there are.
    ///
    /// # Errors
    ///
    /// [`SlotsError::NoSlots`]; [`SlotsError::Count`]; [`SlotsError::Io`].
    pub fn count(&self) -> Result<usize, SlotsError> {
        let path = self.directory.folder(COUNT);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SlotsError::NoSlots {
                    path: self.path().to_owned(),
                });
            }
            Err(error) => return Err(error).during("read", &path),
        };
        match text.trim_end().parse::<u32>() {
            Ok(count) if count <= SLOTS_MAX => Ok(count as usize),
            _ => Err(SlotsError::Count { path, found: text }),
        }
    }

    /// Who has a slot and who waits, the most urgent first of each. What dead processes have left is removed.
    ///
    /// # Errors
    ///
    /// [`SlotsError::Io`].
    pub fn entries(&self) -> Result<Vec<Entry>, SlotsError> {
        let _lock = self.directory.lock()?;
        let running = self.directory.alive(RUNNING, usize::MAX)?;
        let running = running.into_iter().map(|id| Entry {
            id,
            state: match self.directory.is_asked(id) {
                true => State::Asked,
                false => State::Running,
            },
        });
        let waiting = self.directory.alive(WAITING, usize::MAX)?;
        let waiting = waiting.into_iter().map(|id| Entry {
            id,
            state: State::Waiting,
        });
        Ok(running.chain(waiting).collect())
    }
}

fn write_whole(folder: &Path, target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(target)?;
    Ok(())
}
