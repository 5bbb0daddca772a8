//! A program 100,000 calls deep either resumes or ends with the trap that it would have had anyway.

use wsnap_tests::examples_dir;
use wsnap_tests::wsnap::{Finished, SUSPENDED, Sandbox, TRAPPED};

const CALLS: u64 = 100_000;

fn is_result_or_overflow(finished: &Finished) {
    match finished.code() {
        Some(0) => assert!(finished.stdout.ends_with(b"\n"), "{}", finished.describe()),
        Some(TRAPPED) => assert_eq!(
            finished.trap(),
            Some("call stack exhausted"),
            "{}",
            finished.describe()
        ),
        _ => panic!(
            "neither a result nor a stack overflow\n{}",
            finished.describe()
        ),
    }
}

#[test]
fn a_program_a_hundred_thousand_calls_deep_ends_alike_with_and_without_stops() {
    let sandbox = Sandbox::new();
    let module = examples_dir().join("wat/deep_recursion.wat");
    let undisturbed = sandbox.wsnap().arg("run").arg(&module).run();
    is_result_or_overflow(&undisturbed);
    for stop in [100, 1000, 10_000, CALLS / 2, CALLS - 1] {
        let id = sandbox.path("id");
        let at = format!("safepoint={stop}");
        let stopped = sandbox
            .wsnap()
            .args(["run", "--stop-at", &at, "--id-file"])
            .arg(&id)
            .arg(&module)
            .run();
        if stopped.code() != Some(SUSPENDED) {
            assert_eq!(stopped.code(), undisturbed.code(), "{}", stopped.describe());
            assert_eq!(stopped.trap(), undisturbed.trap(), "{}", stopped.describe());
            continue;
        }
        let image = std::fs::read_to_string(&id).expect("the id file was written");
        let resumed = sandbox.wsnap().args(["resume", image.trim()]).run();
        assert_eq!(resumed.code(), undisturbed.code(), "{}", resumed.describe());
        assert_eq!(resumed.trap(), undisturbed.trap(), "{}", resumed.describe());
        let together = [stopped.stdout, resumed.stdout].concat();
        assert_eq!(together, undisturbed.stdout, "stopped at {stop}");
    }
}
