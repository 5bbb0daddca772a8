//! What a pile of layers says about a memory: newer layers hide what older ones say about the same pages.

use crate::id::LeafHash;
use crate::layer_index::{Entry, EntryKind};
use crate::page_map::{Extent, PAGE_SIZE};

/// A stretch of memory that one layer speaks about. The numbers are in bytes and multiples of [`PAGE_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub memory_offset: u64,
    pub length: u64,
    /// The index of the layer, 0 for the oldest.
    pub layer: u32,
    /// Where the pages start in the layer's file; nothing for a hole.
    pub layer_offset: Option<u64>,
}

impl Piece {
    pub fn memory_end(&self) -> u64 {
        self.memory_offset + self.length
    }

    /// The part from `start` to `end`, which lies inside the piece.
    fn part(&self, start: u64, end: u64) -> Self {
        Self {
            memory_offset: start,
            length: end - start,
            layer: self.layer,
            layer_offset: self
                .layer_offset
                .map(|offset| offset + (start - self.memory_offset)),
        }
    }

    /// Whether `next` goes on where this one ends, in the memory and in the file.
    fn joins(&self, next: &Self) -> bool {
        self.memory_end() == next.memory_offset
            && self.layer == next.layer
            && self.layer_offset.map(|offset| offset + self.length) == next.layer_offset
    }

    /// Where its pages lie, if it has any.
    pub fn extent(&self) -> Option<Extent> {
        self.layer_offset.map(|layer_offset| Extent {
            memory_offset: self.memory_offset,
            layer: self.layer,
            layer_offset,
            length: self.length,
        })
    }
}

/// The pieces that a layer's entries are, in order.
pub(crate) fn pieces(entries: &[Entry], layer: u32) -> Vec<Piece> {
    let mut file_offset = PAGE_SIZE as u64;
    let mut result = Vec::with_capacity(entries.len());
    for entry in entries {
        let layer_offset = (entry.kind == EntryKind::Pages).then_some(file_offset);
        if layer_offset.is_some() {
            file_offset += entry.length;
        }
        let piece = Piece {
            memory_offset: entry.memory_offset,
            length: entry.length,
            layer,
            layer_offset,
        };
        push(&mut result, piece);
    }
    result
}

/// Appends a piece, or lengthens the last one by it.
fn push(pieces: &mut Vec<Piece>, piece: Piece) {
    match pieces.last_mut() {
        Some(last) if last.joins(&piece) => last.length += piece.length,
        _ => pieces.push(piece),
    }
}

/// Lays `newer` over `older`. All lists are ascending and free of overlaps, and so is the result; pieces that go on
/// where the one before ends are joined to it.
pub(crate) fn lay_over(older: &[Piece], newer: &[Piece]) -> Vec<Piece> {
    let mut result: Vec<Piece> = Vec::with_capacity(older.len() + newer.len());
    let mut push = |piece: Piece| push(&mut result, piece);
    let mut older = older.iter().copied().peekable();
    // Shows what the older ones say between two offsets, and drops what they say before.
    let mut show_older = |start: u64, end: u64, push: &mut dyn FnMut(Piece)| {
        while let Some(piece) = older.peek_mut() {
            if piece.memory_offset >= end {
                return;
            }
            let (from, to) = (piece.memory_offset.max(start), piece.memory_end().min(end));
            if from < to {
                push(piece.part(from, to));
            }
            if piece.memory_end() > end {
                *piece = piece.part(end, piece.memory_end());
                return;
            }
            older.next();
        }
    };
    let mut shown = 0;
    for piece in newer {
        show_older(shown, piece.memory_offset, &mut push);
        push(*piece);
        shown = piece.memory_end();
    }
    show_older(shown, u64::MAX, &mut push);
    result
}

/// Lays any number of lists over each other, the oldest first, in time that grows with their sum and the logarithm of
/// their number.
pub(crate) fn lay_all_over(mut lists: Vec<Vec<Piece>>) -> Vec<Piece> {
    while lists.len() > 1 {
        lists = lists
            .chunks(2)
            .map(|pair| match pair {
                [older, newer] => lay_over(older, newer),
                rest => rest.concat(),
            })
            .collect();
    }
    lists.pop().unwrap_or_default()
}

/// The hash of each leaf that any layer touches, from those of all layers, the oldest first: the newest counts, since
/// every layer that changes a page touches its leaf.
pub(crate) fn newest_leaves(layers: &[Vec<(u32, LeafHash)>]) -> Vec<(u32, LeafHash)> {
    let mut all: Vec<(u32, usize, LeafHash)> = layers
        .iter()
        .enumerate()
        .flat_map(|(age, leaves)| leaves.iter().map(move |(index, hash)| (*index, age, *hash)))
        .collect();
    // Newest first among equals, of which the first stays. The sort is cheap for runs that are sorted already.
    all.sort_by_key(|(index, age, _)| (*index, std::cmp::Reverse(*age)));
    all.dedup_by_key(|(index, _, _)| *index);
    all.into_iter()
        .map(|(index, _, hash)| (index, hash))
        .collect()
}

/// The part of a list that starts with the first piece that ends behind `offset`.
pub(crate) fn from_offset(pieces: &[Piece], offset: u64) -> &[Piece] {
    &pieces[pieces.partition_point(|piece| piece.memory_end() <= offset)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = PAGE_SIZE as u64;

    /// Which layer, and which page of it, each of the first pages of a memory comes from.
    fn naive(layers: &[Vec<Entry>]) -> Vec<Option<(u32, Option<u64>)>> {
        let mut pages = vec![None; 64];
        for (layer, entries) in layers.iter().enumerate() {
            let mut file_page = 1;
            for entry in entries {
                for page in entry.memory_offset / PAGE..entry.memory_end() / PAGE {
                    let place = (entry.kind == EntryKind::Pages).then_some(file_page);
                    file_page += u64::from(place.is_some());
                    pages[page as usize] = Some((layer as u32, place));
                }
            }
        }
        pages
    }

    fn any_entries(rng: &mut fastrand::Rng) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut page = rng.u64(0..20);
        while page < 60 {
            let pages = rng.u64(1..=4);
            entries.push(Entry {
                memory_offset: page * PAGE,
                length: pages * PAGE,
                kind: if rng.u8(0..3) == 0 {
                    EntryKind::Hole
                } else {
                    EntryKind::Pages
                },
            });
            page += pages + rng.u64(0..10);
        }
        entries
    }

    #[test]
    fn the_newest_layer_that_mentions_a_page_counts() {
        let mut rng = fastrand::Rng::with_seed(1);
        for count in (0..8).cycle().take(2000) {
            let layers: Vec<_> = (0..count).map(|_| any_entries(&mut rng)).collect();
            let lists = layers
                .iter()
                .zip(0..)
                .map(|(entries, layer)| pieces(entries, layer));
            let laid = lay_all_over(lists.collect());
            let mut found = vec![None; 64];
            let mut end = 0;
            for piece in &laid {
                assert!(piece.memory_offset >= end && piece.length > 0, "{laid:?}");
                end = piece.memory_end();
                for page in 0..piece.length / PAGE {
                    let place = piece.layer_offset.map(|offset| offset / PAGE + page);
                    found[(piece.memory_offset / PAGE + page) as usize] =
                        Some((piece.layer, place));
                }
            }
            assert_eq!(found, naive(&layers));
            assert!(
                laid.windows(2).all(|pair| !pair[0].joins(&pair[1])),
                "{laid:?}"
            );
        }
    }
}
