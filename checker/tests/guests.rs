//! What the rewriter makes of this repository's guests is right, on all paths.

mod common;

use common::{Checked, check, guests};

#[test]
fn rewritten_guests_are_what_they_were() {
    let mut checked = Checked::default();
    let mut wrong = Vec::new();
    for (folder, extension) in [("wat", "wat"), ("prebuilt", "wasm")] {
        for path in guests(folder, extension) {
            let bytes = std::fs::read(&path).expect("the guest can be read");
            let wasm = wat::parse_bytes(&bytes).expect("the guest is a module");
            if let Err(error) = check(&wasm, &mut checked) {
                wrong.push(format!("{}: {error}", path.display()));
            }
        }
    }
    println!("{checked:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        checked.modules > 40 && checked.points > 5000 && checked.refused == 0,
        "{checked:?}"
    );
}
