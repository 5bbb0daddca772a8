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
use wsnap::snapshots::{Store, StoreError};
use wsnap_supervision::Job;

use crate::failure::Failure;
use crate::output;
use crate::session::register::{self, Entry, Process, Registration};

const FILE: &str = "rollout.stopped";
/// Held by whoever changes the list, for moments.
const LOCK: &str = "rollout.lock";
/// Held by whoever goes on with all of the list, as long as that takes.
const GOING_ON_LOCK: &str = "rollout.going-on";
/// Tells a process for which program of the list it was started.
const STARTED_FOR: &str = "WSNAP_STARTED_FOR";
/// A program that goes on is ready by then, or has ended.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// A program that was stopped together with all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What it runs.
    #[serde(default)]
    pub module: String,
    /// The process that was to stop.
    #[serde(default)]
    pub process: Process,
    /// The image to go on from, or the program's name for its latest; none if it is to be started from the beginning.
    pub image: Option<String>,
    /// The directory that it was run in.
    pub directory: PathBuf,
    /// The words of the command line that goes on with it: one of `resume` without the image, or one of `run --continue`.
    pub words: Vec<String>,
    /// The words of the command line that starts it.
    #[serde(default)]
    pub words_to_start: Vec<String>,
}

impl Stopped {
    /// A program that has been suspended as an image of this id. One with a name goes on from its latest image, which is that
    /// one, unless somebody knows better by then.
    pub fn of(entry: &Entry, image: &str) -> Self {
        let image = entry.name.as_deref().unwrap_or(image);
        Self::new(entry, Some(image.to_owned()))
    }

    /// A program that had not begun to run.
    pub fn before_its_beginning(entry: &Entry) -> Self {
        Self::new(entry, None)
    }

    fn new(entry: &Entry, image: Option<String>) -> Self {
        Self {
            name: entry.name.clone(),
            module: entry.module.clone(),
            process: entry.process(),
            image,
            directory: entry.directory.clone(),
            words: entry.words_to_go_on.clone(),
            words_to_start: entry.words_to_start.clone(),
        }
    }

    /// Whether that is the program of this process.
    pub fn is(&self, entry: &Entry) -> bool {
        self.process == entry.process()
    }

    /// The words of the command line to go on by.
    fn command_line(&self, store: &Store) -> Result<Vec<String>, Failure> {
        let has_image = match (&self.image, &self.name) {
            (None, _) => false,
            (Some(_), Some(name)) => store.latest(name)?.is_some(),
            (Some(_), None) => true,
        };
        if !has_image && !self.words_to_start.is_empty() {
            return Ok(self.words_to_start.clone());
        }
        let mut words = self.words.clone();
        if words.first().is_some_and(|word| word == "resume") {
            if let Some(name) = &self.name {
                // A tag of the same name is not meant, and what is the latest image is only certain once the name is taken.
                words.extend(["--name".to_owned(), name.clone()]);
            }
            words.extend(self.image.clone());
        }
        Ok(words)
    }

    /// Whether that is the same stop of the same program, whatever has become known of it since.
    pub fn is_same(&self, other: &Self) -> bool {
        self.process == other.process && self.name == other.name && self.image == other.image
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

/// The programs that run now are about to be stopped, and those with names are to be gone on with, whatever happens to this
/// process. Returns them. Whoever comes to its end leaves the register first, and then the list, so nobody stays in it who has.
pub(crate) fn plan(store_directory: &Path) -> Result<Vec<Entry>, Failure> {
    let mut entries = Ok(Vec::new());
    change(store_directory, |all| {
        entries = register::running(store_directory);
        for entry in entries.iter().flatten() {
            if let Some(name) = &entry.name {
                all.retain(|program| program.name.as_ref() != Some(name));
                all.push(Stopped::of(entry, name));
            }
        }
    })?;
    entries
}

/// A program has stopped. One with a name is in the list, unless somebody has gone on with it since.
pub(crate) fn has_stopped(all: &mut Vec<Stopped>, entry: &Entry, program: Stopped) {
    match all.iter_mut().find(|other| other.is(entry)) {
        Some(planned) => *planned = program,
        None if program.name.is_none() => all.push(program),
        None => (),
    }
}

/// A program is ready, under this name, in this process: what others have left to go on with is not to be gone on with again,
/// nor what this process was started for. Should it be stopped itself by now, it stays in the list.
pub(crate) fn claim(
    store_directory: &Path,
    name: Option<&str>,
    registration: Option<&Registration>,
) -> Result<(), Failure> {
    let started_for = std::env::var(STARTED_FOR).ok();
    let own = registration.map(|registration| registration.process);
    remove(store_directory, |program| {
        let is_named = name.is_some() && program.name.as_deref() == name;
        let is_meant = started_for.as_ref() == Some(&key(program));
        (is_named || is_meant) && Some(program.process) != own
    })
}

/// The program of this name has come to its end.
pub(crate) fn forget(store_directory: &Path, name: &str) -> Result<(), Failure> {
    remove(store_directory, |program| {
        program.name.as_deref() == Some(name)
    })
}

fn remove(store_directory: &Path, is_meant: impl Fn(&Stopped) -> bool) -> Result<(), Failure> {
    // Hardly ever is anything to be gone on with. Where the lock is there may be a list in a moment: whoever holds it may have
    // found the program in the register.
    match store_directory.join(register::FOLDER).join(LOCK).exists() {
        true => change(store_directory, |all| {
            all.retain(|program| !is_meant(program))
        }),
        false => Ok(()),
    }
}

/// How a process is told for which program of the list it was started.
fn key(program: &Stopped) -> String {
    let image = program.image.as_deref().unwrap_or_default();
    let Process { pid, started_ms } = program.process;
    format!("{pid}-{started_ms}-{image}")
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

/// Whether the program of a name has come to its end, and whoever did that was killed before it left the list.
fn has_finished(program: &Stopped, store: &Store) -> Result<bool, Failure> {
    let Some(name) = &program.name else {
        return Ok(false);
    };
    match Job::open(store, name, &register::this_process()) {
        Ok(job) => Ok(job.journal().finished_at_ms().is_some()),
        // It runs: whoever is started for it will say so.
        Err(StoreError::JobTaken { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What came of going on with a program.
pub(crate) enum GoneOn {
    /// It does, in this process.
    Process(u32),
    /// It had come to its end.
    Finished,
}

/// Goes on with a program, in a process of its own that outlives this one, and waits until it is ready there, or has ended.
pub(crate) fn go_on(
    program: &Stopped,
    store_directory: &Path,
    cache: Option<&Path>,
) -> Result<GoneOn, Failure> {
    let failed =
        |why: String| Failure::new(format!("cannot go on with {}: {why}", program.label()));
    let store = Store::open(store_directory)?;
    if has_finished(program, &store)? {
        let is_meant = |other: &Stopped| other.is_same(program);
        remove(store_directory, is_meant)?;
        return Ok(GoneOn::Finished);
    }
    let log = program.log();
    let output = OpenOptions::new().create(true).append(true).open(&log);
    let output = output.map_err(|error| Failure::io("write", &log, &error))?;
    let again = output.try_clone();
    let again = again.map_err(|error| Failure::io("write", &log, &error))?;
    let this = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let directory = std::path::absolute(store_directory);
    let directory = directory.map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(this);
    command
        .env("WSNAP_STORE", directory)
        .env(STARTED_FOR, key(program))
        .args(program.command_line(&store)?);
    if let Some(cache) = cache {
        command.env("WSNAP_CACHE", cache);
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
        let ended = child.try_wait();
        let all = stopped(store_directory)?;
        if !all.iter().any(|other| other.is_same(program)) {
            return Ok(GoneOn::Process(pid));
        }
        match ended {
            Ok(Some(status)) => {
                return Err(failed(format!("it has ended with {status}"))
                    .hint(format!("{} says why", log.display())));
            }
            Ok(None) if since.elapsed() < START_TIMEOUT => thread::sleep(LOOK_PERIOD),
            Ok(None) => {
                // It must not begin later, when somebody else has been started for it. It has not run so far.
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(format!(
                    "it was not ready within {}",
                    output::duration(START_TIMEOUT)
                ))
                .hint("`wsnap compile` makes it ready sooner"));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::register::{Words, register};

    fn listed(store: &Store) -> Vec<Stopped> {
        stopped(store.directory()).expect("a list")
    }

    #[test]
    fn a_program_that_gets_ready_while_it_is_to_stop_stays_in_the_list_and_others_leave_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().join("store")).expect("a store");
        let directory = store.directory();
        let name = Some("sim".to_owned());
        let words = Words {
            to_go_on: vec!["resume".to_owned()],
            to_start: vec!["run".to_owned()],
        };
        let (registration, _listener) =
            register(&store, name.clone(), "sim.wasm", words).expect("registered");
        let entries = plan(directory).expect("planned");
        claim(directory, Some("sim"), Some(&registration)).expect("claimed");
        assert_eq!(listed(&store).len(), 1);
        let not_begun = Stopped::before_its_beginning(&entries[0]);
        change(directory, |all| {
            has_stopped(all, &entries[0], not_begun.clone())
        })
        .expect("noted");
        assert_eq!(listed(&store), std::slice::from_ref(&not_begun));
        assert_eq!(not_begun.command_line(&store).expect("words"), ["run"]);
        // Another process has the name.
        claim(directory, Some("sim"), None).expect("claimed");
        assert!(listed(&store).is_empty());
        // What becomes known of the first one comes too late.
        change(directory, |all| has_stopped(all, &entries[0], not_begun)).expect("noted");
        assert!(listed(&store).is_empty());
    }

    #[test]
    fn a_program_that_ends_while_others_plan_to_stop_it_leaves_the_list_that_they_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().join("store")).expect("a store");
        let directory = store.directory();
        let name = Some("sim".to_owned());
        let (registration, _listener) =
            register(&store, name, "sim.wasm", Words::default()).expect("registered");
        thread::scope(|scope| {
            let planned = change(directory, |all| {
                let entry = register::running(directory).expect("a register").remove(0);
                let ending = scope.spawn(move || {
                    drop(registration);
                    forget(directory, "sim")
                });
                // Whoever does not wait for the lock has looked for the list by the end of this.
                let since = Instant::now();
                while !ending.is_finished() && since.elapsed() < Duration::from_millis(300) {
                    thread::sleep(Duration::from_millis(1));
                }
                all.push(Stopped::of(&entry, "sim"));
            });
            planned.expect("planned");
        });
        assert!(listed(&store).is_empty());
    }

    #[test]
    fn a_program_without_a_name_is_in_the_list_once_however_many_stop_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().join("store")).expect("a store");
        let directory = store.directory();
        let (_registration, _listener) =
            register(&store, None, "sim.wasm", Words::default()).expect("registered");
        let first = plan(directory).expect("planned").remove(0);
        let mut second = first.clone();
        second.started_ms += 1;
        for entry in [&first, &second, &first] {
            let program = Stopped::of(entry, "3f");
            change(directory, |all| has_stopped(all, entry, program)).expect("noted");
        }
        let processes: Vec<_> = listed(&store).iter().map(|one| one.process).collect();
        assert_eq!(processes, [first.process(), second.process()]);
    }
}
