//! The hash tree against a naive second implementation that follows `FORMAT.md` to the letter.

mod common;

use common::any_content;
use fastrand::Rng;
use wsnap_snapshots::memory_tree::LEAF_SIZE;
use wsnap_snapshots::{LeafHash, MemoryHash, MemoryTree};

fn key(text: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key[..text.len()].copy_from_slice(text.as_bytes());
    key
}

/// Builds whole levels of padded nodes, without any shortcut.
fn naive_root(memory: &[u8]) -> MemoryHash {
    let mut level: Vec<[u8; 32]> = memory
        .chunks(65536)
        .map(|leaf| {
            let mut padded = leaf.to_vec();
            padded.resize(65536, 0);
            match padded.iter().all(|byte| *byte == 0) {
                true => [0; 32],
                false => *blake3::keyed_hash(&key("wsnap memory tree: leaf"), &padded).as_bytes(),
            }
        })
        .collect();
    for _ in 0..4 {
        level = level
            .chunks(256)
            .map(
                |children| match children.iter().rposition(|child| *child != [0; 32]) {
                    None => [0; 32],
                    Some(last) => {
                        let bytes: Vec<u8> = children[..=last].concat();
                        *blake3::keyed_hash(&key("wsnap memory tree: node"), &bytes).as_bytes()
                    }
                },
            )
            .collect();
    }
    let top = level.first().copied().unwrap_or_default();
    let mut bytes = (memory.len() as u64).to_le_bytes().to_vec();
    bytes.extend(top);
    MemoryHash(*blake3::keyed_hash(&key("wsnap memory tree: root"), &bytes).as_bytes())
}

#[test]
fn the_tree_is_that_of_a_naive_implementation() {
    let mut rng = Rng::with_seed(1);
    // Around the sizes of a page, a leaf, and a node of the first level with one more leaf.
    let lens = [
        0,
        1,
        4095,
        4096,
        4097,
        65535,
        65536,
        65537,
        1 << 20,
        256 << 16,
        (256 << 16) + 1,
        600 << 16,
    ];
    for len in lens {
        for dirty in [0, 1, 3, 100] {
            let memory = any_content(&mut rng, len, if len == 0 { 0 } else { dirty });
            assert_eq!(
                MemoryTree::of(&memory).root(),
                naive_root(&memory),
                "{dirty} bytes in {len}"
            );
        }
    }
}

#[test]
fn updates_lead_to_the_same_root_as_building_anew() {
    let mut rng = Rng::with_seed(2);
    let len = (300 << 16) + 77;
    let mut memory = any_content(&mut rng, len, 50);
    let mut tree = MemoryTree::of(&memory);
    for _ in 0..30 {
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(0..len);
            memory[at] = rng.u8(..);
            let leaf = at / LEAF_SIZE;
            if rng.bool() {
                memory[leaf * LEAF_SIZE..len.min((leaf + 1) * LEAF_SIZE)].fill(0);
            }
            tree.update(
                leaf as u32,
                &memory[leaf * LEAF_SIZE..len.min((leaf + 1) * LEAF_SIZE)],
            );
        }
        assert_eq!(tree.root(), MemoryTree::of(&memory).root());
    }
    assert_eq!(tree.root(), naive_root(&memory));
}

#[test]
fn growing_changes_the_root_like_a_longer_memory() {
    let mut rng = Rng::with_seed(3);
    let mut memory = any_content(&mut rng, 3 << 16, 10);
    let mut tree = MemoryTree::of(&memory);
    let before = tree.root();
    memory.resize(258 << 16, 0);
    tree.grow(memory.len() as u64);
    assert_eq!(tree.byte_len(), memory.len() as u64);
    assert_ne!(tree.root(), before);
    assert_eq!(tree.root(), naive_root(&memory));
}

#[test]
fn leaves_can_be_checked_alone() {
    let mut rng = Rng::with_seed(4);
    let memory = any_content(&mut rng, (5 << 16) + 9, 4);
    let tree = MemoryTree::of(&memory);
    for (index, leaf) in memory.chunks(LEAF_SIZE).enumerate() {
        assert_eq!(tree.leaf(index as u32), LeafHash::of(leaf));
        let mut other = leaf.to_vec();
        other[0] ^= 1;
        assert_ne!(tree.leaf(index as u32), LeafHash::of(&other));
    }
    assert_eq!(
        MemoryTree::from_leaves(memory.len() as u64, tree.leaves()).root(),
        MemoryTree::of(&memory).root()
    );
}

#[test]
fn zeros_cost_nothing_up_to_the_largest_memory() {
    let mut tree = MemoryTree::new(1 << 48);
    let empty = tree.root();
    let mut leaf = vec![0; LEAF_SIZE];
    leaf[1] = 1;
    tree.update(u32::MAX, &leaf);
    assert_ne!(tree.root(), empty);
    assert_eq!(
        tree.leaves().collect::<Vec<_>>(),
        [(u32::MAX, LeafHash::of(&leaf))]
    );
    leaf[1] = 0;
    tree.update(u32::MAX, &leaf);
    assert_eq!(tree.root(), empty);
    assert_eq!(tree.leaves().count(), 0);
}

#[test]
fn memories_of_zeros_differ_by_their_length_alone() {
    let roots: std::collections::BTreeSet<_> = [0, 1, 65536, 1 << 32, 1 << 48]
        .into_iter()
        .map(|len| MemoryTree::new(len).root())
        .collect();
    assert_eq!(roots.len(), 5);
    assert_eq!(MemoryTree::new(65536).root(), naive_root(&[0; 65536]));
}

#[test]
fn names_of_memories_never_change() {
    let counting: Vec<u8> = (0..200_000u32).map(|number| (number % 251) as u8).collect();
    let mut far = vec![0; 257 << 16];
    far[(256 << 16) + 5] = 9;
    let golden = [
        (
            &[][..],
            "15f7c854e256966d4fdfb4f89d38edb8071a6681718e0f2520068bf8058b4f66",
        ),
        (
            &[0; 65536],
            "64b7f0b30724e95ac025703ab1484cf94cadcdd2daa3a2127ea5af71f37118af",
        ),
        (
            b"wsnap",
            "6e5e6403e3c60994d256a7dd985182ec26b912be0a4882c143e40f7097cc0242",
        ),
        (
            &counting,
            "34040dbf47266a7116343c13e9e25b56d4e5db279c92ee41f3aba0a31165df98",
        ),
        (
            &far,
            "129071b589a1b9d94491b128de18985d132c9403737f19bcb06ccbc3513ba09a",
        ),
    ];
    for (memory, root) in golden {
        assert_eq!(MemoryTree::of(memory).root().to_string(), root);
    }
    let format = include_str!("../FORMAT.md");
    for (_, root) in &golden[..4] {
        assert!(
            format.contains(root),
            "FORMAT.md gives {root} as an example"
        );
    }
}
