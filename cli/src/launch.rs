//! From an image to a program that is ready to go on.

use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;

use clap::ValueEnum;
use wsnap::snapshots::{Manifest, Store, StoreError, StoredImage};
use wsnap::wasi::{Files, Grants, SavedState, StandardStreams, Stdio, Wasi};
use wsnap::{Instance, ModuleBytes, WASI_SECTION};

use crate::arguments::{Directory, Variable};
use crate::failure::Failure;
use crate::output;
use crate::places::Places;
use crate::program::{self, Settings};
use crate::session::Options;

/// What is expected of open files.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum FilesPolicy {
    /// They are what they were when the program was suspended; otherwise all that differ are named
    #[default]
    RequireSame,
    /// They exist: the program goes on with what is there, at its old offsets, and is not told
    Reopen,
    /// Nothing: as reopen, and what is missing or cannot be opened answers with an error (ESTALE) when the program uses it
    SkipMissing,
}

impl fmt::Display for FilesPolicy {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        to.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl From<FilesPolicy> for Files {
    fn from(policy: FilesPolicy) -> Self {
        match policy {
            FilesPolicy::RequireSame => Self::RequireSame,
            FilesPolicy::Reopen => Self::Reopen,
            FilesPolicy::SkipMissing => Self::SkipMissing,
        }
    }
}

/// What a program is given again that goes on.
pub(crate) struct Resumption<'a> {
    pub directories: &'a [Directory],
    pub variables: &'a [Variable],
    pub listeners: Vec<TcpListener>,
    pub files: FilesPolicy,
    pub stdout: Stdio,
    pub target: Option<&'a str>,
    pub options: &'a Options,
}

impl Resumption<'_> {
    /// Makes the program of an image that has been verified, and says what it is called.
    pub fn resume(
        self,
        places: &Places,
        store: &Store,
        image: &Arc<StoredImage>,
    ) -> Result<(Instance, String), Failure> {
        let manifest = image.manifest();
        let state = saved_state(manifest)?;
        let module = ModuleBytes::of_store(store, manifest.module)?;
        let settings = Settings {
            target: self.target.map(str::to_owned),
            deterministic: manifest.deterministic,
            bare: false,
            resumed: true,
            stack_bytes: self.options.limits.stack_bytes(),
            countable_safepoints: self.options.counts_safepoints(),
        };
        let limits = self.options.limits.limits();
        let wasi = Wasi::restore(&state, self.grants()?)?;
        for change in wasi.accepted_changes() {
            output::message(output::printable(&change.to_string()));
        }
        let label = label(&state);
        let (program, _) =
            program::compile(&settings.engine(places)?, module, &label, Some(manifest))?;
        let resumed = limits.admit(&program, manifest);
        let instance = resumed
            .and_then(|()| program.resume(image, wasi))
            .map_err(|error| Failure::from(error).about(format!("image {}", image.id())))?;
        Ok((instance, label))
    }

    fn grants(self) -> Result<Grants, Failure> {
        Ok(Grants {
            preopens: Directory::open_all(self.directories)?,
            listeners: self.listeners,
            env: Variable::resolve_all(self.variables)?,
            files: self.files.into(),
            streams: StandardStreams {
                stdout: self.stdout,
                ..StandardStreams::default()
            },
        })
    }
}

/// Reads what nobody has read and found right since it was written, before any of it is run.
pub(crate) fn verify(store: &Store, image: &StoredImage) -> Result<(), StoreError> {
    let _progress = output::progress("verifying the image …".to_owned());
    store.verify_unverified(image, &|_| ())
}

fn saved_state(manifest: &Manifest) -> Result<SavedState, Failure> {
    match manifest.host.get(WASI_SECTION) {
        Some(bytes) => Ok(SavedState::decode(bytes)?),
        None => Err(Failure::new(
            "the image has no WASI state, so wsnap cannot resume it",
        )),
    }
}

/// What the program was called when it was started.
fn label(state: &SavedState) -> String {
    let name = state.args.first().map_or(&b"(unnamed)"[..], Vec::as_slice);
    String::from_utf8_lossy(name).into_owned()
}
