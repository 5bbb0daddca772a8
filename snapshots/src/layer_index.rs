//! The index of a layer: which stretches of a memory the layer holds, and the hashes of the leaves that they touch.
//! `FORMAT.md` describes each field.

use crate::bytes::{Reader, Writer};
use crate::error::DecodeError;
use crate::id::LeafHash;
use crate::manifest::MEMORY_LEN_MAX;
use crate::memory_tree::LEAF_SIZE;
use crate::page_map::PAGE_SIZE;

const PAGE: u64 = PAGE_SIZE as u64;
const LEAF: u64 = LEAF_SIZE as u64;
const ENTRY_SIZE: usize = 17;
const PAGES: u8 = 0;
const HOLE: u8 = 1;

/// What a layer says about a stretch of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// The layer holds its pages.
    Pages,
    /// It is zero, whatever older layers say.
    Hole,
}

/// A stretch of memory that a layer speaks about. The numbers are in bytes and multiples of [`PAGE_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub memory_offset: u64,
    pub length: u64,
    pub kind: EntryKind,
}

impl Entry {
    pub fn memory_end(&self) -> u64 {
        self.memory_offset + self.length
    }
}

/// Everything that a layer says about a memory, but for the pages themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LayerIndex {
    /// Invariant: ascending, not empty, not overlapping, made of whole pages, below [`MEMORY_LEN_MAX`].
    pub entries: Vec<Entry>,
    /// Invariant: the leaves that entries touch, ascending, each with the hash that it had in the memory that the
    /// layer was written for.
    pub leaves: Vec<(u32, LeafHash)>,
}

impl LayerIndex {
    /// How many bytes of pages the layer holds.
    pub fn page_bytes(&self) -> u64 {
        page_bytes(&self.entries)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.count(self.entries.len());
        for entry in &self.entries {
            writer.u64(entry.memory_offset);
            writer.u64(entry.length);
            writer.u8(match entry.kind {
                EntryKind::Pages => PAGES,
                EntryKind::Hole => HOLE,
            });
        }
        writer.count(self.leaves.len());
        self.leaves.iter().for_each(|(_, hash)| writer.raw(&hash.0));
        writer.into_bytes()
    }

    /// Reads an index from all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let entries = read_entries(&mut reader)?;
        let leaves = read_leaves(&mut reader, &entries)?;
        reader.finish()?;
        Ok(Self { entries, leaves })
    }
}

pub(crate) fn page_bytes(entries: &[Entry]) -> u64 {
    entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Pages)
        .map(|entry| entry.length)
        .sum()
}

fn read_entries(reader: &mut Reader<'_>) -> Result<Vec<Entry>, DecodeError> {
    let count = reader.count("entries", ENTRY_SIZE)?;
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..count {
        let offset = reader.offset();
        let memory_offset = reader.u64("entry")?;
        let length = reader.u64("entry")?;
        let kind = match reader.u8("entry")? {
            PAGES => EntryKind::Pages,
            HOLE => EntryKind::Hole,
            found => {
                return Err(DecodeError::Discriminant {
                    what: "kind of entry",
                    offset: offset + 16,
                    found,
                });
            }
        };
        let after = entries.last().map_or(0, Entry::memory_end);
        if let Some(problem) = problem(memory_offset, length, after) {
            return Err(DecodeError::Extent { offset, problem });
        }
        entries.push(Entry {
            memory_offset,
            length,
            kind,
        });
    }
    Ok(entries)
}

/// What is wrong with an entry whose predecessor ends at `after`, if anything is.
fn problem(memory_offset: u64, length: u64, after: u64) -> Option<&'static str> {
    if [memory_offset, length]
        .iter()
        .any(|number| number % PAGE != 0)
    {
        return Some("is not made of whole pages");
    }
    if length == 0 {
        return Some("is empty");
    }
    if memory_offset < after {
        return Some("overlaps the one before it, or is out of order");
    }
    match memory_offset.checked_add(length) {
        Some(end) if end <= MEMORY_LEN_MAX => None,
        _ => Some("reaches behind the end of any memory"),
    }
}

fn read_leaves(
    reader: &mut Reader<'_>,
    entries: &[Entry],
) -> Result<Vec<(u32, LeafHash)>, DecodeError> {
    let found = reader.count("leaf hashes", 32)?;
    let stretches = || {
        entries
            .iter()
            .map(|entry| (entry.memory_offset, entry.memory_end()))
    };
    // Counted before they are enumerated: few entries can touch billions of leaves.
    let expected = touched_leaves(stretches())
        .map(|(first, last)| u64::from(last - first) + 1)
        .sum();
    if found as u64 != expected {
        return Err(DecodeError::LeafCount {
            expected,
            found: found as u64,
        });
    }
    touched_leaves(stretches())
        .flat_map(|(first, last)| first..=last)
        .map(|index| Ok((index, LeafHash(reader.array("leaf hash")?))))
        .collect()
}

/// The first and last leaf of each stretch (start and end in bytes, ascending, below [`MEMORY_LEN_MAX`]), without leaves
/// that the stretch before touches already.
pub(crate) fn touched_leaves(
    stretches: impl Iterator<Item = (u64, u64)>,
) -> impl Iterator<Item = (u32, u32)> {
    let mut next = 0;
    stretches.filter_map(move |(start, end)| {
        let first = (start / LEAF).max(next);
        let last = (end - 1) / LEAF;
        next = next.max(last + 1);
        // An index fits in 32 bits: memories end below 2^48 and a leaf has 2^16 bytes.
        (first <= last).then_some((first as u32, last as u32))
    })
}
