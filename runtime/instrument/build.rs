//! Gives the crate a fingerprint of its own sources, so that code compiled from what another version of it made is
//! never taken for its own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=src");
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(&file)
            .expect("the crate's own sources are readable")
            .hash(&mut hasher);
    }
    println!(
        "cargo::rustc-env=WSNAP_INSTRUMENT_FINGERPRINT={:016x}",
        hasher.finish()
    );
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("the crate's own sources are readable") {
        let path = entry.expect("the crate's own sources are readable").path();
        if path.is_dir() {
            collect(&path, files)
        } else {
            files.push(path)
        }
    }
}
