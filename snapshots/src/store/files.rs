//! All that the store asks of the file system.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tempfile::NamedTempFile;

use super::TEMPORARY;
use super::faults::{Faults, Operation, OperationKind};
use crate::error::{Damage, StoreError};

/// The memory of a program can hold secrets, so nobody but the owner reads a store unless the owner allows it.
const DIRECTORY_MODE: u32 = 0o700;
/// Content is not writable at all: it must never change once it is published.
const CONTENT_MODE: u32 = 0o400;
const TEXT_MODE: u32 = 0o600;
/// The unit in bytes in which the system counts the blocks of a file, whatever the file system's own blocks are.
const BLOCK_SIZE: u64 = 512;

pub(super) trait ResultExt<T> {
    /// Says what was tried, on which path.
    fn during(self, operation: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> ResultExt<T> for io::Result<T> {
    fn during(self, operation: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io {
            operation,
            path: path.to_owned(),
            source,
        })
    }
}

/// Reads a file that ought to be there and have `limit` bytes at most.
pub(super) fn read(path: &Path, limit: u64, what: &'static str) -> Result<Vec<u8>, StoreError> {
    read_if_exists(path, limit, what)?.ok_or_else(|| StoreError::Missing {
        what,
        path: path.to_owned(),
    })
}

pub(super) fn read_if_exists(
    path: &Path,
    limit: u64,
    what: &'static str,
) -> Result<Option<Vec<u8>>, StoreError> {
    match open_if_exists(path)? {
        Some(file) => read_all(&file, path, limit, what).map(Some),
        None => Ok(None),
    }
}

pub(super) fn open_if_exists(path: &Path) -> Result<Option<File>, StoreError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).during("open", path),
    }
}

/// Reads an open file that ought to have `limit` bytes at most.
pub(super) fn read_all(
    file: &File,
    path: &Path,
    limit: u64,
    what: &'static str,
) -> Result<Vec<u8>, StoreError> {
    let found = file.metadata().during("read the size of", path)?.len();
    check_len(found, path, limit, what)?;
    let mut bytes = Vec::new();
    file.take(limit)
        .read_to_end(&mut bytes)
        .during("read", path)?;
    Ok(bytes)
}

/// Refuses a file that has more than `limit` bytes, before it is read.
pub(super) fn check_len(
    found: u64,
    path: &Path,
    limit: u64,
    what: &'static str,
) -> Result<(), StoreError> {
    if found <= limit {
        return Ok(());
    }
    let source = Damage::TooLarge { limit, found };
    Err(StoreError::Damaged {
        what,
        path: path.to_owned(),
        source,
    })
}

/// What the system tells of a file; `operation` says what for.
pub(super) fn metadata_if_exists(
    path: &Path,
    operation: &'static str,
) -> Result<Option<Metadata>, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).during(operation, path),
    }
}

pub(super) fn size_if_exists(path: &Path) -> Result<Option<u64>, StoreError> {
    let metadata = metadata_if_exists(path, "read the size of")?;
    Ok(metadata.map(|metadata| metadata.len()))
}

/// When a file was written.
pub(super) fn modified_if_exists(path: &Path) -> Result<Option<SystemTime>, StoreError> {
    const OPERATION: &str = "read the time of";
    let metadata = metadata_if_exists(path, OPERATION)?;
    let time = metadata.map(|metadata| metadata.modified()).transpose();
    time.during(OPERATION, path)
}

/// The space in bytes that a file takes on disk; none when it is missing, or a directory.
pub(super) fn disk_bytes_if_exists(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(None),
        Ok(metadata) => Ok(Some(metadata.blocks() * BLOCK_SIZE)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).during("read the size of", path),
    }
}

/// The names (those that are UTF-8; the store makes no others) and paths of a directory's entries.
pub(super) fn list(directory: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).during("list", directory)? {
        let entry = entry.during("list", directory)?;
        entries.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    Ok(entries)
}

/// The directory of a store: its path, and every way to change something below it.
#[derive(Clone, Debug)]
pub(super) struct Root {
    path: PathBuf,
    faults: Option<Arc<dyn Faults>>,
}

impl Deref for Root {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Root {
    pub fn new(path: PathBuf, faults: Option<Arc<dyn Faults>>) -> Self {
        Self { path, faults }
    }

    /// Asks the seam whether an operation may happen.
    pub fn before(&self, kind: OperationKind, path: &Path) -> io::Result<()> {
        match &self.faults {
            Some(faults) => faults.before(Operation { kind, path }),
            None => Ok(()),
        }
    }

    /// Creates a directory with its parents and tells whether it was missing.
    pub fn create_directories(&self, path: &Path) -> Result<bool, StoreError> {
        if path.is_dir() {
            return Ok(false);
        }
        // Parents one by one, so that the entry of each is synced.
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            self.create_directories(parent)?;
        }
        self.before(OperationKind::Create, path)
            .and_then(|()| {
                DirBuilder::new()
                    .recursive(true)
                    .mode(DIRECTORY_MODE)
                    .create(path)
            })
            .during("create", path)?;
        self.sync_parent(path)?;
        Ok(true)
    }

    /// Opens a file that holds nothing, which is created when it is missing. It is there to be locked, so nothing of
    /// this is synced.
    pub fn open_lock(&self, path: &Path) -> Result<File, StoreError> {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self
                .before(OperationKind::Create, path)
                .and_then(|()| {
                    OpenOptions::new()
                        .read(true)
                        .append(true)
                        .create(true)
                        .mode(TEXT_MODE)
                        .open(path)
                })
                .during("create", path),
            opened => opened.during("open", path),
        }
    }

    /// As [`Root::open_lock`], for whoever writes into the file who they are.
    pub fn open_lock_to_write(&self, path: &Path) -> Result<File, StoreError> {
        self.before(OperationKind::Create, path)
            .and_then(|()| {
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(TEXT_MODE)
                    .open(path)
            })
            .during("open", path)
    }

    /// Removes a file and tells whether it was there. The directory is not synced.
    pub fn remove_if_exists(&self, path: &Path) -> Result<bool, StoreError> {
        match self
            .before(OperationKind::Remove, path)
            .and_then(|()| fs::remove_file(path))
        {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).during("remove", path),
        }
    }

    /// Appends records of one size to a file, which is created when it is missing, behind a whole number of records: what
    /// an interrupted call has left behind is filled up with zeros. Nothing is synced.
    pub fn append<const SIZE: usize>(
        &self,
        path: &Path,
        records: &[[u8; SIZE]],
    ) -> Result<(), StoreError> {
        self.before(OperationKind::Append, path)
            .and_then(|()| {
                let mut file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(TEXT_MODE)
                    .open(path)?;
                // Whoever closes the file unlocks it.
                file.lock()?;
                let len = file.metadata()?.len();
                let padding = len.next_multiple_of(SIZE as u64) - len;
                let mut bytes = vec![0; padding as usize];
                bytes.extend(records.as_flattened());
                file.write_all(&bytes)
            })
            .during("append to", path)
    }

    /// Makes the entries of a directory durable.
    pub fn sync_directory(&self, path: &Path) -> Result<(), StoreError> {
        self.before(OperationKind::SyncDirectory, path)
            .and_then(|()| File::open(path)?.sync_all())
            .during("sync", path)
    }

    /// Makes the entry for `path` in its directory durable.
    pub fn sync_parent(&self, path: &Path) -> Result<(), StoreError> {
        match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => self.sync_directory(Path::new(".")),
            Some(parent) => self.sync_directory(parent),
            None => Ok(()),
        }
    }
}

/// A file on its way into the store: it has a temporary name of its own, which vanishes with it, until it is
/// published under its final one.
#[derive(Debug)]
pub(super) struct Staged {
    root: Root,
    /// Invariant: it is there until the file is published or dropped.
    file: Option<NamedTempFile>,
    target: PathBuf,
}

impl Staged {
    /// A file whose content the name `target` stands for.
    pub fn content(root: &Root, target: PathBuf) -> Result<Self, StoreError> {
        Self::create(root, target, CONTENT_MODE)
    }

    /// A file for content whose name is known only when all of it has been written.
    pub fn unnamed_content(root: &Root) -> Result<Self, StoreError> {
        let mut staged = Self::create(root, root.join(TEMPORARY), CONTENT_MODE)?;
        if let Some(file) = &staged.file {
            staged.target = file.path().to_owned();
        }
        Ok(staged)
    }

    /// Decides where the file is to go.
    pub fn set_target(&mut self, target: PathBuf) {
        self.target = target;
    }

    /// A file that can be replaced by another version of it.
    pub fn text(root: &Root, target: PathBuf) -> Result<Self, StoreError> {
        Self::create(root, target, TEXT_MODE)
    }

    fn create(root: &Root, target: PathBuf, mode: u32) -> Result<Self, StoreError> {
        let folder = root.join(TEMPORARY);
        let file = root
            .before(OperationKind::Create, &target)
            .and_then(|()| {
                tempfile::Builder::new()
                    .permissions(Permissions::from_mode(mode))
                    .tempfile_in(&folder)
            })
            .during("create a file in", &folder)?;
        Ok(Self {
            root: root.clone(),
            file: Some(file),
            target,
        })
    }

    /// The open file, for reading what has been written.
    pub fn file(&self) -> &File {
        self.file
            .as_ref()
            .expect("it is there until the file is published or dropped")
            .as_file()
    }

    /// The path that the file is to get.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Writes bytes at an offset. Any number of threads can do so at once.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        self.root
            .before(OperationKind::Write, &self.target)
            .and_then(|()| self.file().write_all_at(bytes, offset))
            .during("write", &self.target)
    }

    /// Makes what has been written so far durable, while other threads go on writing.
    pub fn sync_data(&self) -> Result<(), StoreError> {
        self.root
            .before(OperationKind::Sync, &self.target)
            .and_then(|()| self.file().sync_data())
            .during("sync", &self.target)
    }

    pub fn write_and_publish(self, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_at(bytes, 0)?;
        self.publish()
    }

    /// Gives the file its final name, in place of any file there. It is durable on return.
    pub fn publish(self) -> Result<(), StoreError> {
        let (root, target) = (self.root.clone(), self.target.clone());
        self.rename()?;
        root.sync_parent(&target)
    }

    /// Gives the file its final name, in place of any file there. Its content is durable on return, but not the name:
    /// that takes a sync of the directory.
    pub fn rename(mut self) -> Result<(), StoreError> {
        self.root
            .before(OperationKind::Sync, &self.target)
            .and_then(|()| self.file().sync_all())
            .during("sync", &self.target)?;
        self.root
            .before(OperationKind::Rename, &self.target)
            .and_then(|()| match self.file.take() {
                Some(file) => file
                    .persist(&self.target)
                    .map(drop)
                    .map_err(|refused| refused.error),
                None => Ok(()),
            })
            .during("rename a file to", &self.target)
    }
}

impl Drop for Staged {
    /// Removes the file. One that cannot be removed stays in the folder of temporary files, where it is garbage.
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        match self.root.before(OperationKind::Remove, file.path()) {
            Ok(()) => drop(file.close()),
            Err(_) => drop(file.keep()),
        }
    }
}
