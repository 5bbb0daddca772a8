//! What a disk may hold after the power was lost.
//!
//! A file system promises little: the bytes of a file are on the disk once the file has been synced, and a name is there,
//! or gone, once its directory has been synced. Everything else may have happened or not, in any order. So the model
//! keeps, for each name in each directory, all that it has meant since the directory was synced, and for each file the
//! bytes that were synced, and chooses.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use wsnap_snapshots::{Faults, Operation, OperationKind};

use crate::common::files_in;
use crate::promises::Promises;

/// A file, by the number of its inode, or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Directory,
    File(u64),
}

/// The names below a folder, as the running system shows them, and the bytes of the files.
#[derive(Clone, Debug, Default)]
struct View {
    names: BTreeMap<PathBuf, Node>,
    bytes: HashMap<u64, Arc<Vec<u8>>>,
}

#[derive(Debug)]
struct Step {
    kind: OperationKind,
    /// Relative to the folder.
    path: PathBuf,
    before: View,
}

/// Writes down what a store asks of the file system, and what the folder looked like each time.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    promises: Arc<Promises>,
    steps: Mutex<Vec<Step>>,
    /// Keeps the numbers of inodes from being used again.
    open: Mutex<HashMap<u64, File>>,
}

impl Faults for Recorder {
    fn before(&self, operation: Operation<'_>) -> io::Result<()> {
        let path = operation
            .path
            .strip_prefix(&self.folder)
            .unwrap()
            .to_owned();
        let mut steps = self.steps.lock().unwrap();
        let before = self.look();
        steps.push(Step {
            kind: operation.kind,
            path,
            before,
        });
        self.promises.count_call();
        Ok(())
    }
}

impl Recorder {
    pub fn new(folder: &Path, promises: Arc<Promises>) -> Self {
        Self {
            folder: folder.to_owned(),
            promises,
            steps: Mutex::default(),
            open: Mutex::default(),
        }
    }

    fn look(&self) -> View {
        let mut view = View::default();
        self.look_into(&self.folder, &mut view);
        view
    }

    fn look_into(&self, folder: &Path, view: &mut View) {
        for path in files_in(folder) {
            let name = path.strip_prefix(&self.folder).unwrap().to_owned();
            if path.is_dir() {
                view.names.insert(name, Node::Directory);
                self.look_into(&path, view);
                continue;
            }
            let inode = path.metadata().unwrap().ino();
            let mut open = self.open.lock().unwrap();
            open.entry(inode)
                .or_insert_with(|| File::open(&path).unwrap());
            view.names.insert(name, Node::File(inode));
            view.bytes.insert(inode, Arc::new(fs::read(&path).unwrap()));
        }
    }

    /// All that was recorded. Nothing may have changed but by the calls that were announced.
    pub fn finish(self) -> Run {
        let last = self.look();
        let steps = self.steps.into_inner().unwrap();
        let views: Vec<View> = steps
            .iter()
            .map(|step| step.before.clone())
            .chain([last])
            .collect();
        let run = Run {
            synced: synced_files(&steps, &views),
            calls: steps
                .into_iter()
                .map(|step| (step.kind, step.path))
                .collect(),
            views,
        };
        run.check_announced();
        run
    }
}

/// A recorded run that was not interrupted.
#[derive(Debug)]
pub struct Run {
    pub calls: Vec<(OperationKind, PathBuf)>,
    /// The inode that each call that syncs a file is about.
    synced: HashMap<usize, u64>,
    /// Before each call, and at the end.
    views: Vec<View>,
}

/// A file that is being written stands for the path that it is to get, so what was synced shows when it gets it.
fn synced_files(steps: &[Step], views: &[View]) -> HashMap<usize, u64> {
    let mut synced = HashMap::new();
    for (number, step) in steps.iter().enumerate() {
        if step.kind != OperationKind::Sync {
            continue;
        }
        let renamed = (number..steps.len()).find(|later| {
            steps[*later].kind == OperationKind::Rename && steps[*later].path == step.path
        });
        let view = renamed.map_or(&views[number], |rename| &views[rename + 1]);
        match view.names.get(&step.path) {
            Some(Node::File(inode)) => synced.insert(number, *inode),
            other => panic!("{} was synced, and is {other:?}", step.path.display()),
        };
    }
    synced
}

impl Run {
    /// Asserts that each call has changed what it was announced to change, and nothing else. What happens without a
    /// call would never be interrupted by any test.
    fn check_announced(&self) {
        for (number, (kind, path)) in self.calls.iter().enumerate() {
            let (before, after) = (&self.views[number], &self.views[number + 1]);
            let mut names: Vec<&PathBuf> = before.names.keys().chain(after.names.keys()).collect();
            names.sort();
            names.dedup();
            names.retain(|name| before.names.get(*name) != after.names.get(*name));
            let written: Vec<&PathBuf> = after
                .names
                .iter()
                .filter(|(_, node)| match node {
                    Node::File(inode) => before
                        .bytes
                        .get(inode)
                        .is_some_and(|bytes| *bytes != after.bytes[inode]),
                    Node::Directory => false,
                })
                .map(|(name, _)| name)
                .collect();
            let in_tmp = |names: &[&PathBuf]| {
                names
                    .iter()
                    .all(|name| name.parent().is_some_and(|parent| parent.ends_with("tmp")))
            };
            let fits = match kind {
                OperationKind::Create => names.len() <= 1 && written.is_empty(),
                OperationKind::Write => names.is_empty() && written.len() <= 1 && in_tmp(&written),
                OperationKind::Append => names.iter().chain(&written).all(|name| *name == path),
                OperationKind::Rename => {
                    names.len() <= 2 && names.contains(&path) && written.is_empty()
                }
                OperationKind::Remove => names.len() <= 1 && written.is_empty(),
                _ => names.is_empty() && written.is_empty(),
            };
            assert!(fits, "{kind:?} {}: {names:?} {written:?}", path.display());
        }
    }

    /// What a disk may hold when the power is lost before each call, and at the end. Syncs that `ignored` picks do
    /// nothing, to see what they are good for.
    pub fn disks(&self, ignored: impl Fn(OperationKind, &Path) -> bool) -> Vec<Disk> {
        let mut disk = Disk::durable(&self.views[0]);
        let mut disks = vec![disk.clone()];
        for (number, (kind, path)) in self.calls.iter().enumerate() {
            match kind {
                _ if ignored(*kind, path) => (),
                OperationKind::Sync => disk.sync_file(self.synced[&number]),
                OperationKind::SyncDirectory => disk.sync_directory(path),
                _ => (),
            }
            disk.see(&self.views[number + 1]);
            disks.push(disk.clone());
        }
        disks
    }
}

/// What may be on the disk at one moment.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What each name has meant since its directory was synced, oldest first.
    names: BTreeMap<PathBuf, Vec<Option<Node>>>,
    /// The bytes of each file that are on the disk for certain.
    synced: HashMap<u64, Arc<Vec<u8>>>,
    /// The bytes that the running system showed.
    current: HashMap<u64, Arc<Vec<u8>>>,
}

/// How names and bytes that are not certain are chosen.
#[derive(Clone, Debug)]
pub enum Choice {
    /// Nothing that was not synced has happened, but in one directory, in which all of it has.
    OnlyIn(Option<PathBuf>),
    /// All that was not synced has happened, but in one directory, in which none of it has.
    AllBut(Option<PathBuf>),
    /// Chance decides on each name and file.
    Any(u64),
}

impl Disk {
    fn durable(view: &View) -> Self {
        Self {
            names: view
                .names
                .iter()
                .map(|(name, node)| (name.clone(), vec![Some(*node)]))
                .collect(),
            synced: view.bytes.clone(),
            current: view.bytes.clone(),
        }
    }

    fn see(&mut self, view: &View) {
        for (name, meanings) in &mut self.names {
            let now = view.names.get(name).copied();
            if meanings.last() != Some(&now) {
                meanings.push(now);
            }
        }
        for (name, node) in &view.names {
            self.names
                .entry(name.clone())
                .or_insert_with(|| vec![None, Some(*node)]);
        }
        self.current.extend(
            view.bytes
                .iter()
                .map(|(inode, bytes)| (*inode, Arc::clone(bytes))),
        );
    }

    fn sync_file(&mut self, inode: u64) {
        self.synced.insert(inode, Arc::clone(&self.current[&inode]));
    }

    fn sync_directory(&mut self, path: &Path) {
        for (name, meanings) in &mut self.names {
            if name.parent() == Some(path) {
                meanings.drain(..meanings.len() - 1);
            }
        }
    }

    /// The ways to choose that are tried.
    pub fn choices(&self, mixtures: u64) -> Vec<Choice> {
        let uncertain = self.names.iter().filter(|(_, meanings)| meanings.len() > 1);
        let mut folders: Vec<PathBuf> = uncertain
            .filter_map(|(name, _)| Some(name.parent()?.to_owned()))
            .collect();
        folders.dedup();
        let folders = || [None].into_iter().chain(folders.iter().cloned().map(Some));
        let extremes = folders()
            .map(Choice::OnlyIn)
            .chain(folders().map(Choice::AllBut));
        extremes.chain((0..mixtures).map(Choice::Any)).collect()
    }

    /// What the disk holds: the names of directories without bytes, those of files with them.
    pub fn chosen(&self, choice: &Choice) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut rng = Rng::with_seed(match choice {
            Choice::Any(seed) => *seed,
            _ => 0,
        });
        let mut chosen: BTreeMap<PathBuf, Option<Vec<u8>>> = BTreeMap::new();
        let mut bytes = HashMap::new();
        for (name, meanings) in &self.names {
            let parent = name.parent().unwrap_or(Path::new(""));
            let (oldest, newest) = (0, meanings.len() - 1);
            let meaning = match choice {
                Choice::OnlyIn(folder) if folder.as_deref() == Some(parent) => newest,
                Choice::OnlyIn(_) => oldest,
                Choice::AllBut(folder) if folder.as_deref() == Some(parent) => oldest,
                Choice::AllBut(_) => newest,
                Choice::Any(_) => rng.usize(oldest..=newest),
            };
            // What lies in a directory that is not there is not there.
            let reachable = parent.as_os_str().is_empty() || chosen.contains_key(parent);
            match meanings[meaning].filter(|_| reachable) {
                None => (),
                Some(Node::Directory) => drop(chosen.insert(name.clone(), None)),
                Some(Node::File(inode)) => {
                    let bytes = bytes
                        .entry(inode)
                        .or_insert_with(|| self.bytes_of(inode, choice, &mut rng));
                    chosen.insert(name.clone(), Some(bytes.clone()));
                }
            }
        }
        chosen
    }

    fn bytes_of(&self, inode: u64, choice: &Choice, rng: &mut Rng) -> Vec<u8> {
        let current = &self.current[&inode];
        let synced = self.synced.get(&inode);
        if synced == Some(current) {
            return current.to_vec();
        }
        let synced = synced.map_or(Vec::new(), |bytes| bytes.to_vec());
        let kind = match choice {
            Choice::OnlyIn(_) => 0,
            Choice::AllBut(_) => 1,
            Choice::Any(_) => rng.u8(0..5),
        };
        match kind {
            // It is as it was when it was synced, if it ever was.
            0 => synced,
            // It has its length, but what was not synced is zero.
            1 => {
                let mut bytes = synced;
                bytes.resize(current.len(), 0);
                bytes
            }
            // It was cut off, maybe within a page.
            2 => current[..rng.usize(..=current.len())].to_vec(),
            // Some pages have reached the disk.
            3 => {
                let mut bytes = current.to_vec();
                for page in bytes.chunks_mut(4096).filter(|_| rng.bool()) {
                    page.fill(0);
                }
                bytes
            }
            _ => current.to_vec(),
        }
    }
}
