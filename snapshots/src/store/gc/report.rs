//! What a garbage collection did, or would do.

use std::iter::Sum;
use std::ops::Add;

use super::mark::Mark;
use super::sweep::Garbage;
use crate::id::{ImageId, RecordId};

/// A number of files and the space they take on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many files.
    pub count: u64,
    /// The space in bytes that the file system has set aside for them.
    pub bytes: u64,
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Self::add)
    }
}

/// What was deleted, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Manifests.
    pub images: Amount,
    /// Records.
    pub records: Amount,
    /// Page maps.
    pub page_maps: Amount,
    /// Layers.
    pub layers: Amount,
    /// Modules.
    pub modules: Amount,
    /// Files that somebody began to write.
    pub temporary: Amount,
}

impl Freed {
    /// Everything together.
    pub fn total(&self) -> Amount {
        let Self {
            images,
            records,
            page_maps,
            layers,
            modules,
            temporary,
        } = *self;
        [images, records, page_maps, layers, modules, temporary]
            .into_iter()
            .sum()
    }
}

/// Why an image that no name, tag or retention keeps is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum KeptBecause {
    /// Somebody has it open.
    InUse,
    /// It is younger than the grace period.
    Young,
}

/// What a garbage collection did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcReport {
    /// Whether nothing was deleted in truth.
    pub dry_run: bool,
    /// The images deleted, ascending.
    pub images: Vec<ImageId>,
    /// The records deleted, oldest first.
    pub records: Vec<RecordId>,
    /// Files and bytes.
    pub freed: Freed,
    /// How many images stay.
    pub live_images: u64,
    /// The images that would have been deleted, but are in use or young, each once, ascending. Their ancestors, which
    /// stay with them, are not among them for that.
    pub kept: Vec<(ImageId, KeptBecause)>,
}

impl Garbage {
    pub fn report(self, mark: &Mark, dry_run: bool) -> GcReport {
        let mut kept = mark.kept.clone();
        kept.sort_unstable();
        let freed = Freed {
            images: amount(self.images.iter().map(|file| file.disk_bytes)),
            records: amount(self.records.iter().map(|file| file.disk_bytes)),
            page_maps: amount(self.page_maps.iter().map(|file| file.disk_bytes)),
            layers: amount(self.layers.iter().map(|file| file.disk_bytes)),
            modules: amount(self.modules.iter().map(|file| file.disk_bytes)),
            temporary: amount(self.temporary.iter().map(|file| file.disk_bytes)),
        };
        GcReport {
            dry_run,
            images: self.images.into_iter().map(|file| file.name).collect(),
            records: self.records.into_iter().map(|file| file.name).collect(),
            freed,
            live_images: mark.images.len() as u64,
            kept,
        }
    }
}

fn amount(disk_bytes: impl Iterator<Item = u64>) -> Amount {
    disk_bytes.map(|bytes| Amount { count: 1, bytes }).sum()
}
