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
//! - [`autosave`]: what images at intervals cost a program that goes on
//! - [`slots`]: how soon an urgent program runs that has to push another one aside
//! - [`startup`]: how long programs take to start from the [`shell`], or to be resumed where their module is new
//! - [`clones`]: a thousand of them, each answering a request
//! - [`growth`]: how all of this grows
//! - [`prewarmed`]: interpreters resumed where they wait for a script
//! - [`worker`], [`machine`], [`markdown`], [`output`], [`statistics`], [`error`]: what they share
//!
//! Nothing here fails because something is slow: figures are for people, and for whoever compares two of them.

mod asyncify;
mod autosave;
mod build;
mod clones;
mod compare;
mod error;
mod growth;
mod guest;
mod machine;
mod markdown;
mod others;
mod output;
mod plots;
mod prewarmed;
mod report;
mod resume;
mod rounds;
mod shell;
mod slots;
mod snapshot;
mod startup;
mod statistics;
mod stop;
mod table;
mod ways;
mod worker;

use clap::Parser;
use error::BenchError;
use output::Output;
use std::ffi::OsString;
use std::process::ExitCode;

/// Time programs by wsnap and by what there is else, and what stopping and resuming them costs
#[derive(Debug, Parser)]
#[command(
    name = "wsnap-bench",
    help_expected = true,
    after_help = "Examples:\n  cargo run --release -p wsnap-bench -- all --out figures\n  cargo run --release -p wsnap-bench -- compare --rounds 11 --ways wsnap fib quickjs\n  cargo run --release -p wsnap-bench -- resume --sizes 1,1024\n  cargo run --release -p wsnap-bench -- snapshot --size 1024"
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
    /// Weigh what images at intervals cost a program that writes little or much
    Autosave(autosave::Arguments),
    /// Time urgent programs that push others aside
    Slots(slots::Arguments),
    /// Time starting programs from the shell, with their code in the cache and without, and the first resume elsewhere
    Startup(startup::Arguments),
    /// Time many clones of a booted interpreter, each of which answers a request, and weigh them
    Clones(clones::Arguments),
    /// Time how everything grows with memory, stack, module, images and clones
    Growth(growth::Arguments),
    /// Time interpreters that are resumed where they wait for a script, beside starting them
    Prewarmed(prewarmed::Arguments),
    /// All of these, one after the other; an hour on a machine with nothing else to do
    All(Output),
}

/// The commands in the order in which `all` runs them.
const ALL: [&str; 9] = [
    "compare",
    "startup",
    "prewarmed",
    "resume",
    "clones",
    "snapshot",
    "autosave",
    "slots",
    "growth",
];

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<(), BenchError> {
    match command {
        Command::Compare(arguments) => compare::measure_all(arguments),
        Command::Resume(arguments) => resume::measure_all(arguments),
        Command::Snapshot(arguments) => snapshot::measure_all(arguments),
        Command::Autosave(arguments) => autosave::measure_all(arguments),
        Command::Slots(arguments) => slots::measure_all(arguments),
        Command::Startup(arguments) => startup::measure_all(arguments),
        Command::Clones(arguments) => clones::measure_all(arguments),
        Command::Growth(arguments) => growth::measure_all(arguments),
        Command::Prewarmed(arguments) => prewarmed::measure_all(arguments),
        Command::All(output) => run_all(output),
    }
}

/// Runs every command as it is without flags, also when an earlier one failed.
fn run_all(output: &Output) -> Result<(), BenchError> {
    let mut failures = 0;
    for command in ALL {
        let line = ["wsnap-bench", command].map(Into::into);
        let mut line: Vec<OsString> = line.into();
        if output.json {
            line.push("--json".into());
        }
        if let Some(folder) = &output.out {
            line.extend(["--out".into(), folder.into()]);
        }
        if let Err(error) = run(&Arguments::parse_from(line).command) {
            eprintln!("error: {command}: {error}");
            failures += 1;
        }
    }
    match failures {
        0 => Ok(()),
        _ => Err(BenchError::Failures(failures)),
    }
}
