//! `--id-file`: where scripts find the id of the latest image.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;
use wsnap::snapshots::ImageId;

use crate::failure::Failure;

/// What other programs get for new files; the umask takes away from it.
const MODE: u32 = 0o666;

/// Fails when the file could not be written later.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    let checked = match kind(path) {
        Kind::Directory => Err(io::ErrorKind::IsADirectory.into()),
        Kind::Replaceable => temporary(path).map(drop),
        Kind::Special => Ok(()),
    };
    checked.map_err(|error| Failure::io("write the id file", path, &error))
}

/// Replaces the file by one that holds the id and a newline. Readers see the old content or the new, never a part.
pub(crate) fn write(path: &Path, id: ImageId) -> Result<(), Failure> {
    let line = format!("{id}\n");
    let written = match kind(path) {
        // A pipe or a terminal is written to; replacing it would take it from whoever reads.
        Kind::Special => OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes())),
        Kind::Directory | Kind::Replaceable => replace(path, line.as_bytes()),
    };
    written.map_err(|error| Failure::io("write the id file", path, &error))
}

enum Kind {
    Directory,
    /// A regular file, or nothing yet.
    Replaceable,
    /// A pipe, a terminal, a device.
    Special,
}

fn kind(path: &Path) -> Kind {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Kind::Directory,
        Ok(metadata) if !metadata.is_file() => Kind::Special,
        _ => Kind::Replaceable,
    }
}

fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = temporary(path)?;
    file.write_all(content)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_replaces_what_was_in_the_file_and_ends_with_a_newline() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("id");
        let id = ImageId::of(b"state");
        fs::write(&path, "something longer than an id ".repeat(10)).expect("a file");
        check(&path).expect("it can be written");
        write(&path, id).expect("it is written");
        assert_eq!(fs::read_to_string(&path).expect("text"), format!("{id}\n"));
        let entries = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(entries, 1, "no temporary file is left");
    }

    #[test]
    fn a_file_in_a_folder_that_does_not_exist_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("nowhere/id");
        match check(&path) {
            Err(failure) => assert!(failure.message().contains("nowhere/id")),
            Ok(()) => panic!("nothing can be written there"),
        }
    }

    #[test]
    fn a_folder_is_refused_as_id_file() {
        let folder = tempfile::tempdir().expect("a folder");
        match check(folder.path()) {
            Err(failure) => assert!(failure.message().contains("directory")),
            Ok(()) => panic!("a folder is no file"),
        }
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let null = Path::new("/dev/null");
        check(null).expect("it can be written");
        write(null, ImageId::of(b"state")).expect("it is written");
        assert!(matches!(kind(null), Kind::Special));
    }
}
