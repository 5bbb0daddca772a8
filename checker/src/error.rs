//! What can be wrong with a rewritten module.

use thiserror::Error;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a rewritten module, or a module of clones, is not what it should be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// One of the modules is not valid WebAssembly.
    #[error("the module is not valid")]
    Invalid(#[from] wasmparser::BinaryReaderError),
    /// Something that is no code differs.
    #[error("{what} of the rewritten module differs: {difference}")]
    Section {
        /// Which part of a module it is.
        what: &'static str,
        /// What is there, and what should be.
        difference: String,
    },
    /// The code of a function is not the original one.
    #[error(
        "function {function}, at offset {rewritten:#x} of the rewritten module, {original:#x} of the original: {difference}"
    )]
    Code {
        /// The function's index in the original module.
        function: u32,
        /// Offset of the instruction of the rewritten module.
        rewritten: u32,
        /// Offset of the instruction of the original module that is due.
        original: u32,
        /// What is there, and what should be.
        difference: String,
    },
}

/// Shorthand for a difference outside of code.
pub(crate) fn section<T>(what: &'static str, difference: impl Into<String>) -> Result<T> {
    Err(Error::Section {
        what,
        difference: difference.into(),
    })
}
