//! The records in a store.

use std::path::PathBuf;

use super::files::{self, Staged};
use super::refs::check_name;
use super::{RECORDS, Store, check_size};
use crate::error::{Damage, StoreError};
use crate::id::{ImageId, RecordId};
use crate::record::{NewRecord, RECORD_LEN_MAX, Record, Rejection, with_parent, with_rejection};

const EXTENSION: &str = ".json";

impl Store {
    /// Stores a record under a new id. It is durable on return.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] when there is no such image, [`StoreError::InvalidName`] when the program's name cannot be
    /// one, [`StoreError::TooLarge`] when the texts are longer than a record can be; [`StoreError::Io`].
    pub fn put_record(&self, record: NewRecord) -> Result<Record, StoreError> {
        let _lock = self.lock_shared()?;
        let id = RecordId::of_image(record.image, self.random()?);
        let record = record.with_id(id);
        self.write_record(&record)?;
        Ok(record)
    }

    /// Stores a record that was made in another store, unless this one has a record of that id.
    ///
    /// # Errors
    ///
    /// As [`Store::put_record`]; [`StoreError::Damaged`] when the record's id cannot be that of a record of its image.
    pub fn put_foreign_record(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.record_path(record.id);
        if !record.id.fits(record.image) {
            let source = Damage::OtherImage {
                found: record.image,
            };
            return Err(StoreError::Damaged {
                what: "record",
                path,
                source,
            });
        }
        let _lock = self.lock_shared()?;
        if self.read_record(record.id)?.is_some() {
            return self.root.sync_parent(&path);
        }
        self.write_record(record)
    }

    /// All records, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`], naming the file, when one of them is unreadable; [`StoreError::Io`].
    pub fn records(&self) -> Result<Vec<Record>, StoreError> {
        let (records, damaged) = self.readable_records()?;
        match damaged.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(records),
        }
    }

    /// All records that can be read, oldest first, and for each of the others the error that names its file.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] when the records cannot be listed.
    pub fn readable_records(&self) -> Result<(Vec<Record>, Vec<StoreError>), StoreError> {
        Ok(self.read_records(self.record_ids()?))
    }

    /// The newest record of an image, if it has one. The time taken depends on the number of records in the store only
    /// as far as their file names are listed.
    ///
    /// # Errors
    ///
    /// As [`Store::records`], but only for the records of this image.
    pub fn record_of(&self, image: ImageId) -> Result<Option<Record>, StoreError> {
        let (mut records, damaged) = self.readable_records_of(image)?;
        match damaged.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(records.pop()),
        }
    }

    /// The records of an image, as [`Store::readable_records`] has those of all: two programs, or one at two times, can have
    /// reached the same state. The time taken is as for [`Store::record_of`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] when the records cannot be listed.
    pub fn readable_records_of(
        &self,
        image: ImageId,
    ) -> Result<(Vec<Record>, Vec<StoreError>), StoreError> {
        let ids = self.record_ids()?.into_iter();
        let (mut records, damaged) = self.read_records(ids.filter(|id| id.fits(image)));
        records.retain(|record| record.image == image);
        Ok((records, damaged))
    }

    /// Those that can be read, oldest first, and for each of the others the error that names its file.
    fn read_records(
        &self,
        ids: impl IntoIterator<Item = RecordId>,
    ) -> (Vec<Record>, Vec<StoreError>) {
        let mut records = Vec::new();
        let mut damaged = Vec::new();
        for id in ids {
            match self.read_record(id) {
                Ok(Some(record)) => records.push(record),
                // Deleted by another process since the directory was listed.
                Ok(None) => (),
                Err(error) => damaged.push(error),
            }
        }
        records.sort_unstable_by_key(Record::order);
        (records, damaged)
    }

    /// The records of the program that goes by `name`, oldest first, those that cannot be read left out.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] when the records cannot be listed.
    pub fn records_named(&self, name: &str) -> Result<Vec<Record>, StoreError> {
        let (mut records, _) = self.readable_records()?;
        records.retain(|record| record.name.as_deref() == Some(name));
        Ok(records)
    }

    /// Marks a snapshot as one that its program cannot go on from. It is durable on return. The image stays what it is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] or [`StoreError::Damaged`] when there is no such record; [`StoreError::TooLarge`];
    /// [`StoreError::Io`].
    pub fn reject(&self, id: RecordId, rejection: &Rejection) -> Result<(), StoreError> {
        let _lock = self.lock_shared()?;
        self.rewrite_record(id, |bytes| with_rejection(bytes, rejection))
    }

    /// Gives a record another parent, at once and durably.
    pub(super) fn set_parent(
        &self,
        id: RecordId,
        parent: Option<RecordId>,
    ) -> Result<(), StoreError> {
        self.rewrite_record(id, |bytes| with_parent(bytes, parent))
    }

    fn rewrite_record(
        &self,
        id: RecordId,
        change: impl Fn(&[u8]) -> Result<Vec<u8>, Damage>,
    ) -> Result<(), StoreError> {
        let path = self.record_path(id);
        let bytes = files::read(&path, RECORD_LEN_MAX, "record")?;
        match change(&bytes) {
            Ok(bytes) => {
                check_size("record", &bytes, RECORD_LEN_MAX)?;
                Staged::text(&self.root, path)?.write_and_publish(&bytes)
            }
            Err(source) => Err(StoreError::Damaged {
                what: "record",
                path,
                source,
            }),
        }
    }

    /// The ids of all records, in no order.
    pub(super) fn record_ids(&self) -> Result<Vec<RecordId>, StoreError> {
        let entries = files::list(&self.root.join(RECORDS))?;
        let id_of = |name: &str| name.strip_suffix(EXTENSION)?.parse().ok();
        Ok(entries.iter().filter_map(|(name, _)| id_of(name)).collect())
    }

    pub(super) fn record_path(&self, id: RecordId) -> PathBuf {
        self.root.join(RECORDS).join(format!("{id}{EXTENSION}"))
    }

    pub(super) fn read_record(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let path = self.record_path(id);
        let Some(bytes) = files::read_if_exists(&path, RECORD_LEN_MAX, "record")? else {
            return Ok(None);
        };
        match Record::decode(&bytes, id) {
            Ok(record) => Ok(Some(record)),
            Err(source) => Err(StoreError::Damaged {
                what: "record",
                path,
                source,
            }),
        }
    }

    fn write_record(&self, record: &Record) -> Result<(), StoreError> {
        if let Some(name) = &record.name {
            check_name(name)?;
        }
        self.require_image(record.image)?;
        let bytes = record.encode();
        check_size("record", &bytes, RECORD_LEN_MAX)?;
        Staged::text(&self.root, self.record_path(record.id))?.write_and_publish(&bytes)
    }

    fn random(&self) -> Result<[u8; 8], StoreError> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| StoreError::Io {
            operation: "get random bytes for a record in",
            path: self.root.to_path_buf(),
            source: error.into(),
        })?;
        Ok(bytes)
    }
}
