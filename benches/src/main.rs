//! Benchmarks of wsnap.
//!
//! - [`programs`]: every program that runs for long enough, plain and suspendable, side by side in one process
//!   - [`guest`]: a program of `guest-examples/runs.toml` as something that can be started and resumed here
//!   - [`run`]: run time, bare and rewritten in turn
//!   - [`build`]: rewriting and compiling
//!   - [`stop`]: how soon a program stands still, what storing and resuming it costs, and how fast it is then
//!   - [`report`]: what becomes of these figures
//! - [`resume`]: how soon a resumed program executes its first instruction, and what idle clones of it cost
//! - [`snapshot`]: what a snapshot of a program that goes on costs, beside writing the same bytes to a file
//! - [`statistics`]: medians and percentiles
//!
//! Nothing here fails because something is slow: figures are for people, and for whoever compares two of them.

mod build;
mod guest;
mod programs;
mod report;
mod resume;
mod run;
mod snapshot;
mod statistics;
mod stop;

use clap::Parser;
use std::process::ExitCode;

/// Time programs bare and suspendable, and what stopping and resuming them costs
#[derive(Debug, Parser)]
#[command(
    name = "wsnap-bench",
    help_expected = true,
    args_conflicts_with_subcommands = true,
    subcommand_precedence_over_arg = true,
    after_help = "Examples:\n  cargo run --release -p wsnap-bench\n  cargo run --release -p wsnap-bench -- --rounds 11 pi quickjs\n  cargo run --release -p wsnap-bench -- --json > figures.json\n  cargo run --release -p wsnap-bench -- resume --sizes 1,1024\n  cargo run --release -p wsnap-bench -- snapshot --size 1024"
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    programs: programs::Arguments,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Time resuming prepared images, up to the first instruction and to the first result, and weigh idle clones
    Resume(resume::Arguments),
    /// Time snapshots of a program that goes on, beside writing the same bytes to a file
    Snapshot(snapshot::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.command {
        None => programs::measure_all(&arguments.programs),
        Some(Command::Resume(arguments)) => resume::measure_all(arguments),
        Some(Command::Snapshot(arguments)) => snapshot::measure_all(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
