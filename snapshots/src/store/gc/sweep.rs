//! Deleting what is not live.

use std::collections::HashSet;
use std::hash::Hash;
use std::path::PathBuf;
use std::str::FromStr;

use super::mark::Mark;
use crate::error::StoreError;
use crate::id::{ImageId, LayerId, MemoryHash, ModuleHash, RecordId};
use crate::store::stamps::Live;
use crate::store::{LAYERS, MEMORIES, MODULES, Store, TEMPORARY, files};

/// A file that goes.
#[derive(Debug)]
pub(super) struct File<T> {
    pub name: T,
    pub path: PathBuf,
    pub disk_bytes: u64,
}

/// The files that go.
#[derive(Debug)]
pub(super) struct Garbage {
    /// By ascending id.
    pub images: Vec<File<ImageId>>,
    /// Oldest first.
    pub records: Vec<File<RecordId>>,
    pub page_maps: Vec<File<MemoryHash>>,
    pub layers: Vec<File<LayerId>>,
    pub modules: Vec<File<ModuleHash>>,
    pub temporary: Vec<File<()>>,
}

impl Store {
    /// All that isn't marked.
    pub(super) fn garbage(&self, mark: &Mark) -> Result<Garbage, StoreError> {
        let mut images = Vec::new();
        for entry in &mark.entries {
            if !mark.images.contains(&entry.id) {
                images.extend(file(entry.id, self.image_path(entry.id))?);
            }
        }
        let mut records = Vec::new();
        for record in &mark.records {
            if !mark.images.contains(&record.image) {
                records.extend(file(record.id, self.record_path(record.id))?);
            }
        }
        let mut temporary = Vec::new();
        for (_, path) in files::list(&self.root.join(TEMPORARY))? {
            temporary.extend(file((), path)?);
        }
        Ok(Garbage {
            images,
            records,
            page_maps: self.unmarked(MEMORIES, "", &mark.memories)?,
            layers: self.unmarked(LAYERS, "", &mark.layers)?,
            modules: self.unmarked(MODULES, ".wasm", &mark.modules)?,
            temporary,
        })
    }

    /// Deletes garbage. Each kind is durably gone before that which it refers to goes.
    pub(super) fn sweep(&self, mark: &Mark, garbage: &Garbage) -> Result<(), StoreError> {
        let doomed: HashSet<RecordId> = garbage.records.iter().map(|file| file.name).collect();
        self.remove_records(&mark.records, &doomed)?;
        self.remove_all(&garbage.images)?;
        self.remove_all(&garbage.page_maps)?;
        self.remove_all(&garbage.layers)?;
        self.remove_all(&garbage.modules)?;
        self.remove_all(&garbage.temporary)?;
        self.compact_stamps(&Live {
            layers: &mark.layers,
            modules: &mark.modules,
        })
    }

    fn remove_all<T>(&self, files: &[File<T>]) -> Result<(), StoreError> {
        for file in files {
            self.root.remove_if_exists(&file.path)?;
        }
        match files.first() {
            Some(file) => self.root.sync_parent(&file.path),
            None => Ok(()),
        }
    }

    /// The files of a folder that are content, but nobody's.
    fn unmarked<T: FromStr + Eq + Hash>(
        &self,
        folder: &str,
        extension: &str,
        live: &HashSet<T>,
    ) -> Result<Vec<File<T>>, StoreError> {
        let mut unmarked = Vec::new();
        for (name, path) in files::list(&self.root.join(folder))? {
            let hash = name
                .strip_suffix(extension)
                .and_then(|name| name.parse().ok());
            if let Some(hash) = hash.filter(|hash| !live.contains(hash)) {
                unmarked.extend(file(hash, path)?);
            }
        }
        Ok(unmarked)
    }
}

fn file<T>(name: T, path: PathBuf) -> Result<Option<File<T>>, StoreError> {
    let disk_bytes = files::disk_bytes_if_exists(&path)?;
    Ok(disk_bytes.map(|disk_bytes| File {
        name,
        path,
        disk_bytes,
    }))
}
