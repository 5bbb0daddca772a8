//! The bytes of a volume's files: which pages of its memory are free, and what is read and written.

use super::tree::{FILE_BYTES_MAX, File, PAGE_BYTES, Run, VolumeTree};
use crate::errno::Errno;
use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;

/// The memory that a volume keeps the content of its files in: zero at first, in pages of 4096 bytes.
pub trait VolumeMemory: Send {
    /// All bytes.
    fn bytes(&self) -> &[u8];

    /// All bytes, for writing.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Makes it `byte_len` bytes long, a multiple of 4096; new bytes are zero. It never shrinks.
    ///
    /// # Errors
    ///
    /// When there is no room for it.
    fn grow_to(&mut self, byte_len: u64) -> io::Result<()>;
}

/// How long a vector may become as the memory of a volume, in bytes: all of it is memory that the host really has to have,
/// and the guest decides how much.
const VEC_BYTES_MAX: u64 = 1 << 30;

impl VolumeMemory for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }

    fn grow_to(&mut self, byte_len: u64) -> io::Result<()> {
        if byte_len > VEC_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let byte_len = usize::try_from(byte_len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let more = byte_len.saturating_sub(self.len());
        self.try_reserve(more)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.resize(byte_len.max(self.len()), 0);
        Ok(())
    }
}

/// The memory grows by at least so many pages, so that it need not grow for each.
const GROWTH_PAGES_MIN: u64 = 16;
/// And by at most so many more than are needed.
const GROWTH_PAGES_MAX: u64 = 1024;

/// The content of a volume.
pub(crate) struct Content {
    /// None until whoever resumes the program has given it.
    pub memory: Option<Box<dyn VolumeMemory>>,
    /// How long the memory is for all that the volume knows, in pages.
    pub page_count: u64,
    /// Pages that no file has, by the first of neighbours; all of them are zero.
    free: BTreeMap<u64, u64>,
    /// How many pages files have.
    used: u64,
    /// How many they may have.
    pub limit: u64,
}

impl Content {
    /// The content of the files in `tree`; everything else is free.
    pub(crate) fn of(tree: &VolumeTree) -> Content {
        let mut content = Content {
            memory: None,
            page_count: tree.page_count,
            free: BTreeMap::new(),
            used: 0,
            limit: u64::MAX,
        };
        let mut runs: Vec<Run> = used_runs(tree).collect();
        runs.sort_unstable_by_key(|run| run.page);
        let mut free_from = 0;
        for run in runs {
            content.used += run.count;
            content.set_free(free_from..run.page);
            free_from = run.page + run.count;
        }
        content.set_free(free_from..tree.page_count);
        content
    }

    fn set_free(&mut self, pages: Range<u64>) {
        if pages.start < pages.end {
            self.free.insert(pages.start, pages.end - pages.start);
        }
    }

    fn bytes(&self) -> Result<&[u8], Errno> {
        self.memory
            .as_ref()
            .map_or(Err(Errno::Io), |memory| Ok(memory.bytes()))
    }

    fn bytes_mut(&mut self) -> Result<&mut [u8], Errno> {
        self.memory
            .as_mut()
            .map_or(Err(Errno::Io), |memory| Ok(memory.bytes_mut()))
    }

    /// Up to `wanted` successive pages, the lowest ones that are free.
    fn take(&mut self, wanted: u64) -> Result<Run, Errno> {
        let wanted = wanted.min(self.limit.saturating_sub(self.used));
        if wanted == 0 {
            return Err(Errno::Nospc);
        }
        if self.free.is_empty() {
            self.grow(wanted)?;
        }
        let (page, length) = self.free.pop_first().ok_or(Errno::Nospc)?;
        let count = length.min(wanted);
        self.set_free(page + count..page + length);
        self.used += count;
        Ok(Run { page, count })
    }

    /// Makes room for `wanted` pages, or for as many as there is room for.
    fn grow(&mut self, wanted: u64) -> Result<(), Errno> {
        let ahead = self.page_count.clamp(GROWTH_PAGES_MIN, GROWTH_PAGES_MAX);
        let mut more = wanted.max(ahead);
        loop {
            let page_count = self.page_count.checked_add(more).ok_or(Errno::Nospc)?;
            match self.extend(page_count) {
                Err(Errno::Nospc) if more > 1 => more /= 2,
                extended => return extended,
            }
        }
    }

    /// Makes the memory `page_count` pages long.
    fn extend(&mut self, page_count: u64) -> Result<(), Errno> {
        let memory = self.memory.as_mut().ok_or(Errno::Io)?;
        let byte_len = page_count.checked_mul(PAGE_BYTES).ok_or(Errno::Nospc)?;
        memory.grow_to(byte_len).map_err(|_| Errno::Nospc)?;
        let mut free = self.page_count..page_count;
        self.page_count = page_count;
        // What is free at the end so far and what comes behind it are one.
        if let Some((&before, &length)) = self.free.last_key_value()
            && before + length == free.start
        {
            free.start = before;
        }
        self.set_free(free);
        Ok(())
    }

    /// Takes pages back, and makes them zero again: so equal files are equal images, whatever was there before.
    fn give_back(&mut self, run: Run) -> Result<(), Errno> {
        let (start, end) = (run.page * PAGE_BYTES, (run.page + run.count) * PAGE_BYTES);
        let bytes = &mut self.bytes_mut()?[start as usize..end as usize];
        for page in bytes.chunks_exact_mut(PAGE_BYTES as usize) {
            // Zeros are written to no page that has never been: it would become one that is stored and takes memory.
            if page.iter().any(|byte| *byte != 0) {
                page.fill(0);
            }
        }
        self.used -= run.count;
        let mut free = run.page..run.page + run.count;
        if let Some((&before, &length)) = self.free.range(..free.start).next_back()
            && before + length == free.start
        {
            self.free.remove(&before);
            free.start = before;
        }
        if let Some(length) = self.free.remove(&free.end) {
            free.end += length;
        }
        self.set_free(free);
        Ok(())
    }

    /// Makes sure that there are pages for all bytes in `range` of `file`, before any is taken.
    pub(crate) fn make_room(&mut self, file: &File, range: Range<u64>) -> Result<(), Errno> {
        let end = range.end.div_ceil(PAGE_BYTES);
        let mut page = range.start / PAGE_BYTES;
        let mut missing = 0;
        while page < end {
            page += match file.run_at(page) {
                Some(run) => run.count,
                None => {
                    let hole = file.hole_at(page, end);
                    missing += hole;
                    hole
                }
            };
        }
        if missing > self.limit.saturating_sub(self.used) {
            return Err(Errno::Nospc);
        }
        let more = missing.saturating_sub(self.page_count - self.used);
        if more == 0 {
            return Ok(());
        }
        let page_count = self.page_count.checked_add(more);
        self.extend(page_count.ok_or(Errno::Nospc)?)
    }

    /// Gives pages to the bytes in `range` of `file`, as far as there are any, and says up to which byte.
    pub(crate) fn provide(&mut self, file: &mut File, range: Range<u64>) -> Result<u64, Errno> {
        let end = range.end.div_ceil(PAGE_BYTES);
        let mut page = range.start / PAGE_BYTES;
        while page < end {
            if let Some(run) = file.run_at(page) {
                page += run.count;
                continue;
            }
            let missing = file.hole_at(page, end);
            match self.take(missing) {
                Ok(run) => {
                    file.insert(page, run);
                    page += run.count;
                }
                Err(error) if page * PAGE_BYTES <= range.start => return Err(error),
                Err(_) => return Ok(page * PAGE_BYTES),
            }
        }
        Ok(range.end)
    }

    /// Changes the length of `file`.
    pub(crate) fn set_size(&mut self, file: &mut File, size: u64) -> Result<(), Errno> {
        if size > FILE_BYTES_MAX {
            return Err(Errno::Fbig);
        }
        if size < file.size {
            // Nothing may be changed unless all can be.
            self.bytes()?;
            for run in file.cut(size.div_ceil(PAGE_BYTES)) {
                self.give_back(run)?;
            }
            let inside = size % PAGE_BYTES;
            if inside > 0
                && let Some(run) = file.run_at(size / PAGE_BYTES)
            {
                let start = (run.page * PAGE_BYTES + inside) as usize;
                let end = ((run.page + 1) * PAGE_BYTES) as usize;
                self.bytes_mut()?[start..end].fill(0);
            }
        }
        file.size = size;
        Ok(())
    }

    /// Fills the buffers with bytes of `file` from `offset` on, up to its end, and says how many there were.
    pub(crate) fn read(
        &self,
        file: &File,
        offset: u64,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Result<usize, Errno> {
        let mut offset = offset;
        let mut done = 0;
        for buffer in buffers {
            let left = file.size.saturating_sub(offset);
            let length = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            self.read_piece(file, offset, &mut buffer[..length])?;
            offset += length as u64;
            done += length;
        }
        Ok(done)
    }

    fn read_piece(&self, file: &File, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        if buffer.is_empty() {
            return Ok(());
        }
        let bytes = self.bytes()?;
        let end = offset + buffer.len() as u64;
        let mut done = 0;
        for (range, place) in pieces(file, offset..end) {
            let length = (range.end - range.start) as usize;
            let target = &mut buffer[done..done + length];
            match place {
                Some(place) => target.copy_from_slice(&bytes[place as usize..][..length]),
                None => target.fill(0),
            }
            done += length;
        }
        Ok(())
    }

    /// Writes the buffers to `file` from `offset` on, and says how many bytes found room.
    pub(crate) fn write(
        &mut self,
        file: &mut File,
        offset: u64,
        buffers: &[IoSlice<'_>],
    ) -> Result<usize, Errno> {
        let wanted: u64 = buffers.iter().map(|buffer| buffer.len() as u64).sum();
        if wanted == 0 {
            return Ok(0);
        }
        let end = offset.saturating_add(wanted).min(FILE_BYTES_MAX);
        if offset >= end {
            return Err(Errno::Fbig);
        }
        let end = self.provide(file, offset..end)?;
        file.size = file.size.max(end);
        let bytes = self.bytes_mut()?;
        let mut position = offset;
        for buffer in buffers {
            let length = (end - position).min(buffer.len() as u64);
            let mut source = &buffer[..length as usize];
            for (range, place) in pieces(file, position..position + length) {
                let (now, later) = source.split_at((range.end - range.start) as usize);
                // Every page of the range has just been provided.
                let place = place.ok_or(Errno::Io)? as usize;
                bytes[place..place + now.len()].copy_from_slice(now);
                source = later;
            }
            position += length;
        }
        Ok((end - offset) as usize)
    }

    /// Takes all pages of a file that is no more.
    pub(crate) fn discard(&mut self, mut file: File) -> Result<(), Errno> {
        for run in file.cut(0) {
            self.give_back(run)?;
        }
        Ok(())
    }
}

/// All pages that files have.
pub(crate) fn used_runs(tree: &VolumeTree) -> impl Iterator<Item = Run> + '_ {
    let files = tree.inodes.keys().filter_map(|inode| tree.file(*inode));
    files.flat_map(|file| file.runs.values().copied())
}

/// The bytes in `range` of a file, piece by piece, with where each piece is in the content; a hole is nowhere.
fn pieces(file: &File, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Option<u64>)> + '_ {
    let mut offset = range.start;
    std::iter::from_fn(move || {
        if offset >= range.end {
            return None;
        }
        let (page, inside) = (offset / PAGE_BYTES, offset % PAGE_BYTES);
        let (pages, place) = match file.run_at(page) {
            Some(run) => (run.count, Some(run.page * PAGE_BYTES + inside)),
            None => (file.hole_at(page, range.end.div_ceil(PAGE_BYTES)), None),
        };
        let end = (page + pages) * PAGE_BYTES;
        let piece = offset..end.min(range.end);
        offset = piece.end;
        Some((piece, place))
    })
}
