//! Gives the engine our memories: it asks for those that a module defines, in the order of their indices, while the
//! module is instantiated.

#![expect(
    unsafe_code,
    reason = "the engine's interface for host memories is unsafe to implement"
)]

use crate::memory::Mapping;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

thread_local! {
    /// Memories for the instantiation that goes on in this thread.
    static EXPECTED: RefCell<VecDeque<Arc<Mapping>>> = const { RefCell::new(VecDeque::new()) };
}

/// Runs `instantiate`, during which the engine gets `memories` for the memories that the module defines.
pub(crate) fn with_memories<T>(
    memories: impl IntoIterator<Item = Arc<Mapping>>,
    instantiate: impl FnOnce() -> T,
) -> T {
    /// Leaves nothing behind for the next instantiation, also when this one fails.
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            EXPECTED.with_borrow_mut(VecDeque::clear);
        }
    }
    let _clear = Clear;
    EXPECTED.with_borrow_mut(|expected| *expected = memories.into_iter().collect());
    instantiate()
}

/// Address space reserved for a heap of the garbage collector, which exceptions live in. The engine asks for heaps as
/// for memories; that they are reserved so tells them apart.
pub(crate) const GC_HEAP_RESERVATION: u64 = 1 << 28;

/// Address space reserved for a memory, unless it is declared larger: with the guard behind it, no 32-bit address needs
/// a check.
pub(crate) const MEMORY_RESERVATION: u64 = 1 << 32;

// No memory has less than `MEMORY_RESERVATION`, so none is taken for a heap.
const _: () = assert!(GC_HEAP_RESERVATION < MEMORY_RESERVATION);

/// Inaccessible address space behind a memory's reservation.
pub(crate) const MEMORY_GUARD: u64 = 32 << 20;

/// Hands out the expected memories, and fresh ones for heaps of the garbage collector.
pub(crate) struct Creator;

// SAFETY: a `Mapping` has the reservation and the guard asked for (checked below), is zero where it grows, and never
// moves. The host accesses it only while no guest code runs.
unsafe impl MemoryCreator for Creator {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let reserved = reserved.unwrap_or(minimum);
        if reserved as u64 == GC_HEAP_RESERVATION {
            let mapping =
                Mapping::new(minimum, reserved, guard).map_err(|error| error.to_string())?;
            return Ok(Box::new(Owned(mapping)));
        }
        let mapping = EXPECTED
            .with_borrow_mut(VecDeque::pop_front)
            .ok_or("no memory was prepared for the module")?;
        if mapping.capacity() < reserved || mapping.size() < minimum || !mapping.has_guard(guard) {
            return Err("the memory prepared for the module is too small".to_owned());
        }
        Ok(Box::new(Owned(mapping)))
    }
}

struct Owned(Arc<Mapping>);

// SAFETY: the address never changes, and the bytes up to `byte_size` are mapped readable and writable.
unsafe impl LinearMemory for Owned {
    fn byte_size(&self) -> usize {
        self.0.size()
    }

    fn byte_capacity(&self) -> usize {
        self.0.capacity()
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        Ok(self.0.grow_to(new_size)?)
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.base()
    }
}
