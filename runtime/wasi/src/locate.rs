//! Where an open file is now.
//!
//! What the program renames is followed as it happens. But others rename too, a symbolic link that was followed can lead
//! elsewhere now, and of a file with several names the one that was opened can be gone. So before a state is saved, the
//! place of everything open is made sure of, and looked for if need be.

use crate::descriptors::Origin;
use crate::wasi::{Root, Wasi};
use cap_std::fs::{Dir, Metadata, MetadataExt as _};
use rustix::fs::readlinkat;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

/// How many entries of granted directories are looked at in search of another name of a file.
const SEARCHED_ENTRIES_MAX: usize = 100_000;

/// Where something open is.
pub(crate) enum Place<'a> {
    /// At this path, below the directory.
    At(&'a Dir, Origin),
    /// It has no name left.
    Removed,
    /// Not below a granted directory, as far as was searched.
    Elsewhere,
}

impl Wasi {
    /// Looks for what is open as `open`, with the metadata `metadata`, first at `origin`.
    pub(crate) fn locate(
        &self,
        open: BorrowedFd<'_>,
        metadata: &Metadata,
        origin: &Origin,
    ) -> io::Result<Place<'_>> {
        let index = usize::try_from(origin.preopen).ok();
        let root = index.and_then(|index| self.roots.get(index));
        if let Some(dir) = root.and_then(|root| root.dir.as_ref()) {
            match dir.metadata(&origin.path) {
                Ok(found) if same_file(metadata, &found) => {
                    return Ok(Place::At(dir, origin.clone()));
                }
                Err(error) if !leads_nowhere(&error) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        if metadata.nlink() == 0 {
            return Ok(Place::Removed);
        }
        let named = self.named_by_the_kernel(open, metadata);
        let found = named.or_else(|| match metadata.is_dir() {
            // A directory has one name only.
            true => None,
            false => self.searched(metadata),
        });
        Ok(found.map_or(Place::Elsewhere, |(dir, origin)| Place::At(dir, origin)))
    }

    fn granted(&self) -> impl Iterator<Item = (u32, &Root, &Dir)> {
        let numbered = (0u32..).zip(&self.roots);
        numbered.filter_map(|(preopen, root)| Some((preopen, root, root.dir.as_ref()?)))
    }

    /// The path that the kernel has for an open file, if it lies below a granted directory.
    fn named_by_the_kernel(
        &self,
        open: BorrowedFd<'_>,
        metadata: &Metadata,
    ) -> Option<(&Dir, Origin)> {
        let path = kernel_path(open.as_raw_fd())?;
        self.granted().find_map(|(preopen, _, dir)| {
            let below = path.strip_prefix(kernel_path(dir.as_raw_fd())?).ok()?;
            let origin = Origin::of_preopen(preopen).join(below.to_str()?);
            let found = dir.symlink_metadata(&origin.path).ok()?;
            same_file(metadata, &found).then_some((dir, origin))
        })
    }

    /// Looks through the granted directories, level by level and in the order of names: the outcome must not depend on
    /// how a file system sorts.
    fn searched(&self, metadata: &Metadata) -> Option<(&Dir, Origin)> {
        let mut left = SEARCHED_ENTRIES_MAX;
        self.granted().find_map(|(preopen, _, dir)| {
            let path = search(dir, metadata, &mut left)?;
            let path = path.to_str()?.to_owned();
            Some((dir, Origin { preopen, path }))
        })
    }
}

fn search(root: &Dir, metadata: &Metadata, left: &mut usize) -> Option<PathBuf> {
    let mut waiting = VecDeque::from([PathBuf::from(".")]);
    while let Some(directory) = waiting.pop_front() {
        // What cannot be read is not searched.
        let Ok(entries) = root.read_dir(&directory) else {
            continue;
        };
        let mut entries: Vec<_> = entries.filter_map(Result::ok).collect();
        entries.sort_by_key(cap_std::fs::DirEntry::file_name);
        for entry in entries {
            *left = left.checked_sub(1)?;
            let path = match directory.as_os_str() == "." {
                true => PathBuf::from(entry.file_name()),
                false => directory.join(entry.file_name()),
            };
            if entry.ino() == metadata.ino()
                && let Ok(found) = root.symlink_metadata(&path)
                && same_file(metadata, &found)
            {
                return Some(path);
            }
            if entry.file_type().is_ok_and(|file_type| file_type.is_dir()) {
                waiting.push_back(path);
            }
        }
    }
    None
}

fn kernel_path(raw: i32) -> Option<PathBuf> {
    let link = format!("/proc/self/fd/{raw}");
    let path = readlinkat(rustix::fs::CWD, link, Vec::new()).ok()?;
    let path = Path::new(path.to_str().ok()?).to_owned();
    path.is_absolute().then_some(path)
}

/// Whether a path that cannot be looked at leads to nothing, or out of what is granted.
fn leads_nowhere(error: &io::Error) -> bool {
    use rustix::io::Errno as Host;
    match Host::from_io_error(error) {
        Some(host) => matches!(host, Host::NOENT | Host::NOTDIR | Host::LOOP),
        // cap-std's own error, for paths that lead out.
        None => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

fn same_file(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}
