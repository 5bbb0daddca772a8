//! What is done once a program is ready and before it runs: until then nothing has changed for whoever comes next, so that a
//! command that fails has destroyed nothing.

use std::io;

use wsnap::snapshots::{ImageId, NewRecord, Record, Store};
use wsnap::wasi::Stdio;
use wsnap_supervision::Origin;

use super::{Session, origin};
use crate::failure::Failure;
use crate::rollout;

/// What the record of a snapshot says that a program was resumed from under another name.
const RESUME_TRIGGER: &str = "resume";

/// Where a program starts that nobody keeps running.
pub(crate) enum StartsAt {
    /// At its beginning.
    Beginning,
    /// From an image, with its record, if that is still there.
    Image(ImageId, Option<Box<Record>>),
}

impl StartsAt {
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
    /// The program is ready, under its name: `resume --all` need not go on with it. The list is a help, and no program ends
    /// because of it.
    pub fn claim(&self) {
        let registration = self
            .watch
            .as_ref()
            .and_then(|watch| watch.registration.as_ref());
        let claimed = self
            .places
            .store_directory()
            .and_then(|store| rollout::claim(&store, self.keeper.name(), registration));
        if let Err(failure) = claimed {
            failure.print();
        }
    }

    /// The program has come to its end, and is not to be gone on with.
    pub(super) fn leave_list(&self) {
        let Some(name) = self.keeper.name() else {
            return;
        };
        let left = self.places.store_directory();
        if let Err(failure) = left.and_then(|store| rollout::forget(&store, name)) {
            failure.print();
        }
    }

    /// The program of a name runs from there now, whatever was before. Returns what a keeper needs to know.
    pub(super) fn take_over(&mut self, start: StartsAt) -> Result<Origin, Failure> {
        let output_bytes = start.output_bytes();
        let origin = match start {
            StartsAt::Beginning => {
                if let Some(job) = &mut self.job {
                    job.start_over()?;
                    job.save()?;
                }
                Origin::default()
            }
            StartsAt::Image(..) => self.point_at(start)?,
        };
        self.cut_output(output_bytes)?;
        Ok(origin)
    }

    /// Somebody has decided from which image the program of a name goes on, also if that has to wait: what was rejected before
    /// does not matter, and the image is its latest. Nothing is decided for one that starts.
    pub(super) fn point_at(&mut self, start: StartsAt) -> Result<Origin, Failure> {
        let StartsAt::Image(image, mut record) = start else {
            return Ok(Origin::default());
        };
        if let Some(job) = &mut self.job {
            let store = job.store().clone();
            let name = job.name().to_owned();
            // What the journal says may be that this image is of an earlier run. Whoever finds the name there must not read it.
            job.forget();
            job.save()?;
            if let Some(other) = record.take() {
                let is_own = other.name.as_ref() == Some(&name);
                record = Some(match is_own {
                    true => other,
                    // The snapshot is one of this program now, too.
                    false => Box::new(adopt(&store, &name, &other)?),
                });
            }
            if store.latest(&name)? != Some(image) {
                store.set_name(&name, image)?;
            }
        }
        Ok(origin(record.as_deref()))
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

/// Makes a record for the program of a name of a snapshot that has one of another program.
fn adopt(store: &Store, name: &str, other: &Record) -> Result<Record, Failure> {
    let mut record = NewRecord::new(other.image, other.taken_at_ms, RESUME_TRIGGER);
    record.name = Some(name.to_owned());
    record.parent = Some(other.id);
    record.ran_ms = other.ran_ms;
    record.output_bytes = other.output_bytes;
    Ok(store.put_record(record)?)
}
