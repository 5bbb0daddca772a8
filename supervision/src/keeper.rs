//! What becomes of a program's snapshots: image, record, name.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wsnap::Snapshot;
use wsnap::snapshots::{ImageId, NewRecord, RecordId, Store, StoreError};

use crate::output_file::OutputFile;
use crate::run_clock::RunClock;

/// What the records of snapshots say that are taken at intervals.
pub const AUTOSAVE_TRIGGER: &str = "every";

/// So many records are known to be the parents of snapshots that are kept after later ones: more than wait at a time.
const RECORDS_MAX: usize = 64;

/// Where an attempt of a program begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The record of the snapshot that it goes on from; none for the beginning.
    pub record: Option<RecordId>,
    /// How long the program had run until then.
    pub age: Duration,
}

/// Keeps the snapshots of one program, one after the other, whichever threads they come from.
pub struct Keeper {
    name: Option<String>,
    labels: BTreeMap<String, String>,
    output: Option<OutputFile>,
    /// One after the other. Held while an image is written, which can take long.
    keeping: Mutex<()>,
    /// Held for moments only: others want to know while an image is written.
    state: Mutex<State>,
}

/// What is known of the program that runs.
#[derive(Default)]
struct State {
    origin: Option<RecordId>,
    /// When the states of the latest snapshots were captured, ascending, and their records.
    records: Vec<(Instant, RecordId)>,
    /// When the state of the latest snapshot was captured.
    latest: Option<Instant>,
    clock: RunClock,
    /// How long the output file was when the program was started or resumed.
    output_before: u64,
}

impl State {
    /// Where in the list of records a snapshot belongs.
    fn place(&self, captured: Instant) -> usize {
        self.records
            .partition_point(|(other, _)| *other <= captured)
    }

    /// The record of the snapshot before one that was captured at this time.
    fn parent(&self, captured: Instant) -> Option<RecordId> {
        let before = self.place(captured).checked_sub(1);
        before.map_or(self.origin, |before| Some(self.records[before].1))
    }

    fn add(&mut self, captured: Instant, record: RecordId) {
        let place = self.place(captured);
        self.records.insert(place, (captured, record));
        if self.records.len() > RECORDS_MAX {
            self.records.remove(0);
        }
    }
}

/// A snapshot that is safe, with all that refers to it.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// The image.
    pub image: ImageId,
    /// Its new record.
    pub record: RecordId,
    /// Whether none that was captured later has been kept before it.
    pub is_latest: bool,
}

/// A snapshot could not be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// It could not be taken or stored.
    #[error(transparent)]
    Snapshot(#[from] wsnap::Error),
    /// What the program has written could not be made safe.
    #[error("cannot sync {}", path.display())]
    Output {
        /// The output file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The image is safe, but what should refer to it is not.
    #[error("image {image} is stored, but")]
    Reference {
        /// The image.
        image: ImageId,
        /// What went wrong.
        source: StoreError,
    },
}

impl Keeper {
    /// Snapshots of a program that goes by `name`; `labels` are kept with each record.
    pub fn new(name: Option<String>, labels: BTreeMap<String, String>) -> Self {
        Self {
            name,
            labels,
            output: None,
            keeping: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// Notes with each snapshot how long this file was, which receives the program's standard output.
    pub fn with_output(mut self, output: OutputFile) -> Self {
        self.output = Some(output);
        self
    }

    /// The program's name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The program is about to run from there. The output file has been cut to what belongs to it. No snapshot of the attempt
    /// before may be kept from now on: what a record says would be taken from this one.
    ///
    /// # Errors
    ///
    /// When nobody can tell how long the output file is.
    pub fn begin(&self, origin: Origin) -> io::Result<()> {
        let _keeping = locked(&self.keeping);
        let mut state = self.state();
        let output_before = match &self.output {
            Some(output) => output.byte_len()?,
            None => 0,
        };
        let mut clock = RunClock::new(origin.age);
        clock.go(Instant::now());
        *state = State {
            origin: origin.record,
            clock,
            output_before,
            ..State::default()
        };
        Ok(())
    }

    /// The program stands still until [`Keeper::go`].
    pub fn pause(&self) {
        self.state().clock.pause(Instant::now());
    }

    /// The program runs.
    pub fn go(&self) {
        self.state().clock.go(Instant::now());
    }

    /// How long the program has run in all.
    pub fn age(&self) -> Duration {
        self.state().clock.age(Instant::now())
    }

    /// The record of the latest snapshot, or of the one that the program came from.
    pub fn latest_record(&self) -> Option<RecordId> {
        let state = self.state();
        state
            .records
            .last()
            .map_or(state.origin, |(_, id)| Some(*id))
    }

    /// Makes durable what the program has printed to its output file, if it has one.
    ///
    /// # Errors
    ///
    /// [`KeepError::Output`].
    pub fn sync_output(&self) -> Result<(), KeepError> {
        let Some(output) = &self.output else {
            return Ok(());
        };
        output.sync().map_err(|source| KeepError::Output {
            path: output.path().to_owned(),
            source,
        })
    }

    /// Stores a snapshot and whatever refers to it: durably, when this returns. `trigger` says what caused it.
    ///
    /// # Errors
    ///
    /// [`KeepError`].
    pub fn keep(
        &self,
        store: &Store,
        snapshot: &Snapshot<'_>,
        trigger: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Kept, KeepError> {
        let captured = snapshot.captured();
        // While the program is where it was captured, or not far from it.
        let ran_ms = self.state().clock.age_ms(captured);
        let _keeping = locked(&self.keeping);
        // Nobody may delete the image before record and name point at it.
        let _lock = store.lock_shared().map_err(wsnap::Error::from)?;
        let stored = snapshot.publish(store)?;
        let image = stored.image.id();
        let mut record = NewRecord::new(image, unix_ms(snapshot.taken_at()), trigger);
        record.name.clone_from(&self.name);
        record.labels.clone_from(&self.labels);
        record.labels.extend(labels.clone());
        record.added_bytes = stored.added_bytes;
        record.ran_ms = ran_ms;
        let (parent, output_before, is_latest) = {
            let state = self.state();
            // Another thread may have been faster with a later one.
            let is_latest = state.latest.is_none_or(|latest| latest <= captured);
            (state.parent(captured), state.output_before, is_latest)
        };
        record.parent = parent;
        if self.output.is_some() {
            // A record that promises more than there is would be worse than none.
            self.sync_output()?;
            record.output_bytes = Some(output_before + snapshot.stdout_bytes());
        }
        let but = |source| KeepError::Reference { image, source };
        let record = store.put_record(record).map_err(but)?.id;
        self.state().add(captured, record);
        if is_latest {
            if let Some(name) = &self.name {
                store.set_name(name, image).map_err(but)?;
            }
            self.state().latest = Some(captured);
        }
        Ok(Kept {
            image,
            record,
            is_latest,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept is whole at every moment, even if a thread died while it held the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970; 0 for times before.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_of_a_snapshot_was_captured_before_it_whichever_is_kept_first() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let record = |digit: &str| digit.repeat(32).parse::<RecordId>().ok();
        let mut state = State {
            origin: record("0"),
            ..State::default()
        };
        assert_eq!(state.parent(at(1)), record("0"));
        for (ms, digit) in [(5, "5"), (3, "3"), (7, "7")] {
            state.add(at(ms), record(digit).expect("an id"));
        }
        assert_eq!(state.parent(at(2)), record("0"));
        assert_eq!(state.parent(at(4)), record("3"));
        assert_eq!(state.parent(at(6)), record("5"));
        assert_eq!(state.parent(at(9)), record("7"));
    }
}
