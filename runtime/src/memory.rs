//! Memory of a program: a reservation of address space whose pages come from image files, copy-on-write, or are zero.
//!
//! ```text
//!  base          base + size              base + reserved       + guard
//!  | accessible: image pages mapped privately | no access: growth | no access |
//!  |   over anonymous zero pages              |                   |           |
//! ```
//!
//! The base never moves. A mapping is shared by the engine, which grows it, and by whoever looks at it between runs.

#![expect(unsafe_code, reason = "maps memory and hands it to the engine")]

use crate::error::{Error, Result};
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};
use std::fs::File;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

#[cfg(test)]
mod tests;

/// A linear memory that the host owns.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    /// Bytes from `base` on that belong to the mapping. Invariant: a multiple of the page size, never changes.
    total: usize,
    /// Bytes that may become accessible. Invariant: a multiple of the page size, at most `total`.
    reserved: usize,
    /// Bytes that the guest may access. Invariant: at most `reserved`; everything below is mapped readable and writable.
    size: AtomicUsize,
}

/// A piece of a file that is part of a memory: offsets and length are multiples of the page size, and the piece lies in the
/// file.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'f> {
    /// Where it goes in the memory.
    pub offset: u64,
    pub file: &'f File,
    /// Where it lies in the file.
    pub file_offset: u64,
    pub length: u64,
}

// SAFETY: the address range is owned by this value alone and unmapped only when it is dropped; what goes on inside is
// governed by the functions below, which state who may access it when.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared access goes through atomics or is exclusive by contract.
unsafe impl Sync for Mapping {}

/// The size of the system's pages in bytes.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

fn failed(operation: &'static str, bytes: usize) -> impl FnOnce(rustix::io::Errno) -> Error {
    move |errno| Error::Mapping {
        operation,
        bytes: bytes as u64,
        source: errno.into(),
    }
}

impl Mapping {
    /// Reserves `reserved + guard` bytes of address space, of which the first `size` are accessible and zero.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] when the system has no room.
    pub fn new(size: usize, reserved: usize, guard: usize) -> Result<Arc<Self>> {
        let mapping = Self::reserve(size, reserved, guard)?;
        mapping.grow_to(size)?;
        Ok(Arc::new(mapping))
    }

    /// Reserves address space for at least `size` bytes, none of them accessible.
    fn reserve(size: usize, reserved: usize, guard: usize) -> Result<Self> {
        let page = page_size();
        let too_large = || failed("reserve", usize::MAX)(rustix::io::Errno::NOMEM);
        let reserved = reserved
            .max(size)
            .checked_next_multiple_of(page)
            .ok_or_else(too_large)?;
        let total = guard
            .checked_next_multiple_of(page)
            .and_then(|guard| guard.checked_add(reserved))
            .ok_or_else(too_large)?
            .max(page);
        // SAFETY: an anonymous mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                total,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        let base = NonNull::new(base.map_err(failed("reserve", total))?.cast::<u8>())
            .ok_or_else(too_large)?;
        Ok(Self {
            base,
            total,
            reserved,
            size: AtomicUsize::new(0),
        })
    }

    /// The address of the first byte.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// How many bytes the guest may access.
    pub fn size(&self) -> usize {
        self.size.load(Ordering::Acquire)
    }

    /// How many bytes it may have at most.
    pub fn capacity(&self) -> usize {
        self.reserved
    }

    /// Whether at least `guard` bytes behind the reservation are inaccessible.
    pub fn has_guard(&self, guard: usize) -> bool {
        self.total - self.reserved >= guard
    }

    /// Makes the first `size` bytes accessible; bytes that were not before are zero.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] beyond the reservation, or when the system has no memory left.
    pub fn grow_to(&self, size: usize) -> Result<()> {
        let old = self.size().next_multiple_of(page_size());
        let new = size.next_multiple_of(page_size());
        self.make_accessible(old, new)?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    /// As [`Mapping::new`], but with pieces of files in place of zeros, mapped privately: writes stay here. The pieces
    /// ascend.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] when the system has no room, or a piece does not lie in the memory, in whole pages and behind the
    /// one before.
    pub fn of_files<'f>(
        size: usize,
        reserved: usize,
        guard: usize,
        pieces: impl IntoIterator<Item = Piece<'f>>,
    ) -> Result<Arc<Self>> {
        let mut mapping = Self::reserve(size, reserved, guard)?;
        let accessible = size.next_multiple_of(page_size());
        let mut done = 0;
        // Each call of the system takes its time: at the first gap, all that is left becomes accessible at once.
        let mut opened = false;
        for piece in pieces {
            if piece.offset > done as u64 && !opened {
                mapping.make_accessible(done, accessible)?;
                opened = true;
            }
            done = mapping.map_piece(&piece, done..accessible)?;
        }
        if !opened {
            mapping.make_accessible(done, accessible)?;
        }
        *mapping.size.get_mut() = size;
        Ok(Arc::new(mapping))
    }

    /// Maps a piece that must lie in `range`, which is one of the reservation, and returns where it ends.
    fn map_piece(&mut self, piece: &Piece<'_>, range: Range<usize>) -> Result<usize> {
        let Piece {
            offset,
            file,
            file_offset,
            length,
        } = *piece;
        let refuse = || failed("map", length as usize)(rustix::io::Errno::INVAL);
        let end = offset.checked_add(length).ok_or_else(refuse)?;
        let aligned = (offset | file_offset | length).is_multiple_of(page_size() as u64);
        if !aligned || offset < range.start as u64 || end > range.end as u64 || length == 0 {
            return Err(refuse());
        }
        // SAFETY: the piece lies in `range` and so within the reservation, which this value owns; the exclusive reference
        // shows that nothing refers to it. The mapping is readable and writable, as
        // the invariant of `size` demands. Image files never shrink, so no access faults.
        let mapped = unsafe {
            mmap(
                self.base().add(offset as usize).cast(),
                length as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                file,
                file_offset,
            )
        };
        mapped.map_err(failed("map", length as usize))?;
        Ok(end as usize)
    }

    /// Makes the bytes from `start` to `end` accessible, whole pages of the reservation; nothing if they are none.
    fn make_accessible(&self, start: usize, end: usize) -> Result<()> {
        if end > self.reserved {
            return Err(failed("grow to", end)(rustix::io::Errno::NOMEM));
        }
        if end > start {
            // SAFETY: `start..end` lies within the reservation, which this value owns.
            let result = unsafe {
                let start_address = self.base().add(start).cast();
                let access = MprotectFlags::READ | MprotectFlags::WRITE;
                mprotect(start_address, end - start, access)
            };
            result.map_err(failed("grow by", end - start))?;
        }
        Ok(())
    }

    /// The bytes in `range`, if they are accessible, while the store that the guest runs in is borrowed, so that it
    /// cannot run. Of the control memory only what other threads do not write, that is, anything but its first words.
    pub fn view<'s, T>(
        &'s self,
        range: Range<usize>,
        _store: &'s wasmtime::Store<T>,
    ) -> Option<&'s [u8]> {
        if range.start > range.end || range.end > self.size() {
            return None;
        }
        // SAFETY: the range is mapped readable (checked against `size`). Guest code and host functions write to it only
        // while the store is borrowed exclusively, and `copy_in` only while nobody holds a view.
        Some(unsafe { std::slice::from_raw_parts(self.base().add(range.start), range.len()) })
    }

    /// Copies `bytes` to `range`; returns false, and does nothing, if that is not their length or not in the memory.
    /// Only for a memory whose guest does not run and of which nobody holds a view.
    pub fn copy_in(&self, range: Range<usize>, bytes: &[u8]) -> bool {
        if range.len() != bytes.len() || range.start > range.end || range.end > self.size() {
            return false;
        }
        // SAFETY: the range is mapped writable (checked against `size`), `bytes` is no part of it, as views are not
        // held, and the guest, which alone has other pointers to it, does not run.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base().add(range.start), bytes.len())
        };
        true
    }

    /// Copies the bytes in `range` to `buffer`, which is as long; what lies behind the memory's last page is zero. Only for
    /// a memory whose guest does not run.
    pub fn copy_out(&self, range: Range<u64>, buffer: &mut [u8]) {
        let mapped = self.size().next_multiple_of(page_size()) as u64;
        let end = range.end.min(mapped).max(range.start);
        let length = ((end - range.start) as usize).min(buffer.len());
        let (inside, behind) = buffer.split_at_mut(length);
        behind.fill(0);
        if length > 0 {
            // SAFETY: the range is mapped readable (checked against `size`, up to the end of its last page), `buffer` is
            // no part of it, as nobody has references into it, and the guest, which could write to it, does not run.
            unsafe {
                let source = self.base().add(range.start as usize);
                std::ptr::copy_nonoverlapping(source, inside.as_mut_ptr(), length);
            }
        }
    }

    /// Twins of this process made from now on (see [`crate::twin`]) do not have this memory, which makes making them
    /// cheap.
    pub fn keep_from_twins(&self) {
        self.advise(Advice::LinuxDontFork);
    }

    /// Twins of this process made from now on have this memory as it is then.
    pub fn show_to_twins(&self) {
        self.advise(Advice::LinuxDoFork);
    }

    fn advise(&self, advice: Advice) {
        // SAFETY: the range belongs to this value, and the advice changes nothing about it in this process. A system
        // that does not know it is none where twins are made.
        let _ = unsafe { madvise(self.base().cast(), self.total, advice) };
    }

    /// The aligned 32-bit word at `offset`, which guest code and other threads access at the same time.
    ///
    /// # Panics
    ///
    /// If the word is not aligned or lies outside the memory.
    pub fn word(&self, offset: u32) -> &AtomicU32 {
        assert!(
            offset.is_multiple_of(4) && offset as usize + 4 <= self.size(),
            "the word lies in the memory"
        );
        // SAFETY: the word is mapped, aligned, and all host accesses to it are atomic; guest code accesses it with
        // plain machine loads and stores, which are atomic for aligned words on all supported processors.
        unsafe { AtomicU32::from_ptr(self.base().add(offset as usize).cast()) }
    }
}

/// A memory that no guest code reaches, only the host's own functions: the content of a volume.
pub(crate) struct HostMemory(Arc<Mapping>);

impl HostMemory {
    /// Makes `mapping` the host's own.
    ///
    /// Nobody else may write to it from now on, nor give it to an engine. Whoever takes snapshots reads it like any other
    /// memory of the program: while the store that this value lies in is borrowed, by [`Mapping::copy_out`] and
    /// [`Mapping::view`], or through the kernel.
    pub fn new(mapping: Arc<Mapping>) -> Self {
        Self(mapping)
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: what lies below `size` is mapped readable. Only this value writes to it, in `bytes_mut`, which borrows
        // it exclusively.
        unsafe { std::slice::from_raw_parts(self.0.base(), self.0.size()) }
    }

    /// All bytes, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: what lies below `size` is mapped readable and writable. The exclusive reference shows that nobody has
        // one from `bytes`. Snapshots read while the store that owns this value is borrowed by themselves, hence not by a
        // host function, or by system calls, which have no references.
        unsafe { std::slice::from_raw_parts_mut(self.0.base(), self.0.size()) }
    }

    /// Makes the first `size` bytes accessible; new ones are zero.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] beyond the reservation, or when the system has no memory left.
    pub fn grow_to(&mut self, size: usize) -> Result<()> {
        self.0.grow_to(size)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and everything that referred to it borrowed from this value.
        let result = unsafe { munmap(self.base().cast(), self.total) };
        debug_assert!(result.is_ok(), "a mapping can be unmapped whole");
    }
}
