//! What a user is told when something cannot be done: what happened, where, and what to do next.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use wsnap::snapshots::{Damage, DecodeError, ExportError, ImportError, StoreError};
use wsnap::wasi::{RestoreError, VolumeError, WasiError};

use crate::output;

/// The exit code of everything that isn't the program's own end, a suspension, a trap, or wrong usage.
pub(crate) const OTHER: u8 = 1;

/// A command could not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    /// The reader of our output has gone, so there is nobody to tell.
    silent: bool,
}

impl Failure {
    /// A failure that `message` describes, without a full stop.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            silent: false,
        }
    }

    /// Says what to do next, in place of what was said before.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names what the failure is about, unless the message does so already.
    pub fn about(mut self, subject: impl fmt::Display) -> Self {
        let subject = subject.to_string();
        if !self.message.contains(&subject) {
            self.message = format!("{subject}: {}", self.message);
        }
        self
    }

    /// The failure of an operation, a verb, on a path.
    pub fn io(operation: &str, path: &Path, error: &io::Error) -> Self {
        let failure = Self::new(format!("cannot {operation} {}: {error}", path.display()));
        Self {
            hint: io_hint(error).map(str::to_owned),
            ..failure
        }
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next, if anybody knows.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether the reader of our output has gone.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// Writes the failure to standard error.
    pub fn print(&self) {
        if self.silent {
            return;
        }
        output::error(&self.message);
        if let Some(hint) = &self.hint {
            output::hint(hint);
        }
    }

    /// How the process ends with this failure.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(OTHER)
    }

    fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self {
            message: chain(error),
            hint: causes(error).find_map(hint_for),
            silent: false,
        }
    }
}

/// The standard output of a command fails only when nobody reads it any more, or when it is a file on a full disk.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let failure = Self::new(format!("cannot write to standard output: {error}"));
        Self {
            silent: error.kind() == io::ErrorKind::BrokenPipe,
            hint: io_hint(&error).map(str::to_owned),
            ..failure
        }
    }
}

macro_rules! failure_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::from_error(&error)
            }
        })*
    };
}

failure_from!(
    StoreError,
    ExportError,
    ImportError,
    RestoreError,
    VolumeError,
    WasiError,
    wsnap::Error,
    wsnap::DecodeOwnError,
    wsnap_supervision::KeepError,
    wsnap_slots::SlotsError,
    wsnap::wasi::DecodeError
);

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The message with those of its causes. Some errors repeat their cause in their own message.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut message = error.to_string();
    for cause in causes(error).skip(1) {
        let text = cause.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
    }
    message
}

fn hint_for(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return store_hint(error);
    }
    if let Some(wsnap_slots::SlotsError::NoSlots { path }) = error.downcast_ref() {
        return Some(format!(
            "`wsnap slots {} --count N` makes N of them",
            path.display()
        ));
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return io_hint(error).map(str::to_owned);
    }
    if let Some(RestoreError::NotGranted { guest_path }) = error.downcast_ref() {
        return Some(format!(
            "`wsnap resume --dir HOST::{guest_path} …` grants the directory HOST"
        ));
    }
    if let Some(RestoreError::NoListener { .. }) = error.downcast_ref() {
        return Some(
            "`wsnap resume --tcplisten HOST:PORT …` listens on that address for the program"
                .to_owned(),
        );
    }
    match error.downcast_ref()? {
        wsnap::Error::Import { .. } => Some(
            "wsnap provides WASI preview 1 (wasi_snapshot_preview1), preview 0 (wasi_unstable), and three functions of its own \
             (wsnap)"
                .to_owned(),
        ),
        wsnap::Error::Engine { .. } => Some(
            "leave --target out, or use `--target pulley64` for the portable interpreter"
                .to_owned(),
        ),
        _ => None,
    }
}

fn store_hint(error: &StoreError) -> Option<String> {
    Some(match error {
        StoreError::NotFound { .. } => {
            "`wsnap ls` lists the images of a store; --store or WSNAP_STORE names another store"
                .to_owned()
        }
        StoreError::JobTaken { .. } => {
            "choose another --name, or stop that one with `wsnap snap --stop`".to_owned()
        }
        StoreError::Damaged {
            what: "journal", ..
        } => "run the program without --continue to start it from the beginning, or `wsnap resume` an image of it"
            .to_owned(),
        StoreError::Ambiguous { .. } => "give more digits of the id".to_owned(),
        StoreError::NotAStore { .. } => {
            "name a directory that is empty or doesn't exist yet with --store".to_owned()
        }
        StoreError::OtherVersion { .. } => {
            "use the version of wsnap that wrote it, or another store (--store)".to_owned()
        }
        StoreError::Damaged {
            source: Damage::Decode(DecodeError::Version { .. }),
            ..
        } => "use the version of wsnap that wrote the image".to_owned(),
        StoreError::Damaged { .. }
        | StoreError::DamagedMemory { .. }
        | StoreError::Missing { .. } => {
            "`wsnap verify` says which images are intact; resume one of those".to_owned()
        }
        StoreError::Io { source, .. } => return io_hint(source).map(str::to_owned),
        _ => return None,
    })
}

fn io_hint(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space, or use a store on another disk (--store)")
        }
        io::ErrorKind::FileTooLarge => Some("raise the limit on file sizes (`ulimit -f`)"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("check the permissions, or name another place (stores: --store)")
        }
        _ => None,
    }
}
