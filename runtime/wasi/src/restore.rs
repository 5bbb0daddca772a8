//! Bringing a program's host state to life again, in another process.
//!
//! A saved state contains names and no authority. Whoever resumes grants directories again; files are opened below
//! them by path, never created, never truncated.

use crate::carried::{Revived, nameless_directory};
use crate::clocks::Clocks;
use crate::descriptors::{
    Descriptor, Descriptors, Directory, File, Origin, VolumeDirectory, VolumeFile,
};
use crate::interrupt::Interrupter;
use crate::paths::open_options;
use crate::random::Random;
use crate::save::{content_hash, modified_ns};
use crate::saved_state::{
    Evidence, Fingerprint, SavedDescriptor, SavedDirectory, SavedFile, SavedFileKind,
    SavedListener, SavedState,
};
use crate::sockets::{Connection, Listener, Socket};
use crate::streams::{StandardStreams, Streams};
use crate::types::FileType;
use crate::volume::Volume;
use crate::wasi::{Preopen, Root, Wasi, WasiError, variable};
use cap_std::fs::{Dir, Metadata, OpenOptions};
use std::collections::HashSet;
use std::error::Error as _;
use std::io;
use std::net::TcpListener;

/// What is expected of the files that a program has open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// That they are what they were when the state was saved, as far as its fingerprints tell.
    #[default]
    RequireSame,
    /// That they exist. The program goes on with what is there, at the offset where it was, as if others had changed
    /// the files while it ran: behind the end of a file that is shorter now, reading finds the end, and writing leaves
    /// a hole.
    Reopen,
    /// Nothing. As [`Reopen`](Files::Reopen), and what is missing or cannot be opened keeps its descriptor's number:
    /// calls on that return [`Errno::Stale`](crate::Errno::Stale), until the program closes it.
    SkipMissing,
}

/// A change of an open file that was accepted when the program was resumed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the program has `{guest_path}` open, which has changed: {change}")]
pub struct AcceptedChange {
    /// The guest's path.
    pub guest_path: String,
    /// How it differs.
    pub change: Change,
}

/// What whoever resumes a program gives to it.
#[derive(Debug, Default)]
pub struct Grants {
    /// Directories, by the names that the guest knows them by. Those that it doesn't know are ignored.
    pub preopens: Vec<Preopen>,
    /// Environment variables to set or replace, for guests that ask again.
    pub env: Vec<(String, String)>,
    /// Listeners, in the order in which the program was granted them. Those that it no longer uses are ignored.
    pub listeners: Vec<TcpListener>,
    /// The standard streams, by default this process's own. What the guest has closed stays closed.
    pub streams: StandardStreams,
    /// What is expected of open files.
    pub files: Files,
}

/// How a file differs from what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Change {
    /// It is of another type.
    #[error("it was a {was} and is a {is} now")]
    Type {
        /// What it was.
        was: FileType,
        /// What it is.
        is: FileType,
    },
    /// It has another length.
    #[error("it was {was_bytes} bytes long and is {is_bytes} now")]
    Size {
        /// The length when the state was saved.
        was_bytes: u64,
        /// The length now.
        is_bytes: u64,
    },
    /// It has another content.
    #[error("its content is another")]
    Content,
    /// It was written later.
    #[error("it has been modified since")]
    Modified,
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It cannot be opened.
    #[error("it cannot be opened any more")]
    Unusable,
}

/// Why a program's host state could not be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The program uses a directory that is not granted.
    #[error(
        "the program uses the directory `{guest_path}`, which is not granted: grant it with --dir HOST::{guest_path}"
    )]
    NotGranted {
        /// The guest's name of the directory.
        guest_path: String,
    },
    /// The program uses a listener that is not granted.
    #[error(
        "the program uses the listener number {number} that it was granted, and {granted} are granted now: \
         give --tcplisten HOST:PORT {number} times, in the old order"
    )]
    NoListener {
        /// Its number, from 1.
        number: u64,
        /// How many are granted.
        granted: usize,
    },
    /// The state names a granted directory that it does not list.
    #[error("the saved host state is damaged: it has no granted directory number {preopen}")]
    NoSuchPreopen {
        /// The number.
        preopen: u32,
    },
    /// A file or directory that the program has open is not there.
    #[error(
        "the program has `{guest_path}` open, which is missing: put it back where it was, or resume with \
         --files=skip-missing to go on without it"
    )]
    Missing {
        /// The guest's path.
        guest_path: String,
    },
    /// A file or directory that the program has open cannot be opened.
    #[error("cannot reopen `{guest_path}`, which the program has open")]
    Open {
        /// The guest's path.
        guest_path: String,
        /// What the host said.
        source: io::Error,
    },
    /// A new file for the content of one that was removed while open cannot be made.
    #[error(
        "cannot make a file for the content of `{guest_path}`, which the program had removed and still uses"
    )]
    Carried {
        /// The guest's path.
        guest_path: String,
        /// What the host said.
        source: io::Error,
    },
    /// A file that the program has open is not what it was.
    #[error(
        "the program has `{guest_path}` open, which has changed: {change}; put the old one back, or resume with \
         --files=reopen to go on with what is there"
    )]
    Changed {
        /// The guest's path.
        guest_path: String,
        /// How it differs.
        change: Change,
    },
    /// A descriptor's number is beyond what a program can have.
    #[error("the saved host state is damaged: it has a descriptor number {fd}")]
    Descriptor {
        /// The number.
        fd: u32,
    },
    /// Several files are not what they were.
    #[error("{} of the program's open files are not what they were:{}", .0.len(), listed(.0))]
    Several(Vec<RestoreError>),
    /// Something that has nothing to do with the saved state.
    #[error(transparent)]
    Wasi(#[from] WasiError),
}

impl RestoreError {
    /// Others may have the same problem, and are worth telling too.
    fn is_about_a_file(&self) -> bool {
        use RestoreError::{Changed, Missing, Open};
        matches!(self, Missing { .. } | Open { .. } | Changed { .. })
    }
}

/// One line for each, with what the host said.
fn listed(problems: &[RestoreError]) -> String {
    let line = |problem: &RestoreError| match problem.source() {
        Some(source) => format!("\n  {problem}: {source}"),
        None => format!("\n  {problem}"),
    };
    problems.iter().map(line).collect()
}

impl Wasi {
    /// The state of a program that goes on from `state`, with what `grants` give to it.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] names the directory or file that is missing or has changed.
    pub fn restore(state: &SavedState, grants: Grants) -> Result<Wasi, RestoreError> {
        let roots = granted_roots(state, grants.preopens);
        let mut opener = Opener {
            state,
            roots: &roots,
            listeners: &grants.listeners,
            files: grants.files,
            revived: Revived::new(&state.carried),
            accepted: Vec::new(),
            accepted_before: HashSet::new(),
        };
        let mut descriptors = Descriptors::default();
        let mut problems = Vec::new();
        for (&fd, saved) in &state.descriptors {
            let descriptor = match opener.reopen(saved) {
                Ok(descriptor) => descriptor,
                Err(problem) if problem.is_about_a_file() => {
                    problems.push(problem);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let placed = descriptors.insert_at(fd, descriptor);
            placed.map_err(|_| RestoreError::Descriptor { fd })?;
        }
        match problems.pop() {
            None => {}
            Some(problem) if problems.is_empty() => return Err(problem),
            Some(last) => {
                problems.push(last);
                return Err(RestoreError::Several(problems));
            }
        }
        let accepted = opener.accepted;
        Ok(Wasi {
            volumes: restored_volumes(state),
            args: state.args.clone(),
            env: environment(state, grants.env)?,
            roots,
            descriptors,
            streams: Streams::new(grants.streams),
            clocks: Clocks::starting_at(state.monotonic_ns, state.random.is_some()),
            random: match state.random {
                None => Random::Host,
                Some(random) => Random::Seeded {
                    seed: random.seed,
                    position: random.position,
                },
            },
            pending: state.pending,
            interrupter: Interrupter::new().map_err(WasiError::Resources)?,
            stdin_probe: false,
            stopped_at_stdin: false,
            accepted,
            listing: None,
        })
    }
}

/// The volumes, with what is open in them.
fn restored_volumes(state: &SavedState) -> Vec<Volume> {
    let mut volumes: Vec<_> = state.volumes.iter().cloned().map(Volume::new).collect();
    for descriptor in state.descriptors.values() {
        if let Some((volume, inode)) = descriptor.in_volume()
            && let Some(volume) = volumes.get_mut(volume)
        {
            volume.reopen(inode);
        }
    }
    volumes
}

/// The directories that the program knows, with what was granted under each name.
fn granted_roots(state: &SavedState, mut granted: Vec<Preopen>) -> Vec<Root> {
    let mut grant = |guest_path: &String| {
        let name = guest_path.trim_end_matches('/');
        let known = |preopen: &Preopen| preopen.guest_path.trim_end_matches('/') == name;
        let index = granted.iter().position(known);
        Root {
            guest_path: guest_path.clone(),
            dir: index.map(|index| granted.remove(index).dir),
        }
    };
    state.preopens.iter().map(&mut grant).collect()
}

fn environment(
    state: &SavedState,
    overrides: Vec<(String, String)>,
) -> Result<Vec<Vec<u8>>, RestoreError> {
    let mut env = state.env.clone();
    for (name, value) in overrides {
        let prefix = format!("{name}=");
        let existing = env
            .iter_mut()
            .find(|entry| entry.starts_with(prefix.as_bytes()));
        let entry = variable((name, value))?;
        match existing {
            Some(existing) => *existing = entry,
            None => env.push(entry),
        }
    }
    Ok(env)
}

struct Opener<'a> {
    state: &'a SavedState,
    roots: &'a [Root],
    listeners: &'a [TcpListener],
    files: Files,
    revived: Revived<'a>,
    accepted: Vec<AcceptedChange>,
    /// The same: any number of descriptors can be of one file.
    accepted_before: HashSet<AcceptedChange>,
}

impl Opener<'_> {
    fn reopen(&mut self, saved: &SavedDescriptor) -> Result<Descriptor, RestoreError> {
        let (preopen, path, opened) = match saved {
            SavedDescriptor::Stream(standard) => return Ok(Descriptor::Stream(*standard)),
            SavedDescriptor::Preopen(preopen) => return self.preopen(*preopen),
            SavedDescriptor::Listener(listener) => return self.listener(listener),
            SavedDescriptor::Connection(saved) => {
                let connection = Connection::lost(saved.nonblocking);
                return Ok(Descriptor::Socket(Socket::Connection(connection)));
            }
            SavedDescriptor::Lost(lost) => {
                return Ok(Descriptor::Lost(Origin {
                    preopen: lost.preopen,
                    path: lost.path.clone(),
                }));
            }
            SavedDescriptor::VolumeDirectory(saved) => {
                return Ok(Descriptor::VolumeDirectory(VolumeDirectory {
                    // A number that is too large is that of no volume.
                    volume: usize::try_from(saved.volume).unwrap_or(usize::MAX),
                    inode: saved.inode,
                    preopened: saved.preopened,
                    access: saved.access,
                }));
            }
            SavedDescriptor::VolumeFile(saved) => {
                return Ok(Descriptor::VolumeFile(VolumeFile {
                    volume: usize::try_from(saved.volume).unwrap_or(usize::MAX),
                    inode: saved.inode,
                    offset: saved.offset,
                    flags: saved.flags,
                    access: saved.access,
                }));
            }
            SavedDescriptor::Directory(directory) => {
                let opened = self.directory(directory);
                (directory.preopen, &directory.path, opened)
            }
            SavedDescriptor::File(file) => match file.kind {
                SavedFileKind::Carried(content) => return self.carried(file, content),
                _ => (file.preopen, &file.path, self.file(file)),
            },
        };
        let change = match &opened {
            Err(RestoreError::Missing { .. }) => Change::Missing,
            Err(RestoreError::Open { .. }) => Change::Unusable,
            _ => return opened,
        };
        if self.files != Files::SkipMissing {
            return opened;
        }
        self.accept(self.state.guest_path(preopen, path), change);
        Ok(Descriptor::Lost(Origin {
            preopen,
            path: path.clone(),
        }))
    }

    fn accept(&mut self, guest_path: String, change: Change) {
        let accepted = AcceptedChange { guest_path, change };
        if self.accepted_before.insert(accepted.clone()) {
            self.accepted.push(accepted);
        }
    }

    /// A file that had been removed: it is nowhere but here.
    fn carried(&mut self, saved: &SavedFile, content: u32) -> Result<Descriptor, RestoreError> {
        let index = usize::try_from(saved.preopen).ok();
        let root = index.and_then(|index| self.roots.get(index));
        let dir = root.and_then(|root| root.dir.as_ref());
        let handle = self.revived.open(content, saved.access, dir);
        let handle = handle.map_err(|source| RestoreError::Carried {
            guest_path: self.state.guest_path(saved.preopen, &saved.path),
            source,
        })?;
        Ok(Descriptor::File(File {
            handle: cap_std::fs::File::from_std(handle),
            origin: Origin {
                preopen: saved.preopen,
                path: saved.path.clone(),
            },
            offset: saved.offset,
            flags: saved.flags,
            access: saved.access,
            file_type: FileType::RegularFile,
        }))
    }

    fn root(&self, preopen: u32) -> Result<&Dir, RestoreError> {
        let index = usize::try_from(preopen).ok();
        let root = index.and_then(|index| self.roots.get(index));
        let root = root.ok_or(RestoreError::NoSuchPreopen { preopen })?;
        root.dir.as_ref().ok_or_else(|| RestoreError::NotGranted {
            guest_path: root.guest_path.clone(),
        })
    }

    fn listener(&self, saved: &SavedListener) -> Result<Descriptor, RestoreError> {
        let index = usize::try_from(saved.listener).ok();
        let granted = index.and_then(|index| self.listeners.get(index));
        let granted = granted.ok_or(RestoreError::NoListener {
            number: u64::from(saved.listener) + 1,
            granted: self.listeners.len(),
        })?;
        let listener = granted
            .try_clone()
            .and_then(|handle| Listener::new(saved.listener, handle, saved.nonblocking))
            .map_err(WasiError::Resources)?;
        Ok(Descriptor::Socket(Socket::Listener(listener)))
    }

    fn preopen(&self, preopen: u32) -> Result<Descriptor, RestoreError> {
        let handle = self.root(preopen)?.try_clone();
        Ok(Descriptor::Directory(Directory {
            handle: handle.map_err(WasiError::Resources)?,
            origin: Origin::of_preopen(preopen),
            preopened: true,
            access: crate::wasi::PREOPEN_ACCESS,
        }))
    }

    fn directory(&self, saved: &SavedDirectory) -> Result<Descriptor, RestoreError> {
        let guest_path = self.state.guest_path(saved.preopen, &saved.path);
        let root = self.root(saved.preopen)?;
        let handle = match saved.removed {
            true => nameless_directory(root),
            false => root.open_dir(&saved.path),
        };
        let handle = handle.map_err(|source| not_opened(&guest_path, source))?;
        Ok(Descriptor::Directory(Directory {
            handle,
            origin: Origin {
                preopen: saved.preopen,
                path: saved.path.clone(),
            },
            preopened: false,
            access: saved.access,
        }))
    }

    fn file(&mut self, saved: &SavedFile) -> Result<Descriptor, RestoreError> {
        let guest_path = self.state.guest_path(saved.preopen, &saved.path);
        let root = self.root(saved.preopen)?;
        let failed = |source| not_opened(&guest_path, source);
        let options: OpenOptions = open_options(saved.access);
        let handle = root.open_with(&saved.path, &options).map_err(failed)?;
        let metadata = handle.metadata().map_err(failed)?;
        let change = match change(saved, root, &metadata) {
            // What cannot be read cannot be the same, as far as anybody knows.
            Err(_) if self.files != Files::RequireSame => Some(Change::Content),
            change => change.map_err(failed)?,
        };
        if let Some(change) = change {
            // No descriptor of a file could stand for a directory.
            let directory = metadata.is_dir();
            if self.files == Files::RequireSame || directory {
                return Err(RestoreError::Changed { guest_path, change });
            }
            self.accept(guest_path, change);
        }
        Ok(Descriptor::File(File {
            handle,
            origin: Origin {
                preopen: saved.preopen,
                path: saved.path.clone(),
            },
            offset: saved.offset,
            flags: saved.flags,
            access: saved.access,
            file_type: metadata.file_type().into(),
        }))
    }
}

fn not_opened(guest_path: &str, source: io::Error) -> RestoreError {
    let guest_path = guest_path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => RestoreError::Missing { guest_path },
        _ => RestoreError::Open { guest_path, source },
    }
}

/// How the file that was found differs from the saved one.
fn change(saved: &SavedFile, root: &Dir, metadata: &Metadata) -> io::Result<Option<Change>> {
    let is = FileType::from(metadata.file_type());
    let (was, fingerprint) = match &saved.kind {
        SavedFileKind::Special(file_type) => (*file_type, None),
        SavedFileKind::Regular(fingerprint) => (FileType::RegularFile, Some(fingerprint)),
        SavedFileKind::Carried(_) => (FileType::RegularFile, None),
    };
    if is != was {
        return Ok(Some(Change::Type { was, is }));
    }
    match fingerprint {
        Some(fingerprint) => content_change(fingerprint, root, &saved.path, metadata),
        None => Ok(None),
    }
}

fn content_change(
    was: &Fingerprint,
    root: &Dir,
    path: &str,
    metadata: &Metadata,
) -> io::Result<Option<Change>> {
    let (was_bytes, is_bytes) = (was.size_bytes, metadata.len());
    if was_bytes != is_bytes {
        return Ok(Some(Change::Size {
            was_bytes,
            is_bytes,
        }));
    }
    Ok(match was.evidence {
        Evidence::Hash(hash) if content_hash(root, path)? != hash => Some(Change::Content),
        Evidence::ModifiedNs(was_ns) if modified_ns(metadata) != was_ns => Some(Change::Modified),
        Evidence::None | Evidence::Hash(_) | Evidence::ModifiedNs(_) => None,
    })
}
