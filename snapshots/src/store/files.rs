//! All that the store asks of the file system.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::TEMPORARY;
use crate::error::{Damage, StoreError};

/// The memory of a program can hold secrets, so nobody but the owner reads a store unless the owner allows it.
const DIRECTORY_MODE: u32 = 0o700;
/// Content is not writable at all: it must never change once it is published.
const CONTENT_MODE: u32 = 0o400;
const TEXT_MODE: u32 = 0o600;
/// Linux takes at most so many slices in one write.
const SLICES_MAX: usize = 1024;

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
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).during("open", path),
    };
    let found = file.metadata().during("read the size of", path)?.len();
    if found > limit {
        let source = Damage::TooLarge { limit, found };
        return Err(StoreError::Damaged {
            what,
            path: path.to_owned(),
            source,
        });
    }
    let mut bytes = Vec::new();
    file.take(limit)
        .read_to_end(&mut bytes)
        .during("read", path)?;
    Ok(Some(bytes))
}

pub(super) fn size_if_exists(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
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

/// Creates a directory with its parents and tells whether it was missing.
pub(super) fn create_directories(path: &Path) -> Result<bool, StoreError> {
    if path.is_dir() {
        return Ok(false);
    }
    // Parents one by one, so that the entry of each is synced.
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        create_directories(parent)?;
    }
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
        .during("create", path)?;
    sync_parent(path)?;
    Ok(true)
}

/// Makes the entries of a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .during("sync", path)
}

/// Makes the entry for `path` in its directory durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_directory(Path::new(".")),
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// A file on its way into the store: it has a temporary name of its own, which vanishes with it, until it is
/// published under its final one.
pub(super) struct Staged {
    file: NamedTempFile,
    target: PathBuf,
}

impl Staged {
    /// A file whose content the name `target` stands for.
    pub fn content(root: &Path, target: PathBuf) -> Result<Self, StoreError> {
        Self::create(root, target, CONTENT_MODE)
    }

    /// A file that can be replaced by another version of it.
    pub fn text(root: &Path, target: PathBuf) -> Result<Self, StoreError> {
        Self::create(root, target, TEXT_MODE)
    }

    fn create(root: &Path, target: PathBuf, mode: u32) -> Result<Self, StoreError> {
        let folder = root.join(TEMPORARY);
        let file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(&folder)
            .during("create a file in", &folder)?;
        Ok(Self { file, target })
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .as_file_mut()
            .write_all(bytes)
            .during("write", &self.target)
    }

    /// Appends many pieces of bytes with few system calls.
    pub fn write_pieces(&mut self, pieces: &[&[u8]]) -> Result<(), StoreError> {
        for batch in pieces.chunks(SLICES_MAX) {
            let mut slices: Vec<IoSlice<'_>> =
                batch.iter().map(|piece| IoSlice::new(piece)).collect();
            write_all_vectored(self.file.as_file_mut(), &mut slices)
                .during("write", &self.target)?;
        }
        Ok(())
    }

    pub fn write_and_publish(mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(bytes)?;
        self.publish()
    }

    /// Gives the file its final name, in place of any file there. It is durable on return.
    pub fn publish(self) -> Result<(), StoreError> {
        let Self { file, target } = self;
        file.as_file().sync_all().during("sync", &target)?;
        file.persist(&target)
            .map_err(|refused| refused.error)
            .during("rename a file to", &target)?;
        sync_parent(&target)
    }
}

fn write_all_vectored(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Drops empty slices in front, so that a write of 0 bytes means that nothing more can be written.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
