//! The functions on paths. cap-std resolves them, and none leaves the granted directory.

use crate::calls::Outcome;
use crate::descriptors::{Access, Descriptor, Directory, File};
use crate::errno::Errno;
use crate::memory::Memory;
use crate::stat::NewTimes;
use crate::types::{FdFlags, FileType, LookupFlags, OFlags, Rights, flags};
use crate::volume::without_slash;
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
    let now_ns = wasi.clocks.realtime_ns();
    if let Some((volume, base)) = wasi.volume_directory(fd)? {
        let path = memory.path(path, path_length)?;
        return Ok(volume.create_directory(base, path, now_ns)?);
    }
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
    wasi.descriptors.check_directory(fd)?;
    // A slash at the end says that it is a directory, which it has to be anyway; cap-std takes it for a `.`.
    let path = memory.path(path, path_length)?;
    let path = without_slash(path);
    let now_ns = wasi.clocks.realtime_ns();
    if let Some((volume, base)) = wasi.volume_directory(fd)? {
        return Ok(volume.remove_directory(base, path, now_ns)?);
    }
    let directory = wasi.descriptors.directory(fd)?;
    Ok(directory.handle.remove_dir(path)?)
}

pub(crate) fn path_unlink_file(
    wasi: &mut Wasi,
    memory: Memory<'_>,
    fd: u32,
    path: u32,
    path_length: u32,
) -> Outcome {
    let now_ns = wasi.clocks.realtime_ns();
    if let Some((volume, base)) = wasi.volume_directory(fd)? {
        let path = memory.path(path, path_length)?;
        return Ok(volume.unlink(base, path, now_ns)?);
    }
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
    if let Descriptor::VolumeDirectory(directory) = *wasi.descriptors.get(fd)? {
        let path = memory.path(path, path_length)?;
        let follow = lookup.contains(LookupFlags::SYMLINK_FOLLOW);
        let volume = wasi.volume(directory.volume)?;
        let inode = volume.inode_at(directory.inode, path, follow)?;
        let stat = wasi.volume_stat(directory.volume, inode)?;
        return Ok(memory.write(filestat, &stat.to_bytes())?);
    }
    let directory = wasi.descriptors.directory(fd)?;
    let path = memory.path(path, path_length)?;
    let metadata = if follows(lookup, path) {
        directory.handle.metadata(path)?
    } else {
        directory.handle.symlink_metadata(path)?
    };
    let stat = wasi.stat(&metadata, &directory.origin.join(path));
    Ok(memory.write(filestat, &stat.to_bytes())?)
}

/// Whether a link at the end of `path` is followed. A slash after it asks for the directory that it leads to; cap-std would
/// forget what follows the name.
fn follows(lookup: LookupFlags, path: &str) -> bool {
    let is_directory = path.ends_with('/') || path.ends_with("/.");
    lookup.contains(LookupFlags::SYMLINK_FOLLOW) || is_directory
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
    if let Descriptor::VolumeDirectory(directory) = *wasi.descriptors.get(fd)? {
        let path = memory.path(path, path_length)?;
        let follow = lookup.contains(LookupFlags::SYMLINK_FOLLOW);
        let volume = wasi.volume(directory.volume)?;
        let inode = volume.inode_at(directory.inode, path, follow)?;
        return Ok(wasi.set_volume_times(directory.volume, inode, &times)?);
    }
    let absolute = |time: Option<SystemTime>| {
        time.map(cap_std::time::SystemTime::from_std)
            .map(SystemTimeSpec::Absolute)
    };
    let (accessed, modified) = (absolute(times.accessed), absolute(times.modified));
    let directory = wasi.descriptors.directory(fd)?;
    let path = memory.path(path, path_length)?;
    if follows(lookup, path) {
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
    let now_ns = wasi.clocks.realtime_ns();
    if let Some((volume, old_base, new_base)) = wasi.volume_directories(old_fd, new_fd)? {
        let old_path = memory.path(old_path, old_path_length)?;
        let new_path = memory.path(new_path, new_path_length)?;
        if lookup.contains(LookupFlags::SYMLINK_FOLLOW) {
            return Err(Errno::Inval.into());
        }
        return Ok(volume.link((old_base, old_path), (new_base, new_path), now_ns)?);
    }
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
    let now_ns = wasi.clocks.realtime_ns();
    if let Some((volume, old_base, new_base)) = wasi.volume_directories(fd, new_fd)? {
        let old_path = memory.path(old_path, old_path_length)?;
        let new_path = memory.path(new_path, new_path_length)?;
        return Ok(volume.rename((old_base, old_path), (new_base, new_path), now_ns)?);
    }
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
    let now_ns = wasi.clocks.realtime_ns();
    wasi.descriptors.check_directory(fd)?;
    let target = memory.path(old_path, old_path_length)?;
    let link = memory.path(new_path, new_path_length)?;
    if let Some((volume, base)) = wasi.volume_directory(fd)? {
        return Ok(volume.create_link(target, base, link, now_ns)?);
    }
    let directory = wasi.descriptors.directory(fd)?;
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
    wasi.descriptors.check_directory(fd)?;
    let path = memory.path(path, path_length)?;
    let target = match wasi.volume_directory(fd)? {
        Some((volume, base)) => volume.read_link(base, path)?.to_owned(),
        None => {
            let target = wasi.descriptors.directory(fd)?.handle.read_link(path)?;
            target.to_str().ok_or(Errno::Ilseq)?.to_owned()
        }
    };
    let target = target.as_bytes();
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
        Descriptor::VolumeDirectory(directory) => {
            let directory = *directory;
            let descriptor = wasi.open_in_volume(&directory, path, &request)?;
            let inode = descriptor.in_volume();
            return match wasi.descriptors.insert(descriptor) {
                Ok(number) => Ok(memory.write_u32(opened, number)?),
                Err(error) => {
                    if let Some((volume, inode)) = inode {
                        wasi.volume_mut(volume)?.close(inode)?;
                    }
                    Err(error.into())
                }
            };
        }
        Descriptor::File(_) | Descriptor::VolumeFile(_) => return Err(Errno::Notdir.into()),
        Descriptor::Stream(_) | Descriptor::Socket(_) => return Err(Errno::Badf.into()),
        Descriptor::Lost(_) => return Err(Errno::Stale.into()),
    };
    let descriptor = request.open(directory, path)?;
    let number = wasi.descriptors.insert(descriptor)?;
    Ok(memory.write_u32(opened, number)?)
}

/// What `path_open` is asked for.
pub(crate) struct OpenRequest {
    pub lookup: LookupFlags,
    pub oflags: OFlags,
    pub rights: Rights,
    pub fdflags: FdFlags,
}

impl OpenRequest {
    /// How it is opened. Whoever does not want to write reads: opening needs one of the two.
    ///
    /// # Errors
    ///
    /// [`Errno::Notsup`] and [`Errno::Inval`] for flags that cannot be had, or not together.
    pub(crate) fn access(&self) -> Result<Access, Errno> {
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
        let write = self.rights.contains(Rights::FD_WRITE);
        Ok(Access {
            read: self.rights.contains(Rights::FD_READ) || !write,
            write: write || self.oflags.intersects(OFlags::CREAT | OFlags::TRUNC),
        })
    }

    fn open(&self, directory: &Directory, path: &str) -> Result<Descriptor, Errno> {
        let access = self.access()?;
        let directory_only = self.oflags.contains(OFlags::DIRECTORY);
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
