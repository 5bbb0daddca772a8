//! How a run of a program ended, and what this process makes of it.

use std::process::ExitCode;
use std::time::Duration;

use wsnap::{Error, Outcome};
use wsnap_supervision::End;

use super::{SUSPENDED, TRAPPED};
use crate::failure::{self, Failure};
use crate::output;
use crate::program::print_results;

/// How a run of a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// How this process ends if it does nothing else.
    pub code: u8,
    pub kind: EndKind,
}

/// Which kind of end it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EndKind {
    /// The program came to its end.
    Finished,
    /// The program ended itself with a code other than 0.
    Failed,
    /// The program is to go on later.
    Suspended,
    /// The time that the program may take was up: this limit.
    OutOfTime(String),
    /// The program trapped or the like, for this reason.
    Crashed(String),
}

impl Ended {
    /// The program is suspended, or was to be: it goes on from its latest image.
    pub fn suspended(code: u8) -> Self {
        Self {
            code,
            kind: EndKind::Suspended,
        }
    }

    /// The program's time is up.
    pub fn out_of_time(reason: String) -> Self {
        Self {
            code: TRAPPED,
            kind: EndKind::OutOfTime(reason),
        }
    }

    /// Whether the program has come to an end of its own choice.
    pub fn is_own_end(&self) -> bool {
        matches!(self.kind, EndKind::Finished | EndKind::Failed)
    }

    /// Shows what came of a run of the program.
    pub fn of(end: Result<Outcome, Error>) -> Result<Self, Failure> {
        let (code, kind) = match end {
            Ok(Outcome::Returned(results)) => {
                print_results(&results)?;
                (0, EndKind::Finished)
            }
            // The operating system keeps the lowest byte of an exit code.
            Ok(Outcome::Exited(status)) => match status.to_le_bytes()[0] {
                0 => (0, EndKind::Finished),
                code => (code, EndKind::Failed),
            },
            Ok(Outcome::Trapped(trap)) => {
                let text = trap.to_string();
                output::error(text.trim_end());
                let first = text.lines().next().unwrap_or_default();
                (TRAPPED, EndKind::Crashed(first.to_owned()))
            }
            Ok(Outcome::Suspended(_)) => (SUSPENDED, EndKind::Suspended),
            Err(error) => {
                let failure = Failure::from(error);
                failure.print();
                let reason = failure.message().to_owned();
                (failure::OTHER, EndKind::Crashed(reason))
            }
        };
        Ok(Self { code, kind })
    }

    /// How this process ends.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// What it means to whoever keeps the program running: a failure of its own choice counts as a crash only if
    /// `failures_count`. `ran` says how long this attempt has run.
    pub fn into_end(self, failures_count: bool, ran: Duration) -> End<Self> {
        let reason = match &self.kind {
            EndKind::Suspended => return End::Stopped(self),
            EndKind::OutOfTime(reason) => {
                return End::OutOfTime {
                    reason: reason.clone(),
                    output: self,
                    ran: Some(ran),
                };
            }
            EndKind::Crashed(reason) => reason.clone(),
            EndKind::Failed if failures_count => format!("it ended with exit code {}", self.code),
            EndKind::Finished | EndKind::Failed => return End::Finished(self),
        };
        End::Died {
            output: self,
            reason,
            ran: Some(ran),
        }
    }
}
