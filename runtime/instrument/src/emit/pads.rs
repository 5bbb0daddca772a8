//! Landing pads: where an activation goes that leaves, which stores its frame and returns.
//!
//! Most of what the safepoints of a function store is the same: the same locals, not written in between, at the same
//! places of the frame. So pads are the paths of a tree. What many safepoints store lies near its root, what one alone
//! stores lies at the safepoint itself, and all end at the root, which writes the header and returns:
//!
//! ```text
//! block $root  block $pad1  block $pad2 …
//!   block $body (results) … i64.const (SITE, SIZE)  local.set $leaving  …own stores…  br $pad2 … end  return
//! end …stores…  br $pad1
//! end …stores…
//! end …stores…  header  save pointer += SIZE  …any results…
//! ```
//!
//! Which stores are shared is chosen as item sets are compressed into a prefix tree (Han, Pei and Yin 2000): each
//! safepoint's stores are ordered by how many safepoints have the same one, and equal beginnings are shared. Only
//! stores of the same version of a local are taken for the same: where several values could arrive, compilers would have
//! to bring each of them into the same register first, which costs more than the store and burdens hot code.

use super::Emitter;
use crate::control::{SAVE_POINTER, SAVED_SITE};
use crate::helpers;
use crate::types::ValueClass;

/// A value that a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stored {
    /// Where in the frame, in bytes.
    pub offset: u32,
    pub local: u32,
    /// Two values of a local are known to be equal if they have the same version.
    pub version: u64,
}

/// A safepoint from which an activation leaves.
pub(super) struct Leaving {
    /// Where in the code written its cold path goes, in bytes.
    at: usize,
    /// How many labels there are from its cold path out to that of the body, which counts.
    depth: u32,
    /// What the frame says of the place, and the frame's size in bytes.
    site: u32,
    size: u32,
    values: Vec<Stored>,
}

/// The pads of a function.
#[derive(Default)]
pub(super) struct Pads {
    leaving: Vec<Leaving>,
}

impl Pads {
    /// Adds the safepoint named `site`, whose cold path goes to `at`, `depth` labels within the function.
    pub fn add(&mut self, at: usize, depth: u32, site: u32, size: u32, values: Vec<Stored>) {
        self.leaving.push(Leaving {
            at,
            depth,
            site,
            size,
            values,
        });
    }

    /// How many safepoints there are so far.
    pub fn len(&self) -> usize {
        self.leaving.len()
    }

    /// The code from `from` on has got one label more around it, and has moved by `shift` bytes.
    pub fn enclose(&mut self, from: usize, shift: i64) {
        let inside = self.leaving.iter_mut().rev();
        for leaving in inside.take_while(|leaving| leaving.at >= from) {
            leaving.at = (leaving.at as i64 + shift) as usize;
            leaving.depth += 1;
        }
    }
}

/// A pad that several safepoints share.
struct Pad {
    /// The pad at which it goes on, which comes before it in the list. The first one is the root, its own parent.
    parent: usize,
    stores: Vec<Stored>,
}

/// The pads that are shared, and of each safepoint what it stores itself and to which pad it goes then.
struct Tree {
    pads: Vec<Pad>,
    leaves: Vec<(Vec<Stored>, usize)>,
}

impl Tree {
    fn new(leaving: &[Leaving]) -> Self {
        let lists = shared_first(leaving);
        let mut order: Vec<usize> = (0..lists.len()).collect();
        let shared = |site: usize| &lists[site].stores[..lists[site].shared];
        let keys = |site: usize| shared(site).iter().map(|(key, _)| *key);
        order.sort_by(|a, b| keys(*a).cmp(keys(*b)));
        let mut tree = Self {
            pads: vec![Pad {
                parent: 0,
                stores: Vec::new(),
            }],
            leaves: vec![(Vec::new(), 0); leaving.len()],
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

fn shared_first(leaving: &[Leaving]) -> Vec<Ordered> {
    let mut all: Vec<(Stored, u32)> = Vec::new();
    for (site, from) in (0u32..).zip(leaving) {
        all.extend(from.values.iter().map(|stored| (*stored, site)));
    }
    all.sort_unstable();
    let mut lists: Vec<Ordered> = leaving
        .iter()
        .map(|from| Ordered {
            stores: Vec::with_capacity(from.values.len()),
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

impl Emitter<'_, '_, '_> {
    /// Puts the cold paths into the code written and the pads behind it.
    pub(super) fn finish_pads(&mut self) {
        let leaving = std::mem::take(&mut self.pads).leaving;
        match &leaving[..] {
            [] => {}
            [alone] => self.insert_alone(alone),
            _ => self.insert(&leaving),
        }
    }

    /// The only safepoint needs no way to its pad.
    fn insert_alone(&mut self, alone: &Leaving) {
        let body = std::mem::take(&mut self.code);
        let hints = std::mem::take(&mut self.hints);
        self.code.extend_from_slice(&body[..alone.at]);
        self.name_site(alone);
        self.write_root(&alone.values);
        self.sink().return_();
        let shift = (self.code.len() - alone.at) as u32;
        self.code.extend_from_slice(&body[alone.at..]);
        let moved = |offset: u32| {
            offset
                + if offset as usize >= alone.at {
                    shift
                } else {
                    0
                }
        };
        self.hints = hints
            .into_iter()
            .map(|(offset, likely)| (moved(offset), likely))
            .collect();
    }

    fn insert(&mut self, leaving: &[Leaving]) {
        let tree = Tree::new(leaving);
        let body = std::mem::take(&mut self.code);
        let mut hints = std::mem::take(&mut self.hints).into_iter().peekable();
        self.code.reserve(body.len() + body.len() / 2);
        let results = self.around.types.block(&self.results);
        let mut sink = self.sink();
        for _ in &tree.pads {
            sink.block(wasm_encoder::BlockType::Empty);
        }
        sink.block(results);
        let mut copied = 0;
        for (from, (own, pad)) in leaving.iter().zip(&tree.leaves) {
            let shift = (self.code.len() - copied) as u32;
            while let Some((offset, likely)) = hints.next_if(|hint| (hint.0 as usize) < from.at) {
                self.hints.push((offset + shift, likely));
            }
            self.code.extend_from_slice(&body[copied..from.at]);
            copied = from.at;
            self.name_site(from);
            self.write_stores(own);
            let label = from.depth + (tree.pads.len() - 1 - pad) as u32;
            self.sink().br(label);
        }
        let shift = (self.code.len() - copied) as u32;
        self.hints
            .extend(hints.map(|(offset, likely)| (offset + shift, likely)));
        self.code.extend_from_slice(&body[copied..]);
        self.sink().return_();
        for (number, pad) in tree.pads.iter().enumerate().skip(1).rev() {
            self.sink().end();
            self.write_stores(&pad.stores);
            if pad.parent + 1 != number {
                self.sink().br((number - 1 - pad.parent) as u32);
            }
        }
        self.sink().end();
        self.write_root(&tree.pads[0].stores);
        self.sink().end();
    }

    fn name_site(&mut self, from: &Leaving) {
        let word = u64::from(from.site) | u64::from(from.size) << 32;
        let local = self.locals.leaving();
        self.sink().i64_const(word as i64).local_set(local);
    }

    /// Stores values into the frame at the save pointer. That the control memory is full shows as a trap.
    fn write_stores(&mut self, stores: &[Stored]) {
        if stores.is_empty() {
            return;
        }
        let address = self.locals.scratch();
        let save_pointer = self.memory(SAVE_POINTER);
        self.sink()
            .i32_const(0)
            .i32_load(save_pointer)
            .local_set(address);
        self.write_stores_at(address, stores);
    }

    fn write_stores_at(&mut self, address: u32, stores: &[Stored]) {
        let (control_memory, savers) = (self.around.control_memory, self.around.save_reference);
        for stored in stores {
            let class: ValueClass = self.locals.class(stored.local);
            helpers::store_value(
                &mut self.sink(),
                control_memory,
                address,
                stored.local,
                class,
                stored.offset,
                savers,
            );
        }
    }

    /// `address = save pointer; store; store header; save pointer += size; any results`
    fn write_root(&mut self, stores: &[Stored]) {
        let (address, leaving) = (self.locals.scratch(), self.locals.leaving());
        let (save_pointer, function_at, site_at) = (
            self.memory(SAVE_POINTER),
            self.memory(0),
            self.memory(SAVED_SITE),
        );
        self.sink()
            .i32_const(0)
            .i32_load(save_pointer)
            .local_set(address);
        self.write_stores_at(address, stores);
        let function = self.function;
        let mut sink = self.sink();
        sink.local_get(address)
            .i32_const(function as i32)
            .i32_store(function_at);
        sink.local_get(address)
            .local_get(leaving)
            .i64_store(site_at);
        sink.i32_const(0)
            .local_get(address)
            .local_get(leaving)
            .i64_const(32)
            .i64_shr_u()
            .i32_wrap_i64()
            .i32_add()
            .i32_store(save_pointer);
        self.default_results();
    }
}
