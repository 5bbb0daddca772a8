//! Which pages of its image a program needs first: found out in one run, read ahead before others.

use crate::dirty;
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::ranges::Ranges;
use rustix::fs::{Advice, fadvise};
use std::num::NonZeroU64;
use std::ops::Range;
use wsnap_snapshots::StoredMemory;

/// Pages of a program's memories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkingSet(Vec<Ranges>);

impl WorkingSet {
    /// How many bytes the pages have.
    pub fn byte_len(&self) -> u64 {
        self.0.iter().map(Ranges::byte_len).sum()
    }

    /// The stretches of memory `index`, in bytes: ascending, disjoint, whole pages. Empty for a memory that does not exist.
    pub fn stretches(&self, index: usize) -> &[Range<u64>] {
        self.0.get(index).map_or(&[], Ranges::as_slice)
    }

    pub(crate) fn memories(&self) -> &[Ranges] {
        &self.0
    }
}

impl Instance {
    /// The pages of the memories that the program has touched since it was resumed or started; none where the kernel does
    /// not tell (before Linux 6.7), or if the program runs bare.
    ///
    /// Of a program that was not resumed by [`crate::PreparedImage::resume_watched`] these are more than it has touched:
    /// the kernel maps pages around each one that is read.
    pub fn working_set(&self) -> Option<WorkingSet> {
        self.control.as_ref()?;
        let touched = self
            .memories()
            .iter()
            .map(|memory| dirty::present(memory).ok());
        touched.collect::<Option<_>>().map(WorkingSet)
    }
}

/// How far apart two stretches of a file may be to be read as one: reading so many bytes takes no longer than another
/// request.
const GAP_BYTES_MAX: u64 = 16 << 10;

/// Asks the system to read what is `touched` of a stored memory.
pub(crate) fn read_ahead(stored: &StoredMemory, touched: &Ranges) -> Result<()> {
    for extent in stored.extents() {
        let held = extent.memory_offset..extent.memory_end();
        let file = stored.layers()[extent.layer as usize].file();
        let mut wanted: Option<Range<u64>> = None;
        let read = |range: Range<u64>| {
            let offset = extent.layer_offset + (range.start - extent.memory_offset);
            let length = range.end - range.start;
            let advised = fadvise(file, offset, NonZeroU64::new(length), Advice::WillNeed);
            advised.map_err(|errno| Error::Mapping {
                operation: "read ahead",
                bytes: length,
                source: errno.into(),
            })
        };
        for range in touched.within(held) {
            wanted = Some(match wanted {
                Some(before) if range.start - before.end <= GAP_BYTES_MAX => {
                    before.start..range.end
                }
                Some(before) => {
                    read(before)?;
                    range
                }
                None => range,
            });
        }
        if let Some(last) = wanted {
            read(last)?;
        }
    }
    Ok(())
}
