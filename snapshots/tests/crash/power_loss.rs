//! The loss of power: what was reported is on the disk, whatever else is.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wsnap_snapshots::{ImageId, OperationKind, Store};

use crate::model::{Recorder, Run};
use crate::promises::Promises;
use crate::scenarios::{SCENARIOS, Scenario};
use crate::{attempt, check, copied, repeat, scratch, store_path};

/// How many mixtures chance makes of the extremes, at each call. `WSNAP_TEST_MIXTURES` changes it.
const MIXTURES: u64 = 4;

fn mixtures() -> u64 {
    let given = std::env::var("WSNAP_TEST_MIXTURES");
    given.map_or(MIXTURES, |text| text.parse().unwrap())
}

/// A scenario that was recorded once.
struct Recorded {
    scenario: &'static Scenario,
    ids: Vec<ImageId>,
    run: Run,
    promises: Arc<Promises>,
}

fn record(scenario: &'static Scenario) -> Recorded {
    let prepared = scratch();
    let ids = (scenario.prepare)(prepared.path());
    // Without files that are open or changed by whoever prepared them.
    let folder = copied(prepared.path());
    let promises = Arc::new(Promises::default());
    if store_path(folder.path()).exists() {
        promises.all_of(&Store::open(store_path(folder.path())).unwrap());
    }
    let recorder = Arc::new(Recorder::new(folder.path(), Arc::clone(&promises)));
    attempt(
        scenario,
        folder.path(),
        Arc::clone(&recorder) as _,
        &ids,
        &promises,
    )
    .unwrap();
    let run = Arc::try_unwrap(recorder).unwrap().finish();
    Recorded {
        scenario,
        ids,
        run,
        promises,
    }
}

fn write(content: &BTreeMap<PathBuf, Option<Vec<u8>>>, folder: &Path) {
    for (name, bytes) in content {
        let path = folder.join(name);
        match bytes {
            None => fs::create_dir(path).unwrap(),
            Some(bytes) => fs::write(path, bytes).unwrap(),
        }
    }
}

impl Recorded {
    /// Looks at all disks that the model can show, and returns how many there were, or what is wrong with the first
    /// one that is not as it must be.
    fn check(
        &self,
        mixtures: u64,
        ignored: impl Fn(OperationKind, &Path) -> bool,
    ) -> Result<usize, String> {
        let mut seen = HashSet::new();
        for (calls, disk) in self.run.disks(ignored).iter().enumerate() {
            let promises = self.promises.in_force(calls);
            for choice in disk.choices(mixtures) {
                let content = disk.chosen(&choice);
                if !seen.insert((format!("{promises:?}"), content.clone())) {
                    continue;
                }
                let folder = scratch();
                write(&content, folder.path());
                let lost = |problem| {
                    format!(
                        "{}, power lost before call {calls}, {:?}, {choice:?}: {problem}",
                        self.scenario.name,
                        self.run.calls.get(calls)
                    )
                };
                self.check_disk(folder.path(), &promises).map_err(lost)?;
            }
        }
        Ok(seen.len())
    }

    fn check_disk(
        &self,
        folder: &Path,
        promises: &BTreeMap<crate::promises::Subject, crate::promises::Allowed>,
    ) -> Result<(), String> {
        let store = check::survives(folder, promises)?;
        repeat(self.scenario, &store, &self.ids)?;
        check::leaks_nothing(folder)
    }
}

#[test]
fn nothing_reported_is_lost_with_the_power() {
    for scenario in &SCENARIOS {
        let recorded = record(scenario);
        let count = recorded
            .check(mixtures(), |_, _| false)
            .unwrap_or_else(|problem| panic!("{problem}"));
        assert!(count > 1, "{} changes nothing", scenario.name);
    }
}

/// The folder that a call is about, whose syncs are ignored together.
fn kind_of_sync(kind: OperationKind, path: &Path) -> Option<(OperationKind, PathBuf)> {
    match kind {
        OperationKind::Sync => Some((kind, path.parent()?.to_owned())),
        OperationKind::SyncDirectory => Some((kind, path.to_owned())),
        _ => None,
    }
}

/// Syncs that no promise depends on.
fn is_cleanup((kind, folder): &(OperationKind, PathBuf)) -> bool {
    *kind == OperationKind::SyncDirectory && folder.ends_with("tmp")
}

#[test]
fn without_any_one_kind_of_sync_the_loss_of_power_would_be_noticed() {
    let recorded: Vec<Recorded> = SCENARIOS.iter().map(record).collect();
    let kinds: BTreeSet<(String, PathBuf)> = recorded
        .iter()
        .flat_map(|recorded| &recorded.run.calls)
        .filter_map(|(kind, path)| kind_of_sync(*kind, path))
        .filter(|kind| !is_cleanup(kind))
        .map(|(kind, folder)| (format!("{kind:?}"), folder))
        .collect();
    assert!(kinds.len() > 12, "{kinds:?}");
    let is_noticed = |(name, folder): &(String, PathBuf)| {
        let ignored = |kind, path: &Path| {
            kind_of_sync(kind, path)
                .is_some_and(|(kind, found)| format!("{kind:?}") == *name && found == *folder)
        };
        recorded
            .iter()
            .any(|recorded| recorded.check(0, ignored).is_err())
    };
    let unnoticed: Vec<_> = kinds.iter().filter(|kind| !is_noticed(kind)).collect();
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}
