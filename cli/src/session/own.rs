//! Snapshots that a program takes of itself, by its import `wsnap.snapshot`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use wsnap::snapshots::Store;
use wsnap::{Error, Instance, Snapshot};

use super::keeper::Keeper;
use crate::failure::Failure;
use crate::output;
use crate::places::Places;

/// What the record of such a snapshot says.
const TRIGGER: &str = "guest";

/// Lets the program take snapshots, which the keeper stores. `store` is opened when the first one is taken if it is not
/// open yet.
pub(crate) fn keep(
    instance: &mut Instance,
    places: &Places,
    mut store: Option<Store>,
    keeper: Arc<Keeper>,
) {
    let places = places.clone();
    instance.keep_own_snapshots(move |snapshot| {
        let kept = keep_one(&places, &mut store, &keeper, snapshot);
        if let Err(failure) = &kept {
            failure.print();
            output::message("the program goes on, and is told that there is no snapshot");
        }
        kept.is_ok()
    });
}

fn keep_one(
    places: &Places,
    store: &mut Option<Store>,
    keeper: &Keeper,
    snapshot: Result<Snapshot<'static>, Error>,
) -> Result<(), Failure> {
    let snapshot = snapshot?;
    let store = match store {
        Some(store) => store,
        empty => empty.insert(places.create_store()?),
    };
    let asked = snapshot.captured().checked_sub(snapshot.pause());
    let asked = asked.unwrap_or_else(Instant::now);
    keeper.keep(store, &snapshot, asked, TRIGGER, &BTreeMap::new())?;
    Ok(())
}
