//! `wsnap slots`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use wsnap_slots::{Entry, SLOTS_MAX, Slots as Directory, State};

use crate::failure::Failure;
use crate::output;

/// Make slots that programs share by priority, or show who has them
///
/// Programs that are run with `--slots DIR` run only while they have one of the slots. A more urgent one makes the least
/// urgent one that runs give its slot back. There is no daemon: the directory is all there is, and it must be on this machine.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  wsnap slots /var/lib/slots --count 2\n  wsnap run --slots /var/lib/slots --priority 10 --name urgent job.wasm\n  wsnap slots /var/lib/slots"
)]
pub(crate) struct Slots {
    /// Make so many slots of the directory, which is created when it is missing
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(SLOTS_MAX)))]
    count: Option<u32>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    /// The directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Serialize)]
struct Report {
    slots: usize,
    /// Those that run first, then those that wait; of each the most urgent first.
    programs: Vec<Program>,
}

#[derive(Serialize)]
struct Program {
    pid: u32,
    priority: i32,
    /// `running`, `asked` (it is about to make room) or `waiting`.
    state: &'static str,
    /// When it asked for a slot first, in milliseconds since 1970.
    arrived_ms: u64,
}

impl From<Entry> for Program {
    fn from(entry: Entry) -> Self {
        Self {
            pid: entry.id.process,
            priority: entry.id.priority(),
            state: match entry.state {
                State::Running => "running",
                State::Asked => "asked",
                State::Waiting => "waiting",
            },
            arrived_ms: entry.id.arrived_ns / 1_000_000,
        }
    }
}

impl Slots {
    pub fn execute(self) -> Result<ExitCode, Failure> {
        let slots = match self.count {
            Some(count) => Directory::create(&self.directory, count)?,
            None => Directory::open(&self.directory)?,
        };
        let report = Report {
            slots: slots.count()?,
            programs: slots.entries()?.into_iter().map(Program::from).collect(),
        };
        if self.json {
            output::json_result(&report)?;
            return Ok(ExitCode::SUCCESS);
        }
        let used = report.programs.iter();
        let used = used.filter(|program| program.state != "waiting").count();
        output::result(format_args!(
            "{used} of {} in use",
            output::count(report.slots as u64, "slot", "slots")
        ))?;
        if report.programs.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = output::table(&["PID", "PRIORITY", "STATE", "SINCE"]);
        for program in &report.programs {
            table.add_row([
                program.pid.to_string(),
                program.priority.to_string(),
                program.state.to_owned(),
                output::time(output::from_unix_ms(program.arrived_ms)),
            ]);
        }
        output::result(table.trim_fmt())?;
        Ok(ExitCode::SUCCESS)
    }
}
