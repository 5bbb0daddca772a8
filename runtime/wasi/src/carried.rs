//! Files without a name: their content travels in the saved state.
//!
//! A file that was unlinked while the program had it open, as databases and `tmpfile` do it, can be opened by nobody. So
//! its bytes are saved, and whoever resumes gets a new file without a name that holds them. Descriptors of one file share
//! one content before and after.

use crate::descriptors::Access;
use crate::save::modified_ns;
use cap_std::fs::{Dir, Metadata, MetadataExt as _};
use rustix::fs::{
    MemfdFlags, Mode, OFlags, SeekFrom, Timespec, Timestamps, UTIME_OMIT, memfd_create, openat,
    seek,
};
use rustix::io::{Errno, pread, retry_on_intr};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Error, ErrorKind};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;

/// How many bytes other than holes and zeros all unlinked files of a program may have together, to be saved: 64 MiB.
///
/// They are stored with every snapshot, and read while the program stands still.
pub const CARRIED_BYTES_MAX: u64 = 64 << 20;

/// How much of a file is read in search of bytes that are not zero, where the file system does not tell holes.
const READ_BYTES_MAX: u64 = 16 * CARRIED_BYTES_MAX;

/// Content is kept in blocks of this size, those that are all zero left out. So equal files have equal content, whatever
/// their file systems store as holes.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// How much is read at once.
const CHUNK_BYTES: u64 = 64 * BLOCK_BYTES;

/// The content of a file that has no name any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedFile {
    /// The file's length.
    pub size_bytes: u64,
    /// The modification time in nanoseconds since 1970; none in the state of a deterministic program.
    pub modified_ns: Option<i64>,
    /// What is in it, by ascending offset. Everywhere else it is zero.
    pub extents: Vec<CarriedExtent>,
}

/// A run of blocks of 4096 bytes, each of which has a byte other than zero. The last one of a file may be shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedExtent {
    /// Where it begins, a multiple of 4096.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl CarriedExtent {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.bytes.len() as u64)
    }

    fn blocks(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(BLOCK_BYTES as usize)
    }
}

impl CarriedFile {
    /// Whether this is what saving some file gives: there is one form for every content.
    pub(crate) fn is_canonical(&self) -> bool {
        let mut free = 0;
        self.extents.iter().all(|extent| {
            let aligned = extent.offset.is_multiple_of(BLOCK_BYTES);
            let (first, end) = (extent.offset, extent.end());
            let whole = end == self.size_bytes || end.is_multiple_of(BLOCK_BYTES);
            let apart = free == 0 || first > free;
            free = end;
            let fits = first < end && end <= self.size_bytes;
            aligned && whole && apart && fits && extent.blocks().all(is_not_zero)
        })
    }

    fn add(&mut self, offset: u64, block: &[u8]) {
        match self.extents.last_mut() {
            Some(last) if last.end() == offset => last.bytes.extend_from_slice(block),
            _ => self.extents.push(CarriedExtent {
                offset,
                bytes: block.to_vec(),
            }),
        }
    }
}

fn is_not_zero(block: &[u8]) -> bool {
    block.iter().any(|&byte| byte != 0)
}

/// Why a file's content was not taken along.
pub(crate) enum CarryError {
    TooLarge,
    Io(Error),
}

impl<E: Into<Error>> From<E> for CarryError {
    fn from(error: E) -> CarryError {
        CarryError::Io(error.into())
    }
}

/// Collects the contents of unlinked files.
pub(crate) struct Collector {
    pub contents: Vec<CarriedFile>,
    by_file: HashMap<(u64, u64), u32>,
    left_bytes: u64,
    deterministic: bool,
}

impl Collector {
    pub(crate) fn new(deterministic: bool) -> Collector {
        Collector {
            contents: Vec::new(),
            by_file: HashMap::new(),
            left_bytes: CARRIED_BYTES_MAX,
            deterministic,
        }
    }

    /// The number of the content of `file`, which is read unless another descriptor leads to the same file.
    pub(crate) fn content_of(
        &mut self,
        file: BorrowedFd<'_>,
        access: Access,
        metadata: &Metadata,
    ) -> Result<u32, CarryError> {
        let key = (metadata.dev(), metadata.ino());
        if let Some(&index) = self.by_file.get(&key) {
            return Ok(index);
        }
        let modified_ns = (!self.deterministic).then(|| modified_ns(metadata));
        let content = if access.read {
            self.read(file, metadata.len(), modified_ns)?
        } else {
            let reader = open_again(
                file,
                Access {
                    read: true,
                    write: false,
                },
            )?;
            self.read(reader.as_fd(), metadata.len(), modified_ns)?
        };
        let index = u32::try_from(self.contents.len()).map_err(|_| CarryError::TooLarge)?;
        self.contents.push(content);
        self.by_file.insert(key, index);
        Ok(index)
    }

    fn read(
        &mut self,
        file: BorrowedFd<'_>,
        size_bytes: u64,
        modified_ns: Option<i64>,
    ) -> Result<CarriedFile, CarryError> {
        let mut content = CarriedFile {
            size_bytes,
            modified_ns,
            extents: Vec::new(),
        };
        let mut chunk = vec![0; CHUNK_BYTES as usize];
        let (mut offset, mut read_bytes) = (0, 0);
        while let Some((start, end)) = next_data(file, offset, size_bytes)? {
            offset = start;
            while offset < end {
                // At most the size of the chunk.
                let length = (end - offset).min(CHUNK_BYTES);
                read_bytes += length;
                if read_bytes > READ_BYTES_MAX {
                    return Err(CarryError::TooLarge);
                }
                let part = &mut chunk[..length as usize];
                read_full(file, part, offset)?;
                for (at, block) in (offset..)
                    .step_by(BLOCK_BYTES as usize)
                    .zip(part.chunks(BLOCK_BYTES as usize))
                {
                    if is_not_zero(block) {
                        let left = self.left_bytes.checked_sub(block.len() as u64);
                        self.left_bytes = left.ok_or(CarryError::TooLarge)?;
                        content.add(at, block);
                    }
                }
                offset += length;
            }
        }
        Ok(content)
    }
}

/// The next stretch of whole blocks, from `offset` on and before `size`, that are not a hole. The host's own offset of
/// the descriptor means nothing.
fn next_data(file: BorrowedFd<'_>, offset: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if offset >= size {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        // A file system that does not know of holes.
        Err(Errno::INVAL) => return Ok(Some((offset, size))),
        Err(error) => return Err(error.into()),
    };
    let end = match seek(file, SeekFrom::Hole(start)) {
        Ok(end) => end,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = end.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(size);
    let (start, end) = (start - start % BLOCK_BYTES, end.min(size));
    Ok((start < end).then_some((start, end)))
}

/// Fills `buffer`; what lies behind the end of a file that shrinks meanwhile is zero.
fn read_full(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        let at = offset + filled as u64;
        let count = retry_on_intr(|| pread(file, &mut buffer[filled..], at))?;
        if count == 0 {
            buffer[filled..].fill(0);
            break;
        }
        filled += count;
    }
    Ok(())
}

/// Opens the file of a descriptor anew, for another kind of access. It works without a name.
fn open_again(file: BorrowedFd<'_>, access: Access) -> io::Result<File> {
    File::options()
        .read(access.read)
        .write(access.write)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Makes files out of contents, one for each, when the first descriptor asks for it.
pub(crate) struct Revived<'a> {
    contents: &'a [CarriedFile],
    files: HashMap<u32, File>,
}

impl<'a> Revived<'a> {
    pub(crate) fn new(contents: &'a [CarriedFile]) -> Revived<'a> {
        Revived {
            contents,
            files: HashMap::new(),
        }
    }

    /// A descriptor of the file with that content: where it was, in `dir`, if nameless files can be made there, and in
    /// memory otherwise.
    pub(crate) fn open(
        &mut self,
        index: u32,
        access: Access,
        dir: Option<&Dir>,
    ) -> io::Result<File> {
        if let Some(file) = self.files.get(&index) {
            return open_again(file.as_fd(), access);
        }
        let content = usize::try_from(index).ok();
        let content = content.and_then(|content| self.contents.get(content));
        let content = content.ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        let file = nameless_file(dir)?;
        fill(&file, content)?;
        let opened = open_again(file.as_fd(), access);
        self.files.insert(index, file);
        opened
    }
}

fn nameless_file(dir: Option<&Dir>) -> io::Result<File> {
    if let Some(dir) = dir {
        // EXCL: nobody can give it a name.
        let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(file) = openat(dir, ".", flags, Mode::RUSR | Mode::WUSR) {
            return Ok(file.into());
        }
    }
    Ok(memfd_create("wsnap-unlinked", MemfdFlags::CLOEXEC)?.into())
}

fn fill(file: &File, content: &CarriedFile) -> io::Result<()> {
    file.set_len(content.size_bytes)?;
    for extent in &content.extents {
        file.write_all_at(&extent.bytes, extent.offset)?;
    }
    if let Some(modified_ns) = content.modified_ns {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: modified_ns.div_euclid(1_000_000_000),
                tv_nsec: modified_ns.rem_euclid(1_000_000_000),
            },
        };
        rustix::fs::futimens(file, &times)?;
    }
    Ok(())
}

/// Opens an empty directory that has no name. It has one for a moment.
pub(crate) fn nameless_directory(dir: &Dir) -> io::Result<Dir> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let name = format!(".wsnap-removed-{:016x}", u64::from_le_bytes(random));
    dir.create_dir(&name)?;
    let opened = dir.open_dir(&name);
    let removed = dir.remove_dir(&name);
    let opened = opened?;
    removed?;
    Ok(opened)
}
