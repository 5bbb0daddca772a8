//! Taking down the state of a program.

use crate::descriptors::{Descriptor, File, Origin};
use crate::random::Random;
use crate::saved_state::{
    Evidence, Fingerprint, SavedDescriptor, SavedDirectory, SavedFile, SavedFileKind, SavedRandom,
    SavedState,
};
use crate::types::FileType;
use crate::wasi::Wasi;
use cap_std::fs::{Dir, Metadata, MetadataExt as _};
use std::io::{self, Read as _};

/// Files up to this size are recognised by the hash of their content.
pub(crate) const HASHED_BYTES_MAX: u64 = 64 * 1024;

/// Why the state of a program could not be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// What the program has open is no longer at its path: it was removed, replaced, or renamed from outside. Nobody
    /// who resumes could open it again.
    #[error(
        "the program has `{guest_path}` open as descriptor {fd}, but nothing or something else is at that path now: \
         take the snapshot when the program has closed it"
    )]
    Unlinked {
        /// The descriptor.
        fd: u32,
        /// The guest's path at which it was opened.
        guest_path: String,
    },
    /// The host could not say what is at the path.
    #[error("cannot look at `{guest_path}`, which the program has open as descriptor {fd}")]
    Io {
        /// The descriptor.
        fd: u32,
        /// The guest's path.
        guest_path: String,
        /// What the host said.
        source: io::Error,
    },
}

impl Wasi {
    /// The state as bytes: [`SavedState::encode`] of [`saved_state`](Wasi::saved_state).
    ///
    /// # Errors
    ///
    /// [`SaveError`] names the open file that cannot be saved.
    pub fn save(&self) -> Result<Vec<u8>, SaveError> {
        Ok(self.saved_state()?.encode())
    }

    /// The state of the program as it is now.
    ///
    /// # Errors
    ///
    /// [`SaveError`] names the open file that cannot be saved.
    pub fn saved_state(&self) -> Result<SavedState, SaveError> {
        let roots = self.roots.iter();
        let descriptors = self.descriptors.iter();
        let descriptors = descriptors.map(|(fd, open)| Ok((fd, self.saved_descriptor(fd, open)?)));
        Ok(SavedState {
            args: self.args.clone(),
            env: self.env.clone(),
            preopens: roots.map(|root| root.guest_path.clone()).collect(),
            monotonic_ns: self.clocks.monotonic_ns(),
            random: match self.random {
                Random::Host => None,
                Random::Seeded { seed, position } => Some(SavedRandom { seed, position }),
            },
            pending: self.pending,
            descriptors: descriptors.collect::<Result<_, _>>()?,
        })
    }

    fn saved_descriptor(
        &self,
        fd: u32,
        descriptor: &Descriptor,
    ) -> Result<SavedDescriptor, SaveError> {
        match descriptor {
            Descriptor::Stream(standard) => Ok(SavedDescriptor::Stream(*standard)),
            Descriptor::Directory(directory) if directory.preopened => {
                Ok(SavedDescriptor::Preopen(directory.origin.preopen))
            }
            Descriptor::Directory(directory) => {
                self.require_at_its_path(fd, &directory.origin, directory.handle.dir_metadata())?;
                Ok(SavedDescriptor::Directory(SavedDirectory {
                    preopen: directory.origin.preopen,
                    path: directory.origin.path.clone(),
                    access: directory.access,
                }))
            }
            Descriptor::File(file) => Ok(SavedDescriptor::File(self.saved_file(fd, file)?)),
        }
    }

    fn saved_file(&self, fd: u32, file: &File) -> Result<SavedFile, SaveError> {
        let (root, metadata) =
            self.require_at_its_path(fd, &file.origin, file.handle.metadata())?;
        let kind = if file.file_type == FileType::RegularFile {
            let path = &file.origin.path;
            let fingerprint = fingerprint(root, path, &metadata, self.is_deterministic());
            SavedFileKind::Regular(fingerprint)
        } else {
            SavedFileKind::Special(file.file_type)
        };
        Ok(SavedFile {
            preopen: file.origin.preopen,
            path: file.origin.path.clone(),
            offset: file.offset,
            flags: file.flags,
            access: file.access,
            kind,
        })
    }

    /// Makes sure that whoever opens `origin` gets what is open here.
    fn require_at_its_path(
        &self,
        fd: u32,
        origin: &Origin,
        open: io::Result<Metadata>,
    ) -> Result<(&Dir, Metadata), SaveError> {
        let guest_path = self.guest_path(origin);
        let index = usize::try_from(origin.preopen).ok();
        let root = index.and_then(|index| self.roots.get(index));
        let Some(root) = root.and_then(|root| root.dir.as_ref()) else {
            return Err(SaveError::Unlinked { fd, guest_path });
        };
        let both = open.and_then(|open| Ok((open, root.metadata(&origin.path)?)));
        match both {
            Ok((open, found)) if same_file(&open, &found) => Ok((root, open)),
            Ok(_) => Err(SaveError::Unlinked { fd, guest_path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SaveError::Unlinked { fd, guest_path })
            }
            Err(source) => Err(SaveError::Io {
                fd,
                guest_path,
                source,
            }),
        }
    }
}

fn same_file(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// What the regular file at `path`, whose metadata is given, is recognised by.
fn fingerprint(root: &Dir, path: &str, metadata: &Metadata, deterministic: bool) -> Fingerprint {
    let size_bytes = metadata.len();
    let small = size_bytes <= HASHED_BYTES_MAX;
    // A file that may be written but not read has no hash.
    let hash = small.then(|| content_hash(root, path).ok()).flatten();
    let evidence = match hash {
        Some(hash) => Evidence::Hash(hash),
        None if deterministic => Evidence::None,
        None => Evidence::ModifiedNs(modified_ns(metadata)),
    };
    Fingerprint {
        size_bytes,
        evidence,
    }
}

/// The BLAKE3 hash of a small file. One that grows meanwhile is not read on for ever.
pub(crate) fn content_hash(root: &Dir, path: &str) -> io::Result<[u8; 32]> {
    let mut content = Vec::new();
    let file = root.open(path)?;
    file.take(HASHED_BYTES_MAX + 1).read_to_end(&mut content)?;
    Ok(*blake3::hash(&content).as_bytes())
}

/// The modification time in nanoseconds since 1970, within what 64 bits hold.
pub(crate) fn modified_ns(metadata: &Metadata) -> i64 {
    let seconds_ns = metadata.mtime().saturating_mul(1_000_000_000);
    seconds_ns.saturating_add(metadata.mtime_nsec())
}
