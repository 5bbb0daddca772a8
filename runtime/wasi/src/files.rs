//! The functions on descriptors: reading, writing, seeking, and what is known about them.
//!
//! A file's offset is kept here and every transfer names it, so the host's descriptor has no state of its own.

use crate::calls::{Failure, Outcome};
use crate::descriptors::{Access, Descriptor, File};
use crate::errno::Errno;
use crate::memory::{Memory, Ranges, touch};
use crate::stat::NewTimes;
use crate::streams::Standard;
use crate::types::{FdFlags, FdStat, FileStat, FileType, ReceiveFlags, Rights, flags};
use crate::volume_calls::check_offset;
use crate::wasi::Wasi;
use rustix::fs::{
    Advice, AtFlags, FallocateFlags, Timespec, Timestamps, UTIME_OMIT, fadvise, fallocate,
    utimensat,
};
use rustix::io::{ReadWriteFlags, preadv, pwritev, pwritev2, retry_on_intr};
use std::num::NonZeroU64;
use std::time::{SystemTime, UNIX_EPOCH};

fn count(bytes: usize) -> Result<u32, Errno> {
    u32::try_from(bytes).map_err(|_| Errno::Overflow)
}

fn read_file(
    file: &File,
    memory: &mut Memory<'_>,
    ranges: &Ranges,
    offset: u64,
) -> Result<usize, Failure> {
    let mut buffers = memory.read_buffers(ranges);
    let count = retry_on_intr(|| preadv(&file.handle, &mut buffers, offset))?;
    touch(&mut buffers, count);
    Ok(count)
}

/// Writes at `offset`, or at the end of a file in append mode, whatever the offset, as Linux does it.
fn write_file(
    file: &File,
    memory: &Memory<'_>,
    ranges: &Ranges,
    offset: u64,
) -> Result<usize, Failure> {
    let buffers = memory.write_buffers(ranges);
    let append = file.flags.contains(FdFlags::APPEND);
    Ok(retry_on_intr(|| {
        if append {
            pwritev2(&file.handle, &buffers, 0, ReadWriteFlags::APPEND)
        } else {
            pwritev(&file.handle, &buffers, offset)
        }
    })?)
}

impl Wasi {
    fn read_stdin(&mut self, memory: &mut Memory<'_>, ranges: &Ranges) -> Result<usize, Failure> {
        self.stopped_at_stdin = false;
        let stream = self.streams.get_mut(Standard::Input)?;
        let mut buffers = memory.read_buffers(ranges);
        let result = stream.read(&mut buffers, &self.interrupter, self.stdin_probe);
        if self.stdin_probe && matches!(result, Err(Failure::Stop(_))) {
            self.stopped_at_stdin = true;
        }
        result
    }
}

pub(crate) fn fd_read(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    iovs: u32,
    iovs_length: u32,
    nread: u32,
) -> Outcome {
    memory.check(nread, 4)?;
    let ranges = memory.iovecs(iovs, iovs_length)?;
    if let Some(file) = wasi.volume_file(fd)? {
        let read = wasi.read_volume(&file, &mut memory, &ranges, file.offset)?;
        wasi.set_volume_offset(fd, file.offset.saturating_add(read as u64))?;
        return Ok(memory.write_u32(nread, count(read)?)?);
    }
    let read = match wasi.descriptors.get_mut(fd)? {
        Descriptor::File(file) => {
            let read = read_file(file, &mut memory, &ranges, file.offset)?;
            file.offset = file.offset.saturating_add(read as u64);
            read
        }
        Descriptor::Socket(socket) => {
            let how = ReceiveFlags::empty();
            socket.read(&mut memory, &ranges, how, &wasi.interrupter)?
        }
        // Nothing to wait for.
        Descriptor::Stream(Standard::Input) if ranges.is_empty() => 0,
        Descriptor::Stream(Standard::Input) => wasi.read_stdin(&mut memory, &ranges)?,
        Descriptor::Stream(_)
        | Descriptor::Directory(_)
        | Descriptor::VolumeDirectory(_)
        | Descriptor::VolumeFile(_) => return Err(Errno::Badf.into()),
        Descriptor::Lost(_) => return Err(Errno::Stale.into()),
    };
    Ok(memory.write_u32(nread, count(read)?)?)
}

pub(crate) fn fd_write(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    iovs: u32,
    iovs_length: u32,
    nwritten: u32,
) -> Outcome {
    memory.check(nwritten, 4)?;
    let ranges = memory.iovecs(iovs, iovs_length)?;
    if let Some(file) = wasi.volume_file(fd)? {
        let (written, end) = wasi.write_volume(&file, &memory, &ranges, file.offset)?;
        wasi.set_volume_offset(fd, end)?;
        return Ok(memory.write_u32(nwritten, count(written)?)?);
    }
    let written = match wasi.descriptors.get_mut(fd)? {
        Descriptor::Directory(_)
        | Descriptor::VolumeDirectory(_)
        | Descriptor::VolumeFile(_)
        | Descriptor::Stream(Standard::Input) => {
            return Err(Errno::Badf.into());
        }
        Descriptor::Lost(_) => return Err(Errno::Stale.into()),
        Descriptor::File(file) => {
            let written = write_file(file, &memory, &ranges, file.offset)?;
            file.offset = if file.flags.contains(FdFlags::APPEND) {
                file.handle.metadata()?.len()
            } else {
                file.offset.saturating_add(written as u64)
            };
            written
        }
        Descriptor::Socket(socket) => {
            socket.write(&mut memory.write_buffers(&ranges), &wasi.interrupter)?
        }
        Descriptor::Stream(standard) => {
            let stream = wasi.streams.get_mut(*standard)?;
            stream.write(&mut memory.write_buffers(&ranges), &wasi.interrupter)?
        }
    };
    Ok(memory.write_u32(nwritten, count(written)?)?)
}

pub(crate) fn fd_pread(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    iovs: u32,
    iovs_length: u32,
    offset: u64,
    nread: u32,
) -> Outcome {
    memory.check(nread, 4)?;
    let ranges = memory.iovecs(iovs, iovs_length)?;
    if let Some(file) = wasi.volume_file(fd)? {
        let read = wasi.read_volume(&file, &mut memory, &ranges, offset)?;
        return Ok(memory.write_u32(nread, count(read)?)?);
    }
    let read = match wasi.descriptors.get(fd)? {
        Descriptor::File(file) => read_file(file, &mut memory, &ranges, offset)?,
        Descriptor::Stream(Standard::Input) | Descriptor::Socket(_) => {
            return Err(Errno::Spipe.into());
        }
        Descriptor::Stream(_)
        | Descriptor::Directory(_)
        | Descriptor::VolumeDirectory(_)
        | Descriptor::VolumeFile(_) => return Err(Errno::Badf.into()),
        Descriptor::Lost(_) => return Err(Errno::Stale.into()),
    };
    Ok(memory.write_u32(nread, count(read)?)?)
}

pub(crate) fn fd_pwrite(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    iovs: u32,
    iovs_length: u32,
    offset: u64,
    nwritten: u32,
) -> Outcome {
    memory.check(nwritten, 4)?;
    let ranges = memory.iovecs(iovs, iovs_length)?;
    if let Some(file) = wasi.volume_file(fd)? {
        let (written, _) = wasi.write_volume(&file, &memory, &ranges, offset)?;
        return Ok(memory.write_u32(nwritten, count(written)?)?);
    }
    let written = match wasi.descriptors.get(fd)? {
        Descriptor::File(file) => write_file(file, &memory, &ranges, offset)?,
        Descriptor::Stream(Standard::Output | Standard::Error) | Descriptor::Socket(_) => {
            return Err(Errno::Spipe.into());
        }
        Descriptor::Stream(Standard::Input)
        | Descriptor::Directory(_)
        | Descriptor::VolumeDirectory(_)
        | Descriptor::VolumeFile(_) => {
            return Err(Errno::Badf.into());
        }
        Descriptor::Lost(_) => return Err(Errno::Stale.into()),
    };
    Ok(memory.write_u32(nwritten, count(written)?)?)
}

/// The last of the bases of `fd_seek`: the end.
const WHENCE_LAST: u32 = 2;

/// Where a file is after seeking; `length` tells how long it is.
fn seek(
    whence: u32,
    offset: i64,
    here: u64,
    length: impl FnOnce() -> Result<u64, Failure>,
) -> Result<u64, Failure> {
    let base = match whence {
        0 => 0,
        1 => here,
        2 => length()?,
        _ => return Err(Errno::Inval.into()),
    };
    Ok(base.checked_add_signed(offset).ok_or(Errno::Inval)?)
}

pub(crate) fn fd_seek(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    offset: i64,
    whence: u32,
    position: u32,
) -> Outcome {
    memory.check(position, 8)?;
    if whence > WHENCE_LAST {
        // As with every enumeration: before anything else is looked at.
        return Err(Errno::Inval.into());
    }
    if let Some(file) = wasi.volume_file(fd)? {
        let target = seek(whence, offset, file.offset, || {
            Ok(wasi.volume(file.volume)?.size(file.inode)?)
        })?;
        wasi.set_volume_offset(fd, target)?;
        return Ok(memory.write_u64(position, target)?);
    }
    let file = wasi.descriptors.seekable(fd)?;
    let target = seek(whence, offset, file.offset, || {
        Ok(file.handle.metadata()?.len())
    })?;
    file.offset = target;
    Ok(memory.write_u64(position, target)?)
}

pub(crate) fn fd_tell(wasi: &mut Wasi, mut memory: Memory<'_>, fd: u32, position: u32) -> Outcome {
    let offset = match wasi.volume_file(fd)? {
        Some(file) => file.offset,
        None => wasi.descriptors.seekable(fd)?.offset,
    };
    Ok(memory.write_u64(position, offset)?)
}

pub(crate) fn fd_close(wasi: &mut Wasi, _memory: Memory<'_>, fd: u32) -> Outcome {
    let closed = wasi.descriptors.close(fd)?;
    Ok(wasi.release(Some(closed))?)
}

pub(crate) fn fd_renumber(wasi: &mut Wasi, _memory: Memory<'_>, fd: u32, to: u32) -> Outcome {
    let replaced = wasi.descriptors.renumber(fd, to)?;
    Ok(wasi.release(replaced)?)
}

pub(crate) fn fd_sync(wasi: &mut Wasi, _memory: Memory<'_>, fd: u32) -> Outcome {
    if wasi.volume_file(fd)?.is_some() {
        // It is as durable as the program's memory: by its next snapshot.
        return Ok(());
    }
    Ok(wasi.descriptors.file(fd)?.handle.sync_all()?)
}

pub(crate) fn fd_datasync(wasi: &mut Wasi, _memory: Memory<'_>, fd: u32) -> Outcome {
    if wasi.volume_file(fd)?.is_some() {
        return Ok(());
    }
    Ok(wasi.descriptors.file(fd)?.handle.sync_data()?)
}

pub(crate) fn fd_advise(
    wasi: &mut Wasi,
    _memory: Memory<'_>,
    fd: u32,
    offset: u64,
    length: u64,
    advice: u32,
) -> Outcome {
    let advice = match advice {
        0 => Advice::Normal,
        1 => Advice::Sequential,
        2 => Advice::Random,
        3 => Advice::WillNeed,
        4 => Advice::DontNeed,
        5 => Advice::NoReuse,
        _ => return Err(Errno::Inval.into()),
    };
    if wasi.volume_file(fd)?.is_some() {
        return Ok(check_offset(length, 0)?);
    }
    let file = wasi.descriptors.file(fd)?;
    Ok(fadvise(
        &file.handle,
        offset,
        NonZeroU64::new(length),
        advice,
    )?)
}

pub(crate) fn fd_allocate(
    wasi: &mut Wasi,
    _memory: Memory<'_>,
    fd: u32,
    offset: u64,
    length: u64,
) -> Outcome {
    if let Some(file) = wasi.volume_file(fd)? {
        if length == 0 {
            return Err(Errno::Inval.into());
        }
        check_offset(offset, 0)?;
        check_offset(length, 0)?;
        if !file.access.write {
            return Err(Errno::Badf.into());
        }
        let now_ns = wasi.clocks.realtime_ns();
        let volume = wasi.volume_mut(file.volume)?;
        return Ok(volume.allocate(file.inode, offset, length, now_ns)?);
    }
    let file = wasi.descriptors.file(fd)?;
    Ok(retry_on_intr(|| {
        fallocate(&file.handle, FallocateFlags::empty(), offset, length)
    })?)
}

pub(crate) fn fd_fdstat_get(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    fdstat: u32,
) -> Outcome {
    let stat = match wasi.descriptors.get(fd)? {
        Descriptor::Stream(standard) => {
            let rights = match standard {
                Standard::Input => Rights::FD_READ,
                Standard::Output | Standard::Error => Rights::FD_WRITE,
            };
            FdStat {
                file_type: wasi.streams.get(*standard)?.file_type,
                flags: FdFlags::empty(),
                rights_base: rights,
                rights_inheriting: rights,
            }
        }
        Descriptor::Directory(directory) if directory.preopened => preopen_stat(),
        Descriptor::VolumeDirectory(directory) if directory.preopened => preopen_stat(),
        Descriptor::Directory(directory) => directory_stat(directory.access),
        Descriptor::VolumeDirectory(directory) => directory_stat(directory.access),
        Descriptor::File(file) => file_stat(file.file_type, file.flags, file.access),
        Descriptor::VolumeFile(file) => file_stat(FileType::RegularFile, file.flags, file.access),
        Descriptor::Lost(_) => return Err(Errno::Stale.into()),
        Descriptor::Socket(socket) => socket.fdstat(),
    };
    Ok(memory.write(fdstat, &stat.to_bytes())?)
}

fn preopen_stat() -> FdStat {
    FdStat {
        file_type: FileType::Directory,
        flags: FdFlags::empty(),
        rights_base: PREOPEN_RIGHTS,
        rights_inheriting: PREOPEN_RIGHTS.union(PREOPEN_FILE_RIGHTS),
    }
}

fn directory_stat(access: Access) -> FdStat {
    let mut rights = Rights::all()
        - Rights::FD_SEEK
        - Rights::FD_FILESTAT_SET_SIZE
        - Rights::PATH_FILESTAT_SET_SIZE;
    rights.set(Rights::FD_WRITE, access.write);
    FdStat {
        file_type: FileType::Directory,
        flags: FdFlags::empty(),
        rights_base: rights,
        rights_inheriting: rights,
    }
}

fn file_stat(file_type: FileType, flags: FdFlags, access: Access) -> FdStat {
    let mut rights = Rights::all();
    rights.set(Rights::FD_READ | Rights::FD_READDIR, access.read);
    rights.set(Rights::FD_WRITE, access.write);
    FdStat {
        file_type,
        flags,
        rights_base: rights,
        rights_inheriting: rights,
    }
}

/// What programs expect of a granted directory; the same set as wasmtime's.
const PREOPEN_RIGHTS: Rights = Rights::PATH_CREATE_DIRECTORY
    .union(Rights::PATH_CREATE_FILE)
    .union(Rights::PATH_LINK_SOURCE)
    .union(Rights::PATH_LINK_TARGET)
    .union(Rights::PATH_OPEN)
    .union(Rights::FD_READDIR)
    .union(Rights::PATH_READLINK)
    .union(Rights::PATH_RENAME_SOURCE)
    .union(Rights::PATH_RENAME_TARGET)
    .union(Rights::PATH_SYMLINK)
    .union(Rights::PATH_REMOVE_DIRECTORY)
    .union(Rights::PATH_UNLINK_FILE)
    .union(Rights::PATH_FILESTAT_GET)
    .union(Rights::PATH_FILESTAT_SET_TIMES)
    .union(Rights::FD_FILESTAT_GET)
    .union(Rights::FD_FILESTAT_SET_TIMES);

/// What files opened below a granted directory can have in addition.
const PREOPEN_FILE_RIGHTS: Rights = Rights::FD_DATASYNC
    .union(Rights::FD_READ)
    .union(Rights::FD_SEEK)
    .union(Rights::FD_FDSTAT_SET_FLAGS)
    .union(Rights::FD_SYNC)
    .union(Rights::FD_TELL)
    .union(Rights::FD_WRITE)
    .union(Rights::FD_ADVISE)
    .union(Rights::FD_ALLOCATE)
    .union(Rights::FD_FILESTAT_SET_SIZE)
    .union(Rights::POLL_FD_READWRITE);

pub(crate) fn fd_fdstat_set_flags(
    wasi: &mut Wasi,
    _memory: Memory<'_>,
    fd: u32,
    raw_flags: u32,
) -> Outcome {
    let new_flags: FdFlags = flags(raw_flags)?;
    let old_flags = match wasi.descriptors.get_mut(fd)? {
        Descriptor::File(file) => &mut file.flags,
        Descriptor::VolumeFile(file) => &mut file.flags,
        Descriptor::Socket(socket) => return Ok(socket.set_flags(new_flags)?),
        _ => return Err(Errno::Badf.into()),
    };
    if new_flags.intersects(FdFlags::DSYNC | FdFlags::RSYNC | FdFlags::SYNC) {
        return Err(Errno::Inval.into());
    }
    *old_flags = new_flags;
    Ok(())
}

/// Rights follow from how a descriptor was opened and cannot be given away, as under wasmtime.
pub(crate) fn fd_fdstat_set_rights(
    wasi: &mut Wasi,
    _memory: Memory<'_>,
    fd: u32,
    base: u64,
    inheriting: u64,
) -> Outcome {
    for rights in [base, inheriting] {
        Rights::from_bits(rights).ok_or(Errno::Inval)?;
    }
    match wasi.descriptors.get(fd)? {
        Descriptor::Stream(_) | Descriptor::Socket(_) => Err(Errno::Badf.into()),
        Descriptor::Lost(_) => Err(Errno::Stale.into()),
        Descriptor::Directory(_)
        | Descriptor::File(_)
        | Descriptor::VolumeDirectory(_)
        | Descriptor::VolumeFile(_) => Err(Errno::Notsup.into()),
    }
}

pub(crate) fn fd_filestat_get(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    filestat: u32,
) -> Outcome {
    let stat = match wasi.descriptors.get(fd)? {
        Descriptor::Stream(standard) => {
            FileStat::of_no_file(wasi.streams.get(*standard)?.file_type)
        }
        Descriptor::Socket(_) => FileStat::of_no_file(FileType::SocketStream),
        Descriptor::Directory(directory) => {
            wasi.stat(&directory.handle.dir_metadata()?, &directory.origin)
        }
        Descriptor::File(file) => wasi.stat(&file.handle.metadata()?, &file.origin),
        Descriptor::VolumeDirectory(directory) => {
            wasi.volume_stat(directory.volume, directory.inode)?
        }
        Descriptor::VolumeFile(file) => wasi.volume_stat(file.volume, file.inode)?,
        Descriptor::Lost(_) => return Err(Errno::Stale.into()),
    };
    Ok(memory.write(filestat, &stat.to_bytes())?)
}

pub(crate) fn fd_filestat_set_size(
    wasi: &mut Wasi,
    _memory: Memory<'_>,
    fd: u32,
    size: u64,
) -> Outcome {
    if let Some(file) = wasi.volume_file(fd)? {
        check_offset(size, 0)?;
        if !file.access.write {
            return Err(Errno::Inval.into());
        }
        let now_ns = wasi.clocks.realtime_ns();
        let volume = wasi.volume_mut(file.volume)?;
        return Ok(volume.set_size(file.inode, size, now_ns)?);
    }
    Ok(wasi.descriptors.file(fd)?.handle.set_len(size)?)
}

pub(crate) fn fd_filestat_set_times(
    wasi: &mut Wasi,
    _memory: Memory<'_>,
    fd: u32,
    atim: u64,
    mtim: u64,
    raw_flags: u32,
) -> Outcome {
    let times = NewTimes::new(wasi, atim, mtim, flags(raw_flags)?)?;
    if let Some((volume, inode)) = wasi.descriptors.get(fd)?.in_volume() {
        return Ok(wasi.set_volume_times(volume, inode, &times)?);
    }
    let times = Timestamps {
        last_access: timespec(times.accessed),
        last_modification: timespec(times.modified),
    };
    match wasi.descriptors.get(fd)? {
        Descriptor::Stream(_)
        | Descriptor::Socket(_)
        | Descriptor::VolumeDirectory(_)
        | Descriptor::VolumeFile(_) => {
            return Err(Errno::Badf.into());
        }
        // By a path, because the descriptor of a directory may be good for nothing else.
        Descriptor::Directory(directory) => {
            utimensat(&directory.handle, ".", &times, AtFlags::empty())?;
        }
        Descriptor::File(file) => rustix::fs::futimens(&file.handle, &times)?,
        Descriptor::Lost(_) => return Err(Errno::Stale.into()),
    }
    Ok(())
}

fn timespec(time: Option<SystemTime>) -> Timespec {
    let since_epoch = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since_epoch.map_or(
        Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        |since_epoch| Timespec {
            tv_sec: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: since_epoch.subsec_nanos().into(),
        },
    )
}
