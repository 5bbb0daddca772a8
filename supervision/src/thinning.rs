//! Removing the older ones of the images that are taken at intervals.

use std::collections::HashMap;
use std::time::Duration;

use wsnap::snapshots::{GcOptions, ImageId, Record, Store, StoreError};

use crate::keeper::AUTOSAVE_TRIGGER;

/// Keeps the newest images that were taken of a program at intervals, and removes the older ones.
///
/// Images that somebody has tagged, that are in use, rejected, taken for another reason, or in the history of another
/// program too stay.
#[derive(Debug)]
pub struct Thinning {
    store: Store,
    name: String,
    kept: usize,
    /// How many have been removed since what they consisted of was.
    removed: usize,
}

impl Thinning {
    /// Of the program of this name, so many images stay.
    pub fn new(store: Store, name: String, kept: usize) -> Self {
        Self {
            store,
            name,
            kept,
            removed: 0,
        }
    }

    /// Removes what is too many. Now and then also what no image needs any more, which takes longer.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. What has not been removed now will be the next time.
    pub fn thin(&mut self) -> Result<(), StoreError> {
        let records = self.store.readable_records()?.0;
        for image in self.surplus(&records) {
            match self.store.remove_image(image, false) {
                Ok(_) => self.removed += 1,
                // Somebody runs it, has given it a tag, or has removed it.
                Err(
                    StoreError::InUse { .. }
                    | StoreError::Referenced { .. }
                    | StoreError::Missing { .. },
                ) => (),
                Err(error) => return Err(error),
            }
        }
        if self.removed >= self.kept.max(1) {
            self.removed = 0;
            // Only what no image needs: whether other images are worth keeping is for their owner to say.
            self.store.gc(&GcOptions {
                grace: Duration::MAX,
                ..GcOptions::default()
            })?;
        }
        Ok(())
    }

    /// The images to remove, oldest first. `records` are sorted by time.
    fn surplus(&self, records: &[Record]) -> Vec<ImageId> {
        let is_saved = |record: &Record| {
            record.name.as_deref() == Some(&self.name)
                && record.trigger == AUTOSAVE_TRIGGER
                && record.rejected.is_none()
        };
        let mut all_saved: HashMap<ImageId, bool> = HashMap::new();
        for record in records {
            let all = all_saved.entry(record.image).or_insert(true);
            *all &= is_saved(record);
        }
        let mut images = Vec::new();
        for record in records.iter().rev() {
            if all_saved[&record.image] && !images.contains(&record.image) {
                images.push(record.image);
            }
        }
        let mut surplus = images.split_off(self.kept.min(images.len()));
        surplus.reverse();
        surplus
    }
}
