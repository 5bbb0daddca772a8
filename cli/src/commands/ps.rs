//! `wsnap ps`.

use std::process::ExitCode;

use clap::Args;

use crate::failure::Failure;
use crate::output;
use crate::places::Places;
use crate::session::register;

/// List the running programs
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wsnap ps\n  wsnap ps --json")]
pub(crate) struct Ps {
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

impl Ps {
    pub fn execute(self, places: &Places) -> Result<ExitCode, Failure> {
        let entries = register::running(&places.store_directory()?)?;
        if self.json {
            output::json_result(&entries)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = output::table(&["PID", "NAME", "RUNNING FOR", "MODULE"]);
        for entry in &entries {
            table.add_row([
                entry.pid.to_string(),
                entry.name.clone().unwrap_or_else(|| "-".to_owned()),
                output::duration(entry.age()),
                output::printable(&entry.module),
            ]);
        }
        output::result(table.trim_fmt())?;
        Ok(ExitCode::SUCCESS)
    }
}
