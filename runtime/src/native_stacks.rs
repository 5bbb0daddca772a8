//! Native stacks that guest code runs on.
//!
//! A thread's own stack is usually smaller than what a program may use. Making one takes the system tens of microseconds at the
//! end, when it takes the pages back and has all processors forget them, which is longer than stopping or resuming a program
//! takes otherwise. So stacks are kept, with the pages at their start, and used again.

#![expect(unsafe_code, reason = "maps stacks and switches to them")]

use crate::error::{Error, Result};
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap,
};
use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How much address space stacks have at most that nobody uses, in bytes, unless it is a single one.
const KEPT_BYTES_MAX: usize = 256 << 20;
/// How much of a stack that is kept stays in memory, from its start on, in bytes. Few programs use more.
const RESIDENT_BYTES: usize = 256 << 10;

thread_local! {
    /// The addresses of the stack of ours that this thread was last made to use, if there is one.
    static CURRENT: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// How much is left of the stack that this thread is on, in bytes; none if nobody knows.
fn remaining() -> Option<usize> {
    let Some((start, end)) = CURRENT.get() else {
        return stacker::remaining_stack();
    };
    // Somebody who was called there can have gone on to another one.
    let pointer = psm::stack_pointer() as usize;
    (start..end).contains(&pointer).then(|| pointer - start)
}

/// Finds out where the stack of this thread is, which takes long if it is done after many memories were mapped: the system tells a
/// process's first thread by listing all mappings.
pub(crate) fn look_at_own() {
    stacker::remaining_stack();
}

/// Stacks of one size, for use by any threads.
pub(crate) struct Stacks {
    /// How much must be left of a thread's stack so that it is used itself, in bytes.
    needed: usize,
    /// How large others are.
    size: usize,
    /// How many of them are kept that nobody uses.
    kept_max: usize,
    kept: Mutex<Vec<Stack>>,
}

impl Stacks {
    /// For work that needs so many bytes, of which `reserve` are for what is done before it is looked at how many are left.
    pub fn new(needed: usize, reserve: usize) -> Self {
        let size = needed.saturating_add(reserve);
        Self {
            needed,
            size,
            kept_max: (KEPT_BYTES_MAX / size.max(1)).max(1),
            kept: Mutex::default(),
        }
    }

    /// A stack that is large enough: this thread's own, or another.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] when the system has no room.
    pub fn take(&self) -> Result<Lease<'_>> {
        if remaining().is_some_and(|bytes| bytes >= self.needed) {
            return Ok(Lease::own());
        }
        let kept = self.lock().pop();
        let stack = match kept {
            Some(stack) => stack,
            None => Stack::new(self.size)?,
        };
        Ok(Lease(Some((self, stack))))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Stack>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stack that nobody else uses meanwhile; none is the thread's own.
pub(crate) struct Lease<'s>(Option<(&'s Stacks, Stack)>);

impl Lease<'_> {
    /// The thread's own stack.
    pub fn own() -> Self {
        Self(None)
    }

    /// Does `work` on the stack.
    pub fn run<T>(&mut self, work: impl FnOnce() -> T) -> T {
        match &mut self.0 {
            None => work(),
            Some((_, stack)) => stack.run(work),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some((stacks, stack)) = self.0.take() else {
            return;
        };
        stack.trim();
        let mut kept = stacks.lock();
        if kept.len() < stacks.kept_max {
            kept.push(stack);
        }
    }
}

/// A stack: a mapping of our own, the lowest page of which is not accessible.
struct Stack {
    base: NonNull<c_void>,
    /// All of it, in bytes.
    len: usize,
    guard: usize,
}

// SAFETY: the mapping belongs to this value alone, and is used only by whoever has it exclusively.
unsafe impl Send for Stack {}

impl Stack {
    /// A stack with at least `size` bytes.
    fn new(size: usize) -> Result<Self> {
        let guard = rustix::param::page_size();
        let failed = |operation| {
            move |errno: rustix::io::Errno| Error::Mapping {
                operation,
                bytes: size as u64,
                source: errno.into(),
            }
        };
        let no_room = || failed("reserve")(rustix::io::Errno::NOMEM);
        let len = size
            .checked_next_multiple_of(guard)
            .and_then(|size| size.checked_add(guard))
            .ok_or_else(no_room)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // STACK keeps the system from making the first page a huge one.
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
        // SAFETY: an anonymous mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, flags) };
        let base = NonNull::new(base.map_err(failed("reserve"))?).ok_or_else(no_room)?;
        let stack = Self { base, len, guard };
        // SAFETY: the page lies in the mapping, which nobody uses yet.
        let guarded = unsafe { mprotect(base.as_ptr(), guard, MprotectFlags::empty()) };
        guarded.map_err(failed("guard"))?;
        Ok(stack)
    }

    /// The lowest address that can be used.
    fn limit(&self) -> *mut u8 {
        // SAFETY: the guard is part of the mapping.
        unsafe { self.base.as_ptr().cast::<u8>().add(self.guard) }
    }

    fn run<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (limit, size) = (self.limit(), self.len - self.guard);
        let addresses = (limit as usize, limit as usize + size);
        let before = CURRENT.replace(Some(addresses));
        // SAFETY: `size` bytes from `limit` on are mapped readable and writable, aligned to pages, with a page below that is not
        // accessible. Nobody else is on the stack, which this value owns and lends exclusively. The callback does not unwind.
        let done = unsafe { psm::on_stack(limit, size, || catch_unwind(AssertUnwindSafe(work))) };
        CURRENT.set(before);
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Gives back the pages that few programs use.
    fn trim(&self) {
        let unused = (self.len - self.guard).saturating_sub(RESIDENT_BYTES);
        // SAFETY: the range lies in the mapping, and nobody is on the stack. A failure costs memory only.
        let _ = unsafe { madvise(self.limit().cast(), unused, Advice::LinuxDontNeed) };
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and nobody is on the stack.
        let result = unsafe { munmap(self.base.as_ptr(), self.len) };
        debug_assert!(result.is_ok(), "a stack can be unmapped whole");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: usize = 32 << 20;

    fn stacks() -> Stacks {
        Stacks::new(NEEDED, 1 << 20)
    }

    /// Uses so many bytes of stack, and more.
    fn descend(bytes: usize) -> u8 {
        let mut frame = std::hint::black_box([1_u8; 4096]);
        if bytes > frame.len() {
            frame[17] = descend(bytes - frame.len());
        }
        std::hint::black_box(frame)[17]
    }

    #[test]
    fn all_that_was_asked_for_can_be_used_again_and_again() {
        let stacks = stacks();
        for _ in 0..3 {
            let deep = stacks
                .take()
                .expect("there is room")
                .run(|| descend(NEEDED / 2));
            assert_eq!(deep, 1);
            assert_eq!(stacks.lock().len(), 1);
        }
    }

    #[test]
    fn what_runs_on_a_large_stack_needs_no_other() {
        let stacks = stacks();
        let mut outer = stacks.take().expect("there is room");
        outer.run(|| {
            assert!(remaining().is_some_and(|bytes| bytes > NEEDED));
            assert!(stacks.take().expect("there is room").0.is_none());
            // Whoever needs more has another.
            let inner = Stacks::new(NEEDED + (2 << 20), 0);
            let mut inner = inner.take().expect("there is room");
            assert!(inner.0.is_some());
            assert_eq!(inner.run(|| descend(NEEDED / 2)), 1);
        });
        assert_eq!(CURRENT.get(), None);
    }

    #[test]
    fn on_a_stack_of_somebody_else_nothing_is_taken_for_known() {
        let stacks = stacks();
        let mut outer = stacks.take().expect("there is room");
        outer.run(|| {
            stacker::grow(1 << 20, || {
                assert_eq!(remaining(), None);
                let mut inner = stacks.take().expect("there is room");
                assert_eq!(inner.run(|| descend(NEEDED / 2)), 1);
            });
        });
    }

    #[test]
    fn a_panic_comes_back_and_the_stack_with_it() {
        let stacks = stacks();
        let mut lease = stacks.take().expect("there is room");
        let work = || lease.run(|| panic!("on another stack"));
        let panic = catch_unwind(AssertUnwindSafe(work)).expect_err("it panics");
        assert_eq!(panic.downcast_ref(), Some(&"on another stack"));
        assert_eq!(CURRENT.get(), None);
        drop(lease);
        assert_eq!(stacks.lock().len(), 1);
    }

    #[test]
    fn threads_at_the_same_time_have_stacks_of_their_own_and_few_are_kept() {
        let stacks = stacks();
        assert_eq!(stacks.kept_max, 7);
        let leases: Vec<Lease<'_>> = (0..10)
            .map(|_| stacks.take().expect("there is room"))
            .collect();
        std::thread::scope(|scope| {
            for mut lease in leases {
                scope.spawn(move || assert_eq!(lease.run(|| descend(1 << 20)), 1));
            }
        });
        assert_eq!(stacks.lock().len(), 7);
    }

    #[test]
    fn a_stack_larger_than_all_memory_is_refused() {
        for needed in [usize::MAX, usize::MAX / 2] {
            let refused = Stacks::new(needed, 1 << 20).take().map(drop);
            assert!(matches!(refused, Err(Error::Mapping { .. })), "{refused:?}");
        }
    }
}
