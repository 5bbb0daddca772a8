//! Volumes as bytes of a saved state, and every check that a state from a stranger needs. `STATE.md` has the layout.

use super::SavedVolume;
use super::content::used_runs;
use super::tree::{
    Directory, FILE_BYTES_MAX, File, INODES_MAX, Inode, NAME_BYTES_MAX, Node, NodeKind, PAGE_BYTES,
    ROOT, Run, TARGET_BYTES_MAX, Times, VolumeTree,
};
use crate::bytes::{Reader, Writer};
use crate::saved_state::DecodeError;
use std::collections::{BTreeMap, BTreeSet};

const KIND_FILE: u8 = 0;
const KIND_DIRECTORY: u8 = 1;
const KIND_LINK: u8 = 2;

/// So many pages the content of a volume has at most: no file could be longer.
const PAGES_MAX: u64 = FILE_BYTES_MAX / PAGE_BYTES;

/// What comes before the list of inodes.
pub(super) fn encode_head(to: &mut Writer, name: &str, guest_path: &str, page_count: u64) {
    to.bytes(name.as_bytes());
    to.bytes(guest_path.as_bytes());
    to.u64(page_count);
}

/// An item in the list of inodes.
pub(super) fn encode_inode(to: &mut Writer, inode: Inode, node: &Node) {
    to.u32(inode);
    node.encode(to);
}

impl SavedVolume {
    pub(crate) fn encode(&self, to: &mut Writer) {
        encode_head(to, &self.name, &self.guest_path, self.tree.page_count);
        to.list(&self.tree.inodes, |to, (inode, node)| {
            encode_inode(to, *inode, node);
        });
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<SavedVolume, DecodeError> {
        let name = from.utf8()?;
        let guest_path = from.utf8()?;
        let page_count = from.u64()?;
        if page_count > PAGES_MAX {
            return Err(from.invalid("a volume larger than any can be"));
        }
        let mut inodes = BTreeMap::new();
        let count = from.count()?;
        if count > INODES_MAX as u64 {
            return Err(from.invalid("a volume with more files than any can have"));
        }
        for _ in 0..count {
            let inode = from.u32()?;
            let last = inodes.last_key_value().map(|(last, _)| *last);
            if last.is_some_and(|last| inode <= last) || inode as usize >= INODES_MAX {
                return Err(from.invalid("an inode's number is out of order or too large"));
            }
            inodes.insert(inode, Node::decode(from)?);
        }
        let mut tree = VolumeTree { inodes, page_count };
        count_links(&mut tree).map_err(|what| from.invalid(what))?;
        check_runs(&tree).map_err(|what| from.invalid(what))?;
        Ok(SavedVolume {
            name,
            guest_path,
            tree,
        })
    }
}

impl Node {
    fn encode(&self, to: &mut Writer) {
        let times = &self.times;
        for time_ns in [times.accessed_ns, times.modified_ns, times.changed_ns] {
            to.u64(time_ns);
        }
        match &self.kind {
            NodeKind::File(file) => {
                to.u8(KIND_FILE);
                to.u64(file.size);
                to.list(&file.runs, |to, (first, run)| {
                    to.u64(*first);
                    to.u64(run.page);
                    to.u64(run.count);
                });
            }
            NodeKind::Directory(directory) => {
                to.u8(KIND_DIRECTORY);
                to.list(directory.entries.keyed(), |to, (key, inode)| {
                    to.bytes(key.name().as_bytes());
                    to.u32(*inode);
                });
            }
            NodeKind::Link(target) => {
                to.u8(KIND_LINK);
                to.bytes(target.as_bytes());
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Node, DecodeError> {
        let times = Times {
            accessed_ns: from.u64()?,
            modified_ns: from.u64()?,
            changed_ns: from.u64()?,
        };
        let kind = match from.u8()? {
            KIND_FILE => NodeKind::File(file(from)?),
            KIND_DIRECTORY => NodeKind::Directory(directory(from)?),
            KIND_LINK => {
                let target = from.utf8()?;
                if target.is_empty() || target.len() > TARGET_BYTES_MAX || target.contains('\0') {
                    return Err(from.invalid("a symbolic link to no possible path"));
                }
                NodeKind::Link(target)
            }
            _ => return Err(from.invalid("an unknown kind of inode")),
        };
        Ok(Node {
            links: 0,
            times,
            kind,
        })
    }
}

fn file(from: &mut Reader<'_>) -> Result<File, DecodeError> {
    let size = from.u64()?;
    if size > FILE_BYTES_MAX {
        return Err(from.invalid("a file longer than any can be"));
    }
    let mut file = File {
        size,
        runs: BTreeMap::new(),
    };
    let mut end = 0;
    for _ in 0..from.count()? {
        let (first, page, count) = (from.u64()?, from.u64()?, from.u64()?);
        let after = first
            .checked_add(count)
            .filter(|after| count > 0 && first >= end && *after <= file.page_count());
        let after = after.ok_or_else(|| from.invalid("pages that no file could have"))?;
        let runs = file.runs.len();
        if page.checked_add(count).is_none() {
            return Err(from.invalid("pages that no volume could have"));
        }
        file.insert(first, Run { page, count });
        if file.runs.len() == runs {
            return Err(from.invalid("pages in two runs that are one"));
        }
        end = after;
    }
    Ok(file)
}

fn directory(from: &mut Reader<'_>) -> Result<Directory, DecodeError> {
    let mut directory = Directory::default();
    for _ in 0..from.count()? {
        let name = from.utf8()?;
        let possible = !matches!(name.as_str(), "" | "." | "..")
            && name.len() <= NAME_BYTES_MAX
            && !name.contains(['/', '\0']);
        if !possible || !directory.entries.push(name, from.u32()?) {
            return Err(from.invalid("a name that is out of order or that no entry could have"));
        }
    }
    Ok(directory)
}

/// Finds out how many entries lead to each inode and which directory each directory is in, and whether all that has a name
/// can be reached from the root.
fn count_links(tree: &mut VolumeTree) -> Result<(), &'static str> {
    if tree.directory(ROOT).is_none() {
        return Err("a volume without a root directory");
    }
    let mut links: BTreeMap<Inode, u32> = BTreeMap::from([(ROOT, 1)]);
    let mut parents: BTreeMap<Inode, Inode> = BTreeMap::from([(ROOT, ROOT)]);
    let mut left = vec![ROOT];
    while let Some(here) = left.pop() {
        let entries = tree.directory(here).into_iter();
        for inode in entries.flat_map(|directory| directory.entries.iter().map(|(_, inode)| inode))
        {
            if !tree.inodes.contains_key(&inode) {
                return Err("an entry that leads nowhere");
            }
            *links.entry(inode).or_default() += 1;
            if tree.directory(inode).is_some() {
                if parents.insert(inode, here).is_some() {
                    return Err("a directory in two places");
                }
                left.push(inode);
            }
        }
    }
    for (inode, node) in &mut tree.inodes {
        node.links = links.get(inode).copied().unwrap_or_default();
        if let NodeKind::Directory(directory) = &mut node.kind {
            // A removed one has no place, and nothing in it that could be reached.
            directory.parent = parents.get(inode).copied().unwrap_or(*inode);
            if node.links == 0 && !directory.entries.is_empty() {
                return Err("a removed directory that is not empty");
            }
        }
    }
    Ok(())
}

/// Whether all pages of files lie in the content, none of them twice.
fn check_runs(tree: &VolumeTree) -> Result<(), &'static str> {
    let mut taken = BTreeSet::new();
    taken.extend(used_runs(tree).map(|run| (run.page, run.page + run.count)));
    let mut end = 0;
    let mut count = 0;
    for (first, after) in &taken {
        if *first < end || *after > tree.page_count {
            return Err("a page that two files have, or that the volume does not");
        }
        end = *after;
        count += 1;
    }
    if count != used_runs(tree).count() {
        return Err("a page that two files have, or that the volume does not");
    }
    Ok(())
}
