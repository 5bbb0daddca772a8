//! Whole-system tests: they drive the `wsnap` binary as a user does, one process after the other.
//!
//! The oracle of nearly all of them is equality: a program that is stopped, stored and resumed any number of times
//! gives the output, exit code, trap and files of an uninterrupted run on plain wasmtime (`wsnap run --bare`).
//!
//! - [`guests`]: which programs there are, and what they print (`guest-examples/runs.toml`)
//! - [`fetch`]: other people's programs, from the package registries (`guest-examples/fetched.toml`)
//! - [`wsnap`]: starting the binary with a store of its own, and what came of it
//! - [`chain`]: running a program in many pieces, and comparing
//! - [`generated`]: programs too large to write by hand
//! - [`jobs`]: programs that compute for a while, for whatever keeps programs running
//! - [`slurm`]: a cluster of two nodes on this machine

use std::path::{Path, PathBuf};

pub mod chain;
pub mod fetch;
pub mod generated;
pub mod guests;
pub mod jobs;
pub mod slurm;
pub mod wsnap;

/// The folder of the whole workspace.
#[must_use]
pub fn workspace_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in a folder of the workspace")
        .to_path_buf()
}

/// The folder of guests and their inputs.
#[must_use]
pub fn examples_dir() -> PathBuf {
    workspace_dir().join("guest-examples")
}
