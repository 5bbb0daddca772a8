//! What is saved of a volume's inodes, kept from one snapshot to the next.
//!
//! The program stands still while its state is saved. So only what has changed since the last time is encoded again, by
//! groups of inodes; the rest is copied.

use super::Volume;
use super::encoding::{encode_head, encode_inode};
use super::tree::{Inode, VolumeTree};
use crate::bytes::Writer;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// So many numbers of inodes follow one another in a group.
const GROUP_INODES: Inode = 64;

/// The encoding of inodes, by group. Invariant: a group that is here is as the tree has it.
#[derive(Default)]
pub(super) struct Encoded(Mutex<BTreeMap<Inode, Vec<u8>>>);

impl Encoded {
    /// `inode` is about to change, to come or to go.
    pub(super) fn forget(&mut self, inode: Inode) {
        let groups = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        groups.remove(&(inode / GROUP_INODES));
    }

    /// Writes all inodes of `tree`, in order.
    fn write(&self, tree: &VolumeTree, to: &mut Writer) {
        // Whoever panicked has at worst left a group out.
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        to.reserve(groups.values().map(Vec::len).sum());
        let mut next = 0;
        while let Some((first, _)) = tree.inodes.range(next..).next() {
            let group = first / GROUP_INODES;
            let end = (group + 1).saturating_mul(GROUP_INODES);
            let bytes = groups.entry(group).or_insert_with(|| {
                let mut encoded = Writer::default();
                for (inode, node) in tree.inodes.range(*first..end) {
                    encode_inode(&mut encoded, *inode, node);
                }
                encoded.finish()
            });
            to.raw(bytes);
            next = end;
        }
    }
}

impl Volume {
    /// Writes what [`SavedVolume::encode`](super::SavedVolume::encode) writes of [`Volume::saved`].
    pub(crate) fn encode(&self, to: &mut Writer) {
        let (tree, page_count) = (&self.tree, self.content.page_count);
        encode_head(to, &self.name, &self.guest_path, page_count);
        to.u64(tree.inodes.len() as u64);
        self.encoded.write(tree, to);
    }
}
