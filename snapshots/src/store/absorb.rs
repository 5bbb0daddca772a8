//! Keeping the layers of a memory few and its extents long.
//!
//! A layer that would make a memory lie in too many layers, or in too many pieces, takes over what other layers say.
//!
//! Layers are taken over until half of the limit is left, the smallest first: what is written again is then merged with
//! as much that is small, so that each byte is merged a few times at most. Pieces are joined until they are a sixteenth
//! below the limit: the shortest gaps between them cost least, and those that get shorter still until the next time cost
//! less then. Going down to half of the limit wrote ten times as much when changes were scattered at random. Taking over
//! everything is flattening.

use std::ops::Range;

use super::Layer;
use super::pipeline::push;
use crate::layer_index::{Entry, EntryKind};
use crate::memory_tree::LEAF_SIZE;
use crate::overlay::{Piece, from_offset};
use crate::page_map::{LAYERS_MAX, mappings_max};

const LEAF: u64 = LEAF_SIZE as u64;

/// What a new layer takes over.
pub(super) struct Plan {
    /// The layers of the base of which it takes over everything.
    pub victims: Vec<bool>,
    /// The stretches of memory that it holds as pages, ascending, in bytes. They can have zeros inside.
    pub runs: Vec<Range<u64>>,
}

/// Decides what has to be taken over, if anything has.
///
/// `visible` is what the base's layers and above them the new layer say; `required` marks those of the base's layers
/// that must go in any case.
pub(super) fn plan(visible: &[Piece], required: Vec<bool>, byte_len: u64) -> Option<Plan> {
    let new_layer = required.len() as u32;
    let victims = victims(visible, required);
    let mut spans = Spans::new(visible, |layer| {
        layer == new_layer || victims[layer as usize]
    });
    let limit = mappings_max(byte_len);
    let fits = spans.extents() <= limit;
    if fits && !victims.contains(&true) {
        return None;
    }
    if !fits {
        spans.absorb_shortest(limit - limit / 16);
    }
    Some(Plan {
        victims,
        runs: spans.runs(),
    })
}

/// The layers that go because there are too many: those that show the fewest bytes.
fn victims(visible: &[Piece], required: Vec<bool>) -> Vec<bool> {
    let mut victims = required;
    let mut shown: Vec<(u64, bool)> = vec![(0, false); victims.len() + 1];
    for piece in visible {
        let (bytes, used) = &mut shown[piece.layer as usize];
        *bytes += piece.layer_offset.map_or(0, |_| piece.length);
        *used = true;
    }
    // The new layer is never a victim, and it is used when there is one.
    shown.pop();
    let mut candidates: Vec<usize> = (0..shown.len())
        .filter(|layer| shown[*layer].1 && !victims[*layer])
        .collect();
    if candidates.len() < LAYERS_MAX {
        return victims;
    }
    candidates.sort_by_key(|layer| shown[*layer].0);
    let kept = LAYERS_MAX / 2 - 1;
    for layer in &candidates[..candidates.len() - kept] {
        victims[*layer] = true;
    }
    victims
}

/// The stretches of pages of a memory and the gaps between them, alternating.
struct Spans {
    spans: Vec<Span>,
}

struct Span {
    start: u64,
    end: u64,
    is_gap: bool,
    /// Whether the new layer holds it. A gap that it holds joins its neighbours if it holds both of them too.
    absorbed: bool,
}

impl Spans {
    fn new(visible: &[Piece], is_absorbed: impl Fn(u32) -> bool) -> Self {
        let mut spans: Vec<Span> = Vec::new();
        for piece in visible.iter().filter(|piece| piece.layer_offset.is_some()) {
            if let Some(last) = spans.last() {
                let gap = Span {
                    start: last.end,
                    end: piece.memory_offset,
                    is_gap: true,
                    absorbed: last.end == piece.memory_offset,
                };
                spans.push(gap);
            }
            spans.push(Span {
                start: piece.memory_offset,
                end: piece.memory_end(),
                is_gap: false,
                absorbed: is_absorbed(piece.layer),
            });
        }
        Self { spans }
    }

    /// How many extents the memory has when the new layer holds what it is to hold.
    fn extents(&self) -> usize {
        let others = |span: &&Span| !span.is_gap && !span.absorbed;
        self.spans.iter().filter(others).count() + self.runs().len()
    }

    /// Absorbs the shortest spans, and no more of them than it takes to have `limit` extents at most.
    fn absorb_shortest(&mut self, limit: usize) {
        let mut order: Vec<usize> = (0..self.spans.len())
            .filter(|index| !self.spans[*index].absorbed)
            .collect();
        order.sort_by_key(|index| self.spans[*index].end - self.spans[*index].start);
        // The number of extents never grows by absorbing, so that the least number of spans is found by halving. With
        // all of them absorbed there is one extent.
        let (mut too_few, mut enough) = (0, order.len());
        while too_few + 1 < enough {
            let count = too_few.midpoint(enough);
            self.absorb_first(&order, count);
            match self.extents() <= limit {
                true => enough = count,
                false => too_few = count,
            }
        }
        self.absorb_first(&order, enough);
    }

    fn absorb_first(&mut self, order: &[usize], count: usize) {
        for (position, index) in order.iter().enumerate() {
            self.spans[*index].absorbed = position < count;
        }
    }

    /// The longest stretches that the new layer holds, from pages to pages.
    fn runs(&self) -> Vec<Range<u64>> {
        let absorbed = self
            .spans
            .chunk_by(|first, second| first.absorbed == second.absorbed);
        absorbed
            .filter(|spans| spans[0].absorbed)
            .filter_map(|spans| {
                let first = spans.iter().find(|span| !span.is_gap)?;
                let last = spans.iter().rfind(|span| !span.is_gap)?;
                Some(first.start..last.end)
            })
            .collect()
    }
}

/// What the new layer says after taking over: the runs, and the holes that still hide something or change a leaf of the
/// layers that stay.
pub(super) fn entries(visible: &[Piece], plan: &Plan, base: &[Layer]) -> Vec<Entry> {
    let new_layer = plan.victims.len() as u32;
    let mut entries: Vec<Entry> = plan
        .runs
        .iter()
        .map(|run| Entry {
            memory_offset: run.start,
            length: run.end - run.start,
            kind: EntryKind::Pages,
        })
        .collect();
    let holes = visible.iter().filter(|piece| {
        let taken = piece.layer == new_layer || plan.victims[piece.layer as usize];
        taken && piece.layer_offset.is_none()
    });
    let kept = || {
        base.iter()
            .zip(&plan.victims)
            .filter(|(_, victim)| !**victim)
    };
    for hole in holes {
        if kept().any(|(layer, _)| speaks_near(layer.entries(), hole)) {
            entries.extend(outside(hole, &plan.runs));
        }
    }
    entries.sort_by_key(|entry| entry.memory_offset);
    let mut joined = Vec::new();
    entries
        .into_iter()
        .for_each(|entry| push(&mut joined, entry));
    joined
}

/// Whether any entry touches a leaf that the hole touches.
fn speaks_near(entries: &[Entry], hole: &Piece) -> bool {
    let start = hole.memory_offset / LEAF * LEAF;
    let end = hole.memory_end().next_multiple_of(LEAF);
    let first = entries.partition_point(|entry| entry.memory_end() <= start);
    entries
        .get(first)
        .is_some_and(|entry| entry.memory_offset < end)
}

/// The parts of a hole that no run covers.
fn outside(hole: &Piece, runs: &[Range<u64>]) -> Vec<Entry> {
    let mut parts = Vec::new();
    let mut part = |start: u64, end: u64| {
        if start < end {
            parts.push(Entry {
                memory_offset: start,
                length: end - start,
                kind: EntryKind::Hole,
            });
        }
    };
    let mut start = hole.memory_offset;
    let first = runs.partition_point(|run| run.end <= start);
    for run in runs[first..]
        .iter()
        .take_while(|run| run.start < hole.memory_end())
    {
        part(start, run.start);
        start = run.end;
    }
    part(start, hole.memory_end());
    parts
}

/// The pieces of a list that lie in a stretch of memory, whole ones even where they reach beyond it.
pub(super) fn within(pieces: &[Piece], start: u64, end: u64) -> impl Iterator<Item = &Piece> {
    from_offset(pieces, start)
        .iter()
        .take_while(move |piece| piece.memory_offset < end)
}
