//! What can be wrong with a module or a request.

/// Why a module cannot be rewritten, or a point of it cannot be described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not a valid WebAssembly module.
    #[error("not a valid WebAssembly module: {0}")]
    Invalid(#[from] wasmparser::Error),
    /// The bytes are a WebAssembly component, not a core module.
    #[error(
        "this is a WebAssembly component; wsnap runs core modules (build for wasm32-wasip1, or extract the core module)"
    )]
    Component,
    /// The module is valid, but uses something that cannot be suspended.
    #[error(
        "the module uses {feature}, which cannot be suspended; run it with --bare, or build it without"
    )]
    Unsupported {
        /// The name of the feature.
        feature: String,
    },
    /// The module has no function of that index.
    #[error("the module has no function {function}")]
    NoFunction {
        /// The index asked for.
        function: u32,
    },
    /// There is no instruction at which a frame could stand.
    #[error("function {function} has no {point} in reachable code")]
    NoPoint {
        /// The function's index.
        function: u32,
        /// The point asked for.
        point: crate::Point,
    },
}

impl Error {
    /// The refusal of values that a garbage collector manages.
    pub(crate) fn collected() -> Self {
        Self::Unsupported {
            feature: "garbage-collected references (structs, arrays, i31)".into(),
        }
    }
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
