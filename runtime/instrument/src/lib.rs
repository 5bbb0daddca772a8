//! Makes a WebAssembly module suspendable, by rewriting it into another one.
//!
//! The rewritten module behaves as the original, but its host can ask it at any time to *unwind*: every activation
//! stores the values that it still needs into a frame and returns, until the host has the whole call stack as data. From
//! such frames the host can later have *clones* of the functions made, which restore the values and go on where the
//! activations stood. Everything else (memories, globals, tables) the host reads and writes through exports.
//!
//! # What is inserted
//!
//! A *safepoint* is a place at which an activation can unwind. There the code tests the *request word* in the
//! [control memory](control), and nothing else happens unless its highest bit is set:
//!
//! ```text
//! i32.const 0  i32.load (request word)  i32.const 0  i32.lt_s
//! if                                        ;; unlikely
//!   i64.const (SITE, BYTES)  local.set $leaving
//!   …stores of what only this safepoint stores…
//!   br $pad
//! end
//! ```
//!
//! Where many locals are stored at many safepoints the test is turned round, `i32.ge_s if else … end` (`emit/pads.rs` says why).
//!
//! What a function's safepoints have in common is behind its body: *pads*, each of which stores values that several safepoints
//! store and goes on to another one, and the last of which, the root, completes the frame and
//! returns anything (`emit/pads.rs` says how they are chosen). A function with one safepoint has all of that in its place.
//! In functions that store much, to store an integer or a reference is to set one of some added globals, from where a helper copies
//! it into the frame (`staging.rs`).
//!
//! Safepoints stand after each call that may come back unwinding, where the test serves as a poll as well; at the headers
//! of loops that can go round without such a call; and at the entry of functions that can call each other in tail
//! position for ever, or have loops and call others. Those at entries can also ask the host, which may let the program
//! go on:
//!
//! ```text
//! i32.const 0  i32.load (request word)
//! if                                        ;; unlikely
//!   i32.const 0  call $safepoint            ;; asks the host; zero: go on
//!   if
//!     …as above…
//!   end
//! end
//! ```
//!
//! The body of a tiny loop without other safepoints is written four times behind one poll (`emit/unroll.rs`).
//!
//! All are such if they shall be [countable](Options::countable_safepoints). Calls to imported functions go through
//! wrappers, so that a call of the host that asks for suspension before it took effect can be made again. Functions that
//! can never suspend are copied. What clones call is exported, most of it through functions that stand for many others (`bridges.rs`).
//!
//! What a frame holds follows from the original module alone: the [live locals](PointLayout) by the standard data flow,
//! and the operand stack. So frames can be read, stored and restored by other versions of this crate. Only where in the
//! control memory a saved frame holds each value is this version's own business: see [`Places`].
//!
//! # What the host owes the module
//!
//! It fills the table of [hooks], lays out the initial memory (the rewritten module's active data segments are empty),
//! calls the start function, and sets save and restore pointer before it lets frames be saved or restored.

mod analysis;
mod bridges;
mod clones;
pub mod control;
mod emit;
mod error;
mod facts;
mod function_names;
mod helpers;
mod indices;
mod layout;
mod liveness;
mod module;
mod names;
mod plan;
mod points;
mod rewrite;
mod scan;
mod staging;
mod types;
mod versions;

pub use clones::{CloneRequest, Clones, clones};
pub use error::{Error, Result};
pub use facts::Facts;
pub use helpers::hooks;
pub use layout::{FunctionLayouts, Places, PointLayout, Site, layouts, sites};
pub use module::{DataSegment, Export, Import, Module};
pub use names::Name;
pub use plan::Options;
pub use points::Point;
pub use rewrite::{Rewritten, rewrite};
pub use staging::{Slot, Slots, Staged};
pub use types::ValueClass;

/// Names this version of the rewriter: what two versions with the same fingerprint make of a module is the same.
pub const FINGERPRINT: &str = env!("WSNAP_INSTRUMENT_FINGERPRINT");
