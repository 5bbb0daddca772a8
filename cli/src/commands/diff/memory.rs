//! Which pages of two memories differ.

use std::ops::Range;

use rayon::prelude::*;
use serde::Serialize;
use wsnap::snapshots::memory_tree::LEAF_SIZE;
use wsnap::snapshots::{PAGE_SIZE, StoreError, StoredMemory};

/// How two contents of a memory differ. What lies behind the end of the shorter one counts as zero.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct MemoryChange {
    /// How many pages of 4096 bytes differ.
    pub changed_pages: u64,
    /// How many bytes of them differ.
    pub changed_bytes: u64,
    /// Stretches of pages that differ, ascending; neighbours are one stretch.
    pub ranges: Vec<Stretch>,
}

/// A stretch of a memory, in bytes.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Stretch {
    pub offset: u64,
    pub length: u64,
}

/// Compares two memories, reading only leaves whose hashes differ, on all cores.
pub(super) fn compare(old: &StoredMemory, new: &StoredMemory) -> Result<MemoryChange, StoreError> {
    let pages: Vec<Vec<ChangedPage>> = different_leaves(old, new)
        .into_par_iter()
        .map(|leaf| compare_leaf(old, new, leaf))
        .collect::<Result<_, _>>()?;
    let mut change = MemoryChange::default();
    for page in pages.into_iter().flatten() {
        change.add(&page);
    }
    Ok(change)
}

struct ChangedPage {
    /// Where it lies in the memory.
    range: Range<u64>,
    changed_bytes: u64,
}

impl MemoryChange {
    /// Counts a page that lies behind all others so far.
    fn add(&mut self, page: &ChangedPage) {
        self.changed_pages += 1;
        self.changed_bytes += page.changed_bytes;
        let length = page.range.end - page.range.start;
        match self.ranges.last_mut() {
            Some(last) if last.offset + last.length == page.range.start => last.length += length,
            _ => self.ranges.push(Stretch {
                offset: page.range.start,
                length,
            }),
        }
    }
}

/// The indices of the leaves that have other hashes, ascending.
fn different_leaves(old: &StoredMemory, new: &StoredMemory) -> Vec<u32> {
    let (old, new) = (old.tree(), new.tree());
    // A leaf that neither tree mentions is zero in both.
    let mut indices: Vec<u32> = old
        .leaves()
        .chain(new.leaves())
        .map(|(index, _)| index)
        .collect();
    indices.sort_unstable();
    indices.dedup();
    indices.retain(|index| old.leaf(*index) != new.leaf(*index));
    indices
}

fn compare_leaf(
    old: &StoredMemory,
    new: &StoredMemory,
    leaf: u32,
) -> Result<Vec<ChangedPage>, StoreError> {
    let start = u64::from(leaf) * LEAF_SIZE as u64;
    let read = |memory: &StoredMemory| {
        let mut bytes = vec![0; LEAF_SIZE];
        memory.read_at(start, &mut bytes).map(|()| bytes)
    };
    let (old_bytes, new_bytes) = (read(old)?, read(new)?);
    // The last page of a memory whose pages are single bytes can be shorter than ours.
    let end = old.byte_len().max(new.byte_len());
    let pairs = old_bytes
        .chunks(PAGE_SIZE)
        .zip(new_bytes.chunks(PAGE_SIZE))
        .zip((start..).step_by(PAGE_SIZE));
    Ok(pairs
        .filter(|((old, new), _)| old != new)
        .map(|((old, new), offset)| ChangedPage {
            range: offset..(offset + PAGE_SIZE as u64).min(end),
            changed_bytes: old.iter().zip(new).filter(|(old, new)| old != new).count() as u64,
        })
        .collect())
}
