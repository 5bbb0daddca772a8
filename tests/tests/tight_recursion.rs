//! Short functions that recur poll in other places than most: stopped there, again and again, they compute the same.

use std::path::Path;

use wsnap_tests::wsnap::{SUSPENDED, Sandbox};

const CALLS: [&[&str]; 2] = [&["ackermann", "3", "10"], &["ways", "268435455", "5"]];

#[test]
fn loops_in_recursion_that_are_stopped_again_and_again_compute_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let module = root.join("checker/tests/wat/loops_in_recursion.wat");
    for call in CALLS {
        let sandbox = Sandbox::new();
        let (function, arguments) = (call[0], &call[1..]);
        let run = |flags: &[&str]| {
            let command = sandbox.wsnap().arg("run").args(flags);
            let command = command.args(["--invoke", function]).arg(&module);
            command.args(arguments).run()
        };
        let expected = run(&["--bare"]).expect(0).text();
        let stop = ["--id-file", "id", "--stop-at", "after=15ms"];
        let mut finished = run(&stop);
        let mut stops = 0;
        while finished.code() == Some(SUSPENDED) && stops < 40 {
            stops += 1;
            let id = std::fs::read_to_string(sandbox.path("id")).expect("an id");
            let resume = sandbox.wsnap().arg("resume");
            let resume = match stops < 40 {
                true => resume.args(stop),
                false => resume,
            };
            finished = resume.arg(id.trim()).run();
        }
        assert_eq!(
            finished.expect(0).text(),
            expected,
            "{function}, {stops} stops"
        );
        assert!(
            stops > 0 || function == "ways",
            "{function} was never stopped"
        );
    }
}
