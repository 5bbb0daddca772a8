//! Where stores of one input lie.

use std::path::Path;
use tempfile::TempDir;

/// A directory in memory where there is one, as images are synced when they are stored.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a temporary directory")
}
