//! Processes that really end, at any one of their calls.

use std::io;
use std::process::Command;
use std::sync::Arc;

use rustix::process::{Signal, getpid, kill_process};
use wsnap_snapshots::{Faults, ImageId, Operation, Store};

use crate::promises::Promises;
use crate::scenarios::SCENARIOS;
use crate::{attempt, check, copied, repeat, scratch, store_path};

/// Set for the processes that the test starts: the number of the scenario, the call, and the folder.
const SCENARIO: &str = "WSNAP_TEST_SCENARIO";
const CALL: &str = "WSNAP_TEST_CALL";
const FOLDER: &str = "WSNAP_TEST_FOLDER";
const TEST: &str = "kills::a_process_killed_at_any_call_loses_nothing";
/// Every call of every scenario fails in other tests; here it is enough to see that a real end is no different.
const CALLS_STEP: usize = 3;

#[derive(Debug)]
struct KillAt {
    call: usize,
    promises: Arc<Promises>,
}

impl Faults for KillAt {
    fn before(&self, _: Operation<'_>) -> io::Result<()> {
        if self.promises.count_call() == self.call {
            kill_process(getpid(), Signal::KILL)?;
        }
        Ok(())
    }
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn ids_in(folder: &std::path::Path) -> Vec<ImageId> {
    let text = std::fs::read_to_string(folder.join("ids")).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn a_process_killed_at_any_call_loses_nothing() {
    if let (Some(scenario), Some(call), Some(folder)) = (
        variable::<usize>(SCENARIO),
        variable(CALL),
        std::env::var_os(FOLDER),
    ) {
        let folder = std::path::PathBuf::from(folder);
        let promises = Arc::new(Promises::default());
        let faults = Arc::new(KillAt {
            call,
            promises: Arc::clone(&promises),
        });
        attempt(
            &SCENARIOS[scenario],
            &folder,
            faults,
            &ids_in(&folder),
            &promises,
        )
        .unwrap();
        return;
    }
    for (number, scenario) in SCENARIOS.iter().enumerate() {
        let prepared = scratch();
        let ids = (scenario.prepare)(prepared.path());
        let lines: Vec<String> = ids.iter().map(|id| format!("{id}\n")).collect();
        std::fs::write(prepared.path().join("ids"), lines.concat()).unwrap();
        let mut killed = 0;
        for call in (0..).step_by(CALLS_STEP) {
            let folder = copied(prepared.path());
            let mut child = Command::new(std::env::current_exe().unwrap());
            child
                .args(["--exact", TEST])
                .env(SCENARIO, number.to_string());
            child.env(CALL, call.to_string()).env(FOLDER, folder.path());
            let output = child.output().unwrap();
            if output.status.success() {
                break;
            }
            let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
            assert_eq!(signal, Some(Signal::KILL.as_raw()), "{output:?}");
            killed += 1;
            let checked = check::survives(folder.path(), &Default::default());
            let checked = checked.and_then(|_| {
                let store = Store::open(store_path(folder.path())).unwrap();
                repeat(scenario, &store, &ids)
            });
            checked
                .and_then(|()| check::leaks_nothing(folder.path()))
                .unwrap_or_else(|problem| {
                    panic!("{}, killed at call {call}: {problem}", scenario.name)
                });
        }
        assert!(killed > 0, "{} changes nothing", scenario.name);
    }
}
