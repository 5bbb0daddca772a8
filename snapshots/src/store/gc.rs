//! Garbage collection: deleting what nobody needs.
//!
//! ```text
//! names, tags, what a retention keeps ─┐
//! images in use ───────────────────────┼─> live images ──> their records
//! images younger than the grace period ┘    │  ^            page maps ──> layers
//!                                           └──┘            modules
//!                              parents of their records
//! ```
//!
//! All of it happens under the exclusive lock of the store, so nobody publishes or loads meanwhile. Marking comes first
//! and is complete or fails: as long as anything live cannot be read, nothing is deleted. What refers to something is
//! deleted, durably, before it, so that a crash leaves garbage for the next time and nothing worse.

mod mark;
mod report;
mod sweep;

use std::time::Duration;

use super::Store;
use super::retention::Retention;
use crate::error::StoreError;

pub use report::{Amount, Freed, GcReport, KeptBecause};

const DAY_SECS: u64 = 24 * 60 * 60;

/// How to collect garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcOptions {
    /// Report what would be deleted, and delete nothing.
    pub dry_run: bool,
    /// Images that nothing points at stay for so long after they, or their last records, were stored: somebody may still
    /// want to resume a snapshot that has no name. A retention goes before it.
    pub grace: Duration,
    /// Which snapshots of programs with a name stay; without one, all that led to the latest.
    pub retention: Option<Retention>,
}

impl Default for GcOptions {
    /// A grace period of 14 days and no retention.
    fn default() -> Self {
        Self {
            dry_run: false,
            grace: Duration::from_secs(14 * DAY_SECS),
            retention: None,
        }
    }
}

impl Store {
    /// Deletes what nobody needs. What stays are the images that tags and names point at, those that are in use, those
    /// within the grace period, all ancestors of these by the parents of their records (unless a retention drops them),
    /// and all that these consist of. What is left in the folder of temporary files is deleted too. Waits for
    /// everybody who is publishing or loading.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] or [`StoreError::Damaged`], naming the file, when a name, a tag, a record, or something
    /// that an image which stays consists of cannot be read: nothing has been deleted then. [`StoreError::Io`].
    pub fn gc(&self, options: &GcOptions) -> Result<GcReport, StoreError> {
        let _lock = self.lock_exclusive()?;
        let mark = self.mark(options)?;
        let garbage = self.garbage(&mark)?;
        if !options.dry_run {
            self.sweep(&mark, &garbage)?;
        }
        Ok(garbage.report(&mark, options.dry_run))
    }
}
