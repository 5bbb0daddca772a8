//! Memories that lie in many pieces, in one.
//!
//! Each piece of a memory is a mapping of its own, which takes the system two microseconds, and a process may have 65,530 of them:
//! of an interpreter whose heap is scattered over a thousand pieces there would be sixty clones at most. So the content of
//! such a memory is copied once, when its image is prepared, into a file without a name, which clones map as a whole.

use crate::error::{Error, Result};
use crate::memory::page_size;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::fs::File;
use std::os::unix::fs::FileExt;
use wsnap_snapshots::StoredMemory;

/// So many pieces are mapped one by one.
const PIECES_FEW: usize = 64;
/// How large a memory may be that is copied, in bytes. The file has as much of it in memory as was stored, and what clones read
/// of the rest.
const COPIED_MAX: usize = 256 << 20;
const COPIED_AT_ONCE: u64 = 1 << 20;

/// The content of a memory in a file: what was not stored is a hole in it.
pub(crate) struct FlatMemory(File);

impl FlatMemory {
    /// The content of `stored`, of which a memory of `size` bytes is made; none if it lies in few pieces, is large, or the system has
    /// no room, which means that clones map its pieces.
    pub fn new(stored: &StoredMemory, size: usize) -> Option<Self> {
        let is_worth_it = stored.extents().len() > PIECES_FEW && size <= COPIED_MAX;
        let is_mapped = page_size() == wsnap_snapshots::PAGE_SIZE;
        (is_worth_it && is_mapped)
            .then(|| Self::copy(stored, size).ok())
            .flatten()
    }

    fn copy(stored: &StoredMemory, size: usize) -> Result<Self> {
        let failed = |source| Error::Mapping {
            operation: "copy",
            bytes: size as u64,
            source,
        };
        let descriptor = memfd_create("wsnap memory", MemfdFlags::CLOEXEC);
        let file = File::from(descriptor.map_err(|errno| failed(errno.into()))?);
        ftruncate(&file, size.next_multiple_of(page_size()) as u64)
            .map_err(|errno| failed(errno.into()))?;
        let mut buffer = vec![0; COPIED_AT_ONCE as usize];
        for extent in stored.extents() {
            let end = extent.memory_end().min(stored.byte_len());
            let mut start = extent.memory_offset;
            while start < end {
                let bytes = &mut buffer[..(end - start).min(COPIED_AT_ONCE) as usize];
                stored.read_at(start, bytes)?;
                file.write_all_at(bytes, start).map_err(failed)?;
                start += bytes.len() as u64;
            }
        }
        Ok(Self(file))
    }

    /// The file, which is as long as the memory, in whole pages.
    pub fn file(&self) -> &File {
        &self.0
    }
}
