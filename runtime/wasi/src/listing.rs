//! Listings of the host's directories.
//!
//! The host gives entries in an order of its own, so going on from a cookie means to read and sort all of them. Programs list
//! a large directory in thousands of calls; hence the last listing is kept, as long as the directory says that it has not
//! changed. It is no part of the program's state: reading the directory again gives the same.

use crate::descriptors::Directory;
use crate::types::FileType;
use crate::volume::cookie;
use crate::wasi::Wasi;
use cap_std::fs::{Metadata, MetadataExt as _};
use std::io;
use std::os::unix::fs::DirEntryExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long ago a directory must have changed for its time of change to tell all later changes: file systems count time in
/// steps of up to two seconds, and two changes within one step look like one.
const SETTLED: Duration = Duration::from_secs(3);

/// An entry of a directory of the host.
pub(crate) struct HostEntry {
    pub cookie: u64,
    /// The host's number.
    pub inode: u64,
    pub file_type: FileType,
    pub name: String,
}

/// What was in a directory of the host, but for `.` and `..`.
pub(crate) struct Listing {
    version: Version,
    /// Whether the version would be another one if anything had changed since.
    is_settled: bool,
    /// In the order of cookies.
    entries: Vec<HostEntry>,
}

/// Which directory it is, and when it changed last.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    file: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(metadata: &Metadata) -> Version {
        Version {
            file: (metadata.dev(), metadata.ino()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the last change lies so far in the past that the next one will have another time.
    fn is_settled(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(
            u64::try_from(seconds).unwrap_or_default(),
            u32::try_from(nanoseconds).unwrap_or_default(),
        );
        let age = now
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|now| now.checked_sub(changed));
        age.is_some_and(|age| age > SETTLED)
    }
}

impl Listing {
    fn read(directory: &Directory, version: Version) -> io::Result<Listing> {
        // Looked at before the entries are: what changes meanwhile is found in the next version.
        let is_settled = version.is_settled(SystemTime::now());
        let mut entries = Vec::new();
        for entry in directory.handle.entries()? {
            let entry = entry?;
            let name = entry.file_name().into_string();
            let name = name.map_err(|_| rustix::io::Errno::ILSEQ)?;
            let file_type = match entry.file_type() {
                // Where the listing does not tell types, the entry was looked at, and it has gone meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file_type => file_type?.into(),
            };
            entries.push(HostEntry {
                cookie: cookie(&name),
                inode: entry.ino(),
                file_type,
                name,
            });
        }
        entries.sort_unstable_by(|a, b| (a.cookie, &a.name).cmp(&(b.cookie, &b.name)));
        Ok(Listing {
            version,
            is_settled,
            entries,
        })
    }

    /// The entries whose cookies are above `after`.
    pub(crate) fn after(&self, after: u64) -> &[HostEntry] {
        let first = self.entries.partition_point(|entry| entry.cookie <= after);
        &self.entries[first..]
    }
}

impl Wasi {
    /// What is in the directory `fd` of the host now, and the directory's metadata.
    pub(crate) fn host_listing(
        &mut self,
        fd: u32,
    ) -> Result<(Arc<Listing>, Metadata), crate::calls::Failure> {
        let directory = self.descriptors.directory(fd)?;
        let metadata = directory.handle.dir_metadata()?;
        let version = Version::of(&metadata);
        let kept = self.listing.take();
        let kept = kept.filter(|kept| kept.is_settled && kept.version == version);
        let listing = match kept {
            Some(kept) => kept,
            None => Arc::new(Listing::read(directory, version)?),
        };
        self.listing = Some(listing.clone());
        Ok((listing, metadata))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_has_just_changed_may_change_again_without_a_trace() {
        let version = Version {
            file: (1, 2),
            modified: (0, 0),
            changed: (1000, 500),
        };
        let at = |seconds| UNIX_EPOCH + Duration::new(seconds, 500);
        assert!(!version.is_settled(at(999)), "clocks can differ");
        assert!(!version.is_settled(at(1000)));
        assert!(!version.is_settled(at(1003)));
        assert!(version.is_settled(at(1004)));
    }
}
