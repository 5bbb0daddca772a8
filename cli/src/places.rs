//! Where the store and the code cache are.

use std::path::{Path, PathBuf};

use clap::Args;
use etcetera::{BaseStrategy, choose_base_strategy};
use wsnap::snapshots::{ImageId, Store, StoreError};

use crate::failure::Failure;

/// The name of our folders in the user's data and cache directories.
const FOLDER: &str = "wsnap";

/// The flags that every command has.
#[derive(Clone, Debug, Args)]
pub(crate) struct Places {
    /// The directory that holds images [default: `wsnap` in the user's data directory]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "DIR",
        env = "WSNAP_STORE",
        hide_env_values = true
    )]
    store: Option<PathBuf>,
    /// The directory that holds compiled code [default: `wsnap` in the user's cache directory]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "DIR",
        env = "WSNAP_CACHE",
        hide_env_values = true
    )]
    cache: Option<PathBuf>,
}

impl Places {
    /// The store's directory, whether it exists or not.
    pub fn store_directory(&self) -> Result<PathBuf, Failure> {
        match &self.store {
            Some(directory) => Ok(directory.clone()),
            None => Ok(user_directories()?.data_dir().join(FOLDER)),
        }
    }

    /// The code cache's directory. Compiled code is a convenience: without a home directory there is none.
    pub fn cache_directory(&self) -> Option<PathBuf> {
        match &self.cache {
            Some(directory) => Some(directory.clone()),
            None => Some(user_directories().ok()?.cache_dir().join(FOLDER)),
        }
    }

    /// Whether the user said where the code cache is.
    pub fn is_cache_chosen(&self) -> bool {
        self.cache.is_some()
    }

    /// The code cache's directory from the root on, if the user said where it is.
    pub fn chosen_cache(&self) -> Result<Option<PathBuf>, Failure> {
        let cache = self.cache.as_ref().map(std::path::absolute);
        cache
            .transpose()
            .map_err(|error| Failure::new(format!("there is no code cache: {error}")))
    }

    /// Opens the store and creates it if it is missing.
    pub fn create_store(&self) -> Result<Store, Failure> {
        Ok(Store::open(self.store_directory()?)?)
    }

    /// Opens the store if there is one; looking for something creates nothing.
    pub fn find_store(&self) -> Result<Option<Store>, Failure> {
        let directory = self.store_directory()?;
        if !directory.exists() {
            return Ok(None);
        }
        Ok(Some(Store::open(directory)?))
    }

    /// Finds an image and the store that has it.
    pub fn resolve(&self, reference: &str) -> Result<(Store, ImageId), Failure> {
        let Some(store) = self.find_store()? else {
            return Err(StoreError::NotFound {
                reference: reference.to_owned(),
                store: self.store_directory()?,
            }
            .into());
        };
        let id = store.resolve(reference)?;
        Ok((store, id))
    }

    /// The flags that make another command use the same places, also one with another environment.
    pub fn flags(&self) -> Vec<String> {
        let places = [("--store", &self.store), ("--cache", &self.cache)];
        let mut flags = Vec::new();
        for (flag, place) in places {
            if let Some(place) = place {
                flags.extend([flag.to_owned(), place.display().to_string()]);
            }
        }
        flags
    }

    /// The flags that make another command use the same store.
    pub fn store_flags(&self) -> Vec<String> {
        match (&self.store, std::env::var_os("WSNAP_STORE")) {
            (Some(store), from_environment)
                if from_environment.as_deref() != Some(store.as_os_str()) =>
            {
                vec!["--store".to_owned(), store.display().to_string()]
            }
            _ => Vec::new(),
        }
    }
}

fn user_directories() -> Result<impl BaseStrategy, Failure> {
    choose_base_strategy().map_err(|_| {
        Failure::new("there is no home directory, so there is no place for a store")
            .hint("name one with --store DIR or WSNAP_STORE")
    })
}

/// Fails when nothing can be written to the store, as a program is not to compute for hours before that is noticed.
pub(crate) fn check_writable(store: &Store) -> Result<(), Failure> {
    let folder: &Path = &store.directory().join("tmp");
    match tempfile::tempfile_in(folder) {
        Ok(_) => Ok(()),
        Err(source) => Err(StoreError::Io {
            operation: "create a file in",
            path: folder.to_owned(),
            source,
        }
        .into()),
    }
}
