//! The ways to run a program.

use crate::asyncify;
use crate::error::BenchError;
use crate::guest::Guest;
use crate::others::{Compiled, Interpreted};
use crate::stop::stopped_early;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt;
use std::time::Duration;
use wsnap::Program;

/// A way to run a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Under plain wasmtime
    Bare,
    /// Under wasmtime with epoch interruption, which can stop a program but save nothing
    Epochs,
    /// As `wsnap run` does
    Wsnap,
    /// By wsnap, stopped once in the first tenth and resumed in another instance
    Resumed,
    /// Transformed by binaryen's Asyncify, under plain wasmtime
    Asyncify,
    /// Interpreted by wasmi
    Wasmi,
}

impl Way {
    /// All of them, as they appear in tables.
    pub const ALL: [Self; 6] = [
        Self::Bare,
        Self::Epochs,
        Self::Wsnap,
        Self::Resumed,
        Self::Asyncify,
        Self::Wasmi,
    ];

    /// In which of so many rounds this way takes part: an interpreter, which is there for scale, in the first one only.
    pub fn takes_part(self, round: u32) -> bool {
        self != Self::Wasmi || round == 0
    }

    /// Whether there are programs that this way cannot run.
    pub fn may_be_skipped(self) -> bool {
        matches!(self, Self::Asyncify | Self::Wasmi)
    }

    /// Compiles the program for this way.
    pub fn prepare(self, guest: &Guest) -> Result<Runner, BenchError> {
        Ok(match self {
            Self::Bare => Runner::Compiled(Compiled::new(guest.wasm())?),
            Self::Epochs => Runner::Compiled(Compiled::with_epochs(guest.wasm())?),
            Self::Wsnap => Runner::Wsnap(guest.compile(None)?),
            Self::Resumed => {
                let program = guest.compile(None)?;
                let whole = guest.finish(&mut guest.start(&program)?)?;
                Runner::Resumed { program, whole }
            }
            Self::Asyncify => Runner::Compiled(Compiled::new(&asyncify::transform(guest.wasm())?)?),
            Self::Wasmi => Runner::Interpreted(Interpreted::new(guest.wasm())?),
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Bare => "bare",
            Self::Epochs => "epochs",
            Self::Wsnap => "wsnap",
            Self::Resumed => "resumed",
            Self::Asyncify => "asyncify",
            Self::Wasmi => "wasmi",
        })
    }
}

/// A program that is ready to run in one of the ways.
pub enum Runner {
    /// By plain wasmtime.
    Compiled(Compiled),
    /// By wsnap.
    Wsnap(Program),
    /// By wsnap, with one stop.
    Resumed {
        /// The program.
        program: Program,
        /// How long it runs.
        whole: Duration,
    },
    /// By an interpreter.
    Interpreted(Interpreted),
}

impl Runner {
    /// Runs the program once, from a fresh start to its end, and says how much processor time that took; none if it was
    /// to be stopped and ended before.
    pub fn time(&self, guest: &Guest) -> Result<Option<Duration>, BenchError> {
        match self {
            Self::Compiled(compiled) => compiled.run(guest).map(Some),
            Self::Wsnap(program) => guest.finish(&mut guest.start(program)?).map(Some),
            Self::Resumed { program, whole } => stopped_early(guest, program, *whole),
            Self::Interpreted(interpreted) => interpreted.run(guest).map(Some),
        }
    }
}
