//! Room on the store's disk for what has not been checked yet.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::faults::OperationKind;
use super::files::{ResultExt, Root};
use super::{Store, TEMPORARY};
use crate::error::StoreError;

/// A file without a name, in the store's folder of temporary files: whatever ends the process, nothing of it is left.
#[derive(Debug)]
pub(crate) struct UnnamedFile {
    root: Root,
    folder: PathBuf,
    file: File,
}

impl Store {
    pub(crate) fn unnamed_file(&self) -> Result<UnnamedFile, StoreError> {
        let folder = self.root.join(TEMPORARY);
        let file = self
            .root
            .before(OperationKind::Create, &folder)
            .and_then(|()| tempfile::tempfile_in(&folder))
            .during("create a file in", &folder)?;
        Ok(UnnamedFile {
            root: self.root.clone(),
            folder,
            file,
        })
    }
}

impl UnnamedFile {
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        self.root
            .before(OperationKind::Write, &self.folder)
            .and_then(|()| self.file.write_all_at(bytes, offset))
            .during("write a file in", &self.folder)
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Says of a failed [`UnnamedFile::read_at`] what failed.
    pub fn while_reading<T>(&self, read: io::Result<T>) -> Result<T, StoreError> {
        read.during("read a file in", &self.folder)
    }
}
