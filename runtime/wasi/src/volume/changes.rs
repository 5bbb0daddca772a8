//! Making, removing, linking and renaming in a volume, with the error numbers that Linux has for each.

use super::Volume;
use super::paths::{Entry, Located};
use super::tree::{
    Directory, File, INODES_MAX, Inode, Node, NodeKind, ROOT, TARGET_BYTES_MAX, Times, entry_bytes,
};
use crate::errno::Errno;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OpenHow {
    pub follow: bool,
    pub create: bool,
    /// It must not exist.
    pub exclusive: bool,
    pub truncate: bool,
    pub write: bool,
    pub directory_only: bool,
}

impl Volume {
    /// Makes a directory.
    pub(crate) fn create_directory(
        &mut self,
        base: Inode,
        path: &str,
        now_ns: u64,
    ) -> Result<(), Errno> {
        // A slash at the end changes nothing, least of all that a link is followed.
        let entry = free(self.locate(base, without_slash(path), false)?)?;
        let directory = Directory {
            parent: entry.parent,
            ..Directory::default()
        };
        self.create(&entry, NodeKind::Directory(directory), now_ns)
            .map(drop)
    }

    /// Makes a symbolic link to `target` at `path`.
    pub(crate) fn create_link(
        &mut self,
        target: &str,
        base: Inode,
        path: &str,
        now_ns: u64,
    ) -> Result<(), Errno> {
        if target.starts_with('/') {
            return Err(Errno::Perm);
        }
        if target.contains('\0') {
            return Err(Errno::Inval);
        }
        if target.len() > TARGET_BYTES_MAX {
            return Err(Errno::Nametoolong);
        }
        let located = self.locate_strictly(base, path)?;
        if target.is_empty() {
            return Err(Errno::Noent);
        }
        let entry = free(located)?;
        self.create(&entry, NodeKind::Link(target.to_owned()), now_ns)
            .map(drop)
    }

    /// The place of a link, which is in no directory that a slash at the end names: what is wrong with that is told before
    /// anything else.
    fn locate_strictly(&self, base: Inode, path: &str) -> Result<Located, Errno> {
        let located = self.locate(base, path, false)?;
        match &located {
            Located::Entry(entry) if entry.is_directory => {
                Ok(Located::Directory(self.existing(&located)?))
            }
            _ => Ok(located),
        }
    }

    fn create(&mut self, entry: &Entry, kind: NodeKind, now_ns: u64) -> Result<Inode, Errno> {
        // Nothing can be made in a directory that has been removed.
        if self.node(entry.parent)?.links == 0 {
            return Err(Errno::Noent);
        }
        if self.tree.inodes.len() >= INODES_MAX {
            return Err(Errno::Nospc);
        }
        let table_bytes = kind.table_bytes();
        self.check_table(table_bytes + entry_bytes(&entry.name))?;
        let inode = self.free_inodes.take_lowest().unwrap_or(self.next_inode);
        self.next_inode = self.next_inode.max(inode + 1);
        let node = Node {
            links: 0,
            times: Times::all(now_ns),
            kind,
        };
        self.encoded.forget(inode);
        self.tree.inodes.insert(inode, node);
        self.table_bytes += table_bytes;
        self.enter(entry, inode, now_ns)?;
        Ok(inode)
    }

    /// Whether there is room for so many more bytes of inodes and entries.
    fn check_table(&self, more_bytes: u64) -> Result<(), Errno> {
        match self.table_bytes.saturating_add(more_bytes) <= self.table_limit {
            true => Ok(()),
            false => Err(Errno::Nospc),
        }
    }

    /// Makes `entry` lead to `inode`.
    fn enter(&mut self, entry: &Entry, inode: Inode, now_ns: u64) -> Result<(), Errno> {
        let parent = entry.parent;
        self.directory_mut(parent, now_ns)?
            .entries
            .insert(entry.name.clone(), inode);
        self.table_bytes += entry_bytes(&entry.name);
        let node = self.node_mut(inode)?;
        node.links += 1;
        node.times.changed_ns = now_ns;
        if let NodeKind::Directory(directory) = &mut node.kind {
            directory.parent = parent;
        }
        Ok(())
    }

    /// Takes `entry` away, and what it led to if nothing needs that any more.
    fn leave(&mut self, entry: &Entry, now_ns: u64) -> Result<(), Errno> {
        let directory = self.directory_mut(entry.parent, now_ns)?;
        let inode = directory.entries.remove(&entry.name).ok_or(Errno::Noent)?;
        self.table_bytes -= entry_bytes(&entry.name);
        let node = self.node_mut(inode)?;
        node.links -= 1;
        node.times.changed_ns = now_ns;
        if let NodeKind::Directory(directory) = &mut node.kind {
            directory.parent = inode;
        }
        self.forget_unneeded(inode)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(
        &mut self,
        base: Inode,
        path: &str,
        now_ns: u64,
    ) -> Result<(), Errno> {
        let entry = match self.locate(base, path, false)? {
            Located::Directory(_) => return Err(Errno::Inval),
            Located::Entry(entry) => entry,
        };
        let inode = entry.inode.ok_or(Errno::Noent)?;
        let directory = self.tree.directory(inode).ok_or(Errno::Notdir)?;
        if !directory.entries.is_empty() {
            return Err(Errno::Notempty);
        }
        self.leave(&entry, now_ns)
    }

    /// Removes anything but a directory.
    pub(crate) fn unlink(&mut self, base: Inode, path: &str, now_ns: u64) -> Result<(), Errno> {
        let Located::Entry(entry) = self.locate(base, path, false)? else {
            return Err(Errno::Isdir);
        };
        let inode = entry.inode.ok_or(Errno::Noent)?;
        if self.tree.directory(inode).is_some() {
            return Err(Errno::Isdir);
        }
        if entry.is_directory {
            return Err(Errno::Notdir);
        }
        self.leave(&entry, now_ns)
    }

    /// Makes `new_path` another name of the file at `old_path`.
    pub(crate) fn link(
        &mut self,
        old: (Inode, &str),
        new: (Inode, &str),
        now_ns: u64,
    ) -> Result<(), Errno> {
        let (from, to) = (
            self.locate_strictly(old.0, old.1)?,
            self.locate_strictly(new.0, new.1)?,
        );
        let inode = self.existing(&from)?;
        let entry = free(to)?;
        if self.node(entry.parent)?.links == 0 {
            return Err(Errno::Noent);
        }
        if self.tree.directory(inode).is_some() {
            return Err(Errno::Perm);
        }
        if self.node(inode)?.links == u32::MAX {
            return Err(Errno::Mlink);
        }
        self.check_table(entry_bytes(&entry.name))?;
        self.enter(&entry, inode, now_ns)
    }

    /// Moves what is at one path to another, in place of what is there.
    pub(crate) fn rename(
        &mut self,
        old: (Inode, &str),
        new: (Inode, &str),
        now_ns: u64,
    ) -> Result<(), Errno> {
        let (from, to) = match (
            self.locate(old.0, without_slash(old.1), false)?,
            self.locate(new.0, without_slash(new.1), false)?,
        ) {
            (Located::Entry(from), Located::Entry(to)) => (from, to),
            _ => return Err(Errno::Busy),
        };
        let inode = from.inode.ok_or(Errno::Noent)?;
        let is_directory = self.tree.directory(inode).is_some();
        if !is_directory && old.1.ends_with('/') {
            return Err(Errno::Notdir);
        }
        if is_directory && self.is_within(to.parent, inode) {
            return Err(Errno::Inval);
        }
        if self.node(to.parent)?.links == 0 {
            return Err(Errno::Noent);
        }
        if to.inode.is_none() {
            let more_bytes = entry_bytes(&to.name).saturating_sub(entry_bytes(&from.name));
            self.check_table(more_bytes)?;
        }
        if let Some(replaced) = to.inode {
            if replaced == inode {
                return Ok(());
            }
            if self.is_within(from.parent, replaced) {
                return Err(Errno::Notempty);
            }
            match (is_directory, self.tree.directory(replaced)) {
                (true, None) => return Err(Errno::Notdir),
                (false, Some(_)) => return Err(Errno::Isdir),
                (true, Some(directory)) if !directory.entries.is_empty() => {
                    return Err(Errno::Notempty);
                }
                _ => self.leave(&to, now_ns)?,
            }
        }
        // First there, so that it never has no name.
        self.enter(&to, inode, now_ns)?;
        let directory = self.directory_mut(from.parent, now_ns)?;
        directory.entries.remove(&from.name);
        self.table_bytes -= entry_bytes(&from.name);
        self.node_mut(inode)?.links -= 1;
        Ok(())
    }

    /// Whether `inode` is the directory `above`, or lies in it.
    fn is_within(&self, inode: Inode, above: Inode) -> bool {
        let mut here = inode;
        loop {
            if here == above {
                return true;
            }
            match self.tree.directory(here) {
                Some(directory) if here != ROOT && directory.parent != here => {
                    here = directory.parent;
                }
                _ => return false,
            }
        }
    }

    /// Opens what is at a path, or makes a file there. It has to be closed by [`Volume::close`].
    pub(crate) fn open(
        &mut self,
        base: Inode,
        path: &str,
        how: OpenHow,
        now_ns: u64,
    ) -> Result<Inode, Errno> {
        // What must not exist is no link that could be followed.
        let follow = how.follow && !(how.create && how.exclusive);
        let located = match how.create {
            true => self.locate_file(base, path, follow)?,
            false => self.locate(base, path, follow)?,
        };
        let inode = match located {
            Located::Directory(_) if how.create && how.exclusive => return Err(Errno::Exist),
            Located::Directory(inode) => inode,
            Located::Entry(entry) => match entry.inode {
                Some(_) if how.create && how.exclusive => return Err(Errno::Exist),
                Some(inode) => {
                    if entry.is_directory && self.tree.directory(inode).is_none() {
                        return Err(Errno::Notdir);
                    }
                    inode
                }
                None if !how.create => return Err(Errno::Noent),
                None => self.create(&entry, NodeKind::File(File::default()), now_ns)?,
            },
        };
        match &self.node(inode)?.kind {
            NodeKind::Link(_) => return Err(Errno::Loop),
            NodeKind::Directory(_) if how.write => return Err(Errno::Isdir),
            NodeKind::File(_) if how.directory_only => return Err(Errno::Notdir),
            NodeKind::File(_) if how.truncate => self.set_size(inode, 0, now_ns)?,
            NodeKind::File(_) | NodeKind::Directory(_) => {}
        }
        self.reopen(inode);
        Ok(inode)
    }

    /// Counts another descriptor of what is open already.
    pub(crate) fn reopen(&mut self, inode: Inode) {
        *self.open.entry(inode).or_default() += 1;
    }

    /// A descriptor is no more.
    pub(crate) fn close(&mut self, inode: Inode) -> Result<(), Errno> {
        if let Some(count) = self.open.get_mut(&inode) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&inode);
            }
        }
        self.forget_unneeded(inode)
    }

    /// Removes what neither an entry nor a descriptor leads to.
    fn forget_unneeded(&mut self, inode: Inode) -> Result<(), Errno> {
        if self.node(inode)?.links > 0 || self.open.contains_key(&inode) {
            return Ok(());
        }
        self.encoded.forget(inode);
        let node = self.tree.inodes.remove(&inode);
        self.free_inodes.give_back(inode);
        let Some(kind) = node.map(|node| node.kind) else {
            return Ok(());
        };
        self.table_bytes -= kind.table_bytes();
        match kind {
            NodeKind::File(file) => self.content.discard(file),
            NodeKind::Directory(_) | NodeKind::Link(_) => Ok(()),
        }
    }
}

/// The place of something that does not exist yet.
fn free(located: Located) -> Result<Entry, Errno> {
    match located {
        Located::Entry(entry) if entry.inode.is_none() => Ok(entry),
        Located::Entry(_) | Located::Directory(_) => Err(Errno::Exist),
    }
}

/// The path without slashes at its end, so that a link there is not followed.
pub(crate) fn without_slash(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => path,
        trimmed => trimmed,
    }
}
