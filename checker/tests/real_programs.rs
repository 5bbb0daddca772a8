//! What the rewriter makes of real programs is right, on all paths: also on those that no run ever takes.

mod common;

use common::{Checked, check_default};
use std::collections::BTreeSet;
use wsnap_tests::guests::runs;

#[test]
fn rewritten_real_programs_are_what_they_were() {
    let mut checked = Checked::default();
    let programs: BTreeSet<_> = runs()
        .into_iter()
        .filter(|run| run.fetched.is_some())
        .map(|run| run.module_path().unwrap_or_else(|error| panic!("{error}")))
        .collect();
    for path in &programs {
        let wasm = std::fs::read(path).expect("what was fetched can be read");
        check_default(&wasm, &mut checked)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    println!("{checked:?}");
    assert!(
        checked.modules == programs.len() && checked.points > 300_000,
        "{checked:?}"
    );
}
