//! Looking into a volume and changing it from outside of the program.

use super::changes::OpenHow;
use super::tree::{PAGE_BYTES, ROOT};
use super::{Volume, VolumeMemory};
use crate::errno::Errno;
use crate::saved_state::SavedState;
use crate::types::FileType;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::time::SystemTime;

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeEntry {
    /// Its name.
    pub name: String,
    /// What it leads to.
    pub file_type: FileType,
    /// The length of a file, or of the target of a symbolic link.
    pub size_bytes: u64,
    /// When it was written last, in nanoseconds since 1970.
    pub modified_ns: u64,
}

/// Why something cannot be done in a volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// There is no volume of this name.
    #[error("there is no volume {volume}")]
    NoSuchVolume {
        /// Its name, or its number if that was asked for.
        volume: String,
    },
    /// The memory is too short.
    #[error("the content of volume {volume} has {is_bytes} bytes and must have {content_bytes}")]
    Memory {
        /// The volume's name.
        volume: String,
        /// How long it is.
        is_bytes: u64,
        /// How long it must be at least.
        content_bytes: u64,
    },
    /// A file system would refuse it as well.
    #[error("cannot {operation} {path} in volume {volume}: {}", describe(*.errno))]
    Path {
        /// What was tried: a verb.
        operation: &'static str,
        /// The volume's name.
        volume: String,
        /// The path in the volume.
        path: String,
        /// The error number that the program would get.
        errno: Errno,
    },
}

/// Paths lead from the root of the volume on, and symbolic links are followed.
impl Volume {
    fn failed<'e>(
        &self,
        operation: &'static str,
        path: &'e str,
    ) -> impl FnOnce(Errno) -> VolumeError + use<'e> {
        let volume = self.name.clone();
        move |errno| VolumeError::Path {
            operation,
            volume,
            path: path.to_owned(),
            errno,
        }
    }

    /// What is at `path`.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Path`].
    pub fn file_type(&self, path: &str) -> Result<FileType, VolumeError> {
        let inode = self.find(ROOT, path, true);
        let stat = inode.and_then(|inode| self.stat(inode));
        stat.map(|stat| stat.file_type)
            .map_err(self.failed("look at", path))
    }

    /// What is in the directory at `path`, by name; or the file there alone.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Path`].
    pub fn entries(&self, path: &str) -> Result<Vec<VolumeEntry>, VolumeError> {
        let entries = || {
            let inode = self.find(ROOT, path, true)?;
            let entry = |name: &str, inode| {
                let stat = self.stat(inode)?;
                Ok(VolumeEntry {
                    name: name.to_owned(),
                    file_type: stat.file_type,
                    size_bytes: stat.size_bytes,
                    modified_ns: stat.times.modified_ns,
                })
            };
            if self.tree.directory(inode).is_none() {
                let name = path.rsplit('/').next().unwrap_or(path);
                return Ok(vec![entry(name, inode)?]);
            }
            let listed = self.list(inode, 0)?;
            let entries = listed.map(|(_, name, inode, _)| entry(name, inode));
            let mut entries = entries.collect::<Result<Vec<_>, Errno>>()?;
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        };
        entries().map_err(self.failed("list", path))
    }

    /// Fills `buffer` with the bytes of the file at `path` from `offset` on, and says how many there were; none at its end.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Path`].
    pub fn read_at(
        &self,
        path: &str,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, VolumeError> {
        let inode = self.find(ROOT, path, true);
        let read = inode.and_then(|inode| self.read(inode, offset, &mut [IoSliceMut::new(buffer)]));
        read.map_err(self.failed("read", path))
    }

    /// How long the file at `path` is, in bytes.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Path`].
    pub fn file_len(&self, path: &str) -> Result<u64, VolumeError> {
        let inode = self.find(ROOT, path, true);
        let size = inode.and_then(|inode| self.size(inode));
        size.map_err(self.failed("read", path))
    }

    /// The next stretch of the file at `path` from `offset` on that is not a hole, which reads as zeros: none behind the last.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Path`].
    pub fn next_data(&self, path: &str, offset: u64) -> Result<Option<Range<u64>>, VolumeError> {
        let inode = self.find(ROOT, path, true);
        let file = inode.and_then(|inode| self.file(inode));
        let file = file.map_err(self.failed("read", path))?;
        let page = offset / PAGE_BYTES;
        let found = match file.run_at(page) {
            Some(run) => Some((page, run)),
            None => file
                .runs
                .range(page..)
                .next()
                .map(|(first, run)| (*first, *run)),
        };
        let stretch = found.map(|(first, run)| {
            let end = (first + run.count) * PAGE_BYTES;
            (first * PAGE_BYTES).max(offset)..end.min(file.size)
        });
        Ok(stretch.filter(|stretch| !stretch.is_empty()))
    }

    /// Makes the file at `path` so many bytes long; new ones are a hole.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Path`].
    pub fn set_len(&mut self, path: &str, size_bytes: u64) -> Result<(), VolumeError> {
        let failed = self.failed("write to", path);
        let inode = self.find(ROOT, path, true);
        let set = inode.and_then(|inode| self.set_size(inode, size_bytes, now_ns()));
        set.map_err(failed)
    }

    /// Makes an empty file at `path`, or empties the one that is there.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Path`].
    pub fn create_file(&mut self, path: &str) -> Result<(), VolumeError> {
        let failed = self.failed("create", path);
        let how = OpenHow {
            follow: true,
            create: true,
            truncate: true,
            write: true,
            ..OpenHow::default()
        };
        let opened = self.open(ROOT, path, how, now_ns());
        let closed = opened.and_then(|inode| self.close(inode));
        closed.map_err(failed)
    }

    /// Writes all of `bytes` to the file at `path` from `offset` on.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Path`].
    pub fn write_at(&mut self, path: &str, offset: u64, bytes: &[u8]) -> Result<(), VolumeError> {
        let failed = self.failed("write to", path);
        let write = |volume: &mut Volume| {
            let inode = volume.find(ROOT, path, true)?;
            let count = volume.write(inode, offset, &[IoSlice::new(bytes)], now_ns())?;
            if count < bytes.len() {
                return Err(Errno::Nospc);
            }
            Ok(())
        };
        write(self).map_err(failed)
    }

    /// Makes a directory at `path`.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Path`].
    pub fn create_dir(&mut self, path: &str) -> Result<(), VolumeError> {
        let failed = self.failed("create", path);
        self.create_directory(ROOT, path, now_ns()).map_err(failed)
    }
}

fn describe(errno: Errno) -> String {
    let known = match errno {
        Errno::Noent => "there is no such file or directory",
        Errno::Notdir => "it is not a directory",
        Errno::Isdir => "it is a directory",
        Errno::Exist => "it exists",
        Errno::Notempty => "it is not empty",
        Errno::Nospc => "the volume is full",
        Errno::Perm => "the path leads out of the volume",
        Errno::Loop => "too many symbolic links lead to one another",
        Errno::Nametoolong => "a name is too long",
        Errno::Inval => "no path is like this",
        Errno::Fbig => "no file can be so long",
        Errno::Io => "the content of the volume is not there",
        errno => return format!("error {errno:?}"),
    };
    known.to_owned()
}

fn now_ns() -> u64 {
    crate::clocks::since_epoch_ns(SystemTime::now())
}

impl SavedState {
    /// The volume of this name, with the memory in which its content lies.
    ///
    /// What the program has open in it stays.
    ///
    /// # Errors
    ///
    /// [`VolumeError::NoSuchVolume`]; [`VolumeError::Memory`].
    pub fn volume(&self, name: &str, memory: Box<dyn VolumeMemory>) -> Result<Volume, VolumeError> {
        let index = self.volumes.iter().position(|volume| volume.name == name);
        let index = index.ok_or_else(|| VolumeError::NoSuchVolume {
            volume: name.to_owned(),
        })?;
        let mut volume = Volume::new(self.volumes[index].clone());
        volume.set_memory(memory)?;
        for descriptor in self.descriptors.values() {
            if let Some((_, inode)) = descriptor.in_volume().filter(|(of, _)| *of == index) {
                volume.reopen(inode);
            }
        }
        Ok(volume)
    }

    /// The guest's path of inode `inode` in volume number `volume`, one of them if it has several; none if it has no name.
    pub fn volume_path(&self, volume: u32, inode: u32) -> Option<String> {
        let volume = self.volumes.get(usize::try_from(volume).ok()?)?;
        let mut way = vec![(ROOT, volume.guest_path.clone())];
        while let Some((here, path)) = way.pop() {
            if here == inode {
                return Some(path);
            }
            let entries = volume.tree.directory(here).into_iter();
            for (name, inode) in entries.flat_map(|directory| directory.entries.iter()) {
                way.push((inode, format!("{}/{name}", path.trim_end_matches('/'))));
            }
        }
        None
    }

    /// How long the file with inode `inode` in volume number `volume` is; none if there is no such file.
    pub fn volume_file_bytes(&self, volume: u32, inode: u32) -> Option<u64> {
        let volume = self.volumes.get(usize::try_from(volume).ok()?)?;
        Some(volume.tree.file(inode)?.size)
    }

    /// Has the state say of a volume what is true now: the one that has its name.
    pub fn set_volume(&mut self, volume: &Volume) {
        let mut volumes = self.volumes.iter_mut();
        if let Some(saved) = volumes.find(|saved| saved.name == volume.name) {
            *saved = volume.saved();
        }
    }
}
