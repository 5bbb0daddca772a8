//! Images on their way into a store.

use std::fs::File;
use std::path::Path;

use super::absorb::{self, Plan};
use super::files::{self, Staged};
use super::load::read_pieces;
use super::pipeline::{Changes, write_changes};
use super::update::{self, MemoryUpdate, PageSource, Published};
use super::{CONTENT_LEN_MAX, IMAGES, LAYERS, MEMORIES, Store, StoredMemory, check_size, layer};
use crate::error::{Damage, StoreError};
use crate::id::{ImageId, LayerId, LeafHash, MemoryHash};
use crate::layer_index::{LayerIndex, touched_leaves};
use crate::manifest::Manifest;
use crate::memory_tree::{LEAF_SIZE, MemoryTree, is_zero, leaf_start};
use crate::overlay::{Piece, lay_over, pieces};
use crate::page_map::{PAGE_SIZE, PageMap};
use crate::parallel;

/// A worker copies so many leaves at once: 1 MiB, long against the cost of handing it out.
const LEAVES_PER_RANGE: usize = 16;
const PAGE: u64 = PAGE_SIZE as u64;

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
    pub fn publish(&self, manifest: Manifest, memories: &[&[u8]]) -> Result<ImageId, StoreError> {
        let dirty: Vec<_> = memories
            .iter()
            .map(|memory| 0..(memory.len() as u64).next_multiple_of(PAGE))
            .map(|all| Vec::from_iter((!all.is_empty()).then_some(all)))
            .collect();
        let updates: Vec<MemoryUpdate<'_>> = memories
            .iter()
            .zip(&dirty)
            .map(|(memory, dirty)| MemoryUpdate {
                base: None,
                byte_len: memory.len() as u64,
                dirty,
                source: memory as &dyn PageSource,
            })
            .collect();
        let published = self.publish_update(manifest, &updates)?;
        Ok(published.image.id())
    }

    /// Stores an image whose memories are told as differences from stored ones, as [`Store::publish`] does. What it
    /// takes, in time and on the disk, depends on the dirty stretches, and beyond them only on the hash tree. The image
    /// that is returned is open, so that nobody deletes it before it has a name.
    ///
    /// Now and then a layer takes over what older layers hold, so that a memory never lies in too many pieces.
    ///
    /// # Errors
    ///
    /// As [`Store::publish`]; [`StoreError::Source`]; [`StoreError::Damaged`] when a base turns out to be damaged where
    /// its bytes are needed.
    pub fn publish_update(
        &self,
        mut manifest: Manifest,
        memories: &[MemoryUpdate<'_>],
    ) -> Result<Published, StoreError> {
        update::check(&manifest.memories, memories)?;
        let _lock = self.lock_shared()?;
        let module = self.module_path(manifest.module);
        if files::size_if_exists(&module)?.is_none() {
            return Err(StoreError::Missing {
                what: "module",
                path: module,
            });
        }
        // Whatever cannot be read back must not reach the disk. The hashes of memories don't matter for that.
        Manifest::decode(&manifest.encode()).map_err(StoreError::Unencodable)?;

        let mut added = Added::default();
        for (state, update) in manifest.memories.iter_mut().zip(memories) {
            state.content = self.put_memory(update, &mut added)?;
        }
        if !memories.is_empty() {
            self.publish_page_maps(&mut added)?;
        }
        let bytes = manifest.encode();
        let id = ImageId::of(&bytes);
        added.bytes += self.put_manifest(id, &bytes)?;
        let image = self.load_locked(id)?;
        self.stamp_written(&image, &added.layers);
        Ok(Published {
            image,
            added_bytes: added.bytes,
        })
    }

    /// Lays the memories of an image out anew, each in a single layer. The layers that held it before stay until
    /// nothing needs them and somebody deletes such things.
    ///
    /// # Errors
    ///
    /// As [`Store::load`]; [`StoreError::Damaged`] when the bytes of a memory are; [`StoreError::Io`].
    pub fn flatten(&self, id: ImageId) -> Result<(), StoreError> {
        // Shared is enough: the page map is replaced by another one that is as good, and nothing is deleted.
        let _lock = self.lock_shared()?;
        let image = self.load_locked(id)?;
        let mut added = Added::default();
        for memory in image
            .memories()
            .iter()
            .filter(|memory| memory.layers().len() > 1)
        {
            let draft = Draft {
                base: Some(memory),
                staged: None,
                index: LayerIndex::default(),
                visible: memory.visible().to_vec(),
            };
            let required = vec![true; memory.layers().len()];
            let mut tree = memory.tree();
            if let Some(plan) = absorb::plan(&draft.visible, required, tree.byte_len()) {
                let draft = draft.take_over(&plan, &tree, self)?;
                self.put_layers(draft, &mut tree, &mut added)?;
            }
        }
        self.publish_page_maps(&mut added)?;
        self.stamp_written(&self.load_locked(id)?, &added.layers);
        Ok(())
    }

    /// Gives the page maps that have been written their names, after what they refer to is durable: one of them may take
    /// the place of another that an image needs.
    fn publish_page_maps(&self, added: &mut Added) -> Result<(), StoreError> {
        // Also for files that were there: another process may have renamed them a moment ago.
        self.root.sync_directory(&self.root.join(LAYERS))?;
        for (_, page_map) in added.page_maps.drain(..) {
            page_map.rename()?;
        }
        self.root.sync_directory(&self.root.join(MEMORIES))
    }

    /// Stores a memory but for the name of its page map, and returns its own. Nothing of it is durable yet.
    fn put_memory(
        &self,
        update: &MemoryUpdate<'_>,
        added: &mut Added,
    ) -> Result<MemoryHash, StoreError> {
        let (reloaded, required) = self.find_base(update.base)?;
        let base = reloaded.as_ref().or(update.base);
        let (staged, changes) = match update.dirty {
            [] => (None, Changes::default()),
            _ => {
                let staged = Staged::unnamed_content(&self.root)?;
                let changes = write_changes(update, base, &staged)?;
                (Some(staged), changes)
            }
        };
        let mut tree = base.map_or_else(|| MemoryTree::new(0), StoredMemory::tree);
        tree.grow(update.byte_len);
        for (index, hash) in &changes.leaves {
            tree.set_leaf(*index, *hash);
        }
        let hash = tree.root();
        let is_written = added.page_maps.iter().any(|(other, _)| *other == hash);
        if is_written || self.load_memory(hash).is_ok() {
            return Ok(hash);
        }
        let new_layer = pieces(&changes.entries, required.len() as u32);
        let mut draft = Draft {
            base,
            staged,
            visible: lay_over(base.map_or(&[], StoredMemory::visible), &new_layer),
            index: LayerIndex {
                entries: changes.entries,
                leaves: changes.leaves,
            },
        };
        if let Some(plan) = absorb::plan(&draft.visible, required, update.byte_len) {
            draft = draft.take_over(&plan, &tree, self)?;
        }
        self.put_layers(draft, &mut tree, added)?;
        Ok(hash)
    }

    /// Another copy of the base if there is none of its layers in the store any more but other ones that hold the same
    /// memory, and which of its layers a new page map must not name because they are gone.
    fn find_base(
        &self,
        base: Option<&StoredMemory>,
    ) -> Result<(Option<StoredMemory>, Vec<bool>), StoreError> {
        let Some(base) = base else {
            return Ok((None, Vec::new()));
        };
        let gone = |memory: &StoredMemory| -> Result<Vec<bool>, StoreError> {
            let layers = memory.layers().iter();
            layers
                .map(|layer| {
                    Ok(files::size_if_exists(&self.layer_path(layer.id()))?
                        != Some(layer.byte_len()))
                })
                .collect()
        };
        let gone_layers = gone(base)?;
        if !gone_layers.contains(&true) {
            return Ok((None, gone_layers));
        }
        // Somebody has laid the memory out anew. What the base has open stays readable if that cannot be used.
        match self.load_memory(base.hash()) {
            Ok(reloaded) => {
                let none_gone = vec![false; reloaded.layers().len()];
                Ok((Some(reloaded), none_gone))
            }
            Err(_) => Ok((None, gone_layers)),
        }
    }

    /// Gives the new layer of a memory, if it has one, its name, and writes the page map.
    fn put_layers(
        &self,
        draft: Draft<'_>,
        tree: &mut MemoryTree,
        added: &mut Added,
    ) -> Result<(), StoreError> {
        let hash = tree.root();
        let mut layers = draft.base_layers_in_use();
        if let (Some(mut staged), false) = (draft.staged, draft.index.entries.is_empty()) {
            let (id, size) = layer::complete(&staged, hash, &draft.index)?;
            if self.open_layer(id).is_err() {
                staged.set_target(self.layer_path(id));
                staged.rename()?;
                added.bytes += size;
                added.layers.push(id);
            }
            layers.push(id);
        }
        let bytes = PageMap {
            byte_len: tree.byte_len(),
            layers,
        }
        .encode();
        let path = self.memory_path(hash);
        if files::size_if_exists(&path)?.is_some() {
            // Images may need the page map that is to be replaced, so the new one must not be there before its layers.
            self.root.sync_directory(&self.root.join(LAYERS))?;
        }
        let staged = Staged::content(&self.root, path)?;
        staged.write_at(&bytes, 0)?;
        added.page_maps.push((hash, staged));
        added.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Manifests are small, so an existing one is compared as a whole: a damaged one must not pass for this one.
    fn put_manifest(&self, id: ImageId, bytes: &[u8]) -> Result<u64, StoreError> {
        check_size("image", bytes, CONTENT_LEN_MAX)?;
        let path = self.image_path(id);
        if self.manifest(id).is_ok() {
            self.root.sync_directory(&self.root.join(IMAGES))?;
            return Ok(0);
        }
        Staged::content(&self.root, path)?.write_and_publish(bytes)?;
        Ok(bytes.len() as u64)
    }
}

/// What a publication has added to the store so far.
#[derive(Default)]
struct Added {
    bytes: u64,
    layers: Vec<LayerId>,
    /// Page maps that have been written and have no names yet.
    page_maps: Vec<(MemoryHash, Staged)>,
}

/// A memory that is being written: a base, and above it a layer that has not been published.
struct Draft<'a> {
    base: Option<&'a StoredMemory>,
    /// Holds the pages of the new layer from its second page on.
    staged: Option<Staged>,
    index: LayerIndex,
    /// What the base's layers say and, one above them, the new one.
    visible: Vec<Piece>,
}

impl<'a> Draft<'a> {
    /// Those of the base's layers that still say something.
    fn base_layers_in_use(&self) -> Vec<LayerId> {
        let layers = self.base.map_or(&[][..], StoredMemory::layers);
        let mut used = vec![false; layers.len() + 1];
        for piece in &self.visible {
            used[piece.layer as usize] = true;
        }
        let used = layers.iter().zip(used).filter(|(_, used)| *used);
        used.map(|(layer, _)| layer.id()).collect()
    }

    /// Writes the new layer anew, together with what it takes over. All bytes that it holds are checked against `tree`
    /// on the way, so that damage to older layers doesn't spread.
    fn take_over(self, plan: &Plan, tree: &MemoryTree, store: &Store) -> Result<Self, StoreError> {
        let base_layers = self.base.map_or(&[][..], StoredMemory::layers);
        let entries = absorb::entries(&self.visible, plan, base_layers);
        let stretches = entries
            .iter()
            .map(|entry| (entry.memory_offset, entry.memory_end()));
        let leaves: Vec<(u32, LeafHash)> = touched_leaves(stretches)
            .flat_map(|(first, last)| first..=last)
            .map(|index| (index, tree.leaf(index)))
            .collect();
        let new_pieces = pieces(&entries, base_layers.len() as u32);
        let staged = Staged::unnamed_content(&store.root)?;
        let copied = parallel::map_ranges(leaves.len(), LEAVES_PER_RANGE, |range| {
            let mut buffer = vec![0; LEAF_SIZE];
            leaves[range]
                .iter()
                .try_for_each(|leaf| self.copy_leaf(*leaf, &new_pieces, &staged, &mut buffer))
        });
        copied.into_iter().collect::<Result<(), _>>()?;
        // Pages at the end can be zeros that were not written.
        let kept = |piece: &&Piece| {
            !plan
                .victims
                .get(piece.layer as usize)
                .is_some_and(|gone| *gone)
        };
        let rest: Vec<Piece> = self.visible.iter().filter(kept).copied().collect();
        Ok(Self {
            base: self.base,
            staged: Some(staged),
            // Pieces of the old draft of this layer are all inside the new one.
            visible: lay_over(&rest, &new_pieces),
            index: LayerIndex { entries, leaves },
        })
    }

    /// Copies what the new layer holds of a leaf. Pages of zeros are left out, so that they take no space on the disk.
    fn copy_leaf(
        &self,
        (index, hash): (u32, LeafHash),
        new_pieces: &[Piece],
        staged: &Staged,
        buffer: &mut [u8],
    ) -> Result<(), StoreError> {
        let start = leaf_start(index);
        self.read_at(start, buffer)?;
        if LeafHash::of(buffer) != hash {
            return Err(self.leaf_damaged(index));
        }
        let end = start + LEAF_SIZE as u64;
        for piece in absorb::within(new_pieces, start, end) {
            let Some(layer_offset) = piece.layer_offset else {
                continue;
            };
            let (from, to) = (piece.memory_offset.max(start), piece.memory_end().min(end));
            let mut bytes = &buffer[(from - start) as usize..(to - start) as usize];
            let mut place = layer_offset + (from - piece.memory_offset);
            let pages: Vec<&[u8]> = bytes.chunks(PAGE_SIZE).collect();
            for run in pages.chunk_by(|first, second| is_zero(first) == is_zero(second)) {
                let (run_bytes, rest) = bytes.split_at(run.len() * PAGE_SIZE);
                bytes = rest;
                if !is_zero(run[0]) {
                    staged.write_at(run_bytes, place)?;
                }
                place += run_bytes.len() as u64;
            }
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let file = |layer: u32| -> (&File, &Path) {
            let layers = self.base.map_or(&[][..], StoredMemory::layers);
            match (layers.get(layer as usize), &self.staged) {
                (Some(layer), _) => (layer.file(), layer.path()),
                (None, Some(staged)) => (staged.file(), staged.target()),
                (None, None) => unreachable!("only a layer that is there says anything"),
            }
        };
        read_pieces(&self.visible, file, offset, buffer)
    }

    fn leaf_damaged(&self, index: u32) -> StoreError {
        match (self.base, &self.staged) {
            (Some(base), _) if !base.layers().is_empty() => base.leaf_damaged(index),
            _ => StoreError::Damaged {
                what: "layer",
                path: self
                    .staged
                    .as_ref()
                    .map_or_else(Default::default, |staged| staged.target().to_owned()),
                source: Damage::Leaf {
                    offset: leaf_start(index),
                },
            },
        }
    }
}
