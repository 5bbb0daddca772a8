//! The seam at which tests let the file system fail.

use std::fmt;
use std::io;
use std::path::Path;

/// What the store is about to ask of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OperationKind {
    /// Creates a file in the directory that the operation names, or that directory itself.
    Create,
    /// Writes into a file that no reader knows yet.
    Write,
    /// Appends to a file that readers know.
    Append,
    /// Cuts a file that readers know.
    Truncate,
    /// Makes the content of a file durable.
    Sync,
    /// Gives a file its final name.
    Rename,
    /// Makes the entries of a directory durable.
    SyncDirectory,
    /// Removes a file.
    Remove,
}

/// A system call that changes or syncs something.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// What it does.
    pub kind: OperationKind,
    /// To which path. A file that is not published yet stands for the path that it is to get.
    pub path: &'a Path,
}

/// Is asked before every system call of a store that changes or syncs anything, by whichever thread makes the call.
pub trait Faults: fmt::Debug + Send + Sync {
    /// Lets the call happen, or makes it fail without having happened.
    ///
    /// # Errors
    ///
    /// The error that the store is to see instead of the call's result.
    fn before(&self, operation: Operation<'_>) -> io::Result<()>;
}
