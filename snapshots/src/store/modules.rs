//! The modules of a store.

use std::fs::{File, Metadata};
use std::io::Seek;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::{self, ResultExt, Staged};
use super::{CONTENT_LEN_MAX, MODULES, STAMPS, Store, check_size};
use crate::error::{Damage, StoreError};
use crate::id::ModuleHash;

/// A module in a store, which nobody but this user can change.
#[derive(Debug)]
pub struct StoredModule {
    hash: ModuleHash,
    file: File,
    path: PathBuf,
    len: u64,
}

impl StoredModule {
    /// The hash that names it.
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

    /// Checks its content, which the caller has read or mapped.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`].
    pub fn check(&self, content: &[u8]) -> Result<(), StoreError> {
        check_hash(self.hash, ModuleHash::of(content), &self.path)
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
        self.put_hashed(hash, bytes, || Ok(()))?;
        Ok(hash)
    }

    /// As [`Store::put_module`], for bytes whose hash the caller knows: they are looked at only if the store does not have the
    /// module.
    ///
    /// # Errors
    ///
    /// As [`Store::put_module`]; [`StoreError::Damaged`] when they have another hash.
    pub fn put_module_as(&self, hash: ModuleHash, bytes: &[u8]) -> Result<(), StoreError> {
        check_size("module", bytes, CONTENT_LEN_MAX)?;
        let check = || check_hash(hash, ModuleHash::of(bytes), &self.module_path(hash));
        self.put_hashed(hash, bytes, check)
    }

    /// Stores a module unless it is there, after a `check` of what would be written.
    fn put_hashed(
        &self,
        hash: ModuleHash,
        bytes: &[u8],
        check: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let path = self.module_path(hash);
        let _lock = self.lock_shared()?;
        if files::size_if_exists(&path)? == Some(bytes.len() as u64) {
            // Another process may have renamed it a moment ago and not have synced the directory yet.
            self.root.sync_parent(&path)
        } else {
            check()?;
            Staged::content(&self.root, path)?.write_and_publish(bytes)
        }
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

    /// Opens a module that has been verified, now or while its file was the one that it still is. None if somebody else could
    /// change it, or say that it was verified: then only a copy can be trusted, see [`Store::module`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] or [`StoreError::Damaged`].
    pub fn open_module(&self, hash: ModuleHash) -> Result<Option<StoredModule>, StoreError> {
        let path = self.module_path(hash);
        let file = files::open_if_exists(&path)?.ok_or_else(|| StoreError::Missing {
            what: "module",
            path: path.clone(),
        })?;
        let metadata = file.metadata().during("read the time of", &path)?;
        let len = metadata.size();
        files::check_len(len, &path, CONTENT_LEN_MAX, "module")?;
        if !is_own(&metadata) || !self.is_own()? {
            return Ok(None);
        }
        let verify = || {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(&file).during("read", &path)?;
            (&file).rewind().during("go to the start of", &path)?;
            check_hash(hash, ModuleHash(*hasher.finalize().as_bytes()), &path)
        };
        self.verify_unverified_module(hash, &file, &path, verify)?;
        Ok(Some(StoredModule {
            hash,
            file,
            path,
            len,
        }))
    }

    /// Whether nobody but this user can change what the store says of modules.
    fn is_own(&self) -> Result<bool, StoreError> {
        for path in [
            self.root.to_path_buf(),
            self.root.join(MODULES),
            self.root.join(STAMPS),
        ] {
            let metadata = files::metadata_if_exists(&path, "look at")?;
            if metadata.is_some_and(|metadata| !is_own(&metadata)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn module_path(&self, hash: ModuleHash) -> PathBuf {
        self.root.join(MODULES).join(format!("{hash}.wasm"))
    }
}

/// Whether a file belongs to this user, or to whoever rules the machine, and nobody else can write to it.
fn is_own(metadata: &Metadata) -> bool {
    let user = rustix::process::geteuid().as_raw();
    [user, 0].contains(&metadata.uid()) && metadata.mode() & 0o022 == 0
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
