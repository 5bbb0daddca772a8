//! Removing single images.

use std::collections::{BTreeMap, HashSet};
use std::fs::TryLockError;

use super::files::{self, ResultExt};
use super::{NAMES, RECORDS, Store, TAGS};
use crate::error::StoreError;
use crate::history::History;
use crate::id::{ImageId, RecordId};
use crate::record::Record;

/// What [`Store::remove_image`] removed beside the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The image's records.
    pub records: Vec<RecordId>,
    /// The tags that pointed at it.
    pub tags: Vec<String>,
    /// The names of programs whose latest image it was, each with the image that is the latest now. Names without one
    /// are removed.
    pub names: BTreeMap<String, Option<ImageId>>,
}

impl Store {
    /// Removes an image and its records; their children get the records' parents. It is durable on return. The space
    /// that its content takes is freed by the next [`Store::gc`].
    ///
    /// With `force`, tags that point at the image are removed, and the name of a program whose latest image it is goes
    /// to that program's newest other image by its records, or is removed too. An image that is damaged or missing can
    /// be removed like any other. Records that cannot be read stay as they are, except those of the
    /// image itself, which their names tell.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] when a program is running on the image, also with `force`; [`StoreError::Referenced`] when
    /// tags or names point at it; [`StoreError::Missing`] when nothing is known of it; [`StoreError::Damaged`] when some
    /// reference is unreadable; [`StoreError::Io`].
    pub fn remove_image(&self, id: ImageId, force: bool) -> Result<Removed, StoreError> {
        let _lock = self.lock_exclusive()?;
        let (records, _) = self.readable_records()?;
        let tags = pointing_at(self.tags()?, id);
        let names = pointing_at(self.names()?, id);
        let own: HashSet<RecordId> = records
            .iter()
            .filter(|record| record.image == id)
            .map(|record| record.id)
            .collect();
        if own.is_empty() && tags.is_empty() && names.is_empty() {
            self.require_image(id)?;
        }
        if self.is_in_use(id)? {
            return Err(StoreError::InUse { image: id });
        }
        let is_referenced = !tags.is_empty() || !names.is_empty();
        if is_referenced && !force {
            return Err(StoreError::Referenced {
                image: id,
                tags,
                names,
            });
        }
        // What refers to something goes before it, so that a crash leaves no reference to what is gone.
        let names = self.point_elsewhere(names, id, &records)?;
        for tag in &tags {
            self.remove_reference(TAGS, tag)?;
        }
        let mut removed = self.remove_records(&records, &own)?;
        removed.extend(self.remove_unreadable_records(id, &records)?);
        let path = self.image_path(id);
        if self.root.remove_if_exists(&path)? {
            self.root.sync_parent(&path)?;
        }
        Ok(Removed {
            records: removed,
            tags,
            names,
        })
    }

    /// Removes records durably, after their children have got the nearest ancestor that stays. Returns their ids in
    /// order of time.
    pub(super) fn remove_records(
        &self,
        all: &[Record],
        doomed: &HashSet<RecordId>,
    ) -> Result<Vec<RecordId>, StoreError> {
        let history = History::new(all);
        for record in all.iter().filter(|record| !doomed.contains(&record.id)) {
            if record.parent.is_some_and(|parent| doomed.contains(&parent)) {
                let parent = history.parent(record.id).map(|parent| parent.id);
                let staying = history
                    .lineage(parent)
                    .find(|ancestor| !doomed.contains(&ancestor.id));
                self.set_parent(record.id, staying.map(|ancestor| ancestor.id))?;
            }
        }
        let mut removed = Vec::new();
        for record in history.records() {
            if doomed.contains(&record.id) {
                self.root.remove_if_exists(&self.record_path(record.id))?;
                removed.push(record.id);
            }
        }
        if !removed.is_empty() {
            self.root.sync_directory(&self.root.join(RECORDS))?;
        }
        Ok(removed)
    }

    /// Removes the records of an image that are not among those that could be read, durably.
    fn remove_unreadable_records(
        &self,
        image: ImageId,
        readable: &[Record],
    ) -> Result<Vec<RecordId>, StoreError> {
        let mut ids = self.record_ids()?;
        ids.retain(|id| id.fits(image) && readable.iter().all(|record| record.id != *id));
        for id in &ids {
            self.root.remove_if_exists(&self.record_path(*id))?;
        }
        if !ids.is_empty() {
            self.root.sync_directory(&self.root.join(RECORDS))?;
        }
        Ok(ids)
    }

    /// Whether somebody holds the image open. Only under the exclusive lock of the store does the answer stay true.
    pub(super) fn is_in_use(&self, id: ImageId) -> Result<bool, StoreError> {
        let path = self.image_path(id);
        let Some(file) = files::open_if_exists(&path)? else {
            return Ok(false);
        };
        match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error).during("lock", &path),
        }
    }

    /// Makes names point at the newest image but `id` of the program they stand for.
    fn point_elsewhere(
        &self,
        names: Vec<String>,
        id: ImageId,
        records: &[Record],
    ) -> Result<BTreeMap<String, Option<ImageId>>, StoreError> {
        let mut targets = BTreeMap::new();
        for name in names {
            let target = self.newest_image(&name, id, records)?;
            match target {
                Some(image) => self.write_reference(NAMES, &name, image)?,
                None => self.remove_reference(NAMES, &name)?,
            }
            targets.insert(name, target);
        }
        Ok(targets)
    }

    fn newest_image(
        &self,
        name: &str,
        except: ImageId,
        records: &[Record],
    ) -> Result<Option<ImageId>, StoreError> {
        let of_program =
            |record: &&Record| record.name.as_deref() == Some(name) && record.image != except;
        // Records are sorted by time.
        for record in records.iter().rev().filter(of_program) {
            if files::size_if_exists(&self.image_path(record.image))?.is_some() {
                return Ok(Some(record.image));
            }
        }
        Ok(None)
    }
}

fn pointing_at(references: BTreeMap<String, ImageId>, id: ImageId) -> Vec<String> {
    references
        .into_iter()
        .filter(|(_, target)| *target == id)
        .map(|(name, _)| name)
        .collect()
}
