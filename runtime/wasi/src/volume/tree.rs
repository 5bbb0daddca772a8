//! What is in a volume, but for the bytes of files: a table of inodes, as file systems have it.

use super::entries::Entries;
use std::collections::BTreeMap;

/// The number of an inode within its volume.
pub(crate) type Inode = u32;

/// The inode of a volume's root directory.
pub(crate) const ROOT: Inode = 0;

/// So many files, directories and links a volume has at most.
pub(crate) const INODES_MAX: usize = 1 << 20;

/// The longest name of an entry, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// The longest target of a symbolic link, in bytes.
pub(crate) const TARGET_BYTES_MAX: usize = 4095;

/// The longest file, in bytes: what a guest's signed offset can name.
pub(crate) const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// How much all inodes and entries of a volume may take, as [`VolumeTree::table_bytes`] counts: 256 MiB. All of it is in the
/// host's memory, and in every image.
pub(crate) const TABLE_BYTES_MAX: u64 = 1 << 28;

/// What is counted for each inode, in bytes; a saved state has as much of it.
const NODE_BYTES: u64 = 64;

/// What is counted for each entry beside its name, in bytes.
const ENTRY_BYTES: u64 = 16;

/// The unit in which content is kept, in bytes.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Everything about a volume's files but their bytes.
///
/// Invariants, which [`decode`](super::encoding) checks: the root is a directory without a name; every other inode has as
/// many links as entries lead to it, and a directory has at most one, so that directories are a tree; a directory that has
/// been removed is empty; the pages of files lie below `page_count`, and no two files share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeTree {
    pub(crate) inodes: BTreeMap<Inode, Node>,
    /// How long the content is, in pages; not all of them are in use.
    pub(crate) page_count: u64,
}

/// What an inode number stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// How many entries lead here. What has none exists until it is closed.
    pub links: u32,
    pub times: Times,
    pub kind: NodeKind,
}

/// Nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    pub accessed_ns: u64,
    pub modified_ns: u64,
    /// When anything about it changed last.
    pub changed_ns: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind {
    File(File),
    Directory(Directory),
    /// A symbolic link to this path.
    Link(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct File {
    /// The length in bytes.
    pub size: u64,
    /// Where its pages are, by the first page in the file; a page that is nowhere is zero. Runs that could be one are one.
    pub runs: BTreeMap<u64, Run>,
}

/// Successive pages of a file that are successive in the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first page in the volume's content.
    pub page: u64,
    pub count: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    pub entries: Entries,
    /// The directory that has an entry for this one; the root's is itself.
    pub parent: Inode,
}

impl Times {
    pub(crate) fn all(now_ns: u64) -> Times {
        Times {
            accessed_ns: now_ns,
            modified_ns: now_ns,
            changed_ns: now_ns,
        }
    }
}

impl NodeKind {
    /// What is counted for an inode.
    pub(crate) fn table_bytes(&self) -> u64 {
        match self {
            NodeKind::Link(target) => NODE_BYTES + target.len() as u64,
            NodeKind::File(_) | NodeKind::Directory(_) => NODE_BYTES,
        }
    }
}

/// What is counted for an entry of this name.
pub(crate) fn entry_bytes(name: &str) -> u64 {
    ENTRY_BYTES + name.len() as u64
}

impl Default for VolumeTree {
    /// An empty root directory.
    fn default() -> VolumeTree {
        let root = Node {
            links: 1,
            times: Times::all(0),
            kind: NodeKind::Directory(Directory::default()),
        };
        VolumeTree {
            inodes: BTreeMap::from([(ROOT, root)]),
            page_count: 0,
        }
    }
}

impl VolumeTree {
    pub(crate) fn node(&self, inode: Inode) -> Option<&Node> {
        self.inodes.get(&inode)
    }

    pub(crate) fn directory(&self, inode: Inode) -> Option<&Directory> {
        match &self.node(inode)?.kind {
            NodeKind::Directory(directory) => Some(directory),
            NodeKind::File(_) | NodeKind::Link(_) => None,
        }
    }

    pub(crate) fn file(&self, inode: Inode) -> Option<&File> {
        match &self.node(inode)?.kind {
            NodeKind::File(file) => Some(file),
            NodeKind::Directory(_) | NodeKind::Link(_) => None,
        }
    }

    /// How much all inodes and entries take, as they are counted.
    pub(crate) fn table_bytes(&self) -> u64 {
        let entries = |node: &Node| match &node.kind {
            NodeKind::Directory(directory) => {
                let names = directory.entries.iter();
                names.map(|(name, _)| entry_bytes(name)).sum()
            }
            NodeKind::File(_) | NodeKind::Link(_) => 0,
        };
        let nodes = self.inodes.values();
        nodes
            .map(|node| node.kind.table_bytes() + entries(node))
            .sum()
    }

    /// What exists although no entry leads to it.
    pub(crate) fn nameless(&self) -> impl Iterator<Item = Inode> + '_ {
        let nameless = self.inodes.iter().filter(|(_, node)| node.links == 0);
        nameless.map(|(inode, _)| *inode)
    }
}

impl File {
    /// How many pages the length takes.
    pub(crate) fn page_count(&self) -> u64 {
        self.size.div_ceil(PAGE_BYTES)
    }

    /// The run that holds page `page` of the file, as the first page it holds from there on and how many follow.
    pub(crate) fn run_at(&self, page: u64) -> Option<Run> {
        let (first, run) = self.runs.range(..=page).next_back()?;
        let skipped = page - first;
        (skipped < run.count).then(|| Run {
            page: run.page + skipped,
            count: run.count - skipped,
        })
    }

    /// How many pages from `page` on are nowhere, up to `end`.
    pub(crate) fn hole_at(&self, page: u64, end: u64) -> u64 {
        let next = self.runs.range(page..).next().map(|(first, _)| *first);
        next.unwrap_or(end).min(end).saturating_sub(page)
    }

    /// Puts pages into a hole at `first`, joined with their neighbours where those are neighbours in the content too.
    pub(crate) fn insert(&mut self, first: u64, run: Run) {
        let (mut first, mut run) = (first, run);
        if let Some((&before, &left)) = self.runs.range(..first).next_back()
            && before + left.count == first
            && left.page + left.count == run.page
        {
            self.runs.remove(&before);
            first = before;
            run = Run {
                page: left.page,
                count: left.count + run.count,
            };
        }
        let end = first + run.count;
        if let Some(&right) = self.runs.get(&end)
            && run.page + run.count == right.page
        {
            self.runs.remove(&end);
            run.count += right.count;
        }
        self.runs.insert(first, run);
    }

    /// Takes away all pages from `page` on.
    pub(crate) fn cut(&mut self, page: u64) -> Vec<Run> {
        let mut taken: Vec<Run> = self.runs.split_off(&page).into_values().collect();
        if let Some((&first, run)) = self.runs.range_mut(..page).next_back()
            && first + run.count > page
        {
            let kept = page - first;
            taken.push(Run {
                page: run.page + kept,
                count: run.count - kept,
            });
            run.count = kept;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(page: u64, count: u64) -> Run {
        Run { page, count }
    }

    #[test]
    fn runs_that_are_neighbours_in_file_and_content_become_one() {
        let mut file = File::default();
        file.insert(4, run(14, 1));
        file.insert(2, run(12, 1));
        assert_eq!(file.runs.len(), 2);
        file.insert(3, run(13, 1));
        assert_eq!(file.runs, BTreeMap::from([(2, run(12, 3))]));
        file.insert(5, run(99, 1));
        assert_eq!(file.runs.len(), 2);
        assert_eq!(file.run_at(3), Some(run(13, 2)));
        assert_eq!(file.run_at(1), None);
        assert_eq!(file.hole_at(0, 9), 2);
        assert_eq!(file.hole_at(6, 9), 3);
    }

    #[test]
    fn cutting_takes_the_end_of_a_run() {
        let mut file = File::default();
        file.insert(0, run(10, 4));
        file.insert(6, run(20, 2));
        assert_eq!(file.cut(3), [run(20, 2), run(13, 1)]);
        assert_eq!(file.runs, BTreeMap::from([(0, run(10, 3))]));
        assert_eq!(file.cut(3), []);
    }
}
