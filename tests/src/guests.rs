//! The table of programs to run: `guest-examples/runs.toml`.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;

use crate::examples_dir;
use crate::fetch::{FetchError, fetch};

/// A program with its arguments and input, and what plain wasmtime makes of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Unique in the table.
    pub name: String,
    /// The module's path under `guest-examples`; absolute for generated modules.
    #[serde(default)]
    pub module: Option<PathBuf>,
    /// Instead of `module`: the name of an entry of `fetched.toml`.
    #[serde(default)]
    pub fetched: Option<String>,
    /// The function for `--invoke`.
    #[serde(default)]
    pub invoke: Option<String>,
    /// The program's arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Directories to grant, as `HOST::GUEST` with HOST under `guest-examples`.
    #[serde(default)]
    pub dirs: Vec<String>,
    /// The name under which the program gets an empty directory. What it leaves there is part of its output.
    #[serde(default)]
    pub scratch: Option<String>,
    /// The name under which the program gets a volume.
    #[serde(default)]
    pub volume: Option<String>,
    /// Standard input.
    #[serde(default)]
    pub stdin: String,
    /// The exit code; 134 for a trap.
    pub exit: i32,
    /// Standard output.
    pub stdout: String,
}

#[derive(Deserialize)]
struct Table {
    run: Vec<Run>,
}

/// All runs of the table.
///
/// # Panics
///
/// If the table can't be read: it is part of the repository.
#[must_use]
pub fn runs() -> Vec<Run> {
    let path = examples_dir().join("runs.toml");
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let table: Table =
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    table.run
}

/// The run of that name.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn run(name: &str) -> Run {
    runs()
        .into_iter()
        .find(|run| run.name == name)
        .unwrap_or_else(|| panic!("guest-examples/runs.toml has no run {name:?}"))
}

impl Run {
    /// A run of a generated module without arguments. What it prints has to come from a reference run.
    #[must_use]
    pub fn of_module(name: &str, module: PathBuf) -> Self {
        Self {
            name: name.to_string(),
            module: Some(module),
            fetched: None,
            invoke: None,
            args: Vec::new(),
            dirs: Vec::new(),
            scratch: None,
            volume: None,
            stdin: String::new(),
            exit: 0,
            stdout: String::new(),
        }
    }

    /// The same program with other arguments.
    #[must_use]
    pub fn with_args(mut self, args: &[&str]) -> Self {
        self.args = args.iter().map(ToString::to_string).collect();
        self
    }

    /// Where the module lies; fetches it if need be.
    ///
    /// # Errors
    ///
    /// As [`fetch`].
    ///
    /// # Panics
    ///
    /// If the table names no module.
    pub fn module_path(&self) -> Result<PathBuf, FetchError> {
        match (&self.module, &self.fetched) {
            (Some(module), None) => Ok(examples_dir().join(module)),
            (None, Some(name)) => fetch(name),
            _ => panic!("run {:?} needs either `module` or `fetched`", self.name),
        }
    }
}
