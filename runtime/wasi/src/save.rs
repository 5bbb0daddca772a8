//! Taking down the state of a program.

use crate::carried::{CARRIED_BYTES_MAX, CarryError, Collector};
use crate::descriptors::{Descriptor, File};
use crate::locate::Place;
use crate::random::Random;
use crate::saved_state::{
    Evidence, Fingerprint, SavedConnection, SavedDescriptor, SavedDirectory, SavedFile,
    SavedFileKind, SavedListener, SavedLost, SavedRandom, SavedState, SavedVolumeDirectory,
    SavedVolumeFile,
};
use crate::sockets::Socket;
use crate::types::FileType;
use crate::volume::{SavedVolume, Volume};
use crate::wasi::Wasi;
use cap_std::fs::{Dir, Metadata, MetadataExt as _};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

/// Files up to this size are recognised by the hash of their content.
pub(crate) const HASHED_BYTES_MAX: u64 = 64 * 1024;

/// Why the state of a program could not be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// What the program has open was moved from outside to where nobody who resumes could open it. It exists, so
    /// taking its content along would part the program from those who use the file too.
    #[error(
        "the program has `{guest_path}` open as descriptor {fd}, which was moved out of the directories that the \
         program was granted: move it back, or take the snapshot when the program has closed it"
    )]
    Elsewhere {
        /// The descriptor.
        fd: u32,
        /// The guest's path at which it was opened.
        guest_path: String,
    },
    /// The content of files that were removed while open would make the state too large.
    #[error(
        "the program has `{guest_path}` open as descriptor {fd}, which was removed, so that its content has to be \
         stored in the image; with it, such files have more than {limit_bytes} bytes: take the snapshot when the \
         program has closed it"
    )]
    TooLarge {
        /// The descriptor with which the limit is exceeded.
        fd: u32,
        /// The guest's path at which it was opened.
        guest_path: String,
        /// How many bytes all such files may have together.
        limit_bytes: u64,
    },
    /// What was removed while open is neither a regular file nor a directory.
    #[error(
        "the program has `{guest_path}` open as descriptor {fd}, a {file_type} that was removed: take the snapshot \
         when the program has closed it"
    )]
    RemovedSpecial {
        /// The descriptor.
        fd: u32,
        /// The guest's path at which it was opened.
        guest_path: String,
        /// What it is.
        file_type: FileType,
    },
    /// The host could not say where it is, or what is in it.
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
        let state = self.state_with(Vec::new())?;
        Ok(state.encode_with(&self.volumes, Volume::encode))
    }

    /// The state of the program as it is now.
    ///
    /// # Errors
    ///
    /// [`SaveError`] names the open file that cannot be saved.
    pub fn saved_state(&self) -> Result<SavedState, SaveError> {
        self.state_with(self.volumes.iter().map(Volume::saved).collect())
    }

    fn state_with(&self, volumes: Vec<SavedVolume>) -> Result<SavedState, SaveError> {
        let roots = self.roots.iter();
        let mut collector = Collector::new(self.is_deterministic());
        let descriptors = self.descriptors.iter();
        let descriptors = descriptors.map(|(fd, open)| {
            let saved = self.saved_descriptor(open, &mut collector);
            let saved = saved.map_err(|error| self.save_error(fd, open, error));
            Ok((fd, saved?))
        });
        let descriptors = descriptors.collect::<Result<_, _>>()?;
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
            carried: collector.contents,
            volumes,
            descriptors,
        })
    }

    fn saved_descriptor(
        &self,
        descriptor: &Descriptor,
        collector: &mut Collector,
    ) -> Result<SavedDescriptor, Unsaved> {
        match descriptor {
            Descriptor::Stream(standard) => Ok(SavedDescriptor::Stream(*standard)),
            Descriptor::Directory(directory) if directory.preopened => {
                Ok(SavedDescriptor::Preopen(directory.origin.preopen))
            }
            Descriptor::Directory(directory) => {
                let metadata = directory.handle.dir_metadata()?;
                let place = self.locate(directory.handle.as_fd(), &metadata, &directory.origin);
                let (removed, origin) = match place? {
                    Place::At(_, origin) => (false, origin),
                    Place::Removed => (true, directory.origin.clone()),
                    Place::Elsewhere => return Err(Unsaved::Elsewhere),
                };
                Ok(SavedDescriptor::Directory(SavedDirectory {
                    preopen: origin.preopen,
                    path: origin.path,
                    access: directory.access,
                    removed,
                }))
            }
            Descriptor::File(file) => Ok(SavedDescriptor::File(self.saved_file(file, collector)?)),
            Descriptor::Socket(Socket::Listener(listener)) => {
                Ok(SavedDescriptor::Listener(SavedListener {
                    listener: listener.index,
                    nonblocking: listener.nonblocking,
                }))
            }
            Descriptor::Socket(Socket::Connection(connection)) => {
                Ok(SavedDescriptor::Connection(SavedConnection {
                    nonblocking: connection.nonblocking,
                }))
            }
            Descriptor::Lost(origin) => Ok(SavedDescriptor::Lost(SavedLost {
                preopen: origin.preopen,
                path: origin.path.clone(),
            })),
            Descriptor::VolumeDirectory(directory) => {
                Ok(SavedDescriptor::VolumeDirectory(SavedVolumeDirectory {
                    // There cannot be more volumes than descriptors.
                    volume: u32::try_from(directory.volume).unwrap_or(u32::MAX),
                    inode: directory.inode,
                    preopened: directory.preopened,
                    access: directory.access,
                }))
            }
            Descriptor::VolumeFile(file) => Ok(SavedDescriptor::VolumeFile(SavedVolumeFile {
                volume: u32::try_from(file.volume).unwrap_or(u32::MAX),
                inode: file.inode,
                offset: file.offset,
                flags: file.flags,
                access: file.access,
            })),
        }
    }

    fn saved_file(&self, file: &File, collector: &mut Collector) -> Result<SavedFile, Unsaved> {
        let metadata = file.handle.metadata()?;
        let regular = file.file_type == FileType::RegularFile;
        let handle = file.handle.as_fd();
        let (kind, origin) = match self.locate(handle, &metadata, &file.origin)? {
            Place::At(root, origin) if regular => {
                let deterministic = self.is_deterministic();
                let fingerprint = fingerprint(root, &origin.path, &metadata, deterministic);
                (SavedFileKind::Regular(fingerprint), origin)
            }
            Place::At(_, origin) => (SavedFileKind::Special(file.file_type), origin),
            Place::Removed if regular => {
                let content = collector.content_of(handle, file.access, &metadata)?;
                (SavedFileKind::Carried(content), file.origin.clone())
            }
            Place::Removed => return Err(Unsaved::RemovedSpecial(file.file_type)),
            Place::Elsewhere => return Err(Unsaved::Elsewhere),
        };
        Ok(SavedFile {
            preopen: origin.preopen,
            path: origin.path,
            offset: file.offset,
            flags: file.flags,
            access: file.access,
            kind,
        })
    }

    fn save_error(&self, fd: u32, descriptor: &Descriptor, error: Unsaved) -> SaveError {
        let guest_path = descriptor.origin().map(|origin| self.guest_path(origin));
        let guest_path = guest_path.unwrap_or_default();
        match error {
            Unsaved::Elsewhere => SaveError::Elsewhere { fd, guest_path },
            Unsaved::TooLarge => SaveError::TooLarge {
                fd,
                guest_path,
                limit_bytes: CARRIED_BYTES_MAX,
            },
            Unsaved::RemovedSpecial(file_type) => SaveError::RemovedSpecial {
                fd,
                guest_path,
                file_type,
            },
            Unsaved::Io(source) => SaveError::Io {
                fd,
                guest_path,
                source,
            },
        }
    }
}

/// Why a descriptor cannot be saved; whose it is, is added later.
enum Unsaved {
    Elsewhere,
    TooLarge,
    RemovedSpecial(FileType),
    Io(io::Error),
}

impl From<io::Error> for Unsaved {
    fn from(error: io::Error) -> Unsaved {
        Unsaved::Io(error)
    }
}

impl From<CarryError> for Unsaved {
    fn from(error: CarryError) -> Unsaved {
        match error {
            CarryError::TooLarge => Unsaved::TooLarge,
            CarryError::Io(error) => Unsaved::Io(error),
        }
    }
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
