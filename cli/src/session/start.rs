//! What is done once a program is ready and before it runs: until then nothing has changed for whoever comes next, so that a
//! command that fails has destroyed nothing.

use std::io;

use wsnap::snapshots::{ImageId, Record, Store};
use wsnap::wasi::Stdio;
use wsnap_supervision::Origin;

use super::{Session, origin};
use crate::failure::Failure;
use crate::rollout;

/// Where a program starts that nobody keeps running.
pub(crate) enum StartsAt {
    /// At its beginning.
    Beginning,
    /// From an image, with its record, if that is still there.
    Image(ImageId, Option<Box<Record>>),
}

impl StartsAt {
    /// What a keeper needs to know of it.
    pub fn origin(&self) -> Origin {
        match self {
            Self::Beginning => Origin::default(),
            Self::Image(_, record) => origin(record.as_deref()),
        }
    }

    /// What the output file is to be cut to, in bytes; none if nobody knows what of it the program has printed.
    pub fn output_bytes(&self) -> Option<u64> {
        match self {
            Self::Beginning => Some(0),
            Self::Image(_, record) => record.as_ref()?.output_bytes,
        }
    }

    /// The image.
    pub fn image(&self) -> Option<ImageId> {
        match self {
            Self::Beginning => None,
            Self::Image(image, _) => Some(*image),
        }
    }
}

impl Session<'_> {
    /// The program is ready, under its name: `resume --all` need not go on with it.
    pub fn claim(&self) -> Result<(), Failure> {
        match self.keeper.name() {
            Some(name) => rollout::forget(&self.places.store_directory()?, name),
            None => Ok(()),
        }
    }

    /// The program of a name runs from there now, whatever was before.
    pub(super) fn take_over(&mut self, start: &StartsAt) -> Result<(), Failure> {
        if let StartsAt::Image(image, _) = start {
            let store = self.store()?.clone();
            self.point_at(&store, *image)?;
        }
        if let Some(job) = &mut self.job {
            match start {
                StartsAt::Beginning => job.start_over()?,
                // Whoever resumes a program by hand knows why.
                StartsAt::Image(..) => job.forget(),
            }
            job.save()?;
        }
        self.cut_output(start.output_bytes())
    }

    /// A program that is resumed from an image under another name has that image as its latest.
    fn point_at(&self, store: &Store, image: ImageId) -> Result<(), Failure> {
        match self.keeper.name() {
            Some(name) if store.latest(name)? != Some(image) => Ok(store.set_name(name, image)?),
            _ => Ok(()),
        }
    }

    /// Where the program's standard output leads.
    pub fn stdout(&self) -> Result<Stdio, Failure> {
        let Some(output) = &self.output else {
            return Ok(Stdio::Inherit);
        };
        let descriptor = output.descriptor();
        Ok(Stdio::Descriptor(
            descriptor.map_err(|error| self.cannot_write(&error))?,
        ))
    }

    /// Fails if the output file has less than the program had printed.
    pub fn check_output(&self, bytes: Option<u64>) -> Result<(), Failure> {
        if let (Some(output), Some(bytes)) = (&self.output, bytes) {
            let holds = output.check_holds(bytes);
            holds.map_err(|error| self.cannot_write(&error))?;
        }
        Ok(())
    }

    /// Cuts the output file, if there is one, back to what the program had printed; if nobody knows how much that is, the program
    /// goes on behind all that is there.
    pub fn cut_output(&mut self, bytes: Option<u64>) -> Result<(), Failure> {
        let Some(output) = &mut self.output else {
            return Ok(());
        };
        let cut = match bytes {
            Some(bytes) => output.cut_to(bytes),
            None => output.byte_len().and_then(|len| output.cut_to(len)),
        };
        cut.map_err(|error| self.cannot_write(&error))
    }

    fn cannot_write(&self, error: &io::Error) -> Failure {
        let path = self.output.as_ref().map(|output| output.path());
        Failure::io("write the output to", path.unwrap_or("".as_ref()), error)
    }
}
