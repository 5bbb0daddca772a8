//! Landing pads: where an activation goes that leaves, which stores its frame and returns.
//!
//! Most of what the safepoints of a function store is the same: the same locals, not written in between, at the same
//! places of the frame. So pads are the paths of a tree. What many safepoints store lies near its root, what one alone
//! stores lies at the safepoint itself, and all end at the root, which completes the frame, through a helper if values are staged
//! (see [`crate::staging`] for what a store is), and returns:
//!
//! ```text
//! block $root  block $pad1  block $pad2 …
//!   block $body (results) … i64.const (SITE, BYTES)  local.set $leaving  …own stores…  br $pad2 … end  return
//! end …stores…  br $pad1
//! end …stores…
//! end …stores…  complete the frame  …any results…
//! ```
//!
//! Only stores of the same version of a local are taken for the same: where several values could arrive, compilers would
//! have to bring each of them into the same register first, which costs more than the store and burdens hot code.
//!
//! Cranelift numbers the blocks of a branch's first target last. So cold paths stand in the `then` of their test: behind all
//! loops, where what they store does not count as used in a loop. But there each store also is a piece of its own of the
//! stretch of code for which a value lives, and of values that live for too many pieces the register allocator does not
//! try to give those that meet in a local the same place: it moves them wherever ways meet, from one stack slot to
//! another. A function that is *crowded*, with many locals that are stored in many places each, has its cold paths in the
//! `else`, which is numbered right behind the test, where most values live on either side anyway. Where the machine code of a cold
//! path lies is another matter: behind everything else.

mod tree;

use super::Emitter;
use crate::control::{SAVE_POINTER, SAVED_FUNCTION, SAVED_HEADER_BYTES, SAVED_SITE};
use crate::helpers;
use crate::layout::Places;
use crate::staging::{STAGED_MAX, Slot, Staged};
use crate::types::ValueClass;
use tree::Tree;
use wasm_encoder as enc;

/// From so many stores on, those of all safepoints counted, a function stages values.
const STORES_STAGED: usize = 24;

/// A value that a safepoint saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Saved {
    pub local: u32,
    /// Two values of a local are known to be equal if they have the same version.
    pub version: u64,
}

/// A value that is stored into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stored {
    slot: Slot,
    saved: Saved,
}

/// A safepoint from which an activation leaves.
pub(super) struct Leaving {
    /// Where in the code written its cold path goes, in bytes.
    pub at: usize,
    /// How many bytes before that its test is, which can be turned round; none if there is more than a test.
    pub test_bytes: Option<usize>,
    /// How many labels there are from its cold path out to that of the body, which counts.
    pub depth: u32,
    /// What the frame says of the place.
    pub site: u32,
    /// What the frame holds, in the order of the slots.
    pub values: Vec<Saved>,
}

/// How the frames of a function are stored.
struct Frames {
    /// So many values are staged at most.
    staged: Staged,
    /// What each safepoint stores.
    stores: Vec<Vec<Stored>>,
    /// How much of it is stored directly, in bytes.
    direct_bytes: Vec<u32>,
}

/// The pads of a function.
#[derive(Default)]
pub(super) struct Pads {
    leaving: Vec<Leaving>,
}

impl Pads {
    /// Adds a safepoint, behind those added before.
    pub fn add(&mut self, leaving: Leaving) {
        self.leaving.push(leaving);
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

impl Emitter<'_, '_, '_> {
    /// Puts the cold paths into the code written and the pads behind it. Returns how many values of a frame are staged, at most.
    pub(super) fn finish_pads(&mut self) -> Staged {
        let leaving = std::mem::take(&mut self.pads).leaving;
        let frames = self.lay_out(&leaving);
        match &leaving[..] {
            [] => {}
            [alone] => self.insert_alone(alone, &frames),
            _ => self.insert(&leaving, &frames),
        }
        frames.staged
    }

    /// Gives the values of all frames their slots.
    fn lay_out(&self, leaving: &[Leaving]) -> Frames {
        let stores: usize = leaving.iter().map(|from| from.values.len()).sum();
        let max = match self.around.staging {
            Some(_) if stores >= STORES_STAGED => STAGED_MAX,
            _ => Staged::default(),
        };
        let saved = self.analysis.saved.iter();
        let classes = saved.map(|local| (*local, self.locals.class(*local)));
        let places = Places::new(classes, max);
        let mut frames = Frames {
            staged: places.behind().staged(),
            stores: Vec::with_capacity(leaving.len()),
            direct_bytes: Vec::with_capacity(leaving.len()),
        };
        for from in leaving {
            let mut behind = places.behind();
            let stored = |saved: &Saved| Stored {
                slot: places
                    .local(saved.local)
                    .unwrap_or_else(|| behind.give(self.locals.class(saved.local))),
                saved: *saved,
            };
            frames.stores.push(from.values.iter().map(stored).collect());
            frames.staged = frames.staged.max(behind.staged());
            frames.direct_bytes.push(behind.direct_bytes());
        }
        frames
    }

    /// The only safepoint needs no way to its pad.
    fn insert_alone(&mut self, alone: &Leaving, frames: &Frames) {
        let body = std::mem::take(&mut self.code);
        let hints = std::mem::take(&mut self.hints);
        self.code.extend_from_slice(&body[..alone.at]);
        self.name_site(alone.site, frames.staged, frames.direct_bytes[0]);
        self.write_root(&frames.stores[0], frames.staged);
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

    fn insert(&mut self, leaving: &[Leaving], frames: &Frames) {
        let tree = Tree::new(&frames.stores);
        let turns_tests = tree.is_crowded();
        let body = std::mem::take(&mut self.code);
        let mut hints = std::mem::take(&mut self.hints).into_iter().peekable();
        self.code.reserve(body.len() + body.len() / 2);
        let results = self.around.types.block(&self.results);
        let mut sink = self.sink();
        for _ in &tree.pads {
            sink.block(enc::BlockType::Empty);
        }
        sink.block(results);
        let mut copied = 0;
        let bytes = &frames.direct_bytes;
        for ((from, bytes), (own, pad)) in leaving.iter().zip(bytes).zip(&tree.leaves) {
            let shift = (self.code.len() - copied) as u32;
            while let Some((offset, likely)) = hints.next_if(|hint| (hint.0 as usize) < from.at) {
                self.hints.push((offset + shift, likely));
            }
            match from.test_bytes.filter(|_| turns_tests) {
                Some(test_bytes) => {
                    self.code
                        .extend_from_slice(&body[copied..from.at - test_bytes]);
                    // The last one was that of the test.
                    self.hints.pop();
                    self.test_turned();
                }
                None => self.code.extend_from_slice(&body[copied..from.at]),
            }
            copied = from.at;
            self.name_site(from.site, frames.staged, *bytes);
            self.write_stores(own, frames.staged);
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
            self.write_stores(&pad.stores, frames.staged);
            if pad.parent + 1 != number {
                self.sink().br((number - 1 - pad.parent) as u32);
            }
        }
        self.sink().end();
        self.write_root(&tree.pads[0].stores, frames.staged);
        self.sink().end();
    }

    /// `i32.lt_s if`: what stands within is executed if the request word, the first operand, is below the second, which is
    /// zero. Returns the size in bytes.
    pub(super) fn test(&mut self) -> usize {
        let start = self.code.len();
        self.sink().i32_lt_s();
        self.hint(false);
        self.sink().if_(enc::BlockType::Empty);
        self.code.len() - start
    }

    /// The same the other way round.
    fn test_turned(&mut self) {
        self.sink().i32_ge_s();
        self.hint(true);
        self.sink().if_(enc::BlockType::Empty).else_();
    }

    /// Says which safepoint it is, and how long its frame is without what is staged: the helper knows of the header.
    fn name_site(&mut self, site: u32, staged: Staged, direct_bytes: u32) {
        let bytes = if staged == Staged::default() {
            SAVED_HEADER_BYTES + direct_bytes
        } else {
            direct_bytes
        };
        let word = u64::from(site) | u64::from(bytes) << 32;
        let local = self.locals.leaving();
        self.sink().i64_const(word as i64).local_set(local);
    }

    /// Stages values, or stores them into the frame at the save pointer. That the control memory is full shows as a trap.
    fn write_stores(&mut self, stores: &[Stored], staged: Staged) {
        let is_direct = |stored: &Stored| matches!(stored.slot, Slot::Direct(_));
        let address = self.locals.scratch();
        if stores.iter().any(is_direct) {
            let save_pointer = self.memory(SAVE_POINTER);
            self.sink()
                .i32_const(0)
                .i32_load(save_pointer)
                .local_set(address);
        }
        let (staging, savers) = (self.around.staging, self.around.save_reference);
        for Stored { slot, saved } in stores {
            let class: ValueClass = self.locals.class(saved.local);
            let global = staging.and_then(|staging| staging.global(*slot));
            if let Some(global) = global {
                let mut sink = self.sink();
                helpers::get_stored(&mut sink, saved.local, class, savers);
                sink.global_set(global);
                continue;
            }
            let at = self.memory(SAVED_HEADER_BYTES + slot.offset(staged));
            helpers::store_value(&mut self.sink(), at, address, saved.local, class, savers);
        }
    }

    /// `…stores…  complete the frame  …any results…`
    fn write_root(&mut self, stores: &[Stored], staged: Staged) {
        self.write_stores(stores, staged);
        let leaving = self.locals.leaving();
        let function = u64::from(self.function) | u64::from(staged.to_word()) << 32;
        match self.around.staging {
            Some(staging) if staged != Staged::default() => {
                self.sink()
                    .i64_const(function as i64)
                    .local_get(leaving)
                    .call(staging.push_frame);
            }
            _ => self.write_header(function, leaving),
        }
        self.default_results();
    }

    /// The header of a frame of which nothing was staged: `address = save pointer; function; site, size; save pointer += size`
    fn write_header(&mut self, function: u64, leaving: u32) {
        let address = self.locals.scratch();
        let (save_pointer, function_at, site_at) = (
            self.memory(SAVE_POINTER),
            self.memory(SAVED_FUNCTION),
            self.memory(SAVED_SITE),
        );
        let mut sink = self.sink();
        sink.i32_const(0)
            .i32_load(save_pointer)
            .local_tee(address)
            .i64_const(function as i64)
            .i64_store(function_at);
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
    }
}
