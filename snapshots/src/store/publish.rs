//! Images on their way into a store.

use super::files::{self, Staged};
use super::{LAYERS, Store, check_size, layer};
use crate::error::StoreError;
use crate::id::{ImageId, LayerId, MemoryHash};
use crate::manifest::{MEMORY_LEN_MAX, Manifest, MemoryState};
use crate::memory_tree::scan;
use crate::page_map::{Extent, PageMap, extents_of};

impl Store {
    /// Stores an image and returns its id. It is durable on return, and complete or absent at any moment before.
    ///
    /// `memories` holds the bytes of each memory of the manifest; the `content` of its memories is computed here,
    /// whatever it says. Only pages that are not zero are written, and nothing that the store already has.
    ///
    /// # Errors
    ///
    /// [`StoreError::MemoryMismatch`] when the memories are not those of the manifest, [`StoreError::Missing`] when the
    /// module is not in the store, [`StoreError::Unencodable`] when the manifest breaks a rule of the format,
    /// [`StoreError::TooLarge`], [`StoreError::Io`].
    pub fn publish(
        &self,
        mut manifest: Manifest,
        memories: &[&[u8]],
    ) -> Result<ImageId, StoreError> {
        check_memories(&manifest.memories, memories)?;
        let module = self.module_path(manifest.module);
        if files::size_if_exists(&module)?.is_none() {
            return Err(StoreError::Missing {
                what: "module",
                path: module,
            });
        }
        // Whatever cannot be read back must not reach the disk. The hashes of memories don't matter for that.
        Manifest::decode(&manifest.encode()).map_err(StoreError::Unencodable)?;

        for (state, memory) in manifest.memories.iter_mut().zip(memories) {
            state.content = self.put_memory(memory)?;
        }
        let bytes = manifest.encode();
        let id = ImageId::of(&bytes);
        self.put_manifest(id, &bytes)?;
        Ok(id)
    }

    fn put_memory(&self, memory: &[u8]) -> Result<MemoryHash, StoreError> {
        let leaves = scan(memory);
        let mut map = PageMap {
            byte_len: memory.len() as u64,
            layers: Vec::new(),
            extents: extents_of(&leaves),
            leaves: leaves.iter().map(|leaf| (leaf.index, leaf.hash)).collect(),
        };
        let hash = map.root();
        if self.load_memory(hash).is_ok() {
            return self.sync_memory(hash).map(|()| hash);
        }
        if !map.extents.is_empty() {
            map.layers.push(self.put_layer(hash, memory, &map.extents)?);
        }
        let bytes = map.encode();
        check_size("page map", &bytes)?;
        Staged::content(&self.root, self.memory_path(hash))?.write_and_publish(&bytes)?;
        Ok(hash)
    }

    fn put_layer(
        &self,
        hash: MemoryHash,
        memory: &[u8],
        extents: &[Extent],
    ) -> Result<LayerId, StoreError> {
        let id = LayerId::of(hash, extents);
        let path = self.layer_path(id);
        if self.open_layer(id).is_ok() {
            self.root.sync_parent(&path)?;
        } else {
            layer::write(Staged::content(&self.root, path)?, id, memory, extents)?;
        }
        Ok(id)
    }

    /// Another process may have renamed the files a moment ago and not have synced their directories yet.
    fn sync_memory(&self, hash: MemoryHash) -> Result<(), StoreError> {
        self.root.sync_directory(&self.root.join(LAYERS))?;
        self.root.sync_parent(&self.memory_path(hash))
    }

    /// Manifests are small, so an existing one is compared as a whole: a damaged one must not pass for this one.
    fn put_manifest(&self, id: ImageId, bytes: &[u8]) -> Result<(), StoreError> {
        check_size("image", bytes)?;
        let path = self.image_path(id);
        if self.manifest(id).is_ok() {
            return self.root.sync_parent(&path);
        }
        Staged::content(&self.root, path)?.write_and_publish(bytes)
    }
}

fn check_memories(states: &[MemoryState], memories: &[&[u8]]) -> Result<(), StoreError> {
    if states.len() != memories.len() {
        let problem = format!("{} memories instead of {}", memories.len(), states.len());
        return Err(StoreError::MemoryMismatch { problem });
    }
    for (index, (state, memory)) in states.iter().zip(memories).enumerate() {
        let found = memory.len() as u64;
        match state.byte_len() {
            Some(expected) if expected == found => (),
            Some(expected) => {
                let problem = format!("memory {index} has {found} bytes instead of {expected}");
                return Err(StoreError::MemoryMismatch { problem });
            }
            None => {
                return Err(StoreError::TooLarge {
                    what: "memory",
                    size: found,
                    limit: MEMORY_LEN_MAX,
                });
            }
        }
    }
    Ok(())
}
