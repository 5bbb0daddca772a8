//! Attempts to leave a granted directory: by symbolic links of every kind, by paths that are changed during the call,
//! and by saved states from strangers.

mod common;

use common::{DATA, DIR, Guest, IOVS, OUT, PATH, PATH2, READ, WRITE, grants, returned};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use wsnap_wasi::{
    Errno, Files, Grants, OFlags, RestoreError, SavedDescriptor, SavedDirectory, SavedFileKind,
    Wasi,
};

const SECRET: &[u8] = b"what lies outside";
const INSIDE: &[u8] = b"inside";

/// A directory that nothing was granted in: a file, a directory with a file, an empty directory.
fn outside() -> TempDir {
    let outside = TempDir::new().expect("a directory");
    for directory in ["d", "empty"] {
        fs::create_dir(outside.path().join(directory)).expect("a directory");
    }
    for file in ["f", "d/f", "secret"] {
        fs::write(outside.path().join(file), SECRET).expect("written");
    }
    symlink("f", outside.path().join("l")).expect("a link");
    outside
}

/// All that could be changed about a file.
#[derive(Debug, PartialEq)]
struct Found {
    mode: u32,
    links: u64,
    size_bytes: u64,
    modified: (i64, i64),
    bytes: Vec<u8>,
}

/// A directory with all that is below it, by path.
fn content(path: &Path) -> BTreeMap<String, Found> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![path.to_owned()];
    while let Some(next) = waiting.pop() {
        let about = fs::symlink_metadata(&next).expect("it is there");
        if about.is_dir() {
            for entry in fs::read_dir(&next).expect("readable") {
                waiting.push(entry.expect("an entry").path());
            }
        }
        let found = Found {
            mode: about.mode(),
            links: about.nlink(),
            size_bytes: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
            bytes: match about.is_file() {
                true => fs::read(&next).expect("readable"),
                false => Vec::new(),
            },
        };
        all.insert(next.display().to_string(), found);
    }
    all
}

/// Every function on paths, applied to one path or to that and another. An operation that succeeds inside is undone.
const OPERATIONS: &[&str] = &[
    "open",
    "create",
    "truncate",
    "list",
    "stat",
    "stat a link",
    "set times",
    "set a link's times",
    "make a directory",
    "remove a directory",
    "unlink",
    "rename from",
    "rename to",
    "link from",
    "link to",
    "make a symbolic link",
    "read a symbolic link",
];

impl Guest {
    fn two_paths(&mut self, one: &str, other: &str) -> (u32, u32) {
        let one = self.put(PATH, one.as_bytes());
        (one, self.put(PATH2, other.as_bytes()))
    }

    /// Applies an operation to what `path` names in the directory `below`, and makes sure that what it tells does not
    /// come from outside. Files that it creates have names that begin with `new`.
    fn operate(&mut self, operation: &str, below: &str) -> Result<(), Errno> {
        let at = |name: &str| format!("{below}/{name}");
        let mut on = |name: &str| {
            let path = at(name);
            (self.put(PATH, path.as_bytes()), path)
        };
        match operation {
            "open" => self.open_and(&at("f"), OFlags::empty(), READ),
            "create" => {
                self.open_and(&at("new"), OFlags::CREAT | OFlags::EXCL, WRITE)?;
                self.operate("unlink new", below)
            }
            "truncate" => self.open_and(&at("cut"), OFlags::TRUNC | OFlags::CREAT, WRITE),
            "list" => {
                let fd = self.open(below, OFlags::DIRECTORY, READ)?;
                let listed = returned(call!(self.fd_readdir(fd, DATA, 2000, 0, OUT)));
                let bytes = self.bytes(DATA, self.u32(OUT)).to_vec();
                let seen = bytes.windows(6).any(|name| name == b"secret");
                assert!(!seen, "the list is that of another directory");
                self.close(fd)?;
                listed
            }
            "stat" | "stat a link" => {
                let (length, _) = on("f");
                let follow = u32::from(operation == "stat");
                let stat = call!(self.path_filestat_get(DIR, follow, PATH, length, OUT));
                returned(stat)?;
                assert_eq!(self.u64(OUT + 32), INSIDE.len() as u64);
                Ok(())
            }
            "set times" | "set a link's times" => {
                let (length, _) = on("f");
                let follow = u32::from(operation == "set times");
                let set =
                    call!(self.path_filestat_set_times(DIR, follow, PATH, length, 1, 1, 1 | 4));
                returned(set)
            }
            "make a directory" => {
                let (length, _) = on("newdir");
                returned(call!(self.path_create_directory(DIR, PATH, length)))?;
                self.operate("remove newdir", below)
            }
            "remove newdir" | "remove a directory" => {
                let (length, _) = on(match operation {
                    "remove newdir" => "newdir",
                    _ => "empty",
                });
                returned(call!(self.path_remove_directory(DIR, PATH, length)))
            }
            "unlink" | "unlink new" => {
                let (length, _) = on(match operation {
                    "unlink new" => "new",
                    _ => "l",
                });
                returned(call!(self.path_unlink_file(DIR, PATH, length)))
            }
            "rename from" | "rename to" => {
                let (old, new) = match operation {
                    "rename from" => (at("f"), "own/taken".to_owned()),
                    _ => ("own/taken".to_owned(), at("f")),
                };
                let (old, new) = self.two_paths(&old, &new);
                returned(call!(self.path_rename(DIR, PATH, old, DIR, PATH2, new)))
            }
            "link from" | "link to" => {
                let (old, new) = match operation {
                    "link from" => (at("f"), "own/linked".to_owned()),
                    _ => ("own/mine".to_owned(), at("newlink")),
                };
                let (old, new) = self.two_paths(&old, &new);
                returned(call!(self.path_link(DIR, 0, PATH, old, DIR, PATH2, new)))
            }
            "make a symbolic link" => {
                let (target, link) = self.two_paths("f", &at("newsymlink"));
                returned(call!(self.path_symlink(PATH, target, DIR, PATH2, link)))
            }
            "read a symbolic link" => {
                let (length, _) = on("l");
                returned(call!(self.path_readlink(DIR, PATH, length, DATA, 100, OUT)))
            }
            other => panic!("no operation {other}"),
        }
    }

    /// Opens, and reads or writes what was opened.
    fn open_and(
        &mut self,
        path: &str,
        oflags: OFlags,
        rights: wsnap_wasi::Rights,
    ) -> Result<(), Errno> {
        let fd = self.open(path, oflags, rights)?;
        if rights == READ {
            let found = self.read(fd, 100);
            assert_eq!(found.as_deref(), Ok(INSIDE), "{path}");
        } else {
            assert_eq!(self.write(fd, b"written"), Ok(7), "{path}");
        }
        self.close(fd)
    }
}

/// Makes `path` a directory as the operations expect it.
fn furnish(path: &Path) {
    fs::create_dir(path).expect("a directory");
    fs::write(path.join("f"), INSIDE).expect("written");
    refurnish(path);
}

/// Puts back what operations have taken away and added.
fn refurnish(path: &Path) {
    // What is there already, or gone already, is as it should be.
    let _ = fs::create_dir(path.join("empty"));
    let _ = symlink("f", path.join("l"));
    for name in ["newlink", "newsymlink", "new"] {
        let _ = fs::remove_file(path.join(name));
    }
    let _ = fs::remove_dir(path.join("newdir"));
}

#[test]
fn no_link_leads_any_function_out() {
    let outside = outside();
    let before = content(outside.path());
    let mut guest = Guest::new();
    furnish(&guest.host("own"));
    fs::write(guest.host("own/taken"), "").expect("written");
    fs::write(guest.host("own/mine"), "").expect("written");
    let name = outside.path().file_name().expect("a name");
    let relative = Path::new("..").join(name);
    let deep = Path::new("../..").join(name);
    fs::create_dir(guest.host("sub")).expect("a directory");
    symlink(outside.path(), guest.host("absolute")).expect("a link");
    symlink(&relative, guest.host("relative")).expect("a link");
    symlink(&deep, guest.host("sub/deep")).expect("a link");
    symlink("absolute", guest.host("chained")).expect("a link");
    symlink("sub/../relative", guest.host("roundabout")).expect("a link");
    symlink("loop2", guest.host("loop1")).expect("a link");
    symlink("loop1", guest.host("loop2")).expect("a link");
    symlink("nowhere", guest.host("dangling")).expect("a link");
    symlink(outside.path().join("nothing"), guest.host("dangling-out")).expect("a link");
    let relative = relative.to_str().expect("a path").to_owned();
    let inside_out = format!("sub/../../{}", name.to_str().expect("a name"));
    let absolute = outside.path().to_str().expect("a path").to_owned();
    let cases = [
        ("absolute", Errno::Perm),
        ("relative", Errno::Perm),
        ("sub/deep", Errno::Perm),
        ("chained", Errno::Perm),
        ("roundabout", Errno::Perm),
        ("dangling-out", Errno::Perm),
        (relative.as_str(), Errno::Perm),
        (inside_out.as_str(), Errno::Perm),
        (absolute.as_str(), Errno::Perm),
        ("loop1", Errno::Loop),
        ("dangling", Errno::Noent),
    ];
    for (path, expected) in cases {
        for operation in OPERATIONS {
            let outcome = guest.operate(operation, path);
            assert_eq!(outcome, Err(expected), "{operation} in {path}");
        }
    }
    assert_eq!(content(outside.path()), before);
    // The operations do work, where they may.
    for operation in OPERATIONS {
        let outcome = guest.operate(operation, "own");
        assert_eq!(outcome, Ok(()), "{operation}");
        refurnish(&guest.host("own"));
        fs::write(guest.host("own/f"), INSIDE).expect("written");
    }
}

#[test]
fn a_final_link_out_is_neither_followed_nor_created_through() {
    let outside = outside();
    let before = content(outside.path());
    let mut guest = Guest::new();
    symlink(outside.path().join("f"), guest.host("file")).expect("a link");
    symlink(outside.path().join("new"), guest.host("new")).expect("a link");
    for (path, oflags) in [
        ("file", OFlags::empty()),
        ("file", OFlags::TRUNC),
        ("file", OFlags::CREAT),
        ("new", OFlags::CREAT),
        ("new", OFlags::CREAT | OFlags::TRUNC),
    ] {
        for rights in [READ, WRITE, READ | WRITE] {
            let opened = guest.open(path, oflags, rights);
            assert_eq!(opened, Err(Errno::Perm), "{path} {oflags:?}");
        }
    }
    let exclusive = guest.open("new", OFlags::CREAT | OFlags::EXCL, WRITE);
    assert_eq!(exclusive, Err(Errno::Exist));
    // A link itself can be linked, renamed and removed: that is inside.
    let (old, new) = guest.two_paths("file", "linked");
    assert_eq!(
        returned(call!(guest.path_link(DIR, 0, PATH, old, DIR, PATH2, new))),
        Ok(())
    );
    assert_eq!(
        guest.open("linked", OFlags::empty(), READ),
        Err(Errno::Perm)
    );
    let (old, new) = guest.two_paths("linked", "renamed");
    let renamed = returned(call!(guest.path_rename(DIR, PATH, old, DIR, PATH2, new)));
    assert_eq!(renamed, Ok(()));
    for path in ["file", "renamed", "new"] {
        let length = guest.put(PATH, path.as_bytes());
        let unlinked = returned(call!(guest.path_unlink_file(DIR, PATH, length)));
        assert_eq!(unlinked, Ok(()), "{path}");
    }
    assert_eq!(content(outside.path()), before);
}

/// While `operate` runs, another thread puts a link to the outside in the place of a directory, and back again. It is
/// called for a while, and on until it says that it has seen enough.
fn while_swapped(directory: &Path, link: &Path, mut operate: impl FnMut() -> bool) {
    /// Long enough for tens of thousands of swaps.
    const PERIOD: Duration = Duration::from_millis(400);
    const PERIOD_MAX: Duration = Duration::from_secs(20);
    /// A failed test must not wait for the other thread for ever.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let swapped = renameat_with(CWD, directory, CWD, link, RenameFlags::EXCHANGE);
                swapped.expect("both are there");
            }
        });
        let start = Instant::now();
        while !(operate() && start.elapsed() >= PERIOD) && start.elapsed() < PERIOD_MAX {}
    });
}

#[test]
fn no_directory_swapped_for_a_link_during_a_call_leads_out() {
    let outside = outside();
    let before = content(outside.path());
    let mut guest = Guest::new();
    furnish(&guest.host("d"));
    furnish(&guest.host("own"));
    fs::write(guest.host("own/mine"), "").expect("written");
    symlink(outside.path(), guest.host("link")).expect("a link");
    let (directory, link) = (guest.host("d"), guest.host("link"));
    // Each operation is tried in both states: it is done, and it is refused.
    let in_both_states =
        |outcomes: &BTreeSet<String>| outcomes.contains("Perm") && outcomes.contains("done");
    let mut outcomes: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    while_swapped(&directory, &link, || {
        for operation in OPERATIONS {
            // What one operation took, the next one needs.
            let inside = fs::symlink_metadata(&directory).is_ok_and(|about| about.is_dir());
            let real = if inside { &directory } else { &link };
            restock(real);
            fs::write(guest.host("own/taken"), INSIDE).expect("written");
            let _ = fs::remove_file(guest.host("own/linked"));
            let outcome = guest.operate(operation, "d");
            let outcome = outcome.map_or_else(|errno| format!("{errno:?}"), |()| "done".to_owned());
            outcomes.entry(operation).or_default().insert(outcome);
        }
        outcomes.values().all(in_both_states)
    });
    assert_eq!(content(outside.path()), before);
    for (operation, outcomes) in outcomes {
        assert!(in_both_states(&outcomes), "{operation}: {outcomes:?}");
    }
}

/// As `refurnish`, but the directory may be swapped for the link at any moment: nothing is followed, and nothing is
/// written unless it is known to lie in the directory itself.
fn restock(path: &Path) {
    use rustix::fs::{AtFlags, Mode, OFlags as Host, openat, symlinkat, unlinkat};
    let flags = Host::DIRECTORY | Host::NOFOLLOW | Host::CLOEXEC | Host::RDONLY;
    let Ok(directory) = openat(CWD, path, flags, Mode::empty()) else {
        return;
    };
    let flags = Host::CREATE | Host::EXCL | Host::WRONLY | Host::CLOEXEC;
    if let Ok(file) = openat(&directory, "f", flags, Mode::RUSR | Mode::WUSR) {
        rustix::io::write(&file, INSIDE).expect("room");
    }
    // Either it is there, or it is made.
    let _ = symlinkat("f", &directory, "l");
    let _ = rustix::fs::mkdirat(&directory, "empty", Mode::RWXU);
    for name in ["newlink", "newsymlink", "new"] {
        let _ = unlinkat(&directory, name, AtFlags::empty());
    }
    let _ = unlinkat(&directory, "newdir", AtFlags::REMOVEDIR);
}

#[test]
fn no_file_swapped_for_a_link_during_a_call_leads_out() {
    let outside = outside();
    let before = content(outside.path());
    let mut guest = Guest::new();
    fs::write(guest.host("f"), INSIDE).expect("written");
    symlink(outside.path().join("f"), guest.host("link")).expect("a link");
    let (file, link) = (guest.host("f"), guest.host("link"));
    let (mut done, mut refused) = (0, 0);
    while_swapped(&file, &link, || {
        let opened = guest.open("f", OFlags::empty(), READ);
        let outcome = opened.and_then(|fd| {
            assert_eq!(guest.read(fd, 100).as_deref(), Ok(INSIDE));
            guest.close(fd)
        });
        match outcome {
            Ok(()) => done += 1,
            Err(errno) => {
                assert_eq!(errno, Errno::Perm);
                refused += 1;
            }
        }
        let length = guest.put(PATH, b"f");
        let stat = call!(guest.path_filestat_get(DIR, 1, PATH, length, OUT));
        if returned(stat).is_ok() {
            assert_eq!(guest.u64(OUT + 32), INSIDE.len() as u64);
        }
        let set = call!(guest.path_filestat_set_times(DIR, 1, PATH, length, 1, 1, 1 | 4));
        assert!(matches!(returned(set), Ok(()) | Err(Errno::Perm)));
        done > 0 && refused > 0
    });
    assert_eq!(content(outside.path()), before);
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
}

/// Everything that a stranger can write into a state to be led out by it, with what is refused.
#[test]
fn no_state_from_a_stranger_opens_what_lies_outside() {
    let outside = outside();
    let before = content(outside.path());
    let mut guest = Guest::new();
    let file = guest.create("f");
    fs::create_dir(guest.host("d")).expect("a directory");
    let directory = guest.open("d", OFlags::DIRECTORY, READ).expect("opens");
    symlink(outside.path(), guest.host("link")).expect("a link");
    symlink(outside.path().join("f"), guest.host("file-link")).expect("a link");
    symlink("loop", guest.host("loop")).expect("a link");
    let state = guest.state();
    let absolute = outside.path().join("f");
    let absolute = absolute.to_str().expect("a path");
    let name = outside.path().file_name().expect("a name");
    let relative = format!("../{}/f", name.to_str().expect("a name"));
    let nested = format!("d/../{relative}");
    let files = [
        absolute,
        &relative,
        &nested,
        "../../../../../../../../etc/passwd",
        "/etc/passwd",
        "link/f",
        "link/../f",
        "file-link",
        "loop",
        "f/f",
        "..",
        "",
        "f\0",
        "/",
    ];
    let directories = [
        "link", "link/d", "..", "d/../..", "/", "/etc", "loop", "", "d\0",
    ];
    let policies = [Files::RequireSame, Files::Reopen, Files::SkipMissing];
    let mut forgeries = Vec::new();
    for path in files {
        let mut forged = state.clone();
        if let Some(SavedDescriptor::File(saved)) = forged.descriptors.get_mut(&file) {
            saved.path = path.to_owned();
        }
        forgeries.push((file, path, forged));
    }
    for path in directories {
        let mut forged = state.clone();
        if let Some(SavedDescriptor::Directory(saved)) = forged.descriptors.get_mut(&directory) {
            saved.path = path.to_owned();
        }
        forgeries.push((directory, path, forged));
    }
    for (fd, path, forged) in forgeries {
        for files in policies {
            let grants = Grants {
                files,
                ..grants(guest.dir.path())
            };
            match (Wasi::restore(&forged, grants), files) {
                (Ok(wasi), Files::SkipMissing) => {
                    // Nothing was opened in its place, and nothing can be done with it.
                    let memory = &mut guest.memory;
                    let mut resumed = wasi;
                    let stat = resumed.fd_filestat_get(memory, fd, OUT);
                    assert_eq!(stat, Ok(Errno::Stale), "{path:?}");
                }
                (
                    Err(RestoreError::Open { .. } | RestoreError::Missing { .. }),
                    Files::RequireSame | Files::Reopen,
                ) => {}
                (Err(other), _) => panic!("{path:?}: another error: {other}"),
                (Ok(_), _) => panic!("{path:?} was opened"),
            }
        }
    }
    assert_eq!(content(outside.path()), before);
}

/// Contents without a file and directories without a name need a place to be made in: never one outside.
#[test]
fn removed_things_of_a_stranger_are_made_inside_whatever_their_paths() {
    let outside = outside();
    let before = content(outside.path());
    let mut guest = Guest::new();
    let file = guest.create("f");
    guest.write(file, INSIDE).expect("room");
    fs::remove_file(guest.host("f")).expect("it was there");
    fs::create_dir(guest.host("d")).expect("a directory");
    let directory = guest.open("d", OFlags::DIRECTORY, READ).expect("opens");
    fs::remove_dir(guest.host("d")).expect("it was empty");
    let mut state = guest.state();
    let absolute = outside.path().to_str().expect("a path");
    for saved in state.descriptors.values_mut() {
        match saved {
            SavedDescriptor::File(saved) => {
                assert_eq!(saved.kind, SavedFileKind::Carried(0));
                saved.path = format!("{absolute}/f");
            }
            SavedDescriptor::Directory(SavedDirectory { path, removed, .. }) => {
                assert!(*removed);
                *path = format!("{absolute}/d");
            }
            _ => {}
        }
    }
    guest.wasi = Wasi::restore(&state, grants(guest.dir.path())).expect("restores");
    guest.one_buffer(100);
    assert_eq!(
        returned(call!(guest.fd_pread(file, IOVS, 1, 0, OUT))),
        Ok(())
    );
    assert_eq!(guest.bytes(DATA, guest.u32(OUT)), INSIDE);
    assert_eq!(
        guest.open_at(directory, "f", OFlags::empty(), READ, 0),
        Err(Errno::Noent)
    );
    assert!(guest.wasi.save().is_ok());
    assert_eq!(content(outside.path()), before);
}
