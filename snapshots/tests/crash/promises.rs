//! What a store has reported, and when.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use wsnap_snapshots::{ImageId, RecordId, Store};

/// Something that a store can promise about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// That the image is there, or gone.
    Image(ImageId),
    /// Which image the name points at.
    Name(String),
    Tag(String),
    /// Which image the record is of.
    Record(RecordId),
}

/// The states that a subject can be in.
pub type Allowed = Vec<Option<ImageId>>;

/// The promises in the order in which they were made, each with the number of calls to the file system that had been
/// made before it.
#[derive(Debug, Default)]
pub struct Promises {
    calls: AtomicUsize,
    log: Mutex<Vec<(usize, Subject, Allowed)>>,
}

impl Promises {
    /// Counts a call and returns how many there were before.
    pub fn count_call(&self) -> usize {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// The store is about to be asked to bring the subject into one of these states.
    pub fn may_become(&self, subject: Subject, states: &[Option<ImageId>]) {
        // Before the next call nothing has changed.
        let mut allowed = self
            .in_force(usize::MAX)
            .remove(&subject)
            .unwrap_or(vec![None]);
        allowed.extend(states);
        self.push(self.calls() + 1, subject, allowed);
    }

    /// The store has reported that the subject is in this state.
    pub fn is_now(&self, subject: Subject, state: Option<ImageId>) {
        self.push(self.calls(), subject, vec![state]);
    }

    /// Everything that a store holds.
    pub fn all_of(&self, store: &Store) {
        for entry in store.images().unwrap() {
            self.is_now(Subject::Image(entry.id), Some(entry.id));
        }
        for (name, id) in store.names().unwrap() {
            self.is_now(Subject::Name(name), Some(id));
        }
        for (tag, id) in store.tags().unwrap() {
            self.is_now(Subject::Tag(tag), Some(id));
        }
        for record in store.records().unwrap() {
            self.is_now(Subject::Record(record.id), Some(record.image));
        }
    }

    /// What holds after so many calls.
    pub fn in_force(&self, calls: usize) -> BTreeMap<Subject, Allowed> {
        let log = self.log.lock().unwrap();
        let made = log.iter().filter(|(at, ..)| *at <= calls);
        made.map(|(_, subject, allowed)| (subject.clone(), allowed.clone()))
            .collect()
    }

    fn push(&self, calls: usize, subject: Subject, allowed: Allowed) {
        self.log.lock().unwrap().push((calls, subject, allowed));
    }
}
