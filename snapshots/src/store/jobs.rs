//! Programs that somebody keeps running under a name: who does so now, and what they remember of it.
//!
//! What a journal says is the business of whoever writes it; here it is one line of text with a checksum, replaced as a
//! whole and durably. The lock is advisory (`flock`) and ends with its process, however that ends.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::files::{self, ResultExt, Staged};
use super::refs::check_name;
use super::{JOBS, Store, check_size};
use crate::error::{Damage, StoreError};
use crate::record::{checked, with_checksum};

const JOURNAL_EXTENSION: &str = ".journal";
const LOCK_EXTENSION: &str = ".lock";
/// A journal's file has at most so many bytes: 1 MiB.
const JOURNAL_LEN_MAX: u64 = 1 << 20;
/// So much of what a holder says of itself is read, in bytes.
const HOLDER_LEN_MAX: u64 = 256;

/// A holder that has not said who it is is asked again so often, after so much time each.
const HOLDER_LOOKS: u32 = 100;
const HOLDER_PAUSE: Duration = Duration::from_millis(2);

/// That this process runs the program of a name, and no other one does. Dropping it gives the name back.
#[derive(Debug)]
pub struct JobLock {
    _file: File,
}

impl Store {
    /// Reserves the name of a program for this process. `holder` is what others are told of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::JobTaken`] when somebody else has it; [`StoreError::InvalidName`]; [`StoreError::Io`].
    pub fn lock_job(&self, name: &str, holder: &str) -> Result<JobLock, StoreError> {
        check_name(name)?;
        let path = self.job_path(name, LOCK_EXTENSION);
        self.root.create_directories(&self.root.join(JOBS))?;
        let mut file = self.root.open_lock_to_write(&path)?;
        match file.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::JobTaken {
                    name: name.to_owned(),
                    holder: read_holder(&file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(error).during("lock", &path),
        }
        // What is said of the holder is a help and nothing depends on it, so it is not synced.
        let said = file
            .set_len(0)
            .and_then(|()| file.write_all(holder.as_bytes()));
        said.during("write", &path)?;
        Ok(JobLock { _file: file })
    }

    /// What was last written down about the program of this name.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`]; [`StoreError::InvalidName`]; [`StoreError::Io`].
    pub fn job_journal(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        let path = self.job_path(name, JOURNAL_EXTENSION);
        let Some(bytes) = files::read_if_exists(&path, JOURNAL_LEN_MAX, "journal")? else {
            return Ok(None);
        };
        match checked(&bytes) {
            Ok(line) => Ok(Some(line.to_vec())),
            Err(_) => Err(self.damaged_journal(name, Damage::JournalChecksum)),
        }
    }

    /// Replaces what is written down about the program of this name by another text. It is durable on return.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`]; [`StoreError::InvalidName`]; [`StoreError::Io`].
    pub fn set_job_journal(&self, name: &str, text: Vec<u8>) -> Result<(), StoreError> {
        check_name(name)?;
        let bytes = with_checksum(text);
        check_size("journal", &bytes, JOURNAL_LEN_MAX)?;
        // Whoever collects garbage meanwhile takes the file being written for some.
        let _lock = self.lock_shared()?;
        self.root.create_directories(&self.root.join(JOBS))?;
        Staged::text(&self.root, self.job_path(name, JOURNAL_EXTENSION))?.write_and_publish(&bytes)
    }

    /// Forgets what is written down about the program of this name, if anything is. It is durable on return.
    ///
    /// # Errors
    ///
    /// [`StoreError::InvalidName`]; [`StoreError::Io`].
    pub fn remove_job_journal(&self, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        let path = self.job_path(name, JOURNAL_EXTENSION);
        match files::size_if_exists(&path)? {
            None => Ok(()),
            Some(_) => {
                self.root.remove_if_exists(&path)?;
                self.root.sync_parent(&path)
            }
        }
    }

    /// The error that the journal of this name is damaged in a way that only whoever writes journals can tell.
    pub fn damaged_journal(&self, name: &str, source: Damage) -> StoreError {
        StoreError::Damaged {
            what: "journal",
            path: self.job_path(name, JOURNAL_EXTENSION),
            source,
        }
    }

    /// The names that have journals, in order.
    pub(super) fn journal_names(&self) -> Result<Vec<String>, StoreError> {
        let folder = self.root.join(JOBS);
        if files::size_if_exists(&folder)?.is_none() {
            return Ok(Vec::new());
        }
        let files = files::list(&folder)?;
        let names = files
            .iter()
            .filter_map(|(name, _)| name.strip_suffix(JOURNAL_EXTENSION));
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.retain(|name| check_name(name).is_ok());
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn journal_path(&self, name: &str) -> PathBuf {
        self.job_path(name, JOURNAL_EXTENSION)
    }

    fn job_path(&self, name: &str, extension: &str) -> PathBuf {
        self.root.join(JOBS).join(format!("{name}{extension}"))
    }
}

/// What the process that has the lock says of itself. It may just be about to say it.
fn read_holder(file: &File) -> String {
    let mut bytes = [0; HOLDER_LEN_MAX as usize];
    for _ in 0..HOLDER_LOOKS {
        thread::sleep(HOLDER_PAUSE);
        let len = file.read_at(&mut bytes, 0).unwrap_or_default();
        if len > 0 {
            return String::from_utf8_lossy(&bytes[..len]).into_owned();
        }
    }
    "another process".to_owned()
}
