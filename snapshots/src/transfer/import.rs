//! Publishes what has been received and checked.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;

use super::Imported;
use super::error::ImportError;
use super::receive::{Shipment, SpooledImage};
use super::spool::{Spool, SpooledMemory};
use crate::id::{ImageId, MemoryHash, RecordId};
use crate::manifest::Manifest;
use crate::record::Record;
use crate::store::{MemoryUpdate, PageSource, Published, Store, StoredImage};

/// Stores everything in an order in which nothing refers to what is not there: modules, then images in the order of
/// the stream, in which the base of a memory comes before it, then records.
pub(super) fn publish(store: &Store, shipment: &Shipment) -> Result<Imported, ImportError> {
    // From the first look for what exists until everything is published nobody may delete anything.
    let _lock = store.lock_shared()?;
    let mut publisher = Publisher {
        store,
        shipment,
        places: HashMap::new(),
        last: None,
        imported: Imported {
            images: Vec::new(),
            new_images: Vec::new(),
            new_records: 0,
            names: shipment.names.iter().cloned().collect(),
            stream_bytes: shipment.stream_bytes,
            added_bytes: 0,
        },
    };
    publisher.modules()?;
    for image in &shipment.images {
        publisher.image(image)?;
    }
    publisher.records()?;
    Ok(publisher.imported)
}

struct Publisher<'a> {
    store: &'a Store,
    shipment: &'a Shipment,
    /// An image that each memory published so far belongs to, and the memory's index in it.
    places: HashMap<MemoryHash, (ImageId, usize)>,
    /// The image published last, open: most often the next one has its memories as bases.
    last: Option<StoredImage>,
    imported: Imported,
}

impl Publisher<'_> {
    fn modules(&mut self) -> Result<(), ImportError> {
        for (hash, piece) in &self.shipment.modules {
            let exists = self.store.has_module(*hash)?;
            if self.store.put_module(&self.shipment.spool.read(*piece)?)? != *hash {
                return Err(ImportError::Spool { what: "module" });
            }
            if !exists {
                self.imported.added_bytes += piece.byte_len;
            }
        }
        Ok(())
    }

    fn image(&mut self, image: &SpooledImage) -> Result<(), ImportError> {
        let decoded = Manifest::decode(&self.shipment.spool.read(image.manifest)?);
        let manifest = decoded.map_err(|_| ImportError::Spool { what: "manifest" })?;
        let existing = self.store.load(image.id).ok();
        let is_new = existing.is_none();
        if let Some(existing) = existing {
            self.opened(existing);
        }
        // An existing image is published too: its files may not be durable yet. That takes no more than to sync them.
        let Published {
            image: published,
            added_bytes,
        } = self.publish_image(manifest)?;
        if published.id() != image.id {
            return Err(ImportError::Spool { what: "memory" });
        }
        self.opened(published);
        self.imported.added_bytes += added_bytes;
        if image.requested {
            self.imported.images.push(image.id);
        }
        if is_new {
            self.imported.new_images.push(image.id);
        }
        Ok(())
    }

    /// Takes note of where memories are stored.
    fn opened(&mut self, image: StoredImage) {
        for (index, state) in image.manifest().memories.iter().enumerate() {
            let place = (image.id(), index);
            self.places.entry(state.content).or_insert(place);
        }
        self.last = Some(image);
    }

    fn publish_image(&self, manifest: Manifest) -> Result<Published, ImportError> {
        let parts: Vec<Part<'_>> = manifest
            .memories
            .iter()
            .map(|state| self.part(state.content))
            .collect();
        let open = self.open_bases(&parts)?;
        let find = |id| open.iter().chain(&self.last).find(|image| image.id() == id);
        let updates: Vec<MemoryUpdate<'_>> = parts
            .iter()
            .map(|part| MemoryUpdate {
                base: part
                    .base
                    .and_then(|(id, index)| find(id)?.memories().get(index)),
                byte_len: part.memory.byte_len,
                dirty: part.dirty,
                source: part,
            })
            .collect();
        Ok(self.store.publish_update(manifest, &updates)?)
    }

    fn part(&self, content: MemoryHash) -> Part<'_> {
        let memory = &self.shipment.memories[&content];
        let (base, dirty) = match self.places.get(&content) {
            Some(place) => (Some(*place), &[][..]),
            // The base of a memory belongs to an image before, so it has its place.
            None => {
                let base = memory.base.and_then(|base| self.places.get(&base));
                (base.copied(), &memory.changed[..])
            }
        };
        Part {
            spool: &self.shipment.spool,
            memory,
            base,
            dirty,
        }
    }

    /// Opens the images that bases belong to, but for the one that is open.
    fn open_bases(&self, parts: &[Part<'_>]) -> Result<Vec<StoredImage>, ImportError> {
        let last = self.last.as_ref().map(StoredImage::id);
        let ids: HashSet<ImageId> = parts
            .iter()
            .filter_map(|part| part.base.map(|(id, _)| id))
            .filter(|id| Some(*id) != last)
            .collect();
        let open = ids.into_iter().map(|id| self.store.load(id));
        Ok(open.collect::<Result<_, _>>()?)
    }

    /// Stores the records that the store does not have.
    fn records(&mut self) -> Result<(), ImportError> {
        if self.shipment.records.is_empty() {
            return Ok(());
        }
        let records = self.store.records()?;
        let existing: HashSet<RecordId> = records.iter().map(|record| record.id).collect();
        for (id, piece) in &self.shipment.records {
            if existing.contains(id) {
                continue;
            }
            let decoded = Record::decode(&self.shipment.spool.read(*piece)?, *id);
            let record = decoded.map_err(|_| ImportError::Spool { what: "record" })?;
            self.store.put_foreign_record(&record)?;
            self.imported.new_records += 1;
            self.imported.added_bytes += piece.byte_len;
        }
        Ok(())
    }
}

/// A memory to be published.
struct Part<'a> {
    spool: &'a Spool,
    memory: &'a SpooledMemory,
    /// An image that is in the store and the index of the memory in it that this one is told as a difference to.
    base: Option<(ImageId, usize)>,
    /// What differs, in bytes.
    dirty: &'a [Range<u64>],
}

impl PageSource for Part<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.memory.read_at(self.spool, offset, buffer)
    }
}
