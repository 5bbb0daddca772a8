//! Volumes: file systems that are part of the program's state.
//!
//! ```text
//!  VolumeTree: inodes, names, times, runs of pages      VolumeMemory: the bytes of files
//!  saved with the rest of the host state                given by whoever runs the program, who saves it page by page
//! ```
//!
//! To the program a volume is a granted directory like any other, and all functions of preview 1 answer as Linux does on
//! one of the host's. Reading does not change access times, so that what only reads leaves the state as it is. Entries are
//! listed in the same order as those of the host's directories, so cookies mean the same whatever is created or removed.

mod changes;
mod content;
mod encoded;
pub(crate) mod encoding;
mod entries;
mod free_inodes;
pub(crate) mod outside;
mod paths;
pub(crate) mod tree;

pub(crate) use changes::{OpenHow, without_slash};
use content::Content;
pub use content::VolumeMemory;
use encoded::Encoded;
pub(crate) use entries::cookie;
use free_inodes::FreeInodes;
pub use outside::{VolumeEntry, VolumeError};
pub use tree::VolumeTree;
pub(crate) use tree::{Inode, ROOT};

use crate::errno::Errno;
use crate::types::FileType;
use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use tree::{Directory, File, Node, NodeKind, PAGE_BYTES, TABLE_BYTES_MAX, Times};

/// A volume to give to a new program, empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeGrant {
    /// Its name outside of the program.
    pub name: String,
    /// The path that the program knows it by.
    pub guest_path: String,
}

/// A volume in a saved state, but for the bytes of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedVolume {
    /// Its name outside of the program.
    pub name: String,
    /// The path that the program knows it by.
    pub guest_path: String,
    /// What is in it.
    pub tree: VolumeTree,
}

impl SavedVolume {
    /// How long the memory with the bytes of its files is at least.
    pub fn content_bytes(&self) -> u64 {
        self.tree.page_count * PAGE_BYTES
    }
}

/// A volume: what is in it, and the memory with the bytes of its files.
pub struct Volume {
    name: String,
    guest_path: String,
    tree: VolumeTree,
    content: Content,
    /// How many descriptors there are of each inode that is open.
    open: BTreeMap<Inode, u32>,
    /// Numbers below `next_inode` that stand for nothing.
    free_inodes: FreeInodes,
    next_inode: Inode,
    /// What was saved of inodes the last time.
    encoded: Encoded,
    /// How much inodes and entries take, as [`VolumeTree::table_bytes`] counts.
    table_bytes: u64,
    /// How much they may take.
    table_limit: u64,
}

/// What is known about a file, directory or link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VolumeStat {
    pub file_type: FileType,
    pub links: u32,
    pub size_bytes: u64,
    pub times: Times,
}

impl Volume {
    /// A volume without a memory, in which nothing is open.
    pub(crate) fn new(saved: SavedVolume) -> Volume {
        let SavedVolume {
            name,
            guest_path,
            mut tree,
        } = saved;
        let last = tree.inodes.last_key_value().map_or(0, |(last, _)| *last);
        let free_inodes = FreeInodes::between(tree.inodes.keys().copied());
        let content = Content::of(&tree);
        tree.page_count = content.page_count;
        Volume {
            name,
            guest_path,
            next_inode: last + 1,
            free_inodes,
            encoded: Encoded::default(),
            table_bytes: tree.table_bytes(),
            table_limit: TABLE_BYTES_MAX,
            tree,
            content,
            open: BTreeMap::new(),
        }
    }

    /// An empty volume that keeps its content in this process's own memory.
    pub(crate) fn empty(grant: VolumeGrant, now_ns: u64) -> Volume {
        let mut tree = VolumeTree::default();
        if let Some(root) = tree.inodes.get_mut(&ROOT) {
            root.times = Times::all(now_ns);
        }
        let mut volume = Volume::new(SavedVolume {
            name: grant.name,
            guest_path: grant.guest_path,
            tree,
        });
        volume.content.memory = Some(Box::new(Vec::new()));
        volume
    }

    /// What is saved of it.
    pub fn saved(&self) -> SavedVolume {
        SavedVolume {
            name: self.name.clone(),
            guest_path: self.guest_path.clone(),
            tree: VolumeTree {
                page_count: self.content.page_count,
                ..self.tree.clone()
            },
        }
    }

    /// Its name outside of the program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path that the program knows it by.
    pub fn guest_path(&self) -> &str {
        &self.guest_path
    }

    /// How long its memory must be at least, in bytes.
    pub fn content_bytes(&self) -> u64 {
        self.content.page_count * PAGE_BYTES
    }

    /// The memory in which its content lies; none until a resumed program was given it.
    pub fn memory(&self) -> Option<&dyn VolumeMemory> {
        self.content.memory.as_deref()
    }

    /// Gives it the memory in which its content lies.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Memory`] when it is shorter than the content.
    pub(crate) fn set_memory(&mut self, memory: Box<dyn VolumeMemory>) -> Result<(), VolumeError> {
        let (is_bytes, content_bytes) = (memory.bytes().len() as u64, self.content_bytes());
        if is_bytes < content_bytes {
            return Err(VolumeError::Memory {
                volume: self.name.clone(),
                is_bytes,
                content_bytes,
            });
        }
        self.content.memory = Some(memory);
        Ok(())
    }

    /// Lets its files have at most so many bytes, in whole pages, and all inodes and entries as many again.
    pub(crate) fn set_limit(&mut self, limit_bytes: u64) {
        self.content.limit = limit_bytes / PAGE_BYTES;
        self.table_limit = limit_bytes.min(TABLE_BYTES_MAX);
    }

    fn node(&self, inode: Inode) -> Result<&Node, Errno> {
        self.tree.node(inode).ok_or(Errno::Stale)
    }

    fn node_mut(&mut self, inode: Inode) -> Result<&mut Node, Errno> {
        self.encoded.forget(inode);
        self.tree.inodes.get_mut(&inode).ok_or(Errno::Stale)
    }

    /// A directory whose entries are about to be changed.
    fn directory_mut(&mut self, inode: Inode, now_ns: u64) -> Result<&mut Directory, Errno> {
        let node = self.node_mut(inode)?;
        node.times.modified_ns = now_ns;
        node.times.changed_ns = now_ns;
        match &mut node.kind {
            NodeKind::Directory(directory) => Ok(directory),
            NodeKind::File(_) | NodeKind::Link(_) => Err(Errno::Notdir),
        }
    }

    fn file(&self, inode: Inode) -> Result<&File, Errno> {
        match &self.node(inode)?.kind {
            NodeKind::File(file) => Ok(file),
            NodeKind::Directory(_) => Err(Errno::Isdir),
            NodeKind::Link(_) => Err(Errno::Inval),
        }
    }

    /// Changes a file together with the content, and notes when.
    fn change<T>(
        &mut self,
        inode: Inode,
        now_ns: u64,
        change: impl FnOnce(&mut Content, &mut File) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.encoded.forget(inode);
        let node = self.tree.inodes.get_mut(&inode).ok_or(Errno::Stale)?;
        let NodeKind::File(file) = &mut node.kind else {
            return Err(Errno::Badf);
        };
        let result = change(&mut self.content, file)?;
        node.times.modified_ns = now_ns;
        node.times.changed_ns = now_ns;
        Ok(result)
    }

    pub(crate) fn size(&self, inode: Inode) -> Result<u64, Errno> {
        Ok(self.file(inode)?.size)
    }

    pub(crate) fn read(
        &self,
        inode: Inode,
        offset: u64,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Result<usize, Errno> {
        self.content.read(self.file(inode)?, offset, buffers)
    }

    pub(crate) fn write(
        &mut self,
        inode: Inode,
        offset: u64,
        buffers: &[IoSlice<'_>],
        now_ns: u64,
    ) -> Result<usize, Errno> {
        self.change(inode, now_ns, |content, file| {
            content.write(file, offset, buffers)
        })
    }

    pub(crate) fn set_size(&mut self, inode: Inode, size: u64, now_ns: u64) -> Result<(), Errno> {
        self.change(inode, now_ns, |content, file| content.set_size(file, size))
    }

    /// Makes room for the bytes from `offset` on, and the file as long.
    pub(crate) fn allocate(
        &mut self,
        inode: Inode,
        offset: u64,
        length: u64,
        now_ns: u64,
    ) -> Result<(), Errno> {
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= tree::FILE_BYTES_MAX);
        let end = end.ok_or(Errno::Fbig)?;
        self.change(inode, now_ns, |content, file| {
            content.make_room(file, offset..end)?;
            // The pages of a file lie below its end.
            file.size = file.size.max(end);
            content.provide(file, offset..end).map(drop)
        })
    }

    /// Sets access and modification times; none leaves one as it is.
    pub(crate) fn set_times(
        &mut self,
        inode: Inode,
        accessed_ns: Option<u64>,
        modified_ns: Option<u64>,
        now_ns: u64,
    ) -> Result<(), Errno> {
        let times = &mut self.node_mut(inode)?.times;
        times.accessed_ns = accessed_ns.unwrap_or(times.accessed_ns);
        times.modified_ns = modified_ns.unwrap_or(times.modified_ns);
        times.changed_ns = now_ns;
        Ok(())
    }

    pub(crate) fn stat(&self, inode: Inode) -> Result<VolumeStat, Errno> {
        let node = self.node(inode)?;
        Ok(VolumeStat {
            file_type: file_type(node),
            links: node.links,
            size_bytes: match &node.kind {
                NodeKind::File(file) => file.size,
                NodeKind::Link(target) => target.len() as u64,
                NodeKind::Directory(_) => 0,
            },
            times: node.times,
        })
    }

    /// What is at a path, which must exist.
    pub(crate) fn inode_at(&self, base: Inode, path: &str, follow: bool) -> Result<Inode, Errno> {
        self.find(base, path, follow)
    }

    /// Where the symbolic link at `path` leads to.
    pub(crate) fn read_link(&self, base: Inode, path: &str) -> Result<&str, Errno> {
        match &self.node(self.find(base, path, false)?)?.kind {
            NodeKind::Link(target) => Ok(target),
            NodeKind::File(_) | NodeKind::Directory(_) => Err(Errno::Inval),
        }
    }

    /// The entries of a directory whose cookies are above `after`, in the order of their cookies.
    pub(crate) fn list(
        &self,
        inode: Inode,
        after: u64,
    ) -> Result<impl Iterator<Item = (u64, &str, Inode, FileType)>, Errno> {
        let directory = self.tree.directory(inode).ok_or(Errno::Notdir)?;
        let entries = directory.entries.after(after);
        Ok(entries.filter_map(|(cookie, name, inode)| {
            let node = self.tree.node(inode)?;
            Some((cookie, name, inode, file_type(node)))
        }))
    }
}

fn file_type(node: &Node) -> FileType {
    match node.kind {
        NodeKind::File(_) => FileType::RegularFile,
        NodeKind::Directory(_) => FileType::Directory,
        NodeKind::Link(_) => FileType::SymbolicLink,
    }
}
