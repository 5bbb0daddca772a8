//! What a writer hands over: where the bytes of a memory come from, and what may have changed.

use std::io;
use std::ops::Range;

use super::{StoredImage, StoredMemory};
use crate::error::StoreError;
use crate::manifest::{MEMORY_LEN_MAX, MemoryState};
use crate::page_map::PAGE_SIZE;

const PAGE: u64 = PAGE_SIZE as u64;

/// Where the bytes of a memory are read from while it is written. It is asked from several threads, for each byte once
/// at most.
pub trait PageSource: Sync {
    /// Fills `buffer` with the bytes from `offset` on; behind the memory's end with zeros.
    ///
    /// # Errors
    ///
    /// Whatever keeps the bytes from being read. The publication then fails with [`StoreError::Source`].
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl PageSource for [u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.get(offset..))
            .unwrap_or_default();
        let (start, end) = buffer.split_at_mut(rest.len().min(buffer.len()));
        start.copy_from_slice(&rest[..start.len()]);
        end.fill(0);
        Ok(())
    }
}

impl PageSource for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, buffer)
    }
}

impl<T: PageSource + ?Sized> PageSource for &T {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }
}

/// The new content of a memory, told as the difference from a stored one.
#[derive(Clone, Copy)]
pub struct MemoryUpdate<'a> {
    /// The memory that the difference counts from; without one it is a memory of no bytes.
    pub base: Option<&'a StoredMemory>,
    /// The length of the memory in bytes, not below that of the base.
    pub byte_len: u64,
    /// The stretches that may differ from the base, in bytes: multiples of [`PAGE_SIZE`], ascending, not overlapping.
    /// Everything else is as in the base, and zero behind its end.
    pub dirty: &'a [Range<u64>],
    /// The content of the dirty stretches.
    pub source: &'a dyn PageSource,
}

/// What [`crate::Store::publish_update`] has stored.
#[derive(Debug)]
pub struct Published {
    /// The image, open, to be the base of the next update.
    pub image: StoredImage,
    /// How many bytes the store's files have grown by.
    pub added_bytes: u64,
}

/// Fails unless the updates are those of the manifest's memories and make sense.
pub(super) fn check(
    states: &[MemoryState],
    updates: &[MemoryUpdate<'_>],
) -> Result<(), StoreError> {
    if states.len() != updates.len() {
        let problem = format!("{} memories instead of {}", updates.len(), states.len());
        return Err(StoreError::MemoryMismatch { problem });
    }
    for (index, (state, update)) in states.iter().zip(updates).enumerate() {
        let found = update.byte_len;
        let problem = match state.byte_len() {
            Some(expected) if expected == found => stretches_problem(update),
            Some(expected) => Some(format!("has {found} bytes instead of {expected}")),
            None => {
                return Err(StoreError::TooLarge {
                    what: "memory",
                    size: found,
                    limit: MEMORY_LEN_MAX,
                });
            }
        };
        if let Some(problem) = problem {
            let problem = format!("memory {index} {problem}");
            return Err(StoreError::MemoryMismatch { problem });
        }
    }
    Ok(())
}

fn stretches_problem(update: &MemoryUpdate<'_>) -> Option<String> {
    let base_len = update.base.map_or(0, StoredMemory::byte_len);
    if update.byte_len < base_len {
        return Some(format!("is smaller than its base of {base_len} bytes"));
    }
    let limit = update.byte_len.next_multiple_of(PAGE);
    let mut after = 0;
    for Range { start, end } in update.dirty {
        let whole_pages = start % PAGE == 0 && end % PAGE == 0;
        if !whole_pages || *start < after || start >= end || *end > limit {
            return Some(format!("cannot have changed from byte {start} to {end}"));
        }
        after = *end;
    }
    None
}
