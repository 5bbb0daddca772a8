//! The flags, enumerations and records of preview 1, in the layout that the guest sees.

use crate::errno::Errno;
use bitflags::bitflags;
use std::fmt;

bitflags! {
    /// What a descriptor may be used for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rights: u64 {
        /// `fd_datasync`.
        const FD_DATASYNC = 1 << 0;
        /// `fd_read`, and `sock_recv`.
        const FD_READ = 1 << 1;
        /// `fd_seek`.
        const FD_SEEK = 1 << 2;
        /// `fd_fdstat_set_flags`.
        const FD_FDSTAT_SET_FLAGS = 1 << 3;
        /// `fd_sync`.
        const FD_SYNC = 1 << 4;
        /// `fd_tell`.
        const FD_TELL = 1 << 5;
        /// `fd_write`, and `sock_send`.
        const FD_WRITE = 1 << 6;
        /// `fd_advise`.
        const FD_ADVISE = 1 << 7;
        /// `fd_allocate`.
        const FD_ALLOCATE = 1 << 8;
        /// `path_create_directory`.
        const PATH_CREATE_DIRECTORY = 1 << 9;
        /// `path_open` with [`OFlags::CREAT`].
        const PATH_CREATE_FILE = 1 << 10;
        /// `path_link` with this as the source directory.
        const PATH_LINK_SOURCE = 1 << 11;
        /// `path_link` with this as the target directory.
        const PATH_LINK_TARGET = 1 << 12;
        /// `path_open`.
        const PATH_OPEN = 1 << 13;
        /// `fd_readdir`.
        const FD_READDIR = 1 << 14;
        /// `path_readlink`.
        const PATH_READLINK = 1 << 15;
        /// `path_rename` with this as the source directory.
        const PATH_RENAME_SOURCE = 1 << 16;
        /// `path_rename` with this as the target directory.
        const PATH_RENAME_TARGET = 1 << 17;
        /// `path_filestat_get`.
        const PATH_FILESTAT_GET = 1 << 18;
        /// `path_open` with [`OFlags::TRUNC`].
        const PATH_FILESTAT_SET_SIZE = 1 << 19;
        /// `path_filestat_set_times`.
        const PATH_FILESTAT_SET_TIMES = 1 << 20;
        /// `fd_filestat_get`.
        const FD_FILESTAT_GET = 1 << 21;
        /// `fd_filestat_set_size`.
        const FD_FILESTAT_SET_SIZE = 1 << 22;
        /// `fd_filestat_set_times`.
        const FD_FILESTAT_SET_TIMES = 1 << 23;
        /// `path_symlink`.
        const PATH_SYMLINK = 1 << 24;
        /// `path_remove_directory`.
        const PATH_REMOVE_DIRECTORY = 1 << 25;
        /// `path_unlink_file`.
        const PATH_UNLINK_FILE = 1 << 26;
        /// `poll_oneoff` on this descriptor.
        const POLL_FD_READWRITE = 1 << 27;
        /// `sock_shutdown`.
        const SOCK_SHUTDOWN = 1 << 28;
        /// `sock_accept`.
        const SOCK_ACCEPT = 1 << 29;
    }

    /// How a descriptor behaves.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FdFlags: u16 {
        /// Every write goes to the end of the file.
        const APPEND = 1 << 0;
        /// Writes wait until the data is on the disk.
        const DSYNC = 1 << 1;
        /// Calls that would block return [`Errno::Again`] instead (kept, without effect on files).
        const NONBLOCK = 1 << 2;
        /// Reads wait like writes do.
        const RSYNC = 1 << 3;
        /// Writes wait until data and metadata are on the disk.
        const SYNC = 1 << 4;
    }

    /// How `path_open` opens.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OFlags: u16 {
        /// Create the file if it does not exist.
        const CREAT = 1 << 0;
        /// Fail if it is no directory.
        const DIRECTORY = 1 << 1;
        /// Fail if it exists.
        const EXCL = 1 << 2;
        /// Make it empty.
        const TRUNC = 1 << 3;
    }

    /// How a path is resolved.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LookupFlags: u32 {
        /// If the path ends in a symbolic link, follow it.
        const SYMLINK_FOLLOW = 1 << 0;
    }

    /// How `sock_recv` receives.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ReceiveFlags: u16 {
        /// What is received stays to be received again.
        const PEEK = 1 << 0;
        /// Wait until all buffers are full.
        const WAITALL = 1 << 1;
    }

    /// Which directions of a connection `sock_shutdown` ends.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ShutdownFlags: u8 {
        /// Receiving.
        const RD = 1 << 0;
        /// Sending.
        const WR = 1 << 1;
    }

    /// Which timestamps are set, and to what.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FstFlags: u16 {
        /// Set the access time to the value given.
        const ATIM = 1 << 0;
        /// Set the access time to now.
        const ATIM_NOW = 1 << 1;
        /// Set the modification time to the value given.
        const MTIM = 1 << 2;
        /// Set the modification time to now.
        const MTIM_NOW = 1 << 3;
    }
}

/// Narrows an `i32` parameter to a flags type; bits that have no meaning are [`Errno::Inval`].
pub(crate) fn flags<F>(raw: u32) -> Result<F, Errno>
where
    F: bitflags::Flags,
    F::Bits: TryFrom<u32>,
{
    let bits = F::Bits::try_from(raw).map_err(|_| Errno::Inval)?;
    F::from_bits(bits).ok_or(Errno::Inval)
}

/// The kind of thing that a descriptor or path refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FileType {
    /// None of the others (pipes too: preview 1 has no number for them).
    Unknown = 0,
    /// A block device.
    BlockDevice = 1,
    /// A character device; this is what makes a program believe that it talks to a terminal.
    CharacterDevice = 2,
    /// A directory.
    Directory = 3,
    /// A regular file.
    RegularFile = 4,
    /// A datagram socket.
    SocketDgram = 5,
    /// A stream socket.
    SocketStream = 6,
    /// A symbolic link.
    SymbolicLink = 7,
}

impl FileType {
    /// The type whose number is `raw`, if there is one.
    pub fn from_raw(raw: u8) -> Option<FileType> {
        use FileType::*;
        let all = [
            Unknown,
            BlockDevice,
            CharacterDevice,
            Directory,
            RegularFile,
            SocketDgram,
            SocketStream,
            SymbolicLink,
        ];
        all.get(usize::from(raw)).copied()
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            FileType::Unknown => "file of unknown type",
            FileType::BlockDevice => "block device",
            FileType::CharacterDevice => "character device",
            FileType::Directory => "directory",
            FileType::RegularFile => "regular file",
            FileType::SocketDgram => "datagram socket",
            FileType::SocketStream => "stream socket",
            FileType::SymbolicLink => "symbolic link",
        })
    }
}

impl From<cap_std::fs::FileType> for FileType {
    fn from(host: cap_std::fs::FileType) -> FileType {
        use cap_std::fs::FileTypeExt as _;
        if host.is_file() {
            FileType::RegularFile
        } else if host.is_dir() {
            FileType::Directory
        } else if host.is_symlink() {
            FileType::SymbolicLink
        } else if host.is_char_device() {
            FileType::CharacterDevice
        } else if host.is_block_device() {
            FileType::BlockDevice
        } else {
            FileType::Unknown
        }
    }
}

/// The record `fdstat`: 24 bytes.
pub(crate) struct FdStat {
    pub file_type: FileType,
    pub flags: FdFlags,
    pub rights_base: Rights,
    pub rights_inheriting: Rights,
}

impl FdStat {
    pub(crate) fn to_bytes(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[0] = self.file_type as u8;
        bytes[2..4].copy_from_slice(&self.flags.bits().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.rights_base.bits().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.rights_inheriting.bits().to_le_bytes());
        bytes
    }
}

/// The record `filestat`: 64 bytes. Times are nanoseconds since 1970.
#[derive(Clone, Copy)]
pub(crate) struct FileStat {
    pub device: u64,
    pub inode: u64,
    pub file_type: FileType,
    pub links: u64,
    pub size_bytes: u64,
    pub accessed_ns: u64,
    pub modified_ns: u64,
    pub changed_ns: u64,
}

impl FileStat {
    /// What is told of something that is in no file system.
    pub(crate) fn of_no_file(file_type: FileType) -> FileStat {
        FileStat {
            device: 0,
            inode: 0,
            file_type,
            links: 0,
            size_bytes: 0,
            accessed_ns: 0,
            modified_ns: 0,
            changed_ns: 0,
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 64] {
        let words = [
            self.device,
            self.inode,
            self.file_type as u64,
            self.links,
            self.size_bytes,
            self.accessed_ns,
            self.modified_ns,
            self.changed_ns,
        ];
        let mut bytes = [0; 64];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}
