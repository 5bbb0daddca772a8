//! Stopping all programs for maintenance, and going on with all of them: `snap --all` and `resume --all`.
//!
//! What was stopped is written into the store beside the programs' names, with the command line that each was run by, so that
//! whoever goes on need not know. `rollout.stopped` in the folder `running` of the store holds a list; an entry goes when its
//! program goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::failure::Failure;
use crate::session::register::{self, Entry};

const FILE: &str = "rollout.stopped";
/// A program that goes on is in the register by then, or has ended.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// A program that was stopped together with all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    /// Its name, or that of its image if it had none.
    pub name: Option<String>,
    /// The image to go on from, or the program's name for its latest.
    pub image: String,
    /// The directory that it was run in.
    pub directory: PathBuf,
    /// The words of the command line that goes on with it: one of `resume` without the image, or one of `run --continue`.
    pub words: Vec<String>,
}

impl Stopped {
    /// A program that runs now and is to go on from `image`: an id, or a name.
    pub fn of(entry: &Entry, image: String) -> Self {
        Self {
            name: entry.name.clone(),
            image,
            directory: entry.directory.clone(),
            words: entry.words_to_go_on.clone(),
        }
    }

    /// What to call it.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.image)
    }

    /// The file that receives what the program prints when it goes on, if nobody has said where that is to go.
    pub fn log(&self) -> PathBuf {
        self.directory.join(format!("wsnap-{}.log", self.label()))
    }
}

/// The programs that were stopped together and have not gone on.
pub(crate) fn stopped(store_directory: &Path) -> Result<Vec<Stopped>, Failure> {
    let path = path(store_directory);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::io("read", &path, &error)),
    };
    serde_json::from_slice(&text).map_err(|error| {
        Failure::new(format!("{} is damaged: {error}", path.display()))
            .hint("remove it, and go on with each program by `wsnap resume NAME`; `wsnap ls` has the names")
    })
}

/// Adds a program, in place of what was known of it.
pub(crate) fn add(all: &mut Vec<Stopped>, program: Stopped) {
    all.retain(|other| program.name.is_none() || other.name != program.name);
    all.push(program);
}

/// Writes down which programs have been stopped and not gone on, durably.
pub(crate) fn set_stopped(store_directory: &Path, all: &[Stopped]) -> Result<(), Failure> {
    let path = path(store_directory);
    write(&path, all).map_err(|error| Failure::io("write", &path, &error))
}

fn write(path: &Path, all: &[Stopped]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    if all.is_empty() {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec_pretty(all)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

fn path(store_directory: &Path) -> PathBuf {
    store_directory.join(register::FOLDER).join(FILE)
}

/// Goes on with a program, in a process of its own that outlives this one, and waits until that can be found, or has ended.
/// Returns its process id.
pub(crate) fn go_on(
    program: &Stopped,
    store_directory: &Path,
    cache: Option<&Path>,
) -> Result<u32, Failure> {
    let failed =
        |why: String| Failure::new(format!("cannot go on with {}: {why}", program.label()));
    let log = program.log();
    let output = OpenOptions::new().create(true).append(true).open(&log);
    let output = output.map_err(|error| Failure::io("write", &log, &error))?;
    let again = output.try_clone();
    let again = again.map_err(|error| Failure::io("write", &log, &error))?;
    let this = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let store = std::path::absolute(store_directory);
    let store = store.map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(this);
    command.env("WSNAP_STORE", store).args(&program.words);
    if let Some(cache) = cache {
        command.env("WSNAP_CACHE", cache);
    }
    if program.words.first().is_some_and(|word| word == "resume") {
        if let Some(name) = &program.name {
            command.args(["--name", name]);
        }
        command.arg(&program.image);
    }
    // A group of its own: what the terminal sends to this one is not meant for it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command
        .current_dir(&program.directory)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(again)
        .spawn();
    let mut child = child.map_err(|error| failed(error.to_string()))?;
    let pid = child.id();
    let since = Instant::now();
    loop {
        let runs = register::running(store_directory)?;
        if runs.iter().any(|entry: &Entry| entry.pid == pid) {
            return Ok(pid);
        }
        match child.try_wait() {
            // It had little left to do.
            Ok(Some(status)) if status.success() => return Ok(pid),
            Ok(Some(status)) => {
                return Err(failed(format!("it has ended with {status}"))
                    .hint(format!("{} says why", log.display())));
            }
            Ok(None) if since.elapsed() < START_TIMEOUT => thread::sleep(LOOK_PERIOD),
            Ok(None) => return Err(failed("it has not begun to run".to_owned())),
            Err(error) => return Err(failed(error.to_string())),
        }
    }
}
