//! Leaves of memories in frames: made on one side, checked on the other.

use std::borrow::Cow;

use super::error::{ImportError, StreamDamage};
use super::frame::{Frame, LEAF_ENTRY_SIZE};
use super::spool::{Spool, SpooledMemory};
use crate::bytes::{Reader, Writer};
use crate::error::{DecodeError, StoreError};
use crate::id::{ImageId, LeafHash, MemoryHash};
use crate::memory_tree::{LEAF_SIZE, is_zero, leaf_start};
use crate::page_map::PAGE_SIZE;
use crate::store::StoredMemory;

/// A memory that leaves are taken from, and how errors name it.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub image: ImageId,
    /// The index of the memory in the image.
    pub index: usize,
    pub content: MemoryHash,
    pub memory: &'a StoredMemory,
}

impl Source<'_> {
    /// Reads a leaf and checks that it has its hash: damage must not travel.
    fn read(&self, leaf: u32, hash: LeafHash, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.memory.read_at(leaf_start(leaf), buffer)?;
        if LeafHash::of(buffer) == hash {
            return Ok(());
        }
        Err(StoreError::DamagedMemory {
            image: self.image,
            memory: self.index,
            offset: leaf_start(leaf),
        })
    }
}

/// A leaf to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChangedLeaf {
    pub index: u32,
    pub hash: LeafHash,
    /// Its hash in the base; that of zeros without one.
    pub base: LeafHash,
}

/// The content of a frame with these leaves: which pages differ from the base, then these pages.
pub(super) fn content(
    leaves: &[ChangedLeaf],
    of: Source<'_>,
    base: Option<Source<'_>>,
) -> Result<Vec<u8>, StoreError> {
    // Room for the largest content, so that it is never moved.
    let table_len = leaves.len() * LEAF_ENTRY_SIZE;
    let mut content = Vec::with_capacity(table_len + leaves.len() * LEAF_SIZE);
    content.resize(table_len, 0);
    let mut bytes = vec![0; LEAF_SIZE];
    let mut before = vec![0; LEAF_SIZE];
    for (number, leaf) in leaves.iter().enumerate() {
        of.read(leaf.index, leaf.hash, &mut bytes)?;
        if let Some(base) = base {
            base.read(leaf.index, leaf.base, &mut before)?;
        }
        let mut mask = 0u16;
        for (number, (page, before)) in chunks(&bytes).zip(chunks(&before)).enumerate() {
            if page != before {
                mask |= 1 << number;
                content.extend_from_slice(page);
            }
        }
        let mut entry = Writer::default();
        entry.u32(leaf.index);
        entry.raw(&mask.to_le_bytes());
        entry.raw(&leaf.hash.0);
        content[number * LEAF_ENTRY_SIZE..][..LEAF_ENTRY_SIZE].copy_from_slice(entry.as_bytes());
    }
    Ok(content)
}

fn chunks(leaf: &[u8]) -> impl Iterator<Item = &[u8]> {
    leaf.chunks_exact(PAGE_SIZE)
}

/// Leaves that have been checked, but for their order.
pub(super) struct Received<'a> {
    /// Where their frame starts in the stream.
    pub offset: u64,
    pub leaves: Vec<ReceivedLeaf>,
    content: Cow<'a, [u8]>,
    pages_start: usize,
}

impl Received<'_> {
    /// The pages of all leaves one behind the other.
    pub fn pages(&self) -> &[u8] {
        &self.content[self.pages_start..]
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedLeaf {
    pub index: u32,
    /// Bit N is set when page N follows; the others are as in the base.
    pub mask: u16,
    pub hash: LeafHash,
}

/// Checks the `count` leaves of a frame that continues `memory`: each must have its hash once its pages are put over
/// what the base has.
pub(super) fn check<'a>(
    frame: &'a Frame,
    count: usize,
    spool: &Spool,
    memory: &SpooledMemory,
) -> Result<Received<'a>, ImportError> {
    if frame.content_len() < count * LEAF_ENTRY_SIZE {
        return Err(frame.damaged(StreamDamage::ContentLength {
            what: "table of leaves",
            expected: (count * LEAF_ENTRY_SIZE) as u64,
            found: frame.content_len() as u64,
        }));
    }
    let content = frame.content()?;
    let (table, pages) = content.split_at(count * LEAF_ENTRY_SIZE);
    let leaves = entries(table, count).map_err(|error| frame.damaged(error))?;
    let sent: u32 = leaves.iter().map(|leaf| leaf.mask.count_ones()).sum();
    if pages.len() != sent as usize * PAGE_SIZE {
        return Err(frame.damaged(StreamDamage::ContentLength {
            what: "pages of a frame",
            expected: u64::from(sent) * PAGE_SIZE as u64,
            found: pages.len() as u64,
        }));
    }
    let mut rest = pages;
    let mut buffer = vec![0; LEAF_SIZE];
    for leaf in &leaves {
        let (own, after) = rest.split_at(leaf.mask.count_ones() as usize * PAGE_SIZE);
        rest = after;
        spool.while_reading(memory.read_at(spool, leaf_start(leaf.index), &mut buffer))?;
        check_leaf(leaf, own, memory.byte_len, &mut buffer)
            .map_err(|damage| frame.damaged(damage))?;
    }
    Ok(Received {
        offset: frame.offset,
        leaves,
        content,
        pages_start: count * LEAF_ENTRY_SIZE,
    })
}

fn entries(table: &[u8], count: usize) -> Result<Vec<ReceivedLeaf>, DecodeError> {
    let mut reader = Reader::new(table);
    (0..count)
        .map(|_| {
            Ok(ReceivedLeaf {
                index: reader.u32("leaf index")?,
                mask: u16::from_le_bytes(reader.array("leaf pages")?),
                hash: LeafHash(reader.array("leaf hash")?),
            })
        })
        .collect()
}

/// Puts the pages of a leaf over what `bytes` has of the base, and checks the result.
fn check_leaf(
    leaf: &ReceivedLeaf,
    pages: &[u8],
    byte_len: u64,
    bytes: &mut [u8],
) -> Result<(), StreamDamage> {
    let start = leaf_start(leaf.index);
    if start >= byte_len {
        return Err(StreamDamage::LeafOutside {
            leaf: leaf.index,
            byte_len,
        });
    }
    let targets = bytes.chunks_exact_mut(PAGE_SIZE).enumerate();
    let targets = targets.filter(|(number, _)| leaf.mask & (1 << number) != 0);
    let mut minimal = leaf.mask != 0;
    for ((_, target), page) in targets.zip(chunks(pages)) {
        minimal &= target != page;
        target.copy_from_slice(page);
    }
    if !minimal {
        return Err(StreamDamage::NotMinimal { leaf: leaf.index });
    }
    let found = LeafHash::of(bytes);
    if found != leaf.hash {
        return Err(StreamDamage::Leaf {
            leaf: leaf.index,
            expected: leaf.hash,
            found,
        });
    }
    let inside = (byte_len - start).min(LEAF_SIZE as u64) as usize;
    if !is_zero(&bytes[inside..]) {
        return Err(StreamDamage::Padding { leaf: leaf.index });
    }
    Ok(())
}
