//! Where an import keeps what it has received until all of it has been checked.

use std::io;
use std::ops::Range;

use rpds::RedBlackTreeMapSync;

use crate::error::StoreError;
use crate::id::{LeafHash, MemoryHash};
use crate::memory_tree::{LEAF_SIZE, MemoryTree, leaf_start};
use crate::page_map::PAGE_SIZE;
use crate::store::{Store, UnnamedFile};

const PAGES_PER_LEAF: usize = LEAF_SIZE / PAGE_SIZE;
const PAGE: u64 = PAGE_SIZE as u64;

/// Everything received, in the order of its arrival.
#[derive(Debug)]
pub(super) struct Spool {
    file: UnnamedFile,
    /// Where the next bytes go; a multiple of [`PAGE_SIZE`].
    end: u64,
}

/// Where a module, manifest or record lies in the spool, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    start: u64,
    pub byte_len: u64,
}

impl Spool {
    pub fn create(store: &Store) -> Result<Self, StoreError> {
        Ok(Self {
            file: store.unnamed_file()?,
            end: 0,
        })
    }

    /// Takes bytes, and returns the number of the page of the spool that they start with.
    pub fn append(&mut self, bytes: &[u8]) -> Result<u64, StoreError> {
        let start = self.end;
        self.file.write_at(bytes, start)?;
        self.end = (start + bytes.len() as u64).next_multiple_of(PAGE);
        Ok(start / PAGE)
    }

    /// An empty piece at the place that the next bytes will have.
    pub fn next_piece(&self) -> Piece {
        Piece {
            start: self.end,
            byte_len: 0,
        }
    }

    /// All bytes of a piece, which has been received.
    pub fn read(&self, piece: Piece) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; piece.byte_len as usize];
        self.while_reading(self.file.read_at(&mut bytes, piece.start))?;
        Ok(bytes)
    }

    /// Says of a failed [`SpooledMemory::read_at`] what failed.
    pub fn while_reading<T>(&self, read: io::Result<T>) -> Result<T, StoreError> {
        self.file.while_reading(read)
    }
}

/// A leaf of a memory, and where in the spool its pages are.
#[derive(Clone, Copy, Debug)]
struct SpooledLeaf {
    hash: LeafHash,
    /// For each page the number of the page of the spool that holds it, plus one; 0 when it is all zero.
    pages: [u64; PAGES_PER_LEAF],
}

/// A memory that has been received.
#[derive(Clone, Debug)]
pub(super) struct SpooledMemory {
    pub byte_len: u64,
    pub base: Option<MemoryHash>,
    /// All leaves that were ever sent for this memory and its bases. A memory shares with its base what they have in
    /// common, so that ten thousand memories that differ a little take little.
    leaves: RedBlackTreeMapSync<u32, SpooledLeaf>,
    /// The stretches in bytes that differ from the base: whole pages, ascending, disjoint.
    pub changed: Vec<Range<u64>>,
}

impl SpooledMemory {
    /// A memory of which nothing is known but that it is as `base` is, and zero behind that one's end.
    pub fn new(byte_len: u64, base: Option<(MemoryHash, &Self)>) -> Self {
        Self {
            byte_len,
            base: base.map(|(hash, _)| hash),
            leaves: match base {
                Some((_, base)) => base.leaves.clone(),
                None => RedBlackTreeMapSync::new_sync(),
            },
            changed: Vec::new(),
        }
    }

    /// Takes note that pages of a leaf lie in the spool, from page `first_page` of it on, those of the lowest bits of
    /// `mask` first. Leaves must come in ascending order.
    pub fn set_leaf(&mut self, index: u32, mask: u16, hash: LeafHash, first_page: u64) {
        let mut pages = self
            .leaves
            .get(&index)
            .map_or([0; PAGES_PER_LEAF], |leaf| leaf.pages);
        let mut slot = first_page + 1;
        for (number, page) in pages.iter_mut().enumerate() {
            if mask & (1 << number) != 0 {
                *page = slot;
                slot += 1;
                self.add_changed(leaf_start(index) + number as u64 * PAGE);
            }
        }
        self.leaves.insert_mut(index, SpooledLeaf { hash, pages });
    }

    fn add_changed(&mut self, start: u64) {
        match self.changed.last_mut() {
            Some(last) if last.end == start => last.end += PAGE,
            _ => self.changed.push(start..start + PAGE),
        }
    }

    /// The name of the memory that has these leaves.
    pub fn root(&self) -> MemoryHash {
        let leaves = self.leaves.iter().map(|(index, leaf)| (*index, leaf.hash));
        MemoryTree::from_leaves(self.byte_len, leaves).root()
    }

    /// Fills `buffer` with the bytes from `offset` on; zeros where nothing was sent.
    pub fn read_at(&self, spool: &Spool, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(0);
        let mut rest = buffer;
        let mut offset = offset;
        while !rest.is_empty() {
            let in_leaf = LEAF_SIZE - (offset % LEAF_SIZE as u64) as usize;
            let (part, after) = rest.split_at_mut(in_leaf.min(rest.len()));
            let leaf = u32::try_from(offset / LEAF_SIZE as u64).ok();
            if let Some(leaf) = leaf.and_then(|index| self.leaves.get(&index)) {
                read_leaf(spool, leaf, LEAF_SIZE - in_leaf, part)?;
            }
            offset = offset.saturating_add(part.len() as u64);
            rest = after;
        }
        Ok(())
    }
}

/// Fills `buffer` with the bytes of a leaf from `start` on, with one read for pages that lie side by side.
fn read_leaf(spool: &Spool, leaf: &SpooledLeaf, start: usize, buffer: &mut [u8]) -> io::Result<()> {
    let end = start + buffer.len();
    let mut at = start;
    while at < end {
        let first = at / PAGE_SIZE;
        let slot = leaf.pages[first];
        let follows =
            |page: &usize| slot != 0 && leaf.pages[*page] == slot + (*page - first) as u64;
        let after = first
            + 1
            + (first + 1..PAGES_PER_LEAF)
                .take_while(|page| follows(page))
                .count();
        let to = end.min(after * PAGE_SIZE);
        if slot != 0 {
            let position = (slot - 1) * PAGE + (at % PAGE_SIZE) as u64;
            spool
                .file
                .read_at(&mut buffer[at - start..to - start], position)?;
        }
        at = to;
    }
    Ok(())
}
