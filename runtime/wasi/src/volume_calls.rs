//! What the functions of preview 1 do when a descriptor leads into a volume.

use crate::calls::Failure;
use crate::descriptors::{Descriptor, VolumeDirectory, VolumeFile};
use crate::errno::Errno;
use crate::memory::{Memory, Ranges};
use crate::paths::OpenRequest;
use crate::stat::NewTimes;
use crate::types::{FdFlags, FileStat, FileType, LookupFlags, OFlags};
use crate::volume::{Inode, OpenHow, Volume, VolumeError, VolumeMemory, VolumeStat};
use crate::wasi::Wasi;
use std::time::{SystemTime, UNIX_EPOCH};

/// Devices below this are the host's.
const DEVICE_FIRST: u64 = 2;

impl Wasi {
    /// The volumes, in the order in which they were granted.
    pub fn volumes(&self) -> impl ExactSizeIterator<Item = &Volume> {
        self.volumes.iter()
    }

    /// Gives the volume number `index` the memory in which the bytes of its files lie: a new one for a program that has not
    /// begun to run, what was saved for one that is resumed. Until then a resumed program cannot read them
    /// ([`Errno::Io`]), and a new one keeps them in this process's own memory.
    ///
    /// # Errors
    ///
    /// [`VolumeError::NoSuchVolume`]; [`VolumeError::Memory`] when it is too short.
    pub fn set_volume_memory(
        &mut self,
        index: usize,
        memory: Box<dyn VolumeMemory>,
    ) -> Result<(), VolumeError> {
        let volume = self.volumes.get_mut(index);
        let volume = volume.ok_or_else(|| VolumeError::NoSuchVolume {
            volume: format!("number {index}"),
        })?;
        volume.set_memory(memory)
    }

    /// Lets the files of each volume have at most so many bytes, in whole pages, and their names and what else is known of
    /// them as many again; what is there already stays.
    pub fn set_volume_limit(&mut self, limit_bytes: u64) {
        for volume in &mut self.volumes {
            volume.set_limit(limit_bytes);
        }
    }

    /// The directory in a volume that `fd` is, if it is one.
    pub(crate) fn volume_directory(
        &mut self,
        fd: u32,
    ) -> Result<Option<(&mut Volume, Inode)>, Errno> {
        match self.descriptors.get(fd)? {
            Descriptor::VolumeDirectory(directory) => {
                let directory = *directory;
                Ok(Some((self.volume_mut(directory.volume)?, directory.inode)))
            }
            _ => Ok(None),
        }
    }

    /// The file in a volume that `fd` is, if it is one.
    pub(crate) fn volume_file(&self, fd: u32) -> Result<Option<VolumeFile>, Errno> {
        match self.descriptors.get(fd)? {
            Descriptor::VolumeFile(file) => Ok(Some(*file)),
            _ => Ok(None),
        }
    }

    pub(crate) fn volume(&self, index: usize) -> Result<&Volume, Errno> {
        self.volumes.get(index).ok_or(Errno::Badf)
    }

    pub(crate) fn volume_mut(&mut self, index: usize) -> Result<&mut Volume, Errno> {
        self.volumes.get_mut(index).ok_or(Errno::Badf)
    }

    /// Two directories of one volume, or none if both are the host's.
    ///
    /// # Errors
    ///
    /// [`Errno::Xdev`] when they are not of one file system.
    pub(crate) fn volume_directories(
        &mut self,
        one: u32,
        other: u32,
    ) -> Result<Option<(&mut Volume, Inode, Inode)>, Errno> {
        let directory = |fd| match self.descriptors.get(fd)? {
            Descriptor::VolumeDirectory(directory) => Ok(Some(*directory)),
            Descriptor::Directory(_) => Ok(None),
            _ => Err(Errno::Badf),
        };
        match (directory(one)?, directory(other)?) {
            (None, None) => Ok(None),
            (Some(one), Some(other)) if one.volume == other.volume => {
                Ok(Some((self.volume_mut(one.volume)?, one.inode, other.inode)))
            }
            _ => Err(Errno::Xdev),
        }
    }

    /// A descriptor is no more.
    pub(crate) fn release(&mut self, descriptor: Option<Descriptor>) -> Result<(), Errno> {
        match descriptor.and_then(|descriptor| descriptor.in_volume()) {
            Some((volume, inode)) => self.volume_mut(volume)?.close(inode),
            None => Ok(()),
        }
    }

    /// Changes where the next read or write of a file in a volume goes.
    pub(crate) fn set_volume_offset(&mut self, fd: u32, offset: u64) -> Result<(), Errno> {
        match self.descriptors.get_mut(fd)? {
            Descriptor::VolumeFile(file) => file.offset = offset,
            _ => return Err(Errno::Badf),
        }
        Ok(())
    }

    pub(crate) fn read_volume(
        &self,
        file: &VolumeFile,
        memory: &mut Memory<'_>,
        ranges: &Ranges,
        offset: u64,
    ) -> Result<usize, Failure> {
        // Like Linux: a negative offset is noticed before what the descriptor is for, one that grows negative after it.
        check_offset(offset, 0)?;
        if !file.access.read {
            return Err(Errno::Badf.into());
        }
        check_offset(offset, total(ranges))?;
        let volume = self.volume(file.volume)?;
        Ok(volume.read(file.inode, offset, &mut memory.read_buffers(ranges))?)
    }

    /// Writes at `offset`, or at the end of a file in append mode, and says how much and where it ends.
    pub(crate) fn write_volume(
        &mut self,
        file: &VolumeFile,
        memory: &Memory<'_>,
        ranges: &Ranges,
        offset: u64,
    ) -> Result<(usize, u64), Failure> {
        let offset = match file.flags.contains(FdFlags::APPEND) {
            true => self.volume(file.volume)?.size(file.inode)?,
            false => offset,
        };
        check_offset(offset, 0)?;
        if !file.access.write {
            return Err(Errno::Badf.into());
        }
        if ranges.is_empty() {
            // Writing nothing is no modification.
            return Ok((0, offset));
        }
        check_offset(offset, total(ranges))?;
        let now_ns = self.clocks.realtime_ns();
        let volume = self.volume_mut(file.volume)?;
        let written = volume.write(file.inode, offset, &memory.write_buffers(ranges), now_ns)?;
        Ok((written, offset + written as u64))
    }

    /// What the guest is told about something in a volume.
    pub(crate) fn volume_stat(&self, volume: usize, inode: Inode) -> Result<FileStat, Errno> {
        let stat = self.volume(volume)?.stat(inode)?;
        Ok(to_file_stat(stat, volume, inode))
    }

    /// Opens what is at `path` from a directory of a volume on.
    pub(crate) fn open_in_volume(
        &mut self,
        directory: &VolumeDirectory,
        path: &str,
        request: &OpenRequest,
    ) -> Result<Descriptor, Errno> {
        let access = request.access()?;
        let has = |flag| request.oflags.contains(flag);
        let how = OpenHow {
            follow: request.lookup.contains(LookupFlags::SYMLINK_FOLLOW),
            create: has(OFlags::CREAT),
            exclusive: has(OFlags::EXCL),
            truncate: has(OFlags::TRUNC),
            write: access.write,
            directory_only: has(OFlags::DIRECTORY),
        };
        let now_ns = self.clocks.realtime_ns();
        let volume = self.volume_mut(directory.volume)?;
        let inode = volume.open(directory.inode, path, how, now_ns)?;
        Ok(match volume.stat(inode)?.file_type {
            FileType::Directory => Descriptor::VolumeDirectory(VolumeDirectory {
                volume: directory.volume,
                inode,
                preopened: false,
                access,
            }),
            _ => Descriptor::VolumeFile(VolumeFile {
                volume: directory.volume,
                inode,
                offset: 0,
                flags: request.fdflags,
                access,
            }),
        })
    }

    pub(crate) fn set_volume_times(
        &mut self,
        volume: usize,
        inode: Inode,
        times: &NewTimes,
    ) -> Result<(), Errno> {
        let now_ns = self.clocks.realtime_ns();
        let (accessed_ns, modified_ns) = (since_epoch(times.accessed), since_epoch(times.modified));
        let volume = self.volume_mut(volume)?;
        volume.set_times(inode, accessed_ns, modified_ns, now_ns)
    }
}

/// Offsets are signed numbers to Linux, that of the first byte as well as that behind the last one.
pub(crate) fn check_offset(offset: u64, length: u64) -> Result<(), Errno> {
    let end = offset.checked_add(length).map(i64::try_from);
    match end {
        Some(Ok(_)) => Ok(()),
        Some(Err(_)) | None => Err(Errno::Inval),
    }
}

fn total(ranges: &Ranges) -> u64 {
    ranges.iter().map(|range| range.len() as u64).sum()
}

fn since_epoch(time: Option<SystemTime>) -> Option<u64> {
    let since = time?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

fn to_file_stat(stat: VolumeStat, volume: usize, inode: Inode) -> FileStat {
    FileStat {
        device: DEVICE_FIRST + volume as u64,
        inode: volume_inode(inode),
        file_type: stat.file_type,
        links: stat.links.into(),
        size_bytes: stat.size_bytes,
        accessed_ns: stat.times.accessed_ns,
        modified_ns: stat.times.modified_ns,
        changed_ns: stat.times.changed_ns,
    }
}

/// The number that the guest sees: programs take zero for none.
pub(crate) fn volume_inode(inode: Inode) -> u64 {
    u64::from(inode) + 1
}
