//! What the rewriter makes of this repository's guests, and of shapes of code that are easy to get wrong, is right on all
//! paths.

mod common;

use common::{Checked, check, check_pairs, modules};

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
