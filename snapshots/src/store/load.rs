//! Images on their way out of a store.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{self, ResultExt};
use super::{CONTENT_LEN_MAX, Layer, Store, check_manifest, lock};
use crate::error::{Damage, StoreError};
use crate::id::{ImageId, LayerId, MemoryHash};
use crate::manifest::Manifest;
use crate::memory_tree::MemoryTree;
use crate::overlay::{Piece, from_offset, lay_all_over, newest_leaves, pieces};
use crate::page_map::{Extent, PAGE_SIZE, PageMap, mappings_max};

/// An image in a store, its layer files open. Nobody deletes it as long as it is open.
///
/// The manifest has the content that the id names, and the layers have the leaf hashes that the manifest names. The
/// pages have not been read: [`StoredImage::verify`] does that.
#[derive(Debug)]
pub struct StoredImage {
    id: ImageId,
    manifest: Manifest,
    memories: Vec<StoredMemory>,
    directory: PathBuf,
    /// The manifest's file, whose lock says that the image is in use.
    _file: File,
}

/// Where the bytes of a stored memory lie. Clones share everything.
#[derive(Clone, Debug)]
pub struct StoredMemory {
    hash: MemoryHash,
    layers: Arc<[Layer]>,
    /// What the layers say, as far as no newer layer hides it. Invariant: inside the files of `layers`, and inside the
    /// memory rounded up to a page.
    visible: Arc<[Piece]>,
    /// The pieces that are no holes.
    extents: Arc<[Extent]>,
    /// Invariant: its root is `hash`.
    tree: Arc<MemoryTree>,
}

impl Store {
    /// Opens an image: checks its manifest against its id, its layers' indexes against their names, and the leaf
    /// hashes in them against the hashes in the manifest. The time taken does not depend on the bytes in the layers.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] or [`StoreError::Damaged`], naming the file; [`StoreError::Io`].
    pub fn load(&self, id: ImageId) -> Result<StoredImage, StoreError> {
        let _lock = self.lock_shared()?;
        self.load_locked(id)
    }

    /// What [`Store::load`] does, for those who hold the lock on the store.
    pub(super) fn load_locked(&self, id: ImageId) -> Result<StoredImage, StoreError> {
        let (file, manifest) = self.open_image(id)?;
        let mut memories = Vec::new();
        // A manifest can name one memory any number of times, each time for 41 bytes.
        let mut loaded: HashMap<MemoryHash, StoredMemory> = HashMap::new();
        for state in &manifest.memories {
            let memory = match loaded.get(&state.content) {
                Some(memory) => memory.clone(),
                None => self.load_memory(state.content)?,
            };
            loaded.insert(state.content, memory.clone());
            let found = memory.byte_len();
            if let Some(expected) = state.byte_len().filter(|expected| *expected != found) {
                let source = Damage::MemoryLength { expected, found };
                return Err(self.map_damaged(state.content, source));
            }
            memories.push(memory);
        }
        Ok(StoredImage {
            id,
            manifest,
            memories,
            directory: self.directory().to_owned(),
            _file: file,
        })
    }

    /// Opens the manifest of an image, locked against deletion.
    fn open_image(&self, id: ImageId) -> Result<(File, Manifest), StoreError> {
        let path = self.image_path(id);
        loop {
            let Some(file) = files::open_if_exists(&path)? else {
                return Err(StoreError::Missing {
                    what: "image",
                    path,
                });
            };
            // Nobody deletes images meanwhile, but one that was found damaged may be replaced.
            if lock::protect(&file, &path)? {
                let bytes = files::read_all(&file, &path, CONTENT_LEN_MAX, "image")?;
                return Ok((file, check_manifest(id, &path, &bytes)?));
            }
        }
    }

    /// The layers that hold a memory, the oldest first. They are not looked at.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] or [`StoreError::Damaged`] for the page map; [`StoreError::Io`].
    pub fn map_layers(&self, hash: MemoryHash) -> Result<Vec<LayerId>, StoreError> {
        Ok(self.page_map(hash)?.layers)
    }

    fn page_map(&self, hash: MemoryHash) -> Result<PageMap, StoreError> {
        let bytes = files::read(&self.memory_path(hash), CONTENT_LEN_MAX, "page map")?;
        PageMap::decode(&bytes).map_err(|error| self.map_damaged(hash, error.into()))
    }

    pub(super) fn load_memory(&self, hash: MemoryHash) -> Result<StoredMemory, StoreError> {
        let map = self.page_map(hash)?;
        let end_max = map.byte_len.next_multiple_of(PAGE_SIZE as u64);
        let (mut layers, mut all_pieces, mut all_leaves) = (Vec::new(), Vec::new(), Vec::new());
        for (id, number) in map.layers.iter().zip(0..) {
            let (layer, leaves) = self.open_layer(*id)?;
            let end = layer.entries().last().map_or(0, |entry| entry.memory_end());
            if end > end_max {
                return Err(layer.damaged(Damage::OutsideMemory {
                    end,
                    memory_len: map.byte_len,
                }));
            }
            all_pieces.push(pieces(layer.entries(), number));
            all_leaves.push(leaves);
            layers.push(layer);
        }
        let visible = lay_all_over(all_pieces);
        let extents: Vec<Extent> = visible.iter().filter_map(Piece::extent).collect();
        let limit = mappings_max(map.byte_len);
        if extents.len() > limit {
            let found = extents.len();
            return Err(self.map_damaged(hash, Damage::TooManyExtents { found, limit }));
        }
        // Leaves lie inside the memory because the entries that touch them do.
        let mut tree = MemoryTree::from_leaves(map.byte_len, newest_leaves(&all_leaves));
        let found = tree.root();
        if found != hash {
            return Err(self.map_damaged(hash, Damage::Root { found }));
        }
        Ok(StoredMemory {
            hash,
            layers: layers.into(),
            visible: visible.into(),
            extents: extents.into(),
            tree: Arc::new(tree),
        })
    }

    fn map_damaged(&self, hash: MemoryHash, source: Damage) -> StoreError {
        StoreError::Damaged {
            what: "page map",
            path: self.memory_path(hash),
            source,
        }
    }
}

impl StoredImage {
    /// The image's id.
    pub fn id(&self) -> ImageId {
        self.id
    }

    /// The directory of the store that the image was opened in.
    pub fn store_directory(&self) -> &Path {
        &self.directory
    }

    /// The image's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The memories, in the order of the manifest.
    pub fn memories(&self) -> &[StoredMemory] {
        &self.memories
    }
}

impl StoredMemory {
    /// The name of the memory's content.
    pub fn hash(&self) -> MemoryHash {
        self.hash
    }

    /// The length of the memory in bytes.
    pub fn byte_len(&self) -> u64 {
        self.tree.byte_len()
    }

    /// The layer files that extents point into, the oldest first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Where the bytes lie: ascending by offset in the memory, not overlapping, within the files as they are. The last
    /// extent can reach behind the memory's end, up to a whole page of [`crate::PAGE_SIZE`]; it holds zeros there once
    /// it has been verified. What no extent covers is zero.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// What the layers say, holes included.
    pub(super) fn visible(&self) -> &[Piece] {
        &self.visible
    }

    /// How many bytes of the memory are stored.
    pub fn stored_len(&self) -> u64 {
        self.extents.iter().map(|extent| extent.length).sum()
    }

    /// The memory's hash tree, from the hashes that the store holds.
    pub fn tree(&self) -> MemoryTree {
        MemoryTree::clone(&self.tree)
    }

    /// The same tree, to be looked at.
    pub(super) fn tree_ref(&self) -> &MemoryTree {
        &self.tree
    }

    /// Fills `buffer` with the memory's bytes from `offset` on; what lies behind the memory's end is zero. The bytes
    /// are not verified.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let file = |layer: u32| {
            let layer = &self.layers[layer as usize];
            (layer.file(), layer.path())
        };
        read_pieces(&self.visible, file, offset, buffer)
    }
}

/// Fills `buffer` with what `pieces` say from `offset` on, zeros where they say nothing. `file` finds a layer's file.
pub(super) fn read_pieces<'a>(
    pieces: &[Piece],
    file: impl Fn(u32) -> (&'a File, &'a Path),
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), StoreError> {
    let end = offset.saturating_add(buffer.len() as u64);
    let mut filled = 0;
    for piece in from_offset(pieces, offset)
        .iter()
        .take_while(|piece| piece.memory_offset < end)
    {
        let Some(layer_offset) = piece.layer_offset else {
            continue;
        };
        let from = piece.memory_offset.max(offset);
        let to = piece.memory_end().min(end);
        // Positions in the buffer fit in usize because its length does.
        let (start, stop) = ((from - offset) as usize, (to - offset) as usize);
        buffer[filled..start].fill(0);
        let (file, path) = file(piece.layer);
        file.read_exact_at(
            &mut buffer[start..stop],
            layer_offset + (from - piece.memory_offset),
        )
        .during("read", path)?;
        filled = stop;
    }
    buffer[filled..].fill(0);
    Ok(())
}
