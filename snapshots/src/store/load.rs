//! Images on their way out of a store.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::files::{self, ResultExt};
use super::{CONTENT_LEN_MAX, Layer, Store, check_manifest, lock};
use crate::error::{Damage, StoreError};
use crate::id::{ImageId, LeafHash, MemoryHash};
use crate::manifest::Manifest;
use crate::memory_tree::{LEAF_SIZE, MemoryTree, leaf_start};
use crate::page_map::{Extent, PageMap};
use crate::parallel;

/// A worker verifies so many leaves at once: 1 MiB, long against the cost of handing it out.
const LEAVES_PER_RANGE: usize = 16;

/// An image in a store, its layer files open.
///
/// The manifest has the content that the id names, and the page maps have the leaf hashes that the manifest names. The
/// pages have not been read: [`StoredImage::verify`] does that.
#[derive(Debug)]
pub struct StoredImage {
    id: ImageId,
    manifest: Manifest,
    memories: Vec<StoredMemory>,
    /// The manifest's file, whose lock says that the image is in use.
    _file: File,
}

/// Where the bytes of a stored memory lie.
#[derive(Debug)]
pub struct StoredMemory {
    layers: Vec<Layer>,
    /// Invariant: the map's extents lie inside the files of `layers`.
    map: PageMap,
}

impl Store {
    /// Opens an image: checks its manifest against its id, its page maps against the hashes in the manifest, and the
    /// extents against the real sizes of the layer files. The time taken does not depend on the bytes in the layers.
    /// Nobody deletes the image as long as it is open.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] or [`StoreError::Damaged`], naming the file; [`StoreError::Io`].
    pub fn load(&self, id: ImageId) -> Result<StoredImage, StoreError> {
        let _lock = self.lock_shared()?;
        let (file, manifest) = self.open_image(id)?;
        let mut memories = Vec::new();
        for state in &manifest.memories {
            let memory = self.load_memory(state.content)?;
            let found = memory.byte_len();
            if let Some(expected) = state.byte_len().filter(|expected| *expected != found) {
                let source = Damage::MemoryLength { expected, found };
                return Err(StoreError::Damaged {
                    what: "page map",
                    path: self.memory_path(state.content),
                    source,
                });
            }
            memories.push(memory);
        }
        Ok(StoredImage {
            id,
            manifest,
            memories,
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

    pub(super) fn load_memory(&self, hash: MemoryHash) -> Result<StoredMemory, StoreError> {
        let path = self.memory_path(hash);
        let bytes = files::read(&path, CONTENT_LEN_MAX, "page map")?;
        let map = match read_map(&bytes, hash) {
            Ok(map) => map,
            Err(source) => {
                return Err(StoreError::Damaged {
                    what: "page map",
                    path,
                    source,
                });
            }
        };
        let layers = map
            .layers
            .iter()
            .map(|id| self.open_layer(*id))
            .collect::<Result<Vec<_>, _>>()?;
        for extent in &map.extents {
            let layer = &layers[extent.layer as usize];
            let needed = extent.layer_end();
            if needed > layer.byte_len() {
                return Err(layer.damaged(Damage::OutsideLayer {
                    needed,
                    found: layer.byte_len(),
                }));
            }
        }
        Ok(StoredMemory { layers, map })
    }
}

fn read_map(bytes: &[u8], hash: MemoryHash) -> Result<PageMap, Damage> {
    let map = PageMap::decode(bytes)?;
    let found = map.root();
    if found != hash {
        return Err(Damage::Root { found });
    }
    Ok(map)
}

impl StoredImage {
    /// The image's id.
    pub fn id(&self) -> ImageId {
        self.id
    }

    /// The image's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The memories, in the order of the manifest.
    pub fn memories(&self) -> &[StoredMemory] {
        &self.memories
    }

    /// Reads every byte of the memories, on all cores, and checks it against the hash tree.
    ///
    /// # Errors
    ///
    /// [`StoreError::DamagedMemory`] for the first damaged leaf; [`StoreError::Io`].
    pub fn verify(&self) -> Result<(), StoreError> {
        for (index, memory) in self.memories.iter().enumerate() {
            if let Some(offset) = memory.first_damage()? {
                return Err(StoreError::DamagedMemory {
                    image: self.id,
                    memory: index,
                    offset,
                });
            }
        }
        Ok(())
    }
}

impl StoredMemory {
    /// The length of the memory in bytes.
    pub fn byte_len(&self) -> u64 {
        self.map.byte_len
    }

    /// The layer files that extents point into.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Where the bytes lie: ascending by offset in the memory, not overlapping, within the files as they are. The last
    /// extent can reach behind the memory's end, up to a whole page of [`crate::PAGE_SIZE`]; it holds zeros there once
    /// it has been verified. What no extent covers is zero.
    pub fn extents(&self) -> &[Extent] {
        &self.map.extents
    }

    /// How many bytes of the memory are stored.
    pub fn stored_len(&self) -> u64 {
        self.map.extents.iter().map(|extent| extent.length).sum()
    }

    /// The memory's hash tree, from the hashes that the store holds.
    pub fn tree(&self) -> MemoryTree {
        MemoryTree::from_leaves(self.map.byte_len, self.map.leaves.iter().copied())
    }

    /// Fills `buffer` with the memory's bytes from `offset` on; what lies behind the memory's end is zero. The bytes
    /// are not verified.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        buffer.fill(0);
        let end = offset.saturating_add(buffer.len() as u64);
        let first = self
            .map
            .extents
            .partition_point(|extent| extent.memory_end() <= offset);
        for extent in self.map.extents[first..]
            .iter()
            .take_while(|extent| extent.memory_offset < end)
        {
            let from = extent.memory_offset.max(offset);
            let to = extent.memory_end().min(end);
            let piece = &mut buffer[(from - offset) as usize..(to - offset) as usize];
            let layer = &self.layers[extent.layer as usize];
            let position = extent.layer_offset + (from - extent.memory_offset);
            layer
                .file()
                .read_exact_at(piece, position)
                .during("read", layer.path())?;
        }
        Ok(())
    }

    /// Where the first leaf starts that does not have the content that the hash tree names.
    fn first_damage(&self) -> Result<Option<u64>, StoreError> {
        let leaves = &self.map.leaves;
        let ranges = parallel::map_ranges(leaves.len(), LEAVES_PER_RANGE, |range| {
            let mut buffer = vec![0; LEAF_SIZE];
            for (index, hash) in &leaves[range] {
                self.read_at(leaf_start(*index), &mut buffer)?;
                // The padding behind the memory's end is hashed too: a program that grows its memory would see it.
                if LeafHash::of(&buffer) != *hash {
                    return Ok(Some(leaf_start(*index)));
                }
            }
            Ok(None)
        });
        ranges.into_iter().find_map(Result::transpose).transpose()
    }
}
