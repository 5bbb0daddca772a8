//! Images that are resumed again and again.

use crate::error::Result;
use crate::instance::Instance;
use crate::program::Program;
use crate::restore::Plan;
use crate::working_set::{self, WorkingSet};
use std::sync::Arc;
use wsnap_snapshots::StoredImage;
use wsnap_wasi::Wasi;

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
    /// Prepares an image of this program for being resumed. Memories that lie in more than 64 pieces are copied, up to 256 MiB,
    /// so that they lie in few: each is a mapping of each instance.
    ///
    /// The image is not verified here: see [`StoredImage::verify`]. Everything else is checked, but for how much the program
    /// uses: see [`crate::Limits::admit`].
    ///
    /// # Errors
    ///
    /// [`crate::Error::Image`] when the image is of another module, or what it says does not fit the module.
    pub fn prepare(&self, image: Arc<StoredImage>) -> Result<PreparedImage> {
        let mut plan = Plan::new(self, image.manifest())?;
        plan.make_clones()?;
        plan.check(&image)?;
        plan.flatten(&image)?;
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

    /// As [`PreparedImage::resume`], but the kernel notes each page that is touched, so that
    /// [`Instance::working_set`] has those alone. The instance runs somewhat more slowly for it.
    ///
    /// # Errors
    ///
    /// As [`PreparedImage::resume`].
    pub fn resume_watched(&self, wasi: Wasi) -> Result<Instance> {
        let instance = self.resume(wasi)?;
        if let Some(guest) = &instance.guest {
            guest.pages.arm();
        }
        Ok(instance)
    }

    /// Has the system read the pages of a working set into its page cache, without waiting for it: worth it before the
    /// image is resumed when nobody has done so for long. Pages that are there already cost little, and what is not the
    /// image's is left out.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Mapping`] when the system refuses.
    pub fn prefetch(&self, set: &WorkingSet) -> Result<()> {
        let memories = self.0.image.memories().iter().zip(set.memories());
        for (index, (memory, touched)) in memories.enumerate() {
            // What was copied is in memory.
            if !self.0.plan.is_flat(index) {
                working_set::read_ahead(memory, touched)?;
            }
        }
        Ok(())
    }
}
