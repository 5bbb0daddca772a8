//! Checked access to the guest's linear memory.
//!
//! What a guest passes as a pointer is an allegation. Only the methods of [`Memory`] turn it into bytes, and what lies
//! outside of the memory, even partly or by overflow, is [`Errno::Fault`].

use crate::errno::Errno;
use smallvec::SmallVec;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;

/// More buffers than the kernel takes in one call are left for the next one: a short count tells the guest.
const BUFFERS_MAX: usize = 1024;

/// The buffers of one scatter or gather call; most have one or two.
pub(crate) type Ranges = SmallVec<[Range<usize>; 8]>;

pub(crate) type ReadBuffers<'m> = SmallVec<[IoSliceMut<'m>; 8]>;
pub(crate) type WriteBuffers<'m> = SmallVec<[IoSlice<'m>; 8]>;

/// The whole linear memory of the guest.
pub(crate) struct Memory<'m>(&'m mut [u8]);

impl<'m> Memory<'m> {
    pub(crate) fn new(bytes: &'m mut [u8]) -> Memory<'m> {
        Memory(bytes)
    }

    fn range(&self, pointer: u32, length: u32) -> Result<Range<usize>, Errno> {
        let start = usize::try_from(pointer).map_err(|_| Errno::Fault)?;
        let length = usize::try_from(length).map_err(|_| Errno::Fault)?;
        let end = start.checked_add(length).ok_or(Errno::Fault)?;
        if end > self.0.len() {
            return Err(Errno::Fault);
        }
        Ok(start..end)
    }

    /// Makes sure that a result of `length` bytes can be stored later, before the call has any effect.
    pub(crate) fn check(&self, pointer: u32, length: u32) -> Result<(), Errno> {
        self.range(pointer, length).map(drop)
    }

    pub(crate) fn bytes(&self, pointer: u32, length: u32) -> Result<&[u8], Errno> {
        Ok(&self.0[self.range(pointer, length)?])
    }

    pub(crate) fn bytes_mut(&mut self, pointer: u32, length: u32) -> Result<&mut [u8], Errno> {
        let range = self.range(pointer, length)?;
        Ok(&mut self.0[range])
    }

    /// A path. Preview 1 has Unicode strings only: anything else is [`Errno::Ilseq`].
    pub(crate) fn path(&self, pointer: u32, length: u32) -> Result<&str, Errno> {
        std::str::from_utf8(self.bytes(pointer, length)?).map_err(|_| Errno::Ilseq)
    }

    pub(crate) fn write(&mut self, pointer: u32, bytes: &[u8]) -> Result<(), Errno> {
        let length = u32::try_from(bytes.len()).map_err(|_| Errno::Fault)?;
        self.bytes_mut(pointer, length)?.copy_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn write_u32(&mut self, pointer: u32, value: u32) -> Result<(), Errno> {
        self.write(pointer, &value.to_le_bytes())
    }

    pub(crate) fn write_u64(&mut self, pointer: u32, value: u64) -> Result<(), Errno> {
        self.write(pointer, &value.to_le_bytes())
    }

    /// The non-empty buffers that an array of `count` `iovec`s at `pointer` names, in order.
    pub(crate) fn iovecs(&self, pointer: u32, count: u32) -> Result<Ranges, Errno> {
        let length = count.checked_mul(8).ok_or(Errno::Fault)?;
        let mut ranges = Ranges::new();
        for entry in self.bytes(pointer, length)?.as_chunks::<8>().0 {
            let [p0, p1, p2, p3, l0, l1, l2, l3] = *entry;
            let length = u32::from_le_bytes([l0, l1, l2, l3]);
            if length == 0 {
                continue;
            }
            ranges.push(self.range(u32::from_le_bytes([p0, p1, p2, p3]), length)?);
            if ranges.len() == BUFFERS_MAX {
                break;
            }
        }
        Ok(ranges)
    }

    pub(crate) fn write_buffers(&self, ranges: &[Range<usize>]) -> WriteBuffers<'_> {
        let slice = |range: &Range<usize>| IoSlice::new(&self.0[range.clone()]);
        ranges.iter().map(slice).collect()
    }

    /// The buffers to read into. If the guest named the same byte twice only its first buffer is used: a short read,
    /// which is always allowed.
    pub(crate) fn read_buffers(&mut self, ranges: &[Range<usize>]) -> ReadBuffers<'_> {
        let mut order: SmallVec<[usize; 8]> = (0..ranges.len()).collect();
        order.sort_unstable_by_key(|&index| ranges[index].start);
        let overlap = |pair: &[usize]| ranges[pair[0]].end > ranges[pair[1]].start;
        if order.len() < 2 || order.windows(2).any(overlap) {
            let first = ranges.first().cloned().unwrap_or(0..0);
            return std::iter::once(IoSliceMut::new(&mut self.0[first])).collect();
        }
        let mut parts: SmallVec<[(usize, IoSliceMut<'_>); 8]> = SmallVec::new();
        let mut rest = &mut *self.0;
        let mut consumed = 0;
        for index in order {
            let range = &ranges[index];
            let (_, tail) = rest.split_at_mut(range.start - consumed);
            let (part, tail) = tail.split_at_mut(range.len());
            parts.push((index, IoSliceMut::new(part)));
            rest = tail;
            consumed = range.end;
        }
        parts.sort_unstable_by_key(|part| part.0);
        parts.into_iter().map(|part| part.1).collect()
    }
}

/// Writes the first `count` bytes of what was read into buffers again, one byte of each page. File systems may have
/// stored them without the processor, past all that notes which pages are written.
pub(crate) fn touch(buffers: &mut [IoSliceMut<'_>], count: usize) {
    /// No page is smaller.
    const PAGE_BYTES: usize = 4096;
    let mut rest = count;
    for buffer in buffers {
        let length = buffer.len().min(rest);
        rest -= length;
        let bytes = &mut buffer[..length];
        for place in (0..length).step_by(PAGE_BYTES).chain(length.checked_sub(1)) {
            // The compiler must not see that this changes nothing.
            bytes[place] = std::hint::black_box(bytes[place]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_changes_nothing() {
        let mut bytes: Vec<u8> = (0..3 * 4096 + 5).map(|number| number as u8).collect();
        let before = bytes.clone();
        let (one, another) = bytes.split_at_mut(4097);
        for count in [0, 1, 4097, 4098, before.len()] {
            touch(&mut [IoSliceMut::new(one), IoSliceMut::new(another)], count);
        }
        assert_eq!(bytes, before);
    }

    fn iovec(pointer: u32, length: u32) -> [u8; 8] {
        (u64::from(length) << 32 | u64::from(pointer)).to_le_bytes()
    }

    #[test]
    fn a_range_ends_at_the_last_byte_of_memory_and_never_beyond() {
        let mut bytes = [0; 16];
        let memory = Memory::new(&mut bytes);
        assert_eq!(memory.check(0, 16), Ok(()));
        assert_eq!(memory.check(16, 0), Ok(()));
        assert_eq!(memory.check(16, 1), Err(Errno::Fault));
        assert_eq!(memory.check(17, 0), Err(Errno::Fault));
        assert_eq!(memory.check(u32::MAX, u32::MAX), Err(Errno::Fault));
    }

    #[test]
    fn buffers_in_any_order_are_filled_in_the_order_given() {
        let mut bytes = [0; 64];
        bytes[0..8].copy_from_slice(&iovec(40, 2));
        bytes[8..16].copy_from_slice(&iovec(0, 0));
        bytes[16..24].copy_from_slice(&iovec(32, 3));
        let mut memory = Memory::new(&mut bytes);
        let ranges = memory.iovecs(0, 3).expect("valid iovecs");
        let lengths: Vec<_> = memory
            .read_buffers(&ranges)
            .iter()
            .map(|b| b.len())
            .collect();
        assert_eq!(lengths, [2, 3]);
        memory.read_buffers(&ranges)[1].fill(7);
        assert_eq!(memory.bytes(32, 3), Ok(&[7, 7, 7][..]));
    }

    #[test]
    fn overlapping_read_buffers_shrink_to_the_first() {
        let mut bytes = [0; 64];
        bytes[0..8].copy_from_slice(&iovec(40, 8));
        bytes[8..16].copy_from_slice(&iovec(44, 8));
        let mut memory = Memory::new(&mut bytes);
        let ranges = memory.iovecs(0, 2).expect("valid iovecs");
        let buffers = memory.read_buffers(&ranges);
        assert_eq!(buffers.len(), 1);
        assert_eq!(buffers[0].len(), 8);
    }

    #[test]
    fn a_huge_count_of_buffers_is_a_fault() {
        let mut bytes = [0; 64];
        let memory = Memory::new(&mut bytes);
        assert_eq!(memory.iovecs(0, u32::MAX), Err(Errno::Fault));
        assert_eq!(memory.iovecs(0, 9), Err(Errno::Fault));
    }
}
