//! Locks between processes: on the store as a whole, and on the images that are in use.
//!
//! ```text
//! lock         shared     publishing, loading: from before the first look for what exists until all of it is published
//!                         or protected by a lock of its own
//!              exclusive  deleting
//! images/<id>  shared     as long as the image is open
//! ```
//!
//! They are advisory locks of open files (`flock`): the system drops them when a process ends, however it ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::files::ResultExt;
use super::{LOCK, Store};
use crate::error::StoreError;

/// A lock on a store as a whole. Dropping it unlocks the store.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

impl Store {
    /// Keeps everything in the store from being deleted, together with any number of others that do the same. Waits
    /// while somebody holds the lock exclusively.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn lock_shared(&self) -> Result<StoreLock, StoreError> {
        self.lock_with(File::lock_shared)
    }

    /// Keeps everybody else from publishing, loading and deleting. Waits until nobody holds the lock. A thread that
    /// holds it must not publish or load: it would wait for itself.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn lock_exclusive(&self) -> Result<StoreLock, StoreError> {
        self.lock_with(File::lock)
    }

    fn lock_with(&self, lock: impl Fn(&File) -> io::Result<()>) -> Result<StoreLock, StoreError> {
        let path = self.root.join(LOCK);
        let file = self.root.open_lock(&path)?;
        wait(&file, lock).during("lock", &path)?;
        Ok(StoreLock { _file: file })
    }
}

fn wait(file: &File, lock: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock(file) {
            // The handler of a signal ran meanwhile.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            result => return result,
        }
    }
}

/// Locks an open file against deletion, unless it has been deleted or replaced since it was opened: then nobody who
/// looks for it finds the lock, and the answer is false.
pub(super) fn protect(file: &File, path: &Path) -> Result<bool, StoreError> {
    wait(file, File::lock_shared).during("lock", path)?;
    let locked = file.metadata().during("read the size of", path)?;
    match path.metadata() {
        Ok(named) => Ok((named.dev(), named.ino()) == (locked.dev(), locked.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).during("read the size of", path),
    }
}
