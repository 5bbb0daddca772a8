//! Host state from strangers: the body of the fuzz target, fed with random bytes for about a second.

#[path = "../../../tests/fuzz/src/host_state.rs"]
mod host_state;
#[path = "../../../tests/fuzz/src/input.rs"]
#[allow(dead_code, reason = "shared with other fuzz targets")]
mod input;
#[path = "../../../tests/fuzz/src/measure.rs"]
#[allow(dead_code, reason = "shared with other fuzz targets")]
mod measure;
#[path = "../../../tests/fuzz/src/rounds.rs"]
mod rounds;
#[path = "../../../tests/fuzz/src/scratch.rs"]
mod scratch;

#[test]
fn host_state_is_refused_or_stays_in_its_directory() {
    rounds::rounds(1000, host_state::check);
}
