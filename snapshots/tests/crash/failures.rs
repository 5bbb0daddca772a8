//! Calls that fail: one of them, or all from one of them on, as it is for a process that is killed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use wsnap_snapshots::{Faults, Operation, OperationKind, Store, StoreError};

use crate::promises::Promises;
use crate::scenarios::{SCENARIOS, Scenario};
use crate::{attempt, check, copied, repeat, scratch, store_path};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// A disk that cannot do something once.
    BrokenDisk,
    /// A disk that is full for a moment.
    FullDisk,
    /// Nothing works any more, not even cleaning up.
    End,
}

const MODES: [Mode; 3] = [Mode::BrokenDisk, Mode::FullDisk, Mode::End];

impl Mode {
    fn error(self) -> io::Error {
        let error = match self {
            Self::BrokenDisk | Self::End => rustix::io::Errno::IO,
            Self::FullDisk => rustix::io::Errno::NOSPC,
        };
        error.into()
    }
}

#[derive(Debug)]
struct FailAt {
    call: usize,
    mode: Mode,
    promises: Arc<Promises>,
    /// What failed first.
    failed: Mutex<Option<OperationKind>>,
}

impl Faults for FailAt {
    fn before(&self, operation: Operation<'_>) -> io::Result<()> {
        let call = self.promises.count_call();
        if call == self.call || (call > self.call && self.mode == Mode::End) {
            self.failed.lock().unwrap().get_or_insert(operation.kind);
            return Err(self.mode.error());
        }
        Ok(())
    }
}

/// Nobody is told when one of these fails: what they have not done costs time or space until the next collection.
fn may_be_ignored(kind: OperationKind) -> bool {
    matches!(kind, OperationKind::Append | OperationKind::Remove)
}

/// Makes the call with this number fail, and checks what is left. Returns false when there are fewer calls.
fn fail(
    scenario: &Scenario,
    prepared: &Path,
    ids: &[wsnap_snapshots::ImageId],
    call: usize,
    mode: Mode,
) -> Result<bool, String> {
    let folder = copied(prepared);
    let promises = Arc::new(Promises::default());
    if store_path(prepared).exists() {
        promises.all_of(&Store::open(store_path(prepared)).unwrap());
    }
    let faults = Arc::new(FailAt {
        call,
        mode,
        promises: Arc::clone(&promises),
        failed: Mutex::default(),
    });
    let result = attempt(
        scenario,
        folder.path(),
        Arc::clone(&faults) as _,
        ids,
        &promises,
    );
    let failed = *faults.failed.lock().unwrap();
    let Some(kind) = failed else {
        return result.map(|()| false).map_err(|error| format!("{error:?}"));
    };
    let is_right = match &result {
        Err(StoreError::Io { source, .. }) => source.raw_os_error() == mode.error().raw_os_error(),
        Err(_) => false,
        Ok(()) => may_be_ignored(kind),
    };
    if !is_right {
        return Err(format!("{kind:?} failed, and the answer was {result:?}"));
    }
    let before_gc = copied(folder.path());
    check::survives(folder.path(), &promises.in_force(usize::MAX))?;
    check::leaks_nothing(before_gc.path())?;

    let expected = copied(prepared);
    for folder in [folder.path(), expected.path()] {
        let store = Store::open(store_path(folder)).unwrap();
        repeat(scenario, &store, ids)?;
        store
            .gc(&Default::default())
            .map_err(|error| format!("{error:?}"))?;
    }
    let held = |folder: &Path| check::holdings(&Store::open(store_path(folder)).unwrap());
    match held(folder.path()) == held(expected.path()) {
        true => Ok(true),
        false => Err("a second try leads elsewhere than a first one".to_owned()),
    }
}

#[test]
fn whatever_fails_nothing_reported_is_lost_and_another_try_succeeds() {
    for scenario in &SCENARIOS {
        let prepared = scratch();
        let ids = (scenario.prepare)(prepared.path());
        for mode in MODES {
            let mut call = 0;
            while fail(scenario, prepared.path(), &ids, call, mode).unwrap_or_else(|problem| {
                panic!("{}, {mode:?} at call {call}: {problem}", scenario.name)
            }) {
                call += 1;
            }
            assert!(call > 0, "{} changes nothing", scenario.name);
        }
    }
}
