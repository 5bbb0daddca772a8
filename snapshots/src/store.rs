//! The store: a directory of content-addressed files.
//!
//! ```text
//! version              text: the store version
//! modules/<hash>.wasm  original modules
//! images/<id>          manifests
//! memories/<hash>      page maps: which stretch of a memory lies where in which layer
//! layers/<id>          pages of memory, to be mapped straight into a program
//! records/<id>.json    when, why and from what each snapshot was taken
//! names/<name>         the latest image of each named program
//! tags/<tag>           tags
//! jobs/<name>.journal  what whoever keeps a named program running remembers of it
//! jobs/<name>.lock     who runs it now; locked by its process
//! tmp/                 files being written
//! verified             stamps: which files need no verification
//! lock                 empty; locked by those who publish, load or delete
//! ```
//!
//! A file appears under its final name by a rename, complete and synced, and is never modified afterwards. What it
//! refers to is durable before it appears. So a crash between any two system calls leaves nothing worse than a file in
//! `tmp/` or content that no image names.

mod absorb;
mod faults;
mod files;
mod gc;
mod inventory;
mod jobs;
mod layer;
mod load;
mod lock;
mod modules;
mod pipeline;
mod publish;
mod records;
mod refs;
mod remove;
mod retention;
mod stamps;
mod statistics;
mod unnamed;
mod update;
mod verify;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::{Damage, StoreError};
use crate::id::{ImageId, LayerId, LeafHash, MemoryHash};
use crate::manifest::Manifest;
use files::{ResultExt, Root, Staged};

pub use faults::{Faults, Operation, OperationKind};
pub use gc::{Amount, Freed, GcOptions, GcReport, KeptBecause};
pub use inventory::{Item, Verification};
pub use jobs::JobLock;
pub use layer::Layer;
pub use load::{StoredImage, StoredMemory};
pub use lock::StoreLock;
pub use modules::StoredModule;
pub use refs::check_name;
pub use remove::Removed;
pub use retention::Retention;
pub use statistics::Statistics;
pub(crate) use unnamed::UnnamedFile;
pub use update::{MemoryUpdate, PageSource, Published};

/// The version of the directory layout.
const VERSION: u32 = 1;
const VERSION_FILE: &str = "version";
const LOCK: &str = "lock";
const STAMPS: &str = "verified";
/// The largest module, manifest or page map in bytes: 1 GiB.
pub(crate) const CONTENT_LEN_MAX: u64 = 1 << 30;
/// The largest reference or version file in bytes.
const TEXT_LEN_MAX: u64 = 256;

const MODULES: &str = "modules";
const IMAGES: &str = "images";
const MEMORIES: &str = "memories";
const LAYERS: &str = "layers";
const RECORDS: &str = "records";
const NAMES: &str = "names";
const TAGS: &str = "tags";
const TEMPORARY: &str = "tmp";
/// Made when the first program with a name is run.
const JOBS: &str = "jobs";
const FOLDERS: [&str; 8] = [
    MODULES, IMAGES, MEMORIES, LAYERS, RECORDS, NAMES, TAGS, TEMPORARY,
];

/// A directory that holds images. Any number of threads and processes can use one at the same time.
#[derive(Clone, Debug)]
pub struct Store {
    root: Root,
}

/// An image in a store's listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageEntry {
    /// The image's id.
    pub id: ImageId,
    /// When this store received it.
    pub stored_at: SystemTime,
    /// The size of its manifest in bytes.
    pub manifest_len: u64,
}

impl Store {
    /// Opens the store in `directory`, which is created, with its parents, when it is missing. Opening a complete
    /// store writes nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotAStore`] when the directory holds other files, [`StoreError::OtherVersion`] when it is a store
    /// of another version of the layout.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_in(Root::new(directory.into(), None))
    }

    /// Opens a store as [`Store::open`] does, all of whose changes `faults` can make fail. For tests.
    ///
    /// # Errors
    ///
    /// As [`Store::open`], and what `faults` answers.
    #[doc(hidden)]
    pub fn open_with_faults(
        directory: impl Into<PathBuf>,
        faults: Arc<dyn Faults>,
    ) -> Result<Self, StoreError> {
        Self::open_in(Root::new(directory.into(), Some(faults)))
    }

    fn open_in(root: Root) -> Result<Self, StoreError> {
        let store = Self { root };
        let version_path = store.root.join(VERSION_FILE);
        let version = files::read_if_exists(&version_path, TEXT_LEN_MAX, "store version")?;
        match &version {
            Some(text) => check_version(&version_path, text)?,
            None => store.check_not_foreign()?,
        }
        let created = store.create_folders()?;
        if version.is_none() {
            // Whoever collects garbage meanwhile takes the file being written for some.
            let _lock = store.lock_shared()?;
            Staged::text(&store.root, version_path)?
                .write_and_publish(version_text().as_bytes())?;
        } else if created {
            store.root.sync_directory(&store.root)?;
        }
        Ok(store)
    }

    /// The store's directory.
    pub fn directory(&self) -> &Path {
        &self.root
    }

    /// Reads the manifest of an image and checks it against its id.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] or [`StoreError::Damaged`].
    pub fn manifest(&self, id: ImageId) -> Result<Manifest, StoreError> {
        let path = self.image_path(id);
        let bytes = files::read(&path, CONTENT_LEN_MAX, "image")?;
        check_manifest(id, &path, &bytes)
    }

    /// All images, by ascending id. Their content isn't looked at.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`].
    pub fn images(&self) -> Result<Vec<ImageEntry>, StoreError> {
        let mut entries = Vec::new();
        let folder = self.root.join(IMAGES);
        for (name, path) in files::list(&folder)? {
            let Ok(id) = name.parse() else { continue };
            match fs::metadata(&path) {
                Ok(metadata) => entries.push(ImageEntry {
                    id,
                    stored_at: metadata.modified().during("read the time of", &path)?,
                    manifest_len: metadata.len(),
                }),
                // Deleted by another process since the directory was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => (),
                Err(error) => return Err(error).during("read the size of", &path),
            }
        }
        entries.sort_unstable_by_key(|entry| entry.id);
        Ok(entries)
    }

    fn check_not_foreign(&self) -> Result<(), StoreError> {
        let entries = match files::list(&self.root) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            entries => entries?,
        };
        // Folders without a version file: another process is creating this store, or was stopped while it did.
        let known = |name: &str| {
            [VERSION_FILE, LOCK, STAMPS, JOBS].contains(&name) || FOLDERS.contains(&name)
        };
        if entries.iter().all(|(name, _)| known(name)) {
            return Ok(());
        }
        Err(StoreError::NotAStore {
            path: self.root.to_path_buf(),
        })
    }

    /// Creates what is missing of the root and its folders and tells whether anything was.
    fn create_folders(&self) -> Result<bool, StoreError> {
        let mut created = self.root.create_directories(&self.root)?;
        for folder in FOLDERS {
            created |= self.root.create_directories(&self.root.join(folder))?;
        }
        Ok(created)
    }

    fn image_path(&self, id: ImageId) -> PathBuf {
        self.root.join(IMAGES).join(id.to_string())
    }

    fn memory_path(&self, hash: MemoryHash) -> PathBuf {
        self.root.join(MEMORIES).join(hash.to_string())
    }

    fn layer_path(&self, id: LayerId) -> PathBuf {
        self.root.join(LAYERS).join(id.to_string())
    }

    /// Opens a layer; the second part of the answer are the leaf hashes in its index.
    fn open_layer(&self, id: LayerId) -> Result<(Layer, Vec<(u32, LeafHash)>), StoreError> {
        let path = self.layer_path(id);
        match File::open(&path) {
            Ok(file) => Layer::open(id, path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Missing {
                what: "layer",
                path,
            }),
            Err(error) => Err(error).during("open", &path),
        }
    }
}

/// Decodes the manifest of an image after checking that it is the one that the image is named by.
fn check_manifest(id: ImageId, path: &Path, bytes: &[u8]) -> Result<Manifest, StoreError> {
    let found = ImageId::of(bytes);
    let decoded = if found == id {
        Manifest::decode(bytes).map_err(Damage::Decode)
    } else {
        Err(Damage::Hash {
            found: found.to_string(),
        })
    };
    decoded.map_err(|source| StoreError::Damaged {
        what: "image",
        path: path.to_owned(),
        source,
    })
}

fn check_size(what: &'static str, bytes: &[u8], limit: u64) -> Result<(), StoreError> {
    let size = bytes.len() as u64;
    if size > limit {
        return Err(StoreError::TooLarge { what, size, limit });
    }
    Ok(())
}

fn version_text() -> String {
    format!("wsnap store {VERSION}\n")
}

fn check_version(path: &Path, text: &[u8]) -> Result<(), StoreError> {
    if text == version_text().as_bytes() {
        return Ok(());
    }
    let found = String::from_utf8_lossy(text).trim_end().to_owned();
    Err(StoreError::OtherVersion {
        path: path.to_owned(),
        found,
        supported: VERSION,
    })
}
