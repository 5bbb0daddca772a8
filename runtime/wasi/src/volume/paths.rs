//! Where a path leads to in a volume: as Linux resolves paths beneath a directory, which neither `..` nor links leave.

use super::Volume;
use super::tree::{Inode, NAME_BYTES_MAX, NodeKind, TARGET_BYTES_MAX};
use crate::errno::Errno;

/// So many symbolic links are followed on the way.
const LINKS_MAX: u32 = 40;

/// Where a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Located {
    /// To a directory by `.` or `..`, or to the one that it starts from.
    Directory(Inode),
    /// To an entry, which need not exist.
    Entry(Entry),
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub parent: Inode,
    pub name: String,
    pub inode: Option<Inode>,
    /// A slash follows, so that only a directory is meant.
    pub is_directory: bool,
}

impl Volume {
    /// Resolves `path` from the directory `base` on. A symbolic link at its end is followed if `follow` says so, or a slash
    /// comes after it.
    pub(super) fn locate(&self, base: Inode, path: &str, follow: bool) -> Result<Located, Errno> {
        self.resolve(base, path, follow, false)
    }

    /// As [`Volume::locate`], for a file that may have to be made: a slash at the end, be it that of a link, is refused.
    pub(super) fn locate_file(
        &self,
        base: Inode,
        path: &str,
        follow: bool,
    ) -> Result<Located, Errno> {
        self.resolve(base, path, follow, true)
    }

    fn resolve(
        &self,
        base: Inode,
        path: &str,
        follow: bool,
        makes_file: bool,
    ) -> Result<Located, Errno> {
        check_path(path)?;
        // The directories on the way, and what is left of the way, its end first.
        let mut way = vec![base];
        let mut left: Vec<String> = components(path);
        let mut is_directory = path.ends_with('/');
        let mut links = 0;
        while let Some(name) = left.pop() {
            let here = way.last().copied().unwrap_or(base);
            if name == "." {
                continue;
            }
            if name == ".." {
                if way.len() == 1 {
                    return Err(Errno::Perm);
                }
                way.pop();
                continue;
            }
            if name.len() > NAME_BYTES_MAX {
                return Err(Errno::Nametoolong);
            }
            let is_last = left.is_empty();
            let directory = self.tree.directory(here).ok_or(Errno::Notdir)?;
            let inode = directory.entries.get(&name);
            if is_last && is_directory && makes_file {
                return Err(Errno::Isdir);
            }
            let kind = inode.and_then(|inode| self.tree.node(inode));
            match kind.map(|node| &node.kind) {
                Some(NodeKind::Link(target)) if !is_last || follow || is_directory => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::Loop);
                    }
                    check_path(target)?;
                    if is_last {
                        is_directory |= target.ends_with('/');
                    }
                    left.extend(components(target));
                }
                _ if is_last => {
                    return Ok(Located::Entry(Entry {
                        parent: here,
                        name,
                        inode,
                        is_directory,
                    }));
                }
                Some(NodeKind::Directory(_)) => way.extend(inode),
                Some(NodeKind::File(_) | NodeKind::Link(_)) => return Err(Errno::Notdir),
                None => return Err(Errno::Noent),
            }
        }
        let inode = way.last().copied().unwrap_or(base);
        Ok(Located::Directory(inode))
    }

    /// What is at a path, which must exist.
    pub(super) fn find(&self, base: Inode, path: &str, follow: bool) -> Result<Inode, Errno> {
        self.existing(&self.locate(base, path, follow)?)
    }

    /// What is at a place, where something must be.
    pub(super) fn existing(&self, located: &Located) -> Result<Inode, Errno> {
        match located {
            Located::Directory(inode) => Ok(*inode),
            Located::Entry(entry) => {
                let inode = entry.inode.ok_or(Errno::Noent)?;
                if entry.is_directory && self.tree.directory(inode).is_none() {
                    return Err(Errno::Notdir);
                }
                Ok(inode)
            }
        }
    }
}

/// The components of a path that say something, the last one first.
fn components(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.rev().map(str::to_owned).collect()
}

fn check_path(path: &str) -> Result<(), Errno> {
    if path.is_empty() {
        Err(Errno::Noent)
    } else if path.contains('\0') {
        Err(Errno::Inval)
    } else if path.starts_with('/') {
        Err(Errno::Perm)
    } else if path.len() > TARGET_BYTES_MAX {
        Err(Errno::Nametoolong)
    } else {
        Ok(())
    }
}
