//! All that is in a store, to be verified piece by piece.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::{
    LAYERS, MEMORIES, MODULES, NAMES, Store, StoredImage, StoredMemory, TAGS, check_name, files,
};
use crate::error::{Damage, StoreError};
use crate::id::{ImageId, LayerId, MemoryHash, ModuleHash, RecordId};
use crate::memory_tree::{LEAF_SIZE, leaf_start};

const MODULE_EXTENSION: &str = ".wasm";

/// Something in a store that can be verified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Item {
    /// An image with all that it consists of.
    Image(ImageId),
    /// A page map that no image uses, with its layers.
    PageMap(MemoryHash),
    /// A layer that no page map uses. Its index is checked; its pages are those of a memory that isn't there.
    Layer(LayerId),
    /// A module that no image uses.
    Module(ModuleHash),
    /// A record, and whether its image is there.
    Record(RecordId),
    /// The name of a program, and whether its latest image is there.
    Name(String),
    /// A tag, and whether its image is there.
    Tag(String),
    /// What is remembered of a program that is kept running.
    Journal(String),
}

/// Which kind of thing it is, and which one.
impl fmt::Display for Item {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Self::Image(id) => write!(to, "{kind} {id}"),
            Self::PageMap(hash) => write!(to, "{kind} {hash}"),
            Self::Layer(id) => write!(to, "{kind} {id}"),
            Self::Module(hash) => write!(to, "{kind} {hash}"),
            Self::Record(id) => write!(to, "{kind} {id}"),
            Self::Name(name) | Self::Tag(name) | Self::Journal(name) => write!(to, "{kind} {name}"),
        }
    }
}

impl Item {
    /// Which kind of thing it is: `image`, `page map` and so on.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Image(_) => "image",
            Self::PageMap(_) => "page map",
            Self::Layer(_) => "layer",
            Self::Module(_) => "module",
            Self::Record(_) => "record",
            Self::Name(_) => "name",
            Self::Tag(_) => "tag",
            Self::Journal(_) => "journal",
        }
    }
}

/// Verifies items of a store, and reads what they have in common only once.
#[derive(Debug)]
pub struct Verification<'a> {
    store: &'a Store,
    intact: Mutex<Intact>,
}

/// What needs no second look.
#[derive(Debug, Default)]
struct Intact {
    modules: HashSet<ModuleHash>,
    memories: HashSet<MemoryHash>,
    /// Leaves with the places that their bytes come from, as hashes of both.
    leaves: HashSet<u128>,
}

impl Store {
    /// All that is in the store: images by ascending id, then what none of them uses, then records, names and tags. What
    /// an image that cannot be read uses counts as used by none. Journals come last.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] when a folder cannot be listed.
    pub fn inventory(&self) -> Result<Vec<Item>, StoreError> {
        let images = self.images()?;
        let (mut modules, mut memories) = (HashSet::new(), HashSet::new());
        for image in &images {
            if let Ok(manifest) = self.manifest(image.id) {
                modules.insert(manifest.module);
                memories.extend(manifest.memories.iter().map(|memory| memory.content));
            }
        }
        let page_maps: Vec<MemoryHash> = self.named_by_hash(MEMORIES, "")?;
        let layers: HashSet<LayerId> = page_maps
            .iter()
            .filter_map(|hash| self.map_layers(*hash).ok())
            .flatten()
            .collect();
        let unused_layers: Vec<LayerId> = self.named_by_hash(LAYERS, "")?;
        let unused_modules: Vec<ModuleHash> = self.named_by_hash(MODULES, MODULE_EXTENSION)?;
        let mut records = self.record_ids()?;
        records.sort_unstable();

        let mut items: Vec<_> = images.iter().map(|image| Item::Image(image.id)).collect();
        let unused = |hash: &MemoryHash| !memories.contains(hash);
        items.extend(page_maps.into_iter().filter(unused).map(Item::PageMap));
        let unused = |id: &LayerId| !layers.contains(id);
        items.extend(unused_layers.into_iter().filter(unused).map(Item::Layer));
        let unused = |hash: &ModuleHash| !modules.contains(hash);
        items.extend(unused_modules.into_iter().filter(unused).map(Item::Module));
        items.extend(records.into_iter().map(Item::Record));
        items.extend(self.reference_names(NAMES)?.into_iter().map(Item::Name));
        items.extend(self.reference_names(TAGS)?.into_iter().map(Item::Tag));
        items.extend(self.journal_names()?.into_iter().map(Item::Journal));
        Ok(items)
    }

    /// Begins to verify items.
    pub fn verification(&self) -> Verification<'_> {
        Verification {
            store: self,
            intact: Mutex::default(),
        }
    }

    fn named_by_hash<T: std::str::FromStr + Ord>(
        &self,
        folder: &str,
        extension: &str,
    ) -> Result<Vec<T>, StoreError> {
        let files = files::list(&self.root.join(folder))?;
        let mut hashes: Vec<T> = files
            .iter()
            .filter_map(|(name, _)| name.strip_suffix(extension)?.parse().ok())
            .collect();
        hashes.sort_unstable();
        Ok(hashes)
    }

    fn reference_names(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let files = files::list(&self.root.join(folder))?;
        let mut names: Vec<_> = files.into_iter().map(|(name, _)| name).collect();
        names.retain(|name| check_name(name).is_ok());
        names.sort_unstable();
        Ok(names)
    }

    fn verify_reference(&self, folder: &str, name: &str) -> Result<(), StoreError> {
        match self.reference(folder, name)? {
            Some(id) => self.require_image(id),
            None => Ok(()),
        }
    }

    fn is_there(&self, item: &Item) -> Result<bool, StoreError> {
        let path = match item {
            Item::Image(id) => self.image_path(*id),
            Item::PageMap(hash) => self.memory_path(*hash),
            Item::Layer(id) => self.layer_path(*id),
            Item::Module(hash) => self.module_path(*hash),
            Item::Record(id) => self.record_path(*id),
            Item::Name(name) => self.root.join(NAMES).join(name),
            Item::Tag(name) => self.root.join(TAGS).join(name),
            Item::Journal(name) => self.journal_path(name),
        };
        Ok(files::size_if_exists(&path)?.is_some())
    }
}

impl Verification<'_> {
    /// Reads every byte of an item, on all cores, and checks it. `progress` hears, from any thread, how many bytes of
    /// memory have been checked since it was called the last time. An item that has been deleted meanwhile is intact.
    ///
    /// # Errors
    ///
    /// What is wrong with the item: [`StoreError::Missing`], [`StoreError::Damaged`] or [`StoreError::DamagedMemory`];
    /// [`StoreError::Io`].
    pub fn verify(&self, item: &Item, progress: &(dyn Fn(u64) + Sync)) -> Result<(), StoreError> {
        // Nobody deletes anything while it is found and opened.
        let lock = self.store.lock_shared()?;
        if !self.store.is_there(item)? {
            return Ok(());
        }
        match item {
            Item::Image(id) => {
                let image = self.store.load_locked(*id)?;
                self.module(image.manifest().module)?;
                drop(lock);
                self.image(&image, progress)
            }
            Item::PageMap(hash) => {
                let memory = self.store.load_memory(*hash)?;
                drop(lock);
                match self.memory(&memory, progress)? {
                    None => Ok(()),
                    Some(offset) => Err(StoreError::Damaged {
                        what: "page map",
                        path: self.store.memory_path(*hash),
                        source: Damage::Leaf { offset },
                    }),
                }
            }
            Item::Layer(id) => self.store.open_layer(*id).map(|_| ()),
            Item::Module(hash) => self.module(*hash),
            Item::Record(id) => match self.store.read_record(*id)? {
                Some(record) => self.store.require_image(record.image),
                None => Ok(()),
            },
            Item::Name(name) => self.store.verify_reference(NAMES, name),
            Item::Tag(name) => self.store.verify_reference(TAGS, name),
            Item::Journal(name) => self.store.job_journal(name).map(drop),
        }
    }

    /// How many bytes of memory there are to be checked in all of `items`, as `progress` counts them. What cannot be
    /// read counts as nothing.
    pub fn checked_len(&self, items: &[Item]) -> u64 {
        let mut counted = Intact::default();
        let mut leaves = 0;
        let mut count = |memory: &StoredMemory| {
            let fresh = counted.fresh_leaves(memory);
            leaves += fresh.len() as u64;
            counted.add(memory, &fresh);
        };
        for item in items {
            match item {
                Item::Image(id) => {
                    let image = self.store.load(*id);
                    image
                        .iter()
                        .flat_map(StoredImage::memories)
                        .for_each(&mut count);
                }
                Item::PageMap(hash) => self.store.load_memory(*hash).iter().for_each(&mut count),
                _ => (),
            }
        }
        leaves * LEAF_SIZE as u64
    }

    fn module(&self, hash: ModuleHash) -> Result<(), StoreError> {
        if !self.intact().modules.contains(&hash) {
            self.store.module(hash)?;
            self.intact().modules.insert(hash);
        }
        Ok(())
    }

    fn image(
        &self,
        image: &StoredImage,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StoreError> {
        for (index, memory) in image.memories().iter().enumerate() {
            if let Some(offset) = self.memory(memory, progress)? {
                return Err(StoreError::DamagedMemory {
                    image: image.id(),
                    memory: index,
                    offset,
                });
            }
        }
        Ok(())
    }

    /// Where the first damaged leaf of a memory starts.
    fn memory(
        &self,
        memory: &StoredMemory,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Option<u64>, StoreError> {
        let fresh = self.intact().fresh_leaves(memory);
        let leaves: Vec<u32> = fresh.iter().map(|(leaf, _)| *leaf).collect();
        let damage = memory.first_damage(&leaves, progress)?;
        if damage.is_none() {
            self.intact().add(memory, &fresh);
        }
        Ok(damage)
    }

    fn intact(&self) -> std::sync::MutexGuard<'_, Intact> {
        // It is complete at any time: whatever panicked has added less than it could.
        self.intact.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intact {
    /// The leaves of a memory that have not been checked with bytes from the same places, each with its hash.
    fn fresh_leaves(&self, memory: &StoredMemory) -> Vec<(u32, u128)> {
        if self.memories.contains(&memory.hash()) {
            return Vec::new();
        }
        let leaves = memory.leaves_to_check().into_iter();
        leaves
            .map(|leaf| (leaf, origin(memory, leaf)))
            .filter(|(_, origin)| !self.leaves.contains(origin))
            .collect()
    }

    fn add(&mut self, memory: &StoredMemory, leaves: &[(u32, u128)]) {
        self.memories.insert(memory.hash());
        self.leaves.extend(leaves.iter().map(|(_, origin)| *origin));
    }
}

/// A hash of what a leaf should hold and of all places that its bytes come from.
fn origin(memory: &StoredMemory, leaf: u32) -> u128 {
    let (start, end) = (leaf_start(leaf), leaf_start(leaf) + LEAF_SIZE as u64);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&memory.tree_ref().leaf(leaf).0);
    let extents = memory.extents();
    let first = extents.partition_point(|extent| extent.memory_end() <= start);
    for extent in extents[first..]
        .iter()
        .take_while(|extent| extent.memory_offset < end)
    {
        let from = extent.memory_offset.max(start);
        let to = extent.memory_end().min(end);
        hasher.update(&memory.layers()[extent.layer as usize].id().0);
        for number in [
            from - start,
            to - from,
            extent.layer_offset + (from - extent.memory_offset),
        ] {
            hasher.update(&number.to_le_bytes());
        }
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}
