//! The `wsnap` command: runs WebAssembly programs, stops them anywhere, stores and resumes them.
//!
//! One module per command lies in `commands`; what a program needs while it runs (signals, the control socket, the
//! register of running programs) is in `session`. Results go to standard output, everything else to standard error.
//! This package alone reads the environment and the terminal.

mod arguments;
mod commands;
mod failure;
mod launch;
mod limits;
mod listen;
mod output;
mod places;
mod program;
mod rollout;
mod session;
mod supervised;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use arguments::{Directory, Label, Trigger, Variable};
use failure::Failure;
pub use listen::Listen;
use places::Places;

/// Runs WebAssembly programs that can be stopped anywhere, stored, and resumed elsewhere.
#[derive(Debug, Parser)]
#[command(
    name = "wsnap",
    version,
    help_expected = true,
    propagate_version = true,
    after_help = "Example:\n  wsnap run sim.wasm        # Ctrl-C stores the program and says how to go on\n  wsnap resume 3f2a9c01     # goes on, in another process or on another machine"
)]
pub struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(commands::run::Run),
    Resume(commands::resume::Resume),
    Snap(commands::snap::Snap),
    Ps(commands::ps::Ps),
    Slots(commands::slots::Slots),
    SlurmScript(commands::slurm_script::SlurmScript),
    Ls(commands::ls::Ls),
    Log(commands::log::Log),
    Inspect(commands::inspect::Inspect),
    Diff(commands::diff::Diff),
    Tag(commands::tag::Tag),
    Rm(commands::rm::Rm),
    Gc(commands::gc::Gc),
    Stats(commands::stats::Stats),
    Volume(commands::volume::VolumeCommand),
    Verify(commands::verify::Verify),
    Export(commands::export::Export),
    Import(commands::import::Import),
    Compile(commands::compile::Compile),
    Completions(commands::completions::Completions),
}

impl Cli {
    /// The command line's definition, for help and completions.
    pub fn definition() -> clap::Command {
        Self::command()
    }

    /// The program to run, if one is to be run.
    fn run(&self) -> Option<&commands::run::Run> {
        match &self.command {
            Command::Run(run) => Some(run),
            _ => None,
        }
    }

    fn execute(self) -> Result<ExitCode, Failure> {
        let places = &self.places;
        match self.command {
            Command::Run(command) => command.execute(places),
            Command::Resume(command) => command.execute(places),
            Command::Snap(command) => command.execute(places),
            Command::Ps(command) => command.execute(places),
            Command::Slots(command) => command.execute(),
            Command::SlurmScript(command) => command.execute(places),
            Command::Ls(command) => command.execute(places),
            Command::Log(command) => command.execute(places),
            Command::Inspect(command) => command.execute(places),
            Command::Diff(command) => command.execute(places),
            Command::Tag(command) => command.execute(places),
            Command::Rm(command) => command.execute(places),
            Command::Gc(command) => command.execute(places),
            Command::Stats(command) => command.execute(places),
            Command::Volume(command) => command.execute(places),
            Command::Verify(command) => command.execute(places),
            Command::Export(command) => command.execute(places),
            Command::Import(command) => command.execute(places),
            Command::Compile(command) => command.execute(places),
            Command::Completions(command) => command.execute(),
        }
    }
}

/// Parses this process's command line, executes it, and says how the process is to end.
///
/// Exits at once with code 2 when the command line is wrong.
pub fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(code) => code,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}
