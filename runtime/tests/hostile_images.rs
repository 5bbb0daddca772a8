//! Images from strangers: the bodies of the fuzz targets, fed with random bytes for some seconds.

#[path = "../../tests/fuzz/src/image.rs"]
mod image;
#[path = "../../tests/fuzz/src/input.rs"]
mod input;
#[path = "../../tests/fuzz/src/measure.rs"]
mod measure;
#[path = "../../tests/fuzz/src/mutate.rs"]
mod mutate;
#[path = "../../tests/fuzz/src/programs.rs"]
mod programs;
#[path = "../../tests/fuzz/src/rounds.rs"]
mod rounds;
#[path = "../../tests/fuzz/src/scratch.rs"]
mod scratch;
#[path = "../../tests/fuzz/src/watch.rs"]
mod watch;

use rounds::rounds;

#[test]
fn manifests_are_refused_or_stay_in_the_sandbox() {
    rounds(100, image::check_manifest);
}

#[test]
fn images_are_refused_or_stay_in_the_sandbox() {
    rounds(100, |bytes| image::check(bytes, false));
}

#[test]
fn frames_are_refused_or_stay_in_the_sandbox() {
    rounds(100, |bytes| image::check(bytes, true));
}
