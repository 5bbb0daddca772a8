//! Every change of a store, interrupted at each of its calls to the file system: by an error, by the end of the process,
//! and by the loss of power.

#[path = "../common/mod.rs"]
mod common;

mod check;
mod failures;
mod kills;
mod model;
mod power_loss;
mod promises;
mod scenarios;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use wsnap_snapshots::{Faults, GcOptions, Store, StoreError};

use promises::Promises;
use scenarios::Scenario;

/// Nothing is young.
const NO_GRACE: GcOptions = GcOptions {
    dry_run: false,
    grace: std::time::Duration::ZERO,
    retention: None,
};

/// A folder in main memory where there is one, since thousands of stores are written.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

/// Where the store of a scenario lies in its folder. The folder itself belongs to the scenario too, since creating a
/// store changes it.
fn store_path(folder: &Path) -> PathBuf {
    folder.join("store")
}

fn copy(from: &Path, to: &Path) {
    for path in common::files_in(from) {
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => {
                std::fs::create_dir(&target).unwrap();
                copy(&path, &target);
            }
            false => drop(std::fs::copy(&path, &target).unwrap()),
        }
    }
}

fn copied(folder: &Path) -> TempDir {
    let copied = scratch();
    copy(folder, copied.path());
    copied
}

/// Opens the store and does what the scenario is about.
fn attempt(
    scenario: &Scenario,
    folder: &Path,
    faults: Arc<dyn Faults>,
    ids: &[wsnap_snapshots::ImageId],
    promises: &Promises,
) -> Result<(), StoreError> {
    let store = Store::open_with_faults(store_path(folder), faults)?;
    (scenario.operation)(&store, ids, promises)
}

/// Does what the scenario is about once more, after it was interrupted. What had been removed is missing then.
fn repeat(
    scenario: &Scenario,
    store: &Store,
    ids: &[wsnap_snapshots::ImageId],
) -> Result<(), String> {
    match (scenario.operation)(store, ids, &Promises::default()) {
        Ok(()) | Err(StoreError::NotFound { .. } | StoreError::Missing { what: "image", .. }) => {
            Ok(())
        }
        Err(error) => Err(format!("cannot be repeated: {error:?}")),
    }
}
