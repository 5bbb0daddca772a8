//! The hash tree that names the content of a memory.
//!
//! ```text
//! root     hash of (length in bytes, level 4)          MemoryHash
//! level 4  1 node
//! level 3  up to 256 nodes: 2^40 bytes each
//! level 2  2^32 bytes each
//! level 1  2^24 bytes each: 256 leaves
//! leaves   2^16 bytes each, the last one padded with zeros
//! ```
//!
//! A leaf of 64 KiB is one WebAssembly page: small enough that a changed byte costs about 10 µs of hashing, large
//! enough that the hashes of a gigabyte take half a megabyte. 256 children make a node of 8 KiB, which BLAKE3 hashes
//! in one pass of its eight parallel lanes, so a node of this size costs hardly more than a small one while the path
//! above a leaf is four nodes, one for each byte of a 32-bit leaf index. The height is fixed, so that growing a
//! memory changes nothing but the root.
//!
//! Whatever holds only zeros, at any level, has the hash of 32 zero bytes and is not stored at all: sparse terabytes
//! cost nothing. `FORMAT.md` defines each hash in bytes.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{LeafHash, MemoryHash};
use crate::manifest::MEMORY_LEN_MAX;
use crate::page_map::PAGE_SIZE;
use crate::parallel;

/// The size of a leaf in bytes.
pub const LEAF_SIZE: usize = 1 << 16;
/// A node has so many children.
pub const FAN_OUT: usize = 256;
/// The levels of nodes above the leaves.
const HEIGHT: usize = 4;
/// A worker takes so many leaves at once: 1 MiB, long against the cost of handing it out.
const LEAVES_PER_RANGE: usize = 16;

const LEAF_KEY: [u8; 32] = *b"wsnap memory tree: leaf\0\0\0\0\0\0\0\0\0";
const NODE_KEY: [u8; 32] = *b"wsnap memory tree: node\0\0\0\0\0\0\0\0\0";
const ROOT_KEY: [u8; 32] = *b"wsnap memory tree: root\0\0\0\0\0\0\0\0\0";

/// The hash of everything that holds only zeros.
const ZERO: [u8; 32] = [0; 32];
static ZERO_PAGE: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
static ZERO_LEAF: [u8; LEAF_SIZE] = [0; LEAF_SIZE];

impl LeafHash {
    /// The hash of a leaf that holds only zeros.
    pub const ZERO: Self = Self(ZERO);

    /// The hash of a leaf; content shorter than [`LEAF_SIZE`] is taken as padded with zeros.
    ///
    /// # Panics
    ///
    /// When there are more than [`LEAF_SIZE`] bytes.
    pub fn of(bytes: &[u8]) -> Self {
        if is_zero(bytes) {
            Self::ZERO
        } else {
            hash_non_zero_leaf(bytes)
        }
    }
}

fn hash_non_zero_leaf(bytes: &[u8]) -> LeafHash {
    assert!(
        bytes.len() <= LEAF_SIZE,
        "a leaf has at most {LEAF_SIZE} bytes"
    );
    let mut hasher = blake3::Hasher::new_keyed(&LEAF_KEY);
    hasher.update(bytes);
    hasher.update(&ZERO_LEAF[bytes.len()..]);
    LeafHash(*hasher.finalize().as_bytes())
}

/// Whether all bytes are zero. Stops at the first page that holds something else.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Comparing with zeros is memcmp, which the C library has in the fastest form for each CPU.
    bytes
        .chunks(PAGE_SIZE)
        .all(|page| page == &ZERO_PAGE[..page.len()])
}

/// The hashes of a memory's leaves that are not all zero, ascending, computed on all cores.
///
/// # Panics
///
/// When the memory is larger than [`MEMORY_LEN_MAX`].
fn hash_leaves(memory: &[u8]) -> Vec<(u32, LeafHash)> {
    assert!(
        memory.len() as u64 <= MEMORY_LEN_MAX,
        "a memory has at most {MEMORY_LEN_MAX} bytes"
    );
    let leaves = memory.len().div_ceil(LEAF_SIZE);
    let ranges = parallel::map_ranges(leaves, LEAVES_PER_RANGE, |range| {
        range
            .map(|index| {
                let start = index * LEAF_SIZE;
                let leaf = &memory[start..memory.len().min(start + LEAF_SIZE)];
                // The index fits: a memory has at most 2^48 bytes, so 2^32 leaves.
                (index as u32, LeafHash::of(leaf))
            })
            .filter(|(_, hash)| *hash != LeafHash::ZERO)
            .collect::<Vec<_>>()
    });
    ranges.into_iter().flatten().collect()
}

/// The hashes of a memory's content. What it takes, in memory and in time, depends on the parts of the memory that
/// are not zero, and an update's time on what has changed.
///
/// ```
/// use wsnap_snapshots::MemoryTree;
///
/// let mut memory = vec![0; 3 << 16];
/// memory[70_000] = 1;
/// let mut tree = MemoryTree::of(&memory);
/// memory[200_000 - 70_000] = 2;
/// tree.update(1, &memory[1 << 16..2 << 16]);
/// assert_eq!(tree.root(), MemoryTree::of(&memory).root());
/// ```
#[derive(Clone, Debug)]
pub struct MemoryTree {
    byte_len: u64,
    /// The hashes that are not all zero, by index; leaves first, the single top node last.
    ///
    /// Invariant: every node has the hash of its children unless it lies above a member of `stale`.
    levels: [BTreeMap<u32, [u8; 32]>; HEIGHT + 1],
    /// The nodes of level 1 whose leaves have changed since the levels above were computed.
    stale: BTreeSet<u32>,
}

impl MemoryTree {
    /// The tree of a memory of `byte_len` bytes that are all zero.
    ///
    /// # Panics
    ///
    /// When `byte_len` is above [`MEMORY_LEN_MAX`].
    pub fn new(byte_len: u64) -> Self {
        Self::from_leaves(byte_len, [])
    }

    /// The tree of a memory with the given content, computed on all cores.
    ///
    /// # Panics
    ///
    /// When there are more than [`MEMORY_LEN_MAX`] bytes.
    pub fn of(memory: &[u8]) -> Self {
        Self::from_leaves(memory.len() as u64, hash_leaves(memory))
    }

    /// The tree of a memory of `byte_len` bytes, from the hashes of its leaves by index. Leaves not mentioned are
    /// all zero.
    ///
    /// # Panics
    ///
    /// When `byte_len` is above [`MEMORY_LEN_MAX`], or a leaf lies behind it.
    pub fn from_leaves(byte_len: u64, leaves: impl IntoIterator<Item = (u32, LeafHash)>) -> Self {
        assert!(
            byte_len <= MEMORY_LEN_MAX,
            "a memory has at most {MEMORY_LEN_MAX} bytes"
        );
        let leaves: BTreeMap<u32, [u8; 32]> = leaves
            .into_iter()
            .filter(|(_, hash)| *hash != LeafHash::ZERO)
            .map(|(index, hash)| (index, hash.0))
            .collect();
        if let Some((last, _)) = leaves.last_key_value() {
            assert!(
                leaf_start(*last) < byte_len,
                "leaf {last} lies behind the end of the memory"
            );
        }
        let stale = leaves.keys().map(|index| parent(*index)).collect();
        let mut levels: [BTreeMap<_, _>; HEIGHT + 1] = Default::default();
        levels[0] = leaves;
        Self {
            byte_len,
            levels,
            stale,
        }
    }

    /// The length of the memory in bytes.
    pub fn byte_len(&self) -> u64 {
        self.byte_len
    }

    /// Follows a memory that has grown to `byte_len` bytes; what is new is zero.
    ///
    /// # Panics
    ///
    /// When `byte_len` is below the present length or above [`MEMORY_LEN_MAX`].
    pub fn grow(&mut self, byte_len: u64) {
        assert!(
            (self.byte_len..=MEMORY_LEN_MAX).contains(&byte_len),
            "memories grow, up to {MEMORY_LEN_MAX} bytes"
        );
        self.byte_len = byte_len;
    }

    /// The hash of leaf `index`.
    pub fn leaf(&self, index: u32) -> LeafHash {
        LeafHash(self.levels[0].get(&index).copied().unwrap_or(ZERO))
    }

    /// All leaves that are not zero, in ascending order.
    pub fn leaves(&self) -> impl Iterator<Item = (u32, LeafHash)> + '_ {
        self.levels[0]
            .iter()
            .map(|(index, hash)| (*index, LeafHash(*hash)))
    }

    /// Takes the new content of leaf `index`.
    ///
    /// # Panics
    ///
    /// When `bytes` is not all of the leaf: [`LEAF_SIZE`] bytes, or what the memory has left for its last leaf.
    pub fn update(&mut self, index: u32, bytes: &[u8]) {
        let len = self
            .byte_len
            .saturating_sub(leaf_start(index))
            .min(LEAF_SIZE as u64);
        assert!(
            len > 0 && bytes.len() as u64 == len,
            "leaf {index} has {len} bytes"
        );
        self.set_leaf(index, LeafHash::of(bytes));
    }

    /// Takes the new hash of leaf `index`, which lies inside the memory.
    pub(crate) fn set_leaf(&mut self, index: u32, hash: LeafHash) {
        set(&mut self.levels[0], index, hash.0);
        self.stale.insert(parent(index));
    }

    /// The name of the memory's content.
    pub fn root(&mut self) -> MemoryHash {
        let mut stale = std::mem::take(&mut self.stale);
        for level in 1..=HEIGHT {
            let (below, above) = self.levels.split_at_mut(level);
            for index in &stale {
                set(&mut above[0], *index, node_hash(&below[level - 1], *index));
            }
            stale = stale.into_iter().map(parent).collect();
        }
        let top = self.levels[HEIGHT].get(&0).copied().unwrap_or(ZERO);
        let mut root = blake3::Hasher::new_keyed(&ROOT_KEY);
        root.update(&self.byte_len.to_le_bytes());
        root.update(&top);
        MemoryHash(*root.finalize().as_bytes())
    }
}

/// Where leaf `index` starts, in bytes.
pub(crate) fn leaf_start(index: u32) -> u64 {
    u64::from(index) * LEAF_SIZE as u64
}

fn parent(index: u32) -> u32 {
    index / FAN_OUT as u32
}

fn set(level: &mut BTreeMap<u32, [u8; 32]>, index: u32, hash: [u8; 32]) {
    if hash == ZERO {
        level.remove(&index);
    } else {
        level.insert(index, hash);
    }
}

/// The hash of node `index` of the level above `children`.
fn node_hash(children: &BTreeMap<u32, [u8; 32]>, index: u32) -> [u8; 32] {
    let first = index * FAN_OUT as u32;
    let mut hashes = [ZERO; FAN_OUT];
    let mut count = 0;
    for (child, hash) in children.range(first..=first + (FAN_OUT as u32 - 1)) {
        let position = (child - first) as usize;
        hashes[position] = *hash;
        count = position + 1;
    }
    if count == 0 {
        return ZERO;
    }
    *blake3::keyed_hash(&NODE_KEY, hashes[..count].as_flattened()).as_bytes()
}
