//! Saved descriptors, and their bytes.

use super::DecodeError;
use crate::bytes::{Reader, Writer};
use crate::descriptors::Access;
use crate::streams::Standard;
use crate::types::{FdFlags, FileType};
use crate::volume::Inode;

/// One open descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SavedDescriptor {
    /// A standard stream; which one it leads to is up to whoever resumes.
    Stream(Standard),
    /// A granted directory, by index into [`SavedState::preopens`].
    Preopen(u32),
    /// A directory that the program opened.
    Directory(SavedDirectory),
    /// A file that the program opened.
    File(SavedFile),
    /// Something that could not be opened again in an earlier resume.
    Lost(SavedLost),
    /// A directory in a volume.
    VolumeDirectory(SavedVolumeDirectory),
    /// A file in a volume.
    VolumeFile(SavedVolumeFile),
    /// A listener that the program was granted.
    Listener(SavedListener),
    /// A connection, which whoever resumes the program finds reset.
    Connection(SavedConnection),
}

/// A directory in a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedVolumeDirectory {
    /// Index into [`SavedState::volumes`].
    pub volume: u32,
    /// The directory's inode.
    pub inode: u32,
    /// It is the root as the program was granted it.
    pub preopened: bool,
    /// What it was opened for.
    pub access: Access,
}

/// A file in a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedVolumeFile {
    /// Index into [`SavedState::volumes`].
    pub volume: u32,
    /// The file's inode.
    pub inode: u32,
    /// Where the next read or write goes, in bytes.
    pub offset: u64,
    /// [`FdFlags::APPEND`] and [`FdFlags::NONBLOCK`], if set.
    pub flags: FdFlags,
    /// What it was opened for.
    pub access: Access,
}

/// A listener that the program was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedListener {
    /// The index among the listeners that were granted.
    pub listener: u32,
    /// Accepting does not wait.
    pub nonblocking: bool,
}

/// A connection that was accepted. Nothing else of it is kept, because nobody could go on with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedConnection {
    /// Receiving and sending do not wait.
    pub nonblocking: bool,
}

/// A directory that the program opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedDirectory {
    /// Index into [`SavedState::preopens`].
    pub preopen: u32,
    /// The path below it.
    pub path: String,
    /// What it was opened for.
    pub access: Access,
    /// It has been removed since: it is empty, and nothing can be made in it.
    pub removed: bool,
}

/// Something that could not be opened again in an earlier resume, which was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedLost {
    /// Index into [`SavedState::preopens`].
    pub preopen: u32,
    /// The path below it.
    pub path: String,
}

/// A file that the program opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedFile {
    /// Index into [`SavedState::preopens`].
    pub preopen: u32,
    /// The path below it.
    pub path: String,
    /// Where the next read or write goes, in bytes.
    pub offset: u64,
    /// [`FdFlags::APPEND`] and [`FdFlags::NONBLOCK`], if set.
    pub flags: FdFlags,
    /// What it was opened for.
    pub access: Access,
    /// What it was. Regular files have a fingerprint, others none.
    pub kind: SavedFileKind,
}

/// What a file was when the state was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SavedFileKind {
    /// A regular file with this content.
    Regular(Fingerprint),
    /// A regular file that has no name any more, with the content of that index in [`SavedState::carried`].
    Carried(u32),
    /// Something else, such as a character device.
    Special(FileType),
}

/// By which the content of a file is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The file's length.
    pub size_bytes: u64,
    /// What is known beyond the length.
    pub evidence: Evidence,
}

/// What is known of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing: a large file of a deterministic program, whose state must not depend on when files were written.
    None,
    /// The BLAKE3 hash of a small file.
    Hash([u8; 32]),
    /// The modification time of a large file, in nanoseconds since 1970.
    ModifiedNs(i64),
}

const KIND_STREAM: u8 = 0;
const KIND_PREOPEN: u8 = 3;
const KIND_DIRECTORY: u8 = 4;
const KIND_FILE: u8 = 5;
const KIND_CARRIED: u8 = 6;
const KIND_REMOVED_DIRECTORY: u8 = 7;
const KIND_LOST: u8 = 8;
const KIND_VOLUME_ROOT: u8 = 9;
const KIND_VOLUME_DIRECTORY: u8 = 10;
const KIND_VOLUME_FILE: u8 = 11;
const KIND_LISTENER: u8 = 12;
const KIND_CONNECTION: u8 = 13;

const MODE_READ: u8 = 1 << 0;
const MODE_WRITE: u8 = 1 << 1;
const MODE_APPEND: u8 = 1 << 2;
const MODE_NONBLOCK: u8 = 1 << 3;

const EVIDENCE_NONE: u8 = 0;
const EVIDENCE_HASH: u8 = 1;
const EVIDENCE_MODIFIED: u8 = 2;

impl SavedDescriptor {
    /// The volume, by index, and the inode that it is a descriptor of.
    pub(crate) fn in_volume(&self) -> Option<(usize, Inode)> {
        let (volume, inode) = match self {
            SavedDescriptor::VolumeDirectory(directory) => (directory.volume, directory.inode),
            SavedDescriptor::VolumeFile(file) => (file.volume, file.inode),
            _ => return None,
        };
        Some((usize::try_from(volume).ok()?, inode))
    }

    /// The number of the content that travels with it.
    pub(super) fn carried(&self) -> Option<u64> {
        match self {
            SavedDescriptor::File(SavedFile {
                kind: SavedFileKind::Carried(index),
                ..
            }) => Some((*index).into()),
            _ => None,
        }
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        match self {
            SavedDescriptor::Stream(standard) => to.u8(KIND_STREAM + *standard as u8),
            SavedDescriptor::Preopen(preopen) => {
                to.u8(KIND_PREOPEN);
                to.u32(*preopen);
            }
            SavedDescriptor::Directory(directory) => {
                to.u8(match directory.removed {
                    true => KIND_REMOVED_DIRECTORY,
                    false => KIND_DIRECTORY,
                });
                to.u32(directory.preopen);
                to.bytes(directory.path.as_bytes());
                to.u8(mode(directory.access, FdFlags::empty()));
            }
            SavedDescriptor::File(file) => {
                to.u8(match file.kind {
                    SavedFileKind::Carried(_) => KIND_CARRIED,
                    SavedFileKind::Regular(_) | SavedFileKind::Special(_) => KIND_FILE,
                });
                to.u32(file.preopen);
                to.bytes(file.path.as_bytes());
                to.u8(mode(file.access, file.flags));
                to.u64(file.offset);
                file.kind.encode(to);
            }
            SavedDescriptor::Lost(lost) => {
                to.u8(KIND_LOST);
                to.u32(lost.preopen);
                to.bytes(lost.path.as_bytes());
            }
            SavedDescriptor::VolumeDirectory(directory) => {
                to.u8(match directory.preopened {
                    true => KIND_VOLUME_ROOT,
                    false => KIND_VOLUME_DIRECTORY,
                });
                to.u32(directory.volume);
                to.u32(directory.inode);
                to.u8(mode(directory.access, FdFlags::empty()));
            }
            SavedDescriptor::VolumeFile(file) => {
                to.u8(KIND_VOLUME_FILE);
                to.u32(file.volume);
                to.u32(file.inode);
                to.u8(mode(file.access, file.flags));
                to.u64(file.offset);
            }
            SavedDescriptor::Listener(listener) => {
                to.u8(KIND_LISTENER);
                to.u32(listener.listener);
                to.u8(listener.nonblocking.into());
            }
            SavedDescriptor::Connection(connection) => {
                to.u8(KIND_CONNECTION);
                to.u8(connection.nonblocking.into());
            }
        }
    }

    pub(super) fn decode(
        from: &mut Reader<'_>,
        preopens: usize,
    ) -> Result<SavedDescriptor, DecodeError> {
        let kind = from.u8()?;
        if let Some(standard) = Standard::ALL.get(usize::from(kind)) {
            return Ok(SavedDescriptor::Stream(*standard));
        }
        if let KIND_VOLUME_ROOT | KIND_VOLUME_DIRECTORY | KIND_VOLUME_FILE = kind {
            return volume_descriptor(from, kind);
        }
        if let KIND_LISTENER | KIND_CONNECTION = kind {
            return saved_socket(from, kind);
        }
        let preopen = from.u32()?;
        if usize::try_from(preopen).is_ok_and(|index| index >= preopens) {
            return Err(from.invalid("a granted directory that does not exist"));
        }
        match kind {
            KIND_PREOPEN => Ok(SavedDescriptor::Preopen(preopen)),
            KIND_DIRECTORY | KIND_REMOVED_DIRECTORY => {
                let path = from.utf8()?;
                let (access, flags) = access_and_flags(from)?;
                if !flags.is_empty() {
                    return Err(from.invalid("a directory with a file's flags"));
                }
                Ok(SavedDescriptor::Directory(SavedDirectory {
                    preopen,
                    path,
                    access,
                    removed: kind == KIND_REMOVED_DIRECTORY,
                }))
            }
            KIND_LOST => Ok(SavedDescriptor::Lost(SavedLost {
                preopen,
                path: from.utf8()?,
            })),
            KIND_FILE | KIND_CARRIED => {
                let path = from.utf8()?;
                let (access, flags) = access_and_flags(from)?;
                Ok(SavedDescriptor::File(SavedFile {
                    preopen,
                    path,
                    access,
                    flags,
                    offset: from.u64()?,
                    kind: match kind {
                        KIND_CARRIED => SavedFileKind::Carried(from.u32()?),
                        _ => SavedFileKind::decode(from)?,
                    },
                }))
            }
            _ => Err(from.invalid("an unknown kind of descriptor")),
        }
    }
}

impl SavedFileKind {
    fn encode(&self, to: &mut Writer) {
        let fingerprint = match self {
            SavedFileKind::Special(file_type) => return to.u8(*file_type as u8),
            SavedFileKind::Carried(content) => return to.u32(*content),
            SavedFileKind::Regular(fingerprint) => fingerprint,
        };
        to.u8(FileType::RegularFile as u8);
        to.u64(fingerprint.size_bytes);
        match &fingerprint.evidence {
            Evidence::None => to.u8(EVIDENCE_NONE),
            Evidence::Hash(hash) => {
                to.u8(EVIDENCE_HASH);
                to.raw(hash);
            }
            Evidence::ModifiedNs(modified_ns) => {
                to.u8(EVIDENCE_MODIFIED);
                to.raw(&modified_ns.to_le_bytes());
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<SavedFileKind, DecodeError> {
        match FileType::from_raw(from.u8()?) {
            None => Err(from.invalid("an unknown file type")),
            Some(FileType::RegularFile) => {
                let size_bytes = from.u64()?;
                let evidence = match from.u8()? {
                    EVIDENCE_NONE => Evidence::None,
                    EVIDENCE_HASH => Evidence::Hash(from.raw()?),
                    EVIDENCE_MODIFIED => Evidence::ModifiedNs(i64::from_le_bytes(from.raw()?)),
                    _ => return Err(from.invalid("an unknown kind of evidence")),
                };
                Ok(SavedFileKind::Regular(Fingerprint {
                    size_bytes,
                    evidence,
                }))
            }
            Some(file_type) => Ok(SavedFileKind::Special(file_type)),
        }
    }
}

fn volume_descriptor(from: &mut Reader<'_>, kind: u8) -> Result<SavedDescriptor, DecodeError> {
    let (volume, inode) = (from.u32()?, from.u32()?);
    let (access, flags) = access_and_flags(from)?;
    if kind == KIND_VOLUME_FILE {
        return Ok(SavedDescriptor::VolumeFile(SavedVolumeFile {
            volume,
            inode,
            access,
            flags,
            offset: from.u64()?,
        }));
    }
    if !flags.is_empty() {
        return Err(from.invalid("a directory with a file's flags"));
    }
    Ok(SavedDescriptor::VolumeDirectory(SavedVolumeDirectory {
        volume,
        inode,
        preopened: kind == KIND_VOLUME_ROOT,
        access,
    }))
}

fn saved_socket(from: &mut Reader<'_>, kind: u8) -> Result<SavedDescriptor, DecodeError> {
    let listener = (kind == KIND_LISTENER).then(|| from.u32()).transpose()?;
    let nonblocking = match from.u8()? {
        0 => false,
        1 => true,
        _ => return Err(from.invalid("a socket that neither waits nor does not")),
    };
    Ok(match listener {
        Some(listener) => SavedDescriptor::Listener(SavedListener {
            listener,
            nonblocking,
        }),
        None => SavedDescriptor::Connection(SavedConnection { nonblocking }),
    })
}

fn mode(access: Access, flags: FdFlags) -> u8 {
    let bits = [
        (access.read, MODE_READ),
        (access.write, MODE_WRITE),
        (flags.contains(FdFlags::APPEND), MODE_APPEND),
        (flags.contains(FdFlags::NONBLOCK), MODE_NONBLOCK),
    ];
    let set = bits.iter().filter(|(is_set, _)| *is_set);
    set.fold(0, |mode, (_, bit)| mode | bit)
}

fn access_and_flags(from: &mut Reader<'_>) -> Result<(Access, FdFlags), DecodeError> {
    let mode = from.u8()?;
    let known = MODE_READ | MODE_WRITE | MODE_APPEND | MODE_NONBLOCK;
    if mode & !known != 0 || mode & (MODE_READ | MODE_WRITE) == 0 {
        return Err(from.invalid("an impossible access mode"));
    }
    let access = Access {
        read: mode & MODE_READ != 0,
        write: mode & MODE_WRITE != 0,
    };
    let mut flags = FdFlags::empty();
    flags.set(FdFlags::APPEND, mode & MODE_APPEND != 0);
    flags.set(FdFlags::NONBLOCK, mode & MODE_NONBLOCK != 0);
    Ok((access, flags))
}
