//! Checking the pages of stored memories against their hash trees.

use std::collections::{BTreeSet, HashSet};

use super::{StoredImage, StoredMemory};
use crate::error::StoreError;
use crate::id::LeafHash;
use crate::layer_index::touched_leaves;
use crate::memory_tree::{LEAF_SIZE, leaf_start};
use crate::page_map::Extent;
use crate::parallel;

/// A worker verifies so many leaves at once: 1 MiB, long against the cost of handing it out.
const LEAVES_PER_RANGE: usize = 16;

impl StoredImage {
    /// Reads every byte of the memories, on all cores, and checks it against the hash tree.
    ///
    /// # Errors
    ///
    /// [`StoreError::DamagedMemory`] for the first damaged leaf; [`StoreError::Io`].
    pub fn verify(&self) -> Result<(), StoreError> {
        self.verify_with(&|_| ())
    }

    /// As [`StoredImage::verify`]; `progress` hears, from any thread, how many bytes have been checked since it was
    /// called the last time. In the end they add up to [`StoredImage::checked_len`].
    ///
    /// # Errors
    ///
    /// As [`StoredImage::verify`].
    pub fn verify_with(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<(), StoreError> {
        for (index, memory) in self.distinct_memories() {
            self.verify_leaves(index, &memory.leaves_to_check(), progress)?;
        }
        Ok(())
    }

    /// The memories, with their indices, but each content once: a manifest can name one any number of times.
    pub(super) fn distinct_memories(&self) -> impl Iterator<Item = (usize, &StoredMemory)> {
        let mut seen = HashSet::new();
        let memories = self.memories().iter().enumerate();
        memories.filter(move |(_, memory)| seen.insert(memory.hash()))
    }

    /// How many bytes a verification checks: whole leaves of 64 KiB.
    pub fn checked_len(&self) -> u64 {
        let leaves = |memory: &StoredMemory| memory.leaves_to_check().len() as u64;
        let memories = self.distinct_memories();
        memories.map(|(_, memory)| leaves(memory)).sum::<u64>() * LEAF_SIZE as u64
    }

    /// Checks some leaves of a memory.
    pub(super) fn verify_leaves(
        &self,
        memory: usize,
        leaves: &[u32],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StoreError> {
        match self.memories()[memory].first_damage(leaves, progress)? {
            None => Ok(()),
            Some(offset) => Err(StoreError::DamagedMemory {
                image: self.id(),
                memory,
                offset,
            }),
        }
    }
}

impl StoredMemory {
    /// The leaves that are not zero by their hash, and those that are stored, whatever their hash says.
    pub(super) fn leaves_to_check(&self) -> Vec<u32> {
        let stretches = self
            .extents()
            .iter()
            .map(|extent: &Extent| (extent.memory_offset, extent.memory_end()));
        let mut leaves: BTreeSet<u32> = self.tree_ref().leaves().map(|(index, _)| index).collect();
        leaves.extend(touched_leaves(stretches).flat_map(|(first, last)| first..=last));
        leaves.into_iter().collect()
    }

    /// Where the first of `leaves` starts that does not have the content that the hash tree names.
    pub(super) fn first_damage(
        &self,
        leaves: &[u32],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Option<u64>, StoreError> {
        let ranges = parallel::map_ranges(leaves.len(), LEAVES_PER_RANGE, |range| {
            let mut buffer = vec![0; LEAF_SIZE];
            let checked = range.len() * LEAF_SIZE;
            for index in &leaves[range] {
                self.read_at(leaf_start(*index), &mut buffer)?;
                // The padding behind the memory's end is hashed too: a program that grows its memory would see it.
                if LeafHash::of(&buffer) != self.tree_ref().leaf(*index) {
                    return Ok(Some(leaf_start(*index)));
                }
            }
            progress(checked as u64);
            Ok(None)
        });
        ranges.into_iter().find_map(Result::transpose).transpose()
    }
}
