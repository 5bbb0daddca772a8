//! Stopping all programs for maintenance, and going on with all of them: `snap --all` and `resume --all`.
//!
//! What was stopped is written into the store beside the programs' names, with the command line that each was run by, so that
//! whoever goes on need not know. `rollout.stopped` in the folder `running` of the store holds a list; an entry goes when some
//! process has made its program ready under its name, or the program has come to its end.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use wsnap::snapshots::Store;

use crate::failure::Failure;
use crate::session::register::{self, Entry};

const FILE: &str = "rollout.stopped";
/// Held by whoever changes the list, for moments.
const LOCK: &str = "rollout.lock";
/// Held by whoever goes on with all of the list, as long as that takes.
const GOING_ON_LOCK: &str = "rollout.going-on";
/// A program that goes on is ready by then, or has ended.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// A program that was stopped together with all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What it runs.
    pub module: String,
    /// The image to go on from, or the program's name for its latest; none if it is to be started from the beginning.
    pub image: Option<String>,
    /// The directory that it was run in.
    pub directory: PathBuf,
    /// The words of the command line that goes on with it, or starts it: one of `resume` without the image, or one of `run`.
    pub words: Vec<String>,
}

impl Stopped {
    /// A program that has been suspended as an image of this id. One with a name goes on from its latest image, which is that
    /// one, unless somebody knows better by then.
    pub fn of(entry: &Entry, image: &str) -> Self {
        let image = entry.name.as_deref().unwrap_or(image);
        Self::new(entry, Some(image.to_owned()), &entry.words_to_go_on)
    }

    /// A program that had not begun to run.
    pub fn before_its_beginning(entry: &Entry) -> Self {
        Self::new(entry, None, &entry.words_to_start)
    }

    fn new(entry: &Entry, image: Option<String>, words: &[String]) -> Self {
        Self {
            name: entry.name.clone(),
            module: entry.module.clone(),
            image,
            directory: entry.directory.clone(),
            words: words.to_vec(),
        }
    }

    /// Whether that is the program of this name.
    pub fn is(&self, entry: &Entry) -> bool {
        self.name.is_some() && self.name == entry.name
    }

    /// What to call it.
    pub fn label(&self) -> &str {
        let named = self.name.as_deref().or(self.image.as_deref());
        named.unwrap_or_else(|| {
            let file = Path::new(&self.module).file_name();
            file.and_then(|name| name.to_str()).unwrap_or("program")
        })
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

/// These programs are about to be stopped, and those with names are to be gone on with, whatever happens to this process.
pub(crate) fn plan(all: &mut Vec<Stopped>, entries: &[Entry]) {
    for entry in entries {
        if let Some(name) = &entry.name {
            all.retain(|program| !program.is(entry));
            all.push(Stopped::of(entry, name));
        }
    }
}

/// A program has stopped. One with a name is in the list, unless somebody has gone on with it since.
pub(crate) fn has_stopped(all: &mut Vec<Stopped>, program: Stopped) {
    if program.name.is_none() {
        all.push(program);
        return;
    }
    if let Some(planned) = all.iter_mut().find(|other| other.name == program.name) {
        *planned = program;
    }
}

/// The program of this name is not to be gone on with: it runs, or has ended.
pub(crate) fn forget(store_directory: &Path, name: &str) -> Result<(), Failure> {
    let path = path(store_directory);
    if !path.exists() {
        return Ok(());
    }
    change(store_directory, |all| {
        all.retain(|program| program.name.as_deref() != Some(name));
    })
}

/// Changes the list, which nobody else does meanwhile. It is durable on return.
pub(crate) fn change(
    store_directory: &Path,
    change: impl FnOnce(&mut Vec<Stopped>),
) -> Result<(), Failure> {
    let _lock = lock(store_directory)?;
    let before = stopped(store_directory)?;
    let mut after = before.clone();
    change(&mut after);
    if before == after {
        return Ok(());
    }
    let path = path(store_directory);
    write(&path, &after).map_err(|error| Failure::io("write", &path, &error))
}

fn lock(store_directory: &Path) -> Result<File, Failure> {
    let path = lock_path(store_directory, LOCK)?;
    let locked = File::create(&path).and_then(|file| file.lock().map(|()| file));
    locked.map_err(|error| Failure::io("lock", &path, &error))
}

/// Nobody else goes on with all programs until the file is dropped.
pub(crate) fn lock_going_on(store_directory: &Path) -> Result<File, Failure> {
    let path = lock_path(store_directory, GOING_ON_LOCK)?;
    let failed = |error: io::Error| Failure::io("lock", &path, &error);
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            "another `wsnap resume --all` goes on with the programs of this store",
        )),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn lock_path(store_directory: &Path, name: &str) -> Result<PathBuf, Failure> {
    let folder = store_directory.join(register::FOLDER);
    register::create_folder(&folder).map_err(|error| Failure::io("create", &folder, &error))?;
    Ok(folder.join(name))
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

/// What `resume` is told. A tag can have the name of a program and would go before it, so it is told the image.
fn reference(program: &Stopped, store_directory: &Path) -> Result<Vec<String>, Failure> {
    let Some(name) = &program.name else {
        return Ok(program.image.iter().cloned().collect());
    };
    let latest = Store::open(store_directory)?.latest(name)?;
    let image = latest.map_or_else(|| name.clone(), |id| id.to_string());
    Ok(vec!["--name".to_owned(), name.clone(), image])
}

/// Goes on with a program, in a process of its own that outlives this one, and waits until it is ready there, or has ended.
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
        command.args(reference(program, store_directory)?);
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
        let is_ready = match &program.name {
            Some(_) => !stopped(store_directory)?.contains(program),
            None => register::running(store_directory)?
                .iter()
                .any(|entry| entry.pid == pid),
        };
        if is_ready {
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
