//! The register of running programs: the folder `running` of the store.
//!
//! `<pid>.json` describes a program and says where its control socket is, usually `<pid>.sock` beside it. Who dies
//! leaves its entry behind: an entry whose socket nobody answers is stale, and removed by whoever notices.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use wsnap::snapshots::Store;

use crate::failure::Failure;
use crate::output;

/// The folder of the store.
pub(crate) const FOLDER: &str = "running";
const LOCK: &str = "lock";
const ENTRY_EXTENSION: &str = "json";
const SOCKET_EXTENSION: &str = "sock";
const TEMPORARY_EXTENSION: &str = "new";
/// Nobody but the owner of the store may ask for the memory of programs.
const FOLDER_MODE: u32 = 0o700;
const SOCKET_MODE: u32 = 0o600;
/// An address of a Unix socket, its terminating zero byte included.
const SOCKET_PATH_BYTES_MAX: usize = 108;

/// A running program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its process.
    pub pid: u32,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What it runs.
    pub module: String,
    /// When it was started or resumed, in milliseconds since 1970.
    pub started_ms: u64,
    /// The directory that it was run in, and the words of a command line that goes on with it as it was run.
    #[serde(default)]
    pub directory: PathBuf,
    /// See above.
    #[serde(default)]
    pub words_to_go_on: Vec<String>,
    /// The words of the command line that it was started by.
    #[serde(default)]
    pub words_to_start: Vec<String>,
    /// The host that it runs on: stores can be shared, process ids are not.
    host: String,
    socket: PathBuf,
}

impl Entry {
    /// Connects to the program, if it is alive.
    pub fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.socket)
    }

    /// The process.
    pub fn process(&self) -> Process {
        Process {
            pid: self.pid,
            started_ms: self.started_ms,
        }
    }

    /// How long it has been running.
    pub fn age(&self) -> Duration {
        let now_ms = output::unix_ms(SystemTime::now());
        Duration::from_millis(now_ms.saturating_sub(self.started_ms))
    }

    fn is_stale(&self) -> bool {
        self.connect().is_err_and(|error| has_ended(&error))
    }
}

/// Whether a program to which no connection could be made has ended. Anything else, such as a missing permission, does not mean
/// that.
pub(crate) fn has_ended(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::NotFound
    )
}

/// A process that runs a program: ids of processes come again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its id.
    pub pid: u32,
    /// When it entered itself, in milliseconds since 1970.
    pub started_ms: u64,
}

/// How the program is run again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    /// What goes on with it as it was run.
    pub to_go_on: Vec<String>,
    /// What starts it from the beginning.
    pub to_start: Vec<String>,
}

/// This process's entry; dropping it removes it.
pub(crate) struct Registration {
    /// What the entry says of the process.
    pub process: Process,
    entry: PathBuf,
    socket: PathBuf,
    /// Holds the socket when the store's path is too long for one.
    _folder: Option<TempDir>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        // What cannot be removed is stale, and noticed as such.
        let _ = fs::remove_file(&self.entry);
        let _ = fs::remove_file(&self.socket);
    }
}

/// Enters this process and returns the socket that it is to answer on.
pub(crate) fn register(
    store: &Store,
    name: Option<String>,
    module: &str,
    words: Words,
) -> Result<(Registration, UnixListener), Failure> {
    let folder = store.directory().join(FOLDER);
    let failed = |error: io::Error| Failure::io("register the program in", &folder, &error);
    create_folder(&folder).map_err(failed)?;
    // Two programs that start at the same time must not both find a name free.
    let lock = File::create(folder.join(LOCK)).map_err(failed)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(|error| failed(error.into()))?;
    remove_leftovers(&folder).map_err(failed)?;
    if let Some(name) = &name {
        check_free(&folder, name)?;
    }
    enter(&folder, name, module, words).map_err(failed)
}

/// The programs that run on this host, by process id.
pub(crate) fn running(store_directory: &Path) -> Result<Vec<Entry>, Failure> {
    running_in(&store_directory.join(FOLDER))
}

fn running_in(folder: &Path) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for path in entry_paths(folder).map_err(|error| Failure::io("list", folder, &error))? {
        // An entry that cannot be read has just been removed, or isn't one.
        let Some(entry) = read(&path).filter(|entry| entry.host == host()) else {
            continue;
        };
        if entry.is_stale() {
            let _ = fs::remove_file(&path);
            remove_socket(&entry.socket);
        } else {
            entries.push(entry);
        }
    }
    entries.sort_unstable_by_key(|entry| entry.pid);
    Ok(entries)
}

/// Removes what processes have left behind that ended between two steps of entering. Needs the lock, so that nobody is
/// entering.
fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_leftover = match path.extension() {
            Some(extension) if extension == SOCKET_EXTENSION => {
                !path.with_extension(ENTRY_EXTENSION).exists()
            }
            Some(extension) => extension == TEMPORARY_EXTENSION,
            None => false,
        };
        if is_leftover {
            // Others may be cleaning up, too.
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

/// Removes a socket, and the folder that was made for it if it has one.
fn remove_socket(socket: &Path) {
    let _ = fs::remove_file(socket);
    if let Some(folder) = socket.parent() {
        // Only an empty folder can be removed, and that of the register holds its lock.
        let _ = fs::remove_dir(folder);
    }
}

fn check_free(folder: &Path, name: &str) -> Result<(), Failure> {
    let entries = running_in(folder)?;
    match entries
        .iter()
        .find(|entry| entry.name.as_deref() == Some(name))
    {
        None => Ok(()),
        Some(entry) => Err(Failure::new(format!(
            "a program named {name:?} is already running: process {}",
            entry.pid
        ))
        .hint("choose another --name, or stop that one with `wsnap snap --stop`")),
    }
}

fn enter(
    folder: &Path,
    name: Option<String>,
    module: &str,
    words: Words,
) -> io::Result<(Registration, UnixListener)> {
    let pid = std::process::id();
    let (socket, temporary) = socket_path(folder, pid)?;
    // A process with the same id may have left one.
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)?;
    let process = Process {
        pid,
        started_ms: output::unix_ms(SystemTime::now()),
    };
    let registration = Registration {
        process,
        entry: folder.join(format!("{pid}.{ENTRY_EXTENSION}")),
        socket: socket.clone(),
        _folder: temporary,
    };
    fs::set_permissions(&socket, Permissions::from_mode(SOCKET_MODE))?;
    let entry = Entry {
        pid,
        name,
        module: module.to_owned(),
        started_ms: process.started_ms,
        directory: std::env::current_dir()?,
        words_to_go_on: words.to_go_on,
        words_to_start: words.to_start,
        host: host(),
        socket,
    };
    let mut file = tempfile::Builder::new()
        .suffix(&format!(".{TEMPORARY_EXTENSION}"))
        .tempfile_in(folder)?;
    file.write_all(&serde_json::to_vec(&entry)?)?;
    file.persist(&registration.entry)?;
    Ok((registration, listener))
}

fn socket_path(folder: &Path, pid: u32) -> io::Result<(PathBuf, Option<TempDir>)> {
    let name = format!("{pid}.{SOCKET_EXTENSION}");
    let path = std::path::absolute(folder)?.join(&name);
    if path.as_os_str().len() < SOCKET_PATH_BYTES_MAX {
        return Ok((path, None));
    }
    let temporary = tempfile::Builder::new().prefix("wsnap-").tempdir()?;
    Ok((temporary.path().join(name), Some(temporary)))
}

pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        created => created,
    }
}

fn entry_paths(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let listing = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing?,
    };
    let mut paths = Vec::new();
    for entry in listing {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new(ENTRY_EXTENSION)) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn read(path: &Path) -> Option<Entry> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// This process, for those who want the name that it has.
pub(crate) fn this_process() -> String {
    format!("process {} on {}", std::process::id(), host())
}

fn host() -> String {
    // Without a name all hosts are one, which is right unless a store is shared between several.
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().join("store")).expect("a store");
        (folder, store)
    }

    fn names(store: &Store) -> Vec<Option<String>> {
        let entries = running(store.directory()).expect("a register");
        entries.into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn a_program_is_listed_until_its_registration_is_dropped() {
        let (_folder, store) = store();
        assert!(names(&store).is_empty());
        let name = Some("digits".to_owned());
        let (registration, _listener) =
            register(&store, name.clone(), "pi.wasm", Words::default()).expect("registered");
        assert_eq!(names(&store), [name]);
        drop(registration);
        assert!(names(&store).is_empty());
    }

    #[test]
    fn a_name_that_is_taken_is_refused_with_the_process_that_has_it() {
        let (_folder, store) = store();
        let name = Some("digits".to_owned());
        let _running =
            register(&store, name.clone(), "pi.wasm", Words::default()).expect("registered");
        match register(&store, name, "pi.wasm", Words::default()) {
            Err(failure) => assert!(failure.message().contains(&std::process::id().to_string())),
            Ok(_) => panic!("two programs have one name"),
        }
    }

    #[test]
    fn an_entry_whose_socket_nobody_answers_is_ignored_and_removed() {
        let (_folder, store) = store();
        let (registration, listener) =
            register(&store, None, "pi.wasm", Words::default()).expect("registered");
        drop(listener);
        assert!(names(&store).is_empty());
        assert!(!registration.entry.exists());
        assert!(!registration.socket.exists());
    }

    #[test]
    fn what_is_left_of_a_program_that_was_killed_while_it_registered_is_removed() {
        let (_folder, store) = store();
        let folder = store.directory().join(FOLDER);
        create_folder(&folder).expect("a folder");
        for name in ["4000000.sock", ".tmpzyxwvu.new"] {
            fs::write(folder.join(name), "").expect("written");
        }
        let (registration, _listener) =
            register(&store, None, "pi.wasm", Words::default()).expect("registered");
        let mut left: Vec<PathBuf> = fs::read_dir(&folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        left.sort();
        let socket = registration.socket.clone();
        assert_eq!(
            left,
            [registration.entry.clone(), socket, folder.join(LOCK)]
        );
    }

    #[test]
    fn a_store_too_deep_for_a_socket_has_its_sockets_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("d".repeat(120));
        let store = Store::open(&deep).expect("a store");
        let (registration, _listener) =
            register(&store, None, "pi.wasm", Words::default()).expect("registered");
        assert!(!registration.socket.starts_with(&deep));
        assert_eq!(names(&store), [None]);
    }

    #[test]
    fn a_registered_program_does_not_make_the_store_a_foreign_directory() {
        let (_folder, store) = store();
        let _running = register(&store, None, "pi.wasm", Words::default()).expect("registered");
        Store::open(store.directory()).expect("it is still a store");
    }
}
