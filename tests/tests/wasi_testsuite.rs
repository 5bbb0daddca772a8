//! The official tests of WASI preview 1, whole and with stops, on a directory and on a volume.
//!
//! They are not part of this repository: `WSNAP_WASI_TESTSUITE` names a checkout of the branch `prod/testsuite-base` of
//! WebAssembly/wasi-testsuite, which has them built. Without it there is nothing to run, which is said.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use wsnap_tests::chain::{Targets, seed};
use wsnap_tests::wsnap::{Finished, SUSPENDED, Sandbox};

const LANGUAGES: &[&str] = &["assemblyscript", "c", "rust"];
/// So often a program is stopped at most.
const STOPS_MAX: usize = 40;
/// What its arguments are to a program that is given none.
const NONE: &[Value] = &[];

fn main() {
    let arguments = Arguments::from_args();
    let trials = match env::var_os("WSNAP_WASI_TESTSUITE") {
        Some(suite) => trials(Path::new(&suite)),
        None => {
            eprintln!("WSNAP_WASI_TESTSUITE is not set: the official tests of WASI are not run");
            Vec::new()
        }
    };
    libtest_mimic::run(&arguments, trials).exit();
}

/// Where the files of a program are.
#[derive(Clone, Copy, Debug)]
enum Place {
    Directory,
    Volume,
}

fn trials(suite: &Path) -> Vec<Trial> {
    let folders = LANGUAGES.iter().map(|language| {
        suite
            .join("tests")
            .join(language)
            .join("testsuite/wasm32-wasip1")
    });
    let mut trials = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(&folder);
        let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("an entry of the folder").path();
            if path
                .extension()
                .is_some_and(|extension| extension == "wasm")
            {
                trials.extend(trials_of(&path));
            }
        }
    }
    assert!(!trials.is_empty(), "no programs in {}", suite.display());
    trials
}

fn trials_of(path: &Path) -> Vec<Trial> {
    let program = Program::read(path);
    let kinds: &[(&str, Place, Option<Targets>)] = &[
        ("passes", Place::Directory, None),
        ("passes_with_stops", Place::Directory, Some(Targets::Native)),
        (
            "passes_with_stops_on_alternating_targets",
            Place::Directory,
            Some(Targets::Alternating),
        ),
        (
            "passes_on_a_volume_with_stops",
            Place::Volume,
            Some(Targets::Native),
        ),
    ];
    let trials = kinds.iter().map(|&(name, place, targets)| {
        let program = program.clone();
        Trial::test(format!("{}::{name}", program.name), move || {
            program.check(place, targets)
        })
    });
    trials.collect()
}

/// A program and what is expected of it.
#[derive(Clone)]
struct Program {
    name: String,
    path: PathBuf,
    specification: Value,
}

impl Program {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path.with_extension("json")).unwrap_or_else(|_| "{}".into());
        let specification = serde_json::from_str(&text);
        Self {
            name: path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            path: path.to_owned(),
            specification: specification
                .unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        }
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let values = self.specification[key]
            .as_array()
            .map_or(NONE, Vec::as_slice);
        values
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    }

    /// The folder that the program finds as its root.
    fn root(&self) -> Option<PathBuf> {
        let root = self.specification["root"].as_str()?;
        Some(self.path.with_file_name(root))
    }

    fn variables(&self) -> Vec<String> {
        let variables = self.specification["env"].as_object();
        let variables = variables.into_iter().flatten();
        let set = |(name, value): (&String, &Value)| {
            format!("{name}={}", value.as_str().unwrap_or_default())
        };
        variables
            .flat_map(|variable| ["--env".to_owned(), set(variable)])
            .collect()
    }

    /// Runs the program to its end, with stops on the way if there are targets to go on with.
    fn check(&self, place: Place, targets: Option<Targets>) -> Result<(), Failed> {
        let sandbox = Sandbox::new();
        let mut random = fastrand::Rng::with_seed(seed());
        let mut run = Chain::new(self, &sandbox, place)?;
        let mut number = 0;
        loop {
            let stop = targets.filter(|_| number < STOPS_MAX);
            // Stops lie at all distances, as most programs are short and some are long.
            let stop = stop.map(|_| 10f64.powf(random.f64() * 4.0) as u64);
            let on_pulley = targets.is_some_and(|targets| targets.is_pulley(number));
            number += 1;
            if let Some(finished) = run.go_on(stop, on_pulley)? {
                return self.judge(&finished, &run.stdout);
            }
        }
    }

    fn judge(&self, finished: &Finished, stdout: &[u8]) -> Result<(), Failed> {
        let code = self.specification["exit_code"].as_i64().unwrap_or(0);
        let expected = self.specification["stdout"].as_str();
        let is_right = expected.is_none_or(|expected| expected.as_bytes() == stdout);
        if finished.code().map(i64::from) == Some(code) && is_right {
            return Ok(());
        }
        let stdout = String::from_utf8_lossy(stdout);
        Err(format!(
            "expected {code} and {expected:?}, got {finished:?} and {stdout:?}; seed {}",
            seed()
        )
        .into())
    }
}

/// A program's run, in as many processes as it is stopped.
struct Chain<'a> {
    program: &'a Program,
    sandbox: &'a Sandbox,
    /// The flags that grant the program its root, each time.
    grants: Vec<String>,
    image: Option<String>,
    stdout: Vec<u8>,
}

impl<'a> Chain<'a> {
    fn new(program: &'a Program, sandbox: &'a Sandbox, place: Place) -> Result<Self, Failed> {
        let mut chain = Self {
            program,
            sandbox,
            grants: Vec::new(),
            image: None,
            stdout: Vec::new(),
        };
        let Some(root) = program.root() else {
            return Ok(chain);
        };
        let copy = sandbox.path("root");
        copy_folder(&root, &copy)?;
        match place {
            Place::Directory => {
                chain.grants = vec!["--dir".to_owned(), format!("{}::/", copy.display())];
            }
            Place::Volume => {
                chain.grants = vec!["--volume".to_owned(), "root::/".to_owned()];
                let ended = chain.go_on(Some(1), false)?;
                if ended.is_some() {
                    return Err("it ended before its volume could be filled".into());
                }
                let image = chain.image.clone().unwrap_or_default();
                let put = sandbox
                    .wsnap()
                    .args(["volume", "put", &image])
                    .arg(&copy)
                    .arg("root:")
                    .run();
                if put.code() != Some(0) {
                    return Err(format!("its volume cannot be filled: {put:?}").into());
                }
                chain.image = Some(String::from_utf8_lossy(&put.stdout).trim().to_owned());
                // From here on the volume goes along.
                chain.grants.clear();
            }
        }
        Ok(chain)
    }

    /// Goes on until the next stop, or returns how the program ended.
    fn go_on(&mut self, stop: Option<u64>, on_pulley: bool) -> Result<Option<Finished>, Failed> {
        let id_file = self.sandbox.path("id");
        let mut command = self.sandbox.wsnap();
        command = command.arg(if self.image.is_some() {
            "resume"
        } else {
            "run"
        });
        command = command.args(&self.grants).arg("--id-file").arg(&id_file);
        if on_pulley {
            command = command.args(["--target", "pulley64"]);
        }
        if let Some(stop) = stop {
            command = command.args(["--stop-at", &format!("safepoint={stop}")]);
        }
        command = match &self.image {
            Some(image) => command.arg(image),
            None => {
                let program = self.program;
                command
                    .args(program.variables())
                    .arg(&program.path)
                    .args(program.texts("args"))
            }
        };
        let finished = command.run();
        self.stdout.extend_from_slice(&finished.stdout);
        if finished.code() != Some(SUSPENDED) {
            return Ok(Some(finished));
        }
        let id = fs::read_to_string(&id_file)?;
        self.image = Some(id.trim().to_owned());
        Ok(None)
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), Failed> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
