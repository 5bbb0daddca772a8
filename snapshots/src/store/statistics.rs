//! How much a store holds, and how much of it several images share.

use std::collections::HashMap;
use std::ops::Range;

use super::gc::{Amount, GcOptions};
use super::{
    IMAGES, LAYERS, LOCK, MEMORIES, MODULES, NAMES, RECORDS, STAMPS, Store, StoredMemory, TAGS,
    TEMPORARY, VERSION_FILE, files,
};
use crate::error::StoreError;
use crate::id::{LayerId, MemoryHash};

/// How much a store holds. All sizes are in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Manifests.
    pub images: Amount,
    /// Records.
    pub records: Amount,
    /// Page maps.
    pub page_maps: Amount,
    /// Layers.
    pub layers: Amount,
    /// Modules.
    pub modules: Amount,
    /// What all files of the store take on disk, also those that are counted nowhere else.
    pub disk_bytes: u64,
    /// The sizes of the memories of all images.
    pub memory_bytes: u64,
    /// The pages that all images would need in layers if each had its own.
    pub unshared_bytes: u64,
    /// The pages in layers that images are made of, but that no image shows any more: newer layers hide them.
    pub hidden_bytes: u64,
    /// What a garbage collection with the default options would delete.
    pub garbage: Amount,
}

impl Statistics {
    /// How many times the space of the layers the images would need without sharing anything; 1 when there are no
    /// layers.
    pub fn sharing_factor(&self) -> f64 {
        match self.layers.bytes {
            0 => 1.0,
            bytes => self.unshared_bytes as f64 / bytes as f64,
        }
    }
}

impl Store {
    /// Counts everything. It reads the manifests, page maps and indexes of layers, but no pages. Waits for everybody who
    /// is publishing or loading.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] or [`StoreError::Damaged`], naming the file, when any of these cannot be read;
    /// [`StoreError::Io`].
    pub fn statistics(&self) -> Result<Statistics, StoreError> {
        let dry_run = GcOptions {
            dry_run: true,
            ..GcOptions::default()
        };
        let garbage = self.gc(&dry_run)?.freed.total();
        let _lock = self.lock_shared()?;
        let mut statistics = Statistics {
            images: self.amount_in(IMAGES)?,
            records: self.amount_in(RECORDS)?,
            page_maps: self.amount_in(MEMORIES)?,
            layers: self.amount_in(LAYERS)?,
            modules: self.amount_in(MODULES)?,
            disk_bytes: self.disk_bytes()?,
            garbage,
            ..Statistics::default()
        };
        let mut memories: HashMap<MemoryHash, u64> = HashMap::new();
        let mut layers = HashMap::new();
        for image in self.images()? {
            for state in self.manifest(image.id)?.memories {
                statistics.memory_bytes += state.byte_len().unwrap_or(0);
                statistics.unshared_bytes += match memories.get(&state.content) {
                    Some(stored_len) => *stored_len,
                    None => {
                        let memory = self.load_memory(state.content)?;
                        show(&memory, &mut layers);
                        memories.insert(state.content, memory.stored_len());
                        memory.stored_len()
                    }
                };
            }
        }
        statistics.hidden_bytes = layers.values().map(LayerUse::hidden_bytes).sum();
        Ok(statistics)
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        let mut sum = 0;
        for file in [VERSION_FILE, LOCK, STAMPS] {
            sum += files::disk_bytes_if_exists(&self.root.join(file))?.unwrap_or(0);
        }
        for folder in [
            IMAGES, MEMORIES, LAYERS, MODULES, RECORDS, NAMES, TAGS, TEMPORARY,
        ] {
            sum += self.amount_in(folder)?.bytes;
        }
        Ok(sum)
    }

    fn amount_in(&self, folder: &str) -> Result<Amount, StoreError> {
        let mut amount = Amount::default();
        for (_, path) in files::list(&self.root.join(folder))? {
            if let Some(bytes) = files::disk_bytes_if_exists(&path)? {
                amount = amount + Amount { count: 1, bytes };
            }
        }
        Ok(amount)
    }
}

/// A layer, and what images show of it.
struct LayerUse {
    page_bytes: u64,
    /// In bytes of the file.
    visible: Vec<Range<u64>>,
}

impl LayerUse {
    fn hidden_bytes(&self) -> u64 {
        let visible = self.visible.iter().map(|range| range.end - range.start);
        self.page_bytes.saturating_sub(visible.sum())
    }

    /// Makes ranges that touch each other one.
    fn unite(&mut self) {
        self.visible.sort_by_key(|range| range.start);
        self.visible.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
    }
}

/// Adds what a memory shows of its layers.
fn show(memory: &StoredMemory, layers: &mut HashMap<LayerId, LayerUse>) {
    let mut shown = vec![Vec::new(); memory.layers().len()];
    for extent in memory.extents() {
        shown[extent.layer as usize].push(extent.layer_offset..extent.layer_end());
    }
    for (layer, mut ranges) in memory.layers().iter().zip(shown) {
        let used = layers.entry(layer.id()).or_insert_with(|| LayerUse {
            page_bytes: layer.page_bytes(),
            visible: Vec::new(),
        });
        used.visible.append(&mut ranges);
        used.unite();
    }
}
