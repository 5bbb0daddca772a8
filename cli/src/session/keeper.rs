//! What becomes of a program's snapshots: beside image, record and name, which are the supervision's, the id file and the
//! answers to clients.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wsnap::Snapshot;
use wsnap::snapshots::{ImageId, Store};

use super::id_file;
use crate::failure::Failure;

/// Keeps the snapshots of one program, one after the other, whichever threads they come from.
pub(crate) struct Keeper {
    kept: wsnap_supervision::Keeper,
    id_file: Option<PathBuf>,
    /// One after the other, until the id is written, so that the file has the latest one. Held while an image is written.
    keeping: Mutex<()>,
    /// The latest snapshot, and when its state was captured; or what the program came from, and when.
    latest: Mutex<Option<(Taken, Instant)>>,
    /// How many clients have not got their answer yet.
    clients: Counter,
    /// How many threads may be taking or keeping a snapshot in passing.
    snapping: Counter,
}

/// How many threads are at something.
#[derive(Default)]
struct Counter {
    count: Mutex<usize>,
    fewer: Condvar,
}

impl Counter {
    /// Counts one more until the returned value is dropped.
    fn enter(&self) -> Counted<'_> {
        *locked(&self.count) += 1;
        Counted(self)
    }

    /// Waits until there are none.
    fn await_none(&self) {
        let mut count = locked(&self.count);
        while *count > 0 {
            count = self
                .fewer
                .wait(count)
                .unwrap_or_else(PoisonError::into_inner);
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
    /// Snapshots are kept by `kept`, and their ids written to a file.
    pub fn new(kept: wsnap_supervision::Keeper, id_file: Option<PathBuf>) -> Self {
        Self {
            kept,
            id_file,
            keeping: Mutex::default(),
            latest: Mutex::default(),
            clients: Counter::default(),
            snapping: Counter::default(),
        }
    }

    /// The program's name.
    pub fn name(&self) -> Option<&str> {
        self.kept.name()
    }

    /// What keeps images, records and names.
    pub fn kept(&self) -> &wsnap_supervision::Keeper {
        &self.kept
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
        let _keeping = locked(&self.keeping);
        let kept = self.kept.keep(store, snapshot, trigger, labels)?;
        let taken = Taken {
            id: kept.image,
            taken: snapshot.captured().saturating_duration_since(since),
            durable: since.elapsed(),
            pause: snapshot.pause(),
        };
        if kept.is_latest {
            *locked(&self.latest) = Some((taken, snapshot.captured()));
            if let Some(path) = &self.id_file {
                id_file::write(path, kept.image).map_err(|failure| {
                    failure.about(format!("image {} is stored, but", kept.image))
                })?;
            }
        }
        Ok(taken)
    }

    /// The program is to go on from there, whatever has been taken of it before.
    pub fn set_origin(&self, image: Option<ImageId>) {
        let origin = image.map(|id| Taken {
            id,
            taken: Duration::ZERO,
            durable: Duration::ZERO,
            pause: Duration::ZERO,
        });
        *locked(&self.latest) = origin.map(|taken| (taken, Instant::now()));
    }

    /// The latest snapshot, if one has been taken, or what the program came from.
    pub fn latest(&self) -> Option<Taken> {
        locked(&self.latest).map(|(taken, _)| taken)
    }

    /// The latest snapshot, if it was captured after `since`.
    pub fn latest_since(&self, since: Instant) -> Option<Taken> {
        let latest = *locked(&self.latest);
        let latest = latest.filter(|(_, captured)| *captured >= since);
        latest.map(|(taken, _)| taken)
    }

    /// A client waits for an answer until the returned value is dropped.
    pub fn client(&self) -> Counted<'_> {
        self.clients.enter()
    }

    /// This thread takes a snapshot of the program if it runs, and keeps it, until the returned value is dropped.
    pub fn snapping(&self) -> Counted<'_> {
        self.snapping.enter()
    }

    /// Waits until all snapshots of an attempt are kept that has ended, so that nobody can take one of it any more.
    pub fn settle(&self) {
        self.snapping.await_none();
    }

    /// Waits until all clients have their answers. The program has ended, so there are no new ones to wait for.
    pub fn finish(&self) {
        self.clients.await_none();
    }
}

/// One that is counted.
pub(crate) struct Counted<'c>(&'c Counter);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        *locked(&self.0.count) -= 1;
        self.0.fewer.notify_all();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept is whole at every moment, even if a thread died while it held the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
