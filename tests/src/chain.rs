//! Running a program in many pieces, each in a process of its own, and comparing with one that ran undisturbed.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use thiserror::Error;

use crate::examples_dir;
use crate::fetch::FetchError;
use crate::guests::Run;
use crate::wsnap::{Finished, SUSPENDED, Sandbox, Wsnap};

/// What a program did, as far as anybody outside can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code.
    pub code: Option<i32>,
    /// All of standard output, of all pieces together.
    pub stdout: Vec<u8>,
    /// The kind of trap that ended it.
    pub trap: Option<String>,
    /// The files that it left in its scratch directory, by path.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

/// Why a chain isn't what it should be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The program isn't there.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A piece ended in another way than by suspending or as the whole program does.
    #[error("piece {number} failed (safepoints counted by each piece: {stops:?})\n{}", finished.describe())]
    Piece {
        /// Which piece, counted from 0.
        number: usize,
        /// Where the pieces up to this one were to stop.
        stops: Vec<u64>,
        /// The piece's process.
        finished: Box<Finished>,
    },
    /// A piece was suspended, but the file for the image's id doesn't hold one.
    #[error("piece {number} left no image id in its --id-file: {text:?}")]
    NoId {
        /// Which piece, counted from 0.
        number: usize,
        /// What the file holds.
        text: String,
    },
    /// The outcome is another one.
    #[error(
        "{what} differs: {expected} was expected, not {actual} (safepoints counted by each piece: {stops:?})"
    )]
    Differs {
        /// What differs.
        what: &'static str,
        /// As it should be.
        expected: String,
        /// As it is.
        actual: String,
        /// Where the pieces stopped.
        stops: Vec<u64>,
    },
}

/// On which target each piece runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Compiled for this machine.
    Native,
    /// Interpreted by wasmtime's portable interpreter.
    Pulley,
    /// Every other piece on the interpreter.
    Alternating,
}

impl Targets {
    /// Whether the piece of that number, from zero on, runs on the interpreter.
    #[must_use]
    pub fn is_pulley(self, piece: usize) -> bool {
        match self {
            Self::Native => false,
            Self::Pulley => true,
            Self::Alternating => piece % 2 == 1,
        }
    }
}

/// A program that is run piece by piece.
pub struct Chain<'a> {
    run: &'a Run,
    module: PathBuf,
    sandbox: Sandbox,
    stdin: File,
    options: Vec<String>,
    targets: Targets,
    stops: Vec<u64>,
    image: Option<String>,
    stdout: Vec<u8>,
}

impl<'a> Chain<'a> {
    /// Prepares to run a program from the beginning. `options` are for the first piece's `wsnap run`.
    ///
    /// # Errors
    ///
    /// If the program must be fetched and can't be.
    ///
    /// # Panics
    ///
    /// If the sandbox can't be filled.
    pub fn new(run: &'a Run, targets: Targets, options: &[&str]) -> Result<Self, ChainError> {
        let module = run.module_path()?;
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.path("scratch")).expect("a scratch directory");
        let stdin = File::open(sandbox.write("stdin", &run.stdin)).expect("the file just written");
        let options = options.iter().map(ToString::to_string).collect();
        Ok(Self {
            run,
            module,
            sandbox,
            stdin,
            options,
            targets,
            stops: Vec::new(),
            image: None,
            stdout: Vec::new(),
        })
    }

    /// The image of the last stop.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        self.image.as_deref()
    }

    /// Where the chain keeps its store.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Runs up to a safepoint counted from here, or to the program's end, in which case this returns what it did.
    ///
    /// # Errors
    ///
    /// If the piece ends in any other way.
    pub fn go_on(&mut self, stop: Option<u64>) -> Result<Option<Outcome>, ChainError> {
        let number = self.stops.len();
        self.stops.extend(stop);
        let finished = self.piece(number, stop);
        self.stdout.extend_from_slice(&finished.stdout);
        if finished.code() == Some(SUSPENDED) {
            let text = fs::read_to_string(self.sandbox.path("id")).unwrap_or_default();
            let id = text.trim();
            if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(ChainError::NoId { number, text });
            }
            self.image = Some(id.to_string());
            return Ok(None);
        }
        if finished.code() != Some(self.run.exit) {
            return Err(ChainError::Piece {
                number,
                stops: self.stops.clone(),
                finished: Box::new(finished),
            });
        }
        Ok(Some(Outcome {
            code: finished.code(),
            stdout: self.stdout.clone(),
            trap: finished.trap().map(str::to_string),
            files: files(&self.sandbox.path("scratch")),
        }))
    }

    /// Starts the piece that comes next and kills it after a while. Nothing of it counts, as if it had not been.
    ///
    /// # Panics
    ///
    /// If standard input can't be read again from where it was.
    pub fn start_and_kill(&mut self, stop: Option<u64>, after: Duration) {
        let place = self.stdin.stream_position().expect("it is a file");
        let mut running = self.command(self.stops.len(), stop).start();
        thread::sleep(after);
        running.signal(Signal::KILL);
        let _ = running.wait();
        self.stdin
            .seek(SeekFrom::Start(place))
            .expect("it is a file");
    }

    fn piece(&self, number: usize, stop: Option<u64>) -> Finished {
        self.command(number, stop).run()
    }

    fn command(&self, number: usize, stop: Option<u64>) -> Wsnap {
        let mut command = self.sandbox.wsnap();
        command = command.arg(if self.image.is_some() {
            "resume"
        } else {
            "run"
        });
        command = command.arg("--id-file").arg(self.sandbox.path("id"));
        if self.targets.is_pulley(number) {
            command = command.args(["--target", "pulley64"]);
        }
        if let Some(stop) = stop {
            command = command.args(["--stop-at", &format!("safepoint={stop}")]);
        }
        command = command.args(grants(self.run, &self.sandbox));
        command = command.stdin(
            self.stdin
                .try_clone()
                .expect("a second descriptor of the input"),
        );
        match &self.image {
            Some(image) => command.arg(image),
            None => {
                command = command.args(&self.options).args(volumes(self.run));
                invoke(command.args(invocation(self.run)), &self.module, self.run)
            }
        }
    }
}

fn invocation(run: &Run) -> Vec<String> {
    run.invoke
        .iter()
        .flat_map(|function| ["--invoke".to_string(), function.clone()])
        .collect()
}

fn invoke(command: Wsnap, module: &Path, run: &Run) -> Wsnap {
    command.arg(module).args(&run.args)
}

fn grants(run: &Run, sandbox: &Sandbox) -> Vec<String> {
    let mut flags = Vec::new();
    for dir in &run.dirs {
        flags.extend([
            "--dir".to_string(),
            format!("{}/{dir}", examples_dir().display()),
        ]);
    }
    if let Some(guest) = &run.scratch {
        flags.extend([
            "--dir".to_string(),
            format!("{}::{guest}", sandbox.path("scratch").display()),
        ]);
    }
    flags
}

/// What a new program is given. A resumed one has it.
fn volumes(run: &Run) -> Vec<String> {
    let flags = |guest: &String| ["--volume".to_string(), format!("scratch::{guest}")];
    run.volume.iter().flat_map(flags).collect()
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder of the sandbox") {
            let path = entry.expect("an entry of the sandbox").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(folder)
                    .expect("found beneath")
                    .to_path_buf();
                found.insert(name, fs::read(&path).expect("a file of the sandbox"));
            }
        }
    }
    found
}

/// What an uninterrupted run does; `options` such as `--bare` go to `wsnap run`.
///
/// # Errors
///
/// If it ends with another exit code than the table says.
pub fn whole(run: &Run, options: &[&str]) -> Result<Outcome, ChainError> {
    let mut chain = Chain::new(run, Targets::Native, options)?;
    match chain.go_on(None)? {
        Some(outcome) => Ok(outcome),
        None => Err(differs(
            "the end",
            "the program's own end",
            "a suspension",
            &[],
        )),
    }
}

/// Runs in pieces that stop after so many safepoints each, then to the end. Stops beyond the end don't matter.
///
/// # Errors
///
/// If a piece fails.
pub fn pieces(
    run: &Run,
    targets: Targets,
    stops: &[u64],
    options: &[&str],
) -> Result<Outcome, ChainError> {
    let mut chain = Chain::new(run, targets, options)?;
    for stop in stops {
        if let Some(outcome) = chain.go_on(Some(*stop))? {
            return Ok(outcome);
        }
    }
    match chain.go_on(None)? {
        Some(outcome) => Ok(outcome),
        None => Err(differs(
            "the end",
            "the program's own end",
            "a suspension",
            stops,
        )),
    }
}

/// Compares part by part, so that the message says what is wrong.
///
/// # Errors
///
/// If anything differs.
pub fn compare(expected: &Outcome, actual: &Outcome, stops: &[u64]) -> Result<(), ChainError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if expected.stdout != actual.stdout {
        return Err(differs(
            "standard output",
            &text(&expected.stdout),
            &text(&actual.stdout),
            stops,
        ));
    }
    if expected.code != actual.code {
        return Err(differs(
            "the exit code",
            &format!("{:?}", expected.code),
            &format!("{:?}", actual.code),
            stops,
        ));
    }
    if expected.trap != actual.trap {
        return Err(differs(
            "the trap",
            &format!("{:?}", expected.trap),
            &format!("{:?}", actual.trap),
            stops,
        ));
    }
    if expected.files != actual.files {
        let sizes = |files: &BTreeMap<PathBuf, Vec<u8>>| {
            let sized: Vec<_> = files
                .iter()
                .map(|(path, bytes)| (path.clone(), bytes.len()))
                .collect();
            format!("{sized:?}")
        };
        return Err(differs(
            "a written file",
            &sizes(&expected.files),
            &sizes(&actual.files),
            stops,
        ));
    }
    Ok(())
}

fn differs(what: &'static str, expected: &str, actual: &str, stops: &[u64]) -> ChainError {
    ChainError::Differs {
        what,
        expected: expected.to_string(),
        actual: actual.to_string(),
        stops: stops.to_vec(),
    }
}

/// A number of safepoints that the program passes for certain: at least half of all.
///
/// Found by running in pieces of doubled length to the end, whose outcome is returned, too.
///
/// # Errors
///
/// If a piece fails.
pub fn measure(run: &Run, options: &[&str]) -> Result<(u64, Outcome), ChainError> {
    let mut chain = Chain::new(run, Targets::Native, options)?;
    let mut passed = 0;
    let mut stop = 64;
    loop {
        if let Some(outcome) = chain.go_on(Some(stop))? {
            return Ok((passed, outcome));
        }
        passed += stop;
        stop = passed;
    }
}

/// The exact number of safepoints, by bisection: meant for short programs.
///
/// # Errors
///
/// If a piece fails.
pub fn count(run: &Run, options: &[&str]) -> Result<u64, ChainError> {
    let mut low = measure(run, options)?.0;
    let mut high = 2 * low + 64;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if Chain::new(run, Targets::Native, options)?
            .go_on(Some(middle))?
            .is_some()
        {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(low)
}

/// Splits `total` safepoints at random places: the lengths of the pieces, each at least 1.
#[must_use]
pub fn random_stops(total: u64, count: usize, seed: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut places: Vec<u64> = (0..count).map(|_| random.u64(1..=total.max(1))).collect();
    places.sort_unstable();
    places.dedup();
    let before = std::iter::once(0).chain(places.iter().copied());
    places
        .iter()
        .zip(before)
        .map(|(place, before)| place - before)
        .collect()
}

/// The seed of this run of the tests: from `WSNAP_TEST_SEED` to repeat a failure, else a new one every time.
#[must_use]
pub fn seed() -> u64 {
    match env::var("WSNAP_TEST_SEED") {
        Ok(text) => text.parse().expect("WSNAP_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    }
}

#[cfg(test)]
mod tests {
    use super::{ChainError, Outcome, compare, random_stops};

    #[test]
    fn random_stops_lie_within_the_program_and_depend_on_the_seed_only() {
        for (total, count) in [(1, 50), (49, 50), (50, 50), (1_000_000, 50)] {
            let stops = random_stops(total, count, 7);
            assert!(!stops.is_empty() && stops.len() <= count);
            assert!(stops.iter().all(|stop| *stop > 0));
            assert!(stops.iter().sum::<u64>() <= total);
            assert_eq!(stops, random_stops(total, count, 7));
        }
        assert_ne!(
            random_stops(1_000_000, 50, 7),
            random_stops(1_000_000, 50, 8)
        );
    }

    #[test]
    fn any_difference_of_outcomes_is_told_by_its_name() {
        let expected = Outcome {
            code: Some(0),
            stdout: b"a".to_vec(),
            ..Outcome::default()
        };
        let file = ("f".into(), b"x".to_vec());
        let others = [
            (
                "standard output",
                Outcome {
                    stdout: b"b".to_vec(),
                    ..expected.clone()
                },
            ),
            (
                "the exit code",
                Outcome {
                    code: Some(1),
                    ..expected.clone()
                },
            ),
            (
                "the trap",
                Outcome {
                    trap: Some("unreachable".into()),
                    ..expected.clone()
                },
            ),
            (
                "a written file",
                Outcome {
                    files: [file].into(),
                    ..expected.clone()
                },
            ),
        ];
        for (name, other) in others {
            match compare(&expected, &other, &[]) {
                Err(ChainError::Differs { what, .. }) => assert_eq!(what, name),
                result => panic!("{name}: {result:?}"),
            }
        }
        compare(&expected, &expected.clone(), &[]).unwrap_or_else(|error| panic!("{error}"));
    }
}
