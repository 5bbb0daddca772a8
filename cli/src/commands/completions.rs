//! `wsnap completions`.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

use crate::Cli;
use crate::failure::Failure;

/// Print a script that makes a shell complete wsnap's commands and flags
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  wsnap completions bash > ~/.local/share/bash-completion/completions/wsnap"
)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub fn execute(self) -> Result<ExitCode, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::definition(), "wsnap", &mut script);
        std::io::stdout().lock().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
