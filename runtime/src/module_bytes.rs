//! The bytes of a module, and the hash that names it.

#![expect(unsafe_code, reason = "maps files of modules")]

use crate::error::{Error, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::borrow::Cow;
use std::ffi::c_void;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::OnceLock;
use wsnap_snapshots::{ModuleHash, Store, StoredModule};

/// A module, in binary or text format.
pub struct ModuleBytes {
    content: Content,
    /// What it should be, if somebody has said so.
    hash: Option<ModuleHash>,
}

enum Content {
    Own(Vec<u8>),
    /// What a store has is mapped, not read: of a module whose code is in the cache hardly anything is looked at.
    Mapped(MappedModule),
}

impl From<Vec<u8>> for ModuleBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            content: Content::Own(bytes),
            hash: None,
        }
    }
}

impl ModuleBytes {
    /// The module that a store has under this hash.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when it is not there or damaged.
    pub fn of_store(store: &Store, hash: ModuleHash) -> Result<Self> {
        let mapped = store.open_module(hash)?.and_then(MappedModule::new);
        let content = match mapped {
            Some(mapped) => Content::Mapped(mapped),
            None => Content::Own(store.module(hash)?),
        };
        let hash = Some(hash);
        Ok(Self { content, hash })
    }

    /// Checks that the bytes have the hash by which the module goes, unless that was done: before anything that is made of them is
    /// kept under that name. Own bytes were hashed when they came.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the store's module is damaged.
    pub(crate) fn verify(&self) -> Result<()> {
        match &self.content {
            Content::Own(_) => Ok(()),
            Content::Mapped(module) => module.verify(),
        }
    }

    /// The module in binary format, and the hash of that.
    pub(crate) fn into_binary(self) -> Result<(Self, ModuleHash)> {
        let binary = if self.starts_with(b"\0asm") {
            self
        } else {
            match wat::parse_bytes(&self) {
                Ok(Cow::Borrowed(_)) => self,
                Ok(Cow::Owned(binary)) => binary.into(),
                Err(error) => return Err(Error::Text(error.to_string())),
            }
        };
        let hash = binary.hash.unwrap_or_else(|| ModuleHash::of(&binary));
        Ok((binary, hash))
    }
}

impl Deref for ModuleBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.content {
            Content::Own(bytes) => bytes,
            Content::Mapped(module) => module.bytes(),
        }
    }
}

/// A whole module of a store, mapped.
struct MappedModule {
    base: NonNull<c_void>,
    len: usize,
    module: StoredModule,
    /// Set once this process has hashed the bytes.
    verified: OnceLock<()>,
}

// SAFETY: the mapping is only read, belongs to this value alone, and is unmapped only when that is dropped.
unsafe impl Send for MappedModule {}
// SAFETY: as above.
unsafe impl Sync for MappedModule {}

impl MappedModule {
    /// None if the system cannot map it.
    fn new(module: StoredModule) -> Option<Self> {
        let len = usize::try_from(module.byte_len()).ok()?;
        // SAFETY: a mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::PRIVATE,
                module.file(),
                0,
            )
        };
        let base = NonNull::new(base.ok()?)?;
        Some(Self {
            base,
            len,
            module,
            verified: OnceLock::new(),
        })
    }

    fn verify(&self) -> Result<()> {
        if self.verified.get().is_none() {
            self.module.check(self.bytes())?;
            self.verified.get_or_init(|| ());
        }
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped readable for as long as this value lives. Nobody writes to them: the mapping is
        // private and read-only, nobody but this user can write to the file (see `Store::open_module`), and no store changes its files.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.len) }
    }
}

impl Drop for MappedModule {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and everything that referred to it borrowed from this value.
        let result = unsafe { munmap(self.base.as_ptr(), self.len) };
        debug_assert!(result.is_ok(), "a mapping can be unmapped whole");
    }
}
