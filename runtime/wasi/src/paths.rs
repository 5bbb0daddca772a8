//! The functions on paths. cap-std resolves them, and none leaves the granted directory.

use crate::calls::Outcome;
use crate::descriptors::{Access, Descriptor, Directory, File};
use crate::errno::Errno;
use crate::memory::Memory;
use crate::stat::NewTimes;
use crate::types::{FdFlags, FileType, LookupFlags, OFlags, Rights, flags};
use crate::wasi::Wasi;
use cap_fs_ext::{DirExt as _, FollowSymlinks, OpenOptionsFollowExt as _, SystemTimeSpec};
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use std::time::SystemTime;

pub(crate) fn path_create_directory(
    wasi: &mut Wasi,
    memory: Memory<'_>,
    fd: u32,
    path: u32,
    path_length: u32,
) -> Outcome {
    let directory = wasi.descriptors.directory(fd)?;
    Ok(directory
        .handle
        .create_dir(memory.path(path, path_length)?)?)
}

pub(crate) fn path_remove_directory(
    wasi: &mut Wasi,
    memory: Memory<'_>,
    fd: u32,
    path: u32,
    path_length: u32,
) -> Outcome {
    let directory = wasi.descriptors.directory(fd)?;
    Ok(directory
        .handle
        .remove_dir(memory.path(path, path_length)?)?)
}

pub(crate) fn path_unlink_file(
    wasi: &mut Wasi,
    memory: Memory<'_>,
    fd: u32,
    path: u32,
    path_length: u32,
) -> Outcome {
    let directory = wasi.descriptors.directory(fd)?;
    Ok(directory
        .handle
        .remove_file(memory.path(path, path_length)?)?)
}

pub(crate) fn path_filestat_get(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    lookup: u32,
    path: u32,
    path_length: u32,
    filestat: u32,
) -> Outcome {
    memory.check(filestat, 64)?;
    let lookup: LookupFlags = flags(lookup)?;
    let directory = wasi.descriptors.directory(fd)?;
    let path = memory.path(path, path_length)?;
    let metadata = if lookup.contains(LookupFlags::SYMLINK_FOLLOW) {
        directory.handle.metadata(path)?
    } else {
        directory.handle.symlink_metadata(path)?
    };
    let stat = wasi.stat(&metadata, &directory.origin.join(path));
    Ok(memory.write(filestat, &stat.to_bytes())?)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parameters are those of preview 1"
)]
pub(crate) fn path_filestat_set_times(
    wasi: &mut Wasi,
    memory: Memory<'_>,
    fd: u32,
    lookup: u32,
    path: u32,
    path_length: u32,
    atim: u64,
    mtim: u64,
    raw_flags: u32,
) -> Outcome {
    let lookup: LookupFlags = flags(lookup)?;
    let times = NewTimes::new(wasi, atim, mtim, flags(raw_flags)?)?;
    let absolute = |time: Option<SystemTime>| {
        time.map(cap_std::time::SystemTime::from_std)
            .map(SystemTimeSpec::Absolute)
    };
    let (accessed, modified) = (absolute(times.accessed), absolute(times.modified));
    let directory = wasi.descriptors.directory(fd)?;
    let path = memory.path(path, path_length)?;
    if lookup.contains(LookupFlags::SYMLINK_FOLLOW) {
        directory.handle.set_times(path, accessed, modified)?;
    } else {
        let handle = &directory.handle;
        handle.set_symlink_times(path, accessed, modified)?;
    }
    Ok(())
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parameters are those of preview 1"
)]
pub(crate) fn path_link(
    wasi: &mut Wasi,
    memory: Memory<'_>,
    old_fd: u32,
    lookup: u32,
    old_path: u32,
    old_path_length: u32,
    new_fd: u32,
    new_path: u32,
    new_path_length: u32,
) -> Outcome {
    let lookup: LookupFlags = flags(lookup)?;
    let old_directory = wasi.descriptors.directory(old_fd)?;
    let new_directory = wasi.descriptors.directory(new_fd)?;
    let old_path = memory.path(old_path, old_path_length)?;
    let new_path = memory.path(new_path, new_path_length)?;
    // A link to what a symbolic link points to cannot be made without a race; wasmtime refuses it too.
    if lookup.contains(LookupFlags::SYMLINK_FOLLOW) {
        return Err(Errno::Inval.into());
    }
    let handle = &old_directory.handle;
    Ok(handle.hard_link(old_path, &new_directory.handle, new_path)?)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parameters are those of preview 1"
)]
pub(crate) fn path_rename(
    wasi: &mut Wasi,
    memory: Memory<'_>,
    fd: u32,
    old_path: u32,
    old_path_length: u32,
    new_fd: u32,
    new_path: u32,
    new_path_length: u32,
) -> Outcome {
    let old_directory = wasi.descriptors.directory(fd)?;
    let new_directory = wasi.descriptors.directory(new_fd)?;
    let old_path = memory.path(old_path, old_path_length)?;
    let new_path = memory.path(new_path, new_path_length)?;
    let handle = &old_directory.handle;
    handle.rename(old_path, &new_directory.handle, new_path)?;
    let from = old_directory.origin.join(old_path);
    let to = new_directory.origin.join(new_path);
    wasi.descriptors.follow_rename(&from, &to);
    Ok(())
}

pub(crate) fn path_symlink(
    wasi: &mut Wasi,
    memory: Memory<'_>,
    old_path: u32,
    old_path_length: u32,
    fd: u32,
    new_path: u32,
    new_path_length: u32,
) -> Outcome {
    let directory = wasi.descriptors.directory(fd)?;
    let target = memory.path(old_path, old_path_length)?;
    let link = memory.path(new_path, new_path_length)?;
    Ok(directory.handle.symlink(target, link)?)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parameters are those of preview 1"
)]
pub(crate) fn path_readlink(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    path: u32,
    path_length: u32,
    buf: u32,
    buf_length: u32,
    used: u32,
) -> Outcome {
    memory.check(buf, buf_length)?;
    memory.check(used, 4)?;
    let directory = wasi.descriptors.directory(fd)?;
    let target = directory
        .handle
        .read_link(memory.path(path, path_length)?)?;
    let target = target.to_str().ok_or(Errno::Ilseq)?.as_bytes();
    // Like POSIX's readlink: what does not fit is cut off without an error.
    let room = usize::try_from(buf_length).map_err(|_| Errno::Overflow)?;
    let stored = &target[..target.len().min(room)];
    memory.write(buf, stored)?;
    let length = u32::try_from(stored.len()).map_err(|_| Errno::Overflow)?;
    Ok(memory.write_u32(used, length)?)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parameters are those of preview 1"
)]
pub(crate) fn path_open(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    lookup: u32,
    path: u32,
    path_length: u32,
    oflags: u32,
    rights_base: u64,
    rights_inheriting: u64,
    fdflags: u32,
    opened: u32,
) -> Outcome {
    memory.check(opened, 4)?;
    let request = OpenRequest {
        lookup: flags(lookup)?,
        oflags: flags(oflags)?,
        rights: Rights::from_bits(rights_base).ok_or(Errno::Inval)?,
        fdflags: flags(fdflags)?,
    };
    Rights::from_bits(rights_inheriting).ok_or(Errno::Inval)?;
    let path = memory.path(path, path_length)?;
    let directory = match wasi.descriptors.get(fd)? {
        Descriptor::Directory(directory) => directory,
        Descriptor::File(_) => return Err(Errno::Notdir.into()),
        Descriptor::Stream(_) => return Err(Errno::Badf.into()),
        Descriptor::Lost(_) => return Err(Errno::Stale.into()),
    };
    let descriptor = request.open(directory, path)?;
    let number = wasi.descriptors.insert(descriptor)?;
    Ok(memory.write_u32(opened, number)?)
}

struct OpenRequest {
    lookup: LookupFlags,
    oflags: OFlags,
    rights: Rights,
    fdflags: FdFlags,
}

impl OpenRequest {
    /// What the host is asked for. Whoever does not want to write reads: opening needs one of the two.
    fn access(&self) -> Access {
        let write = self.rights.contains(Rights::FD_WRITE);
        Access {
            read: self.rights.contains(Rights::FD_READ) || !write,
            write: write || self.oflags.intersects(OFlags::CREAT | OFlags::TRUNC),
        }
    }

    fn open(&self, directory: &Directory, path: &str) -> Result<Descriptor, Errno> {
        let synchronous = FdFlags::DSYNC | FdFlags::RSYNC | FdFlags::SYNC;
        if self.fdflags.intersects(synchronous) {
            return Err(Errno::Notsup);
        }
        let (directory_only, changing) = (
            self.oflags.contains(OFlags::DIRECTORY),
            OFlags::CREAT | OFlags::EXCL | OFlags::TRUNC,
        );
        if directory_only && self.oflags.intersects(changing) {
            return Err(Errno::Inval);
        }
        let access = self.access();
        let mut options = open_options(access);
        let create = self.oflags.contains(OFlags::CREAT);
        let exclusive = self.oflags.contains(OFlags::EXCL);
        options
            .create(create && !exclusive)
            .create_new(create && exclusive)
            .truncate(self.oflags.contains(OFlags::TRUNC));
        let follow = self.lookup.contains(LookupFlags::SYMLINK_FOLLOW);
        options.follow(if follow {
            FollowSymlinks::Yes
        } else {
            FollowSymlinks::No
        });
        let handle = directory.handle.open_with(path, &options)?;
        let file_type = FileType::from(handle.metadata()?.file_type());
        let origin = directory.origin.join(path);
        if file_type == FileType::Directory {
            return Ok(Descriptor::Directory(Directory {
                handle: Dir::from_std_file(handle.into_std()),
                origin,
                preopened: false,
                access,
            }));
        }
        if directory_only {
            return Err(Errno::Notdir);
        }
        Ok(Descriptor::File(File {
            handle,
            origin,
            offset: 0,
            flags: self.fdflags,
            access,
            file_type,
        }))
    }
}

/// Opens what exists. Non-blocking, because opening a named pipe would otherwise wait for its other end, out of reach
/// of an interruption; regular files don't mind.
pub(crate) fn open_options(access: Access) -> OpenOptions {
    let mut options = OpenOptions::new();
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    options
        .read(access.read)
        .write(access.write)
        .custom_flags(nonblocking);
    options
}
