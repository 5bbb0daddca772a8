//! What of a running program does not change, for whoever takes snapshots of it: the host's functions, and other threads.

use crate::control::Control;
use crate::instance::Call;
use crate::pages::Pages;
use crate::program::Program;
use crate::snapshot::Desk;
use std::sync::Arc;

/// A running program, seen from outside.
pub(crate) struct Guest {
    pub program: Program,
    pub instance: wasmtime::Instance,
    pub control: Arc<Control>,
    pub pages: Pages,
    pub call: Call,
    /// Where snapshots are asked for.
    pub desk: Desk,
}
