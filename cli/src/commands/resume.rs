//! `wsnap resume`.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use wsnap::WASI_SECTION;
use wsnap::snapshots::{Manifest, Store, StoreError, StoredImage};
use wsnap::wasi::{Files, Grants, SavedState, Wasi};

use crate::arguments::{Directory, Variable};
use crate::failure::Failure;
use crate::listen::Listen;
use crate::output;
use crate::places::Places;
use crate::program::{self, Settings};
use crate::session::{self, Session};

/// Go on from an image
///
/// Directories are granted again, under the names that the program knows them by, and sockets to listen on in their old
/// order; connections are found reset. The image stays as it is: it can be
/// resumed any number of times, also at once.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap resume 3f2a9c01\n  wsnap resume --dir data::/data sim\n  wsnap resume --stop-at after=1h --id-file sim.id \"$(cat sim.id)\""
)]
pub(crate) struct Resume {
    /// Grant the program a directory again, under the name that it knows; can be given several times
    #[arg(long = "dir", value_name = "HOST[::GUEST]")]
    directories: Vec<Directory>,
    /// Let the program accept connections on a TCP socket that listens on this address, in the order in which it was given them first; can be given several times
    #[arg(long = "tcplisten", value_name = "HOST:PORT")]
    listeners: Vec<Listen>,
    /// Set or replace an environment variable, for programs that look again; can be given several times
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    variables: Vec<Variable>,
    /// What is expected of the files that the program had open
    #[arg(long, value_enum, default_value_t)]
    files: FilesPolicy,
    /// Compile for another target; pulley64 is the portable interpreter
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    #[command(flatten)]
    options: session::Options,
    /// The image: an id, the first digits of one, a tag, or a program's name (its latest image)
    #[arg(value_name = "REF")]
    reference: String,
}

/// What is expected of open files.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum FilesPolicy {
    /// They are what they were when the program was suspended; otherwise all that differ are named
    #[default]
    RequireSame,
    /// They exist: the program goes on with what is there, at its old offsets, and is not told
    Reopen,
    /// Nothing: as reopen, and what is missing or cannot be opened answers with an error (ESTALE) when the program uses it
    SkipMissing,
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

impl Resume {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let (store, id) = places.resolve(&self.reference)?;
        let image = Arc::new(store.load(id)?);
        verify(&store, &image)?;
        let manifest = image.manifest();
        let state = saved_state(manifest)?;
        let wasm = store.module(manifest.module)?;
        let name = self.name(&store)?;
        // Whoever has lost the record can still go on from the image.
        let parent = store.record_of(id).ok().flatten().map(|record| record.id);
        let session = Session::prepare(places, &self.options, name, parent, &self.directories)?;
        let listeners = Listen::open_all(&self.listeners)?;
        let chosen = Listen::chosen(&self.listeners, &listeners);
        let wasi = Wasi::restore(&state, self.grants(listeners)?)?;
        for change in wasi.accepted_changes() {
            output::message(output::printable(&change.to_string()));
        }
        let settings = Settings {
            target: self.target.clone(),
            deterministic: manifest.deterministic,
            bare: false,
            resumed: true,
            stack_bytes: self.options.limits.stack_bytes(),
            countable_safepoints: self.options.counts_safepoints(),
        };
        let label = label(&state);
        let (program, _) = program::compile(&settings.engine(places)?, wasm, &label)?;
        let limits = self.options.limits.limits();
        let resumed = limits.admit(&program, manifest);
        let instance = resumed
            .and_then(|()| program.resume(&image, wasi))
            .map_err(|error| Failure::from(error).about(format!("image {id}")))?;
        session
            .listening(&self.listeners, chosen)
            .run(instance, &label)
    }

    /// A program that is resumed by its name keeps it.
    fn name(&self, store: &Store) -> Result<Option<String>, Failure> {
        if self.options.name.is_some() {
            return Ok(self.options.name.clone());
        }
        // The order in which the store looks: a tag comes first.
        let is_tag = store.tags()?.contains_key(&self.reference);
        let is_name = !is_tag && store.names()?.contains_key(&self.reference);
        Ok(is_name.then(|| self.reference.clone()))
    }

    fn grants(&self, listeners: Vec<TcpListener>) -> Result<Grants, Failure> {
        Ok(Grants {
            preopens: Directory::open_all(&self.directories)?,
            listeners,
            env: Variable::resolve_all(&self.variables)?,
            files: self.files.into(),
            ..Grants::default()
        })
    }
}

/// Reads what nobody has read and found right since it was written, before any of it is run.
fn verify(store: &Store, image: &StoredImage) -> Result<(), StoreError> {
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
