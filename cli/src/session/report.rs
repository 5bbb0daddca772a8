//! What is said of a suspension.

use serde::Serialize;

use super::Session;
use super::keeper::Taken;
use super::requests::StopCause;
use super::words::line;
use crate::output;

/// The report of a suspension, on standard error.
#[derive(Serialize)]
struct Report<'a> {
    suspended: Suspension<'a>,
}

#[derive(Serialize)]
struct Suspension<'a> {
    id: String,
    name: Option<&'a str>,
    cause: &'static str,
    taken_ms: u64,
    durable_ms: u64,
    /// The command line that goes on, word by word.
    resume: &'a [String],
}

impl Session<'_> {
    /// Says that the program has been suspended for good.
    pub(super) fn report(&self, taken: &Taken, cause: StopCause) {
        let resume = self.resume_command(taken.id);
        if self.options.json {
            output::json_message(&Report {
                suspended: Suspension {
                    id: taken.id.to_string(),
                    name: self.keeper.name(),
                    cause: cause.as_str(),
                    taken_ms: output::milliseconds(taken.taken),
                    durable_ms: output::milliseconds(taken.durable),
                    resume: &resume,
                },
            });
            return;
        }
        output::message(format_args!(
            "suspended ({}) as image {}\nresume with: {}",
            cause.as_str(),
            taken.id,
            line(&resume)
        ));
    }
}
