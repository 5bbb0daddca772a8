//! Which stores safepoints share: the pads of a function as the paths of a tree.
//!
//! They are chosen as item sets are compressed into a prefix tree (Han, Pei and Yin 2000): each safepoint's stores are
//! ordered by how many safepoints have the same one, and equal beginnings are shared.

use super::Stored;
use std::collections::HashMap;

/// A function is crowded if at least so many locals are stored in at least so many places each.
const LOCALS_MANY: usize = 8;
const PLACES_MANY: usize = 150;

/// A pad that several safepoints share.
pub(super) struct Pad {
    /// The pad at which it goes on, which comes before it in the list. The first one is the root, its own parent.
    pub parent: usize,
    pub stores: Vec<Stored>,
}

/// The pads that are shared, and of each safepoint what it stores itself and to which pad it goes then.
pub(super) struct Tree {
    pub pads: Vec<Pad>,
    pub leaves: Vec<(Vec<Stored>, usize)>,
}

impl Tree {
    /// The tree for safepoints that store `values` each.
    pub fn new(values: &[Vec<Stored>]) -> Self {
        let lists = shared_first(values);
        let mut order: Vec<usize> = (0..lists.len()).collect();
        let shared = |site: usize| &lists[site].stores[..lists[site].shared];
        let keys = |site: usize| shared(site).iter().map(|(key, _)| *key);
        order.sort_by(|a, b| keys(*a).cmp(keys(*b)));
        let mut tree = Self {
            pads: vec![Pad {
                parent: 0,
                stores: Vec::new(),
            }],
            leaves: vec![(Vec::new(), 0); values.len()],
        };
        // Groups of safepoints, neighbours in that order, with the number of stores that pads up to theirs have.
        let mut groups = vec![(0..order.len(), 0, 0)];
        while let Some((range, depth, pad)) = groups.pop() {
            let mut from = range.start;
            while from < range.end {
                let site = order[from];
                let Some((next, _)) = shared(site).get(depth) else {
                    tree.leave(site, &lists[site].stores[depth..], pad);
                    from += 1;
                    continue;
                };
                let same = |other: &usize| {
                    let there = shared(*other).get(depth);
                    there.is_some_and(|(key, _)| key == next)
                };
                let count = order[from..range.end].partition_point(same);
                if count == 1 {
                    tree.leave(site, &lists[site].stores[depth..], pad);
                } else {
                    let last = order[from + count - 1];
                    let common = keys(site).zip(keys(last)).skip(depth);
                    let length = common.take_while(|(a, b)| a == b).count();
                    let below = tree.add(pad, &lists[site].stores[depth..depth + length]);
                    groups.push((from..from + count, depth + length, below));
                }
                from += count;
            }
        }
        tree
    }

    /// Whether many locals are stored at many places each; see [`super`] for what that means.
    pub fn is_crowded(&self) -> bool {
        // On its way to the root a safepoint stores a local once.
        if self.leaves.len() < PLACES_MANY {
            return false;
        }
        let own = self.leaves.iter().map(|(own, _)| own);
        let shared = self.pads.iter().map(|pad| &pad.stores);
        let mut places: HashMap<u32, usize> = HashMap::new();
        for stored in own.chain(shared).flatten() {
            *places.entry(stored.saved.local).or_default() += 1;
        }
        let many = places.values().filter(|count| **count >= PLACES_MANY);
        many.count() >= LOCALS_MANY
    }

    fn leave(&mut self, site: usize, own: &[(Key, Stored)], pad: usize) {
        self.leaves[site] = (own.iter().map(|(_, stored)| *stored).collect(), pad);
    }

    fn add(&mut self, parent: usize, stores: &[(Key, Stored)]) -> usize {
        let stores = stores.iter().map(|(_, stored)| *stored).collect();
        self.pads.push(Pad { parent, stores });
        self.pads.len() - 1
    }
}

/// Orders stores: those that most safepoints have first, and then any order that is the same for all.
type Key = (std::cmp::Reverse<u32>, u32);

/// The stores of one safepoint in order, of which the first `shared` are others', too.
struct Ordered {
    stores: Vec<(Key, Stored)>,
    shared: usize,
}

fn shared_first(values: &[Vec<Stored>]) -> Vec<Ordered> {
    let mut all: Vec<(Stored, u32)> = Vec::new();
    for (site, stores) in (0u32..).zip(values) {
        all.extend(stores.iter().map(|stored| (*stored, site)));
    }
    all.sort_unstable();
    let mut lists: Vec<Ordered> = values
        .iter()
        .map(|stores| Ordered {
            stores: Vec::with_capacity(stores.len()),
            shared: 0,
        })
        .collect();
    let equal = all.chunk_by(|(a, _), (b, _)| a == b);
    for (number, group) in (0u32..).zip(equal) {
        let key = (std::cmp::Reverse(group.len() as u32), number);
        for (stored, site) in group {
            let list = &mut lists[*site as usize];
            list.stores.push((key, *stored));
            list.shared += usize::from(group.len() > 1);
        }
    }
    for list in &mut lists {
        list.stores.sort_unstable_by_key(|(key, _)| *key);
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::pads::Saved;
    use crate::staging::Slot;

    /// Safepoints that store `locals` locals each, which are written before each safepoint or never.
    fn tree(safepoints: u64, locals: u32, are_written: bool) -> Tree {
        let stored = |safepoint: u64, local: u32| Stored {
            slot: Slot::Direct(local * 4),
            saved: Saved {
                local,
                version: if are_written { safepoint } else { 0 },
            },
        };
        let values: Vec<Vec<Stored>> = (0..safepoints)
            .map(|safepoint| (0..locals).map(|local| stored(safepoint, local)).collect())
            .collect();
        Tree::new(&values)
    }

    #[test]
    fn functions_are_crowded_whose_many_locals_change_between_many_safepoints() {
        assert!(tree(150, 8, true).is_crowded());
        assert!(!tree(150, 8, false).is_crowded());
        assert!(!tree(150, 7, true).is_crowded());
        assert!(!tree(149, 8, true).is_crowded());
    }
}
