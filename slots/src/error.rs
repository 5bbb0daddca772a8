//! What can go wrong with slots.

use std::io;
use std::path::{Path, PathBuf};

/// Something cannot be done with slots.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlotsError {
    /// The directory holds no slots.
    #[error("{} holds no slots", path.display())]
    NoSlots {
        /// The directory.
        path: PathBuf,
    },
    /// The file that says how many slots there are does not.
    #[error("{} does not say how many slots there are: it has {found:?}", path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: String,
    },
    /// The system refuses something.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

pub(crate) trait ResultExt<T> {
    /// Says what was tried, on which path.
    fn during(self, operation: &'static str, path: &Path) -> Result<T, SlotsError>;
}

impl<T, E: Into<io::Error>> ResultExt<T> for Result<T, E> {
    fn during(self, operation: &'static str, path: &Path) -> Result<T, SlotsError> {
        self.map_err(|error| SlotsError::Io {
            operation,
            path: path.to_owned(),
            source: error.into(),
        })
    }
}
