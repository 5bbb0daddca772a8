//! Layer files: pages of memory, laid out to be mapped. `FORMAT.md` describes each field.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::files::{ResultExt, Staged};
use crate::bytes::{Reader, Writer};
use crate::error::{Damage, DecodeError, StoreError};
use crate::id::{LayerId, MemoryHash};
use crate::page_map::{Extent, PAGE_SIZE};

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
}

impl LayerId {
    /// The name of the layer that holds these stretches of a memory. Equal names mean equal bytes, since the
    /// memory's name stands for its content, without another pass of hashing over them.
    pub(crate) fn of(memory: MemoryHash, extents: &[Extent]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&KEY);
        hasher.update(&memory.0);
        for extent in extents {
            hasher.update(&extent.memory_offset.to_le_bytes());
            hasher.update(&extent.length.to_le_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl Layer {
    /// Checks that an open file is the layer of that name and has the size that it states. The pages themselves are
    /// not read.
    pub(super) fn open(id: LayerId, path: PathBuf, file: File) -> Result<Self, StoreError> {
        let byte_len = file.metadata().during("read the size of", &path)?.len();
        let mut header = [0; HEADER_SIZE];
        let check = match file.read_exact_at(&mut header, 0) {
            Ok(()) => check_header(&header, id, byte_len),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Damage::Size {
                expected: HEADER_SIZE as u64,
                found: byte_len,
            }),
            Err(error) => return Err(error).during("read", &path),
        };
        match check {
            Ok(()) => Ok(Self {
                id,
                path,
                file,
                byte_len,
            }),
            Err(source) => Err(StoreError::Damaged {
                what: "layer",
                path,
                source,
            }),
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

    pub(super) fn damaged(&self, source: Damage) -> StoreError {
        StoreError::Damaged {
            what: "layer",
            path: self.path.clone(),
            source,
        }
    }
}

/// Writes the layer that holds `extents` of a memory, in this order, each where it says.
pub(super) fn write(
    staged: Staged,
    id: LayerId,
    memory: &[u8],
    extents: &[Extent],
) -> Result<(), StoreError> {
    let end = extents.last().map_or(HEADER_SIZE as u64, Extent::layer_end);
    staged.write_at(&header(id, end), 0)?;
    for extent in extents {
        // Extents lie inside the memory, whose length is a usize; only the last one can be cut short by its end.
        let end = memory.len().min(extent.memory_end() as usize);
        staged.write_at(
            &memory[extent.memory_offset as usize..end],
            extent.layer_offset,
        )?;
    }
    staged
        .file()
        .set_len(end)
        .during("write", staged.target())?;
    staged.publish()
}

fn header(id: LayerId, byte_len: u64) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.raw(&MAGIC);
    writer.u32(VERSION);
    writer.raw(&id.0);
    writer.u64(byte_len);
    let mut header = writer.into_bytes();
    header.resize(HEADER_SIZE, 0);
    header
}

fn check_header(bytes: &[u8], id: LayerId, byte_len: u64) -> Result<(), Damage> {
    let mut reader = Reader::new(bytes);
    reader.header("layer", &MAGIC, VERSION)?;
    let found = LayerId(reader.array("layer id")?);
    if found != id {
        return Err(Damage::OtherLayer { found });
    }
    let expected = reader.u64("layer size")?;
    if expected != byte_len || !byte_len.is_multiple_of(PAGE_SIZE as u64) {
        return Err(Damage::Size {
            expected,
            found: byte_len,
        });
    }
    let offset = reader.offset();
    if bytes[offset..].iter().any(|byte| *byte != 0) {
        return Err(Damage::Decode(DecodeError::TrailingBytes { offset }));
    }
    Ok(())
}
