//! `--every`: images at intervals.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use wsnap::snapshots::Store;
use wsnap::{Error, Handle};
use wsnap_supervision::{AUTOSAVE_TRIGGER, Autosave, Pace, Saved, Thinning};

use super::keeper::Keeper;
use crate::failure::Failure;
use crate::output;

/// Saves the program at that pace from now on. Of one that has a name, `kept` of these images stay.
pub(crate) fn start(
    pace: Pace,
    kept: u32,
    handle: Handle,
    keeper: Arc<Keeper>,
    store: Store,
) -> io::Result<Autosave> {
    let kept = usize::try_from(kept).unwrap_or(usize::MAX);
    let name = keeper.name().map(str::to_owned);
    let mut saving = Saving {
        handle: handle.clone(),
        keeper,
        thinning: name.map(|name| Thinning::new(store.clone(), name, kept)),
        store,
        complaint: None,
    };
    Autosave::start(pace, handle, move || saving.save())
}

struct Saving {
    handle: Handle,
    keeper: Arc<Keeper>,
    store: Store,
    thinning: Option<Thinning>,
    /// What has been said last, so that it is not said again at each interval.
    complaint: Option<String>,
}

impl Saving {
    fn save(&mut self) -> Option<Saved> {
        let since = Instant::now();
        let snapshot = match self.handle.snapshot() {
            Ok(snapshot) => snapshot,
            Err(Error::Ended) => return None,
            Err(error) => {
                self.complain(&error.into());
                return None;
            }
        };
        let labels = BTreeMap::new();
        let kept = self
            .keeper
            .keep(&self.store, &snapshot, since, AUTOSAVE_TRIGGER, &labels);
        if let Err(failure) = kept {
            self.complain(&failure);
            return None;
        }
        let thinned = self.thinning.as_mut().map_or(Ok(()), Thinning::thin);
        match thinned {
            Ok(()) => self.complaint = None,
            // What is too much stays for now. The program is saved all the same.
            Err(error) => self.complain(&error.into()),
        }
        Some(Saved::now(&snapshot))
    }

    fn complain(&mut self, failure: &Failure) {
        if self.complaint.as_deref() != Some(failure.message()) {
            failure.print();
            output::message("the program goes on");
            self.complaint = Some(failure.message().to_owned());
        }
    }
}
