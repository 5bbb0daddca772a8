//! Faults planted in the rewriter are found: each in a copy of its sources, which is compiled and checked.
//!
//! `WSNAP_TEST_MUTANT` chooses those whose name contains a text.

use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[derive(Deserialize)]
struct Table {
    mutant: Vec<Mutant>,
}

/// A fault, as a replacement in a source file of the rewriter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    name: String,
    file: PathBuf,
    find: String,
    replace: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    let entries = fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    for entry in entries {
        let entry = entry.expect("the folder can be read");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

/// A workspace with a copy of the rewriter, and of what it takes to check it.
struct Copy {
    folder: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is room for a copy");
        let to = |name: &str| folder.path().join(name);
        for name in ["checker", "runtime/instrument", "tests"] {
            copy(&root().join(name), &to(name));
        }
        for name in ["runtime/tests", "guest-examples"] {
            let target = root()
                .canonicalize()
                .expect("the workspace exists")
                .join(name);
            std::os::unix::fs::symlink(target, to(name)).expect("a link can be made");
        }
        fs::copy(root().join("Cargo.lock"), to("Cargo.lock")).expect("the lock file can be copied");
        let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("there is a manifest");
        let manifest: String = manifest
            .lines()
            .map(|line| match line.starts_with("members = ") {
                true => "members = [\"checker\", \"runtime/instrument\", \"tests\"]\n".to_owned(),
                false => format!("{line}\n"),
            })
            .collect();
        fs::write(to("Cargo.toml"), manifest).expect("the manifest can be written");
        Self { folder }
    }

    /// Compiles the checks, or runs them.
    fn cargo(&self, arguments: &[&str]) -> Output {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root().join("target"), PathBuf::from);
        Command::new(env!("CARGO"))
            .current_dir(&self.folder)
            .args(["test", "--package", "wsnap-checker"])
            .args([
                "--test",
                "guests",
                "--test",
                "specification",
                "--no-fail-fast",
            ])
            .args(arguments)
            .env("CARGO_TARGET_DIR", target.join("mutants"))
            // Compiling takes longer than checking.
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("RUST_BACKTRACE", "0")
            .output()
            .expect("cargo can be run")
    }

    /// Plants a fault, has it checked and takes it out again. Returns what was said about it, or why it was not found.
    fn try_out(&self, mutant: &Mutant) -> Result<String, String> {
        let path = self
            .folder
            .path()
            .join("runtime/instrument/src")
            .join(&mutant.file);
        let source = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let places = source.matches(&mutant.find).count();
        if places != 1 {
            return Err(format!(
                "what it replaces occurs {places} times in {}",
                mutant.file.display()
            ));
        }
        let write = |text: &str| fs::write(&path, text).map_err(|error| error.to_string());
        write(&source.replace(&mutant.find, &mutant.replace))?;
        let compiled = self.cargo(&["--no-run"]);
        let output = self.cargo(&[]);
        write(&source)?;
        if !compiled.status.success() {
            return Err(format!(
                "it does not compile: {}",
                String::from_utf8_lossy(&compiled.stderr)
            ));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text
            .lines()
            .find(|line| line.contains("Options {") && line.contains("module"));
        match found {
            Some(line) if !output.status.success() => Ok(line.to_owned()),
            _ => Err(format!("nothing is found wrong: {text}")),
        }
    }
}

#[test]
#[ignore = "compiles the rewriter once for each fault, some minutes in all"]
fn planted_faults_are_found() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mutants.toml"))
        .expect("there is a table of mutants");
    let Table { mutant: mutants } = toml::from_str(&text).expect("the table can be read");
    let copy = Copy::new();
    let sound = copy.cargo(&[]);
    assert!(
        sound.status.success(),
        "without a fault: {}",
        String::from_utf8_lossy(&sound.stdout)
    );
    let mut missed = Vec::new();
    let chosen = std::env::var("WSNAP_TEST_MUTANT").unwrap_or_default();
    for mutant in mutants
        .iter()
        .filter(|mutant| mutant.name.contains(&chosen))
    {
        match copy.try_out(mutant) {
            Ok(line) => println!("found: {}\n    {line}", mutant.name),
            Err(why) => {
                println!("MISSED: {}\n    {why}", mutant.name);
                missed.push(&mutant.name);
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:#?}");
}
