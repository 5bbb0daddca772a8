//! Images that are resumed again and again.

use crate::error::Result;
use crate::instance::Instance;
use crate::program::Program;
use crate::restore::Plan;
use std::sync::Arc;
use wsnap_snapshots::StoredImage;
use wsnap_wasi::{Wasi, WasiConfig};

/// An image, checked and with the code for its frames compiled: resuming it is mapping its pages and little else.
///
/// Clones share everything, and any number of threads can resume it at once. The image stays open, and in use as far as
/// its store is concerned, as long as a clone of this value lives.
#[derive(Clone)]
pub struct PreparedImage(Arc<Inner>);

struct Inner {
    plan: Plan,
    image: Arc<StoredImage>,
}

impl Program {
    /// Prepares an image of this program for being resumed.
    ///
    /// The image is not verified here: see [`StoredImage::verify`]. Everything else is checked.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Image`] when the image is of another module, or what it says does not fit the module.
    pub fn prepare(&self, image: Arc<StoredImage>) -> Result<PreparedImage> {
        let plan = Plan::new(self, image.manifest())?;
        plan.make_clones()?;
        // Some of what an image says only the engine can check, as it takes the values: a dry run lets it.
        plan.resume(&image, Wasi::new(WasiConfig::default())?)?;
        Ok(PreparedImage(Arc::new(Inner { plan, image })))
    }
}

impl PreparedImage {
    /// The image.
    pub fn image(&self) -> &Arc<StoredImage> {
        &self.0.image
    }

    /// Makes an instance in the image's state. `wasi` is the host state that was restored from the image's section
    /// [`crate::WASI_SECTION`].
    ///
    /// # Errors
    ///
    /// [`crate::Error::Mapping`] when the system has no room for the memories.
    pub fn resume(&self, wasi: Wasi) -> Result<Instance> {
        self.0.plan.resume(&self.0.image, wasi)
    }
}
