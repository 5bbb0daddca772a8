//! The modules of a store.

use std::fs::File;
use std::io::Seek;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::{self, ResultExt, Staged};
use super::{CONTENT_LEN_MAX, MODULES, Store, check_size};
use crate::error::{Damage, StoreError};
use crate::id::ModuleHash;

/// A module in a store: its content was intact when it was opened, and nobody changes the file.
#[derive(Debug)]
pub struct StoredModule {
    hash: ModuleHash,
    file: File,
    len: u64,
}

impl StoredModule {
    /// The hash of its content.
    pub fn hash(&self) -> ModuleHash {
        self.hash
    }

    /// The file, which has the content and nothing else.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// How long it is, in bytes.
    pub fn byte_len(&self) -> u64 {
        self.len
    }
}

impl Store {
    /// Stores a module. It is durable on return. As long as no image is made of it, it is garbage: whoever goes on to
    /// publish one holds [`Store::lock_shared`] from before this call.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] above 1 GiB; [`StoreError::Io`].
    pub fn put_module(&self, bytes: &[u8]) -> Result<ModuleHash, StoreError> {
        check_size("module", bytes, CONTENT_LEN_MAX)?;
        let hash = ModuleHash::of(bytes);
        let path = self.module_path(hash);
        let _lock = self.lock_shared()?;
        if files::size_if_exists(&path)? == Some(bytes.len() as u64) {
            // Another process may have renamed it a moment ago and not have synced the directory yet.
            self.root.sync_parent(&path)?;
        } else {
            Staged::content(&self.root, path)?.write_and_publish(bytes)?;
        }
        Ok(hash)
    }

    /// Whether a module is there. Its content isn't looked at.
    pub(crate) fn has_module(&self, hash: ModuleHash) -> Result<bool, StoreError> {
        Ok(files::size_if_exists(&self.module_path(hash))?.is_some())
    }

    /// Reads a module and checks it against its hash.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] or [`StoreError::Damaged`].
    pub fn module(&self, hash: ModuleHash) -> Result<Vec<u8>, StoreError> {
        let path = self.module_path(hash);
        let bytes = files::read(&path, CONTENT_LEN_MAX, "module")?;
        check_hash(hash, ModuleHash::of(&bytes), &path)?;
        Ok(bytes)
    }

    /// Opens a module after checking it against its hash, unless that was done before and its file is still the same.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] or [`StoreError::Damaged`].
    pub fn open_module(&self, hash: ModuleHash) -> Result<StoredModule, StoreError> {
        let path = self.module_path(hash);
        let file = files::open_if_exists(&path)?.ok_or_else(|| StoreError::Missing {
            what: "module",
            path: path.clone(),
        })?;
        let len = file.metadata().during("read the size of", &path)?.size();
        files::check_len(len, &path, CONTENT_LEN_MAX, "module")?;
        let verify = || {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(&file).during("read", &path)?;
            (&file).rewind().during("go to the start of", &path)?;
            check_hash(hash, ModuleHash(*hasher.finalize().as_bytes()), &path)
        };
        self.verify_unverified_module(hash, &file, &path, verify)?;
        Ok(StoredModule { hash, file, len })
    }

    pub(super) fn module_path(&self, hash: ModuleHash) -> PathBuf {
        self.root.join(MODULES).join(format!("{hash}.wasm"))
    }
}

fn check_hash(hash: ModuleHash, found: ModuleHash, path: &Path) -> Result<(), StoreError> {
    if found == hash {
        return Ok(());
    }
    Err(StoreError::Damaged {
        what: "module",
        path: path.to_owned(),
        source: Damage::Hash {
            found: found.to_string(),
        },
    })
}
