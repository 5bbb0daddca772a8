//! One module per command: its flags and what it does.

pub(crate) mod compile;
pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod export;
pub(crate) mod gc;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod log;
pub(crate) mod ls;
pub(crate) mod ps;
pub(crate) mod resume;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod slots;
pub(crate) mod slurm_script;
pub(crate) mod snap;
pub(crate) mod stats;
pub(crate) mod tag;
pub(crate) mod verify;
pub(crate) mod volume;
