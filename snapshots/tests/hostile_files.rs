//! Stores and exports from strangers: the bodies of the fuzz targets, fed with random bytes for about a second.

#[path = "../../tests/fuzz/src/files.rs"]
mod files;
#[path = "../../tests/fuzz/src/input.rs"]
mod input;
#[path = "../../tests/fuzz/src/measure.rs"]
mod measure;
#[path = "../../tests/fuzz/src/rounds.rs"]
mod rounds;
#[path = "../../tests/fuzz/src/scratch.rs"]
mod scratch;
#[path = "../../tests/fuzz/src/transfer.rs"]
mod transfer;

use rounds::rounds;

#[test]
fn files_of_a_store_are_refused_or_what_they_were() {
    rounds(1000, files::check);
}

#[test]
fn exports_are_refused_or_intact() {
    rounds(1000, transfer::check);
}
