//! Layer files: pages of memory, laid out to be mapped, and an index of them. `FORMAT.md` describes each field.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::files::{ResultExt, Staged};
use super::{CONTENT_LEN_MAX, check_size};
use crate::bytes::{Reader, Writer};
use crate::error::{Damage, DecodeError, StoreError};
use crate::id::{LayerId, LeafHash, MemoryHash};
use crate::layer_index::{Entry, LayerIndex, page_bytes};
use crate::page_map::PAGE_SIZE;

const MAGIC: [u8; 8] = *b"WSNAPLYR";
const VERSION: u32 = 1;
/// The header fills a page, so that the pages behind it are aligned in the file.
const HEADER_SIZE: usize = PAGE_SIZE;
const KEY: [u8; 32] = *b"wsnap layer\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// An open layer file. It is never modified and never shrinks, so it can be mapped as long as the file is kept open or
/// mapped, even when the store deletes it.
#[derive(Debug)]
pub struct Layer {
    id: LayerId,
    path: PathBuf,
    file: File,
    /// The real size of the file in bytes.
    byte_len: u64,
    /// Invariant: its pages lie inside the file.
    entries: Vec<Entry>,
}

impl LayerId {
    /// The name of the layer with this index. Equal names mean equal bytes, since the memory's name stands for its
    /// content, without another pass of hashing over the pages.
    fn of(memory: MemoryHash, index: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&KEY);
        hasher.update(&memory.0);
        hasher.update(index);
        Self(*hasher.finalize().as_bytes())
    }
}

impl Layer {
    /// Checks that an open file is the layer of that name and has the size that it states, and reads its index, whose
    /// leaf hashes are the second part of the answer. The pages themselves are not read.
    pub(super) fn open(
        id: LayerId,
        path: PathBuf,
        file: File,
    ) -> Result<(Self, Vec<(u32, LeafHash)>), StoreError> {
        let byte_len = file.metadata().during("read the size of", &path)?.len();
        match read_index(&file, id, byte_len) {
            Ok(Ok(LayerIndex { entries, leaves })) => {
                let layer = Self {
                    id,
                    path,
                    file,
                    byte_len,
                    entries,
                };
                Ok((layer, leaves))
            }
            Ok(Err(source)) => Err(StoreError::Damaged {
                what: "layer",
                path,
                source,
            }),
            Err(error) => Err(error).during("read", &path),
        }
    }

    /// The layer's name.
    pub fn id(&self) -> LayerId {
        self.id
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for reading and mapping.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The size of the file in bytes.
    pub fn byte_len(&self) -> u64 {
        self.byte_len
    }

    /// What the layer speaks about.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many bytes of pages it holds, whether an image shows them or not.
    pub fn page_bytes(&self) -> u64 {
        page_bytes(&self.entries)
    }

    pub(super) fn damaged(&self, source: Damage) -> StoreError {
        StoreError::Damaged {
            what: "layer",
            path: self.path.clone(),
            source,
        }
    }
}

/// Completes a layer file whose pages have been written, and returns its name and its size in bytes.
pub(super) fn complete(
    staged: &Staged,
    memory: MemoryHash,
    index: &LayerIndex,
) -> Result<(LayerId, u64), StoreError> {
    let page_bytes = index.page_bytes();
    let index = index.encode();
    let size = index.len() as u64;
    check_size("index of a layer", &index, CONTENT_LEN_MAX)?;
    let id = LayerId::of(memory, &index);
    staged.write_at(&index, HEADER_SIZE as u64 + page_bytes)?;
    let header = Header {
        id,
        memory,
        page_bytes,
        index_len: size,
    };
    staged.write_at(&header.encode(), 0)?;
    Ok((id, HEADER_SIZE as u64 + page_bytes + size))
}

struct Header {
    id: LayerId,
    /// The memory that the layer was written for.
    memory: MemoryHash,
    page_bytes: u64,
    index_len: u64,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(&MAGIC);
        writer.u32(VERSION);
        writer.raw(&self.id.0);
        writer.raw(&self.memory.0);
        writer.u64(self.page_bytes);
        writer.u64(self.index_len);
        let mut header = writer.into_bytes();
        header.resize(HEADER_SIZE, 0);
        header
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.header("layer", &MAGIC, VERSION)?;
        let header = Self {
            id: LayerId(reader.array("layer id")?),
            memory: MemoryHash(reader.array("memory")?),
            page_bytes: reader.u64("size of the pages")?,
            index_len: reader.u64("size of the index")?,
        };
        let offset = reader.offset();
        match bytes[offset..].iter().any(|byte| *byte != 0) {
            true => Err(DecodeError::TrailingBytes { offset }),
            false => Ok(header),
        }
    }
}

/// Reads header and index of a file of `byte_len` bytes. The outer error is the system's.
fn read_index(file: &File, id: LayerId, byte_len: u64) -> io::Result<Result<LayerIndex, Damage>> {
    let too_short = |expected| Damage::Size {
        expected,
        found: byte_len,
    };
    let mut bytes = [0; HEADER_SIZE];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Err(too_short(HEADER_SIZE as u64)));
        }
        read => read?,
    }
    let header = match check_header(&bytes, id, byte_len) {
        Ok(header) => header,
        Err(damage) => return Ok(Err(damage)),
    };
    // Bounded by the real size of the file and by the limit for an index.
    let mut index = vec![0; header.index_len as usize];
    match file.read_exact_at(&mut index, byte_len - header.index_len) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Err(too_short(byte_len)));
        }
        read => read?,
    }
    Ok(check_index(&header, &index, byte_len))
}

fn check_header(bytes: &[u8], id: LayerId, byte_len: u64) -> Result<Header, Damage> {
    let header = Header::decode(bytes)?;
    if header.id != id {
        return Err(Damage::OtherLayer { found: header.id });
    }
    let expected = (HEADER_SIZE as u64)
        .saturating_add(header.page_bytes)
        .saturating_add(header.index_len);
    if expected != byte_len {
        return Err(Damage::Size {
            expected,
            found: byte_len,
        });
    }
    if header.index_len > CONTENT_LEN_MAX {
        return Err(Damage::TooLarge {
            limit: CONTENT_LEN_MAX,
            found: header.index_len,
        });
    }
    Ok(header)
}

fn check_index(header: &Header, bytes: &[u8], byte_len: u64) -> Result<LayerIndex, Damage> {
    let found = LayerId::of(header.memory, bytes);
    if found != header.id {
        return Err(Damage::Hash {
            found: found.to_string(),
        });
    }
    let index = LayerIndex::decode(bytes)?;
    if index.page_bytes() != header.page_bytes {
        return Err(Damage::Size {
            expected: HEADER_SIZE as u64 + index.page_bytes() + header.index_len,
            found: byte_len,
        });
    }
    Ok(index)
}
