//! What becomes of a program's snapshots: image, record, name, id file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wsnap::Snapshot;
use wsnap::snapshots::{ImageId, NewRecord, RecordId, Store};

use super::id_file;
use crate::failure::Failure;
use crate::output;

/// Keeps the snapshots of one program, one after the other, whichever threads they come from.
pub(crate) struct Keeper {
    name: Option<String>,
    id_file: Option<PathBuf>,
    labels: BTreeMap<String, String>,
    kept: Mutex<Kept>,
    /// How many clients have not got their answer yet.
    clients: Mutex<usize>,
    answered: Condvar,
}

/// So many records are known to be the parents of snapshots that are kept after later ones: more than clients wait at a
/// time.
const RECORDS_MAX: usize = 64;

/// What has been kept so far.
#[derive(Default)]
struct Kept {
    /// The record of the snapshot that the program was resumed from.
    origin: Option<RecordId>,
    /// When the states of the latest snapshots were captured, ascending, and their records.
    records: Vec<(Instant, RecordId)>,
    /// The latest snapshot, and when its state was captured.
    latest: Option<(Taken, Instant)>,
}

impl Kept {
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

/// An image of the program has been stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub id: ImageId,
    /// From the request until the program's state was captured.
    pub taken: Duration,
    /// From the request until the image was safe on the disk.
    pub durable: Duration,
    /// How long the program stood still, if it went on.
    pub pause: Duration,
}

impl Keeper {
    /// Snapshots of a program that goes by `name` and was resumed from the snapshot that `parent` records.
    pub fn new(
        name: Option<String>,
        id_file: Option<PathBuf>,
        labels: BTreeMap<String, String>,
        parent: Option<RecordId>,
    ) -> Self {
        let kept = Kept {
            origin: parent,
            ..Kept::default()
        };
        Self {
            name,
            id_file,
            labels,
            kept: Mutex::new(kept),
            clients: Mutex::new(0),
            answered: Condvar::new(),
        }
    }

    /// The program's name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Stores a snapshot that was asked for at `since`, and whatever refers to it.
    pub fn keep(
        &self,
        store: &Store,
        snapshot: &Snapshot<'_>,
        since: Instant,
        trigger: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Taken, Failure> {
        let mut kept = locked(&self.kept);
        // Nobody may delete the image before record and name point at it.
        let _lock = store.lock_shared()?;
        let stored = snapshot.publish(store)?;
        let id = stored.image.id();
        // Another thread may have been faster with a later one.
        let is_latest = kept
            .latest
            .is_none_or(|(_, captured)| captured <= snapshot.captured());
        let but = |failure: Failure| failure.about(format!("image {id} is stored, but"));
        let mut record = NewRecord::new(id, output::unix_ms(snapshot.taken_at()), trigger);
        record.parent = kept.parent(snapshot.captured());
        record.name = self.name.clone();
        record.labels = self.labels.clone();
        record.labels.extend(labels.clone());
        record.added_bytes = stored.added_bytes;
        let record = store
            .put_record(record)
            .map_err(|error| but(error.into()))?;
        kept.add(snapshot.captured(), record.id);
        if let (true, Some(name)) = (is_latest, &self.name) {
            store
                .set_name(name, id)
                .map_err(|error| but(error.into()))?;
        }
        let taken = Taken {
            id,
            taken: snapshot.captured().saturating_duration_since(since),
            durable: since.elapsed(),
            pause: snapshot.pause(),
        };
        if is_latest {
            kept.latest = Some((taken, snapshot.captured()));
            if let Some(path) = &self.id_file {
                id_file::write(path, id).map_err(but)?;
            }
        }
        Ok(taken)
    }

    /// The latest snapshot, if it was captured after `since`.
    pub fn latest_since(&self, since: Instant) -> Option<Taken> {
        let kept = locked(&self.kept);
        let latest = kept.latest.filter(|(_, captured)| *captured >= since);
        latest.map(|(taken, _)| taken)
    }

    /// A client waits for an answer until the returned value is dropped.
    pub fn client(&self) -> Waiting<'_> {
        *locked(&self.clients) += 1;
        Waiting(self)
    }

    /// Waits until all clients have their answers. The program has ended, so there are no new ones to wait for.
    pub fn finish(&self) {
        let mut clients = locked(&self.clients);
        while *clients > 0 {
            clients = self
                .answered
                .wait(clients)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A client that waits.
pub(crate) struct Waiting<'k>(&'k Keeper);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *locked(&self.0.clients) -= 1;
        self.0.answered.notify_all();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept is whole at every moment, even if a thread died while it held the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_of_a_snapshot_was_captured_before_it_whichever_is_kept_first() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let record = |digit: &str| digit.repeat(32).parse::<RecordId>().ok();
        let mut kept = Kept {
            origin: record("0"),
            ..Kept::default()
        };
        assert_eq!(kept.parent(at(1)), record("0"));
        for (ms, digit) in [(5, "5"), (3, "3"), (7, "7")] {
            kept.add(at(ms), record(digit).expect("an id"));
        }
        assert_eq!(kept.parent(at(2)), record("0"));
        assert_eq!(kept.parent(at(4)), record("3"));
        assert_eq!(kept.parent(at(6)), record("5"));
        assert_eq!(kept.parent(at(9)), record("7"));
    }
}
