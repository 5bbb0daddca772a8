//! Binaryen's Asyncify, the usual way to make a module that can be suspended. It is never triggered here: what is
//! measured is what its checks cost a program that nobody stops.

use crate::error::{BenchError, at};
use crate::table::target_dir;
use std::fs;
use std::io;
use std::process::{Command, Output};

/// As for release builds. Asyncify's documentation asks for optimisation, without which its output is far slower.
const OPTIONS: [&str; 3] = ["--asyncify", "-O2", "--all-features"];

/// The module, transformed. What the same version of binaryen made of it before is used again: for large modules it
/// takes minutes.
pub fn transform(wasm: &[u8]) -> Result<Vec<u8>, BenchError> {
    let folder = target_dir().join("bench-asyncify");
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let mut key = blake3::Hasher::new();
    key.update(version()?.as_bytes());
    key.update(OPTIONS.join(" ").as_bytes());
    key.update(wasm);
    let made = folder.join(format!("{}.wasm", key.finalize().to_hex()));
    if !made.exists() {
        let files = tempfile::tempdir_in(&folder).map_err(at(&folder))?;
        let (original, transformed) = (
            files.path().join("original"),
            files.path().join("transformed"),
        );
        fs::write(&original, wasm).map_err(at(&original))?;
        let mut command = Command::new("wasm-opt");
        command
            .args(OPTIONS)
            .arg(&original)
            .arg("-o")
            .arg(&transformed);
        run(&mut command)?;
        fs::rename(&transformed, &made).map_err(at(&made))?;
    }
    fs::read(&made).map_err(at(&made))
}

/// The version of binaryen.
pub fn version() -> Result<String, BenchError> {
    let output = run(Command::new("wasm-opt").arg("--version"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run(command: &mut Command) -> Result<Output, BenchError> {
    let output = command.output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BenchError::NoBinaryen(error),
        _ => BenchError::Asyncify(error.to_string()),
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // The first line names what is wrong; the others are where.
    let first = said.lines().find(|line| !line.trim().is_empty());
    Err(BenchError::Asyncify(format!(
        "{}: {}",
        output.status,
        first.unwrap_or("without a word")
    )))
}
