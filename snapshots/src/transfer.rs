//! Images on their way to another machine: one stream that holds everything they need. `EXPORT.md` describes each byte.
//!
//! ```text
//! export   Store -> leaves that differ, checked -> frames, compressed on all cores -> Write
//! import   Read -> frames -> leaves, checked on all cores -> spool in tmp/ -> hash at the end -> Store
//! ```
//!
//! Neither side seeks, and neither holds more than some frames of a memory at a time, whatever its size. The receiver
//! changes nothing in the store before it has checked the stream to its last byte. It spools what it receives in a file
//! without a name, so that an import that ends early, however it ends, leaves nothing.

mod error;
mod export;
mod frame;
mod import;
mod leaves;
mod plan;
mod receive;
mod spool;

use std::collections::BTreeMap;
use std::io::{Read, Write};

use crate::id::ImageId;
use crate::store::Store;

pub use error::{ExportError, ImportError, StreamDamage};

/// The compression level that [`ExportOptions::default`] has: what zstd itself takes for the best bargain.
const LEVEL_DEFAULT: i32 = 3;

/// What an export holds, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// Whether the images that the given ones come from are exported too, with the records of all of them. Otherwise
    /// there are no records.
    pub ancestors: bool,
    /// The compression level of zstd: 1 (fast) to 22 (small), negative ones are faster still. Others count as the next
    /// one that exists.
    pub level: i32,
    /// Names of programs that the receiver may give to some of the exported images.
    pub names: BTreeMap<String, ImageId>,
}

impl Default for ExportOptions {
    /// No ancestors, level 3, no names.
    fn default() -> Self {
        Self {
            ancestors: false,
            level: LEVEL_DEFAULT,
            names: BTreeMap::new(),
        }
    }
}

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// All images in the stream, in its order.
    pub images: Vec<ImageId>,
    /// How many records the stream holds.
    pub records: u64,
    /// The length of everything in bytes before compression.
    pub content_bytes: u64,
    /// The length of the stream in bytes.
    pub stream_bytes: u64,
}

/// What an import accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// The most bytes of decompressed content. So much room is taken on the store's disk while the stream is read.
    pub content_bytes_max: u64,
}

impl Default for ImportOptions {
    /// No limit but the disk's.
    fn default() -> Self {
        Self {
            content_bytes_max: u64::MAX,
        }
    }
}

/// What was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The images that the export was made for, by ascending id. All of them are in the store now.
    pub images: Vec<ImageId>,
    /// Those images of the stream that the store did not have before, ancestors included, in the order of the stream.
    pub new_images: Vec<ImageId>,
    /// How many records the store did not have before.
    pub new_records: u64,
    /// The names that the sender proposes. They have not been given: that is up to the caller.
    pub names: BTreeMap<String, ImageId>,
    /// The length of the stream in bytes.
    pub stream_bytes: u64,
    /// How many bytes the import added to the store.
    pub added_bytes: u64,
}

/// How far an export or import has come. Both numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The bytes of the stream that have been written or read.
    pub stream_bytes: u64,
    /// The bytes that these are before compression.
    pub content_bytes: u64,
}

impl Store {
    /// Writes images with their modules and memories into one stream, compressed on all cores. Each byte is checked
    /// on its way out. The images are in use until the end, so nobody deletes them; with their ancestors nobody deletes
    /// anything.
    ///
    /// The same images give the same stream, wherever they are exported and however a store keeps them.
    ///
    /// # Errors
    ///
    /// [`ExportError::Store`] when one of the images is missing or damaged, [`ExportError::Write`] when `to` fails.
    pub fn export(
        &self,
        ids: &[ImageId],
        options: &ExportOptions,
        to: impl Write,
        mut progress: impl FnMut(Progress),
    ) -> Result<Exported, ExportError> {
        export::export(self, ids, options, to, &mut progress)
    }

    /// Reads a stream that [`Store::export`] has written, up to its end, and stores all that it holds and this store
    /// does not. Nothing is published before every byte has been checked; everything is durable on return.
    ///
    /// `from` is read in small pieces as well as large ones: files and pipes should come as a [`std::io::BufReader`].
    ///
    /// # Errors
    ///
    /// [`ImportError::Damaged`] when the stream is not a complete and intact export, and others. After all of them but
    /// [`ImportError::Store`] the store is as it was.
    pub fn import(
        &self,
        from: impl Read,
        options: &ImportOptions,
        mut progress: impl FnMut(Progress),
    ) -> Result<Imported, ImportError> {
        let shipment = receive::receive(self, from, options, &mut progress)?;
        import::publish(self, &shipment)
    }
}
