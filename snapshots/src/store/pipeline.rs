//! Reads what may have changed in a memory, finds what has, and writes it, on all cores.
//!
//! ```text
//! worker   takes the next 16 leaves │ reads, hashes, compares │ waits for its turn: │ writes its pages │ …
//!                                                             │ gets its place in   │
//! worker   …                                                  │ the file            │ takes …
//! another thread                                                            syncs what has been written, again and again
//! ```
//!
//! Places are given in the order of the memory, so that pages that are neighbours in the memory are neighbours in the
//! file. Each worker has its own buffers; what they hold is all that is ever in memory at once.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::StoredMemory;
use super::files::Staged;
use super::update::MemoryUpdate;
use crate::error::{Damage, StoreError};
use crate::id::LeafHash;
use crate::layer_index::{Entry, EntryKind, touched_leaves};
use crate::memory_tree::{LEAF_SIZE, is_zero, leaf_start};
use crate::overlay::from_offset;
use crate::page_map::PAGE_SIZE;

/// A worker takes so many leaves at once: 1 MiB, long against the cost of handing it out.
const LEAVES_PER_CHUNK: usize = 16;
const PAGES_PER_LEAF: usize = LEAF_SIZE / PAGE_SIZE;
const PAGE: u64 = PAGE_SIZE as u64;
/// So many bytes are written before they are synced: enough to keep a disk busy, little enough that the last sync,
/// which everybody waits for, has not much left.
const SYNC_STEP: u64 = 32 << 20;

/// What has been found and written.
#[derive(Default)]
pub(super) struct Changes {
    /// What a layer would say, as in [`crate::layer_index::LayerIndex`]. The pages are in the file.
    pub entries: Vec<Entry>,
    /// The leaves that differ from the base, ascending: exactly those that entries touch.
    pub leaves: Vec<(u32, LeafHash)>,
}

/// Writes the changes that `update` tells of into a file, from its second page on.
pub(super) fn write_changes(
    update: &MemoryUpdate<'_>,
    base: Option<&StoredMemory>,
    staged: &Staged,
) -> Result<Changes, StoreError> {
    let dirty_bytes: u64 = update
        .dirty
        .iter()
        .map(|range| range.end - range.start)
        .sum();
    let stretches = update.dirty.iter().map(|range| (range.start, range.end));
    let mut leaves = touched_leaves(stretches).flat_map(|(first, last)| first..=last);
    let mut tickets = 0..;
    let pipeline = Pipeline {
        update,
        base,
        staged,
        chunks: Mutex::new(Box::new(move || {
            let chunk: Vec<u32> = leaves.by_ref().take(LEAVES_PER_CHUNK).collect();
            match chunk[..] {
                [] => None,
                _ => tickets.next().map(|ticket| (ticket, chunk)),
            }
        })),
        turn: Mutex::default(),
        turned: Condvar::new(),
    };
    pipeline.run(dirty_bytes);
    let turn = pipeline.turn.into_inner();
    let turn = turn.unwrap_or_else(PoisonError::into_inner);
    match turn.failure {
        Some(error) => Err(error),
        None => Ok(turn.changes),
    }
}

/// Gives out leaves in order, each chunk with its number.
type Chunks<'a> = Box<dyn FnMut() -> Option<(u64, Vec<u32>)> + Send + 'a>;

struct Pipeline<'a> {
    update: &'a MemoryUpdate<'a>,
    base: Option<&'a StoredMemory>,
    staged: &'a Staged,
    chunks: Mutex<Chunks<'a>>,
    turn: Mutex<Turn>,
    turned: Condvar,
}

/// What the workers add to in the order of their chunks.
#[derive(Default)]
struct Turn {
    /// The chunk whose turn it is.
    next: u64,
    /// How many bytes of pages have got a place.
    page_bytes: u64,
    changes: Changes,
    /// Nobody waits for a turn any more: an error has happened, or a worker has panicked.
    over: bool,
    failure: Option<StoreError>,
}

/// Ends the waiting of others when a worker panics.
struct EndOnPanic<'a, 'b>(&'a Pipeline<'b>);

impl Drop for EndOnPanic<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end(None);
        }
    }
}

impl Pipeline<'_> {
    fn run(&self, dirty_bytes: u64) {
        let chunks = dirty_bytes.div_ceil((LEAVES_PER_CHUNK * LEAF_SIZE) as u64);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // Chunks of few dirty pages each are as many as there are leaves at most; more workers than chunks find no work.
        let helpers = cores.min(1 + chunks as usize).saturating_sub(1);
        thread::scope(|scope| {
            let (written, to_sync) = channel();
            if dirty_bytes > SYNC_STEP {
                scope.spawn(move || self.sync_behind(to_sync));
            }
            for _ in 0..helpers {
                let written = written.clone();
                scope.spawn(move || self.work(&written));
            }
            // The calling thread works too, so that little work starts no thread at all.
            self.work(&written);
        });
    }

    fn work(&self, written: &Sender<u64>) {
        let _guard = EndOnPanic(self);
        let mut worker = Worker::new(self);
        loop {
            let next = (lock(&self.chunks))();
            let Some((ticket, leaves)) = next else { return };
            match worker.process(ticket, &leaves) {
                // Nobody listens when there is too little to sync early.
                Ok(Some(bytes)) => drop(written.send(bytes)),
                Ok(None) => return,
                Err(error) => return self.end(Some(error)),
            }
        }
    }

    /// Syncs while others write, so that the disk is busy from the start.
    fn sync_behind(&self, written: Receiver<u64>) {
        let mut pending = 0;
        while let Ok(bytes) = written.recv() {
            pending += bytes + written.try_iter().sum::<u64>();
            if pending >= SYNC_STEP {
                pending = 0;
                if let Err(error) = self.staged.sync_data() {
                    return self.end(Some(error));
                }
            }
        }
    }

    fn end(&self, failure: Option<StoreError>) {
        let mut turn = lock(&self.turn);
        turn.over = true;
        if turn.failure.is_none() {
            turn.failure = failure;
        }
        self.turned.notify_all();
    }

    /// Gives pages their place in the file, in the order of the chunks. Nothing, if it is over.
    fn take_turn(&self, ticket: u64, found: Changes, page_bytes: u64) -> Option<u64> {
        let turn = lock(&self.turn);
        let waiting = |turn: &mut Turn| !turn.over && turn.next != ticket;
        let mut turn = self
            .turned
            .wait_while(turn, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        if turn.over {
            return None;
        }
        let place = PAGE + turn.page_bytes;
        turn.page_bytes += page_bytes;
        turn.changes.leaves.extend(found.leaves);
        for entry in found.entries {
            push(&mut turn.changes.entries, entry);
        }
        turn.next += 1;
        self.turned.notify_all();
        Some(place)
    }
}

/// A panic elsewhere leaves nothing half-done that matters: it makes the publication panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Appends an entry, or lengthens the last one by it.
pub(super) fn push(entries: &mut Vec<Entry>, entry: Entry) {
    match entries.last_mut() {
        Some(last) if last.kind == entry.kind && last.memory_end() == entry.memory_offset => {
            last.length += entry.length;
        }
        _ => entries.push(entry),
    }
}

struct Worker<'a, 'b> {
    pipeline: &'a Pipeline<'b>,
    /// The new content of the leaves of a chunk, one behind the other.
    content: Vec<u8>,
    /// The base's content of the same leaves, where it has been read.
    before: Vec<u8>,
}

/// What is known of a leaf of a chunk.
struct Leaf {
    index: u32,
    /// Its position in the chunk.
    slot: usize,
    /// Bit N says that page N may differ from the base.
    dirty: u16,
    /// Bit N says that the base stores page N.
    stored: u16,
    /// Whether the base's content has been read.
    before_known: bool,
    hash: LeafHash,
    hash_before: LeafHash,
}

impl Leaf {
    fn is_changed(&self) -> bool {
        self.hash != self.hash_before
    }

    fn bytes<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        &buffer[self.slot * LEAF_SIZE..][..LEAF_SIZE]
    }

    fn bytes_mut<'a>(&self, buffer: &'a mut [u8]) -> &'a mut [u8] {
        &mut buffer[self.slot * LEAF_SIZE..][..LEAF_SIZE]
    }
}

impl<'a, 'b> Worker<'a, 'b> {
    fn new(pipeline: &'a Pipeline<'b>) -> Self {
        Self {
            pipeline,
            content: Vec::new(),
            before: Vec::new(),
        }
    }

    /// Does everything for a chunk and tells how many bytes it has written; nothing, if it is over.
    fn process(&mut self, ticket: u64, leaves: &[u32]) -> Result<Option<u64>, StoreError> {
        // Small updates need small buffers.
        let len = leaves.len() * LEAF_SIZE;
        self.content.resize(self.content.len().max(len), 0);
        self.before.resize(self.before.len().max(len), 0);

        let mut chunk = self.look_up(leaves);
        for leaf in &mut chunk {
            self.fill_from_base(leaf)?;
        }
        self.read_source(leaves)?;
        for leaf in &mut chunk {
            leaf.hash = LeafHash::of(leaf.bytes(&self.content));
        }
        // Of a long stretch that has changed everywhere most pages have changed too. Finding those that have not would
        // take reading the base from the disk while it is needed for writing.
        let rewritten = leaves.len() == LEAVES_PER_CHUNK
            && chunk
                .iter()
                .all(|leaf| leaf.dirty == u16::MAX && leaf.is_changed());
        let mut found = Changes::default();
        for leaf in chunk.iter_mut().filter(|leaf| leaf.is_changed()) {
            if !rewritten {
                self.read_before(leaf)?;
            }
            let entries = found.entries.len();
            self.compare(leaf, &mut found.entries);
            if found.entries.len() == entries {
                return Err(self.base_damaged(leaf));
            }
            found.leaves.push((leaf.index, leaf.hash));
        }
        let page_bytes = self.gather(leaves, &found.entries);
        match self
            .pipeline
            .take_turn(ticket, merged(found), page_bytes as u64)
        {
            Some(place) if page_bytes > 0 => {
                let pages = &self.content[..page_bytes];
                self.pipeline.staged.write_at(pages, place)?;
                Ok(Some(page_bytes as u64))
            }
            Some(_) => Ok(Some(0)),
            None => Ok(None),
        }
    }

    fn look_up(&self, leaves: &[u32]) -> Vec<Leaf> {
        let base = self.pipeline.base;
        let leaf = |(slot, index): (usize, &u32)| Leaf {
            index: *index,
            slot,
            dirty: mask(*index, self.dirty_from(leaf_start(*index)).iter().cloned()),
            stored: base.map_or(0, |base| {
                let pieces = from_offset(base.visible(), leaf_start(*index)).iter();
                let stored = pieces.take_while(|piece| piece.memory_offset < leaf_end(*index));
                let stored = stored.filter(|piece| piece.layer_offset.is_some());
                mask(
                    *index,
                    stored.map(|piece| piece.memory_offset..piece.memory_end()),
                )
            }),
            before_known: false,
            hash: LeafHash::ZERO,
            hash_before: base.map_or(LeafHash::ZERO, |base| base.tree_ref().leaf(*index)),
        };
        leaves.iter().enumerate().map(leaf).collect()
    }

    /// The dirty stretches from the first on that ends behind `offset`.
    fn dirty_from(&self, offset: u64) -> &'b [Range<u64>] {
        let dirty = self.pipeline.update.dirty;
        &dirty[dirty.partition_point(|range| range.end <= offset)..]
    }

    /// Takes what the source is not going to fill from the base.
    fn fill_from_base(&mut self, leaf: &mut Leaf) -> Result<(), StoreError> {
        if leaf.dirty == u16::MAX {
            return Ok(());
        }
        self.read_before(leaf)?;
        // A hash of damaged bytes would make the damage pass for the memory's content.
        if LeafHash::of(leaf.bytes(&self.before)) != leaf.hash_before {
            return Err(self.base_damaged(leaf));
        }
        leaf.bytes_mut(&mut self.content)
            .copy_from_slice(leaf.bytes(&self.before));
        Ok(())
    }

    fn read_before(&mut self, leaf: &mut Leaf) -> Result<(), StoreError> {
        if leaf.before_known {
            return Ok(());
        }
        let buffer = leaf.bytes_mut(&mut self.before);
        match self.pipeline.base {
            Some(base) => base.read_at(leaf_start(leaf.index), buffer)?,
            None => buffer.fill(0),
        }
        leaf.before_known = true;
        Ok(())
    }

    /// Reads the dirty stretches of the leaves, as few as possible at a time.
    fn read_source(&mut self, leaves: &[u32]) -> Result<(), StoreError> {
        let update = self.pipeline.update;
        let mut slot = 0;
        for run in leaves.chunk_by(|first, second| first + 1 == *second) {
            let start = leaf_start(run[0]);
            let end = start + (run.len() * LEAF_SIZE) as u64;
            let buffer = &mut self.content[slot * LEAF_SIZE..][..run.len() * LEAF_SIZE];
            let dirty = self.pipeline.update.dirty;
            let first = dirty.partition_point(|range| range.end <= start);
            for range in dirty[first..].iter().take_while(|range| range.start < end) {
                let (from, to) = (range.start.max(start), range.end.min(end));
                let target = &mut buffer[(from - start) as usize..(to - start) as usize];
                // The rest of the last page is zero, whatever the source thinks.
                let inside = update
                    .byte_len
                    .saturating_sub(from)
                    .min(target.len() as u64);
                let (inside, behind) = target.split_at_mut(inside as usize);
                let read = update.source.read_at(from, inside);
                read.map_err(|source| StoreError::Source {
                    offset: from,
                    source,
                })?;
                behind.fill(0);
            }
            slot += run.len();
        }
        Ok(())
    }

    /// Finds the pages of a leaf that a layer has to mention.
    fn compare(&self, leaf: &Leaf, entries: &mut Vec<Entry>) {
        let (content, before) = (leaf.bytes(&self.content), leaf.bytes(&self.before));
        for page in (0..PAGES_PER_LEAF).filter(|page| leaf.dirty & (1 << page) != 0) {
            let stored = leaf.stored & (1 << page) != 0;
            let range = page * PAGE_SIZE..(page + 1) * PAGE_SIZE;
            let bytes = &content[range.clone()];
            if leaf.before_known && *bytes == before[range] {
                continue;
            }
            let kind = match is_zero(bytes) {
                true if stored => EntryKind::Hole,
                true => continue,
                false => EntryKind::Pages,
            };
            entries.push(Entry {
                memory_offset: leaf_start(leaf.index) + (page * PAGE_SIZE) as u64,
                length: PAGE,
                kind,
            });
        }
    }

    /// Moves the pages that are to be written to the start of the buffer and tells how many bytes they have.
    fn gather(&mut self, leaves: &[u32], entries: &[Entry]) -> usize {
        let mut len = 0;
        let mut slot = 0;
        for entry in entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Pages)
        {
            let leaf = (entry.memory_offset / LEAF_SIZE as u64) as u32;
            while leaves[slot] != leaf {
                slot += 1;
            }
            let from = slot * LEAF_SIZE + (entry.memory_offset - leaf_start(leaf)) as usize;
            if from != len {
                self.content.copy_within(from..from + PAGE_SIZE, len);
            }
            len += PAGE_SIZE;
        }
        len
    }

    fn base_damaged(&self, leaf: &Leaf) -> StoreError {
        match self.pipeline.base {
            Some(base) => base.leaf_damaged(leaf.index),
            // Without a base a leaf that has changed holds a page that is not zero.
            None => unreachable!("a leaf of zeros has not changed"),
        }
    }
}

/// Joins the pages of entries into stretches.
fn merged(found: Changes) -> Changes {
    let mut entries = Vec::new();
    for entry in found.entries {
        push(&mut entries, entry);
    }
    Changes {
        entries,
        leaves: found.leaves,
    }
}

fn leaf_end(index: u32) -> u64 {
    leaf_start(index) + LEAF_SIZE as u64
}

/// Which pages of a leaf lie in any of the stretches, which are ascending.
fn mask(index: u32, stretches: impl Iterator<Item = Range<u64>>) -> u16 {
    let (start, end) = (leaf_start(index), leaf_end(index));
    let mut mask = 0;
    for range in stretches.take_while(|range| range.start < end) {
        let first = (range.start.max(start) - start) / PAGE;
        let last = (range.end.min(end) - start) / PAGE;
        const {
            assert!(
                PAGES_PER_LEAF == 16,
                "one bit of a u16 for each page of a leaf"
            )
        };
        for page in first..last {
            mask |= 1 << page;
        }
    }
    mask
}

impl StoredMemory {
    /// The error for a leaf that does not have the content that the hash tree names. It names the newest layer that
    /// speaks about the leaf, from which the leaf's hash comes.
    pub(super) fn leaf_damaged(&self, index: u32) -> StoreError {
        let speaks = |entry: &Entry| {
            entry.memory_offset < leaf_end(index) && entry.memory_end() > leaf_start(index)
        };
        let newest = self
            .layers()
            .iter()
            .rev()
            .find(|layer| layer.entries().iter().any(speaks));
        let source = Damage::Leaf {
            offset: leaf_start(index),
        };
        match newest.or(self.layers().last()) {
            Some(layer) => layer.damaged(source),
            None => unreachable!("a memory without layers is all zero"),
        }
    }
}
