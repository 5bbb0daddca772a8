//! Finding out what is live.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use super::{GcOptions, KeptBecause};
use crate::error::StoreError;
use crate::history::History;
use crate::id::{ImageId, LayerId, MemoryHash, ModuleHash, RecordId};
use crate::record::Record;
use crate::store::retention::Decision;
use crate::store::{ImageEntry, Store, files};

/// What stays.
#[derive(Debug, Default)]
pub(in crate::store) struct Mark {
    pub images: HashSet<ImageId>,
    pub memories: HashSet<MemoryHash>,
    pub layers: HashSet<LayerId>,
    pub modules: HashSet<ModuleHash>,
    pub kept: Vec<(ImageId, KeptBecause)>,
    /// All records, live or not, oldest first.
    pub records: Vec<Record>,
    /// All images, live or not.
    pub entries: Vec<ImageEntry>,
}

impl Store {
    /// Marks everything that stays. Fails if any of it cannot be read. Needs the exclusive lock.
    pub(super) fn mark(&self, options: &GcOptions) -> Result<Mark, StoreError> {
        let records = match (options.retention, options.grace) {
            // All images stay, so nothing depends on what a record says that cannot be read.
            (None, Duration::MAX) => self.readable_records()?.0,
            _ => self.records()?,
        };
        let entries = self.images()?;
        let names = self.names()?;
        let decision = options
            .retention
            .map(|retention| retention.decide(&records, &names))
            .unwrap_or_default();

        let mut reach = Reach::new(&records, &decision);
        let pinned = self.tags()?.into_values().chain(names.into_values());
        pinned.for_each(|image| reach.add(image));
        decision.kept.iter().for_each(|image| reach.add(*image));

        let mut kept = Vec::new();
        for image in reach.unreached(&entries) {
            if self.is_in_use(image.id)? {
                kept.push((image.id, KeptBecause::InUse));
            }
        }
        kept.iter().for_each(|(image, _)| reach.add(*image));
        let now = SystemTime::now();
        let mut young = Vec::new();
        for image in reach.unreached(&entries) {
            let is_dropped = decision.dropped.contains(&image.id);
            if !is_dropped && self.is_young(image, &reach, now, options)? {
                young.push((image.id, KeptBecause::Young));
            }
        }
        young.iter().for_each(|(image, _)| reach.add(*image));
        kept.append(&mut young);

        let mut mark = Mark {
            images: reach.images,
            kept,
            ..Mark::default()
        };
        self.mark_content(&mut mark)?;
        Ok(Mark {
            records,
            entries,
            ..mark
        })
    }

    /// Whether the image or one of its records was stored within the grace period.
    fn is_young(
        &self,
        image: &ImageEntry,
        reach: &Reach<'_>,
        now: SystemTime,
        options: &GcOptions,
    ) -> Result<bool, StoreError> {
        // What seems to come from the future has come just now: clocks are set back at times.
        let is_young = |stored_at| {
            let age = now.duration_since(stored_at).unwrap_or_default();
            age < options.grace
        };
        if is_young(image.stored_at) {
            return Ok(true);
        }
        for record in reach.records_of(image.id) {
            let modified = files::modified_if_exists(&self.record_path(record))?;
            if modified.is_some_and(is_young) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Marks all that the live images consist of.
    fn mark_content(&self, mark: &mut Mark) -> Result<(), StoreError> {
        for id in &mark.images {
            let manifest = self.manifest(*id)?;
            mark.modules.insert(manifest.module);
            for memory in &manifest.memories {
                if mark.memories.insert(memory.content) {
                    mark.layers.extend(self.map_layers(memory.content)?);
                }
            }
        }
        Ok(())
    }
}

/// The images reached so far, ancestors included.
struct Reach<'a> {
    history: History<'a>,
    by_image: HashMap<ImageId, Vec<RecordId>>,
    decision: &'a Decision,
    images: HashSet<ImageId>,
    /// The records whose ancestors have been reached.
    followed: HashSet<RecordId>,
}

impl<'a> Reach<'a> {
    fn new(records: &'a [Record], decision: &'a Decision) -> Self {
        let mut by_image: HashMap<ImageId, Vec<RecordId>> = HashMap::new();
        for record in records {
            by_image.entry(record.image).or_default().push(record.id);
        }
        Self {
            history: History::new(records),
            by_image,
            decision,
            images: HashSet::new(),
            followed: HashSet::new(),
        }
    }

    fn records_of(&self, image: ImageId) -> impl Iterator<Item = RecordId> + '_ {
        self.by_image.get(&image).into_iter().flatten().copied()
    }

    fn unreached<'b>(&self, entries: &'b [ImageEntry]) -> Vec<&'b ImageEntry> {
        let is_unreached = |entry: &&ImageEntry| !self.images.contains(&entry.id);
        entries.iter().filter(is_unreached).collect()
    }

    /// Adds an image, whatever a retention says of it, and its ancestors but those that the retention drops.
    fn add(&mut self, image: ImageId) {
        self.images.insert(image);
        let mut next: Vec<RecordId> = self.records_of(image).collect();
        while let Some(id) = next.pop() {
            if !self.followed.insert(id) {
                continue;
            }
            let Some(parent) = self.history.parent(id) else {
                continue;
            };
            // The ancestors of a dropped image may stay though it goes.
            next.push(parent.id);
            if !self.decision.dropped.contains(&parent.image) && self.images.insert(parent.image) {
                next.extend(self.records_of(parent.image));
            }
        }
    }
}
