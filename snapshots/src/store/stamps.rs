//! Stamps: which layer files and modules need not be read again to know that they are intact.
//!
//! A stamp says that a file's bytes were verified, or written and synced, while it was the one that it still is:
//! same inode, size and times. The system changes the time of a file's last change (`ctime`) whenever anything about the
//! file changes, and nobody can set it. What a stamp cannot see is a disk that returns other bytes than were written;
//! [`StoredImage::verify`] reads everything for that reason.
//!
//! Stamps are a cache. Losing them costs the time of verifying again, so nothing about them is ever synced, and whatever
//! goes wrong while one is written is no reason to fail.

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::files::{self, ResultExt, Staged};
use super::{CONTENT_LEN_MAX, Layer, STAMPS, Store, StoredImage, StoredMemory};
use crate::bytes::Writer;
use crate::error::StoreError;
use crate::id::{LayerId, ModuleHash};
use crate::layer_index::touched_leaves;
use crate::page_map::Extent;

/// A stamp has so many bytes, the last 32 of which are the BLAKE3 hash of those before.
const STAMP_SIZE: usize = 128;
const CHECKSUM_SIZE: usize = 32;
const KEY: [u8; 32] = *b"wsnap stamp scope\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// The scope of a stamp for all pages of a layer.
const ALL: [u8; 32] = [0; 32];
/// The scope of a stamp for a module, whose hash is in the place of a layer's.
const MODULE: [u8; 32] = *b"wsnap stamp of a module\0\0\0\0\0\0\0\0\0";

/// What may have stamps.
pub(super) struct Live<'a> {
    pub layers: &'a HashSet<LayerId>,
    pub modules: &'a HashSet<ModuleHash>,
}

/// Stamps of a store, as they were when they were read.
struct Stamps {
    known: HashSet<[u8; STAMP_SIZE]>,
}

impl Stamps {
    /// Stamps that are torn or damaged are never asked for, since a stamp is looked up as a whole.
    fn parse(bytes: &[u8], is_wanted: impl Fn(&[u8; STAMP_SIZE]) -> bool) -> Self {
        let (stamps, _torn) = bytes.as_chunks();
        let wanted = stamps.iter().filter(|stamp| is_wanted(stamp));
        Self {
            known: wanted.copied().collect(),
        }
    }

    /// Whether the part of a layer that a memory shows is known to be intact.
    fn cover(&self, layer: &Layer, scope: [u8; 32]) -> Result<bool, StoreError> {
        let metadata = metadata(layer)?;
        Ok([ALL, scope]
            .into_iter()
            .any(|scope| self.known.contains(&stamp(&layer.id().0, scope, &metadata))))
    }
}

fn metadata(layer: &Layer) -> Result<Metadata, StoreError> {
    let metadata = layer.file().metadata();
    metadata.during("read the time of", layer.path())
}

/// The stamp of a file that is named by this hash.
fn stamp(name: &[u8; 32], scope: [u8; 32], metadata: &Metadata) -> [u8; STAMP_SIZE] {
    // Nanoseconds since 1970 need all 64 bits only after the year 2262; what is cut off then still tells times apart.
    let time = |seconds: i64, nanoseconds: i64| {
        seconds
            .wrapping_mul(1_000_000_000)
            .wrapping_add(nanoseconds)
            .cast_unsigned()
    };
    let mut writer = Writer::default();
    writer.raw(name);
    writer.raw(&scope);
    writer.u64(metadata.ino());
    writer.u64(metadata.size());
    writer.u64(time(metadata.mtime(), metadata.mtime_nsec()));
    writer.u64(time(metadata.ctime(), metadata.ctime_nsec()));
    let checksum = blake3::hash(writer.as_bytes());
    writer.raw(checksum.as_bytes());
    let mut stamp = [0; STAMP_SIZE];
    stamp.copy_from_slice(writer.as_bytes());
    stamp
}

/// What a memory shows of a layer: [`ALL`], or a hash that stands for the stretches.
fn scope(memory: &StoredMemory, number: usize, layer: &Layer) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(&KEY);
    let mut shown = 0;
    for extent in extents_in(memory, number) {
        hasher.update(&extent.layer_offset.to_le_bytes());
        hasher.update(&extent.length.to_le_bytes());
        shown += extent.length;
    }
    match shown == layer.page_bytes() {
        true => ALL,
        false => *hasher.finalize().as_bytes(),
    }
}

fn extents_in(memory: &StoredMemory, number: usize) -> impl Iterator<Item = &Extent> {
    let extents = memory.extents().iter();
    extents.filter(move |extent| extent.layer as usize == number)
}

impl Store {
    /// Verifies what no stamp says to be intact, so that usually nothing is read, and stamps it. `progress` hears, from
    /// any thread, how many bytes have been checked since it was called the last time.
    ///
    /// # Errors
    ///
    /// As [`StoredImage::verify`].
    pub fn verify_unverified(
        &self,
        image: &StoredImage,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StoreError> {
        // A store has stamps of all its layers, an image needs those of a few: sorting out the others costs little.
        let layers = image.memories().iter().flat_map(StoredMemory::layers);
        let mut wanted: Vec<[u8; 32]> = layers.map(|layer| layer.id().0).collect();
        wanted.sort_unstable();
        let stamps = self.read_stamps(|stamp| {
            let found = wanted.binary_search_by(|layer| layer[..].cmp(&stamp[..layer.len()]));
            found.is_ok()
        })?;
        let mut new_stamps = Vec::new();
        for (index, memory) in image.distinct_memories() {
            let mut unverified = vec![false; memory.layers().len()];
            let mut before = Vec::new();
            for (number, layer) in memory.layers().iter().enumerate() {
                let scope = scope(memory, number, layer);
                unverified[number] = !stamps.cover(layer, scope)?;
                if unverified[number] {
                    before.push((layer, scope, stamp(&layer.id().0, scope, &metadata(layer)?)));
                }
            }
            let extents = memory.extents().iter();
            let stretches = extents
                .filter(|extent| unverified[extent.layer as usize])
                .map(|extent| (extent.memory_offset, extent.memory_end()));
            let leaves: Vec<u32> = touched_leaves(stretches)
                .flat_map(|(first, last)| first..=last)
                .collect();
            image.verify_leaves(index, &leaves, progress)?;
            for (layer, scope, before) in before {
                // Not if the file has changed while it was read.
                if stamp(&layer.id().0, scope, &metadata(layer)?) == before {
                    new_stamps.push(before);
                }
            }
        }
        self.append_stamps(&new_stamps);
        Ok(())
    }

    /// Has a module verified unless a stamp says that its file is intact, and stamps it.
    ///
    /// # Errors
    ///
    /// Those of `verify`; [`StoreError::Io`].
    pub(super) fn verify_unverified_module(
        &self,
        hash: ModuleHash,
        file: &File,
        path: &Path,
        verify: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let current = || {
            let metadata = file.metadata().during("read the time of", path)?;
            Ok(stamp(&hash.0, MODULE, &metadata))
        };
        let before = current()?;
        if self.read_stamps(|stamp| *stamp == before)?.known.is_empty() {
            verify()?;
            // Not if the file has changed while it was read.
            if current()? == before {
                self.append_stamps(&[before]);
            }
        }
        Ok(())
    }

    /// Stamps the layers that have just been written and synced.
    pub(super) fn stamp_written(&self, image: &StoredImage, written: &[LayerId]) {
        let layers = image.memories().iter().flat_map(StoredMemory::layers);
        let stamps: Vec<_> = layers
            .filter(|layer| written.contains(&layer.id()))
            .filter_map(|layer| Some(stamp(&layer.id().0, ALL, &metadata(layer).ok()?)))
            .collect();
        self.append_stamps(&stamps);
    }

    fn read_stamps(
        &self,
        is_wanted: impl Fn(&[u8; STAMP_SIZE]) -> bool,
    ) -> Result<Stamps, StoreError> {
        let path = self.root.join(STAMPS);
        match files::read_if_exists(&path, CONTENT_LEN_MAX, "stamps") {
            // A file of absurd size is as good as none.
            Err(StoreError::Damaged { .. }) | Ok(None) => Ok(Stamps::parse(&[], is_wanted)),
            Ok(Some(bytes)) => Ok(Stamps::parse(&bytes, is_wanted)),
            Err(error) => Err(error),
        }
    }

    /// Adds stamps. A failure costs nothing but time later on: a store that cannot be written to is read all the same.
    fn append_stamps(&self, stamps: &[[u8; STAMP_SIZE]]) {
        if !stamps.is_empty() {
            let lock = self.lock_shared();
            let _ = lock.and_then(|_lock| self.root.append(&self.root.join(STAMPS), stamps));
        }
    }

    /// Drops the stamps of all files but those of what is live as they are now. Needs the exclusive lock.
    pub(super) fn compact_stamps(&self, live: &Live<'_>) -> Result<(), StoreError> {
        let path = self.root.join(STAMPS);
        let stamps = self.read_stamps(|_| true)?.known;
        let mut kept: Vec<u8> = Vec::new();
        for stamp in &stamps {
            if self.is_live(stamp, live)? {
                kept.extend(stamp);
            }
        }
        let len = files::size_if_exists(&path)?;
        if len.is_none_or(|len| len == kept.len() as u64) {
            return Ok(());
        }
        let staged = Staged::text(&self.root, path)?;
        staged.write_at(&kept, 0)?;
        staged.rename()
    }

    fn is_live(&self, stamp: &[u8; STAMP_SIZE], live: &Live<'_>) -> Result<bool, StoreError> {
        let (content, checksum) = stamp.split_at(STAMP_SIZE - CHECKSUM_SIZE);
        let mut fields = crate::bytes::Reader::new(content);
        let (Ok(name), Ok(scope)) = (fields.array("name"), fields.array("scope")) else {
            return Ok(false);
        };
        let (is_live, path) = if scope == MODULE {
            let module = ModuleHash(name);
            (live.modules.contains(&module), self.module_path(module))
        } else {
            let layer = LayerId(name);
            (live.layers.contains(&layer), self.layer_path(layer))
        };
        if !is_live || blake3::hash(content) != *checksum {
            return Ok(false);
        }
        let metadata = files::metadata_if_exists(&path, "read the time of")?;
        Ok(metadata.is_some_and(|metadata| self::stamp(&name, scope, &metadata) == *stamp))
    }
}
