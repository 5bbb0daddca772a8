//! Granted directories, and listing directories.
//!
//! # Cookies
//!
//! A listing is ordered by a hash of the names, and an entry's cookie is that hash. So a cookie means the same whatever
//! is created or removed while a program reads a directory, in another process and on another host too, and nothing
//! about a listing under way has to be kept or saved. `.` and `..` come first, with the cookies 1 and 2.

use crate::calls::{Failure, Outcome};
use crate::descriptors::{Descriptor, VolumeDirectory};
use crate::errno::Errno;
use crate::memory::Memory;
use crate::types::FileType;
use crate::volume_calls::volume_inode;
use crate::wasi::Wasi;
use cap_std::fs::MetadataExt as _;

const COOKIE_SELF: u64 = 1;
const COOKIE_PARENT: u64 = 2;

struct Entry<'a> {
    cookie: u64,
    inode: u64,
    file_type: FileType,
    name: &'a str,
}

impl Entry<'_> {
    /// The record `dirent`, 24 bytes, to be followed by the name.
    fn header(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[0..8].copy_from_slice(&self.cookie.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.inode.to_le_bytes());
        // No file system has names of 4 GiB.
        bytes[16..20].copy_from_slice(&(self.name.len() as u32).to_le_bytes());
        bytes[20] = self.file_type as u8;
        bytes
    }
}

/// `.` and `..`. The parent may lie outside of what is granted: like wasmtime we name the directory itself instead.
fn own_entries(own_inode: u64) -> [Entry<'static>; 2] {
    [(COOKIE_SELF, "."), (COOKIE_PARENT, "..")].map(|(cookie, name)| Entry {
        cookie,
        inode: own_inode,
        file_type: FileType::Directory,
        name,
    })
}

/// What the guest has of a listing: the bytes that are left of its buffer.
struct Buffer<'m>(&'m mut [u8]);

impl Buffer<'_> {
    /// Stores entries, as far as they fit. A record that is cut off tells the guest that the buffer was too small for it.
    fn store<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>>) {
        for entry in entries {
            for part in [&entry.header()[..], entry.name.as_bytes()] {
                let length = part.len().min(self.0.len());
                let (slot, tail) = std::mem::take(&mut self.0).split_at_mut(length);
                slot.copy_from_slice(&part[..length]);
                self.0 = tail;
            }
            if self.0.is_empty() {
                return;
            }
        }
    }
}

fn list_volume(
    wasi: &Wasi,
    directory: &VolumeDirectory,
    after: u64,
    to: &mut Buffer<'_>,
) -> Result<(), Failure> {
    let own = own_entries(volume_inode(directory.inode));
    to.store(own.into_iter().filter(|entry| entry.cookie > after));
    let listed = wasi.volume(directory.volume)?;
    let listed = listed.list(directory.inode, after)?;
    to.store(listed.map(|(cookie, name, inode, file_type)| Entry {
        cookie,
        inode: volume_inode(inode),
        file_type,
        name,
    }));
    Ok(())
}

fn list_host(wasi: &mut Wasi, fd: u32, after: u64, to: &mut Buffer<'_>) -> Result<(), Failure> {
    let (listing, metadata) = wasi.host_listing(fd)?;
    let origin = &wasi.descriptors.directory(fd)?.origin;
    let own = own_entries(wasi.inode(metadata.dev(), metadata.ino(), origin));
    to.store(own.into_iter().filter(|entry| entry.cookie > after));
    to.store(listing.after(after).iter().map(|entry| Entry {
        cookie: entry.cookie,
        inode: wasi.inode(metadata.dev(), entry.inode, &origin.join(&entry.name)),
        file_type: entry.file_type,
        name: &entry.name,
    }));
    Ok(())
}

pub(crate) fn fd_readdir(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    buf: u32,
    buf_length: u32,
    cookie: u64,
    used: u32,
) -> Outcome {
    memory.check(used, 4)?;
    let mut buffer = Buffer(memory.bytes_mut(buf, buf_length)?);
    match wasi.descriptors.get(fd)? {
        Descriptor::VolumeDirectory(directory) => {
            list_volume(wasi, directory, cookie, &mut buffer)?;
        }
        _ => list_host(wasi, fd, cookie, &mut buffer)?,
    }
    let unused = u32::try_from(buffer.0.len()).map_err(|_| Errno::Overflow)?;
    Ok(memory.write_u32(used, buf_length - unused)?)
}

/// The name under which a granted directory is known; none for any other descriptor that is open.
fn preopen_name(wasi: &Wasi, fd: u32) -> Result<Option<String>, Errno> {
    match wasi.descriptors.get(fd)? {
        Descriptor::Directory(directory) if directory.preopened => {
            Ok(Some(wasi.guest_path(&directory.origin)))
        }
        Descriptor::VolumeDirectory(directory) if directory.preopened => {
            Ok(Some(wasi.volume(directory.volume)?.guest_path().to_owned()))
        }
        _ => Ok(None),
    }
}

pub(crate) fn fd_prestat_get(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    prestat: u32,
) -> Outcome {
    let name = preopen_name(wasi, fd)?.ok_or(Errno::Badf)?;
    let length = u32::try_from(name.len()).map_err(|_| Errno::Overflow)?;
    // The record `prestat`: its tag, 0 for a directory, and the length of the name.
    Ok(memory.write_u64(prestat, u64::from(length) << 32)?)
}

pub(crate) fn fd_prestat_dir_name(
    wasi: &mut Wasi,
    mut memory: Memory<'_>,
    fd: u32,
    path: u32,
    path_length: u32,
) -> Outcome {
    let name = preopen_name(wasi, fd)?.ok_or(Errno::Notdir)?;
    if u32::try_from(name.len()).is_ok_and(|length| length <= path_length) {
        Ok(memory.write(path, name.as_bytes())?)
    } else {
        Err(Errno::Nametoolong.into())
    }
}
