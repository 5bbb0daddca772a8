//! Page maps: where in a store the bytes of a memory lie. `FORMAT.md` describes each field.
//!
//! A page map is not part of an image. Two stores can keep one memory in different places; what the map says is
//! checked against the memory's hash tree.

use crate::bytes::{Reader, Writer};
use crate::error::DecodeError;
use crate::id::{LayerId, LeafHash, MemoryHash};
use crate::manifest::MEMORY_LEN_MAX;
use crate::memory_tree::{LEAF_SIZE, LeafScan, MemoryTree};

/// The unit in bytes in which stores keep memory: offsets and lengths of extents are multiples of it, on every host.
pub const PAGE_SIZE: usize = 4096;

const FORMAT: &str = "page map";
const MAGIC: [u8; 8] = *b"WSNAPMAP";
const VERSION: u32 = 1;
/// A page map names at most so many layers, so that a reader can keep all their files open.
pub(crate) const LAYER_COUNT_MAX: u64 = 256;
const EXTENT_SIZE: usize = 28;
const CHECKSUM_SIZE: usize = 32;
const PAGE: u64 = PAGE_SIZE as u64;

/// A stretch of a memory, and where its bytes lie. All numbers are in bytes and multiples of [`PAGE_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where the stretch starts in the memory.
    pub memory_offset: u64,
    /// Which of the memory's layers holds it, as an index.
    pub layer: u32,
    /// Where it starts in the layer file.
    pub layer_offset: u64,
    /// How long it is. The last extent of a memory is padded with zeros to a multiple of [`PAGE_SIZE`].
    pub length: u64,
}

impl Extent {
    /// Where the stretch ends in the memory.
    pub fn memory_end(&self) -> u64 {
        self.memory_offset + self.length
    }

    /// Where the stretch ends in the layer file.
    pub fn layer_end(&self) -> u64 {
        self.layer_offset + self.length
    }
}

/// Where the bytes of one memory lie. What no extent covers is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageMap {
    /// The memory's length, at most [`MEMORY_LEN_MAX`].
    pub byte_len: u64,
    pub layers: Vec<LayerId>,
    /// Invariant: ascending, not empty, not overlapping, inside the memory rounded up to a page; layer indices exist
    /// and ends don't overflow.
    pub extents: Vec<Extent>,
    /// Invariant: the leaves that extents touch, ascending, each with its hash.
    pub leaves: Vec<(u32, LeafHash)>,
}

impl PageMap {
    /// The name of the memory that has this length and these leaves.
    pub fn root(&self) -> MemoryHash {
        MemoryTree::from_leaves(self.byte_len, self.leaves.iter().copied()).root()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(&MAGIC);
        writer.u32(VERSION);
        writer.u64(self.byte_len);
        writer.count(self.layers.len());
        self.layers.iter().for_each(|layer| writer.raw(&layer.0));
        writer.count(self.extents.len());
        for extent in &self.extents {
            writer.u64(extent.memory_offset);
            writer.u64(extent.layer_offset);
            writer.u64(extent.length);
            writer.u32(extent.layer);
        }
        writer.count(self.leaves.len());
        self.leaves.iter().for_each(|(_, hash)| writer.raw(&hash.0));
        let checksum = blake3::hash(writer.as_bytes());
        writer.raw(checksum.as_bytes());
        writer.into_bytes()
    }

    /// Reads a page map from all of `bytes`. It does not check the leaf hashes, which only [`PageMap::root`] can.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.header(FORMAT, &MAGIC, VERSION)?;
        let content = check_checksum(bytes, reader.offset())?;

        let mut reader = Reader::new(content);
        reader.header(FORMAT, &MAGIC, VERSION)?;
        let byte_len = limited(&mut reader, "memory size", MEMORY_LEN_MAX)?;
        let layer_count = reader.count("layers", 32)?;
        if layer_count as u64 > LAYER_COUNT_MAX {
            let offset = reader.offset() - 8;
            return Err(DecodeError::Limit {
                what: "number of layers",
                offset,
                found: layer_count as u64,
                limit: LAYER_COUNT_MAX,
            });
        }
        let layers = (0..layer_count)
            .map(|_| reader.array("layer id").map(LayerId))
            .collect::<Result<Vec<_>, _>>()?;
        let extents = read_extents(&mut reader, byte_len, layer_count)?;
        let leaves = read_leaves(&mut reader, &extents)?;
        reader.finish()?;
        Ok(Self {
            byte_len,
            layers,
            extents,
            leaves,
        })
    }
}

/// Splits the checksum off and checks it, so that no damage to extents leads anywhere.
fn check_checksum(bytes: &[u8], header_len: usize) -> Result<&[u8], DecodeError> {
    match bytes.split_last_chunk::<CHECKSUM_SIZE>() {
        Some((content, checksum)) if content.len() >= header_len => {
            if blake3::hash(content) == *checksum {
                Ok(content)
            } else {
                Err(DecodeError::Checksum)
            }
        }
        _ => Err(DecodeError::Truncated {
            what: "checksum",
            offset: header_len,
        }),
    }
}

fn limited(reader: &mut Reader<'_>, what: &'static str, limit: u64) -> Result<u64, DecodeError> {
    let offset = reader.offset();
    let found = reader.u64(what)?;
    if found > limit {
        return Err(DecodeError::Limit {
            what,
            offset,
            found,
            limit,
        });
    }
    Ok(found)
}

fn read_extents(
    reader: &mut Reader<'_>,
    byte_len: u64,
    layer_count: usize,
) -> Result<Vec<Extent>, DecodeError> {
    let count = reader.count("extents", EXTENT_SIZE)?;
    let mut extents: Vec<Extent> = Vec::new();
    for _ in 0..count {
        let offset = reader.offset();
        let extent = Extent {
            memory_offset: reader.u64("extent")?,
            layer_offset: reader.u64("extent")?,
            length: reader.u64("extent")?,
            layer: reader.u32("extent")?,
        };
        let after = extents.last().map_or(0, Extent::memory_end);
        if let Some(problem) = extent_problem(&extent, after, byte_len, layer_count) {
            return Err(DecodeError::Extent { offset, problem });
        }
        extents.push(extent);
    }
    Ok(extents)
}

/// What is wrong with an extent whose predecessor ends at `after`, if anything is.
fn extent_problem(
    extent: &Extent,
    after: u64,
    byte_len: u64,
    layer_count: usize,
) -> Option<&'static str> {
    let numbers = [extent.memory_offset, extent.layer_offset, extent.length];
    if numbers.iter().any(|number| number % PAGE != 0) {
        return Some("is not made of whole pages");
    }
    if extent.length == 0 {
        return Some("is empty");
    }
    if extent.memory_offset < after {
        return Some("overlaps the one before it, or is out of order");
    }
    match extent.memory_offset.checked_add(extent.length) {
        Some(end) if end <= byte_len.next_multiple_of(PAGE) => (),
        _ => return Some("reaches behind the end of the memory"),
    }
    if extent.layer as usize >= layer_count {
        return Some("names a layer that does not exist");
    }
    // The first page of a layer file is its header.
    if extent.layer_offset < PAGE || extent.layer_offset.checked_add(extent.length).is_none() {
        return Some("lies outside of any layer file");
    }
    None
}

fn read_leaves(
    reader: &mut Reader<'_>,
    extents: &[Extent],
) -> Result<Vec<(u32, LeafHash)>, DecodeError> {
    let found = reader.count("leaf hashes", 32)?;
    // Counted before they are enumerated: few extents can touch billions of leaves.
    let expected = touched_ranges(extents)
        .map(|(first, last)| last - first + 1)
        .sum();
    if found as u64 != expected {
        return Err(DecodeError::LeafCount {
            expected,
            found: found as u64,
        });
    }
    let indices = touched_ranges(extents).flat_map(|(first, last)| first..=last);
    // An index fits in 32 bits: extents end below 2^48 and a leaf has 2^16 bytes.
    indices
        .map(|index| Ok((index as u32, LeafHash(reader.array("leaf hash")?))))
        .collect()
}

/// The first and last leaf that each extent touches, without leaves that the extent before has touched already.
fn touched_ranges(extents: &[Extent]) -> impl Iterator<Item = (u64, u64)> + '_ {
    let mut next = 0;
    extents.iter().filter_map(move |extent| {
        let first = (extent.memory_offset / LEAF_SIZE as u64).max(next);
        let last = (extent.memory_end() - 1) / LEAF_SIZE as u64;
        next = last + 1;
        (first <= last).then_some((first, last))
    })
}

/// Extents that put the pages that are not zero one behind the other into one layer file.
pub(crate) fn extents_of(leaves: &[LeafScan]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut layer_offset = PAGE;
    for leaf in leaves {
        for page in (0..16).filter(|page| leaf.pages & (1 << page) != 0) {
            let memory_offset = u64::from(leaf.index) * LEAF_SIZE as u64 + page * PAGE;
            match extents.last_mut() {
                Some(last) if last.memory_end() == memory_offset => last.length += PAGE,
                _ => extents.push(Extent {
                    memory_offset,
                    layer: 0,
                    layer_offset,
                    length: PAGE,
                }),
            }
            layer_offset += PAGE;
        }
    }
    extents
}
