//! Memories that lie in many pieces, in few.
//!
//! Each piece of a memory is a mapping of its own, which takes the system two microseconds, and a process may have 65,530 of them:
//! of an interpreter whose heap is scattered over a thousand pieces there would be sixty clones at most. So the content of
//! such a memory is copied once, when its image is prepared, into a file without a name, which has what lies close together in
//! one piece.

use crate::error::{Error, Result};
use crate::memory::{Piece, page_size};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use wsnap_snapshots::StoredMemory;

/// So many pieces are mapped one by one.
const PIECES_FEW: usize = 64;
/// So many become of more, at most: what lies in the shortest gaps between them is copied, too, as zeros.
const PIECES_MADE: usize = 16;
const COPIED_AT_ONCE: u64 = 1 << 20;

/// How much may be copied for one image, in bytes. It stays in memory as long as the image is prepared.
pub(crate) const COPIED_MAX: u64 = 256 << 20;

/// The content of a memory in a file of its own.
pub(crate) struct FlatMemory {
    file: File,
    /// The stretches of the memory, ascending, in bytes. They lie in the file one behind the other.
    stretches: Vec<Range<u64>>,
}

impl FlatMemory {
    /// The content of `stored`, of which at most `budget` bytes become; they are taken off it. None if the memory lies in few
    /// pieces, or if there is no room, which means that clones map its own pieces.
    pub fn new(stored: &StoredMemory, budget: &mut u64) -> Option<Self> {
        let is_mapped = page_size() == wsnap_snapshots::PAGE_SIZE;
        if stored.extents().len() <= PIECES_FEW || !is_mapped {
            return None;
        }
        let extents = stored.extents().iter();
        let stretches: Vec<Range<u64>> = extents
            .map(|extent| extent.memory_offset..extent.memory_end())
            .collect();
        let stretches = joined(&stretches);
        let bytes: u64 = stretches
            .iter()
            .map(|stretch| stretch.end - stretch.start)
            .sum();
        // The system ends a process that makes a file larger than it may.
        let may_be_made = getrlimit(Resource::Fsize)
            .current
            .is_none_or(|limit| bytes <= limit);
        if !may_be_made || bytes > *budget {
            return None;
        }
        let file = copy(stored, &stretches).ok()?;
        *budget -= bytes;
        Some(Self { file, stretches })
    }

    /// Where the pages of the memory lie.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.stretches.iter().scan(0, |file_offset, stretch| {
            let length = stretch.end - stretch.start;
            let piece = Piece {
                offset: stretch.start,
                file: &self.file,
                file_offset: *file_offset,
                length,
            };
            *file_offset += length;
            Some(piece)
        })
    }
}

/// Joins stretches, which ascend, over the shortest gaps until they are few.
fn joined(stretches: &[Range<u64>]) -> Vec<Range<u64>> {
    let gap = |pair: &[Range<u64>]| pair[1].start - pair[0].end;
    let mut gaps: Vec<u64> = stretches.windows(2).map(gap).collect();
    gaps.sort_unstable_by(|one, other| other.cmp(one));
    // All longer ones stay.
    let longest_joined = gaps.get(PIECES_MADE - 1).copied().unwrap_or(0);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for stretch in stretches {
        match joined.last_mut() {
            Some(last) if stretch.start - last.end <= longest_joined => last.end = stretch.end,
            _ => joined.push(stretch.clone()),
        }
    }
    joined
}

/// A file with these stretches of a memory, all of it written, so that reading it later needs no room that is not there.
fn copy(stored: &StoredMemory, stretches: &[Range<u64>]) -> Result<File> {
    let failed = |source: std::io::Error| Error::Mapping {
        operation: "copy",
        bytes: stored.byte_len(),
        source,
    };
    let file = without_name().map_err(|errno| failed(errno.into()))?;
    let mut buffer = vec![0; COPIED_AT_ONCE as usize];
    let mut to = 0;
    for stretch in stretches {
        let mut from = stretch.start;
        while from < stretch.end {
            let bytes = &mut buffer[..(stretch.end - from).min(COPIED_AT_ONCE) as usize];
            stored.read_at(from, bytes)?;
            file.write_all_at(bytes, to).map_err(failed)?;
            from += bytes.len() as u64;
            to += bytes.len() as u64;
        }
    }
    // From now on nobody changes it. A system that cannot promise that has nobody who would: only this process knows the file.
    let _ = fcntl_add_seals(
        &file,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    );
    Ok(file)
}

fn without_name() -> rustix::io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let make = |flags| memfd_create("wsnap memory", flags).map(File::from);
    // Some systems insist on it, others (before Linux 6.3) do not know it.
    make(flags | MemfdFlags::NOEXEC_SEAL).or_else(|_| make(flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_joined_over_the_shortest_gaps_until_they_are_few() {
        // Gaps of 1 to 40 pages, in some order, and the longest ones stay.
        let gaps: Vec<u64> = (1..40).map(|number| 1 + number * 7 % 40).collect();
        let mut stretches = Vec::from([3..5, 6..8]);
        for gap in &gaps {
            let end = stretches.last().map_or(0, |last: &Range<u64>| last.end);
            stretches.push(end + gap..end + gap + 2);
        }
        let joined = joined(&stretches);
        assert_eq!(joined.len(), PIECES_MADE);
        assert_eq!(joined[0].start, 3);
        assert_eq!(
            joined.last().map(|last| last.end),
            stretches.last().map(|last| last.end)
        );
        let mut left: Vec<u64> = joined
            .windows(2)
            .map(|pair| pair[1].start - pair[0].end)
            .collect();
        left.sort_unstable();
        assert_eq!(left, (26..=40).collect::<Vec<u64>>());
    }

    #[test]
    fn few_stretches_are_joined_only_where_they_touch() {
        assert_eq!(joined(&[1..2, 2..4, 5..6]), [1..4, 5..6]);
        assert_eq!(joined(&[]), []);
        let alike: Vec<Range<u64>> = (0..1000).map(|number| number * 8..number * 8 + 1).collect();
        let (first, all) = (joined(&alike)[0].clone(), joined(&alike).len());
        assert_eq!((first, all), (0..7993, 1));
    }
}
