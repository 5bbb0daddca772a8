//! The volumes of an image, read and changed without running the program.

use crate::capture::WASI_SECTION;
use crate::error::{Error, Result};
use crate::memory::{HostMemory, Mapping};
use crate::pages::Pages;
use crate::restore::map_volume;
use crate::snapshot::Stored;
use std::io;
use std::sync::Arc;
use wsnap_snapshots::{MemoryUpdate, PageSource, Store, StoredImage};
use wsnap_wasi::{SavedState, Volume};

/// The source of memories of which nothing is written.
static NOTHING: Vec<u8> = Vec::new();

/// The volumes of an image. What is changed here becomes part of another image, which [`ImageVolumes::publish`] makes; the
/// pages that stay as they are, those of the program's memories included, are shared by both.
pub struct ImageVolumes {
    image: Arc<StoredImage>,
    state: SavedState,
    volumes: Vec<Volume>,
    contents: Vec<Arc<Mapping>>,
}

impl ImageVolumes {
    /// Opens the volumes of `image`, which is not verified here: see [`StoredImage::verify`]. Files are read when they are
    /// asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Image`] when the image has no WASI state, or one that contradicts the rest of it.
    pub fn open(image: Arc<StoredImage>) -> Result<Self> {
        let section = image.manifest().host.get(WASI_SECTION);
        let section = section.ok_or_else(|| Error::Image("it has no WASI state".into()))?;
        let state = SavedState::decode(section).map_err(damaged)?;
        let first = first_volume(&image, &state)?;
        let states = image.manifest().memories.iter().zip(image.memories());
        let contents: Vec<Arc<Mapping>> = states
            .skip(first)
            .map(|(state, stored)| map_volume(state, stored))
            .collect::<Result<_>>()?;
        let names = state.volumes.iter().zip(&contents);
        let volumes = names
            .map(|(saved, content)| {
                let memory = Box::new(HostMemory::new(content.clone()));
                state.volume(&saved.name, memory).map_err(damaged)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            image,
            state,
            volumes,
            contents,
        })
    }

    /// The volumes, in the order in which they were granted.
    pub fn all(&self) -> &[Volume] {
        &self.volumes
    }

    /// The volume of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name() == name)
    }

    /// The volume of this name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Volume> {
        let mut volumes = self.volumes.iter_mut();
        volumes.find(|volume| volume.name() == name)
    }

    /// Stores the image that has the volumes as they are now, and everything else as in the image that was opened. Durable
    /// when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub fn publish(mut self, store: &Store) -> Result<Stored> {
        let first = first_volume(&self.image, &self.state)?;
        let mut manifest = self.image.manifest().clone();
        for volume in &self.volumes {
            self.state.set_volume(volume);
        }
        manifest
            .host
            .insert(WASI_SECTION.to_owned(), self.state.encode());
        for (state, content) in manifest.memories[first..].iter_mut().zip(&self.contents) {
            state.pages = content.size() as u64;
        }
        // From here on nobody changes the contents.
        drop(self.volumes);
        let written = Pages::new(self.contents.clone(), Some(self.image.clone())).written();
        let sources: Vec<Content> = self.contents.iter().cloned().map(Content).collect();
        let stored = self.image.memories();
        let unchanged = stored[..first].iter().map(|memory| MemoryUpdate {
            base: Some(memory),
            byte_len: memory.byte_len(),
            dirty: &[],
            source: &NOTHING,
        });
        let changed = stored[first..].iter().zip(&sources).zip(&written.dirty);
        let changed = changed.map(|((memory, source), dirty)| MemoryUpdate {
            base: Some(memory),
            byte_len: source.0.size() as u64,
            dirty: dirty.as_slice(),
            source,
        });
        let updates: Vec<MemoryUpdate<'_>> = unchanged.chain(changed).collect();
        let published = store.publish_update(manifest, &updates)?;
        Ok(Stored {
            image: Arc::new(published.image),
            added_bytes: published.added_bytes,
        })
    }
}

/// The content of a volume that nobody changes any more.
struct Content(Arc<Mapping>);

impl PageSource for Content {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0
            .copy_out(offset..offset + buffer.len() as u64, buffer);
        Ok(())
    }
}

/// The index of the memory that is the content of the first volume: volumes come last.
fn first_volume(image: &StoredImage, state: &SavedState) -> Result<usize> {
    let memories = image.memories().len();
    let first = memories.checked_sub(state.volumes.len());
    first.ok_or_else(|| Error::Image("it has fewer memories than volumes".into()))
}

fn damaged(error: impl std::error::Error) -> Error {
    Error::Image(error.to_string())
}
