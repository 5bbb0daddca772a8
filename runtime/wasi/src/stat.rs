//! What the guest learns about files, and how it sets their times.

use crate::clocks::{DETERMINISTIC_EPOCH_NS, since_epoch_ns};
use crate::descriptors::Origin;
use crate::errno::Errno;
use crate::types::{FileStat, FileType, FstFlags};
use crate::wasi::Wasi;
use cap_std::fs::{Metadata, MetadataExt as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

impl Wasi {
    /// What the guest is told about a file or directory.
    ///
    /// A deterministic program must not see what differs between equal directories on two hosts: times, inode numbers,
    /// the sizes and link counts of directories.
    pub(crate) fn stat(&self, metadata: &Metadata, origin: &Origin) -> FileStat {
        let file_type = FileType::from(metadata.file_type());
        let stat = FileStat {
            device: 1,
            inode: self.inode(metadata.dev(), metadata.ino(), origin),
            file_type,
            links: metadata.nlink(),
            size_bytes: metadata.len(),
            accessed_ns: time_ns(metadata.accessed()),
            modified_ns: time_ns(metadata.modified()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        };
        if !self.is_deterministic() {
            return stat;
        }
        let directory = file_type == FileType::Directory;
        FileStat {
            links: if directory { 1 } else { stat.links },
            size_bytes: if directory { 0 } else { stat.size_bytes },
            accessed_ns: DETERMINISTIC_EPOCH_NS,
            modified_ns: DETERMINISTIC_EPOCH_NS,
            changed_ns: DETERMINISTIC_EPOCH_NS,
            ..stat
        }
    }

    /// The number by which the guest tells files apart: from the host's device and inode, as wasmtime does it, or for
    /// a deterministic program from the path.
    pub(crate) fn inode(&self, device: u64, inode: u64, origin: &Origin) -> u64 {
        if self.is_deterministic() {
            return hash64(self.guest_path(origin).as_bytes());
        }
        let mut hasher = DefaultHasher::new();
        (device, inode).hash(&mut hasher);
        hasher.finish()
    }
}

/// The first 64 bits of the BLAKE3 hash.
pub(crate) fn hash64(bytes: &[u8]) -> u64 {
    let [b0, b1, b2, b3, b4, b5, b6, b7, ..] = *blake3::hash(bytes).as_bytes();
    u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7])
}

fn time_ns(time: std::io::Result<cap_std::time::SystemTime>) -> u64 {
    time.map_or(0, |time| since_epoch_ns(time.into_std()))
}

fn nanoseconds(seconds: i64, subsecond_ns: i64) -> u64 {
    let total_ns = i128::from(seconds) * 1_000_000_000 + i128::from(subsecond_ns);
    u64::try_from(total_ns.max(0)).unwrap_or(u64::MAX)
}

/// The access and modification times to set; none leaves one as it is.
pub(crate) struct NewTimes {
    pub accessed: Option<SystemTime>,
    pub modified: Option<SystemTime>,
}

impl NewTimes {
    /// What `fst_flags` ask for. "Now" is read once, so that both times are the same.
    pub(crate) fn new(
        wasi: &Wasi,
        accessed_ns: u64,
        modified_ns: u64,
        fst_flags: FstFlags,
    ) -> Result<NewTimes, Errno> {
        let now_ns = wasi.clocks.realtime_ns();
        let choose = |set: FstFlags, now: FstFlags, value_ns: u64| match (
            fst_flags.contains(set),
            fst_flags.contains(now),
        ) {
            (true, true) => Err(Errno::Inval),
            (true, false) => Ok(Some(UNIX_EPOCH + Duration::from_nanos(value_ns))),
            (false, true) => Ok(Some(UNIX_EPOCH + Duration::from_nanos(now_ns))),
            (false, false) => Ok(None),
        };
        Ok(NewTimes {
            accessed: choose(FstFlags::ATIM, FstFlags::ATIM_NOW, accessed_ns)?,
            modified: choose(FstFlags::MTIM, FstFlags::MTIM_NOW, modified_ns)?,
        })
    }
}
