//! Page maps: which layers of a store hold a memory. `FORMAT.md` describes each field.
//!
//! A page map is not part of an image. Two stores can keep one memory in different layers; what the layers say is
//! checked against the memory's hash tree.

use crate::bytes::{Reader, Writer};
use crate::error::DecodeError;
use crate::id::LayerId;
use crate::manifest::MEMORY_LEN_MAX;

/// The unit in bytes in which stores keep memory: offsets and lengths of extents are multiples of it, on every host.
pub const PAGE_SIZE: usize = 4096;
/// A memory is kept in at most so many layers, so that a reader can keep all their files open.
pub const LAYERS_MAX: usize = 64;

const FORMAT: &str = "page map";
const MAGIC: [u8; 8] = *b"WSNAPMAP";
const VERSION: u32 = 1;
const CHECKSUM_SIZE: usize = 32;

/// The most extents that the memory of an image may have, so that mapping it takes few system calls and stays far
/// below the number of mappings that Linux allows a process: one for each 16 pages, but 512 at least and 16,384 at
/// most.
pub fn mappings_max(byte_len: u64) -> usize {
    // The upper bound fits any usize.
    (byte_len.div_ceil(PAGE_SIZE as u64) / 16).clamp(512, 16_384) as usize
}

/// A stretch of a memory, and where its bytes lie. All numbers are in bytes and multiples of [`PAGE_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where the stretch starts in the memory.
    pub memory_offset: u64,
    /// Which of the memory's layers holds it, as an index.
    pub layer: u32,
    /// Where it starts in the layer file.
    pub layer_offset: u64,
    /// How long it is. The last extent of a memory is padded with zeros to a multiple of [`PAGE_SIZE`].
    pub length: u64,
}

impl Extent {
    /// Where the stretch ends in the memory.
    pub fn memory_end(&self) -> u64 {
        self.memory_offset + self.length
    }

    /// Where the stretch ends in the layer file.
    pub fn layer_end(&self) -> u64 {
        self.layer_offset + self.length
    }
}

/// Which layers hold a memory. What none of them mentions is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageMap {
    /// The memory's length in bytes, at most [`MEMORY_LEN_MAX`].
    pub byte_len: u64,
    /// Oldest first: where several layers mention the same page, the last of them counts.
    pub layers: Vec<LayerId>,
}

impl PageMap {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(&MAGIC);
        writer.u32(VERSION);
        writer.u64(self.byte_len);
        writer.count(self.layers.len());
        self.layers.iter().for_each(|layer| writer.raw(&layer.0));
        let checksum = blake3::hash(writer.as_bytes());
        writer.raw(checksum.as_bytes());
        writer.into_bytes()
    }

    /// Reads a page map from all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.header(FORMAT, &MAGIC, VERSION)?;
        let content = check_checksum(bytes, reader.offset())?;

        let mut reader = Reader::new(content);
        reader.header(FORMAT, &MAGIC, VERSION)?;
        let byte_len = limited(&mut reader, "memory size", MEMORY_LEN_MAX)?;
        let offset = reader.offset();
        let layer_count = reader.count("layers", 32)?;
        if layer_count > LAYERS_MAX {
            return Err(DecodeError::Limit {
                what: "number of layers",
                offset,
                found: layer_count as u64,
                limit: LAYERS_MAX as u64,
            });
        }
        let layers = (0..layer_count)
            .map(|_| reader.array("layer id").map(LayerId))
            .collect::<Result<Vec<_>, _>>()?;
        reader.finish()?;
        Ok(Self { byte_len, layers })
    }
}

/// Splits the checksum off and checks it.
fn check_checksum(bytes: &[u8], header_len: usize) -> Result<&[u8], DecodeError> {
    match bytes.split_last_chunk::<CHECKSUM_SIZE>() {
        Some((content, checksum)) if content.len() >= header_len => {
            if blake3::hash(content) == *checksum {
                Ok(content)
            } else {
                Err(DecodeError::Checksum)
            }
        }
        _ => Err(DecodeError::Truncated {
            what: "checksum",
            offset: header_len,
        }),
    }
}

fn limited(reader: &mut Reader<'_>, what: &'static str, limit: u64) -> Result<u64, DecodeError> {
    let offset = reader.offset();
    let found = reader.u64(what)?;
    if found > limit {
        return Err(DecodeError::Limit {
            what,
            offset,
            found,
            limit,
        });
    }
    Ok(found)
}
