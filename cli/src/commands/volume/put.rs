//! `wsnap volume put`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use wsnap::snapshots::{ImageId, NewRecord, Store};
use wsnap::wasi::Volume;
use wsnap::{ImageVolumes, Stored};

use super::{no_volume, open};
use crate::arguments::VolumePath;
use crate::failure::Failure;
use crate::output;
use crate::places::Places;

/// The trigger in the records of images that were made so.
const TRIGGER: &str = "volume put";
/// Standard input, in place of a file.
const STANDARD_INPUT: &str = "-";
/// So much of a file is in memory at a time, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Copy a file or a directory into a volume
///
/// The result is another image, whose id is printed; it shares everything else with the one that was named. A program's name
/// then stands for the new image. Directories on the way are made, a file of that name is replaced, and a directory is
/// copied with all that is in it. Links are followed.
#[derive(Debug, Args)]
pub(super) struct Put {
    /// Give the new image a tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// The image: an id, the first digits of one, a tag, or a program's name (its latest image)
    #[arg(value_name = "REF")]
    reference: String,
    /// The file or directory to copy, or `-` for standard input
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// Where to put it in a volume
    #[arg(value_name = "VOLUME:PATH")]
    place: VolumePath,
}

impl Put {
    pub fn execute(self, places: &Places) -> Result<(), Failure> {
        let (store, id, mut volumes) = open(places, &self.reference)?;
        let Some(volume) = volumes.get_mut(&self.place.volume) else {
            return Err(no_volume(&volumes, &self.place));
        };
        let path = &self.place.path;
        if let Some((parent, _)) = path.rsplit_once('/') {
            create_directories(volume, parent)?;
        }
        if self.source.as_os_str() == STANDARD_INPUT {
            write(volume, path, &mut io::stdin().lock(), &self.source)?;
        } else {
            copy(volume, path, &self.source, &mut Vec::new())?;
        }
        let new = self.publish(&store, id, volumes)?;
        output::result(new)
    }

    /// Stores the image and whatever refers to it.
    fn publish(
        &self,
        store: &Store,
        old: ImageId,
        volumes: ImageVolumes,
    ) -> Result<ImageId, Failure> {
        // Nobody may delete the image before record and name point at it.
        let _lock = store.lock_shared()?;
        let Stored { image, added_bytes } = volumes.publish(store)?;
        let id = image.id();
        let parent = store.record_of(old).ok().flatten();
        let names = store.names()?;
        let is_name = names.get(&self.reference) == Some(&old)
            && !store.tags()?.contains_key(&self.reference);
        let mut record = NewRecord::new(id, output::unix_ms(SystemTime::now()), TRIGGER);
        record.name = is_name.then(|| self.reference.clone());
        record.parent = parent.map(|record| record.id);
        record.added_bytes = added_bytes;
        store.put_record(record)?;
        if is_name {
            store.set_name(&self.reference, id)?;
        }
        if let Some(tag) = &self.tag {
            store.set_tag(tag, id)?;
        }
        Ok(id)
    }
}

/// Makes the directories of `path` that do not exist.
fn create_directories(volume: &mut Volume, path: &str) -> Result<(), Failure> {
    let mut ends: Vec<usize> = path.match_indices('/').map(|(end, _)| end).collect();
    ends.push(path.len());
    for end in ends {
        let directory = &path[..end];
        if !directory.is_empty() && volume.file_type(directory).is_err() {
            volume.create_dir(directory)?;
        }
    }
    Ok(())
}

/// A directory of the host, whatever path leads to it: its device and its number there.
type Identity = (u64, u64);

/// Copies what the host has at `source` to `path`. `above` are the directories that are being copied.
fn copy(
    volume: &mut Volume,
    path: &str,
    source: &Path,
    above: &mut Vec<Identity>,
) -> Result<(), Failure> {
    let failed = |operation| move |error: io::Error| Failure::io(operation, source, &error);
    let metadata = fs::metadata(source).map_err(failed("read"))?;
    if !metadata.is_dir() {
        let mut file = File::open(source).map_err(failed("read"))?;
        return write(volume, path, &mut file, source);
    }
    let identity = (metadata.dev(), metadata.ino());
    if above.contains(&identity) {
        let shown = source.display();
        return Err(Failure::new(format!(
            "{shown} leads back to a directory that it is in"
        )));
    }
    above.push(identity);
    create_directories(volume, path)?;
    for entry in fs::read_dir(source).map_err(failed("read"))? {
        let entry = entry.map_err(failed("read"))?;
        // Reading a pipe or a device among them could take for ever.
        let kind = fs::metadata(entry.path()).map_err(failed("read"))?;
        if !kind.is_file() && !kind.is_dir() {
            let shown = entry.path().display().to_string();
            return Err(Failure::new(format!(
                "{shown} is neither a file nor a directory"
            )));
        }
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            let shown = entry.path().display().to_string();
            return Err(Failure::new(format!(
                "the name of {shown} is not UTF-8 text"
            )));
        };
        copy(volume, &format!("{path}/{name}"), &entry.path(), above)?;
    }
    above.pop();
    Ok(())
}

fn write(
    volume: &mut Volume,
    path: &str,
    from: &mut dyn Read,
    source: &Path,
) -> Result<(), Failure> {
    volume.create_file(path)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    loop {
        let count = match from.read(&mut piece) {
            Ok(0) => return Ok(volume.set_len(path, offset)?),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::io("read", source, &error)),
        };
        // What is zero becomes a hole, and takes no room.
        if piece[..count].iter().any(|byte| *byte != 0) {
            volume.write_at(path, offset, &piece[..count])?;
        }
        offset += count as u64;
    }
}
