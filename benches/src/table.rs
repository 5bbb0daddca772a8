//! The table of programs: `benches/programs.toml`, or another one of the same form.

use crate::error::{BenchError, at};
use serde::Deserialize;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use wsnap_tests::fetch::fetch;
use wsnap_tests::workspace_dir;

/// A program with its arguments and input, and what comes of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Unique in the table.
    pub name: String,
    /// What it does, for people.
    pub about: String,
    /// The module's path, from the table's folder.
    #[serde(default)]
    module: Option<PathBuf>,
    /// Instead of `module`: a program that `benches/guests/build.sh` builds.
    #[serde(default)]
    built: Option<String>,
    /// Instead of `module`: an entry of `guest-examples/fetched.toml`.
    #[serde(default)]
    fetched: Option<String>,
    /// The program's arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Directories to grant, as `HOST::GUEST` with HOST from the table's folder.
    #[serde(default)]
    pub dirs: Vec<String>,
    /// The name under which the program gets an empty directory. What it leaves there is part of its output.
    #[serde(default)]
    pub scratch: Option<String>,
    /// Standard input.
    #[serde(default)]
    pub stdin: String,
    /// The exit code.
    #[serde(default)]
    pub exit: i32,
    /// The hash of what it prints and leaves.
    pub output: String,
    /// Arguments with which it starts and ends at once.
    #[serde(default)]
    pub start: Option<Vec<String>>,
    /// Arguments with which an interpreter waits for a script on standard input.
    #[serde(default)]
    pub waits: Option<Vec<String>>,
    /// Such a script.
    #[serde(default)]
    pub script: Option<Script>,
    /// How an interpreter answers one request after the other.
    #[serde(default)]
    pub serves: Option<Serving>,
    /// The table's folder.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// A short script for an interpreter.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The script.
    pub text: String,
    /// The first line that it prints.
    pub line: String,
    /// A command that runs it natively, where there is one.
    #[serde(default)]
    pub native: Vec<String>,
}

/// An interpreter that answers requests, each of which is a line on standard input.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serving {
    /// Arguments with which it does.
    pub args: Vec<String>,
    /// A request whose answer is seven times the number that stands in place of `{}`.
    pub request: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    program: Vec<Row>,
}

/// The table that is part of the repository.
fn own_table() -> PathBuf {
    workspace_dir().join("benches/programs.toml")
}

/// The programs of those names in a table, or all of them; those that are built here are.
pub fn select(table: Option<&Path>, names: &[String]) -> Result<Vec<Row>, BenchError> {
    let path = table.map_or_else(own_table, Path::to_owned);
    let known = read(&path)?;
    let selected = if names.is_empty() {
        known
    } else {
        let find = |name: &String| {
            let row = known.iter().find(|row| row.name == *name).cloned();
            row.ok_or_else(|| BenchError::Unknown(name.clone(), list(&known)))
        };
        names.iter().map(find).collect::<Result<_, _>>()?
    };
    if selected.iter().any(|row| row.built.is_some()) {
        build()?;
    }
    Ok(selected)
}

fn read(path: &Path) -> Result<Vec<Row>, BenchError> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    let table: Table = toml::from_str(&text).map_err(|source| BenchError::Table {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let mut rows = table.program;
    for row in &mut rows {
        row.folder = path.parent().unwrap_or(Path::new("")).to_owned();
    }
    Ok(rows)
}

fn list(rows: &[Row]) -> String {
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    names.join(", ")
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_dir().join("target"), PathBuf::from)
}

/// Where the programs built here are.
pub fn built_dir() -> PathBuf {
    target_dir().join("bench-guests")
}

/// Builds what is older than its source.
fn build() -> Result<(), BenchError> {
    let script = workspace_dir().join("benches/guests/build.sh");
    // Standard output is for figures.
    let status = Command::new(&script)
        .arg(built_dir())
        .stdout(Stdio::from(std::io::stderr()))
        .status()
        .map_err(at(&script))?;
    if status.success() {
        return Ok(());
    }
    Err(BenchError::Build {
        script,
        status: status.to_string(),
    })
}

impl Row {
    /// Where the module lies; fetches it if need be.
    pub fn module_path(&self) -> Result<PathBuf, BenchError> {
        match (&self.module, &self.built, &self.fetched) {
            (Some(module), None, None) => Ok(self.folder.join(module)),
            (None, Some(name), None) => Ok(built_dir().join(format!("{name}.wasm"))),
            (None, None, Some(name)) => Ok(fetch(name)?),
            _ => Err(BenchError::NoModule(self.name.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{own_table, read};
    use std::collections::BTreeSet;

    #[test]
    fn names_in_the_table_are_unique_and_all_guests_built_here_are_in_it() {
        let rows = read(&own_table()).expect("the table is well formed");
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names.len(), rows.len());
        let built: BTreeSet<String> = rows.iter().filter_map(|row| row.built.clone()).collect();
        let guests = own_table().with_file_name("guests");
        let mut sources = BTreeSet::new();
        for folder in ["c", "rust/src/bin"] {
            let entries = guests.join(folder).read_dir().expect("a folder of sources");
            for entry in entries {
                let path = entry.expect("a source").path();
                if path
                    .extension()
                    .is_some_and(|ext| ext == "c" || ext == "rs")
                {
                    let stem = path.file_stem().expect("a source has a name");
                    sources.insert(stem.to_string_lossy().into_owned());
                }
            }
        }
        assert_eq!(built, sources);
    }
}
