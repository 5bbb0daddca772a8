//! Benchmarks of wsnap.
//!
//! - [`compare`]: every program of the table, by wsnap and by what there is else, side by side in one process
//!   - [`table`]: which programs there are: `benches/programs.toml`
//!   - [`guest`]: a program as something that can be started, resumed and checked here
//!   - [`ways`]: the ways to run a program; [`others`] are engines without wsnap, [`asyncify`] transforms the module
//!   - [`rounds`]: run times each way, in turn
//!   - [`build`]: rewriting and compiling
//!   - [`stop`]: how soon a program stands still, and what storing and resuming it costs
//!   - [`report`], [`plots`]: what becomes of these figures
//! - [`resume`]: how soon a resumed program executes its first instruction, and what idle clones of it cost
//! - [`snapshot`]: what a snapshot of a program that goes on costs, beside writing the same bytes to a file
//! - [`machine`], [`markdown`], [`statistics`], [`error`]: what they share
//!
//! Nothing here fails because something is slow: figures are for people, and for whoever compares two of them.

mod asyncify;
mod build;
mod compare;
mod error;
mod guest;
mod machine;
mod markdown;
mod others;
mod plots;
mod report;
mod resume;
mod rounds;
mod snapshot;
mod statistics;
mod stop;
mod table;
mod ways;

use clap::Parser;
use std::process::ExitCode;

/// Time programs by wsnap and by what there is else, and what stopping and resuming them costs
#[derive(Debug, Parser)]
#[command(
    name = "wsnap-bench",
    help_expected = true,
    after_help = "Examples:\n  cargo run --release -p wsnap-bench -- compare --out figures\n  cargo run --release -p wsnap-bench -- compare --rounds 11 --ways wsnap fib quickjs\n  cargo run --release -p wsnap-bench -- resume --sizes 1,1024\n  cargo run --release -p wsnap-bench -- snapshot --size 1024"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Time programs bare, with epochs, by wsnap, after a resume, with Asyncify, and interpreted
    Compare(compare::Arguments),
    /// Time resuming prepared images, up to the first instruction and to the first result, and weigh idle clones
    Resume(resume::Arguments),
    /// Time snapshots of a program that goes on, beside writing the same bytes to a file
    Snapshot(snapshot::Arguments),
}

fn main() -> ExitCode {
    let done = match &Arguments::parse().command {
        Command::Compare(arguments) => compare::measure_all(arguments),
        Command::Resume(arguments) => resume::measure_all(arguments),
        Command::Snapshot(arguments) => snapshot::measure_all(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
