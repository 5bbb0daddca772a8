//! The code cache: a directory of compiled code, named by everything that it depends on.
//!
//! Compiled code is trusted like the program that loads it, so the directory must belong to this user alone, and
//! nothing is ever put there but what this machine compiled. Files appear whole, by renaming, and are never changed.

#![expect(unsafe_code, reason = "loading compiled code is unsafe")]

use crate::engine::Engine;
use crate::error::{Error, Result};
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A directory of compiled code.
pub(crate) struct Cache {
    directory: PathBuf,
}

/// The name of a piece of compiled code: a hash of all that it depends on.
#[derive(Clone, Copy)]
pub(crate) struct Key(blake3::Hash);

impl Key {
    /// The key of what `engine` makes of the source with this hash, of the kind named.
    pub fn new(engine: &Engine, kind: &str, source: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [
            env!("CARGO_PKG_VERSION"),
            wsnap_instrument::FINGERPRINT,
            kind,
        ] {
            hasher
                .update(&(part.len() as u64).to_le_bytes())
                .update(part.as_bytes());
        }
        engine
            .wasmtime()
            .precompile_compatibility_hash()
            .hash(&mut Feed(&mut hasher));
        hasher.update(source);
        Self(hasher.finalize())
    }
}

/// Feeds what is hashed the standard way into a cryptographic hash.
struct Feed<'h>(&'h mut blake3::Hasher);

impl Hasher for Feed<'_> {
    fn finish(&self) -> u64 {
        0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl Cache {
    /// Opens the cache in `directory`, which is created when it is missing.
    pub fn open(directory: &Path) -> Result<Self> {
        let fail = |operation| {
            let path = directory.to_owned();
            move |source| Error::Cache {
                operation,
                path,
                source,
            }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(fail("create"))?;
        let metadata = fs::metadata(directory).map_err(fail("look at"))?;
        let own = metadata.uid() == rustix::process::geteuid().as_raw();
        if !own || metadata.mode() & 0o022 != 0 {
            let reason = "it must belong to you and not be writable by others, as compiled code is run as it is";
            return Err(fail("trust")(io::Error::new(
                io::ErrorKind::PermissionDenied,
                reason,
            )));
        }
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    fn path(&self, key: Key, extension: &str) -> PathBuf {
        self.directory
            .join(format!("{}.{extension}", key.0.to_hex()))
    }

    /// The compiled code for `key`, if there is any that the engine accepts.
    pub fn module(&self, engine: &Engine, key: Key) -> Option<wasmtime::Module> {
        self.has_code(key).then_some(())?;
        let path = self.path(key, "code");
        // SAFETY: the file was written by `put` on this machine, whole, and is not changed: the directory belongs to
        // this user alone.
        unsafe { wasmtime::Module::deserialize_file(engine.wasmtime(), &path) }.ok()
    }

    /// Whether there is code for `key`. Whether the engine accepts it is not looked at.
    pub fn has_code(&self, key: Key) -> bool {
        self.path(key, "code").exists()
    }

    /// What was kept beside the code for `key`, if it is intact.
    pub fn notes(&self, key: Key) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.path(key, "notes")).ok()?;
        let content = bytes.len().checked_sub(blake3::OUT_LEN)?;
        let checksum = bytes.split_off(content);
        (blake3::hash(&bytes).as_bytes()[..] == checksum).then_some(bytes)
    }

    /// Keeps notes beside the code for `key`.
    pub fn put_notes(&self, key: Key, notes: &[u8]) -> Result<()> {
        let bytes = [notes, blake3::hash(notes).as_bytes()].concat();
        self.write(&self.path(key, "notes"), &bytes)
    }

    /// Keeps compiled code, and notes beside it if there are any.
    pub fn put(&self, key: Key, module: &wasmtime::Module, notes: Option<&[u8]>) -> Result<()> {
        if let Some(notes) = notes {
            self.put_notes(key, notes)?;
        }
        let code = module.serialize().map_err(Error::Internal)?;
        self.write(&self.path(key, "code"), &code)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let fail = |source| Error::Cache {
            operation: "write to",
            path: path.to_owned(),
            source,
        };
        let mut file = tempfile::NamedTempFile::new_in(&self.directory).map_err(fail)?;
        file.write_all(bytes).map_err(fail)?;
        // After a power loss the name must not stand before the content.
        file.as_file().sync_data().map_err(fail)?;
        file.persist(path).map_err(|error| fail(error.error))?;
        Ok(())
    }
}
