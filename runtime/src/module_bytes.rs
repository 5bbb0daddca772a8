//! The bytes of a module, and the hash that names it.

#![expect(unsafe_code, reason = "maps files of modules")]

use crate::error::{Error, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::borrow::Cow;
use std::ffi::c_void;
use std::ops::Deref;
use std::ptr::NonNull;
use wsnap_snapshots::{ModuleHash, StoredModule};

/// A module, in binary or text format.
pub struct ModuleBytes {
    content: Content,
    /// Of the content, if somebody has computed it.
    hash: Option<ModuleHash>,
}

enum Content {
    Own(Vec<u8>),
    /// What a store has is mapped, not read: of a module whose code is in the cache hardly anything is looked at.
    Mapped(MappedFile),
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
    /// The module that a store has.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] when the system has no room.
    pub fn of_store(module: &StoredModule) -> Result<Self> {
        Ok(Self {
            content: Content::Mapped(MappedFile::new(module)?),
            hash: Some(module.hash()),
        })
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
            Content::Mapped(file) => file.bytes(),
        }
    }
}

/// A whole file, mapped.
struct MappedFile {
    base: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping is only read, belongs to this value alone, and is unmapped only when that is dropped.
unsafe impl Send for MappedFile {}
// SAFETY: as above.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    fn new(module: &StoredModule) -> Result<Self> {
        let bytes = module.byte_len();
        let failed = |errno: rustix::io::Errno| Error::Mapping {
            operation: "map",
            bytes,
            source: errno.into(),
        };
        let len = usize::try_from(bytes).map_err(|_| failed(rustix::io::Errno::NOMEM))?;
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
        let base = NonNull::new(base.map_err(failed)?);
        let base = base.ok_or_else(|| failed(rustix::io::Errno::NOMEM))?;
        Ok(Self { base, len })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped readable for as long as this value lives. Nobody writes to them: the mapping is
        // private and read-only, and the files of a store are never changed, like those of layers, which guests have as memory.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.len) }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and everything that referred to it borrowed from this value.
        let result = unsafe { munmap(self.base.as_ptr(), self.len) };
        debug_assert!(result.is_ok(), "a mapping can be unmapped whole");
    }
}
