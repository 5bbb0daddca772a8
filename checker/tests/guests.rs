//! What the rewriter makes of this repository's guests, and of shapes of code that are easy to get wrong, is right on all
//! paths.

mod common;
#[path = "../../runtime/tests/common/interpreter.rs"]
mod interpreter;
#[path = "../../runtime/tests/common/wide.rs"]
mod wide;

use common::{Checked, check, check_pairs, modules};
use wasmparser::{Operator, Parser, Payload};

/// Shapes of code, small enough to look at clones for two points of a function at a time.
const SHAPES: &str = "checker/tests/wat";

#[test]
fn rewritten_guests_are_what_they_were() {
    let mut checked = Checked::default();
    let mut wrong = Vec::new();
    let folders = [
        ("guest-examples/wat", "wat"),
        ("guest-examples/prebuilt", "wasm"),
        (SHAPES, "wat"),
    ];
    for (folder, extension) in folders {
        for path in modules(folder, extension) {
            let bytes = std::fs::read(&path).expect("the guest can be read");
            let wasm = wat::parse_bytes(&bytes)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let mut result = check(&wasm, &mut checked);
            if folder == SHAPES {
                result = result.and_then(|()| check_pairs(&wasm, &mut checked));
            }
            if let Err(error) = result {
                wrong.push(format!("{}: {error}", path.display()));
            }
        }
    }
    println!("{checked:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        checked.modules > 41 && checked.points > 5000 && checked.refused == 0,
        "{checked:?}"
    );
}

#[test]
fn a_function_with_many_locals_that_many_safepoints_store_is_what_it_was() {
    let wasm = wat::parse_str(interpreter::interpreter()).expect("it is text");
    let module = wsnap_instrument::Module::parse(&wasm).expect("it is valid");
    let options = wsnap_instrument::Options::default();
    let rewritten = wsnap_instrument::rewrite(&module, options).expect("it can be rewritten");
    // Its cold paths are beside their tests.
    let mut beside = 0;
    for payload in Parser::new(0).parse_all(&rewritten.wasm) {
        let Payload::CodeSectionEntry(body) = payload.expect("it is valid") else {
            continue;
        };
        let operators = body.get_operators_reader().expect("it is valid");
        let operators: Vec<Operator<'_>> = operators
            .into_iter()
            .collect::<Result<_, _>>()
            .expect("it is valid");
        let is_turned = |three: &&[Operator<'_>]| {
            matches!(
                three,
                [Operator::I32GeS, Operator::If { .. }, Operator::Else]
            )
        };
        beside += operators.windows(3).filter(is_turned).count();
    }
    let mut checked = Checked::default();
    check(&wasm, &mut checked).unwrap_or_else(|error| panic!("{error}"));
    assert!(beside > 200, "{beside}");
    assert!(checked.points > 400 && checked.refused == 0, "{checked:?}");
}

#[test]
fn functions_whose_frames_hold_more_than_can_be_staged_are_what_they_were() {
    let mut checked = Checked::default();
    let texts = wide::around_the_limits().into_iter().map(wide::wide);
    for text in texts.chain([wide::only_long()]) {
        let wasm = wat::parse_str(&text).expect("it is text");
        if let Err(error) = check(&wasm, &mut checked) {
            panic!("{error}, of {text}");
        }
    }
    assert_eq!(checked.refused, 0, "{checked:?}");
}
