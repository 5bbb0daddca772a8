//! Granted directories, and listing directories.
//!
//! # Cookies
//!
//! A listing is ordered by a hash of the names, and an entry's cookie is that hash. So a cookie means the same whatever
//! is created or removed while a program reads a directory, in another process and on another host too, and nothing
//! about a listing under way has to be kept or saved. `.` and `..` come first, with the cookies 1 and 2.

use crate::calls::{Failure, Outcome};
use crate::descriptors::{Descriptor, Directory, VolumeDirectory};
use crate::errno::Errno;
use crate::memory::Memory;
use crate::stat::hash64;
use crate::types::FileType;
use crate::volume_calls::volume_inode;
use crate::wasi::Wasi;
use cap_std::fs::MetadataExt as _;
use std::io;
use std::os::unix::fs::DirEntryExt as _;

const COOKIE_SELF: u64 = 1;
const COOKIE_PARENT: u64 = 2;
/// The first that a name's hash can be.
const COOKIE_FIRST: u64 = 3;

struct Entry {
    cookie: u64,
    inode: u64,
    file_type: FileType,
    name: String,
}

impl Entry {
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

/// The entries after the one whose cookie is `after`, in the order of the listing.
fn entries(wasi: &Wasi, fd: u32, after: u64) -> Result<Vec<Entry>, Failure> {
    let mut entries = match wasi.descriptors.get(fd)? {
        Descriptor::VolumeDirectory(directory) => volume_entries(wasi, directory)?,
        _ => host_entries(wasi, wasi.descriptors.directory(fd)?)?,
    };
    entries.retain(|entry| entry.cookie > after);
    entries.sort_unstable_by(|a, b| (a.cookie, &a.name).cmp(&(b.cookie, &b.name)));
    Ok(entries)
}

/// `.` and `..`. The parent may lie outside of what is granted: like wasmtime we name the directory itself instead.
fn own_entries(own_inode: u64) -> Vec<Entry> {
    let own = [(COOKIE_SELF, "."), (COOKIE_PARENT, "..")];
    let own = own.map(|(cookie, name)| Entry {
        cookie,
        inode: own_inode,
        file_type: FileType::Directory,
        name: name.to_owned(),
    });
    own.into()
}

fn cookie(name: &str) -> u64 {
    hash64(name.as_bytes()).max(COOKIE_FIRST)
}

fn volume_entries(wasi: &Wasi, directory: &VolumeDirectory) -> Result<Vec<Entry>, Errno> {
    let mut entries = own_entries(volume_inode(directory.inode));
    let listed = wasi.volume(directory.volume)?.list(directory.inode)?;
    entries.extend(listed.map(|(name, inode, file_type)| Entry {
        cookie: cookie(name),
        inode: volume_inode(inode),
        file_type,
        name: name.to_owned(),
    }));
    Ok(entries)
}

fn host_entries(wasi: &Wasi, directory: &Directory) -> io::Result<Vec<Entry>> {
    let metadata = directory.handle.dir_metadata()?;
    let own_inode = wasi.inode(metadata.dev(), metadata.ino(), &directory.origin);
    let mut entries = own_entries(own_inode);
    for entry in directory.handle.entries()? {
        let entry = entry?;
        let name = entry.file_name().into_string();
        let name = name.map_err(|_| rustix::io::Errno::ILSEQ)?;
        let file_type = match entry.file_type() {
            // Where the listing does not tell types, the entry was looked at, and it has gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file_type => file_type?.into(),
        };
        let origin = directory.origin.join(&name);
        entries.push(Entry {
            cookie: cookie(&name),
            inode: wasi.inode(metadata.dev(), entry.ino(), &origin),
            file_type,
            name,
        });
    }
    Ok(entries)
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
    let mut rest = memory.bytes_mut(buf, buf_length)?;
    for entry in entries(wasi, fd, cookie)? {
        // A record that is cut off tells the guest that the buffer was too small for it.
        for part in [&entry.header()[..], entry.name.as_bytes()] {
            let length = part.len().min(rest.len());
            let (slot, tail) = rest.split_at_mut(length);
            slot.copy_from_slice(&part[..length]);
            rest = tail;
        }
        if rest.is_empty() {
            break;
        }
    }
    let unused = u32::try_from(rest.len()).map_err(|_| Errno::Overflow)?;
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
