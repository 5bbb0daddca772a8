//! Under which names a rewritten module exports what its host and its clones need.

use crate::module::{Export, Module};
use std::fmt;

/// An export of a rewritten module, or of a module of clones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// The control memory.
    Control,
    /// The request memory.
    Request,
    /// The table of the host's hooks.
    Hooks,
    /// The table of saved function references, if there can be any.
    SavedFunctions,
    /// The table of saved external references, if there can be any.
    SavedExterns,
    /// The table of saved exception references, if there can be any.
    SavedExceptions,
    /// The table of referenced functions: which function a reference points to is found here.
    ReferencedFunctions,
    /// The cold path of safepoints.
    Safepoint,
    /// `() -> ()`: drops again the segments whose dropped flag is set.
    DropAgain,
    /// The start function, which the host calls.
    Start,
    /// A memory of the program.
    Memory(u32),
    /// A table of the program.
    Table(u32),
    /// A global of the program.
    Global(u32),
    /// A tag of the program.
    Tag(u32),
    /// A function of the program, by its index in the rewritten module.
    Function(u32),
    /// Stands for several functions of the program.
    Bridge(u32),
    /// A helper for clones.
    Helper(u32),
    /// `() -> offset`: where an active data segment goes, unless that is a constant.
    DataOffset(u32),
    /// In a module of clones: the clone with this number.
    Clone(u32),
}

impl Name {
    /// The export's name in what is made of `module`, whose own exports never have such a name.
    pub fn in_module(self, module: &Module<'_>) -> String {
        let prefix = &module.prefix;
        format!("{prefix}{self}")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => write!(formatter, "control"),
            Self::Request => write!(formatter, "request"),
            Self::Hooks => write!(formatter, "hooks"),
            Self::SavedFunctions => write!(formatter, "saved-functions"),
            Self::SavedExterns => write!(formatter, "saved-externs"),
            Self::SavedExceptions => write!(formatter, "saved-exceptions"),
            Self::ReferencedFunctions => write!(formatter, "referenced-functions"),
            Self::Safepoint => write!(formatter, "safepoint"),
            Self::DropAgain => write!(formatter, "drop-again"),
            Self::Start => write!(formatter, "start"),
            Self::Memory(index) => write!(formatter, "memory-{index}"),
            Self::Table(index) => write!(formatter, "table-{index}"),
            Self::Global(index) => write!(formatter, "global-{index}"),
            Self::Tag(index) => write!(formatter, "tag-{index}"),
            Self::Function(index) => write!(formatter, "function-{index}"),
            Self::Bridge(index) => write!(formatter, "bridge-{index}"),
            Self::Helper(index) => write!(formatter, "helper-{index}"),
            Self::DataOffset(index) => write!(formatter, "data-offset-{index}"),
            Self::Clone(index) => write!(formatter, "clone-{index}"),
        }
    }
}

/// What the names of added exports begin with: nothing that an export of the program begins with.
pub(crate) fn prefix(exports: &[Export<'_>]) -> String {
    let mut prefix = "wsnap:".to_owned();
    while exports
        .iter()
        .any(|export| export.name.starts_with(&prefix))
    {
        prefix.push(':');
    }
    prefix
}
