//! `wsnap volume get`.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use wsnap::wasi::{FileType, Volume};

use super::{find, open};
use crate::arguments::VolumePath;
use crate::failure::Failure;
use crate::output;
use crate::places::Places;

/// Standard output, in place of a file.
const STANDARD_OUTPUT: &str = "-";
/// So much of a file is in memory at a time, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Copy a file or a directory out of a volume
///
/// A directory is copied with all that is in it, but without links. What exists already is not overwritten.
#[derive(Debug, Args)]
pub(super) struct Get {
    /// The image: an id, the first digits of one, a tag, or a program's name (its latest image)
    #[arg(value_name = "REF")]
    reference: String,
    /// The file or directory in a volume
    #[arg(value_name = "VOLUME:PATH")]
    place: VolumePath,
    /// Where to put it; without it, or with `-`, a file goes to standard output
    #[arg(value_name = "TARGET")]
    target: Option<PathBuf>,
}

impl Get {
    pub fn execute(self, places: &Places) -> Result<(), Failure> {
        let (_, _, volumes) = open(places, &self.reference)?;
        let volume = find(&volumes, &self.place)?;
        let path = &self.place.path;
        let target = self.target.as_deref();
        match target.filter(|target| target.as_os_str() != STANDARD_OUTPUT) {
            Some(target) => copy(volume, path, target),
            None if volume.file_type(path)? == FileType::Directory => Err(Failure::new(format!(
                "{path} is a directory, which standard output cannot take"
            ))
            .hint("name a directory to be made: `wsnap volume get REF VOLUME:PATH TARGET`")),
            None => {
                let mut to = io::stdout().lock();
                if to.is_terminal() {
                    output::message(format_args!("{path}:"));
                }
                write(volume, path, &mut to, Path::new("standard output"))
            }
        }
    }
}

/// Copies what is at `path` to `target`, which must not exist.
fn copy(volume: &Volume, path: &str, target: &Path) -> Result<(), Failure> {
    if volume.file_type(path)? == FileType::Directory {
        return copy_directory(volume, path, target);
    }
    let created = File::create_new(target);
    let file = created.map_err(|error| Failure::io("create", target, &error))?;
    let written = write_file(volume, path, &file, target);
    if written.is_err() {
        // A part of a file would pass for the whole, and be in the way of the next attempt.
        let _ = fs::remove_file(target);
    }
    written
}

/// Writes a file with the holes that it has: one of many terabytes can be nearly all hole.
fn write_file(volume: &Volume, path: &str, file: &File, target: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::io("write", target, &error);
    file.set_len(volume.file_len(path)?).map_err(failed)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    while let Some(stretch) = volume.next_data(path, offset)? {
        let length = (stretch.end - stretch.start).min(PIECE_BYTES as u64) as usize;
        let count = volume.read_at(path, stretch.start, &mut piece[..length])?;
        file.write_all_at(&piece[..count], stretch.start)
            .map_err(failed)?;
        offset = stretch.start + count as u64;
    }
    Ok(())
}

fn copy_directory(volume: &Volume, path: &str, target: &Path) -> Result<(), Failure> {
    fs::create_dir(target).map_err(|error| Failure::io("create", target, &error))?;
    for entry in volume.entries(path)? {
        // Links are left out: what they mean outside of the volume is another matter.
        if entry.file_type != FileType::SymbolicLink {
            let inner = format!("{path}/{}", entry.name);
            copy(volume, &inner, &target.join(&entry.name))?;
        }
    }
    Ok(())
}

fn write(volume: &Volume, path: &str, to: &mut dyn Write, target: &Path) -> Result<(), Failure> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    loop {
        let count = volume.read_at(path, offset, &mut piece)?;
        if count == 0 {
            break;
        }
        to.write_all(&piece[..count])
            .map_err(|error| Failure::io("write", target, &error))?;
        offset += count as u64;
    }
    to.flush()
        .map_err(|error| Failure::io("write", target, &error))
}
