//! The pages of a program's memories: which image they were mapped from, which were written since, and their content at
//! the moment of a snapshot.
//!
//! ```text
//!  guest runs ─────────────────────────────┬─ stands ─┬─ runs ────────────────────────────
//!  prepare:   scan, copy or divide,        │          │
//!             scan and copy until little   │          │
//!  freeze:                                 │ scan,    │
//!                                          │ copy     │
//!  store:                                  │          │ reads copies and twin ── stored
//! ```
//!
//! What was written since the base is found and set aside while the guest runs. Whatever it writes after that is found by
//! the next scan, and copied once more: while it runs, as long as that is much, and at last while it stands still. Each round finds
//! less, because the first write to each page costs the guest more than copying it costs us. So the pause does not depend
//! on how much of the memory is dirty, but on what the guest writes within a fraction of a millisecond. When the kernel cannot tell what was written since a moment, everything happens within the pause.

use crate::dirty::{self, Watch};
use crate::memory::{Mapping, page_size};
use crate::ranges::Ranges;
use crate::twin::{self, Twin};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wsnap_snapshots::{PageSource, StoredImage};

/// How many bytes are copied at a time while the guest runs, rather than kept by a twin.
const EARLY_COPY_BYTES_MAX: u64 = 64 << 20;
/// So many bytes are left to be copied while the guest stands still: less than a millisecond.
const LATE_COPY_BYTES_WANTED: u64 = 2 << 20;
/// So often is copied what the guest wrote during the round before.
const EARLY_ROUNDS_MAX: u32 = 8;
/// How many bytes are always copied while the guest stands still.
const LATE_COPY_BYTES_MIN: u64 = 1 << 20;
/// Copying one byte takes as long as making a twin of a process with so many bytes of memory, in pages of 4 KiB: measured
/// 0.4 ms for a megabyte copied to fresh memory, 6 ms for a gigabyte in a twin.
const TWIN_BYTES_PER_COPIED_BYTE: u64 = 64;

/// The memories of one program. Shared by the program and whoever takes snapshots of it.
pub(crate) struct Pages {
    memories: Vec<Arc<Mapping>>,
    state: Mutex<State>,
}

/// A point in the order of scans.
pub(crate) type Moment = u64;

struct State {
    watches: Vec<Watch>,
    /// The image that has everything but what was found since.
    base: Option<Arc<StoredImage>>,
    /// When the base was taken.
    base_moment: Moment,
    /// What was written, by scan. Invariant: all later than the base.
    scans: Vec<(Moment, Vec<Ranges>)>,
    now: Moment,
    early: Option<Early>,
}

/// Content of memories that was set aside. What the guest wrote after it is not right.
#[derive(Default)]
struct Early {
    /// Of each round those of all memories; later ones go before.
    copies: Vec<Vec<Copies>>,
    /// Keeps everything, if it was too much to be copied, and how large the memories were.
    twin: Option<(Arc<Twin>, Vec<u64>)>,
}

/// How a scan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Precision {
    /// It may find pages that were only read.
    Fast,
    /// It takes up to 4 ms for a gigabyte, and finds no pages of files that were only read.
    Exact,
}

/// Which bytes of the memories may differ from which image.
pub(crate) struct Written {
    pub moment: Moment,
    pub base: Option<Arc<StoredImage>>,
    /// By memory.
    pub dirty: Vec<Ranges>,
}

impl Pages {
    /// Memories whose pages come from `base`, or were made by the host.
    pub fn new(memories: Vec<Arc<Mapping>>, base: Option<Arc<StoredImage>>) -> Self {
        for memory in &memories {
            memory.keep_from_twins();
        }
        let state = State {
            watches: memories.iter().map(|_| Watch::default()).collect(),
            base,
            base_moment: 0,
            scans: Vec::new(),
            now: 0,
            early: None,
        };
        Self {
            memories,
            state: Mutex::new(state),
        }
    }

    /// The memories, by index.
    pub fn memories(&self) -> &[Arc<Mapping>] {
        &self.memories
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Whoever panicked has at worst left a scan out, after which the program cannot go on in this process anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the kernel note from now on which pages are touched, one by one, if it can.
    pub fn arm(&self) {
        let mut state = self.locked();
        for (watch, memory) in state.watches.iter_mut().zip(&self.memories) {
            watch.arm(memory);
        }
    }

    /// Sets aside what would be in a snapshot taken now, so that the guest need not stand still for it. From any thread;
    /// the guest runs.
    pub fn prepare(&self) {
        let mut state = self.locked();
        state.early = None;
        for (watch, memory) in state.watches.iter_mut().zip(&self.memories) {
            watch.arm(memory);
        }
        if !state.watches.iter().all(Watch::is_armed) {
            // Nobody could tell what the guest writes from here on.
            return;
        }
        self.scan(&mut state, Precision::Exact);
        let mut early = Early::default();
        if !self.set_aside(&self.dirty(&state), &mut early) {
            return;
        }
        for _ in 0..EARLY_ROUNDS_MAX {
            self.scan(&mut state, Precision::Fast);
            let Some((_, written)) = state.scans.last() else {
                break;
            };
            if !self.set_aside(written, &mut early) {
                return;
            }
            if byte_len(written) <= LATE_COPY_BYTES_WANTED {
                break;
            }
        }
        state.early = Some(early);
    }

    /// Adds to `early` what was found by the scan before, while the guest runs; false if that cannot be done.
    fn set_aside(&self, found: &[Ranges], early: &mut Early) -> bool {
        if byte_len(found) > EARLY_COPY_BYTES_MAX {
            // It has everything as it is now, so what was set aside before is not needed any more.
            *early = Early {
                copies: Vec::new(),
                twin: self.twin(),
            };
            return early.twin.is_some();
        }
        let copies = self.copy_running(found);
        copies.map(|copies| early.copies.push(copies)).is_ok()
    }

    fn copy_running(&self, dirty: &[Ranges]) -> io::Result<Vec<Copies>> {
        self.copy(dirty, |memory, range, to| {
            twin::read_own(memory.base() as usize + range.start as usize, to)
        })
    }

    /// What was written since the base, up to now. The guest stands still until the result has been read.
    pub fn written(&self) -> Written {
        let mut state = self.locked();
        state.early = None;
        let moment = self.scan(&mut state, Precision::Exact);
        Written {
            moment,
            base: state.base.clone(),
            dirty: self.dirty(&state),
        }
    }

    /// As [`Pages::written`], and the content, which is kept when the guest goes on. The guest stands still for the call.
    ///
    /// # Errors
    ///
    /// When there is no memory to keep it.
    pub fn freeze(&self) -> io::Result<(Written, Vec<Frozen>)> {
        let mut state = self.locked();
        for (watch, memory) in state.watches.iter_mut().zip(&self.memories) {
            watch.arm(memory);
        }
        let moment = self.scan(&mut state, Precision::Fast);
        let dirty = self.dirty(&state);
        let early = state.early.take();
        let late = match &early {
            // The scan before was the last one of `prepare`.
            Some(_) => state.scans.last().map(|(_, written)| written.clone()),
            None => None,
        };
        let late = late.unwrap_or_else(|| dirty.clone());
        let bytes = byte_len(&late);
        let sizes = self.memories.iter().map(|memory| memory.size() as u64);
        let limit = LATE_COPY_BYTES_MIN.max(sizes.sum::<u64>() / TWIN_BYTES_PER_COPIED_BYTE);
        let twin = (bytes > limit).then(|| self.twin()).flatten();
        let kept = match twin {
            // It has everything as it is now.
            Some(twin) => Early {
                copies: Vec::new(),
                twin: Some(twin),
            },
            None => {
                let late = self.copy(&late, |memory, range, to| {
                    memory.copy_out(range, to);
                    Ok(())
                })?;
                let mut kept = early.unwrap_or_default();
                kept.copies.push(late);
                kept
            }
        };
        let frozen = self.frozen(kept);
        let written = Written {
            moment,
            base: state.base.clone(),
            dirty,
        };
        Ok((written, frozen))
    }

    /// `image` was stored and has all that was written up to `moment`.
    pub fn stored(&self, moment: Moment, image: Arc<StoredImage>) {
        let mut state = self.locked();
        // A later one may have been faster.
        if state.base_moment < moment {
            state.base = Some(image);
            state.base_moment = moment;
            state.scans.retain(|(scanned, _)| *scanned > moment);
        }
    }

    fn scan(&self, state: &mut State, precision: Precision) -> Moment {
        let watches = state.watches.iter().zip(&self.memories);
        let written = watches
            .map(|(watch, memory)| {
                let written = watch.scan(memory);
                // Without a base there are no pages of files that could have been found in error.
                match precision {
                    Precision::Exact if state.base.is_some() => dirty::private(memory, written),
                    Precision::Exact | Precision::Fast => written,
                }
            })
            .collect();
        state.now += 1;
        state.scans.push((state.now, written));
        state.now
    }

    fn dirty(&self, state: &State) -> Vec<Ranges> {
        let union = |index: usize| {
            let scans = state.scans.iter();
            scans.fold(Ranges::default(), |all, (_, written)| {
                all.union(&written[index])
            })
        };
        (0..self.memories.len()).map(union).collect()
    }

    fn copy(
        &self,
        dirty: &[Ranges],
        read: impl Fn(&Mapping, Range<u64>, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Vec<Copies>> {
        let memories = self.memories.iter().zip(dirty);
        memories
            .map(|(memory, dirty)| Copies::of(dirty, |range, to| read(memory, range, to)))
            .collect()
    }

    /// A process that keeps all memories as they are now, if there can be one.
    fn twin(&self) -> Option<(Arc<Twin>, Vec<u64>)> {
        let sizes = self.memories.iter().map(|memory| {
            memory.show_to_twins();
            memory.size() as u64
        });
        let sizes = sizes.collect();
        let twin = Twin::standing();
        for memory in &self.memories {
            memory.keep_from_twins();
        }
        Some((Arc::new(twin.ok()?), sizes))
    }

    fn frozen(&self, kept: Early) -> Vec<Frozen> {
        let mut rounds: Vec<_> = kept.copies.into_iter().map(Vec::into_iter).collect();
        let memories = self.memories.iter().enumerate();
        memories
            .map(|(index, memory)| Frozen {
                twin: kept.twin.as_ref().map(|(twin, sizes)| TwinMemory {
                    twin: twin.clone(),
                    address: memory.base() as usize,
                    byte_len: sizes[index],
                }),
                copies: rounds.iter_mut().filter_map(Iterator::next).collect(),
            })
            .collect()
    }
}

/// How many bytes there are of all memories.
fn byte_len(written: &[Ranges]) -> u64 {
    written.iter().map(Ranges::byte_len).sum()
}

/// Copies of some stretches of a memory.
#[derive(Default)]
struct Copies {
    /// Each stretch and where its bytes are, ascending.
    places: Vec<(Range<u64>, usize)>,
    bytes: Vec<u8>,
}

impl Copies {
    fn of(
        ranges: &Ranges,
        read: impl Fn(Range<u64>, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Self> {
        let byte_len = ranges.byte_len() as usize;
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(byte_len)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(byte_len, 0);
        let mut places = Vec::with_capacity(ranges.as_slice().len());
        let mut place = 0;
        for range in ranges.as_slice() {
            let end = place + (range.end - range.start) as usize;
            read(range.clone(), &mut bytes[place..end])?;
            places.push((range.clone(), place));
            place = end;
        }
        Ok(Self { places, bytes })
    }

    /// Puts what there is of the bytes from `offset` on into `buffer`.
    fn overlay(&self, offset: u64, buffer: &mut [u8]) {
        let end = offset + buffer.len() as u64;
        let first = self
            .places
            .partition_point(|(range, _)| range.end <= offset);
        for (range, place) in &self.places[first..] {
            if range.start >= end {
                break;
            }
            let (from, to) = (range.start.max(offset), range.end.min(end));
            let source = place + (from - range.start) as usize;
            let bytes = &self.bytes[source..source + (to - from) as usize];
            buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(bytes);
        }
    }
}

/// A memory as a twin has it.
struct TwinMemory {
    twin: Arc<Twin>,
    address: usize,
    byte_len: u64,
}

/// What was dirty in a memory at one moment. Nothing else of it can be read.
pub(crate) struct Frozen {
    twin: Option<TwinMemory>,
    /// Later ones go before earlier ones.
    copies: Vec<Copies>,
}

impl PageSource for Frozen {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if let Some(memory) = &self.twin {
            let page = page_size() as u64;
            let mapped = memory.byte_len.next_multiple_of(page);
            let kept = mapped.saturating_sub(offset).min(buffer.len() as u64) as usize;
            let (kept, behind) = buffer.split_at_mut(kept);
            memory.twin.read(memory.address + offset as usize, kept)?;
            behind.fill(0);
        }
        for copies in &self.copies {
            copies.overlay(offset, buffer);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 1 << 20;

    /// What a memory holds, for comparing with what was set aside of it.
    fn content(mapping: &Mapping) -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        mapping.copy_out(0..BYTES as u64, &mut bytes);
        bytes
    }

    fn write(mapping: &Mapping, place: usize, byte: u8) {
        assert!(mapping.copy_in(place..place + 1, &[byte]));
    }

    /// Freezes the memory, changes all of it, and compares.
    fn check(pages: &Pages, expected: impl Fn(&Ranges) -> bool) {
        let mapping = &pages.memories[0];
        let before = content(mapping);
        let (written, frozen) = pages.freeze().expect("there is room");
        assert!(expected(&written.dirty[0]), "{:?}", written.dirty);
        assert!(mapping.copy_in(0..BYTES, &vec![0xee; BYTES]));
        for range in written.dirty[0].as_slice() {
            let range = range.start as usize..range.end as usize;
            let mut bytes = vec![0; range.len()];
            frozen[0]
                .read_at(range.start as u64, &mut bytes)
                .expect("it was set aside");
            assert!(bytes == before[range.clone()], "{range:?}");
        }
        assert!(mapping.copy_in(0..BYTES, &before));
    }

    fn covers(ranges: &Ranges, place: usize) -> bool {
        let place = place as u64;
        ranges.as_slice().iter().any(|range| range.contains(&place))
    }

    #[test]
    fn what_is_frozen_is_what_was_there_whether_or_not_the_kernel_notes_writes() {
        for unable in [false, true] {
            let mapping = Mapping::new(BYTES, BYTES, 0).expect("there is address space");
            let pages = Pages::new(vec![mapping.clone()], None);
            if unable {
                pages.locked().watches[0] = Watch::Unable;
            }
            for place in [0, 5000, 77_777, BYTES - 1] {
                write(&mapping, place, 1);
            }
            pages.prepare();
            write(&mapping, 5000, 2);
            write(&mapping, 500_000, 3);
            check(&pages, |dirty| {
                [0, 5000, 77_777, 500_000, BYTES - 1]
                    .iter()
                    .all(|place| covers(dirty, *place))
            });
            // What was not stored is part of the next one, too, and nothing need be prepared.
            write(&mapping, 900_000, 4);
            check(&pages, |dirty| {
                covers(dirty, 900_000) && covers(dirty, 77_777)
            });
        }
    }

    #[test]
    fn a_memory_that_grows_between_preparing_and_freezing_is_whole() {
        let mapping = Mapping::new(BYTES / 2, BYTES, 0).expect("there is address space");
        let pages = Pages::new(vec![mapping.clone()], None);
        write(&mapping, 10, 1);
        pages.prepare();
        mapping.grow_to(BYTES).expect("there is room");
        write(&mapping, BYTES - 10, 2);
        check(&pages, |dirty| {
            covers(dirty, 10) && covers(dirty, BYTES - 10)
        });
    }
}
