//! Frames: the pieces that a stream is made of. `EXPORT.md` describes each field.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};

use zstd::bulk::{Compressor, Decompressor};

use super::error::{ExportError, ImportError, StreamDamage};
use crate::bytes::Writer;
use crate::memory_tree::LEAF_SIZE;

const MAGIC: [u8; 8] = *b"WSNAPEXP";
pub(super) const VERSION: u32 = 1;
/// A frame carries so many leaves of a memory, the last one of a memory perhaps fewer.
pub(super) const LEAVES_PER_FRAME: usize = 32;
/// What stands in front of the pages for each leaf: index, pages, hash.
pub(super) const LEAF_ENTRY_SIZE: usize = 4 + 2 + 32;
/// A data frame carries so many bytes, the last one of its item perhaps fewer.
pub(super) const DATA_SIZE: usize = LEAVES_PER_FRAME * LEAF_SIZE;
/// The content of a frame has at most so many bytes: what a full frame of leaves has. A reader allocates no more than
/// twice this for a frame, whatever the stream says.
const CONTENT_SIZE_MAX: usize = LEAVES_PER_FRAME * (LEAF_ENTRY_SIZE + LEAF_SIZE);
const HEADER_SIZE: usize = 10;
const CHECKSUM_SIZE: usize = 32;
const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Announces a module, whose bytes follow as data.
    Module = 1,
    /// Announces a memory, whose leaves follow.
    Memory = 2,
    /// Leaves of the memory announced before.
    Leaves = 3,
    /// Announces an image, whose manifest follows as data.
    Image = 4,
    /// A record.
    Record = 5,
    /// The name of a program.
    Name = 6,
    /// The last frame.
    End = 7,
    /// Bytes of the module or manifest announced before.
    Data = 8,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Module,
        Self::Memory,
        Self::Leaves,
        Self::Image,
        Self::Record,
        Self::Name,
        Self::End,
        Self::Data,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Makes frames out of content, on any number of threads at once.
pub(super) struct Encoder {
    level: i32,
    /// Idle contexts: making one costs more than compressing a small frame with it.
    idle: Mutex<Vec<Compressor<'static>>>,
}

impl Encoder {
    /// `level` is brought into the range that the library knows.
    pub fn new(level: i32) -> Self {
        let range = zstd::compression_level_range();
        Self {
            level: level.clamp(*range.start(), *range.end()),
            idle: Mutex::default(),
        }
    }

    /// All bytes of the frame that has this content.
    ///
    /// # Panics
    ///
    /// When there is more content than a frame takes.
    pub fn frame(&self, kind: Kind, content: &[u8]) -> Result<Vec<u8>, ExportError> {
        assert!(
            content.len() <= CONTENT_SIZE_MAX,
            "a frame has at most {CONTENT_SIZE_MAX} bytes"
        );
        let compressed = self.compress(content)?;
        let (coding, stored) = if compressed.len() < content.len() {
            (ZSTD, &compressed[..])
        } else {
            (RAW, content)
        };
        let mut writer = Writer::default();
        writer.u8(kind as u8);
        writer.u8(coding);
        // Both fit: they are at most CONTENT_SIZE_MAX.
        writer.u32(content.len() as u32);
        writer.u32(stored.len() as u32);
        writer.raw(stored);
        Ok(writer.into_bytes())
    }

    fn compress(&self, content: &[u8]) -> Result<Vec<u8>, ExportError> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut compressor = match idle {
            Some(compressor) => compressor,
            None => Compressor::new(self.level).map_err(ExportError::Compress)?,
        };
        let compressed = compressor
            .compress(content)
            .map_err(ExportError::Compress)?;
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(compressor);
        Ok(compressed)
    }
}

/// Writes a stream and computes the hash at its end.
pub(super) struct FrameWriter<W> {
    to: W,
    hasher: blake3::Hasher,
    written: u64,
}

impl<W: Write> FrameWriter<W> {
    /// Writes the start of a stream.
    pub fn start(to: W) -> Result<Self, ExportError> {
        let mut writer = Self {
            to,
            hasher: blake3::Hasher::new(),
            written: 0,
        };
        writer.frame(&MAGIC)?;
        writer.frame(&VERSION.to_le_bytes())?;
        Ok(writer)
    }

    /// Appends a frame that an [`Encoder`] has made.
    pub fn frame(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        self.to.write_all(bytes).map_err(ExportError::Write)
    }

    /// How many bytes have been written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes the hash of everything before it and returns the length of the stream in bytes.
    pub fn finish(mut self) -> Result<u64, ExportError> {
        let checksum = self.hasher.finalize();
        self.frame(checksum.as_bytes())?;
        self.to.flush().map_err(ExportError::Write)?;
        Ok(self.written)
    }
}

/// A frame as it was read: its lengths are within the limits, its content hasn't been looked at.
pub(super) struct Frame {
    /// Where it starts in the stream, in bytes.
    pub offset: u64,
    pub kind: Kind,
    coding: u8,
    content_len: usize,
    stored: Vec<u8>,
}

impl Frame {
    /// What is wrong with this frame, said with its place.
    pub fn damaged(&self, damage: impl Into<StreamDamage>) -> ImportError {
        damaged(self.offset, damage)
    }

    pub fn unexpected(&self, expected: &'static str) -> ImportError {
        self.damaged(StreamDamage::Kind {
            found: self.kind as u8,
            expected,
        })
    }

    /// How long the content is in bytes.
    pub fn content_len(&self) -> usize {
        self.content_len
    }

    /// The content, decompressed.
    pub fn content(&self) -> Result<Cow<'_, [u8]>, ImportError> {
        if self.coding == RAW {
            return Ok(Cow::Borrowed(&self.stored));
        }
        let mut content = Vec::with_capacity(self.content_len);
        // The library fills what the vector has room for and no more, so a bomb ends here.
        let decompressed = Decompressor::new().and_then(|mut decompressor| {
            decompressor.decompress_to_buffer(&self.stored, &mut content)
        });
        match decompressed {
            Ok(len) if len == self.content_len => Ok(Cow::Owned(content)),
            _ => Err(self.damaged(StreamDamage::Compression)),
        }
    }
}

pub(super) fn damaged(offset: u64, damage: impl Into<StreamDamage>) -> ImportError {
    ImportError::Damaged {
        offset,
        damage: damage.into(),
    }
}

/// Reads a stream, once and forwards, and computes the hash of what it has read.
pub(super) struct FrameReader<R> {
    from: R,
    hasher: blake3::Hasher,
    offset: u64,
}

impl<R: Read> FrameReader<R> {
    /// Reads and checks the start of a stream.
    pub fn start(from: R) -> Result<Self, ImportError> {
        let mut reader = Self {
            from,
            hasher: blake3::Hasher::new(),
            offset: 0,
        };
        let mut magic = [0; MAGIC.len()];
        reader.fill(&mut magic, "magic")?;
        if magic != MAGIC {
            return Err(damaged(0, StreamDamage::NotAnExport));
        }
        let mut version = [0; 4];
        reader.fill(&mut version, "format version")?;
        let found = u32::from_le_bytes(version);
        if found != VERSION {
            return Err(damaged(
                MAGIC.len() as u64,
                StreamDamage::Version {
                    found,
                    supported: VERSION,
                },
            ));
        }
        Ok(reader)
    }

    /// How many bytes have been read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn frame(&mut self) -> Result<Frame, ImportError> {
        let offset = self.offset;
        let mut header = [0; HEADER_SIZE];
        self.fill(&mut header, "head of a frame")?;
        let [kind, coding, c0, c1, c2, c3, s0, s1, s2, s3] = header;
        let content_len = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
        let stored_len = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        let Some(kind) = Kind::from_byte(kind) else {
            return Err(damaged(
                offset,
                StreamDamage::Kind {
                    found: kind,
                    expected: "a known kind",
                },
            ));
        };
        let fits = match coding {
            RAW => stored_len == content_len,
            ZSTD => stored_len < content_len,
            found => return Err(damaged(offset, StreamDamage::Coding { found })),
        };
        if !fits || content_len > CONTENT_SIZE_MAX {
            return Err(damaged(
                offset,
                StreamDamage::FrameLength {
                    decoded: content_len as u64,
                    stored: stored_len as u64,
                },
            ));
        }
        let mut stored = vec![0; stored_len];
        self.fill(&mut stored, "content of a frame")?;
        Ok(Frame {
            offset,
            kind,
            coding,
            content_len,
            stored,
        })
    }

    /// Reads what follows the last frame: the hash of everything before, and nothing behind it.
    pub fn finish(mut self) -> Result<u64, ImportError> {
        let offset = self.offset;
        let expected = self.hasher.finalize();
        let mut checksum = [0; CHECKSUM_SIZE];
        self.fill(&mut checksum, "hash at the end")?;
        if expected != checksum {
            return Err(damaged(offset, StreamDamage::Checksum));
        }
        let end = self.offset;
        let mut more = [0];
        loop {
            match self.from.read(&mut more) {
                Ok(0) => return Ok(end),
                Ok(_) => return Err(damaged(end, StreamDamage::TrailingBytes)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(source) => {
                    return Err(ImportError::Read {
                        offset: end,
                        source,
                    });
                }
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8], what: &'static str) -> Result<(), ImportError> {
        match self.from.read_exact(buffer) {
            Ok(()) => {
                self.hasher.update(buffer);
                self.offset += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(damaged(self.offset, StreamDamage::Truncated { what }))
            }
            Err(source) => Err(ImportError::Read {
                offset: self.offset,
                source,
            }),
        }
    }
}
