//! The table of open descriptors.

use crate::errno::Errno;
use crate::sockets::Socket;
use crate::streams::Standard;
use crate::types::{FdFlags, FileType};
use crate::volume::Inode;
use cap_std::fs::Dir;

/// Where something was opened: a path below a granted directory. This, not the host's idea of the file, is what a
/// saved program remembers of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Index into the granted directories.
    pub preopen: u32,
    /// Relative, without empty or `.` components; `.` is the granted directory itself.
    pub path: String,
}

impl Origin {
    /// A granted directory itself.
    pub(crate) fn of_preopen(preopen: u32) -> Origin {
        let path = ".".to_owned();
        Origin { preopen, path }
    }

    /// The origin of `path` relative to the directory that this is the origin of.
    pub(crate) fn join(&self, path: &str) -> Origin {
        let parts = self.path.split('/').chain(path.split('/'));
        let mut joined = String::with_capacity(self.path.len() + 1 + path.len());
        for part in parts.filter(|part| !part.is_empty() && *part != ".") {
            if !joined.is_empty() {
                joined.push('/');
            }
            joined.push_str(part);
        }
        if joined.is_empty() {
            joined.push('.');
        }
        Origin {
            preopen: self.preopen,
            path: joined,
        }
    }

    /// Follows a rename of `from`, or of a directory above this, to `to`.
    fn follow_rename(&mut self, from: &Origin, to: &Origin) {
        if self.preopen != from.preopen {
            return;
        }
        let rest = match self.path.strip_prefix(&from.path) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
            _ => return,
        };
        let path = format!("{}{rest}", to.path);
        *self = Origin {
            preopen: to.preopen,
            path,
        };
    }
}

/// How something was opened; the host enforces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// It can be read.
    pub read: bool,
    /// It can be written.
    pub write: bool,
}

pub(crate) struct Directory {
    pub handle: Dir,
    pub origin: Origin,
    /// One of the granted directories, which the guest finds with `fd_prestat_get`.
    pub preopened: bool,
    pub access: Access,
}

pub(crate) struct File {
    pub handle: cap_std::fs::File,
    pub origin: Origin,
    pub offset: u64,
    /// Only [`FdFlags::APPEND`] and [`FdFlags::NONBLOCK`] can be set.
    pub flags: FdFlags,
    pub access: Access,
    pub file_type: FileType,
}

pub(crate) enum Descriptor {
    Stream(Standard),
    Directory(Directory),
    File(File),
    Socket(Socket),
    /// What was opened there could not be opened again when the program was resumed, and whoever did that accepts it.
    Lost(Origin),
    VolumeDirectory(VolumeDirectory),
    VolumeFile(VolumeFile),
}

/// A directory in a volume.
#[derive(Clone, Copy)]
pub(crate) struct VolumeDirectory {
    /// The volume, by index.
    pub volume: usize,
    pub inode: Inode,
    /// The root, which the guest finds with `fd_prestat_get`.
    pub preopened: bool,
    pub access: Access,
}

/// A file in a volume.
#[derive(Clone, Copy)]
pub(crate) struct VolumeFile {
    /// The volume, by index.
    pub volume: usize,
    pub inode: Inode,
    pub offset: u64,
    /// Only [`FdFlags::APPEND`] and [`FdFlags::NONBLOCK`] can be set.
    pub flags: FdFlags,
    pub access: Access,
}

impl Descriptor {
    /// The volume, by index, and the inode that it is a descriptor of.
    pub(crate) fn in_volume(&self) -> Option<(usize, Inode)> {
        match self {
            Descriptor::VolumeDirectory(directory) => Some((directory.volume, directory.inode)),
            Descriptor::VolumeFile(file) => Some((file.volume, file.inode)),
            _ => None,
        }
    }

    /// Where it was opened; standard streams and sockets have no such place.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        match self {
            Descriptor::Stream(_)
            | Descriptor::Socket(_)
            | Descriptor::VolumeDirectory(_)
            | Descriptor::VolumeFile(_) => None,
            Descriptor::Directory(directory) => Some(&directory.origin),
            Descriptor::File(file) => Some(&file.origin),
            Descriptor::Lost(origin) => Some(origin),
        }
    }
}

/// Numbers stay below this, so that a saved table from a stranger cannot demand an absurd amount of memory.
pub(crate) const DESCRIPTORS_MAX: u32 = 1 << 16;

/// Descriptors by number. A new one takes the lowest number that is free.
#[derive(Default)]
pub(crate) struct Descriptors {
    slots: Vec<Option<Descriptor>>,
    /// How many may be open; none for as many as there are numbers.
    limit: Option<u32>,
}

impl Descriptors {
    /// What is open. What was lost can only be closed, or replaced by [`renumber`](Descriptors::renumber):
    /// for everything else it is [`Errno::Stale`].
    pub(crate) fn get(&self, fd: u32) -> Result<&Descriptor, Errno> {
        match self.taken(fd)? {
            Descriptor::Lost(_) => Err(Errno::Stale),
            descriptor => Ok(descriptor),
        }
    }

    fn taken(&self, fd: u32) -> Result<&Descriptor, Errno> {
        let slot = usize::try_from(fd)
            .ok()
            .and_then(|index| self.slots.get(index));
        slot.and_then(Option::as_ref).ok_or(Errno::Badf)
    }

    fn slot(&mut self, fd: u32) -> Result<&mut Option<Descriptor>, Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::Badf)?;
        self.slots.get_mut(index).ok_or(Errno::Badf)
    }

    pub(crate) fn get_mut(&mut self, fd: u32) -> Result<&mut Descriptor, Errno> {
        match self.slot(fd)?.as_mut().ok_or(Errno::Badf)? {
            Descriptor::Lost(_) => Err(Errno::Stale),
            descriptor => Ok(descriptor),
        }
    }

    /// A file; anything else is [`Errno::Badf`].
    pub(crate) fn file(&mut self, fd: u32) -> Result<&mut File, Errno> {
        match self.get_mut(fd)? {
            Descriptor::File(file) => Ok(file),
            _ => Err(Errno::Badf),
        }
    }

    /// A file whose offset can be asked for and moved.
    pub(crate) fn seekable(&mut self, fd: u32) -> Result<&mut File, Errno> {
        match self.get_mut(fd)? {
            Descriptor::File(file) => Ok(file),
            Descriptor::Stream(_) | Descriptor::Socket(_) => Err(Errno::Spipe),
            _ => Err(Errno::Badf),
        }
    }

    /// Makes sure that it is a directory, here or in a volume; anything else is [`Errno::Badf`]. Functions that take a path
    /// do so before they read it.
    pub(crate) fn check_directory(&self, fd: u32) -> Result<(), Errno> {
        match self.get(fd)? {
            Descriptor::Directory(_) | Descriptor::VolumeDirectory(_) => Ok(()),
            _ => Err(Errno::Badf),
        }
    }

    /// A directory; anything else is [`Errno::Badf`].
    pub(crate) fn directory(&self, fd: u32) -> Result<&Directory, Errno> {
        match self.get(fd)? {
            Descriptor::Directory(directory) => Ok(directory),
            _ => Err(Errno::Badf),
        }
    }

    /// The lowest number that is free.
    pub(crate) fn lowest_free(&self) -> Result<u32, Errno> {
        let free = self.slots.iter().position(Option::is_none);
        let fd = u32::try_from(free.unwrap_or(self.slots.len())).map_err(|_| Errno::Mfile)?;
        let is_full = |limit: u32| self.iter().count() as u64 >= u64::from(limit);
        if fd >= DESCRIPTORS_MAX || self.limit.is_some_and(is_full) {
            return Err(Errno::Mfile);
        }
        Ok(fd)
    }

    /// Lets so many be open.
    pub(crate) fn set_limit(&mut self, limit: Option<u32>) {
        self.limit = limit;
    }

    /// Gives `descriptor` the lowest free number.
    pub(crate) fn insert(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        let fd = self.lowest_free()?;
        self.insert_at(fd, descriptor)?;
        Ok(fd)
    }

    /// Puts `descriptor` at the number `fd`, which is free.
    ///
    /// # Errors
    ///
    /// [`Errno::Mfile`] unless `fd` is below [`DESCRIPTORS_MAX`].
    pub(crate) fn insert_at(&mut self, fd: u32, descriptor: Descriptor) -> Result<(), Errno> {
        if fd >= DESCRIPTORS_MAX {
            return Err(Errno::Mfile);
        }
        let index = usize::try_from(fd).map_err(|_| Errno::Mfile)?;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(descriptor);
        Ok(())
    }

    pub(crate) fn close(&mut self, fd: u32) -> Result<Descriptor, Errno> {
        self.slot(fd)?.take().ok_or(Errno::Badf)
    }

    /// Moves `from` to the number `to`, and returns what `to` was. Both must be open.
    pub(crate) fn renumber(&mut self, from: u32, to: u32) -> Result<Option<Descriptor>, Errno> {
        self.taken(to)?;
        let moved = self.close(from)?;
        Ok(self.slot(to)?.replace(moved))
    }

    /// What is open, by ascending number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Descriptor)> {
        let numbered = (0u32..).zip(&self.slots);
        numbered.filter_map(|(fd, slot)| slot.as_ref().map(|descriptor| (fd, descriptor)))
    }

    /// Lets what is open at or below `from` know that it is now at or below `to`.
    pub(crate) fn follow_rename(&mut self, from: &Origin, to: &Origin) {
        for descriptor in self.slots.iter_mut().flatten() {
            match descriptor {
                Descriptor::Stream(_)
                | Descriptor::Socket(_)
                | Descriptor::VolumeDirectory(_)
                | Descriptor::VolumeFile(_) => {}
                Descriptor::Directory(directory) => directory.origin.follow_rename(from, to),
                Descriptor::File(file) => file.origin.follow_rename(from, to),
                Descriptor::Lost(origin) => origin.follow_rename(from, to),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_no_empty_or_dot_components() {
        let root = Origin::of_preopen(2);
        assert_eq!(root.join("./a//b/./c/").path, "a/b/c");
        assert_eq!(root.join("a").join("../b").path, "a/../b");
        assert_eq!(root.join(".").path, ".");
    }

    #[test]
    fn a_rename_moves_what_is_below_it_and_nothing_with_a_similar_name() {
        let root = Origin::of_preopen(0);
        let (from, to) = (root.join("a"), root.join("x/y"));
        let after = |path: &str| {
            let mut origin = root.join(path);
            origin.follow_rename(&from, &to);
            origin.path
        };
        assert_eq!(after("a"), "x/y");
        assert_eq!(after("a/b"), "x/y/b");
        assert_eq!(after("ab"), "ab");
        assert_eq!(after("b/a"), "b/a");
    }

    #[test]
    fn the_lowest_free_number_is_given_out() {
        let mut table = Descriptors::default();
        for standard in Standard::ALL {
            let stream = Descriptor::Stream(standard);
            assert_eq!(table.insert_at(standard as u32, stream), Ok(()));
        }
        assert!(table.close(1).is_ok());
        assert!(table.close(0).is_ok());
        assert_eq!(table.insert(Descriptor::Stream(Standard::Error)), Ok(0));
        assert_eq!(table.insert(Descriptor::Stream(Standard::Error)), Ok(1));
        assert_eq!(table.insert(Descriptor::Stream(Standard::Error)), Ok(3));
    }
}
