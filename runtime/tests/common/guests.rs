//! The guests of the repository.

use std::path::{Path, PathBuf};

/// A guest of the repository.
pub fn guest(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../guest-examples")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All guests in text format that run as commands and end.
pub fn text_guests() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-examples/wat");
    let entries = std::fs::read_dir(directory).expect("the guests are there");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the guests are readable").path())
        .collect();
    // One needs to be stopped, two are called with arguments, and one needs more stack than bare programs have.
    let special = [
        "endless.wat",
        "invoke.wat",
        "traps.wat",
        "deep_recursion.wat",
    ];
    paths.retain(|path| !special.iter().any(|name| path.ends_with(name)));
    paths.sort();
    paths
}
